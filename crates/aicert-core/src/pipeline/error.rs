//! What can stop a job.

use std::io;
use std::path::{Path, PathBuf};

use crate::canonical::EncodeError;
use crate::input::InputError;
use crate::journal::JournalError;
use crate::log::LogError;
use crate::measure::MeasureError;
use crate::runtime::RuntimeError;
use crate::tpm::{PcrBank, PcrIndex, TpmError};

/// Says why a job stopped without a certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// An input could not be fetched or is not what was asked for.
    #[error("input {name:?}: {source}")]
    Input {
        /// The input.
        name: String,
        /// What happened.
        source: InputError,
    },
    /// No source serves this kind of input.
    #[error("input {name:?}: nothing here can fetch inputs of type {kind:?}")]
    NoSource {
        /// The input.
        name: String,
        /// Its kind.
        kind: String,
    },
    /// An input would be placed outside the workspace.
    #[error(
        "input {name:?}: its destination {destination:?} is not below /workspace/src or /workspace/resources"
    )]
    Destination {
        /// The input.
        name: String,
        /// Where it was to go.
        destination: String,
    },
    /// The program to run is not among the measured files.
    #[error("the entry point `{entry_point}` is not in the source {source_name:?}")]
    EntryPointMissing {
        /// The input that should have it.
        source_name: String,
        /// What was asked for.
        entry_point: String,
        /// Some files that could have been meant.
        candidates: String,
    },
    /// The list of packages is not among the measured files.
    #[error(
        "the requirements `{requirements}` {} a file of the source",
        if *linked { "are a symbolic link, and not" } else { "are not" }
    )]
    RequirementsMissing {
        /// The path that was asked for.
        requirements: String,
        /// Whether a symbolic link is there.
        linked: bool,
    },
    /// The container engine failed.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The TPM failed.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// PCR 14 or 15 was extended before the job opened.
    #[error(
        "PCR {pcr} of the {bank} bank is not zero before the job ({value}): something measured into it since the machine started"
    )]
    PcrNotFresh {
        /// The PCR.
        pcr: PcrIndex,
        /// The bank.
        bank: PcrBank,
        /// What it holds, in hexadecimal.
        value: String,
    },
    /// Only SHA-1 is active.
    #[error("the TPM has no active PCR bank but SHA-1, which is not collision-resistant")]
    NoTrustedBank,
    /// The TPM holds something else than this job extended.
    #[error(
        "PCR {pcr} holds {found}, the log replays to {expected}: another process extended it during the job"
    )]
    TpmDisagrees {
        /// The PCR.
        pcr: PcrIndex,
        /// From the log, in hexadecimal.
        expected: String,
        /// From the quote, in hexadecimal.
        found: String,
    },
    /// The outputs cannot be measured.
    #[error("the outputs cannot be measured: {0}")]
    Outputs(#[source] MeasureError),
    /// Local storage failed.
    #[error("could not {action} {path:?}: {source}")]
    Storage {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The write-ahead file failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The log refused an event.
    #[error("the measurement log refused an event: {0}")]
    Log(#[from] LogError),
    /// An event has no canonical form.
    #[error("an event could not be encoded: {0}")]
    Encode(#[from] EncodeError),
    /// Work in the background was given up.
    #[error("work in the background was interrupted")]
    Interrupted,
}

impl PipelineError {
    pub(super) fn storage(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Storage {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// What the user can do.
    pub fn advice(&self) -> Option<String> {
        let io_advice = |error: &io::Error| match error.kind() {
            io::ErrorKind::StorageFull => {
                Some("free some space, or name a state folder on a larger disk".to_owned())
            }
            io::ErrorKind::PermissionDenied => {
                Some("run as a user who may write there, or name another state folder".to_owned())
            }
            _ => None,
        };
        match self {
            Self::Input { source, .. } => source.advice().map(Into::into),
            Self::Runtime(error) => error.advice().map(Into::into),
            Self::Tpm(error) => error.advice().map(Into::into),
            Self::NoSource { .. } => Some("use one of the types that `aicert init` lists".into()),
            Self::Destination { .. } => Some("give `destinationPath` as a relative path without `..`".into()),
            Self::EntryPointMissing { candidates, .. } if candidates.is_empty() => Some(
                "check `pythonEntryPoint` and the revision of the source: there is no Python file in it"
                    .into(),
            ),
            Self::EntryPointMissing { candidates, .. } => Some(format!(
                "set `pythonEntryPoint` to a file of the source, for example {candidates}"
            )),
            Self::RequirementsMissing { linked: true, .. } => Some(
                "replace the link with the file, or name the file that it points to as `requirements`".into(),
            ),
            Self::RequirementsMissing { .. } => Some(
                "set `requirements` to the file of the source that lists the packages, or remove the key"
                    .into(),
            ),
            Self::PcrNotFresh { .. } => Some("restart the machine: one job can be certified per boot".into()),
            Self::NoTrustedBank => Some(
                "enable the SHA-256 bank in the firmware's TPM settings; on EC2, use an instance whose NitroTPM has that of \
                 SHA-384"
                    .into(),
            ),
            Self::TpmDisagrees { .. } => {
                Some("stop what else uses the TPM on this machine, restart it and run again".into())
            }
            Self::Outputs(_) => {
                Some("let the job write plain files below its output folder, and nothing else".into())
            }
            Self::Storage { source, .. } => io_advice(source),
            Self::Journal(error) => io_advice(error.io_error()),
            Self::Log(_) | Self::Encode(_) | Self::Interrupted => None,
        }
    }
}
