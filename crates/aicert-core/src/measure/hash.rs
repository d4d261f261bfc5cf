//! Hashing files: many at once, each from a descriptor that is known to be the file that was listed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::num::NonZero;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::walk::{Fingerprint, Found, FoundKind, open_directory, open_root, special_kind, vanished_or};
use super::{MeasureError, Options};
use crate::digest::FileDigest;
use crate::tree::{Entry, Tree};

/// One of these per thread. It stays in the processor's cache between being read into and being hashed.
const BUFFER_BYTES: usize = 256 * 1024;

/// Hashes one file; a link is followed. Returns its size with its digest.
///
/// # Errors
///
/// When it is not a regular file, cannot be read, or changes meanwhile.
pub fn hash_file(path: &Path, options: &Options<'_>) -> Result<(FileDigest, u64), MeasureError> {
    single(path, None, options)
}

/// Copies one file to a path that does not exist, hashing the bytes written; a link is followed. Returns its size with
/// its digest. On an error, nothing remains at `to`.
///
/// # Errors
///
/// As [`hash_file`], and when it cannot be written.
pub fn copy_file(from: &Path, to: &Path, options: &Options<'_>) -> Result<(FileDigest, u64), MeasureError> {
    let mut copy = create(to)?;
    single(from, Some((&mut copy, to)), options)
        .and_then(|measured| finish(&copy, false, to).map(|()| measured))
        .inspect_err(|_| drop(std::fs::remove_file(to)))
}

fn single(
    path: &Path,
    copy: Option<(&mut File, &Path)>,
    options: &Options<'_>,
) -> Result<(FileDigest, u64), MeasureError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map_err(|error| MeasureError::io("open", path, error))?;
    let stat = rustix::fs::fstat(&file).map_err(|error| MeasureError::io("look at", path, error))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        other => {
            return Err(MeasureError::Special {
                path: path.to_owned(),
                kind: special_kind(other),
            });
        }
    }
    let fingerprint = Fingerprint::of(&stat);
    let shared = Shared {
        options,
        done: AtomicU64::new(0),
        failed: AtomicBool::new(false),
    };
    let hash = shared.stream(file, &fingerprint, path, &mut vec![0; BUFFER_BYTES], copy)?;
    Ok((hash, fingerprint.size))
}

/// Hashes the files among `found`, the largest first, on all processors; with `copy_to`, writes each to the path there.
/// Returns a digest for every index; that of a link means nothing.
pub(super) fn hash_all(
    root: &Path,
    found: &[Found],
    options: &Options<'_>,
    copy_to: Option<&Path>,
) -> Result<Vec<FileDigest>, MeasureError> {
    let mut order: Vec<usize> = (0..found.len())
        .filter(|&index| matches!(found[index].kind, FoundKind::File { .. }))
        .collect();
    order.sort_by_key(|&index| std::cmp::Reverse(found[index].fingerprint.size));
    let next = AtomicUsize::new(0);
    let shared = Shared {
        options,
        done: AtomicU64::new(0),
        failed: AtomicBool::new(false),
    };
    let top = open_root(root)?;

    let work = || -> Result<Vec<(usize, FileDigest)>, MeasureError> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut hashes = Vec::new();
        while let Some(&index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            if shared.failed.load(Ordering::Relaxed) {
                break;
            }
            let hash = shared
                .listed(&top, root, &found[index], &mut buffer, copy_to)
                .inspect_err(|_| shared.failed.store(true, Ordering::Relaxed))?;
            hashes.push((index, hash));
        }
        Ok(hashes)
    };

    let threads = thread::available_parallelism()
        .map_or(1, NonZero::get)
        .min(order.len())
        .max(1);
    let results: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        let others = workers.into_iter().map(|worker| {
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        std::iter::once(own).chain(others).collect()
    });

    let mut hashes = vec![FileDigest::from_bytes([0; 32]); found.len()];
    let mut failure = None;
    for result in results {
        match result {
            Ok(done) => done.into_iter().for_each(|(index, hash)| hashes[index] = hash),
            // Threads that stopped because another one failed only say that they were stopped.
            Err(error) if failure.is_none() || !matches!(error, MeasureError::Cancelled) => {
                failure = Some(error)
            }
            Err(_) => {}
        }
    }
    match failure {
        Some(error) => Err(error),
        None if shared.options.cancelled.load(Ordering::Relaxed) => Err(MeasureError::Cancelled),
        None => Ok(hashes),
    }
}

