//! Step 8: is an input the one that the end user has in mind?

use std::fmt;
use std::str::FromStr;

use aicert_core::certificate::Certificate;
use aicert_core::digest::{CommitId, FileDigest, TreeRoot};
use aicert_core::event::{InputMeasured, PinKind};

use crate::error::{Failure, Rejection, faults};
use crate::verified::Verified;

faults! {
    /// Says why an input is not the one that was asked about.
    enum InputFault {
        /// There is no input of that name.
        Unknown {
            /// The name that was asked about.
            name: String,
            /// The names that there are.
            found: String,
        } => Verifier, "the job had no input {name:?}; its inputs are {found}", "ask about one of these names";
        /// What was asked is no hash.
        NotAHash {
            /// What was given.
            found: String,
        } => Verifier, "{found:?} is no hash: expected `sha1:` with 40 hexadecimal digits (a git commit), `sha256:` with 64 (a file), the digits alone, or `tree:sha256:` with 64 (the root of a tree)", "give the commit or hash in one of these forms";
        /// What was given is the root of the input's tree, and was given as the hash of a file.
        RootOfTree {
            /// Its name.
            name: String,
            /// What was asked about.
            found: String,
        } => Verifier, "{found} is the root over the files of input {name:?}, not the SHA-256 of one file: somebody could make a file that has it", "if you mean the root, say `tree:{found}`";
        /// The input is another.
        Differs {
            /// Its name.
            name: String,
            /// What was asked about.
            expected: String,
            /// What it is known by.
            found: String,
        } => Builder, "input {name:?} is not {expected}; it is {found}", "the model was made from something else than you asked about";
    }
}

/// A hash that an input can be known by.
///
/// The hash of a file and the root of a tree are told apart by whoever asks: what is hashed for a root is bytes that a
/// file can hold as well, so that a file of 65 bytes can be made whose SHA-256 is the root of any tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InputHash {
    /// A git commit.
    Commit(CommitId),
    /// The SHA-256 of the only file.
    File(FileDigest),
    /// The root of the tree.
    Tree(TreeRoot),
}

impl FromStr for InputHash {
    type Err = InputFault;

    /// Reads `sha1:…` (a commit), `sha256:…` (a file), the hexadecimal digits of either alone, or `tree:sha256:…`, in
    /// either case.
    fn from_str(text: &str) -> Result<Self, InputFault> {
        Self::parse(text).ok_or_else(|| InputFault::NotAHash {
            found: text.chars().take(100).collect(),
        })
    }
}

impl fmt::Display for InputHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commit(commit) => commit.fmt(f),
            Self::File(hash) => hash.fmt(f),
            Self::Tree(root) => write!(f, "tree:{root}"),
        }
    }
}

impl InputHash {
    fn parse(text: &str) -> Option<Self> {
        let lower = text.trim().to_ascii_lowercase();
        if let Some(root) = lower.strip_prefix("tree:") {
            let digits = root.strip_prefix("sha256:").unwrap_or(root);
            return format!("sha256:{digits}").parse().map(Self::Tree).ok();
        }
        let sha256 = lower.strip_prefix("sha256:").unwrap_or(&lower);
        let sha1 = lower.strip_prefix("sha1:").unwrap_or(&lower);
        let commit = format!("sha1:{sha1}").parse().map(Self::Commit);
        commit
            .or_else(|_| format!("sha256:{sha256}").parse().map(Self::File))
            .ok()
    }

    /// Whether it is what `input` is known by.
    pub(crate) fn is_of(&self, input: &InputMeasured) -> bool {
        names(input).contains(&self.name())
    }

    /// The kind of name, and the name.
    fn name(&self) -> (&'static str, String) {
        match self {
            Self::Commit(commit) => ("commit", commit.to_string()),
            Self::File(hash) => ("file", hash.to_string()),
            Self::Tree(root) => ("tree", root.to_string()),
        }
    }
}

/// Everything that an input is known by, for people; text from the log is shown escaped.
pub(crate) fn known_as(input: &InputMeasured) -> String {
    names(input)
        .iter()
        .map(|(kind, known)| format!("{kind} {}", known.escape_debug()))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Everything that an input is known by: its commit, the hash of its only file, the root of its tree.
fn names(input: &InputMeasured) -> Vec<(&'static str, String)> {
    let commits = input
        .resolved
        .iter()
        .filter(|pin| pin.kind == PinKind::Commit)
        .map(|pin| ("commit", pin.value.clone()));
    let file = match input.tree.listing.as_deref() {
        Some([only]) => only.hash(),
        _ => None,
    };
    commits
        .chain(file.map(|hash| ("file", hash.to_string())))
        .chain([("tree", input.tree.root.to_string())])
        .collect()
}

impl Verified<Certificate> {
    /// Checks that the input `name` is the one known by `hash`: a git commit (`sha1:…`), the hash of a single file
    /// (`sha256:…`), the hexadecimal digits of either alone, or the root of a tree (`tree:sha256:…`).
    ///
    /// # Errors
    ///
    /// When it is not, when there is no such input, or when `hash` is none.
    pub fn check_input(&self, name: &str, hash: &str) -> Result<(), Rejection> {
        let log = self.log();
        let fault = |fault: InputFault| Err(Failure::from(fault).into());
        let asked = hash.parse::<InputHash>().map_err(Failure::from)?;
        let Some(input) = log.inputs.iter().find(|input| input.name == name) else {
            let found = log
                .inputs
                .iter()
                .map(|input| format!("{:?}", input.name))
                .collect::<Vec<_>>()
                .join(", ");
            return fault(InputFault::Unknown {
                name: name.chars().take(100).collect(),
                found,
            });
        };
        let (kind, expected) = asked.name();
        if asked.is_of(input) {
            return Ok(());
        }
        if kind == "file" && expected == input.tree.root.to_string() {
            return fault(InputFault::RootOfTree {
                name: name.to_owned(),
                found: expected,
            });
        }
        fault(InputFault::Differs {
            name: name.to_owned(),
            expected: format!("{kind} {expected}"),
            found: known_as(input),
        })
    }
}
