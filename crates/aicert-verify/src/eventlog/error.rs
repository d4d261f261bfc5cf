//! Why bytes are not an event log.

use aicert_core::tpm::PcrBank;

use super::{EVENT_LIMIT, SIZE_LIMIT};

/// Says why a log cannot be read, or not be replayed. Events are counted from 0 after the header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventLogError {
    /// It is larger than any log.
    #[error("the event log has {found} bytes; at most {SIZE_LIMIT} are read")]
    TooLarge {
        /// Its size in bytes.
        found: usize,
    },
    /// It has no bytes.
    #[error("the event log is empty")]
    Empty,
    /// It has more events than any machine measures.
    #[error("the event log has more than {EVENT_LIMIT} events")]
    TooManyEvents,
    /// The header is none.
    #[error("the header of the event log, at byte {offset}: {reason}")]
    Header {
        /// Where it is wrong.
        offset: usize,
        /// What is wrong.
        reason: String,
    },
    /// It ends inside an event.
    #[error(
        "event {number}, at byte {offset}, ends inside its {field}: {needed} bytes are needed where {left} are left"
    )]
    Truncated {
        /// The event.
        number: usize,
        /// Where it begins.
        offset: usize,
        /// What it ends in.
        field: &'static str,
        /// How many bytes that takes.
        needed: usize,
        /// How many there are.
        left: usize,
    },
    /// An event has more or fewer digests than the header lists algorithms.
    #[error("event {number}, at byte {offset}, has {found} digests, the header lists {expected} algorithms")]
    DigestCount {
        /// The event.
        number: usize,
        /// Where it begins.
        offset: usize,
        /// How many digests it says it has.
        found: u32,
        /// How many algorithms the header lists.
        expected: usize,
    },
    /// An event has a digest of an algorithm that the header does not list, or two of one algorithm.
    #[error(
        "event {number}, at byte {offset}, has a digest of the algorithm {found:#06x}, expected {expected}"
    )]
    DigestAlgorithm {
        /// The event.
        number: usize,
        /// Where it begins.
        offset: usize,
        /// The algorithm's `TPM_ALG_ID`.
        found: u16,
        /// What it can be.
        expected: &'static str,
    },
    /// The log cannot be replayed for a bank that it has no digests for.
    #[error("the event log has no digests of the bank {bank}")]
    NoSuchBank {
        /// The bank.
        bank: PcrBank,
    },
}
