//! The partition table (UEFI 2.10, section 5), and what firmware measures of it.

use std::io::{Read, Seek};
use std::ops::Range;

use super::ImageError;
use super::bytes::{u32_at, u64_at};
use super::disk::Disk;

const SIGNATURE: &[u8; 8] = b"EFI PART";
/// The fields of the header that there are in every version (section 5.3.2), which is what is measured of it.
const HEADER: usize = 92;
/// Tables are usually 16 KiB.
const ENTRIES_LIMIT: u64 = 1 << 20;
/// The type of an EFI system partition, c12a7328-f81f-11d2-ba4b-00a0c93ec93b (section 5.3.3).
const SYSTEM_PARTITION: [u8; 16] = [
    0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
];

/// A partition table whose checksums are right.
#[derive(Debug)]
pub(super) struct Table {
    sector: u64,
    header: Vec<u8>,
    /// The entries that are in use, and where each is on the disk.
    used: Vec<(u64, Vec<u8>)>,
}

/// Whether there is a partition table, for sectors of 512 or of 4096 bytes.
pub(super) fn is_there<R: Read + Seek>(disk: &mut Disk<R>) -> bool {
    [512, 4096].into_iter().any(|sector| has_signature(disk, sector))
}

fn has_signature<R: Read + Seek>(disk: &mut Disk<R>, sector: u64) -> bool {
    disk.read("partition table", sector, SIGNATURE.len())
        .is_ok_and(|found| found == SIGNATURE)
}

pub(super) fn read<R: Read + Seek>(disk: &mut Disk<R>) -> Result<Table, ImageError> {
    let sector = match (has_signature(disk, 512), has_signature(disk, 4096)) {
        (true, false) => 512,
        (false, true) => 4096,
        (true, true) => {
            let reason = "there is another one at byte 4096: it depends on the size of the disk's sectors which of them counts";
            return Err(fault(512, reason));
        }
        (false, false) => {
            let reason = "there is no `EFI PART`, neither here nor at byte 4096: expected a disk with a GPT";
            return Err(fault(512, reason));
        }
    };
    check_protective_mbr(&disk.read("master boot record", 0, 512)?)?;
    let bytes = disk.read("partition table", sector, 512)?;
    // 512 bytes were read, and each of these fields ends before byte 92.
    let number = |offset| u32_at(&bytes, offset).unwrap_or(0);
    let long = |offset| u64_at(&bytes, offset).unwrap_or(0);
    let (revision, header_size) = (number(8), number(12) as usize);
    if revision != 0x0001_0000 || header_size < HEADER {
        let reason = format!(
            "its revision is {revision:#010x} and its size {header_size}; expected 0x00010000 and 92 or more"
        );
        return Err(fault(sector, reason));
    }
    let mut header = bytes
        .get(..header_size)
        .ok_or_else(|| {
            fault(
                sector,
                format!("its header has {header_size} bytes, which is more than a sector"),
            )
        })?
        .to_vec();
    header[16..20].fill(0);
    check_crc(sector, "header", number(16), crc32(&header))?;
    if long(24) != 1 {
        return Err(fault(
            sector + 24,
            format!("it says that it is in sector {}, not 1", long(24)),
        ));
    }
    let (count, size) = (u64::from(number(80)), u64::from(number(84)));
    let length = count * size;
    if size < 128 || !size.is_power_of_two() || length > ENTRIES_LIMIT {
        let reason = format!(
            "it has {count} entries of {size} bytes; expected entries of 128 times a power of two, and at most {ENTRIES_LIMIT} bytes"
        );
        return Err(fault(sector + 80, reason));
    }
    let start = long(72)
        .checked_mul(sector)
        .filter(|_| long(72) >= 2)
        .ok_or_else(|| {
            fault(
                sector + 72,
                format!("its entries are said to begin in sector {}", long(72)),
            )
        })?;
    // Below the limit: `length` was checked.
    let entries = disk.read("partition table's entries", start, length as usize)?;
    check_crc(start, "entries", number(88), crc32(&entries))?;
    let used = entries
        .chunks_exact(size as usize)
        .zip(0u64..)
        .filter(|(entry, _)| !entry.starts_with(&[0; 16]))
        .map(|(entry, index)| (start + index * size, entry.to_vec()))
        .collect();
    Ok(Table {
        sector,
        header: bytes[..HEADER].to_vec(),
        used,
    })
}

impl Table {
    /// `UEFI_GPT_DATA` (TCG PC Client Platform Firmware Profile 1.06, section 10.2.7): the header, the number of used
    /// entries, and these.
    pub(super) fn measured(&self) -> Vec<u8> {
        let mut data = self.header.clone();
        data.extend((self.used.len() as u64).to_le_bytes());
        data.extend(self.used.iter().flat_map(|(_, entry)| entry));
        data
    }

    /// Where the EFI system partition is, in bytes.
    pub(super) fn system_partition(&self) -> Result<Range<u64>, ImageError> {
        let mut found = self
            .used
            .iter()
            .filter(|(_, entry)| entry.starts_with(&SYSTEM_PARTITION));
        let (offset, entry) = match (found.next(), found.next()) {
            (Some(one), None) => one,
            (None, _) => return Err(fault(self.sector, "it has no EFI system partition")),
            (_, Some((offset, _))) => {
                let reason = "this is the second EFI system partition: firmware decides from which it boots, so leave one";
                return Err(fault(*offset, reason));
            }
        };
        // An entry has 128 bytes or more.
        let (first, last) = (u64_at(entry, 32).unwrap_or(0), u64_at(entry, 40).unwrap_or(0));
        let start = first.checked_mul(self.sector);
        let end = last.checked_add(1).and_then(|end| end.checked_mul(self.sector));
        match (start, end) {
            (Some(start), Some(end)) if start < end && first >= 2 => Ok(start..end),
            _ => Err(fault(
                *offset,
                format!("the EFI system partition is said to be in the sectors {first} to {last}"),
            )),
        }
    }
}

/// The record that says to older systems that the disk is full (section 5.2.3); firmware ignores the table without it.
fn check_protective_mbr(sector: &[u8]) -> Result<(), ImageError> {
    let is_protective = |entry: usize| {
        let start = 446 + entry * 16;
        sector.get(start + 4) == Some(&0xee) && u32_at(sector, start + 8) == Some(1)
    };
    if sector.get(510..512) != Some(&[0x55, 0xaa]) || !(0..4).any(is_protective) {
        let reason = "there is no protective master boot record (type 0xee from sector 1), without which firmware ignores the table";
        return Err(fault(446, reason));
    }
    Ok(())
}

fn check_crc(offset: u64, what: &str, expected: u32, found: u32) -> Result<(), ImageError> {
    if expected == found {
        return Ok(());
    }
    Err(fault(
        offset,
        format!(
            "the CRC-32 of its {what} is {found:08x}; expected {expected:08x}: the disk is damaged, or was changed without care"
        ),
    ))
}

fn fault(offset: u64, reason: impl Into<String>) -> ImageError {
    ImageError::PartitionTable {
        offset,
        reason: reason.into(),
    }
}

/// CRC-32 with the polynomial of ISO 3309, as UEFI uses it (section 4.2).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc: u32, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}
