//! Sections of the file, with the checks that every key goes through.

use std::cell::RefCell;

use aicert_core::text::is_deceptive;

use super::error::{PROBLEM_LIMIT, Place, PolicyProblem};
use super::node::{Entry, Kind, Node, Value};

/// The longest text that a policy holds, in bytes: as long as logs have them.
const TEXT_LIMIT: usize = 8_192;

/// The problems found so far.
#[derive(Default)]
pub(super) struct Problems(RefCell<Vec<PolicyProblem>>);

impl Problems {
    /// Notes a problem and goes on, so that all are reported in one pass.
    pub(super) fn note(&self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        let mut problems = self.0.borrow_mut();
        if problems.len() < PROBLEM_LIMIT {
            problems.push(PolicyProblem::new(place, message, Some(help.into())));
        }
    }

    pub(super) fn into_inner(self) -> Vec<PolicyProblem> {
        self.0.into_inner()
    }

    /// The text of a value; numbers as they stand in the file, where `numbers` says so.
    pub(super) fn text<'a>(&self, node: &'a Node, name: &str, numbers: bool) -> Option<Text<'a>> {
        let text = match &node.value {
            Value::Scalar { text, kind } if *kind == Kind::Text || (numbers && *kind == Kind::Number) => text,
            other => {
                self.note(
                    node.place,
                    format!("{name} is a text; this is {}", other.kind()),
                    "put it in quotes if it is meant",
                );
                return None;
            }
        };
        if text.trim().is_empty() || text.len() > TEXT_LIMIT || text.chars().any(is_deceptive) {
            self.note(
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
    pub(super) fn list<'a>(&self, node: &'a Node, name: &str, of: &str) -> &'a [Node] {
        match &node.value {
            Value::List(items) if !items.is_empty() => return items,
            Value::List(_) => self.note(
                node.place,
                format!("{name} is empty"),
                "remove the key if nothing is demanded",
            ),
            other => self.note(
                node.place,
                format!("{name} is a list of {of}; this is {}", other.kind()),
                "write it as `[a, b]`, or each item on a line that begins with `- `",
            ),
        }
        &[]
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(
        &self,
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
            self.note(
                node.place,
                format!("{name} is {}; this is {shown}", words.join(" or ")),
                help(text, &words, "values"),
            );
        }
        found
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, node: &Node, name: &str) -> Option<bool> {
        match &node.value {
            Value::Scalar {
                text,
                kind: Kind::Boolean,
            } => Some(text.eq_ignore_ascii_case("true")),
            other => {
                self.note(
                    node.place,
                    format!("{name} is true or false; this is {}", other.kind()),
                    "write it without quotes",
                );
                None
            }
        }
    }
}

/// A text and where it is.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) text: &'a str,
    pub(super) place: Place,
}

/// A mapping, whose keys are all known.
pub(super) struct Section<'a> {
    pub(super) problems: &'a Problems,
    pub(super) place: Place,
    entries: &'a [Entry],
}

impl<'a> Section<'a> {
    /// Takes a mapping; reports keys other than `keys`.
    pub(super) fn of(
        problems: &'a Problems,
        node: &'a Node,
        name: &str,
        keys: &[&'static str],
    ) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            problems.note(
                node.place,
                format!("{name} is a section with keys; this is {}", node.value.kind()),
                format!("its keys are {}", keys.join(", ")),
            );
            return None;
        };
        let unknown = entries.iter().filter(|entry| !keys.contains(&entry.key.as_str()));
        // Of more, no problem is kept.
        for entry in unknown.take(PROBLEM_LIMIT) {
            let shown: String = entry.key.escape_debug().take(60).collect();
            problems.note(
                entry.place,
                format!("unknown key `{shown}` in {name}"),
                help(&entry.key, keys, "keys here"),
            );
        }
        Some(Self {
            problems,
            place: node.place,
            entries,
        })
    }

    pub(super) fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// The value of a key; a key without a value is a problem.
    pub(super) fn node(&self, key: &str) -> Option<&'a Node> {
        let entry = self.entry(key)?;
        if matches!(entry.node.value, Value::Null) {
            self.problems.note(
                entry.place,
                format!("`{key}` has no value"),
                "give it one, or remove the key",
            );
            return None;
        }
        Some(&entry.node)
    }
}

/// Names the known word that someone probably meant, or all of them.
pub(super) fn help(found: &str, known: &[&str], what: &str) -> String {
    let plain = |text: &str| -> String {
        text.chars()
            .filter(|c| c.is_alphanumeric())
            .take(60)
            .flat_map(char::to_lowercase)
            .collect()
    };
    let found = plain(found);
    let nearest = known
        .iter()
        .map(|word| (strsim::damerau_levenshtein(&found, &plain(word)), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((_, word)) => format!("did you mean `{word}`?"),
        None => format!("the {what} are {}", known.join(", ")),
    }
}
