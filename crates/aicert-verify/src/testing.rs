//! Boot logs for tests: of this crate, of clouds, of whatever verifies. Nothing here verifies anything.

use std::collections::BTreeMap;

use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues};

use crate::eventlog::EventType;

/// One event, and what is really extended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootEvent {
    /// The PCR.
    pub pcr: u32,
    /// The type that the log gives.
    pub event_type: EventType,
    /// The data that the log gives.
    pub data: Vec<u8>,
    /// What is hashed; nothing for events that extend nothing.
    pub hashed: Option<Vec<u8>>,
}

/// What a machine measures, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The locality that the TPM was started from; the log says nothing of locality 0.
    pub locality: u8,
    /// What is measured.
    pub events: Vec<BootEvent>,
}

/// An event whose data is what was hashed.
pub fn event(pcr: u32, event_type: EventType, data: &[u8]) -> BootEvent {
    described(pcr, event_type, data, data)
}

/// An event whose data describes what was hashed.
pub fn described(pcr: u32, event_type: EventType, data: &[u8], hashed: &[u8]) -> BootEvent {
    BootEvent {
        pcr,
        event_type,
        data: data.to_vec(),
        hashed: (event_type != EventType::NO_ACTION).then(|| hashed.to_vec()),
    }
}

/// UTF-16 with a final NUL, as UEFI has text.
pub fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16()
        .chain([0])
        .flat_map(u16::to_le_bytes)
        .collect()
}

/// `UEFI_VARIABLE_DATA` of a variable of the specification's own: of `EFI_IMAGE_SECURITY_DATABASE_GUID` for lists of keys
/// and hashes, of `EFI_GLOBAL_VARIABLE` for all others.
pub fn variable(name: &str, content: &[u8]) -> Vec<u8> {
    let mut data = if matches!(name, "db" | "dbx" | "dbt" | "dbr") {
        vec![
            0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f,
        ]
    } else {
        vec![
            0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c,
        ]
    };
    data.extend((name.len() as u64).to_le_bytes());
    data.extend((content.len() as u64).to_le_bytes());
    data.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
    data.extend(content);
    data
}

/// `UEFI_IMAGE_LOAD_EVENT` with a device path of one file, and the image that is loaded.
pub fn application(path: &str, image: &[u8]) -> BootEvent {
    let name = utf16(path);
    let node_len = (name.len() + 4) as u16;
    let mut node = vec![4, 4];
    node.extend(node_len.to_le_bytes());
    node.extend(name);
    node.extend([0x7f, 0xff, 4, 0]);
    let mut data = Vec::new();
    for field in [0x7e00_0000, image.len() as u64, 0, node.len() as u64] {
        data.extend(field.to_le_bytes());
    }
    data.extend(node);
    described(4, EventType::EFI_BOOT_SERVICES_APPLICATION, &data, image)
}

/// `TCG_PCClientTaggedEvent` with a text, and what is hashed.
pub fn tagged(pcr: u32, tag: u32, text: &str, hashed: &[u8]) -> BootEvent {
    let text = [text.as_bytes(), &[0]].concat();
    let data = [&tag.to_le_bytes()[..], &(text.len() as u32).to_le_bytes(), &text].concat();
    described(pcr, EventType::EVENT_TAG, &data, hashed)
}

/// What systemd-stub measures of a section: its name, its content.
pub fn section(name: &str, content: &[u8]) -> [BootEvent; 2] {
    let text = utf16(name);
    [
        described(11, EventType::IPL, &text, &[name.as_bytes(), &[0]].concat()),
        described(11, EventType::IPL, &text, content),
    ]
}

/// Firmware hands over.
pub fn separator(pcr: u32) -> BootEvent {
    event(pcr, EventType::SEPARATOR, &[0; 4])
}

impl Boot {
    /// The log, with digests of SHA-1 and SHA-256.
    pub fn log(&self) -> Vec<u8> {
        self.log_of(&[PcrBank::Sha1, PcrBank::Sha256])
    }

    /// The log, with digests of these banks.
    pub fn log_of(&self, banks: &[PcrBank]) -> Vec<u8> {
        let mut header = b"Spec ID Event03\0".to_vec();
        header.extend([0, 0, 0, 0, 0, 2, 0, 2]);
        header.extend((banks.len() as u32).to_le_bytes());
        for bank in banks {
            header.extend(bank.algorithm_id().to_le_bytes());
            header.extend((bank.digest_len() as u16).to_le_bytes());
        }
        header.push(0);
        let mut log = Vec::new();
        log.extend([0, 0, 0, 0, 3, 0, 0, 0]);
        log.extend([0; 20]);
        log.extend((header.len() as u32).to_le_bytes());
        log.extend(header);
        let statement = [&b"StartupLocality\0"[..], &[self.locality]].concat();
        let locality = (self.locality != 0).then(|| event(0, EventType::NO_ACTION, &statement));
        for event in locality.iter().chain(&self.events) {
            log.extend(event.pcr.to_le_bytes());
            log.extend(event.event_type.0.to_le_bytes());
            log.extend((banks.len() as u32).to_le_bytes());
            for bank in banks {
                log.extend(bank.algorithm_id().to_le_bytes());
                log.extend(event.digest(*bank));
            }
            log.extend((event.data.len() as u32).to_le_bytes());
            log.extend(&event.data);
        }
        log
    }

    /// What the TPM holds in PCRs 0 to 13, and in others that are extended.
    pub fn pcrs(&self, bank: PcrBank) -> PcrValues {
        let zero = vec![0; bank.digest_len()];
        let mut values: BTreeMap<_, _> = (0..14)
            .filter_map(PcrIndex::new)
            .map(|pcr| (pcr, zero.clone()))
            .collect();
        if let Some(last) = values
            .first_entry()
            .as_mut()
            .and_then(|first| first.get_mut().last_mut())
        {
            *last = self.locality;
        }
        for event in self.events.iter().filter(|event| event.hashed.is_some()) {
            let Some(pcr) = u8::try_from(event.pcr).ok().and_then(PcrIndex::new) else {
                continue;
            };
            let value = values.entry(pcr).or_insert_with(|| zero.clone());
            *value = bank.extend(value, &event.digest(bank));
        }
        PcrValues(values)
    }
}

impl BootEvent {
    /// What is extended into a bank; zeros for what extends nothing.
    pub fn digest(&self, bank: PcrBank) -> Vec<u8> {
        match &self.hashed {
            Some(hashed) => bank.hash(&[hashed]),
            None => vec![0; bank.digest_len()],
        }
    }
}
