//! Text from outside that is shown to people: names, addresses, messages.

/// The longest text that the log takes for a name, an address or a revision.
pub(crate) const PLAIN_LIMIT: usize = 8_192;

/// Whether a character could make a terminal or a reader see something else than what is there: control characters, and
/// those that change the order or the presence of their neighbours (Unicode Technical Report 36, section 2.5).
pub fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{3164}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The lines of a text, which end as YAML's do (YAML 1.2.2, section 5.4): with CR LF, LF or CR.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let Some((line, behind)) = text.split_once(['\n', '\r']) else {
            return Some(text);
        };
        let is_pair = text[line.len()..].starts_with("\r\n");
        rest = Some(if is_pair { &behind[1..] } else { behind });
        Some(line)
    })
}

/// Says why a text is not one line that looks like what it is; nothing when it is one.
pub(crate) fn deceives(text: &str) -> Option<&'static str> {
    if text.len() > PLAIN_LIMIT {
        Some("is longer than 8192 bytes")
    } else if text.chars().any(is_deceptive) {
        Some("holds a control character, or one that hides others or changes their order")
    } else {
        None
    }
}

/// At most `limit` characters of a text, with everything escaped that is not what it looks like.
pub fn printable(text: &str, limit: usize) -> String {
    let mut out = String::new();
    for character in text.chars().take(limit) {
        if is_deceptive(character) {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    if text.chars().nth(limit).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_in_three_ways() {
        let found: Vec<_> = lines("a\nb\r\nc\rd\r\r\n\ne").collect();
        assert_eq!(found, ["a", "b", "c", "d", "", "", "e"]);
        for end in ["\n", "\r\n", "\r"] {
            assert!(lines(&format!("a{end}")).eq(["a", ""]));
        }
        assert!(lines("").eq([""]));
    }
}
