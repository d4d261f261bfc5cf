//! The form in which Compute Engine imports disks: `disk.raw` in a tar archive of GNU's old format, compressed with gzip, whole
//! GiB of it ("Requirements to manually import disks", Compute Engine's documentation).
//!
//! The archive is made piece by piece, each the same whenever it is made, so that pieces can be sent in any order, compared with
//! what was sent before, and put together in the end. One gzip member (RFC 1952) is what comes out: pieces of its deflate stream
//! end at a byte (RFC 1951, section 3.2.4: a full flush ends with an empty stored block), so they need not know of each other.

use aicert_cloud_common::{ImageError, SparseImage};
use flate2::{Compress, Compression, Crc, FlushCompress};

/// What is compressed by itself.
const CHUNK: usize = 1 << 20;
/// The smallest piece, before compression, and how many pieces there are at most.
const SMALLEST: u64 = 32 << 20;
const MOST: u64 = 960;
const BLOCK: u64 = 512;
/// tar pads its archives to records of 20 blocks.
const RECORD: u64 = 20 * BLOCK;
/// Deflate, no name, no time, no system (RFC 1952, section 2.3).
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// A disk as an archive.
#[derive(Debug)]
pub(crate) struct Tarball {
    image: SparseImage,
    /// The disk, in bytes.
    disk: u64,
    /// The archive, before compression.
    length: u64,
    header: [u8; BLOCK as usize],
    piece: u64,
}

/// A piece of the archive.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) bytes: Vec<u8>,
    /// The checksum of what it is of, for the end of the archive.
    pub(crate) crc: Crc,
    /// How much of the disk it is.
    pub(crate) length: u64,
}

impl Tarball {
    pub(crate) fn new(image: SparseImage) -> Self {
        Self::in_units(image, 1 << 30)
    }

    /// A disk whose size is a multiple of `unit`.
    fn in_units(image: SparseImage, unit: u64) -> Self {
        let disk = image.length().next_multiple_of(unit);
        // A header, the disk, and two empty blocks at the end.
        let length = (BLOCK + disk + 2 * BLOCK).next_multiple_of(RECORD);
        let piece = length.div_ceil(MOST).next_multiple_of(CHUNK as u64).max(SMALLEST);
        Self {
            header: header(disk),
            image,
            disk,
            length,
            piece,
        }
    }

    /// How many pieces there are, without the last one, which is [`end`](Self::end).
    pub(crate) fn pieces(&self) -> u64 {
        self.length.div_ceil(self.piece)
    }

    /// The size of the disk.
    pub(crate) fn disk(&self) -> u64 {
        self.disk
    }

    /// A piece, compressed.
    pub(crate) fn piece(&self, number: u64) -> Result<Piece, ImageError> {
        let start = number * self.piece;
        let end = (start + self.piece).min(self.length);
        let mut bytes = Vec::new();
        if number == 0 {
            bytes.extend(GZIP_HEADER);
        }
        let mut crc = Crc::new();
        // Most of a disk is zeros, which are compressed once.
        let mut zeros: Option<(Vec<u8>, Crc)> = None;
        let mut buffer = vec![0; CHUNK];
        let mut at = start;
        while at < end {
            let length = (end - at).min(CHUNK as u64);
            // Not longer than the buffer.
            let chunk = &mut buffer[..length as usize];
            self.read(at, chunk)?;
            let chunk = &*chunk;
            at += length;
            let whole_zero = length == CHUNK as u64 && SparseImage::is_zero(chunk);
            let (compressed, sum) = match zeros.take() {
                Some(known) if whole_zero => known,
                known => {
                    if !whole_zero {
                        zeros = known;
                    }
                    let mut sum = Crc::new();
                    sum.update(chunk);
                    (deflate(chunk), sum)
                }
            };
            bytes.extend(&compressed);
            crc.combine(&sum);
            if whole_zero {
                zeros = Some((compressed, sum));
            }
        }
        Ok(Piece {
            bytes,
            crc,
            length: end - start,
        })
    }

    /// What comes behind all pieces: the last block of the deflate stream, empty, the checksum, and the length (RFC 1952,
    /// section 2.3.1).
    pub(crate) fn end(&self, crc: &Crc) -> Vec<u8> {
        // BFINAL, fixed codes, and their end of block (RFC 1951, section 3.2.6).
        let mut bytes = vec![0x03, 0x00];
        bytes.extend(crc.sum().to_le_bytes());
        // Modulo 2^32, as it is defined.
        bytes.extend((self.length as u32).to_le_bytes());
        bytes
    }

