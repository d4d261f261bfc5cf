//! The byte-exact JSON that digests are computed over, and a reader that accepts one spelling only.
//!
//! [`to_jcs`] writes the JSON Canonicalization Scheme (RFC 8785) of values that hold no floating-point numbers, no
//! nulls and no negative integers. [`from_slice`] reads a document and rejects it unless writing it again gives the
//! same bytes, insignificant white space aside: duplicate keys, other key orders, `\u0061` for `a`, `1.0` for `1` and
//! unknown fields can therefore not carry a second meaning.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::text::printable;

/// The largest integer that every JSON implementation represents exactly, plus one (RFC 7493, section 2.2).
pub const INTEGER_LIMIT: u64 = 1 << 53;

/// What is shown of a message that quotes a document: in characters.
const MESSAGE_LIMIT: usize = 500;

/// Says why a document was not accepted. What is quoted from it is shortened, and escaped where it could fool a terminal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The document is longer than its kind may be.
    #[error("the document has {found} bytes; at most {limit} are accepted")]
    TooLarge {
        /// Its size.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// It is no JSON, or not of the expected shape.
    #[error("line {line}, column {column}: {message}")]
    Malformed {
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in bytes.
        column: usize,
        /// What was expected and found.
        message: String,
    },
    /// It means something, but is not spelled the way this format is written.
    #[error(
        "line {line}, column {column}: found `{found}` where the one accepted spelling has `{expected}` \
         (duplicate keys, reordered keys, escapes that are not needed and numbers such as 1.0 are refused)"
    )]
    NotCanonical {
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in bytes.
        column: usize,
        /// The text that stands there.
        found: String,
        /// The text that would stand there.
        expected: String,
    },
}

/// Says why a value has no canonical form here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A float, a null, a negative number or an integer of 2^53 or more.
    #[error("{0} is not allowed in a measured document: only strings, booleans and integers below 2^53 are")]
    Value(String),
    /// The value cannot be written as JSON at all.
    #[error("not representable as JSON")]
    Json(#[from] serde_json::Error),
}

/// Writes `value` in the JSON Canonicalization Scheme (RFC 8785).
///
/// # Errors
///
/// When the value holds a float, a null, a negative integer or an integer of 2^53 or more.
pub fn to_jcs<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::with_capacity(256);
    write_value(&serde_json::to_value(value)?, &mut out)?;
    Ok(out)
}

fn write_value(value: &Value, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match value {
        Value::Null => return Err(EncodeError::Value("null".into())),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => match number.as_u64() {
            Some(integer) if integer < INTEGER_LIMIT => out.extend_from_slice(integer.to_string().as_bytes()),
            _ => return Err(EncodeError::Value(number.to_string())),
        },
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_value(item, out)?;
            }
            out.push(b']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            // RFC 8785, section 3.2.3: names are compared as arrays of UTF-16 code units.
            members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push(b'{');
            for (index, (name, member)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_string(name, out);
                out.push(b':');
                write_value(member, out)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

/// RFC 8785, section 3.2.2.2: the short escapes where JSON has one, `\u00xx` for other control characters, else UTF-8.
pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for character in text.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            '\r' => out.extend_from_slice(b"\\r"),
            control if control < ' ' => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(control)).as_bytes())
            }
            other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

/// Reads a document of at most `limit` bytes that is spelled exactly as serializing its value spells it, white space
/// between tokens aside.
///
/// # Errors
///
/// When it is too long, malformed, or spelled in any other way.
pub fn from_slice<T: DeserializeOwned + Serialize>(bytes: &[u8], limit: usize) -> Result<T, ReadError> {
    if bytes.len() > limit {
        return Err(ReadError::TooLarge {
            found: bytes.len(),
            limit,
        });
    }
    let malformed = |error: &serde_json::Error| ReadError::Malformed {
        line: error.line(),
        column: error.column(),
        message: without_position(&error.to_string()),
    };
    let value: T = serde_json::from_slice(bytes).map_err(|error| malformed(&error))?;
    let canonical = serde_json::to_vec(&value).map_err(|error| malformed(&error))?;
    same_tokens(bytes, &canonical)?;
    Ok(value)
}

