//! What a job left that has no proof, as one tar archive: nothing about it was measured, and nothing is claimed. It exists
//! because it may have taken days to compute.
//!
//! The archive is made while it is sent, in memory that does not grow with what is in it: folders are read entry by entry, in
//! the order in which the file system gives them, so that two archives of folders that nobody changes are equal byte by byte,
//! and a download resumes at any byte. Everything is opened below the folder, and no link is followed. What is in it:
//!
//! * `UNCERTIFIED.txt`, which says what it is;
//! * `outputs/`, with files, folders and symbolic links; a file with several names is several files;
//! * `INCOMPLETE.txt`, if something could not be read, or is neither of these.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use tar::{Builder, EntryType, Header};

use crate::beneath;
use crate::pieces::Pieces;

/// The name of the folder in the archive.
const FOLDER: &str = "outputs";
const NOTE: &str = "UNCERTIFIED.txt";
const INCOMPLETE: &str = "INCOMPLETE.txt";

/// How deep folders are read: each that is open takes a file descriptor.
const DEPTH: usize = 128;
/// How many of the things that are not in the archive are named in it.
const NAMED: usize = 1000;
/// The size of a tar archive is a multiple of this (POSIX.1-2017, pax, "ustar Interchange Format").
const BLOCK: usize = 512;

/// An archive of a folder.
pub(crate) struct Leftovers {
    walk: Walk,
    current: Option<Segment>,
    /// How many bytes are wanted at most.
    left: u64,
}

/// A part of the archive.
enum Segment {
    Bytes(Bytes),
    /// The content of a file, from one byte to another.
    Content(File, u64, u64),
}

impl Segment {
    fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Content(_, start, end) => end - start,
        }
    }
}

impl Leftovers {
    /// The archive of a folder; nothing when the folder is not there, or is empty.
    pub(crate) fn of(job: &str, folder: &Path) -> io::Result<Option<Self>> {
        let folder = match beneath::folder(folder) {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut names = Dir::read_from(&folder)?;
        let is_empty = !names.any(|entry| entry.is_ok_and(|entry| !is_dots(entry.file_name().to_bytes())));
        if is_empty {
            return Ok(None);
        }
        Ok(Some(Self {
            walk: Walk::of(job, folder)?,
            current: None,
            left: u64::MAX,
        }))
    }

    /// How many bytes it has.
    pub(crate) fn length(self) -> io::Result<u64> {
        self.walk.map(|segment| Ok(segment?.length())).sum()
    }

    /// Leaves out what comes before a byte, without reading it, and what comes behind another.
    pub(crate) fn range(mut self, start: u64, end: u64) -> io::Result<Self> {
        self.left = end.saturating_sub(start);
        let mut skip = start;
        while skip > 0 {
            let Some(segment) = self.walk.next().transpose()? else {
                break;
            };
            let skipped = segment.length().min(skip);
            skip -= skipped;
            self.current = match segment {
                _ if skipped == segment.length() => None,
                // Less than its length, which is in memory.
                Segment::Bytes(bytes) => Some(Segment::Bytes(bytes.slice(skipped as usize..))),
                Segment::Content(file, start, end) => Some(Segment::Content(file, start + skipped, end)),
            };
        }
        Ok(self)
    }
}

impl Pieces for Leftovers {
    fn next(&mut self, limit: usize) -> io::Result<Option<Bytes>> {
        let limit = usize::try_from(self.left).map_or(limit, |left| left.min(limit));
        let mut piece = BytesMut::with_capacity(limit);
        while piece.len() < limit {
            let segment = match self.current.take() {
                Some(segment) => Some(segment),
                None => self.walk.next().transpose()?,
            };
            let room = limit - piece.len();
            match segment {
                None => break,
                Some(Segment::Bytes(mut bytes)) => {
                    piece.extend_from_slice(&bytes.split_to(room.min(bytes.len())));
                    if !bytes.is_empty() {
                        self.current = Some(Segment::Bytes(bytes));
                    }
                }
                Some(Segment::Content(file, start, end)) => {
                    let length = usize::try_from(end - start).map_or(room, |left| left.min(room));
                    let from = piece.len();
                    piece.resize(from + length, 0);
                    // A file that has become shorter is an error: the archive has announced it.
                    file.read_exact_at(&mut piece[from..], start)?;
                    let start = start + length as u64;
                    if start < end {
                        self.current = Some(Segment::Content(file, start, end));
                    }
                }
            }
        }
        self.left -= piece.len() as u64;
        Ok((!piece.is_empty()).then(|| piece.freeze()))
    }
}

/// The parts of an archive, one after the other.
struct Walk {
    /// Open folders, each with its path in the archive, from the outermost to where it is reading.
    folders: Vec<(Dir, PathBuf)>,
    ready: VecDeque<Segment>,
    missing: Vec<String>,
    /// Also those that are not named.
    missing_count: u64,
    is_ended: bool,
}

impl Walk {
    fn of(job: &str, folder: OwnedFd) -> io::Result<Self> {
        let mut walk = Self {
            folders: Vec::new(),
            ready: VecDeque::new(),
            missing: Vec::new(),
            missing_count: 0,
            is_ended: false,
        };
        walk.text(
            NOTE,
            format!(
                "This is what the job {job} left in its outputs folder.\n\n\
                 The job ended without a proof. Nothing here was measured, nothing here is certified, and no\n\
                 proof will ever vouch for it.\n"
            ),
        )?;
        let stat = fstat(&folder)?;
        walk.enter(folder, &stat, FOLDER.into())?;
        Ok(walk)
    }