    /// Fills a buffer with bytes of the archive.
    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<(), ImageError> {
        let (mut at, mut rest) = (at, buffer);
        while !rest.is_empty() {
            let wanted = rest.len() as u64;
            let disk = at.saturating_sub(BLOCK);
            // No longer than the buffer, each of them.
            let (taken, source) = if at < BLOCK {
                ((BLOCK - at).min(wanted) as usize, Source::Header)
            } else if disk < self.image.length() {
                ((self.image.length() - disk).min(wanted) as usize, Source::Image)
            } else {
                (rest.len(), Source::Zeros)
            };
            let (now, later) = rest.split_at_mut(taken);
            match source {
                // Below 512.
                Source::Header => now.copy_from_slice(&self.header[at as usize..at as usize + taken]),
                Source::Image => self.image.read(disk, now)?,
                // The rest of the last GiB, and the end of the archive.
                Source::Zeros => now.fill(0),
            }
            rest = later;
            at += taken as u64;
        }
        Ok(())
    }
}

/// Where bytes of the archive come from.
enum Source {
    Header,
    Image,
    Zeros,
}

/// Compresses bytes so that what comes before and behind does not matter.
fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut compress = Compress::new(Compression::new(6), false);
    let mut out = Vec::with_capacity(bytes.len() / 8 + 64);
    loop {
        let done = usize::try_from(compress.total_in())
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let before = out.len();
        // Cannot fail: nothing is wrong with any input of a compressor.
        let _ = compress.compress_vec(&bytes[done..], &mut out, FlushCompress::Full);
        let is_complete = compress.total_in() as usize >= bytes.len() && out.len() < out.capacity();
        if is_complete {
            return out;
        }
        out.reserve(before.max(4096));
    }
}

/// The header of `disk.raw` in GNU's old format (GNU tar's manual, "Basic Tar Format", `oldgnu_header`).
fn header(size: u64) -> [u8; BLOCK as usize] {
    let mut header = [0; BLOCK as usize];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"disk.raw");
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    match size {
        ..0o100_000_000_000 => put(124, format!("{size:011o}\0").as_bytes()),
        // Too large for octal digits: in base 256.
        _ => {
            put(124, &[0x80, 0, 0, 0]);
            put(128, &size.to_be_bytes());
        }
    }
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar  \0");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

    use super::*;

    #[test]
    fn pieces_make_an_archive_that_tar_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        let mut file = std::fs::File::create(&path).unwrap();
        file.set_len((70 << 20) - 512).unwrap();
        for (at, text) in [
            (0, "begin"),
            ((33 << 20) - 3, "across"),
            ((70 << 20) - 520, "the end."),
        ] {
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }
        // What does not compress.
        let noise: Vec<u8> = (0..3_u32 << 20)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        file.seek(SeekFrom::Start(40 << 20)).unwrap();
        file.write_all(&noise).unwrap();
        let tarball = Tarball::in_units(SparseImage::open(&path).unwrap(), 72 << 20);
        assert_eq!(tarball.disk(), 72 << 20);
        let archive = folder.path().join("disk.tar.gz");
        let mut out = std::fs::File::create(&archive).unwrap();
        let mut crc = Crc::new();
        for number in 0..tarball.pieces() {
            let piece = tarball.piece(number).unwrap();
            assert_eq!(
                piece.bytes,
                tarball.piece(number).unwrap().bytes,
                "it is always the same"
            );
            crc.combine(&piece.crc);
            out.write_all(&piece.bytes).unwrap();
        }
        out.write_all(&tarball.end(&crc)).unwrap();
        let tar = std::process::Command::new("tar")
            .args([
                "-tvzf",
                archive.to_str().unwrap(),
                "--full-time",
                "--utc",
                "--numeric-owner",
            ])
            .output()
            .unwrap();
        assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
        let listed = String::from_utf8(tar.stdout).unwrap();
        let columns: Vec<_> = listed.split_whitespace().collect();
        assert_eq!(
            columns,
            [
                "-rw-r--r--",
                "0/0",
                "75497472",
                "1970-01-01",
                "00:00:00",
                "disk.raw"
            ]
        );
        let mut tar = std::process::Command::new("tar")
            .args(["-xOzf", archive.to_str().unwrap()])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut unpacked = tar.stdout.take().unwrap();
        let mut original = std::fs::File::open(&path).unwrap();
        let (mut theirs, mut ours) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        for at in 0..72 {
            unpacked.read_exact(&mut theirs).unwrap();
            ours.fill(0);
            original.seek(SeekFrom::Start(at << 20)).unwrap();
            // Behind its end, and that is in the middle of a MiB, there are zeros.
            let there = ((70 << 20) - 512_u64).saturating_sub(at << 20);
            let wanted = ours.len().min(usize::try_from(there).unwrap());
            original.read_exact(&mut ours[..wanted]).unwrap();
            assert!(theirs == ours, "MiB {at} differs");
        }
        assert!(tar.wait().unwrap().success());
    }

    #[test]
    fn sizes_of_any_length_fit_a_header() {
        assert_eq!(&header(1 << 30)[124..136], b"10000000000\0");
        assert_eq!(
            &header(8 << 30)[124..136],
            &[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]
        );
    }
}
