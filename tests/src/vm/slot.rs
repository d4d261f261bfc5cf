//! As many machines at a time as the host can bear, whoever boots them: each keeps about one processor busy, and takes 2 GiB.

use std::fs::{self, File};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// No more than that at a time, for the memory that they take.
const MOST: usize = 4;

/// The right to run one machine.
#[derive(Debug)]
pub(super) struct Slot {
    /// Locked, by the kernel's account: whatever ends the process gives it back.
    _file: File,
}

impl Slot {
    /// Waits for one.
    pub(super) fn wait() -> Self {
        let folder = folder();
        fs::create_dir_all(&folder).expect("a temporary folder can be made");
        let processors = thread::available_parallelism().map_or(1, usize::from);
        loop {
            for number in 0..processors.min(MOST) {
                let path = folder.join(format!("machine-{number}.lock"));
                let file = File::create(path).expect("a lock can be made");
                if file.try_lock().is_ok() {
                    return Self { _file: file };
                }
            }
            thread::sleep(Duration::from_millis(250));
        }
    }
}

/// Shared by all checkouts of this user.
fn folder() -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    std::env::temp_dir().join(format!("aicert-tests-{user}"))
}
