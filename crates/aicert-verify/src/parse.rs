//! Step 1: a proof file is read within bounds, in its one accepted spelling.

use aicert_core::canonical::ReadError;
use aicert_core::certificate::Certificate;

use crate::error::{Failure, Rejection, faults};

faults! {
    /// Says why a file is no proof file.
    enum ParseFault {
        /// It is longer than any proof.
        TooLarge {
            /// Its size in bytes.
            found: usize,
            /// The largest size that is read.
            limit: usize,
        } => File, "the file has {found} bytes, a proof has at most {limit}", "check that this is the proof file and not the model or its manifest";
        /// It is no JSON, has unknown or missing fields, or values that are none.
        Malformed {
            /// Counted from 1.
            line: usize,
            /// Counted from 1, in bytes.
            column: usize,
            /// What was expected and found.
            message: String,
        } => File, "line {line}, column {column}: {message}", "get the file again from whoever published it; a proof is never edited by hand";
        /// It means something, but is spelled in another way than proofs are written.
        NotCanonical {
            /// Counted from 1.
            line: usize,
            /// Counted from 1, in bytes.
            column: usize,
            /// The text that one accepted spelling has there.
            expected: String,
            /// The text that stands there.
            found: String,
        } => File, "line {line}, column {column}: found {found:?} where the one accepted spelling has {expected:?}", "get the file again from whoever published it; a tool that re-wrote its JSON may have changed the order of keys, escapes or numbers";
    }
}

impl From<ReadError> for ParseFault {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::TooLarge { found, limit } => Self::TooLarge { found, limit },
            ReadError::NotCanonical {
                line,
                column,
                found,
                expected,
            } => Self::NotCanonical {
                line,
                column,
                expected,
                found,
            },
            ReadError::Malformed {
                line,
                column,
                message,
            } => Self::Malformed {
                line,
                column,
                message,
            },
            other => Self::Malformed {
                line: 0,
                column: 0,
                message: other.to_string(),
            },
        }
    }
}

/// What was read from a file and may be a lie in every part.
///
/// This is how a proof enters. What it holds can only be reached under a name that says that nobody has checked it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unverified<T>(T);

impl<T> Unverified<T> {
    /// Marks a value that did not come from a file as one that may be a lie.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// What the file claims. Whoever shows it says that it is not verified.
    pub fn unverified_contents(&self) -> &T {
        &self.0
    }

    pub(crate) fn into_unverified_contents(self) -> T {
        self.0
    }
}

impl Unverified<Certificate> {
    /// Reads a proof file of at most [`aicert_core::certificate::SIZE_LIMIT`] bytes.
    ///
    /// # Errors
    ///
    /// When the bytes are no proof file, or spelled in any but the one accepted way (white space between tokens aside).
    pub fn from_slice(bytes: &[u8]) -> Result<Self, Rejection> {
        let fault = |error| Rejection::from(Failure::from(ParseFault::from(error)));
        Certificate::from_json(bytes).map(Self).map_err(fault)
    }
}
