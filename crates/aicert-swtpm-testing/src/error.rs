//! What can fail here, and how it is told outside.

use std::io;
use std::path::PathBuf;

use aicert_core::tpm::{TpmError, TpmErrorKind};

/// A failure to run or use a software TPM, or of the test CA.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("`{program}` could not be started")]
    NotInstalled {
        program: &'static str,
        source: io::Error,
    },
    #[error("swtpm did not start: {reason}")]
    DidNotStart { reason: String },
    #[error("no two free neighbouring ports were found for swtpm in {attempts} attempts")]
    NoPorts { attempts: u32 },
    #[error("the directory {} of a software TPM cannot be used: {source}", .path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("the software TPM did not answer: {source}")]
    Conversation { source: io::Error },
    #[error("the software TPM answered {operation} with {code:#x}")]
    Refused { operation: &'static str, code: u32 },
    #[error("{operation} failed: {source}")]
    Tss {
        operation: &'static str,
        source: tss_esapi::Error,
    },
    #[error("the CA refused to certify the key: {reason}")]
    NotCertified { reason: String },
    #[error("the test CA could not make a certificate: {reason}")]
    Certificate { reason: String },
}

impl Failure {
    /// For `map_err`: names the operation that the error belongs to.
    pub(crate) fn of(operation: &'static str) -> impl Fn(tss_esapi::Error) -> Self {
        move |source| Self::Tss { operation, source }
    }

    pub(crate) fn certificate(reason: impl ToString) -> Self {
        Self::Certificate {
            reason: reason.to_string(),
        }
    }
}

impl From<Failure> for TpmError {
    fn from(failure: Failure) -> Self {
        let message = failure.to_string();
        match failure {
            Failure::NotInstalled { source, .. } => Self::new(TpmErrorKind::Absent, message)
                .with_advice("install swtpm (Debian and Ubuntu: `apt-get install swtpm`)")
                .with_source(source),
            Failure::Directory { source, .. } => Self::new(TpmErrorKind::Failed, message)
                .with_advice("give a directory that does not exist yet, in one that this user may write to")
                .with_source(source),
            Failure::Conversation { source } => Self::new(TpmErrorKind::Failed, message).with_source(source),
            Failure::Tss { source, .. } => Self::new(TpmErrorKind::Failed, message).with_source(source),
            Failure::NoPorts { .. } => Self::new(TpmErrorKind::Failed, message)
                .with_advice("end some programs that listen on ports of 127.0.0.1 between 20000 and 32000"),
            Failure::DidNotStart { .. }
            | Failure::Refused { .. }
            | Failure::NotCertified { .. }
            | Failure::Certificate { .. } => Self::new(TpmErrorKind::Failed, message),
        }
    }
}
