//! What clouds say in their errors, as it may be shown.

use aicert_core::text::is_deceptive;

/// The longest message of a cloud that is shown, in bytes.
const LIMIT: usize = 600;

/// What a cloud says, as one line that is safe to show: without control characters and those that deceive
/// ([`is_deceptive`]), any white space as one space, and not longer than 600 bytes, with `…` where it was cut.
pub fn one_line(text: &str) -> String {
    let shown = |c: &char| !c.is_control() && !is_deceptive(*c);
    let mut line = String::new();
    for word in text.split_whitespace() {
        let mut word = word.chars().filter(shown).peekable();
        if !line.is_empty() && word.peek().is_some() {
            line.push(' ');
        }
        line.extend(word);
        if line.len() > LIMIT {
            line.truncate(line.floor_char_boundary(LIMIT));
            line.push('…');
            break;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_terminals_act_upon_is_left_out() {
        assert_eq!(one_line("a\r\n\u{1b}[31mb\u{202e}c \u{7}"), "a [31mbc");
        assert_eq!(one_line("  \n "), "");
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        for text in [
            "ä".repeat(5000),
            "ab ".repeat(5000),
            "a".to_owned() + &"€".repeat(400),
        ] {
            let line = one_line(&text);
            assert!(
                line.ends_with('…') && line.len() <= LIMIT + '…'.len_utf8(),
                "{}",
                line.len()
            );
        }
        let fits = "a".repeat(LIMIT);
        assert_eq!(one_line(&fits), fits);
    }
}
