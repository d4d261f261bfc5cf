//! The one job of this boot: received, run, and over. Nothing that clients do or leave out stops it, but their asking for
//! that.

mod run;

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use aicert_core::api::{JobState, JobStatus, Problem, ProblemCode};
use aicert_core::certificate::PlatformKind;
use aicert_core::digest::{FileDigest, Nonce};
use aicert_core::pipeline::{Backends, LOG_FILE, OUTPUTS_DIRECTORY};
use aicert_core::runtime::JobId;
use aicert_core::spec::JobSpec;
use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::App;
use crate::attestation::require_fresh;
use crate::events::Events;
use crate::problem::Refusal;
use crate::results::{Proof, Results};
use crate::submission::{self, PrivateFile};
use crate::uploads::{Uploads, storage_refusal};

/// How long removing a job may take before the machine is turned off all the same.
const REMOVAL: Duration = Duration::from_secs(120);

/// The folders in the folder of a job.
const WORKSPACE: &str = "workspace";
const UPLOADS: &str = "uploads";
const FILES: &str = "files";

/// The job of this boot, once there is one.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    job: OnceLock<Arc<Job>>,
    /// Held while a submission is looked at: of two, one is first.
    submitting: tokio::sync::Mutex<()>,
}

impl Jobs {
    /// The job, if there has been one.
    pub(crate) fn current(&self) -> Option<&Arc<Job>> {
        self.job.get()
    }

    /// The job of this name.
    pub(crate) fn find(&self, id: &str) -> Result<&Arc<Job>, Refusal> {
        self.current()
            .filter(|job| job.id.as_str() == id)
            .ok_or_else(|| Refusal::new(ProblemCode::NotFound, "this machine has no such job"))
    }

    /// Takes a submission; says whether it is new.
    pub(crate) async fn submit(&self, app: &Arc<App>, body: &Bytes) -> Result<(bool, JobStatus), Refusal> {
        let _one_at_a_time = self.submitting.lock().await;
        let digest = FileDigest::of(body);
        let (id, submission) = submission::parse(body)?;
        if let Some(job) = self.current() {
            return match (job.id == id, job.submission == digest) {
                (true, true) => {
                    // Whatever became of who sent the last input: nothing is awaited for nothing.
                    job.start_if_complete(app);
                    Ok((false, job.status()))
                }
                (true, false) => Err(occupied(job, "was submitted with other contents")),
                (false, _) => Err(occupied(job, "")),
            };
        }
        let platform = app
            .platform
            .clone()
            .map_err(|missing| incomplete_chain(&missing))?;
        require_fresh(app.backends.tpm.as_ref()).await?;
        let folder = app.jobs_folder().join(id.as_str());
        let kinds: Vec<_> = app
            .backends
            .inputs
            .iter()
            .map(|source| source.capabilities().kind)
            .collect();
        let accepted = submission::accept(&submission, &folder.join(FILES), &kinds)?;
        // Whatever a former job of this name left.
        make_folders(&folder, &accepted.files)
            .and_then(|()| write_private(&app.config.known_hosts(), submission.known_hosts.as_bytes()))
            .map_err(|error| {
                let _ = fs::remove_dir_all(&folder);
                storage_refusal("the job could not be prepared", &error)
            })?;
        let submission::Accepted {
            spec,
            nonce,
            expected,
            ..
        } = accepted;
        let limits = &app.config.limits;
        let job = Arc::new(Job {
            id,
            submission: digest,
            uploads: Arc::new(Uploads::new(folder.join(UPLOADS), expected)),
            folder,
            known_hosts: app.config.known_hosts(),
            events: Arc::new(Events::new(limits.events, limits.event_bytes)),
            phase: Mutex::new(Phase::Receiving(Plan {
                spec,
                nonce,
                platform,
            })),
            state: watch::Sender::new(JobState::Receiving),
            cancel: CancellationToken::new(),
        });
        // Nobody else sets it: the lock is held.
        let job = self.job.get_or_init(|| job);
        tracing::info!(job = %job.id, awaited = job.uploads.awaited().len(), "accepted a job");
        job.start_if_complete(app);
        Ok((true, job.status()))
    }
}

