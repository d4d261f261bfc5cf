//! Reading a log, within bounds.

use aicert_core::tpm::PcrBank;
use serde::Serialize;

use super::decode::decode;
use super::{EVENT_LIMIT, Event, EventData, EventLog, EventLogError, EventType, Format, SIZE_LIMIT};

/// The most algorithms that a header may list; no TPM has half as many banks.
const ALGORITHM_LIMIT: usize = 16;

/// The header of a log (`TCG_EfiSpecIDEvent`, PFP 1.06, section 10.4.5.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SpecId {
    /// Which structure it is: `Spec ID Event03` for crypto-agile logs, `Spec ID Event00` or `02` for SHA-1.
    pub signature: String,
    /// 0 for clients, 1 for servers.
    pub platform_class: u32,
    /// Major version, minor version and errata of the specification.
    pub specification: [u8; 3],
    /// 1 for 32 bits, 2 for 64.
    pub uintn_size: u8,
    /// The algorithms of the digests; empty for a log of SHA-1 alone.
    pub algorithms: Vec<Algorithm>,
    /// Whatever the vendor added, in hexadecimal.
    pub vendor_info: String,
}

/// An algorithm that each event of a log has a digest of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Algorithm {
    /// Its `TPM_ALG_ID`.
    pub id: u16,
    /// The length of its digests in bytes.
    pub digest_len: u16,
}

/// Bytes of one value after the last event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Padding {
    /// Where it begins.
    pub offset: usize,
    /// How many bytes.
    pub len: usize,
    /// Which value: `0x00` or `0xff`.
    pub byte: u8,
}

pub(super) fn parse(bytes: &[u8]) -> Result<EventLog<'_>, EventLogError> {
    if bytes.len() > SIZE_LIMIT {
        return Err(EventLogError::TooLarge { found: bytes.len() });
    }
    if bytes.is_empty() {
        return Err(EventLogError::Empty);
    }
    let mut cursor = Cursor {
        bytes,
        position: 0,
        number: 0,
        start: 0,
        filler: bytes
            .iter()
            .rposition(|byte| Some(byte) != bytes.last())
            .map_or(0, |last| last + 1),
    };
    // The first event always has the old format, so that old readers can tell that they cannot read on.
    let first = cursor.old_event()?;
    let header = if first.event_type == EventType::NO_ACTION {
        SpecId::read(first.raw, cursor.position - first.raw.len())?
    } else {
        None
    };
    let format = match &header {
        Some(header) if !header.algorithms.is_empty() => Format::CryptoAgile,
        _ => Format::Sha1Only,
    };
    if header.is_none() {
        cursor.position = 0;
    }
    let algorithms = header
        .as_ref()
        .map(|header| &*header.algorithms)
        .unwrap_or_default();
    let mut events = Vec::new();
    let mut padding = None;
    while cursor.position < bytes.len() {
        padding = cursor.padding();
        if padding.is_some() {
            break;
        }
        if events.len() == EVENT_LIMIT {
            return Err(EventLogError::TooManyEvents);
        }
        cursor.number = events.len();
        events.push(match format {
            Format::Sha1Only => cursor.old_event()?,
            Format::CryptoAgile => cursor.event(algorithms)?,
        });
    }
    for event in &mut events {
        event.data = decode(event.event_type, event.pcr, event.raw);
    }
    Ok(EventLog {
        format,
        header,
        events,
        padding,
    })
}

struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    /// Of the event that is being read, and where it begins.
    number: usize,
    start: usize,
    /// From where on all bytes are as the last one. Found once: a log of zeros would be looked through at every event.
    filler: usize,
}

