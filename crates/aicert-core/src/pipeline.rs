//! The pipeline: from a job's specification to a certificate.
//!
//! One event after the other is made durable, extended into every active bank of the TPM, and appended to the log; the
//! state machine of [`crate::grammar`] stands between this code and an event out of order. Dropping the future of
//! [`run`] cancels the job: what was extended stays in the TPM, what was written stays in the workspace, and no
//! certificate exists. The caller then calls [`Runtime::clean_up`] and removes the workspace.

mod error;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use error::PipelineError;

use crate::certificate::{
    Base64, Certificate, LowLevelQuote, PlatformKind, Summaries, Version, qualifying_data,
};
use crate::digest::{BootLogDigest, ImageDigest, Nonce};
use crate::event::{
    Closed, ContainerBuilt, DependenciesMeasured, EventContent, ExecutionFinished, ExecutionOutcome,
    ExecutionStarted, Gpu, ImageResolved, InputMeasured, JobOpened, LOG_SCHEMA, Machine, Network,
    OutputsMeasured, Package, Sealed, Tool,
};
use crate::input::{FetchRequest, FetchedInput, InputSource};
use crate::journal::Journal;
use crate::log::MeasurementLog;
use crate::manifest::Manifest;
use crate::measure;
use crate::progress::{Progress, ProgressEvent, Step};
use crate::runtime::{
    BuildRequest, DependencyRequest, ExecutionReport, ExecutionRequest, JobId, Mount, ResolvedImage, Runtime,
};
use crate::spec::{DEFAULT_REQUIREMENTS, InputSpec, JobSpec};
use crate::time::Timestamp;
use crate::tpm::{PcrBank, PcrIndex, Quote, TpmBackend};
use crate::tree::{Entry, LISTING_LIMIT, MeasuredTree, Tree};
use crate::workspace::{RESOURCES_FOLDER, SOURCE_FOLDER};

/// The name of the journal in a workspace.
pub const JOURNAL_FILE: &str = "journal.jsonl";
/// The name of the folder, in a workspace, that the job leaves its outputs in.
pub const OUTPUTS_DIRECTORY: &str = "outputs";
/// The name of the file, in a workspace, with what the job printed.
pub const LOG_FILE: &str = "job.log";

/// A job to run.
#[derive(Debug, Clone)]
pub struct Job {
    /// What to do.
    pub spec: JobSpec,
    /// The software that drives the pipeline.
    pub tool: Tool,
    /// Names the job for the runtime.
    pub id: JobId,
    /// An existing, empty directory that nobody but the caller can enter.
    pub workspace: PathBuf,
    /// The challenge that the quote answers.
    pub nonce: Nonce,
    /// What the chain of the TPM's attestation key ends in.
    pub platform_kind: PlatformKind,
    /// Who provides the machine.
    pub provider: String,
    /// The provider's name for the kind of machine.
    pub instance_type: String,
    /// Where the machine is.
    pub region: String,
}

/// What does the work.
#[derive(Clone)]
pub struct Backends {
    /// The TPM that is extended and signs.
    pub tpm: Arc<dyn TpmBackend>,
    /// The container engine.
    pub runtime: Arc<dyn Runtime>,
    /// Where inputs come from: the first source of an input's kind serves it.
    pub inputs: Vec<Arc<dyn InputSource>>,
}

/// What a job that ran to its end gives. The certificate may say that the job failed.
#[derive(Debug)]
pub struct Outcome {
    /// The certificate.
    pub certificate: Certificate,
    /// The listings that are too large for it; often none.
    pub manifest: Manifest,
    /// The folder, inside the workspace, with the outputs as they were measured.
    pub outputs: PathBuf,
    /// Everything that the job printed.
    pub log_file: PathBuf,
}

/// Runs a job.
///
/// # Errors
///
/// When anything but the job itself fails; no certificate exists then. A job that fails by itself (exit status, time,
/// memory, no outputs) is an [`Outcome`] whose certificate says so.
pub async fn run(job: &Job, backends: &Backends, progress: &Progress) -> Result<Outcome, PipelineError> {
    let mut run = Run::open(job, backends, progress).await?;
    let gpus = run.measure_machine().await?;
    for input in &job.spec.inputs {
        run.measure_input(input).await?;
    }
    let image = run.build_container().await?;
    run.seal().await?;
    run.execute(image, gpus).await?;
    run.measure_outputs().await?;
    run.close().await?;
    run.certify().await
}

