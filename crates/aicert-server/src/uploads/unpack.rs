//! Tar archives (POSIX.1-2017 `pax`, with GNU's long names), unpacked below a folder and nowhere else.
//!
//! Files, directories and symbolic links that stay inside are taken, as they can be measured; everything else is refused by
//! name. Nothing is written through a link, over something else, or by a size or count that the archive only claims.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use aicert_core::measure::MAX_DEPTH;
use aicert_core::tree::{TreeError, TreePath, check_link};
use rustix::fs::{Mode, OFlags, mkdirat, openat, symlinkat};
use rustix::io::Errno;
use tar::{EntryType, Header, PaxExtensions};

use crate::beneath;

const BLOCK: usize = 512;
/// Longer than any path and link target that is accepted.
const EXTENSION_LIMIT: u64 = 64 << 10;
/// More files than anybody has waited for.
const ENTRY_LIMIT: u64 = 10_000_000;
/// What may follow the end of an archive: tar fills its last record with zeros.
const PADDING_LIMIT: usize = 1 << 20;
const BUFFER: usize = 256 << 10;

/// Says why an archive is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// Local storage failed, or nothing more came.
    #[error("{0}")]
    Storage(io::Error),
    /// A header makes no sense.
    #[error("entry {entry}: {what}")]
    Malformed { entry: u64, what: &'static str },
    /// A path or link that cannot be measured, or leads outside.
    #[error("entry {entry}: {source}")]
    Tree { entry: u64, source: TreeError },
    /// Something else than a file, directory or symbolic link.
    #[error("entry {entry}: {path:?} is {kind}; expected a file, a directory or a symbolic link")]
    Kind {
        entry: u64,
        path: String,
        kind: &'static str,
    },
    /// Two entries want one place.
    #[error("entry {entry}: {path:?} is there already, or below something that is no directory")]
    Conflict { entry: u64, path: String },
    /// There is too much of something.
    #[error("it has more than {limit} {what}")]
    TooMany { limit: u64, what: &'static str },
    /// Bytes follow the end.
    #[error("something follows its end")]
    Trailing,
}

/// Unpacks an archive into an empty folder.
pub(crate) fn unpack(reader: &mut dyn Read, into: &Path) -> Result<(), UnpackError> {
    let mut unpacking = Unpacking {
        reader,
        top: beneath::folder(into).map_err(UnpackError::Storage)?,
        parent: None,
        entry: 0,
        buffer: vec![0; BUFFER],
    };
    unpacking.run()
}

struct Unpacking<'a> {
    reader: &'a mut dyn Read,
    top: OwnedFd,
    /// The folder that was last written to: archives list a folder's files one after the other.
    parent: Option<(String, OwnedFd)>,
    /// Counted from 1.
    entry: u64,
    buffer: Vec<u8>,
}

