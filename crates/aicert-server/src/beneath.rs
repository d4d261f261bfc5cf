//! Opening what is below a folder, and nothing else: no link is followed on the way, nor at the end of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aicert_core::tree::TreePath;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

/// Opens a folder.
pub(crate) fn folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

/// Opens a folder in a folder.
pub(crate) fn subfolder(parent: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

/// Opens a regular file for reading.
pub(crate) fn file(folder: BorrowedFd<'_>, path: &TreePath) -> io::Result<File> {
    let (parents, name) = split(path.as_str());
    let mut parent: Option<OwnedFd> = None;
    for name in parents {
        let at = parent.as_ref().map_or(folder, AsFd::as_fd);
        parent = Some(subfolder(at, name)?);
    }
    let at = parent.as_ref().map_or(folder, AsFd::as_fd);
    // A FIFO would keep whoever opens it waiting.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = openat(at, name, flags, Mode::empty())?;
    match FileType::from_raw_mode(fstat(&opened)?.st_mode) {
        FileType::RegularFile => Ok(opened.into()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is no regular file",
        )),
    }
}

/// The names of the folders on the way, and the last name.
pub(crate) fn split(path: &str) -> (impl Iterator<Item = &str>, &str) {
    let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
    (parents.split('/').filter(|name| !name.is_empty()), name)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        std::fs::create_dir_all(at("top/a/b")).unwrap();
        std::fs::write(at("top/a/b/file"), "in").unwrap();
        std::fs::write(at("secret"), "out").unwrap();
        std::os::unix::fs::symlink("../secret", at("top/link")).unwrap();
        std::os::unix::fs::symlink("a/b/file", at("top/inner")).unwrap();
        std::os::unix::fs::symlink("..", at("top/up")).unwrap();
        std::os::unix::fs::symlink("b", at("top/a/c")).unwrap();
        rustix::fs::mknodat(CWD, at("top/fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let top = folder(&at("top")).unwrap();
        let open = |path: &str| file(top.as_fd(), &path.parse().unwrap());
        let mut text = String::new();
        open("a/b/file").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "in");
        for path in ["link", "inner", "up/secret", "a/c/file", "fifo", "a", "a/b/none"] {
            assert!(open(path).is_err(), "{path}");
        }
    }
}
