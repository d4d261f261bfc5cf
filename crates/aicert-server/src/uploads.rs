//! Inputs that are at the client: received into a folder of the job, and taken from there as if they had been on this
//! machine.

mod receive;
mod source;
mod unpack;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aicert_core::api::{AwaitedInput, InputForm, ProblemCode};

pub(crate) use receive::{receive, storage_refusal};
pub(crate) use source::UploadedSource;

use crate::problem::Refusal;

/// An input that is at the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) name: String,
    pub(crate) form: InputForm,
    /// What the proof says about where it came from: what the source of its kind says about the client's path.
    pub(crate) origin: String,
}

/// The uploads of one job.
#[derive(Debug)]
pub(crate) struct Uploads {
    folder: PathBuf,
    entries: Mutex<BTreeMap<String, Entry>>,
}

#[derive(Debug)]
struct Entry {
    expected: Expected,
    /// Its place in the configuration, and its name here: what the client calls it reaches no file system.
    index: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Awaited,
    Receiving,
    Received,
}

/// Something that was received.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) path: PathBuf,
    pub(crate) origin: String,
}

impl Uploads {
    /// Expects these, and keeps them below `folder`.
    pub(crate) fn new(folder: PathBuf, expected: Vec<Expected>) -> Self {
        let entries = expected.into_iter().enumerate().map(|(index, expected)| {
            let state = State::Awaited;
            let entry = Entry {
                expected,
                index,
                state,
            };
            (entry.expected.name.clone(), entry)
        });
        Self {
            folder,
            entries: Mutex::new(entries.collect()),
        }
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // Nothing panics while it is held.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has not been received, in the order of the configuration.
    pub(crate) fn awaited(&self) -> Vec<AwaitedInput> {
        let entries = self.entries();
        let mut awaited: Vec<_> = entries
            .values()
            .filter(|entry| entry.state != State::Received)
            .map(|entry| {
                let Expected { name, form, .. } = entry.expected.clone();
                (entry.index, AwaitedInput { name, form })
            })
            .collect();
        awaited.sort_by_key(|(index, _)| *index);
        awaited.into_iter().map(|(_, input)| input).collect()
    }

    /// Where an input is, once it was received.
    pub(crate) fn received(&self, name: &str) -> Option<Received> {
        let entries = self.entries();
        let entry = entries.get(name).filter(|entry| entry.state == State::Received)?;
        Some(Received {
            path: self.folder.join(entry.index.to_string()),
            origin: entry.expected.origin.clone(),
        })
    }

    /// Begins to receive an input: one client at a time, and once.
    pub(crate) fn begin(self: &Arc<Self>, name: &str) -> Result<Reception, Refusal> {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(name) else {
            return Err(Refusal::new(
                ProblemCode::NotFound,
                format!("the job has no input {name:?} that is to be sent"),
            ));
        };
        let already = match entry.state {
            State::Awaited => None,
            State::Receiving => Some("is just being received"),
            State::Received => Some("was received already"),
        };
        if let Some(already) = already {
            return Err(Refusal::new(
                ProblemCode::WrongState,
                format!("the input {name:?} {already}"),
            ));
        }
        entry.state = State::Receiving;
        Ok(Reception {
            path: self.folder.join(entry.index.to_string()),
            form: entry.expected.form,
            name: name.to_owned(),
            uploads: Arc::clone(self),
            complete: false,
        })
    }
}

/// An input that is being received. Dropped before it is complete, it leaves nothing, and is awaited again.
#[derive(Debug)]
pub(crate) struct Reception {
    uploads: Arc<Uploads>,
    name: String,
    path: PathBuf,
    form: InputForm,
    complete: bool,
}

impl Reception {
    fn complete(mut self) {
        self.complete = true;
    }
}

impl Drop for Reception {
    fn drop(&mut self) {
        if !self.complete {
            remove(&self.path);
        }
        if let Some(entry) = self.uploads.entries().get_mut(&self.name) {
            entry.state = match self.complete {
                true => State::Received,
                false => State::Awaited,
            };
        }
    }
}

/// Removes a file or a folder, if it is there.
fn remove(path: &Path) {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => Err(error),
    };
    if let Err(error) = removed {
        tracing::warn!(?path, %error, "could not remove what was received of an input");
    }
}
