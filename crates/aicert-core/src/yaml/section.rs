//! Sections of a document, whose keys are known.

use super::error::{PROBLEM_LIMIT, Place, Problems};
use super::node::{Entry, Node, Value};

/// What of a key or a word is shown, in characters; words that are compared are no longer.
const SHOWN: usize = 60;

/// A mapping, whose keys are all known.
#[derive(Debug)]
pub struct Section<'a> {
    problems: &'a Problems,
    place: Place,
    entries: &'a [Entry],
    /// The known keys that unknown ones probably mean.
    misspelled: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// Takes a mapping; notes keys other than `keys`.
    pub fn of(problems: &'a Problems, node: &'a Node, name: &str, keys: &[&'static str]) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            problems.note(
                node.place,
                format!("{name} is a section with keys; this is {}", node.value.kind()),
                format!("its keys are {}", keys.join(", ")),
            );
            return None;
        };
        let mut misspelled = Vec::new();
        let unknown = entries.iter().filter(|entry| !keys.contains(&entry.key.as_str()));
        // Of more, no problem is kept.
        for entry in unknown.take(PROBLEM_LIMIT) {
            let shown: String = entry.key.escape_debug().take(SHOWN).collect();
            let meant = similar(&entry.key, keys);
            misspelled.extend(meant);
            problems.note(
                entry.place,
                format!("unknown key `{shown}` in {name}"),
                question_or(meant, || format!("the keys here are {}", keys.join(", "))),
            );
        }
        Some(Self {
            problems,
            place: node.place,
            entries,
            misspelled,
        })
    }

    /// Where it begins.
    pub fn place(&self) -> Place {
        self.place
    }

    /// A key with its value, if it is there.
    pub fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Whether a key is not there, not even misspelled.
    pub fn lacks(&self, key: &str) -> bool {
        self.entry(key).is_none() && !self.misspelled.contains(&key)
    }

    /// The value of a key; a key without a value is a problem.
    pub fn node(&self, key: &str) -> Option<&'a Node> {
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

/// What to do about a word that is not known: asks for the known one that was probably meant; else says `otherwise`.
pub fn similar_or(found: &str, known: &[&str], otherwise: impl FnOnce() -> String) -> String {
    question_or(similar(found, known), otherwise)
}

fn question_or(meant: Option<&str>, otherwise: impl FnOnce() -> String) -> String {
    meant.map_or_else(otherwise, |word| format!("did you mean `{word}`?"))
}

/// The known word that someone probably meant.
fn similar<'k>(found: &str, known: &[&'k str]) -> Option<&'k str> {
    let plain = |text: &str| -> String {
        text.chars()
            .filter(|c| c.is_alphanumeric())
            .take(SHOWN)
            .flat_map(char::to_lowercase)
            .collect()
    };
    let found = plain(found);
    known
        .iter()
        .map(|word| (strsim::damerau_levenshtein(&found, &plain(word)), *word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}