/// A job on its way.
struct Run<'a> {
    job: &'a Job,
    backends: &'a Backends,
    progress: &'a Progress,
    journal: Arc<std::sync::Mutex<Journal>>,
    log: MeasurementLog,
    /// Trees whose listing is too large for their event.
    large_trees: Vec<Tree>,
    /// The files of the source, to look for the entry point and the requirements in what was measured.
    source: Option<Tree>,
    /// What firmware says that it measured, as it was when the log was opened: `job_opened` has its digest.
    boot_event_log: Vec<u8>,
}

impl<'a> Run<'a> {
    /// Checks that the TPM is fresh, and opens the log.
    async fn open(
        job: &'a Job,
        backends: &'a Backends,
        progress: &'a Progress,
    ) -> Result<Self, PipelineError> {
        backends.runtime.check().await?;
        for input in &job.spec.inputs {
            source_for(backends, input)?;
        }
        quoted_bank(backends.tpm.as_ref())?;
        require_fresh_pcrs(backends.tpm.as_ref()).await?;
        let tpm = backends.tpm.clock().await?;
        let boot_event_log = backends.tpm.boot_event_log().await?;
        let boot_log_digest = BootLogDigest::of(&boot_event_log);
        let journal = Journal::create(&job.workspace.join(JOURNAL_FILE))?;
        let mut run = Self {
            job,
            backends,
            progress,
            journal: Arc::new(std::sync::Mutex::new(journal)),
            log: MeasurementLog::new(),
            large_trees: Vec::new(),
            source: None,
            boot_event_log,
        };
        run.record(EventContent::JobOpened(JobOpened {
            schema: LOG_SCHEMA.into(),
            tool: job.tool.clone(),
            config: job.spec.config,
            time: Timestamp::now(),
            tpm,
            boot_event_log: boot_log_digest,
            banks: backends.tpm.capabilities().banks.clone(),
        }))
        .await?;
        Ok(run)
    }

    /// Makes an event durable, extends it into every active bank, and appends it: in this order.
    async fn record(&mut self, content: EventContent) -> Result<(), PipelineError> {
        let event = self.log.next_event(content)?;
        let banks = &self.backends.tpm.capabilities().banks;
        let digests = banks
            .iter()
            .map(|bank| Ok((*bank, event.digest(*bank)?)))
            .collect::<Result<BTreeMap<_, _>, PipelineError>>()?;
        let (journal, written) = (Arc::clone(&self.journal), event.clone());
        blocking(move || {
            // A poisoned lock would mean a panic while writing: the journal cannot be trusted then.
            let mut journal = journal.lock().map_err(|_| PipelineError::Interrupted)?;
            Ok(journal.append(&written)?)
        })
        .await?;
        self.backends.tpm.extend(event.content.pcr(), &digests).await?;
        self.log.push(event)?;
        Ok(())
    }

    async fn measure_machine(&mut self) -> Result<Vec<Gpu>, PipelineError> {
        let gpus = match &self.job.spec.gpus {
            Some(request) => self.backends.runtime.gpus(request).await?,
            None => Vec::new(),
        };
        let Job {
            provider,
            instance_type,
            region,
            ..
        } = self.job;
        let machine = Machine {
            provider: provider.clone(),
            instance_type: instance_type.clone(),
            region: region.clone(),
            gpus: gpus.clone(),
        };
        self.record(EventContent::Machine(machine)).await?;
        Ok(gpus)
    }

    async fn measure_input(&mut self, spec: &InputSpec) -> Result<(), PipelineError> {
        let source = source_for(self.backends, spec)?;
        let target = host_path(&self.job.workspace, spec)?;
        let parent = target.parent().unwrap_or(&self.job.workspace).to_owned();
        blocking(move || {
            std::fs::create_dir_all(&parent)
                .map_err(|error| PipelineError::storage("make the folder", &parent, error))
        })
        .await?;

        self.progress.started(Step::Fetch, &spec.name);
        let request = FetchRequest {
            spec: spec.clone(),
            target,
            progress: self.progress.clone(),
        };
        let fetched = source
            .fetch(request)
            .await
            .map_err(|source| PipelineError::Input {
                name: spec.name.clone(),
                source,
            })?;
        let FetchedInput {
            origin,
            requested,
            resolved,
            tree,
        } = fetched;
        let measured = tree.measured();
        let known_as = resolved
            .first()
            .map_or_else(|| measured.root.to_string(), |pin| pin.value.clone());
        let detail = format!("{known_as}, {}", size_of(&measured));
        self.record(EventContent::InputMeasured(InputMeasured {
            name: spec.name.clone(),
            kind: spec.location.kind().into(),
            origin,
            requested,
            resolved,
            destination: spec.destination.clone(),
            tree: measured,
        }))
        .await?;
        self.progress.finished(Step::Fetch, &spec.name, detail);
        if spec.destination == SOURCE_FOLDER {
            self.require_entry_point(spec, &tree)?;
            self.source = Some(tree.clone());
        }
        self.keep_if_large(tree);
        Ok(())
    }