/// serde_json ends its messages with the position, which is reported apart, and quotes names as they are.
fn without_position(message: &str) -> String {
    let text = message.rsplit_once(" at line ").map_or(message, |(text, _)| text);
    printable(text, MESSAGE_LIMIT)
}

/// Compares `text` without its insignificant white space to `canonical`, which has none.
fn same_tokens(text: &[u8], canonical: &[u8]) -> Result<(), ReadError> {
    let mut expected = canonical.iter();
    let (mut in_string, mut escaped) = (false, false);
    for (offset, &byte) in text.iter().enumerate() {
        if !in_string && matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            continue;
        }
        let rest = expected.as_slice();
        if expected.next() != Some(&byte) {
            return Err(not_canonical(text, offset, rest));
        }
        if in_string {
            (in_string, escaped) = (escaped || byte != b'"', !escaped && byte == b'\\');
        } else {
            in_string = byte == b'"';
        }
    }
    if expected.as_slice().is_empty() {
        Ok(())
    } else {
        Err(not_canonical(text, text.len(), expected.as_slice()))
    }
}

fn not_canonical(text: &[u8], offset: usize, expected: &[u8]) -> ReadError {
    let before = &text[..offset];
    let line_start = before
        .iter()
        .rposition(|&b| b == b'\n')
        .map_or(0, |newline| newline + 1);
    let excerpt = |bytes: &[u8]| printable(&String::from_utf8_lossy(&bytes[..bytes.len().min(24)]), 24);
    ReadError::NotCanonical {
        line: before.iter().filter(|&&b| b == b'\n').count() + 1,
        column: offset - line_start + 1,
        found: excerpt(&text[offset..]),
        expected: excerpt(expected),
    }
}

/// Reads the next name of an object whose members have one order.
pub(crate) fn expect_key<'de, M: MapAccess<'de>>(
    map: &mut M,
    name: &'static str,
    of: &str,
) -> Result<(), M::Error> {
    match map.next_key::<String>()? {
        Some(key) if key == name => Ok(()),
        Some(key) => Err(M::Error::custom(format_args!(
            "expected `{name}` in {of}, found `{key}`"
        ))),
        None => Err(M::Error::missing_field(name)),
    }
}

/// Reads an array of at most `N` elements, so that a small document cannot become large in memory.
pub(crate) fn at_most<'de, const N: usize, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct Bounded<T, const N: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Bounded<T, N> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "an array of at most {N} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Vec<T>, A::Error> {
            let mut elements = Vec::new();
            while let Some(element) = array.next_element()? {
                if elements.len() == N {
                    return Err(A::Error::custom(format_args!(
                        "an array has more than {N} elements"
                    )));
                }
                elements.push(element);
            }
            Ok(elements)
        }
    }

    deserializer.deserialize_seq(Bounded::<T, N>(PhantomData))
}

