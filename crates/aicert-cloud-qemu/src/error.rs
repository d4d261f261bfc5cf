//! What can fail here, and how it is told outside.

use std::io;
use std::path::{Path, PathBuf};

use aicert_core::cloud::{CloudError, CloudErrorKind};
use aicert_core::tpm::TpmError;

/// A failure to make, find or end a machine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A program or a file that machines are made of is not there.
    #[error("{what}")]
    Missing { what: String, advice: String },
    /// It cannot be done here, or is not offered.
    #[error("{what}")]
    Unsupported { what: String, advice: String },
    /// It may not be done by this user.
    #[error("{what}")]
    Forbidden { what: String, advice: String },
    /// The state folder cannot be used.
    #[error("could not {action} {}: {source}", .path.display())]
    Storage {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// There is one already.
    #[error("there is a machine for the job {job} already")]
    Exists { job: String },
    /// Something else makes or removes the same machine.
    #[error("another process is still at work on {what}, after {seconds} s")]
    Occupied { what: String, seconds: u64 },
    /// Whoever wanted the machine wants it no more.
    #[error("the machine was given up while it was made")]
    GivenUp,
    /// A program did not do what it was started for.
    #[error("{program} {what}{}", said(.messages))]
    Program {
        program: &'static str,
        what: String,
        messages: String,
    },
    /// QEMU's monitor answered with an error, or not at all.
    #[error("QEMU's monitor: {0}")]
    Monitor(String),
    /// A process could not be ended.
    #[error("{program} (process {pid}) does not end: {source}")]
    Unending {
        program: &'static str,
        pid: u32,
        source: io::Error,
    },
    /// It cannot be found out whether a process of a machine still runs.
    #[error("it cannot be found out whether {program} of the machine {} still runs: could not read {}: {source}", name(.machine), .path.display())]
    UnknownProcess {
        program: &'static str,
        /// The machine's folder.
        machine: PathBuf,
        path: PathBuf,
        source: io::Error,
    },
    /// The machine's TPM could not be made ready.
    #[error("the machine's TPM could not be made ready: {0}")]
    Tpm(TpmError),
    /// The authority that certifies keys cannot be used.
    #[error("the authority in {}, which certifies the keys of machines, cannot be used: {why}", .folder.display())]
    Authority { folder: PathBuf, why: String },
}

const FREE_SPACE: &str = "free some space, or name a state folder on a larger disk";

/// What the C library says of `ENOSPC`; programs are started with `LC_ALL=C`.
const NO_SPACE: &str = "No space left on device";

/// The name of a machine is that of its folder.
fn name(machine: &Path) -> std::borrow::Cow<'_, str> {
    machine.file_name().unwrap_or_default().to_string_lossy()
}

fn said(messages: &str) -> String {
    match messages.trim() {
        "" => String::new(),
        messages => format!(": {messages}"),
    }
}

impl Failure {
    /// For `map_err`: says what was to be done with which file.
    pub(crate) fn storage<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Self + 'a {
        move |source| Self::Storage {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

impl From<TpmError> for Failure {
    fn from(error: TpmError) -> Self {
        Self::Tpm(error)
    }
}

impl From<Failure> for CloudError {
    fn from(failure: Failure) -> Self {
        let message = failure.to_string();
        match failure {
            Failure::Missing { advice, .. } => {
                Self::new(CloudErrorKind::NotFound, message).with_advice(advice)
            }
            Failure::Unsupported { advice, .. } => {
                Self::new(CloudErrorKind::Unsupported, message).with_advice(advice)
            }
            Failure::Forbidden { advice, .. } => {
                Self::new(CloudErrorKind::PermissionDenied, message).with_advice(advice)
            }
            Failure::Storage { source, .. } => {
                let (kind, advice) = storage(source.kind());
                let error = Self::new(kind, message).with_source(source);
                match advice {
                    Some(advice) => error.with_advice(advice),
                    None => error,
                }
            }
            Failure::Exists { .. } => Self::new(CloudErrorKind::Failed, message)
                .with_advice("destroy that machine first, or name the job otherwise"),
            Failure::Occupied { .. } => Self::new(CloudErrorKind::Unavailable, message)
                .with_advice("wait for it, or end it, and try again")
                .retryable(),
            Failure::GivenUp | Failure::Monitor(_) => Self::new(CloudErrorKind::Failed, message),
            Failure::Program { messages, .. } if messages.contains(NO_SPACE) => {
                Self::new(CloudErrorKind::Exhausted, message).with_advice(FREE_SPACE)
            }
            Failure::Program { .. } => Self::new(CloudErrorKind::Boot, message),
            Failure::Unending { source, .. } => {
                Self::new(CloudErrorKind::Failed, message).with_source(source)
            }
            Failure::UnknownProcess {
                program,
                machine,
                source,
                ..
            } => Self::new(CloudErrorKind::Failed, message)
                .with_advice(format!(
                    "try again; if that does not help, `ls -l /proc/[0-9]*/cwd | grep {}` shows which processes work for the \
                     machine: end them with `kill`, and remove {}",
                    name(&machine),
                    crate::folder::process_file(&machine, program).display()
                ))
                .with_source(source),
            Failure::Tpm(error) => {
                let advice = error.advice().map(str::to_owned);
                let failure = Self::new(CloudErrorKind::Boot, message).with_source(error);
                match advice {
                    Some(advice) => failure.with_advice(advice),
                    None => failure,
                }
            }
            Failure::Authority { .. } => Self::new(CloudErrorKind::Failed, message).with_advice(
                "remove that folder: a new authority is made, and verifiers must be given its root then",
            ),
        }
    }
}

fn storage(kind: io::ErrorKind) -> (CloudErrorKind, Option<&'static str>) {
    match kind {
        io::ErrorKind::PermissionDenied => (
            CloudErrorKind::PermissionDenied,
            Some("name a state folder that you may write to"),
        ),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (CloudErrorKind::Exhausted, Some(FREE_SPACE))
        }
        _ => (CloudErrorKind::Failed, None),
    }
}
