//! What a machine wrote to its console, as a cloud hands it out.

use aicert_core::text::is_deceptive;

/// How much of a console is shown: its end.
const SHOWN: usize = 64 << 10;

/// The end of what a machine wrote, safe to show on a terminal: firmware moves the cursor about, and changes colours.
pub fn console_text(written: &[u8]) -> String {
    let text = String::from_utf8_lossy(&written[written.len().saturating_sub(SHOWN)..]);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            // Control sequences (ECMA-48, section 5.4): parameters, intermediates, and one final character.
            '\u{1b}' if rest.next_if_eq(&'[').is_some() => {
                while rest.next_if(|character| matches!(character, ' '..='?')).is_some() {}
                rest.next_if(|character| matches!(character, '@'..='~'));
            }
            '\n' | '\t' => out.push(character),
            // With a line feed behind it, the end of a line; otherwise a line that is written over another.
            '\r' if matches!(rest.peek(), Some('\n' | '\r')) => {}
            '\r' => out.push('\n'),
            other if other.is_control() => {}
            other if is_deceptive(other) => out.extend(other.escape_unicode()),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_shown_moves_the_cursor() {
        let written = b"\x1b[2J\x1b[01;01HBdsDxe: failed\r\n\x1b]0;title\x07 10%\r20%\r\n\xff";
        assert_eq!(
            console_text(written),
            "BdsDxe: failed\n]0;title 10%\n20%\n\u{fffd}"
        );
        assert_eq!(console_text("a\u{202e}b".as_bytes()), "a\\u{202e}b");
    }

    #[test]
    fn the_end_is_shown() {
        let mut written = vec![b'x'; SHOWN];
        written.extend(b"end");
        let shown = console_text(&written);
        assert_eq!(shown.len(), SHOWN);
        assert!(shown.ends_with("end"));
    }
}
