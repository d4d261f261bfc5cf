//! Turns the stream of all outputs back into files, each held to what was measured.
//!
//! The files grow in a folder of their own, named after the root of the tree, so that only the very same outputs are ever
//! gone on with. What lies there from before is believed no more than what comes: it is hashed again. When everything is there,
//! the folder gets its name, in one step.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use aicert_core::digest::FileDigest;
use aicert_core::tree::{Entry, Tree};
use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags};
use sha2::{Digest as _, Sha256};

use crate::error::ClientError;

/// What is read at once when hashing what is there.
const BUFFER: usize = 256 << 10;

/// Where the outputs of one job grow.
#[derive(Debug)]
pub(super) struct Sink {
    /// Where they will be.
    into: PathBuf,
    /// Where they are until they are all there.
    part: PathBuf,
    /// Keeps others from writing there.
    folder: File,
    tree: Tree,
    /// The entry that the next byte belongs to.
    next: usize,
    /// That entry's file, once it is begun.
    current: Option<Current>,
    /// Bytes of the stream that are in files.
    position: u64,
}

#[derive(Debug)]
struct Current {
    file: File,
    path: PathBuf,
    hasher: Sha256,
    /// How much is in it.
    size: u64,
    /// How much was in it when it was opened.
    kept: u64,
}

/// What became of bytes that were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// They are in files.
    All,
    /// What was on disk from before turned out to be damaged, and was removed: the stream is needed again, from
    /// [`Sink::position`] on.
    Again,
}

impl Sink {
    /// Goes on where an earlier download of the same tree ended, or begins.
    pub(super) fn open(into: &Path, tree: Tree) -> Result<Self, ClientError> {
        if into.symlink_metadata().is_ok() {
            return Err(ClientError::storage("create", into, io::ErrorKind::AlreadyExists));
        }
        let part = part_of(into, &tree)?;
        match fs::create_dir(&part) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(ClientError::storage("create", &part, error));
            }
            _ => {}
        }
        let folder = lock(&part)?;
        let mut sink = Self {
            into: into.to_owned(),
            part,
            folder,
            tree,
            next: 0,
            current: None,
            position: 0,
        };
        sink.resume()?;
        Ok(sink)
    }

    /// How many bytes of the stream are there.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Takes the next bytes of the stream.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<Written, ClientError> {
        while !bytes.is_empty() {
            let Some(entry) = self.begin_next()? else {
                return Err(ClientError::protocol(
                    "the outputs",
                    format!("{} bytes", self.tree.bytes()),
                    "more",
                ));
            };
            // `begin_next` has just begun it.
            let Some(current) = &mut self.current else {
                return Err(ClientError::storage("write", &self.part, io::ErrorKind::Other));
            };
            let missing = usize::try_from(entry.size() - current.size).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(missing.min(bytes.len()));
            let failed = |error| ClientError::storage("write", &current.path, error);
            // What was written before an error is not counted, and must not be there.
            if let Err(error) = current.file.write_all(now) {
                let _ = current.file.set_len(current.size);
                return Err(failed(error));
            }
            current.hasher.update(now);
            current.size += now.len() as u64;
            self.position += now.len() as u64;
            bytes = later;
            if current.size == entry.size() && self.end_current(&entry)? == Written::Again {
                return Ok(Written::Again);
            }
        }
        Ok(Written::All)
    }

    /// Makes what has no bytes, and gives everything its name.
    pub(super) fn finish(mut self) -> Result<(), ClientError> {
        if let Some(entry) = self.begin_next()? {
            let found = format!("{} bytes, which end before {:?}", self.position, entry.path());
            return Err(ClientError::protocol("the outputs", "all files", found));
        }
        // Links come last: nothing is ever written through one.
        for entry in self.tree.entries() {
            if let Entry::Symlink { path, target } = entry {
                let link = self.part.join(path.as_str());
                create_parent(&link)?;
                remove(&link)?;
                symlink(target, &link)
                    .map_err(|error| ClientError::storage("create the link", &link, error))?;
            }
        }
        // A folder with its name is complete, also after a power failure.
        rustix::fs::syncfs(&self.folder).map_err(|error| ClientError::storage("write", &self.part, error))?;
        rustix::fs::renameat_with(CWD, &self.part, CWD, &self.into, RenameFlags::NOREPLACE)
            .map_err(|error| ClientError::storage("create", &self.into, error))
    }

    /// Looks at what is there, file by file in the order of the stream, up to the first that is not whole.
    fn resume(&mut self) -> Result<(), ClientError> {
        while let Some(entry) = self.skip_links() {
            let path = self.part.join(entry.path().as_str());
            let Some(mut current) = Current::reopen(path, entry.size())? else {
                return Ok(());
            };
            if current.size < entry.size() {
                self.position += current.size;
                current.kept = current.size;
                self.current = Some(current);
                return Ok(());
            }
            if !current.is(&entry) {
                return remove(&current.path);
            }
            // It may have been the last thing that was written before the end.
            current.set_mode(&entry)?;
            self.position += current.size;
            self.next += 1;
        }
        Ok(())
    }

    fn skip_links(&mut self) -> Option<Entry> {
        let entries = self.tree.entries();
        while matches!(entries.get(self.next), Some(Entry::Symlink { .. })) {
            self.next += 1;
        }
        entries.get(self.next).cloned()
    }

    /// The entry that the next byte belongs to, with its file open; nothing when there is none left.
    fn begin_next(&mut self) -> Result<Option<Entry>, ClientError> {
        while let Some(entry) = self.skip_links() {
            if self.current.is_none() {
                let path = self.part.join(entry.path().as_str());
                create_parent(&path)?;
                self.current = Some(Current::create(path)?);
            }
            if entry.size() > 0 {
                return Ok(Some(entry));
            }
            self.end_current(&entry)?;
        }
        Ok(None)
    }

    /// Holds a file that is complete to what was measured.
    fn end_current(&mut self, entry: &Entry) -> Result<Written, ClientError> {
        let Some(current) = self.current.take() else {
            return Ok(Written::All);
        };
        if let Some((expected, found)) = current.difference(entry) {
            self.position -= current.size;
            remove(&current.path)?;
            if current.kept > 0 {
                return Ok(Written::Again);
            }
            return Err(ClientError::OtherBytes {
                path: entry.path().to_string(),
                expected,
                found,
            });
        }
        current.set_mode(entry)?;
        self.next += 1;
        Ok(Written::All)
    }
}

