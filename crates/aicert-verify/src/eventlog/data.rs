//! What events say, understood.

use aicert_core::tpm::PcrBank;
use serde::Serialize;

use super::{Event, EventType};

/// The data of an event, understood as far as it can be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EventData {
    /// Nothing that this version reads.
    Undecoded,
    /// Not what the type says.
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// The locality that the TPM was started from.
    StartupLocality {
        /// 0, 3 or 4.
        locality: u8,
    },
    /// Firmware hands over.
    Separator {
        /// 0 or 0xffffffff; 1 after an error.
        value: u32,
    },
}

/// Whether an event's digest is that of its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DataCheck {
    /// It is: the data is what was measured.
    Matches,
    /// It is not, although it should be.
    Differs {
        /// The digest of the data.
        expected: Vec<u8>,
    },
    /// It should not be: the data only describes what was measured.
    NotHashOfData,
    /// The event has no digest in this bank.
    NoDigest,
}

pub(super) fn decode(event_type: EventType, raw: &[u8]) -> EventData {
    let _ = (event_type, raw);
    EventData::Undecoded
}

pub(super) fn check(event: &Event<'_>, bank: PcrBank) -> DataCheck {
    let _ = (event, bank);
    DataCheck::NotHashOfData
}
