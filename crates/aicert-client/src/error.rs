//! What can go wrong between a client and a machine.

use std::error::Error as StdError;
use std::io;
use std::iter;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use aicert_core::api::{Problem, ProblemCode};
use aicert_core::config::ConfigError;
use aicert_core::digest::{FileDigest, TlsKeyDigest};
use aicert_core::measure::MeasureError;
use aicert_core::text::printable;
use aicert_verify::Rejection;

/// How many characters of an answer are shown.
const SHOWN: usize = 300;

/// How many lines are shown of what is wrong with a configuration, and how many characters of each: a machine names up to a
/// hundred problems with some lines each, and lines of up to 400 bytes.
const SHOWN_LINES: usize = 500;
const SHOWN_LINE: usize = 600;

/// Says what went wrong, for programs by its variant, for people in a sentence and with [`ClientError::advice`]. What a server
/// said is shown escaped, so that no answer can fool a terminal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nothing answers there, or not yet: a machine that boots looks like this. Trying again later may help.
    #[error("nothing answers at {endpoint} yet: {reason}")]
    NotYet {
        /// Where.
        endpoint: SocketAddr,
        /// What was seen.
        reason: String,
    },
    /// The attested machine does not answer any more.
    #[error("the machine at {endpoint} does not answer: {reason}")]
    Unreachable {
        /// Where.
        endpoint: SocketAddr,
        /// What was seen.
        reason: String,
    },
    /// The machine did not say that a job is removed.
    #[error("the machine at {endpoint} did not say that the job is removed: {reason}")]
    NotRemoved {
        /// Where.
        endpoint: SocketAddr,
        /// What was seen.
        reason: String,
    },
    /// The machine serves somebody else.
    #[error("the machine serves another client: {}", printable(&problem.message, SHOWN))]
    Unauthorized {
        /// What it said.
        problem: Problem,
    },
    /// The machine is not to be trusted. Nothing was sent to it.
    #[error("the machine is refused, and nothing was sent to it: {0}")]
    Rejected(#[source] Rejection),
    /// A proof is not from the machine that was attested.
    #[error("the proof is not of the job that was sent: {0}")]
    OtherMachine(#[source] Rejection),
    /// Who answers has another key than when the machine was attested. Nothing was sent over that connection.
    #[error(
        "the server at {endpoint} has the TLS key {found}, and had {expected} when it was attested: the machine was restarted, or \
         somebody stands in between"
    )]
    Changed {
        /// Where.
        endpoint: SocketAddr,
        /// The key that was attested.
        expected: TlsKeyDigest,
        /// The key that the connection was served with.
        found: TlsKeyDigest,
    },
    /// The server refuses the request, and says why.
    #[error("{request}: {}", shown(problem))]
    Problem {
        /// What was asked.
        request: String,
        /// The status of the answer.
        status: u16,
        /// What it said.
        problem: Problem,
    },
    /// The answer is none that a server of aicert gives.
    #[error("{request}: expected {expected}, found {found}")]
    Protocol {
        /// What was asked.
        request: String,
        /// What would have been right.
        expected: String,
        /// What came.
        found: String,
    },
    /// Other bytes came than the proof says.
    #[error("the output {path:?} that arrived is {found}; the proof says {expected}")]
    OtherBytes {
        /// Which file.
        path: String,
        /// Its digest in the proof.
        expected: FileDigest,
        /// The digest of what arrived.
        found: FileDigest,
    },
    /// A file or folder of this computer could not be read or written.
    #[error("could not {action} {path:?}: {}", explain(source))]
    Storage {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The configuration is not right.
    #[error("{0}")]
    Configuration(#[source] ConfigError),
    /// An input of this computer cannot be sent.
    #[error("input {name:?}: {message}")]
    Input {
        /// Its name in the configuration.
        name: String,
        /// What is wrong.
        message: String,
        /// What to do.
        advice: String,
    },
    /// What was given to the client is not usable.
    #[error("{message}")]
    Usage {
        /// What, and why.
        message: String,
        /// What to do.
        advice: &'static str,
    },
}

impl ClientError {
    /// What to do about it.
    pub fn advice(&self) -> Option<String> {
        Some(
            match self {
                Self::NotYet { .. } => "wait while the machine boots; its console says what it does",
                Self::Unreachable { .. } => {
                    "check the connection and that the machine still runs; the job goes on without a client, and can be attached to"
                }
                Self::NotRemoved { .. } => {
                    "destroy the machine at its provider: everything of the job ends with it"
                }
                Self::Unauthorized { problem } | Self::Problem { problem, .. } => {
                    return problem.advice.as_ref().map(|advice| printable(advice, SHOWN));
                }
                // Each of its failures has its own.
                Self::Rejected(_) | Self::OtherMachine(_) | Self::Configuration(_) => return None,
                Self::Changed { .. } => {
                    "if the machine was restarted, its job and everything on it is gone: start another; otherwise use another network"
                }
                Self::Protocol { .. } => {
                    "check that the address is that of the machine; otherwise this is a fault in aicert: report it"
                }
                Self::OtherBytes { .. } => {
                    "do not use this file: the machine sends something else than what it measured; report the case"
                }
                Self::Storage { source, .. } => return storage_advice(source).map(str::to_owned),
                Self::Input { advice, .. } => return Some(advice.clone()),
                Self::Usage { advice, .. } => advice,
            }
            .to_owned(),
        )
    }

    /// Whether the same request may succeed a moment later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotYet { .. } | Self::Unreachable { .. } => true,
            Self::Problem { problem, .. } => problem.code == ProblemCode::Busy,
            _ => false,
        }
    }

    pub(crate) fn storage(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Storage {
            action,
            path: path.to_owned(),
            source: source.into(),
        }
    }

    pub(crate) fn protocol(
        request: impl Into<String>,
        expected: impl Into<String>,
        found: impl AsRef<str>,
    ) -> Self {
        Self::Protocol {
            request: request.into(),
            expected: expected.into(),
            found: printable(found.as_ref(), SHOWN),
        }
    }

    pub(crate) fn input(name: &str, error: &MeasureError) -> Self {
        Self::Input {
            name: name.to_owned(),
            message: error.to_string(),
            advice: error
                .advice()
                .unwrap_or("check the folder, and try again")
                .to_owned(),
        }
    }
}