fn occupied(job: &Job, more: &str) -> Refusal {
    let is = match job.state() {
        JobState::Receiving => "waits for its inputs",
        JobState::Running => "runs",
        JobState::Finished => "has finished",
        JobState::Failed => "has failed",
        _ => "was stopped",
    };
    let more = if more.is_empty() {
        String::new()
    } else {
        format!(", and {more}")
    };
    Refusal::new(
        ProblemCode::Occupied,
        format!(
            "this machine has had its job: {} {is}{more}; one job can be certified per boot",
            job.id
        ),
    )
    .advice("use another machine")
}

/// A proof says what the chain of the key ends in, and has no more of the chain than the machine.
fn incomplete_chain(missing: &str) -> Refusal {
    Refusal::new(
        ProblemCode::IncompleteChain,
        format!("no job can be certified here: the chain of the attestation key lacks {missing}"),
    )
    .advice(
        "name a file with the missing certificate, in PEM or DER, in `issuers` of the configuration's machine, and use another machine; \
         a place that did not answer may do so when the next machine starts",
    )
}

/// What is known until the job starts.
#[derive(Debug)]
struct Plan {
    spec: JobSpec,
    nonce: Nonce,
    platform: PlatformKind,
}

#[derive(Debug)]
enum Phase {
    Receiving(Plan),
    Running,
    Finished(Arc<Results>),
    /// Also when there is a proof, and not all that belongs to it can be handed out.
    Failed(Problem, Option<Proof>),
    Cancelled,
}

/// A job.
#[derive(Debug)]
pub(crate) struct Job {
    id: JobId,
    /// SHA-256 of what was submitted.
    submission: FileDigest,
    folder: PathBuf,
    /// What it was told about SSH servers.
    known_hosts: PathBuf,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) events: Arc<Events>,
    phase: Mutex<Phase>,
    /// The phase, for those who wait for another.
    state: watch::Sender<JobState>,
    cancel: CancellationToken,
}

impl Job {
    fn phase(&self) -> MutexGuard<'_, Phase> {
        // Nothing panics while it is held.
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> JobState {
        *self.state.borrow()
    }

    /// How far it is.
    pub(crate) fn status(&self) -> JobStatus {
        let phase = self.phase();
        let (state, result, problem) = match &*phase {
            Phase::Receiving(_) => (JobState::Receiving, None, None),
            Phase::Running => (JobState::Running, None, None),
            Phase::Finished(results) => (JobState::Finished, Some(results.proof.result), None),
            Phase::Failed(problem, proof) => {
                let result = proof.as_ref().map(|proof| proof.result);
                (JobState::Failed, result, Some(problem.clone()))
            }
            Phase::Cancelled => (JobState::Cancelled, None, None),
        };
        let awaited = match state {
            JobState::Receiving => self.uploads.awaited(),
            _ => Vec::new(),
        };
        JobStatus {
            id: self.id.to_string(),
            state,
            awaited,
            result,
            problem,
            next_event: self.events.next(),
        }
    }

    /// What there is after its end.
    pub(crate) fn results(&self) -> Result<Arc<Results>, Refusal> {
        let refuse = |why: &str| Refusal::new(ProblemCode::WrongState, why);
        match &*self.phase() {
            Phase::Finished(results) => Ok(Arc::clone(results)),
            Phase::Receiving(_) => Err(refuse(
                "the job has not begun: it waits for inputs that are to be sent",
            )),
            Phase::Running => Err(refuse("the job still runs")),
            Phase::Failed(problem, None) => Err(refuse(&format!(
                "the job failed, and left no proof: {}",
                problem.message
            ))),
            Phase::Failed(problem, Some(_)) => Err(refuse(&problem.message)),
            Phase::Cancelled => Err(refuse("the job was stopped, and left no proof")),
        }
    }

    /// Its proof, also where nothing else of its results can be handed out.
    pub(crate) fn proof(&self) -> Result<Proof, Refusal> {
        if let Phase::Failed(_, Some(proof)) = &*self.phase() {
            return Ok(proof.clone());
        }
        Ok(self.results()?.proof.clone())
    }

