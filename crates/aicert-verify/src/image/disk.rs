//! A disk image, and what of it takes part in booting.

use std::io::{Read, Seek, SeekFrom};

use aicert_core::tpm::PcrBank;

use super::fat::FileSystem;
use super::uki::event;
use super::{ImageError, UKI_LIMIT, gpt};
use crate::reference::{Digests, ExpectedEvent, Hex};

/// Folders whose files systemd-stub adds to what is in the image, besides the one that is named as the image is, with
/// `.extra.d` behind (systemd-stub(7), "Companion files").
const SIDECARS: [&str; 3] = [
    "\\loader\\addons",
    "\\loader\\credentials",
    "\\loader\\extensions",
];

/// Bytes that can be read anywhere, and how many they are.
pub(super) struct Disk<R> {
    reader: R,
    length: u64,
}

impl<R: Read + Seek> Disk<R> {
    pub(super) fn new(mut reader: R) -> Result<Self, ImageError> {
        let length = reader
            .seek(SeekFrom::End(0))
            .map_err(|source| read_error("end", 0, source))?;
        Ok(Self { reader, length })
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Reads `length` bytes, which callers keep small, and which must all be there.
    pub(super) fn read(
        &mut self,
        what: &'static str,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, ImageError> {
        if offset
            .checked_add(length as u64)
            .is_none_or(|end| end > self.length)
        {
            let source = std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                format!("{length} bytes are needed, and the file has {}", self.length),
            );
            return Err(read_error(what, offset, source));
        }
        let mut bytes = vec![0; length];
        self.reader
            .seek(SeekFrom::Start(offset))
            .and_then(|_| self.reader.read_exact(&mut bytes))
            .map_err(|source| read_error(what, offset, source))?;
        Ok(bytes)
    }

    /// Reads all of it, if that is not too much.
    pub(super) fn read_all(&mut self, what: &'static str, limit: u64) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        self.reader
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.reader.by_ref().take(limit + 1).read_to_end(&mut bytes))
            .map_err(|source| read_error(what, 0, source))?;
        if bytes.len() as u64 > limit {
            return Err(ImageError::TooLarge {
                what: what.into(),
                limit,
            });
        }
        Ok(bytes)
    }

    /// The SHA-256 of all of it.
    pub(super) fn sha256(&mut self) -> Result<Hex, ImageError> {
        use sha2::Digest as _;
        let mut hasher = sha2::Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut offset = 0;
        self.reader
            .seek(SeekFrom::Start(0))
            .map_err(|source| read_error("content", 0, source))?;
        loop {
            match self.reader.read(&mut buffer) {
                Ok(0) => return Ok(Hex(hasher.finalize().to_vec())),
                Ok(count) => {
                    hasher.update(buffer.get(..count).unwrap_or_default());
                    offset += count as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(read_error("content", offset, source)),
            }
        }
    }
}

fn read_error(what: &'static str, offset: u64, source: std::io::Error) -> ImageError {
    ImageError::Read { what, offset, source }
}

/// What booting a disk takes from it.
pub(super) struct Bootable {
    /// The program that firmware starts.
    pub(super) uki: Vec<u8>,
    /// What firmware measures of the partition table.
    pub(super) table: ExpectedEvent,
}

/// Finds the program at `path` on the disk's EFI system partition.
pub(super) fn open<R: Read + Seek>(disk: &mut Disk<R>, path: &str) -> Result<Bootable, ImageError> {
    let table = gpt::read(disk)?;
    let data = table.measured();
    let table_event = event(
        5,
        "EV_EFI_GPT_EVENT",
        "partition table",
        Digests::with(|bank: PcrBank| bank.hash(&[&data])),
    );
    let partition = table.system_partition()?;
    let mut files = FileSystem::open(disk, partition)?;
    let uki = files.read(path, UKI_LIMIT)?;
    let beside = format!("{path}.extra.d");
    for folder in [beside.as_str()].into_iter().chain(SIDECARS) {
        if let Some(first) = files.list(folder)?.into_iter().next() {
            return Err(ImageError::Sidecar {
                folder: folder.into(),
                path: first,
            });
        }
    }
    Ok(Bootable {
        uki,
        table: table_event,
    })
}
