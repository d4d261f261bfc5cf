//! Fixed virtual hard disks: the bytes of a disk, and a footer that says so.
//!
//! Microsoft, Virtual Hard Disk Image Format Specification, version 1.0: "Hard Disk Footer Format", and the appendix "CHS
//! Calculation". Azure wants the disk to be whole MiB, without the footer.

use std::path::Path;

use aicert_cloud_common::{ImageError, SparseImage};

/// The length of the footer.
pub(crate) const FOOTER: u64 = 512;

/// What a disk is a multiple of in Azure, and the least that it takes uploads for (20 MiB).
const UNIT: u64 = 1 << 20;
const LEAST: u64 = 20 << 20;

/// An image as a virtual hard disk.
#[derive(Debug)]
pub(crate) struct Vhd {
    image: SparseImage,
    disk: u64,
    footer: [u8; FOOTER as usize],
}

impl Vhd {
    /// The disk of an image whose SHA-256 is known. The same image always gives the same bytes.
    pub(crate) fn new(image: SparseImage, sha256: &[u8; 32]) -> Self {
        let disk = image.length().next_multiple_of(UNIT).max(LEAST);
        Self {
            footer: footer(disk, sha256),
            image,
            disk,
        }
    }

    pub(crate) fn open(path: &Path) -> Result<(Self, [u8; 32]), ImageError> {
        let image = SparseImage::open(path)?;
        let sha256 = image.sha256()?;
        Ok((Self::new(image, &sha256), sha256))
    }

    /// Its length, with the footer.
    pub(crate) fn length(&self) -> u64 {
        self.disk + FOOTER
    }

    /// The image's SHA-256, read once more.
    pub(crate) fn sha256(&self) -> Result<[u8; 32], ImageError> {
        self.image.sha256()
    }

    /// Where it may have something other than zeros, in pieces of at most `size` bytes; `size` is a multiple of 512.
    pub(crate) fn pieces(&self, size: u64) -> impl Iterator<Item = (u64, u64)> + use<> {
        let (length, disk, total) = (self.image.length(), self.disk, self.length());
        (0..length.div_ceil(size))
            .map(move |number| (number * size, ((number + 1) * size).min(length)))
            .chain([(disk, total)])
    }

    /// The bytes of a piece.
    pub(crate) fn piece(&self, start: u64, end: u64, size: u64) -> Result<Vec<u8>, ImageError> {
        if start == self.disk {
            return Ok(self.footer.to_vec());
        }
        // No longer than a piece, which fits into memory.
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        let mut bytes = self.image.block(start / size, length)?;
        bytes.truncate(usize::try_from(end - start).unwrap_or(length));
        Ok(bytes)
    }
}

fn footer(disk: u64, sha256: &[u8; 32]) -> [u8; FOOTER as usize] {
    let mut footer = [0; FOOTER as usize];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        footer[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(b"conectix");
    // Features: a bit that is always set. Version 1.0. No further headers.
    put(&2_u32.to_be_bytes());
    put(&0x0001_0000_u32.to_be_bytes());
    put(&u64::MAX.to_be_bytes());
    // Made in the first second that can be told, 2000-01-01: the same image gives the same disk.
    put(&0_u32.to_be_bytes());
    put(b"aice");
    put(&0x0001_0000_u32.to_be_bytes());
    put(b"Wi2k");
    // The size that it was made with, and has.
    put(&disk.to_be_bytes());
    put(&disk.to_be_bytes());
    put(&geometry(disk));
    // Fixed.
    put(&2_u32.to_be_bytes());
    let checksum = at_checksum();
    put(&0_u32.to_be_bytes());
    put(&sha256[..16]);
    let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
    footer[checksum..checksum + 4].copy_from_slice(&(!sum).to_be_bytes());
    footer
}

/// Where the checksum is.
const fn at_checksum() -> usize {
    64
}

/// Cylinders, heads and sectors.
fn geometry(disk: u64) -> [u8; 4] {
    let total = (disk / 512).min(65535 * 16 * 255);
    let (sectors, heads, cylinders_times_heads);
    if total >= 65535 * 16 * 63 {
        (sectors, heads, cylinders_times_heads) = (255, 16, total / 255);
    } else {
        let mut candidate = (17, total / 17, (total / 17).div_ceil(1024).max(4));
        if candidate.1 >= candidate.2 * 1024 || candidate.2 > 16 {
            candidate = (31, total / 31, 16);
        }
        if candidate.1 >= candidate.2 * 1024 {
            candidate = (63, total / 63, 16);
        }
        (sectors, cylinders_times_heads, heads) = candidate;
    }
    // At most 65535, by the first line.
    let cylinders = u16::try_from(cylinders_times_heads / heads).unwrap_or(u16::MAX);
    let [high, low] = cylinders.to_be_bytes();
    [high, low, u8::try_from(heads).unwrap_or(16), sectors]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_becomes_a_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.raw");
        let mut bytes = vec![7; (21 << 20) + 1024];
        bytes[5 << 20..9 << 20].fill(0);
        std::fs::write(&path, &bytes).unwrap();
        let (vhd, sha256) = Vhd::open(&path).unwrap();
        assert_eq!(vhd.length(), (22 << 20) + 512);
        let size = 4 << 20;
        let mut disk = vec![0; vhd.length() as usize];
        for (start, end) in vhd.pieces(size) {
            disk[start as usize..end as usize].copy_from_slice(&vhd.piece(start, end, size).unwrap());
        }
        assert_eq!(disk[..bytes.len()], bytes);
        assert!(SparseImage::is_zero(&disk[bytes.len()..22 << 20]));
        let footer = &disk[22 << 20..];
        assert_eq!(&footer[..8], b"conectix");
        assert_eq!(footer[48..56], (22_u64 << 20).to_be_bytes());
        assert_eq!(footer[60..64], 2_u32.to_be_bytes());
        assert_eq!(footer[68..84], sha256[..16]);
        let sum: u32 = footer
            .iter()
            .enumerate()
            .filter(|(at, _)| !(64..68).contains(at))
            .map(|(_, byte)| u32::from(*byte))
            .sum();
        assert_eq!(footer[64..68], (!sum).to_be_bytes());
    }

    #[test]
    fn the_geometry_is_what_qemu_computes() {
        // Bytes 40 to 59 of what `qemu-img create -f vpc -o subformat=fixed` 7.2 makes of 20M, 1G and 1T.
        assert_eq!(geometry(0x140_5800), [0x02, 0x5b, 4, 17]);
        assert_eq!(geometry(0x4003_e000), [0x08, 0x21, 16, 63]);
        assert_eq!(geometry(1 << 40), [0xff, 0xff, 16, 255]);
    }
}
