//! Sections of the file, with the checks that every key goes through.

use std::path::{Path, PathBuf};

use super::secrets;
use crate::secret::Secret;
use crate::yaml::{self, Entry, Kind, Node, Place, Problems, Value};

/// What all sections share: where relative paths start, the environment, and the problems found so far.
pub(super) struct Reader<'a> {
    pub(super) base_dir: &'a Path,
    pub(super) environment: &'a dyn Fn(&str) -> Option<String>,
    problems: &'a Problems,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        base_dir: &'a Path,
        environment: &'a dyn Fn(&str) -> Option<String>,
        problems: &'a Problems,
    ) -> Self {
        Self {
            base_dir,
            environment,
            problems,
        }
    }

    /// Notes a problem and goes on, so that all are reported in one pass.
    pub(super) fn problem(&self, place: Place, message: impl Into<String>) {
        self.problems.note_plainly(place, message);
    }

    /// Notes a problem and what to do about it.
    pub(super) fn problem_with_help(
        &self,
        place: Place,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.problems.note(place, message, help);
    }

    /// A path of this machine: relative ones start at the configuration file, `~/` at the user's home.
    pub(super) fn path(&self, text: &str) -> PathBuf {
        match (text.strip_prefix("~/"), (self.environment)("HOME")) {
            (Some(rest), Some(home)) if home.starts_with('/') => Path::new(&home).join(rest),
            _ => self.base_dir.join(text.strip_prefix("./").unwrap_or(text)),
        }
    }

    /// The value of the environment variable that `name` names.
    pub(super) fn secret(&self, name: Text<'_>) -> Option<Secret> {
        if !is_variable_name(name.text) {
            // Whoever writes the secret itself here must not find it on the terminal.
            self.problem_with_help(
                name.place,
                format!("`{}` is the name of an environment variable", name.key),
                "write the secret into an environment variable, and the name of that variable here",
            );
            return None;
        }
        match (self.environment)(name.text).filter(|value| !value.is_empty()) {
            Some(value) => Some(Secret::new(value)),
            None => {
                self.problem_with_help(
                    name.place,
                    format!("the environment variable {} is not set", name.text),
                    format!("`{}` names the variable that holds the secret: set it", name.key),
                );
                None
            }
        }
    }
}

/// Whether a text can be the name of an environment variable, and is not itself a well-known kind of token.
pub(super) fn is_variable_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.len() <= 100
        && secrets::in_text(text).is_none()
}

/// A text with its place and the key that it is the value of.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) key: &'a str,
    pub(super) text: &'a str,
    pub(super) place: Place,
}

/// A mapping, whose keys are all known.
pub(super) struct Section<'a> {
    pub(super) reader: &'a Reader<'a>,
    section: yaml::Section<'a>,
}

impl<'a> Section<'a> {
    /// Takes a mapping; reports keys other than `keys`.
    pub(super) fn of(
        reader: &'a Reader<'a>,
        node: &'a Node,
        name: &str,
        keys: &[&'static str],
    ) -> Option<Self> {
        let section = yaml::Section::of(reader.problems, node, name, keys)?;
        Some(Self { reader, section })
    }

    pub(super) fn place(&self) -> Place {
        self.section.place()
    }

    /// Where the value of a key is; where the section begins when the key is not there.
    pub(super) fn place_of(&self, key: &str) -> Place {
        self.entry(key).map_or(
            Place {
                width: 1,
                ..self.place()
            },
            |entry| entry.node.place,
        )
    }

    pub(super) fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.section.entry(key)
    }

    /// Whether a key is not there, not even misspelled.
    pub(super) fn lacks(&self, key: &str) -> bool {
        self.section.lacks(key)
    }

    /// The value of a key; a key without a value is a problem.
    pub(super) fn node(&self, key: &str) -> Option<&'a Node> {
        self.section.node(key)
    }

    /// The text of a key whose value must be a text.
    pub(super) fn text(&self, key: &'static str) -> Option<Text<'a>> {
        let node = self.node(key)?;
        match &node.value {
            Value::Scalar {
                text,
                kind: Kind::Text,
            } => self.check_text(Text {
                key,
                text,
                place: node.place,
            }),
            other => {
                self.reader
                    .problem(node.place, format!("`{key}` is a text; this is {}", other.kind()));
                None
            }
        }
    }

    /// The text of a key, as it stands in the file, whether YAML takes it for a text or for a number.
    pub(super) fn scalar(&self, key: &'static str) -> Option<Text<'a>> {
        let node = self.node(key)?;
        self.check_text(self.scalar_of(node, key, false)?)
    }

    /// The text of a node that is no list and no section.
    pub(super) fn scalar_of(&self, node: &'a Node, key: &'a str, booleans: bool) -> Option<Text<'a>> {
        match &node.value {
            Value::Scalar { text, kind } if booleans || *kind != Kind::Boolean => Some(Text {
                key,
                text,
                place: node.place,
            }),
            other => {
                self.reader
                    .problem(node.place, format!("`{key}` is a text; this is {}", other.kind()));
                None
            }
        }
    }

    /// Refuses what no text of a configuration has, and secrets.
    pub(super) fn check_text(&self, text: Text<'a>) -> Option<Text<'a>> {
        if text.text.is_empty() || text.text.chars().any(char::is_control) {
            self.reader.problem(
                text.place,
                format!("`{}` is empty or holds a control character", text.key),
            );
            return None;
        }
        Some(text)
    }

    /// The items of a list.
    pub(super) fn list(&self, key: &'static str, of: &str) -> Option<&'a [Node]> {
        let node = self.node(key)?;
        if let Value::List(items) = &node.value {
            return Some(items);
        }
        self.reader.problem(
            node.place,
            format!("`{key}` is a list of {of}; this is {}", node.value.kind()),
        );
        None
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, key: &'static str) -> Option<bool> {
        let node = self.node(key)?;
        match &node.value {
            Value::Scalar {
                text,
                kind: Kind::Boolean,
            } => Some(text.eq_ignore_ascii_case("true")),
            other => {
                self.reader.problem(
                    node.place,
                    format!("`{key}` is true or false; this is {}", other.kind()),
                );
                None
            }
        }
    }

    /// Reports that a key is missing.
    pub(super) fn missing(&self, message: impl Into<String>, help: impl Into<String>) {
        // A section begins at its first key, which is not what is wrong.
        let place = Place {
            width: 1,
            ..self.place()
        };
        self.reader.problem_with_help(place, message, help);
    }

    /// Reports keys that make no sense beside something else in the section.
    pub(super) fn refuse(&self, keys: &[&str], because: &str, help: &str) {
        for key in keys {
            if let Some(entry) = self.entry(key) {
                self.reader
                    .problem_with_help(entry.place, format!("`{key}` {because}"), help);
            }
        }
    }
}
