//! Step 8: are the files on disk those that were measured?

use std::cmp::Ordering;
#[cfg(feature = "outputs")]
use std::path::Path;

use aicert_core::certificate::Certificate;
use aicert_core::digest::TreeRoot;
use aicert_core::manifest::Manifest;
use aicert_core::tree::{Entry, Tree};

use crate::error::{Failure, Rejection, faults};
use crate::verified::Verified;

/// More differences than these are only counted.
pub const DIFFERENCE_LIMIT: usize = 50;

faults! {
    /// Says how files differ from the outputs that were measured.
    enum OutputFault {
        /// A file is not there.
        Missing {
            /// Where it should be.
            path: String,
            /// What should be there.
            expected: String,
        } => File, "{path:?} is missing; expected {expected}", "get the outputs again from whoever published them";
        /// A file is there that was not measured.
        Unexpected {
            /// Where it is.
            path: String,
            /// What it is.
            found: String,
        } => File, "{path:?} is {found}; it is not among the outputs that were measured", "use a folder that holds the outputs and nothing else, or do not use that file";
        /// A file is another than the one that was measured.
        Changed {
            /// Where it is.
            path: String,
            /// What was measured.
            expected: String,
            /// What is there.
            found: String,
        } => File, "{path:?} is {found}; expected {expected}", "do not use this file: it is not what the certified job made";
        /// The whole differs, and there is no listing that would say where.
        Root {
            /// The root that was measured.
            expected: TreeRoot,
            /// The root of what is there.
            found: TreeRoot,
            /// How many files were measured.
            expected_files: u64,
            /// How many are there.
            found_files: u64,
        } => File, "the {found_files} files have the root {found}; the {expected_files} that were measured have {expected}", "there are too many outputs to be listed in the proof: the manifest beside it (<proof>.manifest) says which of them differ";
        /// There are more differences.
        More {
            /// How many.
            found: usize,
        } => File, "{found} more files differ", "get the outputs again from whoever published them";
        /// The folder cannot be measured.
        NotMeasured {
            /// Why.
            reason: String,
        } => Verifier, "the outputs cannot be measured: {reason}", "give the folder that holds the outputs, readable, and with nothing in it that is being written to";
    }
}

fn describe(entry: &Entry) -> String {
    match entry {
        Entry::File { size, hash, .. } => format!("a file of {size} bytes with {hash}"),
        Entry::Executable { size, hash, .. } => format!("an executable file of {size} bytes with {hash}"),
        Entry::Symlink { target, .. } => format!("a symbolic link to {target:?}"),
        other => format!("{other:?}"),
    }
}

/// The differences between two sorted listings.
fn differences(expected: &[Entry], found: &[Entry]) -> Vec<OutputFault> {
    let (mut expected, mut found) = (expected.iter().peekable(), found.iter().peekable());
    let mut faults = Vec::new();
    loop {
        let order = match (expected.peek(), found.peek()) {
            (None, None) => return faults,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(expected), Some(found)) => expected.path().cmp(found.path()),
        };
        let left = (order != Ordering::Greater).then(|| expected.next()).flatten();
        let right = (order != Ordering::Less).then(|| found.next()).flatten();
        match (left, right) {
            (Some(expected), Some(found)) if expected != found => faults.push(OutputFault::Changed {
                path: expected.path().to_string(),
                expected: describe(expected),
                found: describe(found),
            }),
            (Some(expected), None) => {
                faults.push(OutputFault::Missing {
                    path: expected.path().to_string(),
                    expected: describe(expected),
                });
            }
            (None, Some(found)) => {
                faults.push(OutputFault::Unexpected {
                    path: found.path().to_string(),
                    found: describe(found),
                });
            }
            _ => {}
        }
    }
}

impl Verified<Certificate> {
    /// Compares files that were measured just now with the outputs of the job.
    ///
    /// More than [`aicert_core::tree::LISTING_LIMIT`] outputs are not listed in a proof: they are compared as a whole,
    /// by the root over them. To be told which of them differ, give the manifest that was published beside the proof; it
    /// needs no trust of its own.
    ///
    /// # Errors
    ///
    /// Every difference; after [`DIFFERENCE_LIMIT`] they are only counted.
    pub fn check_output_tree(&self, found: &Tree, manifest: Option<&Manifest>) -> Result<(), Rejection> {
        let measured = &self.log().outputs.tree;
        if measured.check(found).is_ok() {
            return Ok(());
        }
        let listed = manifest
            .and_then(|manifest| manifest.find(&measured.root))
            .map(Tree::entries);
        let mut faults = match measured.listing.as_deref().or(listed) {
            Some(expected) => differences(expected, found.entries()),
            None => Vec::new(),
        };
        if faults.is_empty() {
            faults.push(OutputFault::Root {
                expected: measured.root,
                found: found.root(),
                expected_files: measured.files,
                found_files: found.entries().len() as u64,
            });
        }
        if faults.len() > DIFFERENCE_LIMIT {
            let more = faults.len() - DIFFERENCE_LIMIT;
            faults.truncate(DIFFERENCE_LIMIT);
            faults.push(OutputFault::More { found: more });
        }
        Rejection::unless_empty(faults.into_iter().map(Failure::from).collect())
    }

    /// Hashes a directory and compares it with the outputs of the job: see [`Verified::check_output_tree`].
    ///
    /// `options` say whom to report to, and how to cancel; files with several names are fine here
    /// ([`aicert_core::measure::HardLinks::Accept`]).
    ///
    /// # Errors
    ///
    /// Every difference, or why the directory cannot be measured.
    #[cfg(feature = "outputs")]
    pub fn check_outputs(
        &self,
        directory: &Path,
        manifest: Option<&Manifest>,
        options: &aicert_core::measure::Options<'_>,
    ) -> Result<(), Rejection> {
        let found = aicert_core::measure::measure(directory, options).map_err(|error| {
            Rejection::from(Failure::from(OutputFault::NotMeasured {
                reason: error.to_string(),
            }))
        })?;
        self.check_output_tree(&found, manifest)
    }
}
