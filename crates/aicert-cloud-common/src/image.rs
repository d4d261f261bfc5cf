//! Disk images, most of which are zeros.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// A raw disk image, block by block. Reading it needs no more memory than a few blocks.
#[derive(Debug)]
pub struct SparseImage {
    file: File,
    path: PathBuf,
    length: u64,
}

/// Says what is wrong with an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// It cannot be read.
    #[error("could not read the image {}: {source}", .path.display())]
    Unreadable {
        /// The image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no raw disk image: those are whole sectors of 512 bytes.
    #[error("{} is no raw disk image: it has {length} bytes, which is no multiple of 512", .path.display())]
    NotRaw {
        /// The image.
        path: PathBuf,
        /// Its length.
        length: u64,
    },
}

impl SparseImage {
    /// Opens an image.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is none.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let unreadable = |source| ImageError::Unreadable {
            path: path.into(),
            source,
        };
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        let length = metadata.len();
        if !metadata.is_file() || length == 0 || length % 512 != 0 {
            return Err(ImageError::NotRaw {
                path: path.into(),
                length,
            });
        }
        Ok(Self {
            file,
            path: path.into(),
            length,
        })
    }

    /// Its length, in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// How many blocks of `size` bytes it has; the last one may be shorter.
    pub fn blocks(&self, size: usize) -> u64 {
        self.length.div_ceil(size.max(1) as u64)
    }

    /// The block with that number; shorter than `size` at the end of the image, empty behind it.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn block(&self, number: u64, size: usize) -> Result<Vec<u8>, ImageError> {
        let offset = number.saturating_mul(size as u64).min(self.length);
        let length = (self.length - offset).min(size as u64);
        // Not longer than `size`.
        let mut block = vec![0; usize::try_from(length).unwrap_or(size)];
        self.read(offset, &mut block)?;
        Ok(block)
    }

    /// Fills a buffer with the bytes from `offset` on: so that reading all of it needs but one.
    ///
    /// # Errors
    ///
    /// When they cannot be read, or there are not as many.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ImageError> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|source| ImageError::Unreadable {
                path: self.path.clone(),
                source,
            })
    }

    /// Whether a block holds nothing but zeros.
    pub fn is_zero(block: &[u8]) -> bool {
        // Compared in pieces, which is fast without optimisation too.
        const ZEROS: [u8; 4096] = [0; 4096];
        block
            .chunks(ZEROS.len())
            .all(|piece| piece == &ZEROS[..piece.len()])
    }

    /// The SHA-256 of the whole image.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn sha256(&self) -> Result<[u8; 32], ImageError> {
        const SIZE: usize = 1 << 20;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; SIZE];
        let mut offset = 0;
        while offset < self.length {
            // Not longer than the buffer.
            let length = (self.length - offset).min(SIZE as u64) as usize;
            self.read(offset, &mut buffer[..length])?;
            hasher.update(&buffer[..length]);
            offset += length as u64;
        }
        Ok(hasher.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_its_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.raw");
        let mut bytes = vec![0; 512 * 5];
        bytes[512 * 4] = 1;
        std::fs::write(&path, &bytes).unwrap();
        let image = SparseImage::open(&path).unwrap();
        let blocks: Vec<_> = (0..image.blocks(1024))
            .map(|n| image.block(n, 1024).unwrap())
            .collect();
        assert_eq!(blocks.concat(), bytes);
        assert_eq!(
            blocks
                .iter()
                .map(|block| SparseImage::is_zero(block))
                .collect::<Vec<_>>(),
            [true, true, false]
        );
        assert!(image.block(9, 1024).unwrap().is_empty());
        assert_eq!(image.sha256().unwrap(), <[u8; 32]>::from(Sha256::digest(&bytes)));
    }

    #[test]
    fn what_is_no_image_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "no").unwrap();
        let message = SparseImage::open(&path).unwrap_err().to_string();
        assert!(message.contains("it has 2 bytes"), "{message}");
        assert!(SparseImage::open(folder.path()).is_err());
        assert!(SparseImage::open(&folder.path().join("none")).is_err());
    }
}
