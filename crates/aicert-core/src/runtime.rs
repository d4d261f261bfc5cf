//! Container engines: resolving and building an image, and running the job in it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;

use crate::digest::ImageDigest;
use crate::error::Error;
use crate::event::{ExecutionOutcome, Gpu, Package, Variable};
use crate::progress::Progress;
use crate::spec::{GpuRequest, ImageSpec, PackageIndex};

/// An error of a [`Runtime`].
pub type RuntimeError = Error<RuntimeErrorKind>;

/// What went wrong with a runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuntimeErrorKind {
    /// The engine is not running or cannot be reached.
    Unavailable,
    /// The caller may not use the engine.
    PermissionDenied,
    /// An image, package or GPU that was asked for is not there.
    NotFound,
    /// The engine cannot do what was asked.
    Unsupported,
    /// Dependencies could not be resolved, or not be installed.
    Dependencies,
    /// Local storage failed: disk full, no permission.
    Storage,
    /// The engine answered with an error.
    Failed,
}

/// Names one job of one machine: lowercase letters, digits and `-`, at most 40.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(String);

/// Says that a text is no job id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a job id: expected 1 to 40 lowercase letters, digits and `-`")]
pub struct ParseJobIdError(String);

impl JobId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for JobId {
    type Err = ParseJobIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = matches!(text.len(), 1..=40)
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(ParseJobIdError(text.chars().take(60).collect()))
        }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an engine can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeCapabilities {
    /// Whether GPUs can be given to a job.
    pub gpus: bool,
    /// Whether Python dependencies can be resolved and installed.
    pub python: bool,
}

/// An image that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// The reference that was asked for.
    pub requested: String,
    /// The digest that names it from now on; the engine finds it by this digest alone.
    pub digest: ImageDigest,
}

/// What is to be downloaded.
#[derive(Debug, Clone)]
pub struct DependencyRequest {
    /// The job that it is done for.
    pub job: JobId,
    /// The image that the packages must fit.
    pub image: ResolvedImage,
    /// The file that names them.
    pub requirements: PathBuf,
    /// Where they come from.
    pub index: PackageIndex,
    /// An existing, empty directory to download them to.
    pub into: PathBuf,
    /// Where to report, with [`crate::progress::Step::Dependencies`].
    pub progress: Progress,
}

/// What is to be built.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The job that it is done for.
    pub job: JobId,
    /// The image to start from.
    pub image: ResolvedImage,
    /// The packages to install, from `packages_dir`, each checked against its hash.
    pub packages: Vec<Package>,
    /// Where the packages were downloaded to.
    pub packages_dir: PathBuf,
    /// Where to report, with [`crate::progress::Step::Build`].
    pub progress: Progress,
}

/// A folder of the host that the job sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Absolute path on the host.
    pub host: PathBuf,
    /// Absolute path in the container.
    pub container: String,
    /// Whether the job may write there.
    pub writable: bool,
}

/// What a job may use at most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Number of processes and threads.
    pub processes: Option<u64>,
    /// Time from start to end.
    pub time: Option<Duration>,
}

/// What is to be run.
#[derive(Debug, Clone)]
pub struct ExecutionRequest {
    /// The job.
    pub job: JobId,
    /// The image.
    pub image: ImageDigest,
    /// The program and its arguments; never given to a shell.
    pub command: Vec<String>,
    /// Absolute path in the container.
    pub working_directory: String,
    /// The environment, in addition to the image's.
    pub environment: Vec<Variable>,
    /// The folders that it sees.
    pub mounts: Vec<Mount>,
    /// The GPUs that it gets, as returned by [`Runtime::gpus`].
    pub gpus: Vec<Gpu>,
    /// What it may use.
    pub limits: Limits,
    /// A file to which all its output is written.
    pub log_file: PathBuf,
    /// Where to report, with [`crate::progress::Step::Run`] and [`crate::progress::ProgressEvent::JobOutput`].
    pub progress: Progress,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutionReport {
    /// How it ended.
    pub outcome: ExecutionOutcome,
    /// The exit status.
    pub exit_code: u64,
    /// From start to end.
    pub wall: Duration,
}

/// A container engine.
///
/// # Contract
///
/// *Implemented by* crates for an engine. *Called by* the pipeline in the order of the methods below, once each per job;
/// several jobs may use one engine at the same time.
///
/// * A job has no network, no capabilities, no new privileges, no devices but the GPUs given to it, and sees nothing of
///   the host but its mounts. An engine that cannot guarantee this refuses to run.
/// * `resolve_image` returns a digest under which exactly these bytes are found again.
/// * `resolve_dependencies` may use the network, and sees no input but the requirements file; `build` and `run` may not.
/// * `build` installs each package from a file whose hash it checks itself.
/// * `run` returns only when no process of the job is left; everything the job printed is in `log_file`, and reading
///   progress slowly never slows the job. A non-zero exit is a report, not an error.
/// * If a future is dropped, containers may remain: [`Runtime::clean_up`] removes them, and is idempotent.
/// * Secrets, the caller's environment among them, reach no container, no label and no image.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// What this engine can do.
    fn capabilities(&self) -> &RuntimeCapabilities;

    /// Checks that the engine is there and usable.
    async fn check(&self) -> Result<(), RuntimeError>;

    /// The GPUs of this machine that a request means.
    async fn gpus(&self, request: &GpuRequest) -> Result<Vec<Gpu>, RuntimeError>;

    /// Finds an image, pulling or building it where needed.
    async fn resolve_image(
        &self,
        image: &ImageSpec,
        progress: &Progress,
    ) -> Result<ResolvedImage, RuntimeError>;

    /// Downloads packages; the result is sorted by name, and names every file in the directory.
    async fn resolve_dependencies(&self, request: DependencyRequest) -> Result<Vec<Package>, RuntimeError>;

    /// Builds the image that the job runs in; without packages, that is the resolved image itself.
    async fn build(&self, request: BuildRequest) -> Result<ImageDigest, RuntimeError>;

    /// The command that an image runs when none is given: entry point and command.
    async fn default_command(&self, image: ImageDigest) -> Result<Vec<String>, RuntimeError>;

    /// Runs the job.
    async fn run(&self, request: ExecutionRequest) -> Result<ExecutionReport, RuntimeError>;

    /// Removes everything of a job that is still there: containers and images made for it.
    async fn clean_up(&self, job: &JobId) -> Result<(), RuntimeError>;

    /// Jobs of which something is still there.
    async fn leftovers(&self) -> Result<Vec<JobId>, RuntimeError>;
}