    /// The folder of what it left without a proof of it, and the name of its contents.
    pub(crate) fn leftovers(&self) -> Result<(PathBuf, String), Refusal> {
        let refuse = |code, why: &str| Err(Refusal::new(code, why));
        match self.state() {
            JobState::Failed => Ok((
                self.workspace().join(OUTPUTS_DIRECTORY),
                format!("\"{}-leftovers\"", self.id),
            )),
            JobState::Receiving | JobState::Running => {
                refuse(ProblemCode::WrongState, "the job has not ended")
            }
            JobState::Finished => refuse(
                ProblemCode::NotFound,
                "the job has a proof: there are only outputs that it speaks of",
            ),
            _ => refuse(
                ProblemCode::NotFound,
                "the job was stopped: everything of it is removed",
            ),
        }
    }

    /// The file with what it printed, and the name of its contents, once they do not change any more.
    pub(crate) fn log_file(&self) -> (PathBuf, Option<String>) {
        let path = self.folder.join(WORKSPACE).join(LOG_FILE);
        let etag = match &*self.phase() {
            Phase::Finished(results) => Some(results.proof.head.clone()),
            Phase::Failed(..) | Phase::Cancelled => Some(self.id.to_string()),
            _ => None,
        };
        (path, etag.map(|etag| format!("\"{etag}-log\"")))
    }

    /// Refuses uploads that nothing will come of.
    pub(crate) fn require_receiving(&self) -> Result<(), Refusal> {
        let why = match self.state() {
            JobState::Receiving => return Ok(()),
            JobState::Running | JobState::Finished => "the job has all its inputs",
            JobState::Failed => "the job has failed",
            _ => "the job was stopped",
        };
        Err(Refusal::new(
            ProblemCode::WrongState,
            format!("{why}: nothing more is taken"),
        ))
    }

    /// Starts the job when nothing is awaited any more; once, and not after it was stopped.
    pub(crate) fn start_if_complete(self: &Arc<Self>, app: &Arc<App>) {
        if let Some(plan) = self.begin() {
            tracing::info!(job = %self.id, "the job begins");
            tokio::spawn(run::run(Arc::clone(self), Arc::clone(app), plan));
        }
    }

    /// What is to be done now, if it is time for it.
    fn begin(&self) -> Option<Plan> {
        let mut phase = self.phase();
        if self.cancel.is_cancelled() || !self.uploads.awaited().is_empty() {
            return None;
        }
        match std::mem::replace(&mut *phase, Phase::Running) {
            Phase::Receiving(plan) => {
                // While the phase is held, as in `end`: of two changes, the later one is seen last.
                self.state.send_replace(JobState::Running);
                Some(plan)
            }
            other => {
                *phase = other;
                None
            }
        }
    }

    /// Has the job stop; one that has not begun never does.
    fn stop(&self) {
        let mut phase = self.phase();
        // While the phase is held, as in `begin`: either it has begun, and sees this, or it does not begin.
        self.cancel.cancel();
        if matches!(*phase, Phase::Receiving(_)) {
            self.end_with(&mut phase, Phase::Cancelled);
        }
    }

    /// Notes how it ended, and tells everybody. The first end counts.
    fn end(&self, ended: Phase) {
        self.end_with(&mut self.phase(), ended);
    }

    fn end_with(&self, phase: &mut Phase, ended: Phase) {
        let state = match &ended {
            Phase::Finished(_) => JobState::Finished,
            Phase::Failed(..) => JobState::Failed,
            _ => JobState::Cancelled,
        };
        if !matches!(*phase, Phase::Receiving(_) | Phase::Running) {
            return;
        }
        *phase = ended;
        self.events.end(state);
        self.state.send_replace(state);
        tracing::info!(job = %self.id, ?state, "the job has ended");
    }

