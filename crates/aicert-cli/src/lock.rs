//! Shows that the folder of a machine or of a run is in use: by a lock that the kernel takes back whatever way its owner
//! ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

const FILE: &str = "owner.lock";

/// The lock of a folder, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its lock")] File);

impl Lock {
    /// Locks a folder that is being made.
    pub(crate) fn make(folder: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(folder.join(FILE))?;
        Self::of(file)?.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    /// Locks a folder that is there; nothing when somebody else has it.
    pub(crate) fn take(folder: &Path) -> io::Result<Option<Self>> {
        Self::of(OpenOptions::new().write(true).open(folder.join(FILE))?)
    }

    fn of(file: File) -> io::Result<Option<Self>> {
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether someone holds the lock; where that cannot be found out, nothing is taken away from anybody.
    pub(crate) fn is_held(folder: &Path) -> bool {
        match File::open(folder.join(FILE)) {
            // The lock of this handle ends with it.
            Ok(file) => file.try_lock().is_err(),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }
}
