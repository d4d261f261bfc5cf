//! Writing what was measured as a tar archive: the files and links of the listing, sorted, in folders of their own, with
//! nothing of this computer (owners, times) about them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use aicert_core::digest::FileDigest;
use aicert_core::tree::{Entry, Tree};
use rustix::fs::{CWD, Mode, OFlags};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// Writes the archive of a tree that was measured at `root`.
///
/// # Errors
///
/// When something cannot be read or written, or is not any more what was measured.
pub(super) fn write(root: &Path, tree: &Tree, out: impl Write) -> io::Result<()> {
    let mut archive = Builder::new(out);
    let mut folder = "";
    for entry in tree.entries() {
        let path = entry.path().as_str();
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        if parent != folder {
            append_folders(&mut archive, folder, parent)?;
            folder = parent;
        }
        let mut header = header(entry);
        match entry {
            Entry::Symlink { target, .. } => archive.append_link(&mut header, path, target)?,
            file => {
                let mut content = Measured::open(&root.join(path), file.size(), Links::Refused)?;
                archive.append_data(&mut header, path, &mut content)?;
                content.check(file.hash())?;
            }
        }
    }
    archive.into_inner()?.flush()
}

/// The folders of `parent` that `last` is not in.
fn append_folders(archive: &mut Builder<impl Write>, last: &str, parent: &str) -> io::Result<()> {
    let ends = parent.match_indices('/').map(|(at, _)| at).chain([parent.len()]);
    for end in ends {
        let folder = &parent[..end];
        let is_known = folder.is_empty() || last == folder || last.starts_with(&format!("{folder}/"));
        if !is_known {
            let mut header = plain_header(EntryType::Directory, 0, 0o755);
            archive.append_data(&mut header, format!("{folder}/"), io::empty())?;
        }
    }
    Ok(())
}

fn header(entry: &Entry) -> Header {
    match entry {
        Entry::Symlink { .. } => plain_header(EntryType::Symlink, 0, 0o777),
        Entry::Executable { size, .. } => plain_header(EntryType::Regular, *size, 0o755),
        file => plain_header(EntryType::Regular, file.size(), 0o644),
    }
}

fn plain_header(kind: EntryType, size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// What to do with a symbolic link where a file should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    Followed,
    Refused,
}

/// A file that must still be what was measured.
pub(super) struct Measured {
    file: io::Take<File>,
    left: u64,
    hasher: Sha256,
}

impl Measured {
    /// Opens a file, or with `links` what a link of that name points to. Never waits for the other end of a FIFO.
    pub(super) fn open(path: &Path, size: u64, links: Links) -> io::Result<Self> {
        let mut flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        flags.set(OFlags::NOFOLLOW, links == Links::Refused);
        let file: File = rustix::fs::openat(CWD, path, flags, Mode::empty())?.into();
        Ok(Self {
            // One byte more shows that the file has grown.
            file: file.take(size.saturating_add(1)),
            left: size,
            hasher: Sha256::new(),
        })
    }

    /// Says whether what was read is what was measured.
    pub(super) fn check(mut self, expected: Option<FileDigest>) -> io::Result<()> {
        let has_grown = self.file.read(&mut [0])? > 0;
        let found = FileDigest::from_bytes(self.hasher.finalize().into());
        if has_grown || self.left > 0 || expected != Some(found) {
            return Err(changed());
        }
        Ok(())
    }
}

impl Read for Measured {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let limit = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if limit == 0 {
            return Ok(0);
        }
        let count = self.file.read(&mut buffer[..limit])?;
        if count == 0 {
            return Err(changed());
        }
        self.left -= count as u64;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

fn changed() -> io::Error {
    io::Error::other("a file changed while it was sent")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use aicert_core::measure::{self, HardLinks, Options};

    use super::*;

    fn measured(root: &Path) -> Tree {
        measure::measure(root, &Options::quiet(HardLinks::Accept)).unwrap()
    }

    fn archive(root: &Path, tree: &Tree) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        write(root, tree, &mut out).map(|()| out)
    }

    fn sample(root: &Path) {
        let long = format!("long/{}/{}", "d".repeat(120), "f".repeat(200));
        for (path, content) in [
            ("run.sh", "#!/bin/sh\n"),
            ("a/b/c.txt", "c"),
            ("a/b/d.txt", "d"),
            ("a/z.txt", "z"),
            ("a-b/x", ""),
            ("ü/ß", "umlaut"),
            (&long, "long"),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        fs::create_dir(root.join("empty")).unwrap();
        fs::set_permissions(root.join("run.sh"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::hard_link(root.join("a/z.txt"), root.join("a/again.txt")).unwrap();
        symlink("../run.sh", root.join("a/link")).unwrap();
        symlink("t/".repeat(100) + "x", root.join("long-link")).unwrap();
    }

    #[test]
    fn what_is_unpacked_measures_the_same() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        sample(from.path());
        let tree = measured(from.path());
        let bytes = archive(from.path(), &tree).unwrap();
        tar::Archive::new(&bytes[..]).unpack(to.path()).unwrap();
        assert_eq!(measured(to.path()), tree);
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut names = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.mtime().unwrap()), (0, 0));
            assert!(!matches!(header.entry_type(), EntryType::Link));
            names.push(entry.path().unwrap().to_str().unwrap().to_owned());
        }
        let before = |first: &str, then: &str| {
            let at = |name: &str| names.iter().position(|other| other == name).unwrap();
            assert!(at(first) < at(then), "{names:?}");
        };
        before("a/", "a/b/");
        before("a/b/", "a/b/c.txt");
        let unique: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len(), "{names:?}");
        assert!(!names.iter().any(|name| name.starts_with("empty")), "{names:?}");
    }

    #[test]
    fn the_same_files_give_the_same_archive() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let archives = folders.each_ref().map(|folder| {
            sample(folder.path());
            archive(folder.path(), &measured(folder.path())).unwrap()
        });
        assert!(archives[0] == archives[1]);
    }

    #[test]
    fn a_file_that_changes_is_noticed() {
        type Change = fn(&Path);
        let changes: [Change; 5] = [
            |file| fs::write(file, "C").unwrap(),
            |file| fs::write(file, "").unwrap(),
            |file| fs::write(file, "cc").unwrap(),
            |file| fs::remove_file(file).unwrap(),
            |file| {
                fs::write(file.with_extension("other"), "c").unwrap();
                fs::remove_file(file).unwrap();
                symlink("c.other", file).unwrap();
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let folder = tempfile::tempdir().unwrap();
            sample(folder.path());
            let tree = measured(folder.path());
            change(&folder.path().join("a/b/c.txt"));
            assert!(archive(folder.path(), &tree).is_err(), "change {number}");
        }
    }
}
