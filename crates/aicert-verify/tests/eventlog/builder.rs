//! Makes event logs, honest ones and others: every field can be changed after [`Log::honest`], and [`Log::bytes`] writes what
//! is there without asking whether it makes sense.

use aicert_core::tpm::PcrBank;
use aicert_verify::eventlog::EventType;

/// An event as it will be written.
#[derive(Debug, Clone)]
pub struct Event {
    pub pcr: u32,
    pub event_type: EventType,
    /// By algorithm, in the order of writing.
    pub digests: Vec<(u16, Vec<u8>)>,
    pub data: Vec<u8>,
}

/// A log as it will be written.
#[derive(Debug, Clone)]
pub struct Log {
    /// Of a crypto-agile log; none for one of SHA-1 alone.
    pub banks: Option<Vec<PcrBank>>,
    pub events: Vec<Event>,
    /// Whatever follows the last event.
    pub tail: Vec<u8>,
}

pub const GLOBAL: [u8; 16] = [
    0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0, 0xe0, 0x98, 3, 0x2b, 0x8c,
];

impl Log {
    pub fn new(banks: &[PcrBank]) -> Self {
        Self {
            banks: Some(banks.to_vec()),
            events: Vec::new(),
            tail: Vec::new(),
        }
    }

    pub fn sha1_only() -> Self {
        Self {
            banks: None,
            events: Vec::new(),
            tail: Vec::new(),
        }
    }

    /// What OVMF, systemd-stub and Linux write when they boot a unified kernel image.
    pub fn honest() -> Self {
        Self::boot(Self::new(&[PcrBank::Sha256, PcrBank::Sha384]))
    }

    /// Adds the events of a whole boot.
    pub fn boot(mut self) -> Self {
        self.hash(0, EventType::S_CRTM_VERSION, &utf16("2024.02\0"));
        self.describe(
            0,
            EventType::EFI_PLATFORM_FIRMWARE_BLOB,
            &le(&[0x82_0000, 0xe_0000]),
            b"firmware",
        );
        for (name, data) in [("SecureBoot", &[0][..]), ("PK", &[]), ("KEK", &[])] {
            self.hash(7, EventType::EFI_VARIABLE_DRIVER_CONFIG, &variable(name, data));
        }
        self.hash(7, EventType::SEPARATOR, &[0; 4]);
        self.describe(
            1,
            EventType::EFI_VARIABLE_BOOT,
            &variable("BootOrder", &[1, 0]),
            &[1, 0],
        );
        self.hash(
            4,
            EventType::EFI_ACTION,
            b"Calling EFI Application from Boot Option",
        );
        for pcr in 0..7 {
            self.hash(pcr, EventType::SEPARATOR, &[0; 4]);
        }
        self.hash(5, EventType::EFI_GPT_EVENT, &gpt());
        self.describe(
            4,
            EventType::EFI_BOOT_SERVICES_APPLICATION,
            &image(),
            b"a unified kernel image",
        );
        for section in [".linux", ".cmdline"] {
            let name = utf16(&format!("{section}\0"));
            self.describe(11, EventType::IPL, &name, format!("{section}\0").as_bytes());
            self.describe(11, EventType::IPL, &name, b"what the section holds");
        }
        self.hash(12, EventType::IPL, &utf16("console=ttyS0\0"));
        self.describe(
            9,
            EventType::EVENT_TAG,
            &tagged(0x8f3b_22ec, b"Linux initrd\0"),
            b"an initrd",
        );
        self.hash(5, EventType::EFI_ACTION, b"Exit Boot Services Invocation");
        self.hash(
            5,
            EventType::EFI_ACTION,
            b"Exit Boot Services Returned with Success",
        );
        self
    }

    /// An event whose digest is that of its data.
    pub fn event(&self, pcr: u32, event_type: EventType, data: &[u8], measured: &[u8]) -> Event {
        let banks = self.banks.clone().unwrap_or_else(|| vec![PcrBank::Sha1]);
        Event {
            pcr,
            event_type,
            digests: banks
                .iter()
                .map(|bank| (bank.algorithm_id(), bank.hash(&[measured])))
                .collect(),
            data: data.to_vec(),
        }
    }

    pub fn hash(&mut self, pcr: u32, event_type: EventType, data: &[u8]) -> &mut Event {
        self.describe(pcr, event_type, data, data)
    }

    /// An event whose data says something about what was measured.
    pub fn describe(&mut self, pcr: u32, event_type: EventType, data: &[u8], measured: &[u8]) -> &mut Event {
        self.events.push(self.event(pcr, event_type, data, measured));
        self.events.last_mut().unwrap()
    }