    fn text(&mut self, path: &str, text: String) -> io::Result<()> {
        let header = header(EntryType::Regular, text.len() as u64, 0o644, 0);
        self.ready.push_back(head(header, Path::new(path))?);
        let length = text.len() as u64;
        self.ready.push_back(Segment::Bytes(text.into()));
        self.pad(length);
        Ok(())
    }

    fn pad(&mut self, length: u64) {
        let over = (length % BLOCK as u64) as usize;
        if over > 0 {
            let zeros = vec![0; BLOCK - over];
            self.ready.push_back(Segment::Bytes(zeros.into()));
        }
    }

    fn miss(&mut self, path: &Path, why: impl std::fmt::Display) {
        self.missing_count += 1;
        if self.missing.len() < NAMED {
            self.missing.push(format!("{path:?}: {why}"));
        }
    }

    fn enter(&mut self, folder: OwnedFd, stat: &Stat, path: PathBuf) -> io::Result<()> {
        let header = header(EntryType::Directory, 0, stat.st_mode, stat.st_mtime);
        // Its path ends with a slash.
        self.ready.push_back(head(header, &path.join(""))?);
        self.folders.push((Dir::new(folder)?, path));
        Ok(())
    }

    /// Takes one entry of the innermost folder into the archive.
    fn visit(&mut self, name: &std::ffi::CStr) {
        let Some((folder, path)) = self.folders.last() else {
            return;
        };
        let path = path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
        let opened = folder.fd().and_then(|at| open(at, name)).map_err(io::Error::from);
        let taken = match opened {
            Ok(Entry::Folder(..)) if self.folders.len() >= DEPTH => {
                self.miss(&path, format_args!("it is more than {DEPTH} folders deep"));
                Ok(())
            }
            Ok(Entry::Folder(folder, stat)) => self.enter(folder, &stat, path.clone()),
            Ok(Entry::File(file, stat)) => self.file(file, &stat, &path),
            Ok(Entry::Link(target, stat)) => self.link(&target, &stat, &path),
            Ok(Entry::Special) => {
                self.miss(&path, "it is neither a file, nor a folder, nor a symbolic link");
                Ok(())
            }
            Err(error) => Err(error),
        };
        if let Err(error) = taken {
            self.miss(&path, error);
        }
    }

    fn file(&mut self, file: OwnedFd, stat: &Stat, path: &Path) -> io::Result<()> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let header = header(EntryType::Regular, size, stat.st_mode, stat.st_mtime);
        self.ready.push_back(head(header, path)?);
        self.ready.push_back(Segment::Content(file.into(), 0, size));
        self.pad(size);
        Ok(())
    }

