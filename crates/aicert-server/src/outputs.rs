//! The output files of a job, as they were measured: found by the measured listing alone, and served only while they have
//! the size that was measured. Whether they have the contents, the client checks.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use aicert_core::tree::{Entry, TreePath};
use bytes::Bytes;

use crate::beneath;
use crate::pieces::{Part, Pieces};

/// The files of a folder.
#[derive(Debug)]
pub(crate) struct Outputs {
    folder: OwnedFd,
    /// Sorted by path.
    files: Vec<OutputFile>,
    /// The sum of the sizes.
    length: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OutputFile {
    path: TreePath,
    /// Where it begins when all files are put one after the other.
    start: u64,
    pub(crate) size: u64,
}

impl OutputFile {
    /// Where it begins when all files are put one after the other: no other file that has bytes begins there.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }
}

impl Outputs {
    /// The files of a measured listing; links have no bytes.
    pub(crate) fn new<'a>(folder: &Path, listing: impl Iterator<Item = &'a Entry>) -> io::Result<Self> {
        let mut length = 0;
        let files = listing
            .filter(|entry| !matches!(entry, Entry::Symlink { .. }))
            .map(|entry| {
                let file = OutputFile {
                    path: entry.path().clone(),
                    start: length,
                    size: entry.size(),
                };
                // A measured tree has less than 2^53 bytes.
                length += file.size;
                file
            })
            .collect();
        Ok(Self {
            folder: beneath::folder(folder)?,
            files,
            length,
        })
    }

    /// All bytes together.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The file of this name; only a name of the listing is one.
    pub(crate) fn find(&self, path: &str) -> Option<&OutputFile> {
        let index = self
            .files
            .binary_search_by(|file| file.path.as_str().cmp(path))
            .ok()?;
        self.files.get(index)
    }

    fn open(&self, file: &OutputFile) -> io::Result<File> {
        let opened = beneath::file(self.folder.as_fd(), &file.path)?;
        let found = opened.metadata()?.len();
        if found != file.size {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "the output {} has {found} bytes, and had {} when it was measured",
                    file.path, file.size
                ),
            ));
        }
        Ok(opened)
    }

    /// A part of one file.
    pub(crate) fn part(&self, file: &OutputFile, range: Range<u64>) -> io::Result<Part> {
        Ok(Part::new(self.open(file)?, range))
    }
}

/// A part of all files together.
pub(crate) struct Concatenation {
    outputs: Arc<Outputs>,
    range: Range<u64>,
    /// The next file.
    index: usize,
    current: Option<Part>,
}

impl Concatenation {
    pub(crate) fn new(outputs: Arc<Outputs>, range: Range<u64>) -> Self {
        // The first that ends behind the start.
        let index = outputs
            .files
            .partition_point(|file| file.start + file.size <= range.start);
        Self {
            outputs,
            range,
            index,
            current: None,
        }
    }
}

impl Pieces for Concatenation {
    fn next(&mut self, limit: usize) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(part) = &mut self.current {
                if let Some(piece) = part.next(limit)? {
                    return Ok(Some(piece));
                }
                self.current = None;
            }
            let Some(file) = self.outputs.files.get(self.index) else {
                return Ok(None);
            };
            if file.start >= self.range.end {
                return Ok(None);
            }
            let start = self.range.start.saturating_sub(file.start);
            let end = file.size.min(self.range.end - file.start);
            self.current = Some(self.outputs.part(file, start..end)?);
            self.index += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aicert_core::measure::{self, HardLinks, Options};
    use proptest::prelude::*;

    fn read(outputs: &Arc<Outputs>, range: Range<u64>, limit: usize) -> io::Result<Vec<u8>> {
        let mut pieces = Concatenation::new(Arc::clone(outputs), range);
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.next(limit)? {
            assert!(!piece.is_empty() && piece.len() <= limit);
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    fn made(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Arc<Outputs>) {
        let folder = tempfile::tempdir().unwrap();
        for (path, bytes) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let tree = measure::measure(folder.path(), &Options::quiet(HardLinks::Refuse)).unwrap();
        let outputs = Outputs::new(folder.path(), tree.entries().iter()).unwrap();
        assert_eq!(outputs.length(), tree.bytes());
        (folder, Arc::new(outputs))
    }

    #[test]
    fn what_is_no_longer_what_was_measured_is_not_served() {
        let (folder, outputs) = made(&[("a", b"aaa"), ("b/c", b"ccc"), ("d", b"ddd"), ("e", b"")]);
        assert_eq!(read(&outputs, 0..9, 2).unwrap(), b"aaacccddd");
        std::fs::write(folder.path().join("b/c"), "cccc").unwrap();
        assert!(
            read(&outputs, 0..9, 2)
                .unwrap_err()
                .to_string()
                .contains("b/c has 4 bytes, and had 3")
        );
        assert_eq!(read(&outputs, 0..3, 2).unwrap(), b"aaa");
        std::fs::remove_file(folder.path().join("d")).unwrap();
        std::os::unix::fs::symlink("a", folder.path().join("d")).unwrap();
        assert!(read(&outputs, 6..9, 2).is_err());
        assert!(outputs.find("d").is_some());
        for path in ["", "b", "../a", "b/../a", "/a", "b/c/", "f"] {
            assert_eq!(outputs.find(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_part_is_that_of_the_whole(
            sizes in proptest::collection::vec(0usize..6, 0..8), cut in any::<(prop::sample::Index, prop::sample::Index)>(), limit in 1usize..5
        ) {
            let files: Vec<_> = sizes.iter().enumerate()
                .map(|(index, size)| (format!("f{index}"), vec![index as u8; *size])).collect();
            let borrowed: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
            let (_folder, outputs) = made(&borrowed);
            let whole: Vec<u8> = files.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            let (a, b) = (cut.0.index(whole.len() + 1), cut.1.index(whole.len() + 1));
            let (start, end) = (a.min(b), a.max(b));
            prop_assert_eq!(read(&outputs, start as u64..end as u64, limit).unwrap(), &whole[start..end]);
        }
    }
}