/// As [`at_most`], for an array that may be left out.
pub(crate) fn at_most_if_there<'de, const N: usize, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    at_most::<N, D, T>(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        name: String,
        count: u64,
    }

    #[test]
    fn jcs_of_rfc_8785_strings_and_order() {
        // The sorting example of RFC 8785, section 3.2.3.
        let value = json!({ "\u{20ac}": "Euro Sign", "\r": "Carriage Return", "\u{fb33}": "Hebrew Letter Dalet With Dagesh",
            "1": "One", "\u{1f600}": "Emoji: Grinning Face", "\u{80}": "Control", "\u{f6}": "Latin Small Letter O With Diaeresis" });
        let text = String::from_utf8(to_jcs(&value).unwrap()).unwrap();
        let order: Vec<_> = [
            "\\r",
            "1",
            "\u{80}",
            "\u{f6}",
            "\u{20ac}",
            "\u{1f600}",
            "\u{fb33}",
        ]
        .map(|k| text.find(&format!("\"{k}\":")).unwrap())
        .into();
        assert!(order.is_sorted(), "{text}");
        assert_eq!(
            to_jcs("\u{1}\u{1f}\u{7f}\"\\/\n\u{2028}").unwrap(),
            "\"\\u0001\\u001f\u{7f}\\\"\\\\/\\n\u{2028}\"".as_bytes()
        );
    }

    #[test]
    fn jcs_refuses_what_collides() {
        for value in [
            json!(1.5),
            json!(null),
            json!(-1),
            json!(1u64 << 53),
            json!([1, null]),
        ] {
            assert!(to_jcs(&value).is_err(), "{value}");
        }
        assert_eq!(to_jcs(&json!((1u64 << 53) - 1)).unwrap(), b"9007199254740991");
    }

    #[test]
    fn one_spelling_only() {
        let accepted = "\n{ \"name\" :\t\"a\\\"b\",\r\n \"count\":1 } ";
        assert_eq!(
            from_slice::<Sample>(accepted.as_bytes(), 100).unwrap(),
            Sample {
                name: "a\"b".into(),
                count: 1
            }
        );
        for (text, cause) in [
            (
                r#"{"name":"\u0061","count":1}"#,
                "line 1, column 10: found `\\u0061",
            ),
            (r#"{"name":"a","count":1.0}"#, "floating point"),
            (r#"{"name":"a","count":1e0}"#, "floating point"),
            (r#"{"name":"a","count":01}"#, "invalid number"),
            (r#"{"name":"a","count":-0}"#, "floating point"),
            (r#"{"count":1,"name":"a"}"#, "line 1, column 3: found `count"),
            (r#"{"name":"a","name":"a","count":1}"#, "duplicate field `name`"),
            (r#"{"name":"a","count":1,"more":1}"#, "unknown field `more`"),
            (r#"{"name":"a"}"#, "missing field `count`"),
            (r#"{"name":"a","count":null}"#, "null"),
            (r#"{"name":"a","count":1}{"#, "trailing characters"),
        ] {
            let error = from_slice::<Sample>(text.as_bytes(), 100)
                .unwrap_err()
                .to_string();
            assert!(error.contains(cause), "{text}: {error}");
        }
        assert!(matches!(
            from_slice::<Sample>(accepted.as_bytes(), 10),
            Err(ReadError::TooLarge { .. })
        ));
    }

    #[test]
    fn messages_quote_a_document_escaped_and_shortened() {
        let hostile = "\u{1b}[2J\u{202e}";
        let long = "x".repeat(100_000);
        for text in [
            format!(r#"{{"\u001b[2J\u202e{long}":1}}"#),
            format!(r#"{{"{long}":1}}"#),
            format!("{{\"name\":\"\\u0061{hostile}\",\"count\":1}}"),
            "{\"name\":\"\u{9b}2J\",\"\u{9b}2J\":1}".to_owned(),
        ] {
            let error = from_slice::<Sample>(text.as_bytes(), 1 << 20)
                .unwrap_err()
                .to_string();
            assert!(error.len() < 1_000, "{} bytes", error.len());
            assert!(crate::text::deceives(&error).is_none(), "{error:?}");
        }
    }

    #[test]
    fn arrays_are_read_up_to_their_limit() {
        #[derive(Debug, Deserialize)]
        struct Few(#[serde(deserialize_with = "at_most::<2, _, _>")] Vec<u8>);
        assert_eq!(serde_json::from_str::<Few>("[1,2]").unwrap().0, [1, 2]);
        let error = serde_json::from_str::<Few>("[1,2,3]").unwrap_err();
        assert!(error.to_string().contains("more than 2 elements"), "{error}");
    }

    proptest! {
        #[test]
        fn strings_agree_with_serde_json(text in any::<String>()) {
            prop_assert_eq!(to_jcs(&text).unwrap(), serde_json::to_vec(&text).unwrap());
        }

        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = from_slice::<Sample>(&bytes, 200);
        }

        #[test]
        fn white_space_is_all_that_may_differ(name in any::<String>(), count in 0..INTEGER_LIMIT, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let sample = Sample { name, count };
            let text = serde_json::to_vec(&sample).unwrap();
            let mut changed = text.clone();
            let at = at.index(text.len());
            changed[at] = byte;
            if let Ok(read) = from_slice::<Sample>(&changed, 100_000) {
                prop_assert!(byte == text[at] || read != sample);
            }
        }
    }
}
