//! Where inputs come from, and the trait of what fetches and measures them.

use std::path::PathBuf;

use async_trait::async_trait;

use crate::error::Error;
use crate::event::Pin;
use crate::progress::Progress;
use crate::spec::InputSpec;
use crate::tree::Tree;

/// An error of an [`InputSource`].
pub type InputError = Error<InputErrorKind>;

/// What went wrong with an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InputErrorKind {
    /// It is not there: no such repository, tag, commit, file or URL.
    NotFound,
    /// Access needs credentials, or those given do not suffice.
    PermissionDenied,
    /// What was measured is not what was asked for.
    Mismatch,
    /// A path, link or special file that cannot be measured or would leave the workspace.
    Refused,
    /// The other side could not be reached, or broke off more often than we try again.
    Network,
    /// Local storage failed: disk full, no permission, a short read, a file that changed while it was read.
    Storage,
    /// The configuration of the input makes no sense to its source.
    Configuration,
}

/// What to fetch, and where to put it.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// The input as it is configured.
    pub spec: InputSpec,
    /// The path to create: a directory for sources that deliver trees, a file for those that deliver one file. It does
    /// not exist; its parent does, and nobody but aicert can write there.
    pub target: PathBuf,
    /// Where to report bytes, with [`crate::progress::Step::Fetch`] and the input's name as subject.
    pub progress: Progress,
}

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedInput {
    /// Where it came from, without credentials.
    pub origin: String,
    /// What the configuration asked for, in the order of the configuration.
    pub requested: Vec<Pin>,
    /// What that turned out to be.
    pub resolved: Vec<Pin>,
    /// The files at the target, measured while they were written there. A single file is a tree with one entry, whose
    /// path is the target's file name.
    pub tree: Tree,
}

/// What a source offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputCapabilities {
    /// The value of `type` in the configuration that this source serves.
    pub kind: &'static str,
    /// Whether a fetch that broke off continues where it stopped.
    pub resumes: bool,
    /// Whether private sources can be fetched with credentials.
    pub authenticates: bool,
}

/// A place that inputs come from.
///
/// # Contract
///
/// *Implemented by* crates for a kind of source. *Called by* the pipeline, once for each configured input of the
/// source's kind; calls may run at the same time with different targets.
///
/// * What is measured is what is at `target` when `fetch` returns: hashed from the bytes written, never from a place
///   that others can change afterwards.
/// * A pin of an exact kind (commit, sha256) that was asked for and differs from what was found is
///   [`InputErrorKind::Mismatch`]; nothing remains at `target`.
/// * On any error, nothing remains at `target`.
/// * If the future is dropped, work stops at the next read or write; the caller removes the workspace.
/// * Symbolic links that leave the tree, FIFOs, sockets, devices and names that are not UTF-8 are refused by name.
/// * Credentials appear neither in `origin`, nor in errors, progress, process arguments or files.
#[async_trait]
pub trait InputSource: Send + Sync {
    /// What this source offers.
    fn capabilities(&self) -> &InputCapabilities;

    /// Fetches and measures an input.
    async fn fetch(&self, request: FetchRequest) -> Result<FetchedInput, InputError>;
}
