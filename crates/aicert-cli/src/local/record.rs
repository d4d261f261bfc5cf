//! The durable trace of a machine: written before anything else is made for it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aicert_core::runtime::JobId;
use aicert_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::Purpose;
use crate::files;

const FILE: &str = "record.json";

/// What a machine was made for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// The job.
    pub(crate) job: String,
    /// Since when it exists.
    pub(crate) created: Timestamp,
    /// The process that made it, for people.
    pub(crate) process: u32,
    /// Its configuration.
    pub(crate) configuration: PathBuf,
    /// What the run was to write.
    pub(crate) targets: Vec<PathBuf>,
}

impl Record {
    pub(super) fn new(job: &JobId, purpose: &Purpose) -> Self {
        Self {
            job: job.as_str().to_owned(),
            created: Timestamp::now(),
            process: std::process::id(),
            configuration: purpose.configuration.clone(),
            targets: purpose.targets.clone(),
        }
    }

    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        files::write_new(&folder.join(FILE), &text)
    }

    /// The record in a folder; nothing when it is not there or damaged.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        let bytes = fs::read(folder.join(FILE)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// The files that exist while results are being written.
    pub(super) fn partial_files(&self) -> Vec<PathBuf> {
        match self.job.parse() {
            Ok(job) => self
                .targets
                .iter()
                .map(|target| files::partial(target, &job))
                .collect(),
            Err(_) => Vec::new(),
        }
    }
}
