//! YAML with the place of every value, so that every later check can point at it.

use std::fmt;

use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use serde_saphyr::options::{MergeKeyPolicy, NonFiniteFloatPolicy};

use super::Document;
use super::error::{Place, Problem, plain};

/// The largest document that is read, in bytes.
const SIZE_LIMIT: usize = 1 << 20;

/// The deepest nesting that is read. Reading is recursive, on stacks that may be small; configurations go five deep.
const DEPTH_LIMIT: usize = 12;

/// A value and where it is.
#[derive(Debug)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// The value.
    pub value: Value,
}

/// A value.
#[derive(Debug)]
pub enum Value {
    /// Nothing, or `null`.
    Null,
    /// A text, a number, or `true` or `false`.
    Scalar {
        /// What stands in the file, whatever type YAML gives it: the version `1.10` is not 1.1.
        text: String,
        /// The type that YAML gives it.
        kind: Kind,
    },
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file; no key stands twice.
    Map(Vec<Entry>),
}

/// The type that YAML gives to a scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
}

/// A key with its value.
#[derive(Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key begins.
    pub place: Place,
    /// The value.
    pub node: Node,
}

impl Value {
    /// What it is, for error messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar { kind: Kind::Text, .. } => "a text",
            Self::Scalar {
                kind: Kind::Boolean, ..
            } => "true or false",
            Self::Scalar { .. } => "a number",
            Self::List(_) => "a list",
            Self::Map(_) => "a section with keys",
        }
    }
}

/// Reads the text of a document.
pub(super) fn parse(document: &Document, text: &str) -> Result<Node, Problem> {
    if text.len() > SIZE_LIMIT {
        let message = format!("the {} is larger than 1 MiB", document.name);
        return Err(Problem::new(Place::START, message, None));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_anchors: 0,
            max_aliases: 0,
            max_depth: DEPTH_LIMIT,
            // One more: the budget refuses first, and says why.
            flow_nesting_limit: DEPTH_LIMIT + 1,
        },
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
    };
    let error = match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => return Ok(locate(raw, text)),
        Err(error) => error,
    };
    let place = error.location().map_or(Place::START, |location| place(&location));
    match error.without_snippet() {
        serde_saphyr::Error::Eof { .. } => Ok(Node {
            place,
            value: Value::Null,
        }),
        error => {
            let (message, help) = explain(document, error);
            Err(Problem::new(place, message, help.map(str::to_owned)))
        }
    }
}

fn explain(document: &Document, error: &serde_saphyr::Error) -> (String, Option<&'static str>) {
    use serde_saphyr::Error as E;
    use serde_saphyr::budget::BudgetBreach;
    let name = document.name;
    match error {
        E::DuplicateMappingKey { key: Some(key), .. } => {
            (format!("the key `{}` stands twice", clean(key)), document.twice)
        }
        E::MultipleDocuments { .. } => (
            format!("a second document begins here: a {name} is one document"),
            None,
        ),
        E::Budget {
            breach: BudgetBreach::Anchors { .. } | BudgetBreach::Aliases { .. },
            ..
        }
        | E::UnknownAnchor { .. } => (
            format!("a {name} has no anchors (`&`) and aliases (`*`)"),
            Some("write the value where it counts; quote a text that begins with `&` or `*`"),
        ),
        E::Budget {
            breach: BudgetBreach::Depth { .. },
            ..
        } => (format!("this is nested deeper than any {name}"), None),
        other => {
            let text = other.render_with_formatter(&serde_saphyr::UserMessageFormatter);
            // The position is said once, by us.
            let text = text.split(" at line ").next().unwrap_or(&text);
            (format!("this is not readable as YAML: {}", clean(text)), None)
        }
    }
}

fn clean(text: &str) -> String {
    text.chars().map(plain).take(300).collect()
}

fn place(location: &serde_saphyr::Location) -> Place {
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Place {
        line: small(location.line()).max(1),
        column: small(location.column()).max(1),
        width: small(location.span().len()).max(1),
    }
}

/// A value before its source text is looked up.
#[derive(Debug)]
enum Raw {
    Null,
    Text(String),
    Other(Kind, String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

fn locate(raw: Spanned<Raw>, text: &str) -> Node {
    let source = || {
        let span = raw.defined.span();
        let start = usize::try_from(span.byte_offset()?).ok()?;
        let end = start.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
        Some(text.get(start..end)?.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Text(text) => Value::Scalar {
            text,
            kind: Kind::Text,
        },
        Raw::Other(kind, ref shown) => Value::Scalar {
            text: source().unwrap_or_else(|| shown.clone()),
            kind,
        },
        Raw::List(items) => Value::List(items.into_iter().map(|item| locate(item, text)).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, node)| Entry {
                    place: place(&key.referenced),
                    key: key.value,
                    node: locate(node, text),
                })
                .collect(),
        ),
    };
    Node {
        place: place(&raw.referenced),
        value,
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RawVisitor;

        impl<'de> Visitor<'de> for RawVisitor {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
                Ok(Raw::Other(Kind::Boolean, value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
                Ok(Raw::Other(Kind::Number, value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
                Ok(Raw::Other(Kind::Number, value.to_string()))
            }

            fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
                Ok(Raw::Other(Kind::Number, value.to_string()))
            }

            fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
                Ok(Raw::Other(Kind::Number, value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
                Ok(Raw::Other(Kind::Number, value.to_string()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
                Ok(Raw::Text(value.to_owned()))
            }

            fn visit_unit<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }

            fn visit_none<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }

            fn visit_some<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
                Raw::deserialize(deserializer)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Raw::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Raw::Map(entries))
            }
        }

        deserializer.deserialize_any(RawVisitor)
    }
}