    fn link(&mut self, target: &std::ffi::CStr, stat: &Stat, path: &Path) -> io::Result<()> {
        let mut header = header(EntryType::Symlink, 0, 0o777, stat.st_mtime);
        let target = Path::new(std::ffi::OsStr::from_bytes(target.to_bytes()));
        let entry = written(|archive| archive.append_link(&mut header, path, target))?;
        self.ready.push_back(entry);
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        self.is_ended = true;
        if self.missing_count > 0 {
            let named = self.missing.len() as u64;
            let mut text = mem::take(&mut self.missing).join("\n");
            if self.missing_count > named {
                text.push_str(&format!("\n… and {} more", self.missing_count - named));
            }
            tracing::warn!(
                missing = self.missing_count,
                "some of what the job left is not in its archive"
            );
            self.text(
                INCOMPLETE,
                format!("What is not in this archive, and why:\n\n{text}\n"),
            )?;
        }
        let end = vec![0; 2 * BLOCK];
        self.ready.push_back(Segment::Bytes(end.into()));
        Ok(())
    }
}

impl Iterator for Walk {
    type Item = io::Result<Segment>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(segment) = self.ready.pop_front() {
                return Some(Ok(segment));
            }
            if self.is_ended {
                return None;
            }
            let Some((folder, path)) = self.folders.last_mut() else {
                match self.end() {
                    Ok(()) => continue,
                    Err(error) => return Some(Err(error)),
                }
            };
            match folder.read() {
                Some(Ok(entry)) if is_dots(entry.file_name().to_bytes()) => {}
                Some(Ok(entry)) => self.visit(entry.file_name()),
                Some(Err(error)) => {
                    let path = mem::take(path);
                    self.folders.pop();
                    self.miss(&path, format_args!("it could not be read to its end: {error}"));
                }
                None => drop(self.folders.pop()),
            }
        }
    }
}

/// What is in a folder.
enum Entry {
    File(OwnedFd, Stat),
    Folder(OwnedFd, Stat),
    Link(std::ffi::CString, Stat),
    Special,
}

fn open(folder: impl AsFd, name: &std::ffi::CStr) -> rustix::io::Result<Entry> {
    let stat = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    // A FIFO would keep whoever opens it waiting.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let kind = |stat: &Stat| FileType::from_raw_mode(stat.st_mode);
    match kind(&stat) {
        FileType::Symlink => Ok(Entry::Link(readlinkat(&folder, name, Vec::new())?, stat)),
        FileType::RegularFile | FileType::Directory => {
            let opened = openat(&folder, name, flags, Mode::empty())?;
            let stat = fstat(&opened)?;
            match kind(&stat) {
                FileType::RegularFile => Ok(Entry::File(opened, stat)),
                FileType::Directory => Ok(Entry::Folder(opened, stat)),
                _ => Ok(Entry::Special),
            }
        }
        _ => Ok(Entry::Special),
    }
}

fn is_dots(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

/// Without anything that runs with the rights of its owner, and without owners, which are of the machine.
fn header(kind: EntryType, size: u64, mode: u32, modified: i64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode & 0o777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(modified).unwrap_or(0));
    header
}

/// What comes before the content of an entry; long names take more than one block.
fn head(mut header: Header, path: &Path) -> io::Result<Segment> {
    written(|archive| archive.append_data(&mut header, path, io::empty()))
}