/// What a server said. What is wrong with a configuration is said in several lines, which are the shape of it.
fn shown(problem: &Problem) -> String {
    if problem.code != ProblemCode::Configuration {
        return printable(&problem.message, SHOWN);
    }
    let lines = problem.message.lines().take(SHOWN_LINES);
    let lines = lines.map(|line| format!("\n{}", printable(line, SHOWN_LINE)));
    iter::once("the configuration is refused".to_owned())
        .chain(lines)
        .collect()
}

/// What the operating system said, with what users can do something about in plain words.
fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull => "the disk is full".into(),
        io::ErrorKind::QuotaExceeded => "the disk quota is used up".into(),
        io::ErrorKind::PermissionDenied => "no permission".into(),
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".into(),
        io::ErrorKind::NotFound => "it does not exist".into(),
        io::ErrorKind::AlreadyExists => "it exists already".into(),
        io::ErrorKind::NotADirectory => "it is not a directory".into(),
        io::ErrorKind::FileTooLarge => "the file system holds no files of that size".into(),
        _ => error.to_string(),
    }
}

fn storage_advice(error: &io::Error) -> Option<&'static str> {
    Some(match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space and try again: what has arrived is kept; or choose a place on a larger disk"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "choose a place where you may write"
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "check the path",
        io::ErrorKind::AlreadyExists => "choose a place where there is nothing yet",
        _ => return None,
    })
}

/// An error with everything that caused it, in one line.
pub(crate) fn with_causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Libraries repeat what their causes say.
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    // And they point programmers to their documentation.
    let said = text.split(": https://docs.rs/").next().unwrap_or_default();
    printable(said, SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_for_people() {
        let cause = "peer closed the connection: https://docs.rs/rustls/latest/rustls/manual/index.html#x";
        let inner = io::Error::other(io::Error::other(cause));
        let error = ClientError::storage("read", Path::new("/x"), inner);
        let text = with_causes(&error);
        assert!(text.ends_with("peer closed the connection"), "{text}");
    }

    fn refused(code: ProblemCode, message: String) -> String {
        let error = ClientError::Problem {
            request: "POST /v1/jobs".into(),
            status: 422,
            problem: Problem {
                code,
                message,
                advice: None,
            },
        };
        error.to_string()
    }

    #[test]
    fn what_is_wrong_with_a_configuration_keeps_its_shape() {
        let rendered = "aicert.yaml:5:16: no\n  |\n5 | packageIndex: {url: x}\n  |                ^^^\n";
        let text = refused(
            ProblemCode::Configuration,
            format!("{rendered}\u{1b}[2J{}", "x".repeat(900)),
        );
        assert!(text.contains(&format!("refused\n{rendered}")), "{text}");
        assert!(
            !text.contains('\u{1b}') && text.contains("\\u{1b}[2J") && text.ends_with("x…"),
            "{text}"
        );
        assert!(refused(ProblemCode::Configuration, "x\n".repeat(5000)).len() < 2000);
        // Nothing else has lines.
        assert_eq!(
            refused(ProblemCode::Failed, "a\nb".into()),
            "POST /v1/jobs: a\\u{a}b"
        );
    }
}
