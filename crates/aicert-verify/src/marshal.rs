//! Reading the structures of TPM 2.0 (Library specification, part 2): big-endian, bounded, to the last byte.

/// Says why bytes are not the structure that they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MarshalError {
    /// They end inside a field.
    #[error("it ends inside `{field}`, which needs {needed} bytes where {left} are left")]
    Truncated {
        /// The field.
        field: &'static str,
        /// The size of the field in bytes.
        needed: usize,
        /// How many bytes there are.
        left: usize,
    },
    /// Something follows the structure.
    #[error("{left} bytes follow the end of the structure")]
    Trailing {
        /// How many bytes.
        left: usize,
    },
    /// A size or count is larger than that field can have.
    #[error("`{field}` has the size {found}, at most {limit} are possible")]
    TooLarge {
        /// The field.
        field: &'static str,
        /// The size or count that is claimed.
        found: usize,
        /// The largest that the field can have.
        limit: usize,
    },
    /// A field has a value that it cannot have here.
    #[error("`{field}` is {found:#x}, expected {expected}")]
    Value {
        /// The field.
        field: &'static str,
        /// Its value.
        found: u64,
        /// What it can be.
        expected: &'static str,
    },
}

/// A cursor that never reads past the end and never allocates.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn take(&mut self, field: &'static str, length: usize) -> Result<&'a [u8], MarshalError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(MarshalError::Truncated {
            field,
            needed: length,
            left: self.0.len(),
        })?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], MarshalError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(field, N)?);
        Ok(bytes)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, MarshalError> {
        Ok(u8::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, MarshalError> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, MarshalError> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, MarshalError> {
        Ok(u64::from_be_bytes(self.array(field)?))
    }

    /// A `TPM2B_*`: a size of two bytes, then that many bytes.
    pub(crate) fn sized(&mut self, field: &'static str, limit: usize) -> Result<&'a [u8], MarshalError> {
        let found = usize::from(self.u16(field)?);
        if found > limit {
            return Err(MarshalError::TooLarge { field, found, limit });
        }
        self.take(field, found)
    }

    pub(crate) fn finish(self) -> Result<(), MarshalError> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(MarshalError::Trailing { left }),
        }
    }
}
