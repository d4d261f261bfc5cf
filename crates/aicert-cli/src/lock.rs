//! Shows that the folder of a machine or of a run is in use: by a lock that the kernel takes back whatever way its owner
//! ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

const FILE: &str = "owner.lock";

/// How long to wait for a lock: somebody may only be looking whether it is held.
const PATIENCE: Duration = Duration::from_millis(200);

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
        let end = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self(file))),
                Err(TryLockError::WouldBlock) if Instant::now() < end => {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Whether someone holds the lock; where that cannot be found out, nothing is taken away from anybody.
    pub(crate) fn is_held(folder: &Path) -> bool {
        match File::open(folder.join(FILE)) {
            // Shared, so that others who look at the same time do not take this one for the holder. It ends with the handle.
            Ok(file) => file.try_lock_shared().is_err(),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn who_looks_disturbs_nobody() {
        let folder = tempfile::tempdir().unwrap();
        drop(Lock::make(folder.path()).unwrap());
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        assert!(!Lock::is_held(folder.path()), "they only look");
                    }
                });
            }
            thread::sleep(Duration::from_millis(50));
            done.store(true, Ordering::Relaxed);
        });

        // Somebody who looks for as long as this.
        let file = File::open(folder.path().join(FILE)).unwrap();
        file.try_lock_shared().unwrap();
        assert!(!Lock::is_held(folder.path()));
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(PATIENCE / 4);
                drop(file);
            });
            let lock = Lock::take(folder.path()).unwrap();
            assert!(lock.is_some() && Lock::is_held(folder.path()));
            assert!(Lock::take(folder.path()).unwrap().is_none());
        });
    }
}
