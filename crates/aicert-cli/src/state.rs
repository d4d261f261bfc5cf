//! What outlives a command: the folder of the user's machines and runs.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aicert_core::cloud::{CloudError, CloudErrorKind};
use aicert_core::digest::{FileDigest, Nonce};
use aicert_core::runtime::JobId;
use aicert_core::time::Timestamp;

use crate::error::{Exit, Failure};
use crate::files;

/// The folders of the user.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// What must not be lost.
    pub(crate) folder: PathBuf,
    /// What can be made again.
    pub(crate) cache: PathBuf,
}

impl State {
    /// What the environment says: a variable of ours, or one of the XDG base directories.
    pub(crate) fn from_environment() -> Result<Self, Failure> {
        Ok(Self {
            folder: folder_from("AICERT_STATE_DIR", "XDG_STATE_HOME", ".local/state")?,
            cache: folder_from("AICERT_CACHE_DIR", "XDG_CACHE_HOME", ".cache")?,
        })
    }

    /// What all jobs of one state folder begin with, so that those of others on the same engine are left alone.
    pub(crate) fn job_prefix(&self) -> String {
        let folder = fs::canonicalize(&self.folder).unwrap_or_else(|_| self.folder.clone());
        let digest = FileDigest::of(folder.as_os_str().as_encoded_bytes());
        format!("{}-", hex::encode(&digest.as_bytes()[..4]))
    }

    /// A name that tells when the job began: `<state folder>-20260131t235959-<random>`.
    pub(crate) fn new_job_id(&self) -> Result<JobId, Failure> {
        let time: String = Timestamp::now()
            .to_string()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_ascii_digit() || *c == 't')
            .collect();
        let random = u32::from_ne_bytes(random()?);
        format!("{}{time}-{random:08x}", self.job_prefix())
            .parse()
            .map_err(|error: aicert_core::runtime::ParseJobIdError| {
                Failure::new(Exit::DoesNotHold, "could not name the job").because(&error)
            })
    }

    /// Where results of a job are put that cannot be put where they belong.
    pub(crate) fn rescue(&self, job: &JobId) -> PathBuf {
        self.folder.join("rescued").join(job.as_str())
    }
}

fn folder_from(own: &str, base: &str, default: &str) -> Result<PathBuf, Failure> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let found = set(own).or_else(|| {
        let base = set(base)
            .filter(|path| path.is_absolute())
            .or_else(|| Some(set("HOME")?.join(default)))?;
        Some(base.join("aicert"))
    });
    found
        .and_then(|path| std::path::absolute(path).ok())
        .ok_or_else(|| {
            Failure::misuse("there is no home folder to keep state in")
                .help(format!("name a folder with {own}"))
        })
}

/// Makes a folder that belongs to this user alone, where it is not there.
pub(crate) fn private_folder(folder: &Path) -> Result<(), CloudError> {
    files::private(folder).map_err(|error| storage("make the state folder", folder, error))?;
    let owner = fs::metadata(folder).map_err(|error| storage("look at the state folder", folder, error))?;
    if owner.uid() != rustix::process::geteuid().as_raw() || owner.mode() & 0o022 != 0 {
        return Err(CloudError::new(
            CloudErrorKind::PermissionDenied,
            format!("the state folder {folder:?} can be changed by other users"),
        )
        .with_advice("name another one with AICERT_STATE_DIR, or `chmod 700` it"));
    }
    Ok(())
}

/// Says what could not be done with a folder of the state.
pub(crate) fn storage(action: &str, path: &Path, error: io::Error) -> CloudError {
    let advice = match error.kind() {
        io::ErrorKind::PermissionDenied => Some("name a folder that you may write to with AICERT_STATE_DIR"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("free some space, or name a folder on a larger disk with AICERT_STATE_DIR")
        }
        _ => None,
    };
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => CloudErrorKind::PermissionDenied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => CloudErrorKind::Exhausted,
        _ => CloudErrorKind::Failed,
    };
    let failure = CloudError::new(kind, format!("could not {action} {path:?}: {error}")).with_source(error);
    match advice {
        Some(advice) => failure.with_advice(advice),
        None => failure,
    }
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    // getrandom(2): up to 256 bytes come whole.
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()).map_err(|error| {
        Failure::new(Exit::DoesNotHold, "the system gives no random numbers").because(&error)
    })?;
    Ok(bytes)
}

pub(crate) fn new_nonce() -> Result<Nonce, Failure> {
    random().map(Nonce::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_ids_are_valid_and_differ() {
        let state = State {
            folder: "/nonexistent".into(),
            cache: "/nonexistent".into(),
        };
        let (a, b) = (state.new_job_id().unwrap(), state.new_job_id().unwrap());
        assert_ne!(a, b);
        assert!(
            a.as_str().starts_with(&state.job_prefix()) && a.as_str().len() <= 40,
            "{a}"
        );
    }
}
