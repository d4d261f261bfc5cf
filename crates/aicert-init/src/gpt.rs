//! The header of a GUID partition table, for where the table ends (UEFI 2.10, section 5.3.2).

use crate::failure::{Failure, Outcome};

const SIGNATURE: &[u8] = b"EFI PART";
const HEADER_SIZE: usize = 12;
const CHECKSUM: usize = 16;
const THIS_BLOCK: usize = 24;
const OTHER_BLOCK: usize = 32;

/// The size of a header's fields. A header may be larger, up to a block.
const FIELDS: usize = 92;

const MEANING: &str = "the disk that the root file system is on has no usable partition table";

/// The last block of the table whose primary header is in `block`, the disk's second one: that of its backup header.
/// What comes behind it belongs to nobody.
pub(crate) fn last_block(block: &[u8]) -> Outcome<u64> {
    let wrong = |what| Failure::new(format!("the header of the partition table {what}"), MEANING);
    if !block.starts_with(SIGNATURE) {
        return Err(wrong("has no signature"));
    }
    let size = field(block, HEADER_SIZE)
        .map(u32::from_le_bytes)
        .and_then(|size| usize::try_from(size).ok())
        .filter(|size| *size >= FIELDS)
        .ok_or_else(|| wrong("is too short"))?;
    let header = block.get(..size).ok_or_else(|| wrong("is longer than a block"))?;
    let checksum = field(header, CHECKSUM).map(u32::from_le_bytes);
    if checksum != Some(crc32(header)) {
        return Err(wrong("does not have its checksum"));
    }
    if field(header, THIS_BLOCK).map(u64::from_le_bytes) != Some(1) {
        return Err(wrong("is not that of the primary table"));
    }
    field(header, OTHER_BLOCK)
        .map(u64::from_le_bytes)
        .filter(|block| *block > 1)
        .ok_or_else(|| wrong("does not say where its backup is"))
}

fn field<const SIZE: usize>(bytes: &[u8], at: usize) -> Option<[u8; SIZE]> {
    bytes.get(at..at + SIZE)?.try_into().ok()
}

/// CRC-32 as in ISO 3309, of the header with zeros where its checksum is.
fn crc32(header: &[u8]) -> u32 {
    let bytes = header.iter().enumerate().map(|(at, byte)| {
        if (CHECKSUM..CHECKSUM + 4).contains(&at) {
            0
        } else {
            *byte
        }
    });
    !bytes.fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 * (sum & 1))
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(this: u64, other: u64) -> Vec<u8> {
        let mut block = vec![0; 512];
        block[..8].copy_from_slice(SIGNATURE);
        block[8..12].copy_from_slice(&[0, 0, 1, 0]);
        block[12..16].copy_from_slice(&92u32.to_le_bytes());
        block[24..32].copy_from_slice(&this.to_le_bytes());
        block[32..40].copy_from_slice(&other.to_le_bytes());
        seal(&mut block);
        block
    }

    fn seal(block: &mut [u8]) {
        let sum = crc32(&block[..92]);
        block[16..20].copy_from_slice(&sum.to_le_bytes());
    }

    #[test]
    fn computes_the_usual_checksum() {
        // "123456789" has the check value CBF43926; it does not reach the place of the header's own checksum.
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn reads_what_sfdisk_wrote() {
        // util-linux 2.38.1, on a file of 4 MiB with one partition.
        let written = "4546492050415254000001005c000000c9f77880000000000100000000000000ff1f000000000000220000000000\
                       0000de1f00000000000071e41c6a577e004b80000123456789aa0200000000000000800000008000000087742757";
        let mut block = hex::decode(written).unwrap();
        block.resize(512, 0);
        assert_eq!(last_block(&block).unwrap(), (4 << 20) / 512 - 1);
    }

    #[test]
    fn finds_the_end() {
        assert_eq!(
            last_block(&header(1, 0x1234_5678_9abc)).unwrap(),
            0x1234_5678_9abc
        );
    }

    #[test]
    fn refuses_what_is_no_primary_header() {
        let mut changed = header(1, 1000);
        changed[40] ^= 1;
        let mut long = header(1, 1000);
        long[12..16].copy_from_slice(&513u32.to_le_bytes());
        let mut short = header(1, 1000);
        short[12..16].copy_from_slice(&91u32.to_le_bytes());
        for (block, why) in [
            (vec![0; 512], "signature"),
            (SIGNATURE.to_vec(), "too short"),
            (changed, "checksum"),
            (long, "longer than a block"),
            (short, "too short"),
            (header(1000, 1), "primary"),
            (header(1, 0), "backup"),
        ] {
            let message = last_block(&block).unwrap_err().to_string();
            assert!(message.contains(why), "{message}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(mut block in proptest::collection::vec(any::<u8>(), 0..600), sign in any::<bool>()) {
            if sign && block.len() > 8 {
                block[..8].copy_from_slice(SIGNATURE);
            }
            let _ = last_block(&block);
        }

        #[test]
        fn notices_every_change(at in 0usize..92, bit in 0u8..8) {
            let mut block = header(1, 1000);
            block[at] ^= 1 << bit;
            prop_assert!(last_block(&block).is_err());
        }
    }
}