/// Joins a listing and the digests of its files.
pub(super) fn into_tree(found: Vec<Found>, hashes: Vec<FileDigest>) -> Result<Tree, MeasureError> {
    let entries: Result<Vec<_>, _> = found
        .into_iter()
        .zip(hashes)
        .map(
            |(
                Found {
                    path,
                    fingerprint,
                    kind,
                },
                hash,
            )| match kind {
                FoundKind::File { executable } => Ok(Entry::file(path, executable, fingerprint.size, hash)),
                FoundKind::Symlink { target } => Entry::symlink(path, target),
            },
        )
        .collect();
    Ok(Tree::from_sorted(entries?)?)
}

/// What the threads share.
struct Shared<'a> {
    options: &'a Options<'a>,
    done: AtomicU64,
    failed: AtomicBool,
}

impl Shared<'_> {
    fn listed(
        &self,
        top: &OwnedFd,
        root: &Path,
        found: &Found,
        buffer: &mut [u8],
        copy_to: Option<&Path>,
    ) -> Result<FileDigest, MeasureError> {
        let shown = || root.join(found.path.as_str());
        let file =
            open_below(top, found.path.as_str()).map_err(|error| vanished_or("open", shown(), error))?;
        let Some(copy_to) = copy_to else {
            return self.stream(file, &found.fingerprint, &shown(), buffer, None);
        };
        let target = copy_to.join(found.path.as_str());
        let executable = matches!(found.kind, FoundKind::File { executable: true });
        let mut copy = create(&target)?;
        let hash = self.stream(
            file,
            &found.fingerprint,
            &shown(),
            buffer,
            Some((&mut copy, &target)),
        )?;
        finish(&copy, executable, &target)?;
        Ok(hash)
    }

    /// Hashes what is read from an opened file, and writes it to `copy`.
    fn stream(
        &self,
        file: OwnedFd,
        expected: &Fingerprint,
        shown: &Path,
        buffer: &mut [u8],
        mut copy: Option<(&mut File, &Path)>,
    ) -> Result<FileDigest, MeasureError> {
        let changed = |what| MeasureError::Changed {
            path: shown.to_owned(),
            what,
        };
        let mut file = File::from(file);
        self.same(&file, expected, shown)?;
        let mut hasher = Sha256::new();
        let mut total = 0;
        loop {
            if self.options.cancelled.load(Ordering::Relaxed) || self.failed.load(Ordering::Relaxed) {
                return Err(MeasureError::Cancelled);
            }
            let read = match file.read(buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(MeasureError::io("read", shown, error)),
            };
            total += read as u64;
            // Also the end of a file that grows without end.
            if total > expected.size {
                return Err(changed("it grew"));
            }
            hasher.update(&buffer[..read]);
            if let Some((copy, target)) = &mut copy {
                copy.write_all(&buffer[..read])
                    .map_err(|error| MeasureError::io("write", target, error))?;
            }
            let done = self.done.fetch_add(read as u64, Ordering::Relaxed) + read as u64;
            (self.options.progress)(done);
        }
        if total < expected.size {
            return Err(changed("it is shorter than it was"));
        }
        self.same(&file, expected, shown)?;
        Ok(FileDigest::from_bytes(hasher.finalize().into()))
    }

    fn same(&self, file: &File, expected: &Fingerprint, shown: &Path) -> Result<(), MeasureError> {
        let stat = rustix::fs::fstat(file).map_err(|error| MeasureError::io("look at", shown, error))?;
        if Fingerprint::of(&stat) != *expected {
            return Err(MeasureError::Changed {
                path: shown.to_owned(),
                what: "it was written to or replaced",
            });
        }
        Ok(())
    }
}

fn create(target: &Path) -> Result<File, MeasureError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, target, flags, Mode::RUSR | Mode::WUSR)
        .map(File::from)
        .map_err(|error| MeasureError::io("create", target, error))
}

/// Whatever the umask: the container's user, who is somebody else, reads these files.
fn finish(copy: &File, executable: bool, target: &Path) -> Result<(), MeasureError> {
    rustix::fs::fchmod(copy, Mode::from_raw_mode(if executable { 0o755 } else { 0o644 }))
        .map_err(|error| MeasureError::io("write", target, error))
}

/// Opens a file below a directory, following no link on the way.
fn open_below(top: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    // A FIFO that took the file's place must not block us.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let (folders, name) = path
        .rsplit_once('/')
        .map_or((None, path), |(folders, name)| (Some(folders), name));
    let mut parent: Option<OwnedFd> = None;
    for folder in folders.into_iter().flat_map(|folders| folders.split('/')) {
        let inner = open_directory(parent.as_ref().unwrap_or(top).as_fd(), OsStr::new(folder))?;
        parent = Some(inner);
    }
    rustix::fs::openat(parent.as_ref().unwrap_or(top), name, flags, Mode::empty())
}
