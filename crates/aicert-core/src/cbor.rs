//! CBOR (RFC 8949), as much of it as attestation documents need, in one spelling and within bounds.
//!
//! Read are unsigned and negative integers, byte strings, text strings, arrays, maps and null. Every length and integer has
//! its shortest form (section 4.2.1). Maps and arrays may be of indefinite length, as AWS writes the outermost map of a
//! payload; strings may not, and AWS writes none that are. Everything else is refused: floats, simple values, tags.

/// The deepest nesting: the payload's map, and an array or a map in it.
const DEPTH_LIMIT: usize = 3;
/// The largest number of elements in an array, or of entries in a map.
const COUNT_LIMIT: usize = 64;

/// Says why bytes are not CBOR as it is accepted here. Offsets count from the beginning of the part that is read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CborError {
    /// They end inside an item.
    #[error(
        "it ends inside the item at byte {offset}, which needs {needed} more bytes where {left} are left"
    )]
    Truncated {
        /// Where the item begins.
        offset: usize,
        /// How many bytes it still needs.
        needed: u64,
        /// How many there are.
        left: usize,
    },
    /// Something follows.
    #[error("{left} bytes follow the item that ends at byte {offset}")]
    Trailing {
        /// Where the item ends.
        offset: usize,
        /// How many bytes follow.
        left: usize,
    },
    /// An integer or a length is not in its shortest form.
    #[error("the item at byte {offset} has a longer form than it needs")]
    NotShortest {
        /// Where the item begins.
        offset: usize,
    },
    /// A string is of indefinite length.
    #[error("the string at byte {offset} is of indefinite length")]
    IndefiniteString {
        /// Where the item begins.
        offset: usize,
    },
    /// An item is of a kind that has no place in a document.
    #[error(
        "the item at byte {offset} begins with {found:#04x}, which has no place in an attestation document"
    )]
    Unsupported {
        /// Where the item begins.
        offset: usize,
        /// Its first byte.
        found: u8,
    },
    /// A text string is not UTF-8.
    #[error("the text at byte {offset} is not UTF-8")]
    NotText {
        /// Where the item begins.
        offset: usize,
    },
    /// Items are nested too deeply.
    #[error("the item at byte {offset} is nested more than {limit} deep")]
    TooDeep {
        /// Where the item begins.
        offset: usize,
        /// The deepest nesting accepted.
        limit: usize,
    },
    /// An array or a map has too many elements.
    #[error("the array or map at byte {offset} has more than {limit} elements")]
    TooMany {
        /// Where the item begins.
        offset: usize,
        /// The most that are accepted.
        limit: usize,
    },
    /// A key of a map is neither an integer nor text.
    #[error("the key at byte {offset} is neither an integer nor text")]
    Key {
        /// Where the key begins.
        offset: usize,
    },
    /// A map has a key twice.
    #[error("the key at byte {offset} stands twice in its map")]
    Duplicate {
        /// Where the key stands again.
        offset: usize,
    },
}

/// An item. Strings are borrowed; the rest takes memory in proportion to the bytes that were read.
///
/// There are no other kinds: what is none of these is refused, so that whoever matches forgets nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// An unsigned integer.
    Unsigned(u64),
    /// The integer -1 minus this.
    Negative(u64),
    /// A byte string.
    Bytes(&'a [u8]),
    /// A text string.
    Text(&'a str),
    /// An array.
    Array(Vec<Value<'a>>),
    /// In the order in which they stand; no key twice.
    Map(Vec<(Value<'a>, Value<'a>)>),
    /// Null.
    Null,
}

impl Value<'_> {
    /// What it is, for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unsigned(_) => "an unsigned integer",
            Self::Negative(_) => "a negative integer",
            Self::Bytes(_) => "a byte string",
            Self::Text(_) => "a text",
            Self::Array(_) => "an array",
            Self::Map(_) => "a map",
            Self::Null => "null",
        }
    }
}

/// Reads exactly one item.
///
/// # Errors
///
/// When the bytes are not one item as it is accepted here.
pub fn read(bytes: &[u8]) -> Result<Value<'_>, CborError> {
    let mut reader = Reader::new(bytes);
    let value = reader.value()?;
    reader.finish()?;
    Ok(value)
}

/// The argument of an item's first byte (section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Argument {
    Value(u64),
    Indefinite,
}

/// The first byte of "break" (section 3.2.1), and of null (section 3.3).
const BREAK: u8 = 0xff;
const NULL: u8 = 0xf6;