    fn keep_if_large(&mut self, tree: Tree) {
        if tree.entries().len() > LISTING_LIMIT {
            self.large_trees.push(tree);
        }
    }

    /// Says early that the entry point is missing, rather than after everything was downloaded.
    fn require_entry_point(&self, spec: &InputSpec, source: &Tree) -> Result<(), PipelineError> {
        let Some(entry_point) = &self.job.spec.entry_point else {
            return Ok(());
        };
        if has_file(source, entry_point) {
            return Ok(());
        }
        let scripts: Vec<_> = source
            .entries()
            .iter()
            .map(|entry| entry.path().as_str())
            .filter(|path| path.ends_with(".py"))
            .collect();
        let candidates = scripts
            .iter()
            .take(5)
            .map(|path| format!("`{path}`"))
            .collect::<Vec<_>>()
            .join(", ");
        Err(PipelineError::EntryPointMissing {
            source_name: spec.name.clone(),
            entry_point: entry_point.clone(),
            candidates,
        })
    }

    /// Resolves the base image and the dependencies, measures both, and builds what the job runs in.
    async fn build_container(&mut self) -> Result<ImageDigest, PipelineError> {
        let runtime = &self.backends.runtime;
        let image = runtime.resolve_image(&self.job.spec.image, self.progress).await?;
        self.record(EventContent::ImageResolved(ImageResolved {
            requested: image.requested.clone(),
            digest: image.digest,
        }))
        .await?;

        let packages_dir = self.job.workspace.join("packages");
        make_fresh_folder(packages_dir.clone()).await?;
        let packages = self.resolve_dependencies(&image, &packages_dir).await?;
        self.record(EventContent::DependenciesMeasured(DependenciesMeasured {
            packages: packages.clone(),
        }))
        .await?;

        let request = BuildRequest {
            job: self.job.id.clone(),
            image,
            packages,
            packages_dir,
            progress: self.progress.clone(),
        };
        let image = runtime.build(request).await?;
        self.record(EventContent::ContainerBuilt(ContainerBuilt { image }))
            .await?;
        Ok(image)
    }

    async fn resolve_dependencies(
        &self,
        image: &ResolvedImage,
        into: &Path,
    ) -> Result<Vec<Package>, PipelineError> {
        let (Some(requirements), Some(source)) = (&self.job.spec.requirements, &self.source) else {
            return Ok(Vec::new());
        };
        if !has_file(source, requirements) {
            // What has another name than the usual one was asked for, and a link was put there to be used.
            let linked = source
                .entries()
                .iter()
                .any(|entry| entry.path().as_str() == requirements);
            return match linked || requirements != DEFAULT_REQUIREMENTS {
                true => Err(PipelineError::RequirementsMissing {
                    requirements: requirements.clone(),
                    linked,
                }),
                false => Ok(Vec::new()),
            };
        }
        let request = DependencyRequest {
            job: self.job.id.clone(),
            image: image.clone(),
            requirements: self.job.workspace.join("src").join(requirements),
            index: self.job.spec.package_index.clone(),
            into: into.to_owned(),
            progress: self.progress.clone(),
        };
        Ok(self.backends.runtime.resolve_dependencies(request).await?)
    }

    async fn seal(&mut self) -> Result<(), PipelineError> {
        let events = self.log.events().len() as u64;
        self.record(EventContent::Sealed(Sealed { events })).await
    }

    async fn execute(&mut self, image: ImageDigest, gpus: Vec<Gpu>) -> Result<(), PipelineError> {
        let command = match &self.job.spec.command {
            Some(command) => command.clone(),
            None => self.backends.runtime.default_command(image).await?,
        };
        make_fresh_folder(self.outputs_dir()).await?;
        let working_directory = if self.source.is_some() {
            SOURCE_FOLDER.to_owned()
        } else {
            "/".to_owned()
        };
        self.record(EventContent::ExecutionStarted(ExecutionStarted {
            time: self.now(),
            image,
            command: command.clone(),
            working_directory: working_directory.clone(),
            environment: self.job.spec.environment.clone(),
            network: Network::None,
            gpus: gpus.iter().map(|gpu| gpu.uuid.clone()).collect(),
        }))
        .await?;
        self.progress.started(Step::Run, command.join(" "));
        let request = ExecutionRequest {
            job: self.job.id.clone(),
            image,
            command: command.clone(),
            working_directory,
            environment: self.job.spec.environment.clone(),
            mounts: self.mounts(),
            gpus,
            limits: self.job.spec.limits.clone(),
            log_file: self.log_file(),
            progress: self.progress.clone(),
        };
        let report = self.backends.runtime.run(request).await?;
        let finished = ExecutionFinished {
            time: self.now(),
            outcome: report.outcome,
            exit_code: report.exit_code,
            wall_milliseconds: u64::try_from(report.wall.as_millis())
                .unwrap_or(u64::MAX)
                .min(crate::canonical::INTEGER_LIMIT - 1),
        };
        self.record(EventContent::ExecutionFinished(finished)).await?;
        self.progress
            .finished(Step::Run, command.join(" "), describe(&report));
        Ok(())
    }

