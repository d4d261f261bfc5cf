//! Writing results so that a crash leaves either all of a file or nothing under its name.

use std::ffi::{CStr, CString, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use aicert_core::measure::{self, HardLinks, MeasureError};
use aicert_core::runtime::JobId;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, chmodat, fchmod, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

/// The name under which something is made before it gets its own: hidden, in the same folder.
pub(crate) fn partial(target: &Path, job: &JobId) -> PathBuf {
    hidden(target, job, "partial")
}

/// The name of a folder in which something arrives from another machine: hidden, in the same folder.
pub(crate) fn arriving(target: &Path, job: &JobId) -> PathBuf {
    hidden(target, job, "arriving")
}

fn hidden(target: &Path, job: &JobId, ending: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(format!(".{job}.{ending}"));
    target.with_file_name(name)
}

/// Makes a folder that nobody else can enter, where it is not there.
pub(crate) fn private(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// The folder that a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// `path` with another ending in place of its extension.
pub(crate) fn sibling(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

/// `path` with something added to its name.
pub(crate) fn beside(path: &Path, added: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(added);
    path.with_file_name(name)
}

/// Writes a new file, whole and durable.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Writes a new file that only its owner can read, whole and durable.
pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Writes a file that only its owner can read, in place of what is there: a crash leaves the old one or the new one.
pub(crate) fn replace_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = beside(path, ".new");
    remove(&new)?;
    write_secret(&new, bytes)?;
    fs::rename(&new, path)?;
    sync_folder(folder_of(path))
}

/// Gives a file that is complete its own name; without `replace`, an existing file is an error.
pub(crate) fn publish(from: &Path, to: &Path, replace: bool) -> io::Result<()> {
    if replace {
        fs::rename(from, to)?;
    } else {
        // A link, unlike a rename, never replaces what another process has put there in the meantime.
        match fs::hard_link(from, to) {
            Ok(()) => fs::remove_file(from)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
            // File systems without links.
            Err(_) if !exists(to) => fs::rename(from, to)?,
            Err(error) => return Err(error),
        }
    }
    sync_folder(folder_of(to))
}

/// Gives a folder that is complete its own name; an empty folder of that name is replaced.
pub(crate) fn publish_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_folder(folder_of(to))
}

/// Moves a measured folder, or copies it where it cannot be moved, and makes its files durable.
pub(crate) fn stage_folder(from: &Path, to: &Path, cancelled: &AtomicBool) -> Result<(), MeasureError> {
    make_plain(from).map_err(|source| MeasureError::Io {
        action: "change the modes in",
        path: from.to_owned(),
        source,
    })?;
    if fs::rename(from, to).is_err() {
        let options = measure::Options {
            hard_links: HardLinks::Refuse,
            progress: &|_| {},
            cancelled,
        };
        measure::copy(from, to, &options)?;
    }
    // One request for all files: one for each takes minutes where there are hundreds of thousands. Should it fail, what is
    // read back is compared with the measurement in any case.
    let _ = File::open(to).map(rustix::fs::syncfs);
    Ok(())
}

/// Whether two names are of one file.
pub(crate) fn is_same(a: &Path, b: &Path) -> bool {
    let of = |path: &Path| fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    matches!((of(a), of(b)), (Ok(a), Ok(b)) if a == b)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Whether something was last changed more than a minute ago.
pub(crate) fn is_older_than_a_minute(path: &Path) -> bool {
    fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .is_ok_and(|time| time.elapsed().is_ok_and(|age| age.as_secs() > 60))
}

/// Whether something, a dangling link included, has this name.
pub(crate) fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Removes a file or folder; what is not there is no error.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => remove_folder(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes a folder, however deep its folders are nested, and those that their owner may not write to included.
///
/// What is in a folder inside is moved up until there is nothing to go down into: neither open files nor path lengths nor
/// the stack limit it, as they would a descent. No link is followed, even if others put one there meanwhile.
fn remove_folder(path: &Path) -> io::Result<()> {
    let top = open_folder(CWD, path)?;
    let mut moved = 0_u64;
    loop {
        let names = names_in(&top)?;
        if names.is_empty() {
            break;
        }
        for (name, is_folder) in names {
            if is_folder {
                empty_into(&top, &name, &mut moved)?;
            } else {
                unlinkat(&top, &name, AtFlags::empty())?;
            }
        }
    }
    fs::remove_dir(path)
}

/// Removes the folder `name` of `top`, moving the folders in it to `top`.
fn empty_into(top: &OwnedFd, name: &CStr, moved: &mut u64) -> io::Result<()> {
    let folder = match open_folder(top, name) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            chmodat(top, name, Mode::RWXU, AtFlags::empty())?;
            open_folder(top, name)?
        }
        other => other?,
    };
    // Moving a folder changes its `..`, and so needs permission to write to it.
    fchmod(&folder, Mode::RWXU)?;
    for (inner, is_folder) in names_in(&folder)? {
        if !is_folder {
            unlinkat(&folder, &inner, AtFlags::empty())?;
            continue;
        }
        loop {
            *moved += 1;
            match renameat(&folder, &inner, top, format!(".{moved}")) {
                Ok(()) => break,
                // The job used that name; it may take the place of an empty folder.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                Err(Errno::ACCESS) => chmodat(&folder, &inner, Mode::RWXU, AtFlags::empty())?,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(unlinkat(top, name, AtFlags::REMOVEDIR)?)
}

fn open_folder(at: impl AsFd, path: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(at, path, flags, Mode::empty())?)
}

/// What is in a folder, and which of it are folders.
fn names_in(folder: &OwnedFd) -> io::Result<Vec<(CString, bool)>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let is_folder = match entry.file_type() {
            FileType::Unknown => {
                let status = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(status.st_mode) == FileType::Directory
            }
            kind => kind == FileType::Directory,
        };
        names.push((name.to_owned(), is_folder));
    }
    Ok(names)
}

/// Takes away what would make a file more than a file, or a folder one that cannot be entered: a program that the job
/// left would otherwise run, for whoever starts it, with the rights of the user who ran aicert. For a folder that nobody
/// else can reach.
fn make_plain(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_symlink() {
            continue;
        }
        let needed = if kind.is_dir() { 0o700 } else { 0o600 };
        let mode = fs::symlink_metadata(&path)?.permissions().mode() & 0o7777;
        let plain = (mode & 0o777) | needed;
        if mode != plain {
            fs::set_permissions(&path, fs::Permissions::from_mode(plain))?;
        }
        if kind.is_dir() {
            make_plain(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beside_a_proof() {
        let proof = Path::new("a/proof.json");
        assert_eq!(sibling(proof, ".ca.pem"), Path::new("a/proof.ca.pem"));
        assert_eq!(beside(proof, ".manifest"), Path::new("a/proof.json.manifest"));
        assert_eq!(
            partial(proof, &"j".parse().unwrap()),
            Path::new("a/.proof.json.j.partial")
        );
        assert_eq!(folder_of(Path::new("x")), Path::new("."));
    }

    #[test]
    fn nothing_is_replaced_unless_asked() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        write_new(&from, b"new").unwrap();
        assert!(write_new(&from, b"again").is_err());
        fs::write(&to, "old").unwrap();
        assert_eq!(
            publish(&from, &to, false).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(fs::read(&to).unwrap(), b"old");
        publish(&from, &to, true).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"new");
        assert!(!exists(&from));
        publish(&to, &from, false).unwrap();
        assert!(!exists(&to) && exists(&from));
    }

    #[test]
    fn folders_nested_too_deep_for_any_path_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("a");
        fs::create_dir(&top).unwrap();
        // Names that removing would choose itself.
        fs::create_dir_all(top.join(".1/x")).unwrap();
        fs::write(top.join(".2"), "x").unwrap();
        std::os::unix::fs::symlink("/", top.join("link")).unwrap();
        let mut inner = open_folder(CWD, &top).unwrap();
        for _ in 0..5_000 {
            rustix::fs::mkdirat(&inner, "d", Mode::RWXU).unwrap();
            inner = open_folder(&inner, "d").unwrap();
        }
        let (soft, hard) = {
            let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
            (limit.current, limit.maximum)
        };
        // As on most machines, whatever this one's is.
        let few = rustix::process::Rlimit {
            current: Some(1024),
            maximum: hard,
        };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, few).unwrap();
        let removed = remove(&top);
        let restored = rustix::process::Rlimit {
            current: soft,
            maximum: hard,
        };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, restored).unwrap();
        removed.unwrap();
        assert!(!exists(&top));
    }

    #[test]
    fn what_a_job_left_is_staged_without_special_modes() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("locked")).unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        for (name, mode) in [("program", 0o6755), ("locked/closed", 0)] {
            fs::write(from.join(name), "x").unwrap();
            set(&from.join(name), mode);
        }
        std::os::unix::fs::symlink("locked/closed", from.join("link")).unwrap();
        set(&from.join("locked"), 0o1000);
        stage_folder(&from, &to, &AtomicBool::new(false)).unwrap();
        let mode = |name: &str| fs::symlink_metadata(to.join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(
            [mode("program"), mode("locked"), mode("locked/closed")],
            [0o755, 0o700, 0o600]
        );
    }

    #[test]
    fn folders_that_cannot_be_written_to_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("file"), "x").unwrap();
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o500)).unwrap();
        remove(&folder.path().join("a")).unwrap();
        assert!(!exists(&folder.path().join("a")));
        remove(&folder.path().join("a")).unwrap();
    }
}