/// A cursor that never reads past the end.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// A cursor at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// The next byte.
    pub fn peek(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    /// Skips the next byte if it is this one.
    pub fn skip(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.offset += usize::from(found);
        found
    }

    /// Reads one item.
    ///
    /// # Errors
    ///
    /// When there is none as it is accepted here.
    pub fn value(&mut self) -> Result<Value<'a>, CborError> {
        self.nested(0)
    }

    /// Requires that nothing is left.
    ///
    /// # Errors
    ///
    /// When something is.
    pub fn finish(self) -> Result<(), CborError> {
        match self.rest().len() {
            0 => Ok(()),
            left => Err(CborError::Trailing {
                offset: self.offset,
                left,
            }),
        }
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.offset..).unwrap_or_default()
    }

    fn nested(&mut self, depth: usize) -> Result<Value<'a>, CborError> {
        let offset = self.offset;
        if self.skip(NULL) {
            return Ok(Value::Null);
        }
        let found = self.take(offset, 1)?.first().copied().unwrap_or_default();
        let argument = self.argument(offset, found)?;
        match (found >> 5, argument) {
            (0, Argument::Value(value)) => Ok(Value::Unsigned(value)),
            (1, Argument::Value(value)) => Ok(Value::Negative(value)),
            (2, Argument::Value(length)) => self.take(offset, length).map(Value::Bytes),
            (3, Argument::Value(length)) => std::str::from_utf8(self.take(offset, length)?)
                .map(Value::Text)
                .map_err(|_| CborError::NotText { offset }),
            (2 | 3, Argument::Indefinite) => Err(CborError::IndefiniteString { offset }),
            (4 | 5, _) if depth == DEPTH_LIMIT => Err(CborError::TooDeep {
                offset,
                limit: DEPTH_LIMIT,
            }),
            (4, count) => self.array(offset, count, depth + 1),
            (5, count) => self.map(offset, count, depth + 1),
            _ => Err(CborError::Unsupported { offset, found }),
        }
    }

    fn argument(&mut self, offset: usize, first: u8) -> Result<Argument, CborError> {
        let (width, least) = match first & 0x1f {
            small @ 0..=23 => return Ok(Argument::Value(small.into())),
            24 => (1, 24),
            25 => (2, 1 << 8),
            26 => (4, 1 << 16),
            27 => (8, 1 << 32),
            31 => return Ok(Argument::Indefinite),
            _ => return Err(CborError::Unsupported { offset, found: first }),
        };
        let value = self
            .take(offset, width)?
            .iter()
            .fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        if value < least {
            return Err(CborError::NotShortest { offset });
        }
        Ok(Argument::Value(value))
    }

    fn take(&mut self, item: usize, length: u64) -> Result<&'a [u8], CborError> {
        let rest = self.rest();
        let taken = usize::try_from(length)
            .ok()
            .and_then(|length| rest.get(..length))
            .ok_or(CborError::Truncated {
                offset: item,
                needed: length,
                left: rest.len(),
            })?;
        self.offset += taken.len();
        Ok(taken)
    }

    fn array(&mut self, offset: usize, count: Argument, depth: usize) -> Result<Value<'a>, CborError> {
        let mut elements = Vec::new();
        while self.has_next(offset, count, elements.len())? {
            elements.push(self.nested(depth)?);
        }
        Ok(Value::Array(elements))
    }

    fn map(&mut self, offset: usize, count: Argument, depth: usize) -> Result<Value<'a>, CborError> {
        let mut entries: Vec<(Value<'a>, Value<'a>)> = Vec::new();
        while self.has_next(offset, count, entries.len())? {
            let offset = self.offset;
            let key = self.nested(depth)?;
            if !matches!(key, Value::Unsigned(_) | Value::Negative(_) | Value::Text(_)) {
                return Err(CborError::Key { offset });
            }
            if entries.iter().any(|(other, _)| *other == key) {
                return Err(CborError::Duplicate { offset });
            }
            entries.push((key, self.nested(depth)?));
        }
        Ok(Value::Map(entries))
    }

    /// Whether an array or map of which `read` elements were read has another.
    fn has_next(&mut self, offset: usize, count: Argument, read: usize) -> Result<bool, CborError> {
        let limit = COUNT_LIMIT;
        match count {
            Argument::Value(count) if count > limit as u64 => Err(CborError::TooMany { offset, limit }),
            Argument::Value(count) => Ok((read as u64) < count),
            Argument::Indefinite if self.skip(BREAK) => Ok(false),
            Argument::Indefinite if read == limit => Err(CborError::TooMany { offset, limit }),
            Argument::Indefinite => Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> Result<Value<'static>, CborError> {
        read(hex::decode(text).unwrap().leak())
    }

    #[test]
    fn items_are_read_as_the_specification_shows_them() {
        // RFC 8949, appendix A.
        assert_eq!(of("1864"), Ok(Value::Unsigned(100)));
        assert_eq!(of("3903e7"), Ok(Value::Negative(999)));
        assert_eq!(of("1bffffffffffffffff"), Ok(Value::Unsigned(u64::MAX)));
        assert_eq!(of("4401020304"), Ok(Value::Bytes(&[1, 2, 3, 4])));
        assert_eq!(of("62c3bc"), Ok(Value::Text("ü")));
        assert_eq!(of("f6"), Ok(Value::Null));
        let nested = Value::Array(vec![
            Value::Unsigned(1),
            Value::Array(vec![Value::Unsigned(2), Value::Unsigned(3)]),
        ]);
        for same in ["8201820203", "9f01820203ff", "82019f0203ff", "9f019f0203ffff"] {
            assert_eq!(of(same).as_ref(), Ok(&nested), "{same}");
        }
        let map = Value::Map(vec![(Value::Text("a"), Value::Unsigned(1))]);
        assert_eq!(of("a1616101").as_ref(), Ok(&map));
        assert_eq!(of("bf616101ff").as_ref(), Ok(&map));
    }

    #[test]
    fn what_has_another_spelling_or_no_place_is_refused() {
        for longer in [
            "1817",
            "190017",
            "1900ff",
            "1a0000ffff",
            "1b00000000ffffffff",
            "580401020304",
            "b800",
        ] {
            assert!(
                matches!(of(longer), Err(CborError::NotShortest { offset: 0 })),
                "{longer}"
            );
        }
        for (bytes, found) in [
            ("f4", 0xf4),
            ("f7", 0xf7),
            ("f90000", 0xf9),
            ("c000", 0xc0),
            ("d818", 0xd8),
            ("ff", 0xff),
            ("1c", 0x1c),
            ("1f", 0x1f),
            ("f818", 0xf8),
        ] {
            let error = of(bytes).unwrap_err();
            assert!(
                matches!(error, CborError::Unsupported { found: f, .. } if f == found)
                    || matches!(error, CborError::NotShortest { .. } | CborError::Truncated { .. }),
                "{bytes}: {error}"
            );
        }
        assert_eq!(of("5f4101ff"), Err(CborError::IndefiniteString { offset: 0 }));
        assert_eq!(of("61ff"), Err(CborError::NotText { offset: 0 }));
        assert_eq!(of("0000"), Err(CborError::Trailing { offset: 1, left: 1 }));
        assert_eq!(of("a14000"), Err(CborError::Key { offset: 1 }));
        assert_eq!(of("a2616100616101"), Err(CborError::Duplicate { offset: 4 }));
        assert_eq!(of("bf0000000100ff"), Err(CborError::Duplicate { offset: 3 }));
    }

    #[test]
    fn sizes_and_depth_are_bounded_before_anything_is_read() {
        assert_eq!(
            of("5bffffffffffffffff00"),
            Err(CborError::Truncated {
                offset: 0,
                needed: u64::MAX,
                left: 1
            })
        );
        let limit = COUNT_LIMIT;
        for many in ["9bffffffffffffffff", "bbffffffffffffffff", "9841", "b841"] {
            assert_eq!(of(many), Err(CborError::TooMany { offset: 0, limit }), "{many}");
        }
        let endless = format!("9f{}", "00".repeat(1_000));
        assert_eq!(of(&endless), Err(CborError::TooMany { offset: 0, limit }));
        for deep in ["81", "9f", "a100", "bf00"] {
            assert!(
                matches!(of(&deep.repeat(10_000)), Err(CborError::TooDeep { .. })),
                "{deep}"
            );
        }
    }

    proptest! {
        #[test]
        fn reading_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
        }

        /// Bytes that are mostly heads of containers and strings reach deeper than random ones.
        #[test]
        fn reading_nested_heads_never_panics(
            bytes in proptest::collection::vec(prop::sample::select(vec![
                0x00, 0x18, 0x1b, 0x40, 0x58, 0x5f, 0x61, 0x80, 0x82, 0x9f, 0xa0, 0xa1, 0xb8, 0xbf, 0xf6, 0xff,
            ]), 0..100),
        ) {
            let _ = read(&bytes);
        }
    }
}
