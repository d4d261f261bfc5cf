//! Shows that a machine is in use: by a lock that the kernel takes back whatever way its owner ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

const FILE: &str = "owner.lock";

/// The lock of a machine, held until it is dropped.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "held for its lock")] File);

impl Lock {
    /// Locks a machine that is being made.
    pub(super) fn take(folder: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(folder.join(FILE))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether someone holds the lock; where that cannot be found out, nothing is taken away from anybody.
    pub(super) fn is_held(folder: &Path) -> bool {
        match File::open(folder.join(FILE)) {
            // The lock of this handle ends with it.
            Ok(file) => file.try_lock().is_err(),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }
}
