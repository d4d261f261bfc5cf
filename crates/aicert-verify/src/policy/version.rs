//! Versions of Python packages, as far as it takes to say whether two are the same (PEP 440, "Normalization" and
//! appendix B).

/// A version in its one spelling. Trailing zeros of the release are left out: `1.0` and `1.0.0` are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) public: String,
    pub(super) local: Option<String>,
}

/// Longest first, so that no label is taken for the beginning of another.
const PRE: [(&str, &str); 8] = [
    ("preview", "rc"),
    ("alpha", "a"),
    ("beta", "b"),
    ("pre", "rc"),
    ("rc", "rc"),
    ("a", "a"),
    ("b", "b"),
    ("c", "rc"),
];
const POST: [(&str, &str); 3] = [("post", ".post"), ("rev", ".post"), ("r", ".post")];
const DEV: [(&str, &str); 1] = [("dev", ".dev")];

/// Reads a version in any of the spellings that there are.
pub(super) fn parse(text: &str) -> Option<Parts> {
    let text = text.trim().to_ascii_lowercase();
    if text.len() > 200 || !text.is_ascii() {
        return None;
    }
    let text = text.strip_prefix('v').unwrap_or(&text);
    let (public, local) = match text.split_once('+') {
        Some((public, local)) => (public, Some(parse_local(local)?)),
        None => (text, None),
    };
    Some(Parts {
        public: parse_public(public)?,
        local,
    })
}

fn parse_public(text: &str) -> Option<String> {
    let mut rest = Rest(text);
    let mut first = rest.number()?;
    let mut public = String::new();
    if rest.take("!") {
        if first != "0" {
            public = format!("{first}!");
        }
        first = rest.number()?;
    }
    let mut release = vec![first];
    while rest
        .0
        .strip_prefix('.')
        .is_some_and(|after| after.starts_with(|c: char| c.is_ascii_digit()))
    {
        rest.take(".");
        release.push(rest.number()?);
    }
    while release.len() > 1 && release.last() == Some(&"0") {
        release.pop();
    }
    public.push_str(&release.join("."));
    rest.label(&PRE, &mut public);
    // The one label that may be left out: 1.0-1 is 1.0.post1.
    let implicit = rest
        .0
        .strip_prefix('-')
        .map(Rest)
        .and_then(|mut after| after.number().map(|n| (n, after)));
    if let Some((number, after)) = implicit {
        public.push_str(&format!(".post{number}"));
        rest = after;
    } else {
        rest.label(&POST, &mut public);
    }
    rest.label(&DEV, &mut public);
    rest.0.is_empty().then_some(public)
}

fn parse_local(text: &str) -> Option<String> {
    let segments: Option<Vec<_>> = text
        .split(['-', '_', '.'])
        .map(|segment| {
            let valid = !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric());
            let number = segment.bytes().all(|b| b.is_ascii_digit());
            valid.then(|| if number { without_zeros(segment) } else { segment })
        })
        .collect();
    Some(segments?.join("."))
}

/// What is left to read.
#[derive(Clone, Copy)]
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn take(&mut self, token: &str) -> bool {
        let after = self.0.strip_prefix(token);
        self.0 = after.unwrap_or(self.0);
        after.is_some()
    }

    fn number(&mut self) -> Option<&'a str> {
        let end = self.0.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.0.len());
        let (digits, after) = self.0.split_at(end);
        self.0 = after;
        (!digits.is_empty()).then(|| without_zeros(digits))
    }

    fn separator(&mut self) {
        self.0 = self.0.strip_prefix(['-', '_', '.']).unwrap_or(self.0);
    }

    /// Takes one of the labels with its number, 0 when it has none, and the separators around it.
    fn label(&mut self, labels: &[(&str, &str)], into: &mut String) {
        let mut rest = *self;
        rest.separator();
        let Some((_, normal)) = labels.iter().find(|(label, _)| rest.take(label)) else {
            return;
        };
        let mut after = rest;
        after.separator();
        let number = after.number();
        *self = if number.is_some() { after } else { rest };
        into.push_str(normal);
        into.push_str(number.unwrap_or("0"));
    }
}

fn without_zeros(digits: &str) -> &str {
    let trimmed = digits.trim_start_matches('0');
    if trimmed.is_empty() { "0" } else { trimmed }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        let parts = parse(text).unwrap_or_else(|| panic!("{text}"));
        match parts.local {
            Some(local) => format!("{}+{local}", parts.public),
            None => parts.public,
        }
    }

    /// Examples of PEP 440, and what `packaging.version.Version` makes of them; trailing zeros apart.
    #[test]
    fn spellings_of_one_version_are_one() {
        for (text, expected) in [
            ("1.26.4", "1.26.4"),
            (" v1.26.4\n", "1.26.4"),
            ("1.0.0", "1"),
            ("0.0", "0"),
            ("01.002.0", "1.2"),
            ("1.1RC1", "1.1rc1"),
            ("1.1.a1", "1.1a1"),
            ("1.1-a.1", "1.1a1"),
            ("1.1alpha", "1.1a0"),
            ("1.1beta2", "1.1b2"),
            ("1.1c3", "1.1rc3"),
            ("1.1pre4", "1.1rc4"),
            ("1.1preview_5", "1.1rc5"),
            ("1.2.post-2", "1.2.post2"),
            ("1.2-post2", "1.2.post2"),
            ("1.2post", "1.2.post0"),
            ("1.0-r4", "1.post4"),
            ("1.0rev", "1.post0"),
            ("1.0-1", "1.post1"),
            ("1.2-dev2", "1.2.dev2"),
            ("1.2.dev", "1.2.dev0"),
            ("1.0a1.post2.dev3", "1a1.post2.dev3"),
            ("1!2.0", "1!2"),
            ("0!2.0", "2"),
            ("1.0+Ubuntu-1", "1+ubuntu.1"),
            ("1.0+cu_118.007", "1+cu.118.7"),
            ("99999999999999999999999999", "99999999999999999999999999"),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in [
            "",
            "v",
            "1.*",
            "1..0",
            ".1",
            "1.",
            "french toast",
            "1.0+",
            "1.0+a..b",
            "1.0+a+b",
            "1.0-",
            "!1",
            "1!",
            "1.0 0",
            "１.0",
            "1.0x1",
            "1.0+é",
            "1.0\u{200b}",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert_eq!(parse(&"1".repeat(1000)), None);
    }

    proptest! {
        #[test]
        fn the_one_spelling_is_stable(text in "[vV]?[0-9]{1,3}(\\.[0-9]{1,3}){0,3}[-_.]?(a|b|rc|post|dev|pre)?[-_.]?[0-9]{0,2}(\\+[a-z0-9.]{1,6})?") {
            if let Some(parts) = parse(&text) {
                let again = parse(&parts.public).map(|again| again.public);
                prop_assert_eq!(again, Some(parts.public));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}") {
            let _ = parse(&text);
        }
    }
}
