//! The TCG event log: what firmware, boot loader and kernel say that they measured.
//!
//! [`EventLog::parse`] reads the two formats that there are: the crypto-agile one (TCG PC Client Platform Firmware
//! Profile, "PFP", 1.06, section 10) and the older one of SHA-1 digests only (TCG EFI Protocol 1.22, section 5.1).
//! [`EventLog::replay`] computes the PCRs that the log leads to, and [`EventLog::inspect`] finds what no honest log has.
//!
//! **A log proves nothing by itself.** What it says is chosen by whoever sends it. When its replay gives the PCRs of an
//! authentic quote, its digests are what was extended, in this order within each PCR. Nothing else is covered: neither the
//! types of the events nor their data, unless [`Event::data_check`] says that the data is what was hashed. Even then it
//! is only what somebody extended who could: everybody can, once the operating system runs.
//!
//! # As JSON
//!
//! [`EventLog`] serializes to an object that scripts can rely on; fields are added, never changed or removed:
//!
//! | field | what it is |
//! |---|---|
//! | `format` | `crypto-agile` or `sha1-only` |
//! | `header` | [`SpecId`], or null |
//! | `banks` | the banks with digests in this log, such as `sha256` |
//! | `events` | the events after the header, see below |
//! | `padding` | [`Padding`], or null |
//! | `pcrs` | what the log leads to: for each bank an object from the PCR's number to hexadecimal |
//!
//! Each event is an object:
//!
//! | field | what it is |
//! |---|---|
//! | `number`, `offset` | its number, counted from 0 after the header, and its first byte in the log |
//! | `pcr`, `type` | the PCR, and the specification's name of the type, or its number as `0x80001234` |
//! | `digests` | for each bank the digest in hexadecimal |
//! | `size` | the size of its data in bytes |
//! | `data` | [`EventData`]: an object whose `kind` says which fields follow |
//! | `data_check` | for each bank `matches`, `differs` or `not-hash-of-data` ([`DataCheck`]) |
//! | `raw` | the data in hexadecimal, only when `kind` is `undecoded` or `malformed` |

mod check;
mod data;
mod decode;
mod device_path;
mod error;
mod event_type;
mod fault;
mod inspect;
mod json;
mod parse;
mod read;
mod replay;
mod signature;
mod tagged;
mod variable;

use aicert_core::tpm::PcrBank;

pub use check::DataCheck;
pub use data::{EventData, Partition, VariableValue};
pub use device_path::DevicePath;
pub use error::EventLogError;
pub use event_type::EventType;
pub use fault::EventLogFault;
pub use parse::{Algorithm, Padding, SpecId};
pub use read::Guid;
pub use signature::{Signature, SignatureKind};
pub use tagged::Tag;

/// The largest log that is read, in bytes. Real ones have 10 to 200 thousand.
pub const SIZE_LIMIT: usize = 4 << 20;

/// The most events that a log may have. Real ones have 20 to 1,000.
pub const EVENT_LIMIT: usize = 16 << 10;

/// How a log is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Format {
    /// Each event has one SHA-1 digest (`TCG_PCR_EVENT`).
    Sha1Only,
    /// Each event has a digest for each of the algorithms that the header lists (`TCG_PCR_EVENT2`).
    CryptoAgile,
}

/// A log that could be read. Nothing in it is to be believed before its replay was compared with a quote.
#[derive(Debug, Clone)]
pub struct EventLog<'a> {
    format: Format,
    header: Option<SpecId>,
    events: Vec<Event<'a>>,
    padding: Option<Padding>,
}

impl<'a> EventLog<'a> {
    /// Reads a log to its last byte.
    ///
    /// # Errors
    ///
    /// Says at which event and byte it stops being one.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EventLogError> {
        parse::parse(bytes)
    }

    /// How it is encoded.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The header, which is the first event of a crypto-agile log, and of some logs of SHA-1 alone.
    pub fn header(&self) -> Option<&SpecId> {
        self.header.as_ref()
    }

    /// The events after the header, in their order.
    pub fn events(&self) -> &[Event<'a>] {
        &self.events
    }

    /// What fills the buffer after the last event, as it does in logs that were taken from ACPI tables.
    pub fn padding(&self) -> Option<Padding> {
        self.padding
    }

    /// The banks that this log has digests for.
    pub fn banks(&self) -> Vec<PcrBank> {
        match (&self.header, self.format) {
            (Some(header), Format::CryptoAgile) => header
                .algorithms
                .iter()
                .filter_map(|algorithm| PcrBank::from_algorithm_id(algorithm.id))
                .collect(),
            _ => vec![PcrBank::Sha1],
        }
    }
}

/// One event.
#[derive(Debug, Clone)]
pub struct Event<'a> {
    /// Its number, counted from 0 after the header.
    pub number: usize,
    /// Where it begins in the log, in bytes.
    pub offset: usize,
    /// The PCR that it says it was extended into. Nothing holds it below 24.
    pub pcr: u32,
    /// What it says it is. No digest covers this.
    pub event_type: EventType,
    /// Its data as it is in the log.
    pub raw: &'a [u8],
    /// Its data, understood.
    pub data: EventData,
    digests: [Option<&'a [u8]>; PcrBank::ALL.len()],
}

impl Event<'_> {
    /// Its digest in a bank.
    pub fn digest(&self, bank: PcrBank) -> Option<&[u8]> {
        let index = PcrBank::ALL.into_iter().position(|other| other == bank)?;
        self.digests.get(index).copied().flatten()
    }

    /// Whether a PCR was extended: every type but `EV_NO_ACTION` does that (PFP 1.06, section 10.4.1).
    pub fn extends(&self) -> bool {
        self.event_type != EventType::NO_ACTION
    }

    /// Whether its digest in a bank is that of its data, where it should be.
    pub fn data_check(&self, bank: PcrBank) -> DataCheck {
        check::check(self, bank)
    }
}
