//! The file that a download is written to until it is complete.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use aicert_core::digest::FileDigest;
use aicert_core::input::InputError;
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

use crate::background::Unfinished;
use crate::error::storage;

/// A file next to its target, with the hash of what was written to it so far.
pub(super) struct Part {
    file: File,
    path: PathBuf,
    hasher: Sha256,
    len: u64,
    unfinished: Unfinished,
}

impl Part {
    pub(super) async fn create(target: &Path) -> Result<Self, InputError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // Not the target's name with something added: that could be the name of another input, or too long.
        let path = target.with_file_name(format!(".fetch-{}-{count}.part", std::process::id()));
        // Not in the background, where the file could be made after nobody is left to remove it.
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options
            .open(&path)
            .map_err(|error| storage("create", target, error))?;
        Ok(Self {
            file: File::from_std(file),
            unfinished: Unfinished::new(path.clone()),
            path,
            hasher: Sha256::new(),
            len: 0,
        })
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) async fn append(&mut self, bytes: &[u8]) -> Result<(), InputError> {
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        self.file
            .write_all(bytes)
            .await
            .map_err(|error| self.failed(error))
    }

    /// Throws away what was written.
    pub(super) async fn restart(&mut self) -> Result<(), InputError> {
        self.hasher = Sha256::new();
        self.len = 0;
        let result = async {
            self.file.flush().await?;
            self.file.set_len(0).await?;
            self.file.rewind().await.map(drop)
        };
        result.await.map_err(|error| self.failed(error))
    }

    /// Makes the file durable and gives it its name.
    pub(super) async fn finish(mut self, target: &Path) -> Result<(FileDigest, u64), InputError> {
        let result = async {
            self.file.flush().await?;
            self.file.set_permissions(Permissions::from_mode(0o644)).await?;
            self.file.sync_all().await?;
            fs::rename(&self.path, target)?;
            match target.parent() {
                Some(parent) => File::open(parent).await?.sync_all().await,
                None => Ok(()),
            }
        };
        result.await.map_err(|error| storage("write", target, error))?;
        self.unfinished.keep();
        Ok((FileDigest::from_bytes(self.hasher.finalize().into()), self.len))
    }

    fn failed(&self, error: io::Error) -> InputError {
        storage("write", &self.path, error)
    }
}
