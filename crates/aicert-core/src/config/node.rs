//! YAML with the place of every value, so that every later check can point at it.

use std::fmt;

use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use serde_saphyr::options::NonFiniteFloatPolicy;

use super::error::{Place, Problem};

/// The largest configuration that is read.
const SIZE_LIMIT: usize = 1 << 20;

/// A value and where it is.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    /// The text is what stands in the file, whatever type YAML gives it: `tag: 1.10` is the tag `1.10`.
    Scalar {
        text: String,
        kind: Kind,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// The type that YAML gives to a scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    Integer,
    Float,
    Boolean,
}

/// A key with its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

impl Value {
    /// What it is, for error messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar {
                kind: Kind::String, ..
            } => "a text",
            Self::Scalar {
                kind: Kind::Boolean, ..
            } => "true or false",
            Self::Scalar { .. } => "a number",
            Self::List(_) => "a list",
            Self::Map(_) => "a section with keys",
        }
    }
}

/// A configuration nests five deep. What nests deeper could exhaust the stack of a thread before it is refused.
const DEPTH_LIMIT: usize = 16;

/// Reads a YAML document.
pub(super) fn parse(text: &str) -> Result<Node, Problem> {
    let start = Place {
        line: 1,
        column: 1,
        width: 1,
    };
    if text.len() > SIZE_LIMIT {
        return Err(Problem::new(start, "the file is larger than 1 MiB", None));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_LIMIT,
            flow_nesting_limit: DEPTH_LIMIT,
        },
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
    };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => Ok(locate(raw, text)),
        Err(error) => {
            let place = error.location().map_or(start, |location| place(&location));
            Err(Problem::new(place, explain(&error), None))
        }
    }
}

fn explain(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error as E;
    match error.without_snippet() {
        E::DuplicateMappingKey { key: Some(key), .. } => format!("the key `{}` stands twice", clean(key)),
        E::MultipleDocuments { .. } => {
            "a second document begins here: a configuration is one document".into()
        }
        E::Eof { .. } => "the file is empty".into(),
        other => {
            let text = other.render_with_formatter(&serde_saphyr::UserMessageFormatter);
            // The position is said once, by us.
            let text = text.split(" at line ").next().unwrap_or(&text);
            format!("this is not readable as YAML: {}", clean(text))
        }
    }
}

fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(300)
        .collect()
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
    String(String),
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
        Raw::String(text) => Value::Scalar {
            text,
            kind: Kind::String,
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
                Ok(Raw::Other(Kind::Integer, value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
                Ok(Raw::Other(Kind::Integer, value.to_string()))
            }

            fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
                Ok(Raw::Other(Kind::Integer, value.to_string()))
            }

            fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
                Ok(Raw::Other(Kind::Integer, value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
                Ok(Raw::Other(Kind::Float, value.to_string()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
                Ok(Raw::String(value.to_owned()))
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