impl<'a> Cursor<'a> {
    /// `TCG_PCR_EVENT` (PFP 1.06, section 10.2.1).
    fn old_event(&mut self) -> Result<Event<'a>, EventLogError> {
        let (pcr, event_type) = self.prefix()?;
        let mut digests = [None; PcrBank::ALL.len()];
        let digest = self.take("digest", PcrBank::Sha1.digest_len())?;
        set(&mut digests, PcrBank::Sha1, digest);
        self.finish(pcr, event_type, digests)
    }

    /// `TCG_PCR_EVENT2` (PFP 1.06, section 10.2.2), whose digests must be those that the header lists, once each.
    fn event(&mut self, algorithms: &[Algorithm]) -> Result<Event<'a>, EventLogError> {
        let (pcr, event_type) = self.prefix()?;
        let (number, offset) = (self.number, self.start);
        let count = self.u32("number of digests")?;
        if usize::try_from(count) != Ok(algorithms.len()) {
            return Err(EventLogError::DigestCount {
                number,
                offset,
                found: count,
                expected: algorithms.len(),
            });
        }
        let mut digests = [None; PcrBank::ALL.len()];
        let mut seen = 0_u32;
        for _ in algorithms {
            let found = self.u16("digest's algorithm")?;
            let wrong = |expected| EventLogError::DigestAlgorithm {
                number,
                offset,
                found,
                expected,
            };
            let (index, algorithm) = algorithms
                .iter()
                .enumerate()
                .find(|(_, algorithm)| algorithm.id == found)
                .ok_or_else(|| wrong("one that the header lists"))?;
            // The header lists at most 16.
            if seen & (1 << index) != 0 {
                return Err(wrong("each algorithm once"));
            }
            seen |= 1 << index;
            let digest = self.take("digests", usize::from(algorithm.digest_len))?;
            if let Some(bank) = PcrBank::from_algorithm_id(found) {
                set(&mut digests, bank, digest);
            }
        }
        self.finish(pcr, event_type, digests)
    }

    fn prefix(&mut self) -> Result<(u32, EventType), EventLogError> {
        self.start = self.position;
        Ok((self.u32("PCR")?, EventType(self.u32("type")?)))
    }

    fn finish(
        &mut self,
        pcr: u32,
        event_type: EventType,
        digests: [Option<&'a [u8]>; PcrBank::ALL.len()],
    ) -> Result<Event<'a>, EventLogError> {
        let size = self.u32("size of its data")?;
        let raw = self.take("data", usize::try_from(size).unwrap_or(usize::MAX))?;
        Ok(Event {
            number: self.number,
            offset: self.start,
            pcr,
            event_type,
            raw,
            data: EventData::Undecoded,
            digests,
        })
    }

    /// What is left, if it is filler: all of one value, and no event. An event that begins like this has the PCR and
    /// the type 0, or both 0xffffffff, which are none.
    fn padding(&self) -> Option<Padding> {
        let rest = self.bytes.get(self.position..)?;
        let byte = *rest.first().filter(|byte| matches!(byte, 0 | 0xff))?;
        (self.position >= self.filler).then_some(Padding {
            offset: self.position,
            len: rest.len(),
            byte,
        })
    }

    fn take(&mut self, field: &'static str, needed: usize) -> Result<&'a [u8], EventLogError> {
        // The position is never past the end.
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        let taken = rest.get(..needed).ok_or(EventLogError::Truncated {
            number: self.number,
            offset: self.start,
            field,
            needed,
            left: rest.len(),
        })?;
        self.position += needed;
        Ok(taken)
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, EventLogError> {
        let mut bytes = [0; 2];
        bytes.copy_from_slice(self.take(field, 2)?);
        Ok(u16::from_le_bytes(bytes))
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, EventLogError> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(field, 4)?);
        Ok(u32::from_le_bytes(bytes))
    }
}

fn set<'a>(digests: &mut [Option<&'a [u8]>; PcrBank::ALL.len()], bank: PcrBank, digest: &'a [u8]) {
    for (slot, other) in digests.iter_mut().zip(PcrBank::ALL) {
        if other == bank {
            *slot = Some(digest);
        }
    }
}