    fn mounts(&self) -> Vec<Mount> {
        let mut mounts = Vec::new();
        for (folder, host) in [(SOURCE_FOLDER, "src"), (RESOURCES_FOLDER, "resources")] {
            if self
                .job
                .spec
                .inputs
                .iter()
                .any(|input| input.destination.starts_with(folder))
            {
                mounts.push(Mount {
                    host: self.job.workspace.join(host),
                    container: folder.into(),
                    writable: false,
                });
            }
        }
        mounts.push(Mount {
            host: self.outputs_dir(),
            container: self.job.spec.outputs.clone(),
            writable: true,
        });
        mounts
    }

    fn outputs_dir(&self) -> PathBuf {
        self.job.workspace.join(OUTPUTS_DIRECTORY)
    }

    fn log_file(&self) -> PathBuf {
        self.job.workspace.join(LOG_FILE)
    }

    async fn measure_outputs(&mut self) -> Result<(), PipelineError> {
        self.progress.started(Step::Outputs, &self.job.spec.outputs);
        let (folder, progress, subject) = (
            self.outputs_dir(),
            self.progress.clone(),
            self.job.spec.outputs.clone(),
        );
        let cancelled = Arc::new(AtomicBool::new(false));
        let _cancel_on_drop = CancelOnDrop(Arc::clone(&cancelled));
        let tree = blocking(move || {
            let report = |bytes| progress.advanced(Step::Outputs, &subject, bytes, None);
            let options = measure::Options {
                hard_links: measure::HardLinks::Refuse,
                progress: &report,
                cancelled: &cancelled,
            };
            measure::measure(&folder, &options).map_err(PipelineError::Outputs)
        })
        .await?;
        let measured = tree.measured();
        let detail = format!("{}, {}", measured.root, size_of(&measured));
        self.record(EventContent::OutputsMeasured(OutputsMeasured {
            folder: self.job.spec.outputs.clone(),
            tree: measured,
        }))
        .await?;
        self.progress
            .finished(Step::Outputs, &self.job.spec.outputs, detail);
        if tree.bytes() == 0 {
            let message = format!(
                "the job left nothing, or only what is empty, in {}",
                self.job.spec.outputs
            );
            self.progress.send(ProgressEvent::Warning { message });
        }
        self.keep_if_large(tree);
        Ok(())
    }

    async fn close(&mut self) -> Result<(), PipelineError> {
        self.record(EventContent::Closed(Closed {
            time: self.now(),
            result: self.log.result(),
        }))
        .await
    }

    /// The time, which never goes back within a log: where the clock was set back, the time of the event before counts.
    fn now(&self) -> Timestamp {
        self.log
            .last_time()
            .map_or_else(Timestamp::now, |last| last.max(Timestamp::now()))
    }