/// What an extension says about the entry after it.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Unpacking<'_> {
    fn run(&mut self) -> Result<(), UnpackError> {
        let mut extensions = Extensions::default();
        while let Some(header) = self.header()? {
            let size = header
                .entry_size()
                .map_err(|_| self.malformed("its size is no number"))?;
            match header.entry_type() {
                EntryType::GNULongName => extensions.path = Some(self.long_text(size)?),
                EntryType::GNULongLink => extensions.link = Some(self.long_text(size)?),
                EntryType::XHeader => self.pax(size, &mut extensions)?,
                // What holds for all entries: comments, mostly, and nothing that is taken over.
                EntryType::XGlobalHeader => {
                    self.extension(size)?;
                }
                _ => self.take(&header, size, std::mem::take(&mut extensions))?,
            }
        }
        self.padding()
    }

    /// The next header; nothing at the end.
    fn header(&mut self) -> Result<Option<Header>, UnpackError> {
        self.entry += 1;
        if self.entry > ENTRY_LIMIT {
            return Err(UnpackError::TooMany {
                limit: ENTRY_LIMIT,
                what: "entries",
            });
        }
        let mut header = Header::new_old();
        self.reader
            .read_exact(header.as_mut_bytes())
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => self.malformed("the archive is cut off"),
                _ => UnpackError::Storage(error),
            })?;
        let bytes = header.as_bytes();
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum = |range: &[u8]| range.iter().map(|byte| u32::from(*byte)).sum::<u32>();
        let expected = sum(&bytes[..148]) + 8 * u32::from(b' ') + sum(&bytes[156..]);
        match header.cksum() {
            Ok(found) if found == expected => Ok(Some(header)),
            _ => Err(self.malformed("its checksum is wrong")),
        }
    }

    fn take(&mut self, header: &Header, size: u64, extensions: Extensions) -> Result<(), UnpackError> {
        if extensions.size.is_some_and(|other| other != size) {
            return Err(self.malformed("it has two sizes"));
        }
        let path = extensions
            .path
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let path = String::from_utf8(path).map_err(|_| self.malformed("its path is not UTF-8"))?;
        let kind = header.entry_type();
        let plain = path.strip_prefix("./").unwrap_or(&path);
        let plain = match kind {
            EntryType::Directory => plain.trim_end_matches('/'),
            _ => plain,
        };
        if kind == EntryType::Directory && matches!(plain, "" | ".") {
            return self.empty(size);
        }
        let entry = self.entry;
        let checked: TreePath = plain
            .parse()
            .map_err(|source| UnpackError::Tree { entry, source })?;
        if checked.as_str().matches('/').count() > MAX_DEPTH {
            return Err(UnpackError::TooMany {
                limit: MAX_DEPTH as u64,
                what: "levels of directories",
            });
        }
        match kind {
            EntryType::Regular | EntryType::Continuous => self.file(&checked, header, size),
            EntryType::Directory => {
                self.empty(size)?;
                self.folder(&checked)
            }
            EntryType::Symlink => {
                self.empty(size)?;
                let target = extensions
                    .link
                    .or_else(|| header.link_name_bytes().map(Into::into))
                    .unwrap_or_default();
                let target =
                    String::from_utf8(target).map_err(|_| self.malformed("its link is not UTF-8"))?;
                check_link(&checked, &target).map_err(|source| UnpackError::Tree { entry, source })?;
                let (_, name) = beneath::split(checked.as_str());
                let parent = self.parent_of(&checked)?;
                symlinkat(&target, parent, name).map_err(|error| conflict_or(error, entry, &checked))
            }
            other => Err(UnpackError::Kind {
                entry,
                path,
                kind: describe(other),
            }),
        }
    }

    fn file(&mut self, path: &TreePath, header: &Header, size: u64) -> Result<(), UnpackError> {
        let entry = self.entry;
        let mode = header
            .mode()
            .map_err(|_| self.malformed("its mode is no number"))?;
        let mode = match mode & 0o100 {
            0 => Mode::from_raw_mode(0o600),
            _ => Mode::from_raw_mode(0o700),
        };
        let (_, name) = beneath::split(path.as_str());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(self.parent_of(path)?, name, flags, mode)
            .map_err(|error| conflict_or(error, entry, path))?;
        let mut file = File::from(file);
        let mut left = size;
        while left > 0 {
            let length = usize::try_from(left).map_or(BUFFER, |left| left.min(BUFFER));
            let length = self
                .reader
                .read(&mut self.buffer[..length])
                .map_err(UnpackError::Storage)?;
            if length == 0 {
                return Err(self.malformed("the archive is cut off"));
            }
            file.write_all(&self.buffer[..length])
                .map_err(UnpackError::Storage)?;
            left -= length as u64;
        }
        self.align(size)
    }

    /// Makes a folder and those above it.
    fn folder(&mut self, path: &TreePath) -> Result<(), UnpackError> {
        let (entry, parent) = (self.entry, self.parent_of(path)?);
        let (_, name) = beneath::split(path.as_str());
        make_folder(parent, name).map_err(|error| conflict_or(error, entry, path))?;
        // Not a link, nor a file.
        beneath::subfolder(parent, name)
            .map(drop)
            .map_err(|_| conflict(entry, path))
    }

    /// The folder that a path is in; made where it is missing, and never reached through a link.
    fn parent_of(&mut self, path: &TreePath) -> Result<&OwnedFd, UnpackError> {
        let wanted = path.as_str().rsplit_once('/').map_or("", |(parent, _)| parent);
        if wanted.is_empty() {
            return Ok(&self.top);
        }
        let entry = self.entry;
        if self.parent.as_ref().is_none_or(|(known, _)| known != wanted) {
            let mut at: Option<OwnedFd> = None;
            for name in wanted.split('/') {
                let parent = at.as_ref().unwrap_or(&self.top).as_fd();
                make_folder(parent, name).map_err(|error| conflict_or(error, entry, path))?;
                at = Some(beneath::subfolder(parent, name).map_err(|_| conflict(entry, path))?);
            }
            self.parent = at.map(|folder| (wanted.to_owned(), folder));
        }
        // Set above, as `wanted` has a component.
        Ok(self.parent.as_ref().map_or(&self.top, |(_, folder)| folder))
    }

    /// The contents of an extension.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, UnpackError> {
        if size > EXTENSION_LIMIT {
            return Err(UnpackError::TooMany {
                limit: EXTENSION_LIMIT,
                what: "bytes in one of its headers",
            });
        }
        let mut bytes = Vec::new();
        let read = self
            .reader
            .take(size)
            .read_to_end(&mut bytes)
            .map_err(UnpackError::Storage)?;
        if read as u64 != size {
            return Err(self.malformed("the archive is cut off"));
        }
        self.align(size)?;
        Ok(bytes)
    }

    fn long_text(&mut self, size: u64) -> Result<Vec<u8>, UnpackError> {
        let mut text = self.extension(size)?;
        while text.last() == Some(&0) {
            text.pop();
        }
        Ok(text)
    }

    fn pax(&mut self, size: u64, extensions: &mut Extensions) -> Result<(), UnpackError> {
        let bytes = self.extension(size)?;
        for record in PaxExtensions::new(&bytes) {
            let record = record.map_err(|_| self.malformed("its extended header makes no sense"))?;
            let value = record.value_bytes();
            match record.key_bytes() {
                b"path" => extensions.path = Some(value.to_vec()),
                b"linkpath" => extensions.link = Some(value.to_vec()),
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    extensions.size = Some(size.ok_or_else(|| self.malformed("its size is no number"))?);
                }
                sparse if sparse.starts_with(b"GNU.sparse.") => {
                    return Err(self.malformed("it is a sparse file; `tar` makes none without `--sparse`"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Skips what fills the last block.
    fn align(&mut self, size: u64) -> Result<(), UnpackError> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if over == 0 {
            return Ok(());
        }
        let mut rest = [0; BLOCK];
        self.reader
            .read_exact(&mut rest[over..])
            .map_err(UnpackError::Storage)
    }

    fn empty(&self, size: u64) -> Result<(), UnpackError> {
        match size {
            0 => Ok(()),
            _ => Err(self.malformed("it is no file, and has contents")),
        }
    }

    /// Reads to the end, which must be zeros.
    fn padding(&mut self) -> Result<(), UnpackError> {
        let mut found = 0;
        loop {
            let length = self.reader.read(&mut self.buffer).map_err(UnpackError::Storage)?;
            found += length;
            if length == 0 {
                return Ok(());
            }
            if found > PADDING_LIMIT || self.buffer[..length].iter().any(|byte| *byte != 0) {
                return Err(UnpackError::Trailing);
            }
        }
    }

    fn malformed(&self, what: &'static str) -> UnpackError {
        UnpackError::Malformed {
            entry: self.entry,
            what,
        }
    }
}

fn make_folder(parent: impl std::os::fd::AsFd, name: &str) -> Result<(), Errno> {
    match mkdirat(parent, name, Mode::RWXU) {
        Err(Errno::EXIST) => Ok(()),
        made => made,
    }
}

fn conflict(entry: u64, path: &TreePath) -> UnpackError {
    UnpackError::Conflict {
        entry,
        path: path.as_str().into(),
    }
}

fn conflict_or(error: Errno, entry: u64, path: &TreePath) -> UnpackError {
    match error {
        Errno::EXIST | Errno::NOTDIR | Errno::LOOP | Errno::ISDIR => conflict(entry, path),
        other => UnpackError::Storage(other.into()),
    }
}

fn describe(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Link => "a hard link",
        EntryType::Char => "a character device",
        EntryType::Block => "a block device",
        EntryType::Fifo => "a FIFO",
        EntryType::GNUSparse => "a sparse file",
        _ => "of unknown type",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use aicert_core::measure::{self, HardLinks, Options};
    use proptest::prelude::*;

    /// One entry with its contents, its header as bytes.
    fn entry(kind: EntryType, path: &str, link: &str, mode: u32, contents: &[u8]) -> Vec<u8> {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(contents.len() as u64);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(contents);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = entries.concat();
        bytes.extend_from_slice(&[0; 2 * BLOCK]);
        bytes
    }

    fn file(path: &str) -> Vec<u8> {
        entry(EntryType::Regular, path, "", 0o644, b"contents")
    }

    fn try_unpack(archive: &[u8]) -> (tempfile::TempDir, Result<(), UnpackError>) {
        let root = tempfile::tempdir().unwrap();
        let into = root.path().join("into");
        std::fs::create_dir(&into).unwrap();
        let result = unpack(&mut &archive[..], &into);
        (root, result)
    }

    #[test]
    fn files_folders_and_links_arrive_as_they_were() {
        let from = tempfile::tempdir().unwrap();
        let at = |path: &str| from.path().join(path);
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::create_dir_all(at(&long).parent().unwrap()).unwrap();
        std::fs::write(at("a/b/run"), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(at("a/b/run"), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(at("a/ü"), "x".repeat(1000)).unwrap();
        std::fs::write(at("empty"), "").unwrap();
        std::fs::write(at(&long), "long").unwrap();
        std::os::unix::fs::symlink("b/run", at("a/link")).unwrap();
        std::os::unix::fs::symlink(&long, at("long-link")).unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        builder.follow_symlinks(false);
        builder.append_dir_all(".", from.path()).unwrap();
        let (root, result) = try_unpack(&builder.into_inner().unwrap());
        result.unwrap();
        let measured = |path: &Path| measure::measure(path, &Options::quiet(HardLinks::Refuse)).unwrap();
        assert_eq!(measured(&root.path().join("into")), measured(from.path()));
        let mode = |path: &str| {
            let metadata = std::fs::metadata(root.path().join("into").join(path)).unwrap();
            metadata.permissions().mode() & 0o777
        };
        assert_eq!((mode("a/b/run"), mode("empty"), mode("a")), (0o700, 0o600, 0o700));
    }

    #[test]
    fn what_leads_outside_or_is_no_file_is_refused() {
        let link = |path, target| entry(EntryType::Symlink, path, target, 0o777, b"");
        let kind = |kind| entry(kind, "x", "y", 0o644, b"");
        let pax = |record: &str| entry(EntryType::XHeader, "p", "", 0o644, record.as_bytes());
        let too_deep = "d/".repeat(MAX_DEPTH + 2);
        for (entries, words) in [
            (vec![file("../x")], "`.` or `..`"),
            (vec![file("a/../../x")], "`.` or `..`"),
            (vec![file("/etc/x")], "absolute"),
            (vec![file("a//x")], "empty component"),
            (vec![file("")], "empty"),
            (vec![file("a\nb")], "control character"),
            (vec![link("l", "/etc/passwd")], "absolute path"),
            (vec![link("l", "../x")], "outside the folder"),
            (vec![link("l", "a/../../x")], "outside the folder"),
            (vec![link("l", "")], "empty"),
            (vec![link("l", "d"), file("l/x")], "\"l/x\" is there already"),
            (vec![link("l", "d"), link("l/m", "x")], "\"l/m\" is there already"),
            (
                vec![link("l", "d"), entry(EntryType::Directory, "l/", "", 0o755, b"")],
                "\"l\" is there",
            ),
            (vec![file("a"), file("a")], "\"a\" is there already"),
            (vec![file("a"), file("a/b")], "\"a/b\" is there already"),
            (vec![link("a", "b"), file("a")], "\"a\" is there already"),
            (vec![kind(EntryType::Link)], "a hard link"),
            (vec![kind(EntryType::Char)], "a character device"),
            (vec![kind(EntryType::Block)], "a block device"),
            (vec![kind(EntryType::Fifo)], "a FIFO"),
            (vec![kind(EntryType::GNUSparse)], "a sparse file"),
            (vec![kind(EntryType::new(b'Z'))], "of unknown type"),
            (
                vec![entry(EntryType::Directory, "d", "", 0o755, b"x")],
                "has contents",
            ),
            (vec![pax("14 path=../up\n"), file("ok")], "`.` or `..`"),
            (
                vec![pax("19 linkpath=../up\n\n"), link("l", "ok")],
                "makes no sense",
            ),
            (
                vec![pax("18 linkpath=../up\n"), link("l", "ok")],
                "outside the folder",
            ),
            (vec![pax("10 size=9\n"), file("ok")], "two sizes"),
            (vec![pax("22 GNU.sparse.major=1\n"), file("ok")], "sparse"),
            (
                vec![
                    entry(EntryType::GNULongName, "L", "", 0, b"../../up\0"),
                    file("ok"),
                ],
                "`.` or `..`",
            ),
            (
                vec![
                    entry(EntryType::GNULongName, "L", "", 0, too_deep.as_bytes()),
                    entry(EntryType::Directory, "x", "", 0, b""),
                ],
                "levels",
            ),
        ] {
            let (root, result) = try_unpack(&archive(&entries));
            let error = result.unwrap_err().to_string();
            assert!(error.contains(words), "expected {words}, found {error}");
            assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn nothing_is_believed_about_sizes() {
        let whole = archive(&[file("a"), file("b")]);
        for cut in 0..whole.len() - BLOCK {
            let (_root, result) = try_unpack(&whole[..cut]);
            assert!(result.is_err(), "cut at {cut}");
        }
        let mut huge = Header::new_gnu();
        huge.set_path("a").unwrap();
        huge.set_mode(0o644);
        huge.set_size(u64::MAX);
        huge.set_cksum();
        assert!(
            try_unpack(huge.as_bytes())
                .1
                .unwrap_err()
                .to_string()
                .contains("cut off")
        );
        huge.set_entry_type(EntryType::GNULongName);
        huge.set_cksum();
        assert!(
            try_unpack(huge.as_bytes())
                .1
                .unwrap_err()
                .to_string()
                .contains("more than 65536 bytes")
        );
        let trailing = [archive(&[file("a")]), b"more".to_vec()].concat();
        assert!(matches!(try_unpack(&trailing).1, Err(UnpackError::Trailing)));
        let padded = [archive(&[file("a")]), vec![0; 9000]].concat();
        try_unpack(&padded).1.unwrap();
        let mut changed = archive(&[file("a")]);
        changed[0] = b'b';
        assert!(
            try_unpack(&changed)
                .1
                .unwrap_err()
                .to_string()
                .contains("checksum")
        );
    }

    proptest! {
        #[test]
        fn nothing_is_ever_written_outside(
            entries in proptest::collection::vec(("[a-c./]{1,7}", "[a-c./]{0,7}", prop_oneof![
                Just(EntryType::Regular), Just(EntryType::Directory), Just(EntryType::Symlink), Just(EntryType::Link)
            ]), 0..6),
            noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        ) {
            let entries: Vec<_> = entries.iter().map(|(path, link, kind)| {
                entry(*kind, path, link, 0o644, if *kind == EntryType::Regular { b"x" } else { b"" })
            }).collect();
            let mut bytes = archive(&entries);
            for (at, byte) in noise {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let (root, result) = try_unpack(&bytes);
            prop_assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
            if result.is_ok() {
                // What was accepted can be measured, and has no link that leads outside.
                measure::measure(&root.path().join("into"), &Options::quiet(HardLinks::Refuse)).unwrap();
            }
        }
    }
}
