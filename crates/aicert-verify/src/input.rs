//! Step 8: is an input the one that the end user has in mind?

use aicert_core::certificate::Certificate;
use aicert_core::digest::{CommitId, FileDigest};
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
        } => Verifier, "{found:?} is no hash: expected `sha1:` with 40 hexadecimal digits (a git commit), `sha256:` with 64 (a file, or the root of a tree), or the digits alone", "give the commit or hash in one of these forms";
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
enum Asked {
    Commit(CommitId),
    Sha256(FileDigest),
}

impl Asked {
    fn parse(text: &str) -> Option<Self> {
        let lower = text.trim().to_ascii_lowercase();
        let sha256 = lower.strip_prefix("sha256:").unwrap_or(&lower);
        let sha1 = lower.strip_prefix("sha1:").unwrap_or(&lower);
        let commit = format!("sha1:{sha1}").parse().map(Self::Commit);
        commit
            .or_else(|_| format!("sha256:{sha256}").parse().map(Self::Sha256))
            .ok()
    }
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
    /// Checks that the input `name` is the one known by `hash`: a git commit (`sha1:…`), the hash of a single file or the
    /// root of a tree (`sha256:…`), or the hexadecimal digits alone.
    ///
    /// # Errors
    ///
    /// When it is not, when there is no such input, or when `hash` is none.
    pub fn check_input(&self, name: &str, hash: &str) -> Result<(), Rejection> {
        let log = self.log();
        let fault = |fault: InputFault| Err(Failure::from(fault).into());
        let Some(asked) = Asked::parse(hash) else {
            return fault(InputFault::NotAHash {
                found: hash.chars().take(100).collect(),
            });
        };
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
        let expected = match asked {
            Asked::Commit(commit) => commit.to_string(),
            Asked::Sha256(hash) => hash.to_string(),
        };
        let names = names(input);
        if names.iter().any(|(_, known)| *known == expected) {
            return Ok(());
        }
        // Pins are text from the log: shown escaped.
        let found = names
            .iter()
            .map(|(kind, known)| format!("{kind} {}", known.escape_debug()))
            .collect::<Vec<_>>()
            .join(", ");
        fault(InputFault::Differs {
            name: name.to_owned(),
            expected,
            found,
        })
    }
}
