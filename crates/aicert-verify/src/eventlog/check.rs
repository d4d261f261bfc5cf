//! Whether digests are those of the data beside them.

use std::borrow::Cow;

use aicert_core::tpm::PcrBank;
use serde::{Serialize, Serializer};

use super::data::EventData;
use super::decode::grub_string;
use super::read::utf16_string;
use super::tagged::{self, Tag};
use super::variable::Envelope;
use super::{Event, EventType};

/// Whether an event's digest is that of its data.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DataCheck {
    /// It is: the data is what was measured.
    Matches,
    /// It is not, although it should be: the data is not what was measured.
    Differs {
        /// The digest of the data.
        expected: Vec<u8>,
    },
    /// It need not be, and is not: the data only describes what was measured, or nothing was.
    NotHashOfData,
    /// The event has no digest in this bank.
    NoDigest,
}

impl Serialize for DataCheck {
    /// As a word: `matches`, `differs`, `not-hash-of-data` or `no-digest`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Matches => "matches",
            Self::Differs { .. } => "differs",
            Self::NotHashOfData => "not-hash-of-data",
            Self::NoDigest => "no-digest",
        })
    }
}

/// What may have been hashed, and whether one of it must have been.
struct Hashed<'a> {
    required: bool,
    /// The likeliest first.
    forms: [Option<Cow<'a, [u8]>>; 3],
}

pub(super) fn check(event: &Event<'_>, bank: PcrBank) -> DataCheck {
    run(event, bank, hashed(event))
}

/// The digest of the data, where that should be the event's and is not. Hashes nothing else.
pub(super) fn difference(event: &Event<'_>, bank: PcrBank) -> Option<Vec<u8>> {
    let hashed = hashed(event).filter(|hashed| hashed.required);
    match run(event, bank, hashed) {
        DataCheck::Differs { expected } => Some(expected),
        _ => None,
    }
}

fn run(event: &Event<'_>, bank: PcrBank, hashed: Option<Hashed<'_>>) -> DataCheck {
    let Some(digest) = event.digest(bank) else {
        return DataCheck::NoDigest;
    };
    let Some(hashed) = hashed else {
        return DataCheck::NotHashOfData;
    };
    let mut first = None;
    for form in hashed.forms.iter().flatten() {
        let computed = bank.hash(&[form]);
        if computed == digest {
            return DataCheck::Matches;
        }
        first.get_or_insert(computed);
    }
    match first {
        Some(expected) if hashed.required => DataCheck::Differs { expected },
        _ => DataCheck::NotHashOfData,
    }
}

/// What firmware and boot loaders hash. Where they are known to differ, each of the ways, and no other.
fn hashed<'a>(event: &'a Event<'_>) -> Option<Hashed<'a>> {
    let raw = event.raw;
    let must = |forms| {
        Some(Hashed {
            required: true,
            forms,
        })
    };
    let may = |forms| {
        Some(Hashed {
            required: false,
            forms,
        })
    };
    let bytes = |bytes: &'a [u8]| Some(Cow::Borrowed(bytes));
    match event.event_type {
        // PFP 1.06, section 10.4.1, for each of these: the digest is that of the data.
        EventType::S_CRTM_VERSION | EventType::EFI_GPT_EVENT | EventType::EFI_GPT_EVENT2 => {
            must([bytes(raw), None, None])
        }
        EventType::SEPARATOR => must([bytes(raw), None, None]),
        // Firmware differs in whether the NUL at the end is logged.
        EventType::ACTION | EventType::EFI_ACTION | EventType::OMIT_BOOT_DEVICE_EVENTS => {
            must([bytes(raw), without_nul(raw).map(Cow::Borrowed), None])
        }
        EventType::EFI_VARIABLE_DRIVER_CONFIG
        | EventType::EFI_VARIABLE_AUTHORITY
        | EventType::EFI_VARIABLE_BOOT2
        | EventType::EFI_SPDM_DEVICE_POLICY
        | EventType::EFI_SPDM_DEVICE_AUTHORITY => {
            let whole = Envelope::read(raw).map_or(raw, |envelope| envelope.whole);
            must([bytes(whole), longer(raw, whole).map(Cow::Borrowed), None])
        }
        // EDK II hashes the value alone (`Tcg2Dxe.c`, `MeasureVariable`), other firmware all of it.
        EventType::EFI_VARIABLE_BOOT => match Envelope::read(raw) {
            Ok(envelope) => must([bytes(envelope.data), bytes(envelope.whole), None]),
            Err(_) => must([bytes(raw), None, None]),
        },
        EventType::IPL => ipl(event),
        EventType::EVENT_TAG => match tagged::split(raw) {
            // systemd-stub hashes the number that it also logs (systemd 257, `src/boot/stub.c`, `measure_profile`).
            Ok((tag, data)) if Tag::from_id(tag) == Some(Tag::UkiProfile) => must([bytes(data), None, None]),
            Ok((tag, _)) if Tag::from_id(tag).is_some() => None,
            _ => may([bytes(raw), None, None]),
        },
        EventType::NONHOST_INFO if matches!(event.data, EventData::GceMemoryEncryption { .. }) => {
            must([bytes(raw), None, None])
        }
        // Images, firmware and tables are hashed, and where they were is logged.
        EventType::NO_ACTION
        | EventType::S_CRTM_CONTENTS
        | EventType::EFI_PLATFORM_FIRMWARE_BLOB
        | EventType::EFI_PLATFORM_FIRMWARE_BLOB2
        | EventType::EFI_BOOT_SERVICES_APPLICATION
        | EventType::EFI_BOOT_SERVICES_DRIVER
        | EventType::EFI_RUNTIME_SERVICES_DRIVER => None,
        _ => may([bytes(raw), None, None]),
    }
}

/// PCRs 8 and 12 are for strings alone: whatever is logged there was hashed.
fn ipl<'a>(event: &'a Event<'_>) -> Option<Hashed<'a>> {
    let raw = event.raw;
    let must = |forms| {
        Some(Hashed {
            required: true,
            forms,
        })
    };
    if let Some(string) = grub_string(raw) {
        return must([Some(Cow::Borrowed(string)), None, None]);
    }
    match &event.data {
        EventData::Companion { .. } => None,
        // systemd hashes the string with its NUL, of which old versions logged only one half; its documentation says that
        // it leaves the NUL out.
        EventData::KernelCommandLine { .. } => {
            let string = utf16_string(raw).map_or(raw, |(_, string)| string);
            let with_nul = Cow::Owned([string, &[0, 0]].concat());
            must([Some(with_nul), Some(Cow::Borrowed(string)), None])
        }
        // The name of a section is hashed as ASCII with a NUL, and logged as UTF-16; then its content under the same name.
        EventData::UkiSection { name } => Some(Hashed {
            required: false,
            forms: [Some(Cow::Owned([name.as_bytes(), &[0]].concat())), None, None],
        }),
        _ if matches!(event.pcr, 8 | 12) => must([
            Some(Cow::Borrowed(raw)),
            without_nul(raw).map(Cow::Borrowed),
            None,
        ]),
        _ => None,
    }
}

fn without_nul(raw: &[u8]) -> Option<&[u8]> {
    raw.strip_suffix(&[0])
}

fn longer<'a>(raw: &'a [u8], whole: &[u8]) -> Option<&'a [u8]> {
    (raw.len() > whole.len()).then_some(raw)
}
