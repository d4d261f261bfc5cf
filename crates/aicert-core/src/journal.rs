//! The write-ahead file of a log: every event is durable before it is extended.
//!
//! The file holds one event per line. Writing comes first, extending second: after a crash the last line may or may not
//! have been extended, and since a certificate is made only from a log that is complete in memory, no crash can lead to
//! a certificate that says what did not happen. What a crash leaves is for people: [`Journal::read`] tells how far the
//! job was.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::event::Event;
use crate::log::MeasurementLog;

/// The largest journal that is read back.
const SIZE_LIMIT: u64 = crate::certificate::SIZE_LIMIT as u64;

/// Says why a journal could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("the journal {path:?} could not be {action}: {source}")]
pub struct JournalError {
    path: PathBuf,
    action: &'static str,
    source: io::Error,
}

impl JournalError {
    /// What the operating system said.
    pub fn io_error(&self) -> &io::Error {
        &self.source
    }
}

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Creates the file, which must not exist, and makes its name durable.
    ///
    /// # Errors
    ///
    /// When it exists or cannot be created.
    pub fn create(path: &Path) -> Result<Self, JournalError> {
        let fail = |source| JournalError {
            path: path.into(),
            action: "created",
            source,
        };
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(fail)?;
        let folder = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(fail)?;
        Ok(Self {
            path: path.into(),
            file,
        })
    }

    /// Writes an event and waits until it is durable.
    ///
    /// # Errors
    ///
    /// When it cannot be written; the job must then stop.
    pub fn append(&mut self, event: &Event) -> Result<(), JournalError> {
        let mut line = serde_json::to_vec(event).unwrap_or_default();
        line.push(b'\n');
        self.file
            .write_all(&line)
            .and_then(|()| self.file.sync_data())
            .map_err(|source| JournalError {
                path: self.path.clone(),
                action: "written",
                source,
            })
    }

    /// Reads what a job that did not end left behind: its events as far as they are whole and in order.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn read(path: &Path) -> Result<MeasurementLog, JournalError> {
        let fail = |source| JournalError {
            path: path.into(),
            action: "read",
            source,
        };
        let mut bytes = Vec::new();
        File::open(path)
            .map_err(fail)?
            .take(SIZE_LIMIT)
            .read_to_end(&mut bytes)
            .map_err(fail)?;
        let mut log = MeasurementLog::new();
        // A crash can tear the last line: what follows the last newline is not an event.
        for line in bytes
            .split_inclusive(|&byte| byte == b'\n')
            .filter(|line| line.ends_with(b"\n"))
        {
            let Ok(event) = crate::canonical::from_slice::<Event>(line, line.len()) else {
                break;
            };
            if log.push(event).is_err() {
                break;
            }
        }
        Ok(log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tests::sample_contents;

    #[test]
    fn a_torn_line_is_not_an_event() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::create(&path).unwrap();
        let mut log = MeasurementLog::new();
        for content in sample_contents().into_iter().take(3) {
            let event = log.next_event(content).unwrap();
            journal.append(&event).unwrap();
            log.push(event).unwrap();
        }
        assert_eq!(Journal::read(&path).unwrap(), log);
        let whole = std::fs::read(&path).unwrap();
        let second_end = whole
            .iter()
            .enumerate()
            .filter(|(_, b)| **b == b'\n')
            .nth(1)
            .unwrap()
            .0
            + 1;
        for cut in second_end..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(
                Journal::read(&path).unwrap().events(),
                &log.events()[..2],
                "cut at {cut}"
            );
        }
        assert!(
            Journal::create(&path)
                .unwrap_err()
                .to_string()
                .contains("could not be created")
        );
    }
}
