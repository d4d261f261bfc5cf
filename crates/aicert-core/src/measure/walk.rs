//! Listing a directory, and confirming that it still is what was listed.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{HardLinks, MAX_DEPTH, MeasureError, Options};
use crate::tree::{TreePath, check_link};

/// What tells a file that was touched from one that was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint {
    device: u64,
    inode: u64,
    pub(super) size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    // The types of the fields differ between architectures.
    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)]
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            size: stat.st_size as u64,
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }
}

/// A file or link that was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: TreePath,
    pub(super) fingerprint: Fingerprint,
    pub(super) kind: FoundKind,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum FoundKind {
    File { executable: bool },
    Symlink { target: String },
}

/// Lists the files and links below `root`, sorted by the bytes of their paths.
pub(super) fn list(root: &Path, options: &Options<'_>) -> Result<Vec<Found>, MeasureError> {
    let mut all = Vec::new();
    walk(root, options, &mut |found| {
        all.push(found);
        Ok(())
    })?;
    all.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(all)
}

/// Walks `root` again and accepts it only if it is exactly what was listed.
pub(super) fn confirm(root: &Path, listed: &[Found], options: &Options<'_>) -> Result<(), MeasureError> {
    let mut seen = vec![false; listed.len()];
    walk(root, options, &mut |found| {
        let changed = |what| MeasureError::Changed {
            path: root.join(found.path.as_str()),
            what,
        };
        match listed.binary_search_by(|known| known.path.cmp(&found.path)) {
            Ok(index) if listed[index] == found => seen[index] = true,
            Ok(_) => return Err(changed("it was written to or replaced")),
            Err(_) => return Err(changed("it was added")),
        }
        Ok(())
    })?;
    match seen.iter().position(|seen| !seen) {
        Some(index) => Err(MeasureError::Changed {
            path: root.join(listed[index].path.as_str()),
            what: "it was removed",
        }),
        None => Ok(()),
    }
}

/// Opens the directory that everything is relative to.
pub(super) fn open_root(root: &Path) -> Result<OwnedFd, MeasureError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, root, flags, Mode::empty()).map_err(|error| MeasureError::io("open", root, error))
}

type Visit<'a> = &'a mut dyn FnMut(Found) -> Result<(), MeasureError>;

fn walk(root: &Path, options: &Options<'_>, visit: Visit<'_>) -> Result<(), MeasureError> {
    let directory = open_root(root)?;
    let stat = rustix::fs::fstat(&directory).map_err(|error| MeasureError::io("look at", root, error))?;
    #[allow(clippy::unnecessary_cast)]
    let walk = Walk {
        root,
        device: stat.st_dev as u64,
        options,
    };
    walk.directory(directory.as_fd(), "", 0, visit)
}

struct Walk<'a> {
    root: &'a Path,
    device: u64,
    options: &'a Options<'a>,
}

impl Walk<'_> {
    fn directory(
        &self,
        directory: BorrowedFd<'_>,
        at: &str,
        depth: usize,
        visit: Visit<'_>,
    ) -> Result<(), MeasureError> {
        let shown = || self.root.join(at);
        let entries = Dir::read_from(directory).map_err(|error| MeasureError::io("list", &shown(), error))?;
        for entry in entries {
            if self.options.cancelled.load(Ordering::Relaxed) {
                return Err(MeasureError::Cancelled);
            }
            let entry = entry.map_err(|error| MeasureError::io("list", &shown(), error))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                self.entry(directory, at, name, depth, visit)?;
            }
        }
        Ok(())
    }

    fn entry(
        &self,
        directory: BorrowedFd<'_>,
        at: &str,
        name: &OsStr,
        depth: usize,
        visit: Visit<'_>,
    ) -> Result<(), MeasureError> {
        let shown = || self.root.join(at).join(name);
        let text = name
            .to_str()
            .ok_or_else(|| MeasureError::Name { path: shown() })?;
        let path: TreePath = if at.is_empty() {
            text.parse()?
        } else {
            format!("{at}/{text}").parse()?
        };
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| vanished_or("look at", shown(), error))?;
        let fingerprint = Fingerprint::of(&stat);
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if fingerprint.device != self.device => {
                return Err(MeasureError::OtherFileSystem { path: shown() });
            }
            FileType::Directory if depth + 1 > MAX_DEPTH => {
                return Err(MeasureError::TooDeep { path: shown() });
            }
            FileType::Directory => {
                let inner =
                    open_directory(directory, name).map_err(|error| vanished_or("open", shown(), error))?;
                let opened = rustix::fs::fstat(&inner)
                    .map_err(|error| MeasureError::io("look at", &shown(), error))?;
                if (opened.st_dev, opened.st_ino) != (stat.st_dev, stat.st_ino) {
                    return Err(MeasureError::Changed {
                        path: shown(),
                        what: "it was replaced",
                    });
                }
                return self.directory(inner.as_fd(), path.as_str(), depth + 1, visit);
            }
            FileType::RegularFile => {
                // The type differs between architectures.
                #[allow(clippy::useless_conversion)]
                let links = u64::from(stat.st_nlink);
                if links > 1 && self.options.hard_links == HardLinks::Refuse {
                    return Err(MeasureError::HardLink { path: shown(), links });
                }
                FoundKind::File {
                    executable: Mode::from_raw_mode(stat.st_mode).contains(Mode::XUSR),
                }
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new())
                    .map_err(|error| vanished_or("read the link", shown(), error))?;
                let target = target
                    .into_string()
                    .map_err(|_| MeasureError::Name { path: shown() })?;
                check_link(&path, &target)?;
                FoundKind::Symlink { target }
            }
            special => {
                return Err(MeasureError::Special {
                    path: shown(),
                    kind: special_kind(special),
                });
            }
        };
        visit(Found {
            path,
            fingerprint,
            kind,
        })
    }
}

/// Opens the directory `name` itself, never what a link of that name points to.
pub(super) fn open_directory(parent: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// What was listed a moment ago and is gone, or is something else now, has changed.
pub(super) fn vanished_or(action: &'static str, path: PathBuf, error: Errno) -> MeasureError {
    match error {
        Errno::NOENT => MeasureError::Changed {
            path,
            what: "it was removed",
        },
        Errno::NOTDIR | Errno::LOOP | Errno::INVAL | Errno::NXIO => MeasureError::Changed {
            path,
            what: "it was replaced",
        },
        other => MeasureError::io(action, &path, other),
    }
}

pub(super) fn special_kind(kind: FileType) -> &'static str {
    match kind {
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        FileType::Directory => "a directory",
        _ => "of unknown type",
    }
}