    /// Has the TPM sign, and assembles the certificate after checking that the TPM holds what the log says.
    async fn certify(self) -> Result<Outcome, PipelineError> {
        self.progress.started(Step::Quote, "TPM");
        let tpm = &self.backends.tpm;
        let bank = quoted_bank(tpm.as_ref())?;
        let pcrs: Vec<_> = PcrIndex::quoted().collect();
        let qualifying_data = qualifying_data(&self.log.head()?, &self.job.nonce);
        let Quote {
            bank,
            pcrs,
            attest,
            signature,
        } = tpm.quote(bank, &pcrs, &qualifying_data).await?;
        for pcr in [PcrIndex::INPUTS, PcrIndex::OUTPUTS] {
            let (expected, found) = (
                self.log.replay(bank, pcr)?,
                pcrs.0.get(&pcr).cloned().unwrap_or_default(),
            );
            if expected != found {
                return Err(PipelineError::TpmDisagrees {
                    pcr,
                    expected: hex::encode(expected),
                    found: hex::encode(found),
                });
            }
        }
        let key = tpm.attestation_key().await?;
        let Summaries {
            result,
            inputs,
            outputs,
            output_model_hash,
            platform,
            platform_hash,
        } = Summaries::derive(&self.log.complete()?, self.job.platform_kind)?;
        self.progress
            .finished(Step::Quote, "TPM", format!("{} PCRs, {bank}", pcrs.0.len()));
        Ok(Outcome {
            outputs: self.outputs_dir(),
            log_file: self.log_file(),
            manifest: Manifest::new(self.large_trees),
            certificate: Certificate {
                version: Version::V1,
                result,
                inputs,
                outputs,
                output_model_hash,
                platform,
                platform_hash,
                measurement_log: self.log.events().to_vec(),
                boot_event_log: Base64(self.boot_event_log),
                low_level_quote: LowLevelQuote {
                    bank,
                    pcrs,
                    attest: Base64(attest),
                    nonce: self.job.nonce,
                },
                signature: Base64(signature),
                attestation_key: key.map(Into::into).unwrap_or_default(),
                timestamp: (),
            },
        })
    }
}

/// Whoever extended PCR 14 or 15 before could have extended anything.
async fn require_fresh_pcrs(tpm: &dyn TpmBackend) -> Result<(), PipelineError> {
    for bank in &tpm.capabilities().banks {
        let values = tpm
            .read_pcrs(*bank, &[PcrIndex::INPUTS, PcrIndex::OUTPUTS])
            .await?;
        for (pcr, value) in values.0 {
            if value.iter().any(|byte| *byte != 0) {
                return Err(PipelineError::PcrNotFresh {
                    pcr,
                    bank: *bank,
                    value: hex::encode(value),
                });
            }
        }
    }
    Ok(())
}

/// Asked before anything is extended, too: a job that nobody could quote is not begun.
fn quoted_bank(tpm: &dyn TpmBackend) -> Result<PcrBank, PipelineError> {
    tpm.capabilities()
        .quoted_bank()
        .ok_or(PipelineError::NoTrustedBank)
}

fn source_for<'a>(backends: &'a Backends, spec: &InputSpec) -> Result<&'a dyn InputSource, PipelineError> {
    let kind = spec.location.kind();
    let source = backends
        .inputs
        .iter()
        .find(|source| source.capabilities().kind == kind);
    source.map(AsRef::as_ref).ok_or_else(|| PipelineError::NoSource {
        name: spec.name.clone(),
        kind: kind.into(),
    })
}

/// Where an input's files are on the host while the container sees them at its destination.
fn host_path(workspace: &Path, spec: &InputSpec) -> Result<PathBuf, PipelineError> {
    if spec.destination == SOURCE_FOLDER {
        return Ok(workspace.join("src"));
    }
    spec.destination
        .strip_prefix(RESOURCES_FOLDER)
        .and_then(|rest| rest.strip_prefix('/'))
        .and_then(|rest| rest.parse::<crate::tree::TreePath>().ok())
        .map(|rest| workspace.join("resources").join(rest.as_str()))
        .ok_or_else(|| PipelineError::Destination {
            name: spec.name.clone(),
            destination: spec.destination.clone(),
        })
}

fn has_file(tree: &Tree, path: &str) -> bool {
    tree.entries()
        .iter()
        .any(|entry| entry.path().as_str() == path && !matches!(entry, Entry::Symlink { .. }))
}

fn size_of(tree: &MeasuredTree) -> String {
    let files = if tree.files == 1 { "file" } else { "files" };
    format!("{} {files}, {} bytes", tree.files, tree.bytes)
}

fn describe(report: &ExecutionReport) -> String {
    let how = match report.outcome {
        ExecutionOutcome::Exited => format!("exit status {}", report.exit_code),
        ExecutionOutcome::TimedOut => "time limit reached".into(),
        ExecutionOutcome::OutOfMemory => "memory limit reached".into(),
    };
    format!("{how} after {:.1} s", report.wall.as_secs_f64())
}

/// Tells blocking work to stop when the future that waits for it is dropped.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes a folder that must not be there yet: nothing may be in it that was not put there by this job.
async fn make_fresh_folder(folder: PathBuf) -> Result<(), PipelineError> {
    blocking(move || {
        std::fs::create_dir(&folder)
            .map_err(|error| PipelineError::storage("make the folder", &folder, error))
    })
    .await
}

/// Runs file work off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PipelineError> + Send + 'static,
) -> Result<T, PipelineError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| PipelineError::Interrupted)?
}
