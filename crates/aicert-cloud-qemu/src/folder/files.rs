//! Files that are there whole or not at all, and locks that end with whoever holds them.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Failure;

/// Writes a new file, whole and durable, for this user alone.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Replaces a file in one step, or makes it.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    // One of a process that died in the middle.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write_new(&new, bytes)?;
    fs::rename(&new, path)
}

/// Makes the names in a folder durable.
pub(crate) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Reads a file of a limited size.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

/// A lock that the kernel takes back whatever way its holder ends.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its lock")] File);

impl Lock {
    /// Takes a lock; nothing when somebody has it.
    pub(crate) fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        match file.try_lock() {
            // Who had it may have removed the file, and it may be there anew.
            Ok(()) if file.metadata()?.ino() != fs::metadata(path)?.ino() => Ok(None),
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Takes a lock, and waits for it.
    pub(crate) fn wait(path: &Path, limit: Duration) -> Result<Self, Failure> {
        let end = Instant::now() + limit;
        loop {
            if let Some(lock) = Self::take(path).map_err(Failure::storage("lock", path))? {
                return Ok(lock);
            }
            if Instant::now() >= end {
                return Err(Failure::Occupied {
                    what: path.parent().unwrap_or(path).display().to_string(),
                    seconds: limit.as_secs(),
                });
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_even_after_an_attempt_that_was_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(folder.path().join("file.new"), "half").unwrap();
        for text in ["one", "two"] {
            replace(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert!(write_new(&path, b"").is_err());
        assert!(read(&path, 2).is_err());
        assert_eq!(read(&path, 3).unwrap(), b"two");
    }

    #[test]
    fn a_lock_has_one_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = Lock::take(&path).unwrap().unwrap();
        assert!(Lock::take(&path).unwrap().is_none());
        let error = Lock::wait(&path, Duration::from_millis(30)).unwrap_err();
        assert!(matches!(error, Failure::Occupied { .. }));
        drop(lock);
        assert!(Lock::take(&path).unwrap().is_some());
    }
}
