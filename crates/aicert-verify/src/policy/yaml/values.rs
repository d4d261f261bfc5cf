//! Values of a policy, with the checks that each goes through.

use aicert_core::text::is_deceptive;
use aicert_core::yaml::{Kind, Node, Place, Problems, Value, similar_or};

/// The longest text that a policy holds, in bytes: as long as logs have them.
const TEXT_LIMIT: usize = 8_192;

/// A text and where it is.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) text: &'a str,
    pub(super) place: Place,
}

/// The text of a value; numbers as they stand in the file, where `numbers` says so.
pub(super) fn text<'a>(problems: &Problems, node: &'a Node, name: &str, numbers: bool) -> Option<Text<'a>> {
    let text = match &node.value {
        Value::Scalar { text, kind } if *kind == Kind::Text || (numbers && *kind == Kind::Number) => text,
        other => {
            problems.note(
                node.place,
                format!("{name} is a text; this is {}", other.kind()),
                "put it in quotes if it is meant",
            );
            return None;
        }
    };
    if text.trim().is_empty() || text.len() > TEXT_LIMIT || text.chars().any(is_deceptive) {
        problems.note(
            node.place,
            format!("{name} is empty or too long, or holds a character that is not seen"),
            "write it as the proof shows it",
        );
        return None;
    }
    Some(Text {
        text,
        place: node.place,
    })
}

/// The items of a list, which has some.
pub(super) fn list<'a>(problems: &Problems, node: &'a Node, name: &str, of: &str) -> &'a [Node] {
    match &node.value {
        Value::List(items) if !items.is_empty() => return items,
        Value::List(_) => problems.note(
            node.place,
            format!("{name} is empty"),
            "remove the key if nothing is demanded",
        ),
        other => problems.note(
            node.place,
            format!("{name} is a list of {of}; this is {}", other.kind()),
            "write it as `[a, b]`, or each item on a line that begins with `- `",
        ),
    }
    &[]
}

/// One of several words.
pub(super) fn choice<T: Copy>(
    problems: &Problems,
    node: &Node,
    name: &str,
    choices: &[(&'static str, T)],
) -> Option<T> {
    let text = match &node.value {
        Value::Scalar { text, .. } => text.as_str(),
        _ => "",
    };
    let found = choices
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, value)| *value);
    if found.is_none() {
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        let shown = match &node.value {
            Value::Scalar { text, .. } => {
                format!("`{}`", text.escape_debug().take(60).collect::<String>())
            }
            other => other.kind().to_owned(),
        };
        problems.note(
            node.place,
            format!("{name} is {}; this is {shown}", words.join(" or ")),
            similar_or(text, &words, || format!("the values are {}", words.join(", "))),
        );
    }
    found
}

/// `true` or `false`.
pub(super) fn boolean(problems: &Problems, node: &Node, name: &str) -> Option<bool> {
    match &node.value {
        Value::Scalar {
            text,
            kind: Kind::Boolean,
        } => Some(text.eq_ignore_ascii_case("true")),
        other => {
            problems.note(
                node.place,
                format!("{name} is true or false; this is {}", other.kind()),
                "write it without quotes",
            );
            None
        }
    }
}