fn written(write: impl FnOnce(&mut Builder<Vec<u8>>) -> io::Result<()>) -> io::Result<Segment> {
    let mut archive = Builder::new(Vec::new());
    write(&mut archive)?;
    Ok(Segment::Bytes(mem::take(archive.get_mut()).into()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::fs::{CWD, mknodat};

    use super::*;

    fn archive(folder: &Path) -> Leftovers {
        Leftovers::of("job-1", folder).unwrap().unwrap()
    }

    fn read(mut archive: Leftovers, limit: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(piece) = archive.next(limit).unwrap() {
            assert!(!piece.is_empty() && piece.len() <= limit);
            bytes.extend_from_slice(&piece);
        }
        bytes
    }

    /// Kind and content, or target, of each entry, as an independent reader of archives sees it.
    fn entries(bytes: &[u8]) -> BTreeMap<String, (EntryType, String, u32)> {
        let mut archive = tar::Archive::new(bytes);
        let mut found = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let (kind, mode) = (entry.header().entry_type(), entry.header().mode().unwrap());
            let mut content = String::new();
            match entry.link_name().unwrap() {
                Some(target) => content = target.to_str().unwrap().to_owned(),
                None => drop(entry.read_to_string(&mut content).unwrap()),
            }
            assert!(found.insert(path, (kind, content, mode)).is_none());
        }
        found
    }

    fn sample() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join("outputs").join(path);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::create_dir_all(at("empty")).unwrap();
        std::fs::write(root.path().join("secret"), "hunter2").unwrap();
        std::fs::write(at("a/b/model"), "weights".repeat(1000)).unwrap();
        std::fs::hard_link(at("a/b/model"), at("same")).unwrap();
        std::fs::set_permissions(at("same"), PermissionsExt::from_mode(0o4755)).unwrap();
        std::fs::write(at("nothing"), "").unwrap();
        std::fs::write(at(&"n".repeat(200)), "long").unwrap();
        symlink("../secret", at("link")).unwrap();
        symlink("..", at("a/up")).unwrap();
        symlink("t".repeat(300), at("far")).unwrap();
        mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        root
    }

    #[test]
    fn everything_that_can_be_kept_is_in_it() {
        let root = sample();
        let folder = root.path().join("outputs");
        let bytes = read(archive(&folder), 1000);
        assert_eq!(archive(&folder).length().unwrap(), bytes.len() as u64);
        assert_eq!(bytes.len() % BLOCK, 0);
        let found = entries(&bytes);
        let of = |path: &str| {
            let (kind, content, _) = &found[path];
            (*kind, content.clone())
        };
        let (file, link) = (EntryType::Regular, EntryType::Symlink);
        assert_eq!(of("outputs/a/b/model"), (file, "weights".repeat(1000)));
        assert_eq!(of("outputs/same"), (file, "weights".repeat(1000)));
        assert_eq!(found["outputs/same"].2, 0o755);
        assert_eq!(of("outputs/nothing"), (file, String::new()));
        assert_eq!(of(&format!("outputs/{}", "n".repeat(200))), (file, "long".into()));
        assert_eq!(of("outputs/link"), (link, "../secret".into()));
        assert_eq!(of("outputs/a/up"), (link, "..".into()));
        assert_eq!(of("outputs/far"), (link, "t".repeat(300)));
        for folder in ["outputs/", "outputs/a/", "outputs/a/b/", "outputs/empty/"] {
            assert_eq!(of(folder).0, EntryType::Directory, "{folder}");
        }
        let (note, missing) = (of(NOTE).1, of(INCOMPLETE).1);
        assert!(note.contains("job-1") && note.contains("nothing here is certified"));
        assert!(missing.contains("\"outputs/fifo\": it is neither"), "{missing}");
        assert_eq!(found.len(), 13, "{:?}", found.keys());
        assert!(!String::from_utf8_lossy(&bytes).contains("hunter2"));
    }

    #[test]
    fn any_part_is_that_of_the_whole() {
        let root = sample();
        let folder = root.path().join("outputs");
        let whole = read(archive(&folder), 1 << 20);
        let length = whole.len();
        for (start, end) in [
            (0, length),
            (1, length),
            (511, 513),
            (length - 1, length),
            (length, length),
        ]
        .into_iter()
        .chain(
            (0..length)
                .step_by(777)
                .map(|start| (start, (start + 5000).min(length))),
        ) {
            let part = archive(&folder).range(start as u64, end as u64).unwrap();
            assert!(read(part, 300) == whole[start..end], "{start}..{end}");
        }
    }

    #[test]
    fn what_is_not_there_is_nothing() {
        let root = tempfile::tempdir().unwrap();
        assert!(Leftovers::of("job-1", root.path()).unwrap().is_none());
        assert!(
            Leftovers::of("job-1", &root.path().join("none"))
                .unwrap()
                .is_none()
        );
        symlink("/etc", root.path().join("link")).unwrap();
        assert!(Leftovers::of("job-1", &root.path().join("link")).is_err());
    }

    #[test]
    fn depth_takes_no_endless_number_of_open_files() {
        let root = tempfile::tempdir().unwrap();
        let mut folder = root.path().to_owned();
        for _ in 0..DEPTH + 20 {
            folder.push("d");
        }
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(root.path().join("top"), "kept").unwrap();
        let found = entries(&read(archive(root.path()), 4096));
        assert_eq!(found["outputs/top"].1, "kept");
        assert!(found[INCOMPLETE].1.contains("more than 128 folders deep"));
        assert_eq!(
            found.keys().filter(|path| path.ends_with("d/")).count(),
            DEPTH - 1
        );
    }
}