    /// An `EV_NO_ACTION`, whose digests are zeros.
    pub fn note(&self, pcr: u32, data: &[u8]) -> Event {
        let mut event = self.event(pcr, EventType::NO_ACTION, data, &[]);
        for (_, digest) in &mut event.digests {
            digest.fill(0);
        }
        event
    }

    pub fn locality(&self, locality: u8) -> Event {
        self.note(0, &[&b"StartupLocality\0"[..], &[locality]].concat())
    }

    /// The first event of a type in a PCR, to be changed.
    pub fn find(&mut self, pcr: u32, event_type: EventType) -> &mut Event {
        let index = self.position(pcr, event_type);
        &mut self.events[index]
    }

    pub fn position(&self, pcr: u32, event_type: EventType) -> usize {
        self.events
            .iter()
            .position(|event| event.pcr == pcr && event.event_type == event_type)
            .unwrap()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(banks) = &self.banks {
            bytes.extend(header(&spec_id(banks)));
        }
        for event in &self.events {
            bytes.extend(event.pcr.to_le_bytes());
            bytes.extend(event.event_type.0.to_le_bytes());
            if self.banks.is_some() {
                bytes.extend(u32::try_from(event.digests.len()).unwrap().to_le_bytes());
            }
            for (algorithm, digest) in &event.digests {
                if self.banks.is_some() {
                    bytes.extend(algorithm.to_le_bytes());
                }
                bytes.extend(digest);
            }
            bytes.extend(u32::try_from(event.data.len()).unwrap().to_le_bytes());
            bytes.extend(&event.data);
        }
        bytes.extend(&self.tail);
        bytes
    }
}

/// The first event of a log, with any data.
pub fn header(data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(EventType::NO_ACTION.0.to_le_bytes());
    bytes.extend([0; 20]);
    bytes.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
    bytes.extend(data);
    bytes
}

/// `TCG_EfiSpecIDEvent`.
pub fn spec_id(banks: &[PcrBank]) -> Vec<u8> {
    let mut bytes = b"Spec ID Event03\0".to_vec();
    bytes.extend([0, 0, 0, 0, 0, 2, 0, 2]);
    bytes.extend(u32::try_from(banks.len()).unwrap().to_le_bytes());
    for bank in banks {
        bytes.extend(bank.algorithm_id().to_le_bytes());
        bytes.extend(u16::try_from(bank.digest_len()).unwrap().to_le_bytes());
    }
    bytes.push(0);
    bytes
}

pub fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

pub fn le(fields: &[u64]) -> Vec<u8> {
    fields.iter().flat_map(|field| field.to_le_bytes()).collect()
}

/// `UEFI_VARIABLE_DATA` of one of UEFI's own variables.
pub fn variable(name: &str, data: &[u8]) -> Vec<u8> {
    let lengths = le(&[name.len() as u64, data.len() as u64]);
    [&GLOBAL[..], &lengths, &utf16(name), data].concat()
}

/// `TCG_PCClientTaggedEvent`.
pub fn tagged(tag: u32, data: &[u8]) -> Vec<u8> {
    let size = u32::try_from(data.len()).unwrap();
    [&tag.to_le_bytes()[..], &size.to_le_bytes(), data].concat()
}

/// `UEFI_IMAGE_LOAD_EVENT` of a file.
pub fn image() -> Vec<u8> {
    let name = utf16("\\EFI\\BOOT\\BOOTX64.EFI\0");
    let length = u16::try_from(name.len() + 4).unwrap().to_le_bytes();
    let path = [&[4, 4][..], &length, &name, &[0x7f, 0xff, 4, 0]].concat();
    [le(&[0x7e00_0000, 0x100_0000, 0, path.len() as u64]), path].concat()
}

/// `UEFI_GPT_DATA` of a disk with one partition.
pub fn gpt() -> Vec<u8> {
    let mut bytes = b"EFI PART".to_vec();
    bytes.extend([0, 0, 1, 0, 92, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0]);
    bytes.extend(le(&[1, 0xffff, 34, 0xfff0]));
    bytes.extend([0xd1; 16]);
    bytes.extend(le(&[2]));
    bytes.extend([128, 0, 0, 0, 128, 0, 0, 0, 9, 9, 9, 9]);
    bytes.extend(le(&[1]));
    let mut entry = [[0xe5; 16], [0x1d; 16]].concat();
    entry.extend(le(&[2048, 4095, 0]));
    entry.extend(utf16("ESP"));
    entry.resize(128, 0);
    [bytes, entry].concat()
}
