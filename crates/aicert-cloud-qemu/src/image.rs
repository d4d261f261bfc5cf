//! The image that a machine boots, and the disk over it.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::error::Failure;

/// The header of qcow2 (QEMU, docs/interop/qcow2.txt): magic and version, and where the size of the disk is in it.
const QCOW2: [u8; 4] = *b"QFI\xfb";
const SIZE: std::ops::Range<usize> = 24..32;

/// A disk image that is only read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// Absolute.
    pub(crate) path: PathBuf,
    /// QEMU's name of its format.
    format: &'static str,
    /// How large its disk is.
    size: u64,
}

impl Image {
    /// Looks at an image.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let missing = |what: String| Failure::Missing {
            what,
            advice: "name a disk image, raw or qcow2; `aicert image build` makes one".into(),
        };
        let unreadable =
            |error: std::io::Error| missing(format!("the image {} cannot be read: {error}", path.display()));
        let path = path.canonicalize().map_err(unreadable)?;
        let mut file = File::open(&path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() || metadata.len() == 0 {
            return Err(missing(format!(
                "{} is no disk image: expected a file that is not empty",
                path.display()
            )));
        }
        let mut header = Vec::new();
        file.by_ref()
            .take(SIZE.end as u64)
            .read_to_end(&mut header)
            .map_err(unreadable)?;
        let qcow2_size = header
            .get(SIZE)
            .and_then(|size| size.try_into().ok())
            .map(u64::from_be_bytes);
        let (format, size) = match qcow2_size {
            Some(size) if header.starts_with(&QCOW2) => ("qcow2", size),
            _ => ("raw", metadata.len()),
        };
        Ok(Self { path, format, size })
    }

    /// The arguments of `qemu-img` that make a disk of `size` bytes over the image: what is written goes to the disk, and
    /// what was not is read from the image.
    pub(crate) fn overlay(&self, disk: &str, size: u64) -> Result<Vec<OsString>, Failure> {
        if size < self.size {
            return Err(Failure::Unsupported {
                what: format!(
                    "a disk of {size} bytes was asked for, and the image {} alone has {}",
                    self.path.display(),
                    self.size
                ),
                advice: "ask for a larger disk".into(),
            });
        }
        let mut arguments: Vec<OsString> = ["create", "-q", "-f", "qcow2", "-F", self.format, "-b"]
            .map(OsString::from)
            .into();
        arguments.push(self.path.clone().into());
        arguments.push(disk.into());
        // Whole sectors.
        arguments.push((size & !511).to_string().into());
        Ok(arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn formats_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let open = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            Image::open(&path)
        };
        let raw = open(&[0; 4096]).unwrap();
        assert_eq!((raw.format, raw.size), ("raw", 4096));
        // Too short to be qcow2.
        assert_eq!(open(&QCOW2).unwrap().format, "raw");
        let header = [&QCOW2[..], &[0; 20], &(1u64 << 30).to_be_bytes()].concat();
        let qcow2 = open(&header).unwrap();
        assert_eq!((qcow2.format, qcow2.size), ("qcow2", 1 << 30));
        assert!(open(b"").is_err());
        assert!(Image::open(folder.path()).is_err());
        assert!(Image::open(&folder.path().join("nothing")).is_err());

        assert!(qcow2.overlay("disk", (1 << 30) - 1).is_err());
        let arguments = qcow2.overlay("disk", (1 << 31) + 5).unwrap();
        assert_eq!(arguments.last().unwrap(), "2147483648");
    }
}