impl Current {
    fn create(path: PathBuf) -> Result<Self, ClientError> {
        remove(&path)?;
        // Two names that are one on this file system would otherwise overwrite each other.
        let file = File::create_new(&path).map_err(|error| ClientError::storage("create", &path, error))?;
        Ok(Self {
            file,
            path,
            hasher: Sha256::new(),
            size: 0,
            kept: 0,
        })
    }

    /// What is there, hashed; nothing if that cannot be the beginning of a file of this size.
    fn reopen(path: PathBuf, limit: u64) -> Result<Option<Self>, ClientError> {
        let failed = |error| ClientError::storage("read", &path, error);
        match path.symlink_metadata() {
            Ok(found) if found.is_file() && found.len() <= limit => {}
            Ok(found) if found.is_dir() => return Err(failed(io::ErrorKind::IsADirectory.into())),
            Ok(_) => return remove(&path).map(|()| None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        }
        let no_links = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(no_links)
            .open(&path)
            .map_err(failed)?;
        let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0, vec![0; BUFFER]);
        loop {
            match file.read(&mut buffer).map_err(failed)? {
                0 => break,
                count => {
                    hasher.update(&buffer[..count]);
                    size += count as u64;
                }
            }
        }
        Ok(Some(Self {
            file,
            path,
            hasher,
            size,
            kept: size,
        }))
    }

    /// Makes it executable, where it is to be.
    fn set_mode(&self, entry: &Entry) -> Result<(), ClientError> {
        if !matches!(entry, Entry::Executable { .. }) {
            return Ok(());
        }
        let failed = |error| ClientError::storage("make executable", &self.path, error);
        let mode = self.file.metadata().map_err(failed)?.permissions().mode();
        // Whoever may read it may execute it.
        let mode = mode | ((mode & 0o444) >> 2);
        self.file
            .set_permissions(Permissions::from_mode(mode))
            .map_err(failed)
    }

    fn is(&self, entry: &Entry) -> bool {
        self.size == entry.size() && self.difference(entry).is_none()
    }

    /// What was measured and what is there, if they differ.
    fn difference(&self, entry: &Entry) -> Option<(FileDigest, FileDigest)> {
        let found = FileDigest::from_bytes(self.hasher.clone().finalize().into());
        let expected = entry.hash()?;
        (expected != found).then_some((expected, found))
    }
}

/// Beside the folder, with the root in its name.
fn part_of(into: &Path, tree: &Tree) -> Result<PathBuf, ClientError> {
    let name = into.file_name().ok_or_else(|| ClientError::Usage {
        message: format!("{into:?} is no name for a new folder"),
        advice: "give the path of a folder that does not exist yet",
    })?;
    let root = hex::encode(&tree.root().as_bytes()[..8]);
    let mut part = OsString::from(".");
    part.push(name);
    part.push(format!(".{root}.part"));
    Ok(into.with_file_name(part))
}

fn lock(part: &Path) -> Result<File, ClientError> {
    let failed = |error: io::Error| ClientError::storage("open", part, error);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(CWD, part, flags, rustix::fs::Mode::empty())
        .map_err(|error| failed(error.into()))?;
    match rustix::fs::flock(folder.as_fd(), FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(folder.into()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(ClientError::Usage {
            message: format!("somebody else is writing to {part:?} right now"),
            advice: "wait until the other download has ended",
        }),
        Err(error) => Err(failed(error.into())),
    }
}

fn create_parent(path: &Path) -> Result<(), ClientError> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    fs::create_dir_all(parent).map_err(|error| ClientError::storage("create", parent, error))
}

/// Removes what is there, if it is there and no folder.
fn remove(path: &Path) -> Result<(), ClientError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ClientError::storage("remove", path, error))
        }
        _ => Ok(()),
    }
}
