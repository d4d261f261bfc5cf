//! What can go wrong here, and how it is told to people.

use std::io;
use std::path::{Path, PathBuf};

use aicert_core::runtime::{RuntimeError, RuntimeErrorKind};
use bollard::errors::Error as ApiError;

/// An error of this crate; at the boundary it becomes a [`RuntimeError`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The engine answered with an error, or not at all.
    #[error("cannot {doing}: {}", innermost(source))]
    Api { doing: String, source: ApiError },
    /// A file could not be read or written.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Anything else, in words.
    #[error("{message}")]
    Told {
        kind: RuntimeErrorKind,
        message: String,
        advice: String,
    },
}

impl Fault {
    pub(crate) fn told(
        kind: RuntimeErrorKind,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::Told {
            kind,
            message: message.into(),
            advice: advice.into(),
        }
    }

    pub(crate) fn file(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File {
            doing,
            path: path.to_owned(),
            source,
        }
    }

    /// The status that the engine answered with.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Api {
                source: ApiError::DockerResponseServerError { status_code, .. },
                ..
            } => Some(*status_code),
            _ => None,
        }
    }
}

/// Says what was being done when the engine failed.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl Into<String>) -> Result<T, Fault>;
}

impl<T> Doing<T> for Result<T, ApiError> {
    fn doing(self, what: impl Into<String>) -> Result<T, Fault> {
        self.map_err(|source| Fault::Api {
            doing: what.into(),
            source,
        })
    }
}

impl From<Fault> for RuntimeError {
    fn from(fault: Fault) -> Self {
        let message = fault.to_string();
        match fault {
            Fault::Told { kind, advice, .. } => Self::new(kind, message).with_advice(advice),
            Fault::File { source, .. } => {
                let advice = match source.kind() {
                    io::ErrorKind::StorageFull => "free some space on this disk and try again",
                    io::ErrorKind::PermissionDenied => "check who owns this path",
                    _ => "check this path and its disk",
                };
                Self::new(RuntimeErrorKind::Storage, message)
                    .with_advice(advice)
                    .with_source(source)
            }
            Fault::Api { source, .. } => from_api(message, source),
        }
    }
}

fn from_api(message: String, source: ApiError) -> RuntimeError {
    let error = |kind| RuntimeError::new(kind, message.clone());
    if let Some(connection) = io_cause(&source) {
        return unreachable_engine(message.clone(), connection.kind()).with_source(source);
    }
    match &source {
        ApiError::RequestTimeoutError => error(RuntimeErrorKind::Unavailable)
            .with_advice("the Docker engine does not answer; look at its log (`sudo journalctl -u docker`) or restart it")
            .retryable(),
        ApiError::DockerResponseServerError { message: said, .. } if said.contains("no space left on device") => {
            error(RuntimeErrorKind::Storage)
                .with_advice("the disk of the Docker engine is full; `docker system df` shows what takes the space")
        }
        ApiError::DockerResponseServerError { message: said, .. }
            if said.contains("could not select device driver") || said.contains("nvidia-container-cli") =>
        {
            error(RuntimeErrorKind::Unsupported).with_advice(
                "the Docker engine cannot give GPUs to containers: install nvidia-container-toolkit, run \
                 `sudo nvidia-ctk runtime configure --runtime=docker` and restart Docker",
            )
        }
        ApiError::DockerResponseServerError { status_code: 404, .. } => error(RuntimeErrorKind::NotFound),
        _ => error(RuntimeErrorKind::Failed),
    }
    .with_source(source)
}

/// The error for an engine whose socket does not answer.
pub(crate) fn unreachable_engine(message: String, kind: io::ErrorKind) -> RuntimeError {
    match kind {
        io::ErrorKind::PermissionDenied => RuntimeError::new(RuntimeErrorKind::PermissionDenied, message).with_advice(
            "you may not use the Docker engine: `sudo usermod -aG docker $USER`, then log in again (members of the \
             group docker can become root on this machine), or run aicert with sudo",
        ),
        io::ErrorKind::NotFound => RuntimeError::new(RuntimeErrorKind::Unavailable, message).with_advice(
            "Docker is not running or not installed: `sudo service docker start`, or `sudo apt-get install docker.io`; \
             set DOCKER_HOST if its socket is elsewhere",
        ),
        _ => RuntimeError::new(RuntimeErrorKind::Unavailable, message)
            .with_advice("Docker is not running: `sudo service docker start`")
            .retryable(),
    }
}

/// The innermost cause says what happened; the outer ones only where.
fn innermost(error: &ApiError) -> String {
    if let ApiError::DockerResponseServerError { message, .. } = error {
        return message.trim().to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn io_cause(error: &ApiError) -> Option<&io::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}
