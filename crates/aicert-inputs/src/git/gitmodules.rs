//! Reading `.gitmodules`: the part of the format of `git-config(1)` that git itself writes there.
//!
//! libgit2's own reader would follow `include.path` to files of this machine.

use std::collections::BTreeMap;

/// From the path of each submodule to its URL. What makes no sense is left out: a submodule without URL is an error
/// where it is needed.
pub(super) fn parse(text: &str) -> BTreeMap<String, String> {
    let mut modules: BTreeMap<String, (Option<String>, Option<String>)> = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            current = section(header);
            continue;
        }
        let (Some(name), Some((key, value))) = (&current, line.split_once('=')) else {
            continue;
        };
        let Some(value) = unquote(value.trim()) else {
            continue;
        };
        let module = modules.entry(name.clone()).or_default();
        // As in git, the last of several values counts.
        match key.trim().to_ascii_lowercase().as_str() {
            "path" => module.0 = Some(value),
            "url" => module.1 = Some(value),
            _ => {}
        }
    }
    modules
        .into_values()
        .filter_map(|(path, url)| Some((path?.trim_end_matches('/').to_owned(), url?)))
        .collect()
}

/// The name in `submodule "name"]`.
fn section(header: &str) -> Option<String> {
    let (kind, rest) = header.split_once('"')?;
    let (name, end) = rest.rsplit_once('"')?;
    let plain = kind.trim().eq_ignore_ascii_case("submodule") && end.trim_start().starts_with(']');
    plain.then(|| name.to_owned())
}

/// A value without quotes, escapes and comment; nothing when it does not end on its line.
fn unquote(value: &str) -> Option<String> {
    let (mut out, mut quoted, mut chars) = (String::new(), false, value.chars());
    // Where the value ends if only blanks follow.
    let mut end = 0;
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' => match chars.next()? {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'b' => out.push('\u{8}'),
                c @ ('"' | '\\') => out.push(c),
                _ => return None,
            },
            '#' | ';' if !quoted => break,
            c => {
                out.push(c);
                if c.is_whitespace() && !quoted {
                    continue;
                }
            }
        }
        end = out.len();
    }
    out.truncate(end);
    (!quoted).then_some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_git_writes_is_read() {
        let text = "# comment\n[submodule \"libs/a\"]\n\tpath = libs/a\n\turl = ../a.git ; comment\n\
                    [submodule \"q\"]\n\tPATH = \"with # and \\\"quotes\\\"\"\n\tUrl = https://host/a\n\tbranch = x\n\
                    [include]\n\tpath = /etc/passwd\n\turl = x\n[submodule \"no-url\"]\npath = b\n\
                    [submodule \"twice\"]\npath = c\nurl = first\nurl = second\n[submodule \"bad\"]\npath = \"d\nurl = e";
        let expected = [
            ("c", "second"),
            ("libs/a", "../a.git"),
            ("with # and \"quotes\"", "https://host/a"),
        ];
        assert_eq!(
            parse(text)
                .iter()
                .map(|(a, b)| (a.as_str(), b.as_str()))
                .collect::<Vec<_>>(),
            expected
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(\\[submodule \"|\\]|path|url|=|\\\\|\"|#|\n| |\\PC){0,40}") {
            let _ = parse(&text);
        }
    }
}
