//! Writing results so that a crash leaves either all of a file or nothing under its name.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use aicert_core::measure::{self, HardLinks, MeasureError};
use aicert_core::runtime::JobId;

/// The name under which something is made before it gets its own: hidden, in the same folder.
pub(crate) fn partial(target: &Path, job: &JobId) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(format!(".{job}.partial"));
    target.with_file_name(name)
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
    if fs::rename(from, to).is_err() {
        let options = measure::Options {
            hard_links: HardLinks::Refuse,
            progress: &|_| {},
            cancelled,
        };
        measure::copy(from, to, &options)?;
    }
    sync_files(to);
    Ok(())
}

/// Makes everything in a folder durable, as far as that succeeds: what is read back is compared with the measurement in
/// any case.
fn sync_files(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => sync_files(&entry.path()),
            Ok(kind) if kind.is_file() => {
                let _ = File::open(entry.path()).and_then(|file| file.sync_all());
            }
            _ => {}
        }
    }
    let _ = sync_folder(folder);
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
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

/// Removes a folder, those that their owner may not write to included.
fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(path);
            fs::remove_dir_all(path)
        }
        other => other,
    }
}

fn make_writable(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        // `file_type` does not follow links.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path());
        }
    }
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
    fn folders_that_cannot_be_written_to_are_removed() {
        use std::os::unix::fs::PermissionsExt as _;
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
