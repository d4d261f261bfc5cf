//! Why a directory cannot be measured.

use std::io;
use std::path::{Path, PathBuf};

use crate::tree::TreeError;

/// Says why a file or directory cannot be measured. Paths are shown escaped, so that no name can fool a terminal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// The operating system failed.
    #[error("could not {action} {path:?}: {}", explain(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Neither a file, nor a directory, nor a symbolic link.
    #[error("{path:?} is {kind}: expected a file, a directory or a symbolic link")]
    Special {
        /// Where it is.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A file has several names.
    #[error("{path:?} has {links} hard links: it could be changed under another name")]
    HardLink {
        /// The file.
        path: PathBuf,
        /// How many names it has.
        links: u64,
    },
    /// A name cannot be recorded.
    #[error("the name {path:?} is not UTF-8")]
    Name {
        /// The file.
        path: PathBuf,
    },
    /// There are too many levels.
    #[error("{path:?} is more than {} levels deep", super::MAX_DEPTH)]
    TooDeep {
        /// The directory.
        path: PathBuf,
    },
    /// Something else is mounted there.
    #[error("{path:?} is on another file system than the directory that is measured")]
    OtherFileSystem {
        /// The directory.
        path: PathBuf,
    },
    /// A file, link or directory changed.
    #[error("{path:?} changed while it was measured: {what}")]
    Changed {
        /// Where.
        path: PathBuf,
        /// How.
        what: &'static str,
    },
    /// A path or link is refused, or the listing as a whole.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The caller gave up.
    #[error("measuring was cancelled")]
    Cancelled,
}

impl MeasureError {
    pub(super) fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source: source.into(),
        }
    }

    /// Whether it is what is there that cannot be measured, rather than the machine that failed.
    pub fn is_refusal(&self) -> bool {
        !matches!(self, Self::Io { .. } | Self::Changed { .. } | Self::Cancelled)
    }

    /// What the user can do.
    pub fn advice(&self) -> Option<&'static str> {
        Some(match self {
            Self::Io { source, .. } => return io_advice(source),
            Self::Special { .. } => "remove it, or keep it outside the measured folder",
            Self::HardLink { .. } => {
                "replace it with a copy (`cp --remove-destination`), or a symbolic link inside the folder"
            }
            Self::Name { .. } | Self::Tree(TreeError::Path { .. }) => {
                "rename it: relative names in UTF-8 without control characters can be recorded"
            }
            Self::Tree(TreeError::Link { .. }) => "replace the link with a copy of what it points to",
            Self::TooDeep { .. } => "flatten the folder",
            Self::OtherFileSystem { .. } => "unmount it, or name that folder as an input of its own",
            Self::Changed { .. } => "let whatever writes to the folder finish, and try again",
            Self::Tree(_) | Self::Cancelled => return None,
        })
    }
}

/// What the operating system said, with the two causes that users can do something about in plain words.
fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull => "the disk is full".into(),
        io::ErrorKind::QuotaExceeded => "the disk quota is used up".into(),
        io::ErrorKind::PermissionDenied => "no permission".into(),
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".into(),
        io::ErrorKind::NotFound => "it does not exist".into(),
        io::ErrorKind::NotADirectory => "it is not a directory".into(),
        _ => error.to_string(),
    }
}

fn io_advice(error: &io::Error) -> Option<&'static str> {
    Some(match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space, or choose a place on a larger disk"
        }
        io::ErrorKind::PermissionDenied => "run as a user who may read it, or change its permissions",
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "check the path",
        _ => return None,
    })
}

#[cfg(feature = "pipeline")]
impl From<MeasureError> for crate::input::InputError {
    fn from(error: MeasureError) -> Self {
        use crate::input::InputErrorKind as Kind;
        let kind = match &error {
            MeasureError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Kind::NotFound,
            MeasureError::Io { source, .. } if source.kind() == io::ErrorKind::NotADirectory => {
                Kind::Configuration
            }
            refused if refused.is_refusal() => Kind::Refused,
            _ => Kind::Storage,
        };
        let converted = Self::new(kind, error.to_string());
        match error.advice() {
            Some(advice) => converted.with_advice(advice),
            None => converted,
        }
        .with_source(error)
    }
}