impl SpecId {
    /// Reads the data of the first event, which begins at `offset` of the log; nothing when it is another `EV_NO_ACTION`.
    fn read(raw: &[u8], offset: usize) -> Result<Option<Self>, EventLogError> {
        let Some(signature) = raw.get(..16) else {
            return Ok(None);
        };
        let agile = match signature {
            b"Spec ID Event03\0" => true,
            // TCG EFI Platform 1.22, section 7.4; TCG PC Client BIOS 1.21, section 11.3.4.1.
            b"Spec ID Event00\0" | b"Spec ID Event02\0" => false,
            _ => return Ok(None),
        };
        let mut fields = Fields {
            raw,
            position: 16,
            offset,
        };
        let platform_class = fields.u32("platform class")?;
        // The minor version comes first.
        let (minor, major) = (fields.u8("minor version")?, fields.u8("major version")?);
        let (errata, uintn_size) = (fields.u8("errata")?, fields.u8("size of UINTN")?);
        let algorithms = if agile { fields.algorithms()? } else { Vec::new() };
        let vendor_info_len = fields.u8("size of vendor information")?;
        let vendor_info = hex::encode(fields.take("vendor information", usize::from(vendor_info_len))?);
        if fields.position != raw.len() {
            return Err(fields.wrong(format!(
                "{} bytes follow the vendor information, where it should end",
                raw.len() - fields.position
            )));
        }
        Ok(Some(Self {
            signature: String::from_utf8_lossy(&signature[..15]).into_owned(),
            platform_class,
            specification: [major, minor, errata],
            uintn_size,
            algorithms,
            vendor_info,
        }))
    }
}

/// The fields of the header's data.
struct Fields<'a> {
    raw: &'a [u8],
    position: usize,
    offset: usize,
}

impl<'a> Fields<'a> {
    fn algorithms(&mut self) -> Result<Vec<Algorithm>, EventLogError> {
        let count = self.u32("number of algorithms")?;
        let count = usize::try_from(count)
            .ok()
            .filter(|count| (1..=ALGORITHM_LIMIT).contains(count))
            .ok_or_else(|| {
                self.wrong(format!(
                    "it lists {count} algorithms, expected 1 to {ALGORITHM_LIMIT}"
                ))
            })?;
        let mut algorithms = Vec::<Algorithm>::new();
        for _ in 0..count {
            let algorithm = Algorithm {
                id: self.u16("algorithm")?,
                digest_len: self.u16("length of digests")?,
            };
            if algorithms.iter().any(|other| other.id == algorithm.id) {
                return Err(self.wrong(format!("it lists the algorithm {:#06x} twice", algorithm.id)));
            }
            let expected = PcrBank::from_algorithm_id(algorithm.id).map(PcrBank::digest_len);
            if expected.is_some_and(|expected| expected != usize::from(algorithm.digest_len)) {
                return Err(self.wrong(format!(
                    "it says that digests of the algorithm {:#06x} have {} bytes, expected {}",
                    algorithm.id,
                    algorithm.digest_len,
                    expected.unwrap_or_default()
                )));
            }
            algorithms.push(algorithm);
        }
        Ok(algorithms)
    }

    fn take(&mut self, field: &'static str, needed: usize) -> Result<&'a [u8], EventLogError> {
        let rest = self.raw.get(self.position..).unwrap_or_default();
        let taken = rest
            .get(..needed)
            .ok_or_else(|| self.wrong(format!("it ends inside its {field}")))?;
        self.position += needed;
        Ok(taken)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, EventLogError> {
        Ok(self.take(field, 1)?[0])
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, EventLogError> {
        let mut bytes = [0; 2];
        bytes.copy_from_slice(self.take(field, 2)?);
        Ok(u16::from_le_bytes(bytes))
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, EventLogError> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(field, 4)?);
        Ok(u32::from_le_bytes(bytes))
    }

    fn wrong(&self, reason: String) -> EventLogError {
        EventLogError::Header {
            offset: self.offset + self.position,
            reason,
        }
    }
}