    /// Stops the job if it has not ended, and removes everything of it.
    pub(crate) async fn remove(self: Arc<Self>, backends: Backends) -> JobStatus {
        self.stop();
        let removal = async {
            let mut state = self.state.subscribe();
            // Ends at the latest with the job, which lives as long as this.
            let _ = state
                .wait_for(|state| !matches!(state, JobState::Receiving | JobState::Running))
                .await;
            if let Err(error) = backends.runtime.clean_up(&self.id).await {
                tracing::warn!(job = %self.id, %error, "could not remove all containers");
            }
            let (folder, known_hosts) = (self.folder.clone(), self.known_hosts.clone());
            let removing = move || remove_file(&known_hosts).and_then(|()| remove_folder(&folder));
            let removed = tokio::task::spawn_blocking(removing).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!(job = %self.id, %error, "could not remove all files");
            }
        };
        if tokio::time::timeout(REMOVAL, removal).await.is_err() {
            tracing::warn!(job = %self.id, "removing the job took too long");
        }
        self.status()
    }

    /// Removes keys and uploads, which nothing needs after the pipeline.
    async fn forget_inputs(&self) {
        let folders = [self.folder.join(FILES), self.folder.join(UPLOADS)];
        let removing =
            tokio::task::spawn_blocking(move || folders.iter().try_for_each(|folder| remove_folder(folder)));
        if let Ok(Err(error)) = removing.await {
            tracing::warn!(job = %self.id, %error, "could not remove the job's keys and uploads");
        }
    }

    /// Returns when the job is to be removed.
    pub(crate) async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    fn workspace(&self) -> PathBuf {
        self.folder.join(WORKSPACE)
    }
}

fn make_folders(folder: &Path, files: &[PrivateFile]) -> io::Result<()> {
    remove_folder(folder)?;
    for folder in [
        folder.to_owned(),
        folder.join(WORKSPACE),
        folder.join(UPLOADS),
        folder.join(FILES),
    ] {
        fs::DirBuilder::new().mode(0o700).create(folder)?;
    }
    for (path, content) in files {
        write_private(path, content)?;
    }
    Ok(())
}

/// Writes a file that nobody else can read, in the place of another.
fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?
        .write_all(content)
}

/// Removes a file, if it is there.
fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a folder, if it is there.
pub(crate) fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "kind: container\nimage: x\ncommand: [x]\n\
        source: {type: git, gitRepo: 'https://h/x'}\nmachine: {provider: local, tpm: swtpm}\n";

    /// A job that waits for nothing, and has not begun.
    fn job() -> Job {
        let plan = Plan {
            platform: PlatformKind::LocalCa,
            spec: JobSpec::from_yaml(CONFIG, Path::new("/"), &|_| None).unwrap(),
            nonce: Nonce::from_bytes([7; 32]),
        };
        Job {
            id: "job-1".parse().unwrap(),
            submission: FileDigest::of(b""),
            folder: "/nowhere".into(),
            known_hosts: "/nowhere/known_hosts".into(),
            uploads: Arc::new(Uploads::new("/nowhere".into(), Vec::new())),
            events: Arc::new(Events::new(10, 1000)),
            phase: Mutex::new(Phase::Receiving(plan)),
            state: watch::Sender::new(JobState::Receiving),
            cancel: CancellationToken::new(),
        }
    }

    #[test]
    fn what_was_stopped_does_not_begin() {
        let stopped = job();
        stopped.stop();
        assert!(stopped.begin().is_none());
        assert_eq!(stopped.status().state, JobState::Cancelled);
        // One that runs ends itself, and says so.
        let begun = job();
        assert!(begun.begin().is_some() && begun.begin().is_none());
        begun.stop();
        assert_eq!(begun.status().state, JobState::Running);
        // Whichever comes first.
        for _ in 0..500 {
            let job = job();
            let has_begun = std::thread::scope(|scope| {
                let beginning = scope.spawn(|| job.begin().is_some());
                job.stop();
                beginning.join().unwrap()
            });
            assert_eq!(job.state() == JobState::Running, has_begun);
        }
    }

    #[test]
    fn uploads_that_come_too_late_are_told_why() {
        let said = |job: &Job| job.require_receiving().unwrap_err().problem().message.clone();
        let begun = job();
        assert!(begun.require_receiving().is_ok());
        let _ = begun.begin();
        assert_eq!(said(&begun), "the job has all its inputs: nothing more is taken");
        let stopped = job();
        stopped.stop();
        assert_eq!(said(&stopped), "the job was stopped: nothing more is taken");
    }
}
