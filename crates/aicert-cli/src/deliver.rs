//! From what a job left in its workspace to files of the user: complete, checked, and under their names only then.

mod again;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aicert_core::certificate::Certificate;
use aicert_core::digest::Nonce;
use aicert_core::manifest::Manifest;
use aicert_core::pipeline::{LOG_FILE, OUTPUTS_DIRECTORY, Outcome};
use aicert_core::runtime::JobId;
use aicert_core::time::Timestamp;
use aicert_verify::{Rejection, Unverified, Verified};

use crate::error::{Exit, Failure};
use crate::files;
use crate::remote::record::Times;
use crate::targets::Targets;
use crate::trust::Trust;
use crate::verify;

/// The delivery of one job. Until [`Staged::publish`], everything has hidden names that a cleanup removes.
pub(crate) struct Delivery {
    targets: Targets,
    /// A folder for results that cannot be put where they belong: what took days to compute is not lost to a full disk.
    rescue: PathBuf,
    job: JobId,
    cancelled: Arc<AtomicBool>,
    /// Locked while a thread stages.
    busy: Arc<Mutex<()>>,
}

/// What is delivered.
struct Parcel {
    certificate: Certificate,
    manifest: Manifest,
    nonce: Nonce,
    trust: Trust,
    /// The time to verify for: that of the verification before, where the proof has arrived from elsewhere, and may have waited
    /// there for longer than its certificates live.
    at: Option<Timestamp>,
    rest: Rest,
}

/// Where outputs and log are.
enum Rest {
    /// In the workspace of a job on this machine.
    Workspace { outputs: PathBuf, log_file: PathBuf },
    /// Under their hidden names already.
    Arrived,
}

impl Delivery {
    pub(crate) fn new(targets: Targets, rescue: PathBuf, job: JobId) -> Self {
        Self {
            targets,
            rescue,
            job,
            cancelled: Arc::default(),
            busy: Arc::default(),
        }
    }

    /// Every place where something may be written.
    pub(crate) fn places(&self) -> Vec<PathBuf> {
        let mut places = self.targets.all();
        places.extend(self.targets.inside(&self.rescue).all());
        places
    }

    /// Tells a thread that stages to stop.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// What a thread that stages has locked.
    #[cfg(test)]
    pub(crate) fn busy(&self) -> Arc<Mutex<()>> {
        Arc::clone(&self.busy)
    }

    /// Waits until no thread stages.
    pub(crate) async fn settle(&self) {
        let busy = Arc::clone(&self.busy);
        let _ = tokio::task::spawn_blocking(move || {
            drop(busy.lock().unwrap_or_else(PoisonError::into_inner));
        })
        .await;
    }

    /// Saves what a job left that cannot be certified; tells where it is now, if there is anything.
    pub(crate) fn keep_uncertified(&self, workspace: &Path) -> Option<PathBuf> {
        let outputs = workspace.join(OUTPUTS_DIRECTORY);
        fs::read_dir(&outputs).ok()?.next()?.ok()?;
        files::private(&self.rescue).ok()?;
        // Within one file system: no space is needed, nothing is read, and nobody else can enter the folder.
        fs::rename(&outputs, self.rescue.join(OUTPUTS_DIRECTORY)).ok()?;
        let _ = fs::rename(workspace.join(LOG_FILE), self.rescue.join(LOG_FILE));
        Some(self.rescue.clone())
    }

    /// Removes the folder for emergencies if nothing is in it.
    pub(crate) fn tidy(&self) {
        let _ = fs::remove_dir(&self.rescue);
    }

    /// Writes everything under hidden names, reads the proof back, and verifies it against the outputs.
    pub(crate) async fn stage(
        &self,
        outcome: Outcome,
        nonce: Nonce,
        trust: Trust,
    ) -> Result<Staged, Failure> {
        let parcel = Parcel {
            certificate: outcome.certificate,
            manifest: outcome.manifest,
            nonce,
            trust,
            at: None,
            rest: Rest::Workspace {
                outputs: outcome.outputs,
                log_file: outcome.log_file,
            },
        };
        let (targets, rescue, job) = (self.targets.clone(), self.rescue.clone(), self.job.clone());
        let cancelled = Arc::clone(&self.cancelled);
        self.work(move || {
            stage(&targets, &job, &parcel, &cancelled)
                .or_else(|failure| stage_elsewhere(&targets, &rescue, &job, &parcel, &cancelled, failure))
        })
        .await
    }

    /// Goes on from outputs and log that have come from another machine, under their hidden names, with a proof that was verified
    /// for this time.
    pub(crate) async fn stage_arrived(
        &self,
        certificate: Certificate,
        manifest: Manifest,
        nonce: Nonce,
        trust: Trust,
        at: Timestamp,
    ) -> Result<Staged, Failure> {
        let parcel = Parcel {
            certificate,
            manifest,
            nonce,
            trust,
            at: Some(at),
            rest: Rest::Arrived,
        };
        let (targets, job) = (self.targets.clone(), self.job.clone());
        let cancelled = Arc::clone(&self.cancelled);
        self.work(move || {
            // What an earlier attempt has left.
            for target in targets.files().iter().filter(|target| **target != targets.log()) {
                let partial = files::partial(target, &job);
                files::remove(&partial).map_err(|error| unwritable(target, &error))?;
            }
            stage(&targets, &job, &parcel, &cancelled)
        })
        .await
    }

    /// Where the outputs arrive: a folder to itself, which may have what arrived earlier.
    pub(crate) fn arriving(&self) -> PathBuf {
        files::arriving(&self.targets.outputs, &self.job)
    }

    /// The hidden name of the outputs.
    pub(crate) fn hidden_outputs(&self) -> PathBuf {
        files::partial(&self.targets.outputs, &self.job)
    }

    /// The hidden name of the log.
    pub(crate) fn hidden_log(&self) -> PathBuf {
        files::partial(&self.targets.log(), &self.job)
    }

    /// The hidden name of the manifest.
    pub(crate) fn hidden_manifest(&self) -> PathBuf {
        files::partial(&self.targets.manifest(), &self.job)
    }

    /// A folder for what cannot be delivered.
    pub(crate) fn rescue(&self) -> &Path {
        &self.rescue
    }

    /// Does something that blocks, on a thread that [`Delivery::settle`] waits for.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let busy = Arc::clone(&self.busy);
        let staging = tokio::task::spawn_blocking(move || {
            let _busy = busy.lock().unwrap_or_else(PoisonError::into_inner);
            work()
        });
        staging.await.map_err(|error| {
            Failure::new(Exit::DoesNotHold, "writing the results was interrupted").because(&error)
        })?
    }
}

/// Results that are complete, under hidden names.
pub(crate) struct Staged {
    targets: Targets,
    job: JobId,
    /// The targets that there is something for; the proof last.
    files: Vec<PathBuf>,
    outputs: bool,
    /// Whether some of it may have its name already.
    again: bool,
    check: Result<Verified<Certificate>, Rejection>,
    certificate: Certificate,
    trust: Trust,
    /// Why the targets are not those that were asked for.
    instead: Option<Failure>,
}

/// Results that have their names.
pub(crate) struct Published {
    pub(crate) targets: Targets,
    /// What they were verified against.
    pub(crate) trust: Trust,
    pub(crate) check: Result<Verified<Certificate>, Rejection>,
    pub(crate) certificate: Certificate,
    pub(crate) outputs: bool,
    pub(crate) manifest: bool,
    /// How long the phases took, of a job on another machine.
    pub(crate) times: Option<Times>,
    /// Why the targets are not those that were asked for.
    pub(crate) instead: Option<Failure>,
}

fn stage(targets: &Targets, job: &JobId, parcel: &Parcel, cancelled: &AtomicBool) -> Result<Staged, Failure> {
    let mut staged = write_documents(targets, job, parcel)?;
    let log = targets.log();
    let hidden = files::partial(&targets.outputs, job);
    if let Rest::Workspace { outputs, log_file } = &parcel.rest {
        // It is no part of the proof: what matters is saved without it too.
        let _ = fs::copy(log_file, files::partial(&log, job));
        if has_entries(outputs) {
            files::stage_folder(outputs, &hidden, cancelled).map_err(|error| {
                let message = format!("could not write the outputs to {}", targets.outputs.display());
                Failure::new(Exit::DoesNotHold, message)
                    .because(&error)
                    .maybe_help(error.advice())
            })?;
        }
    }
    if files::exists(&files::partial(&log, job)) {
        staged.insert(0, log);
    }
    complete(targets, job, parcel, staged, has_entries(&hidden))
}

fn has_entries(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

/// Writes manifest, trust anchor and proof under hidden names; tells which there are, the proof last.
fn write_documents(targets: &Targets, job: &JobId, parcel: &Parcel) -> Result<Vec<PathBuf>, Failure> {
    let mut written = Vec::new();
    let mut write = |target: PathBuf, bytes: &[u8]| {
        files::write_new(&files::partial(&target, job), bytes)
            .map_err(|error| unwritable(&target, &error))?;
        written.push(target);
        Ok::<_, Failure>(())
    };
    if !parcel.manifest.is_empty() {
        let mut bytes = Vec::new();
        parcel.manifest.write(&mut bytes).map_err(|error| {
            Failure::new(Exit::DoesNotHold, "could not write the manifest").because(&error)
        })?;
        write(targets.manifest(), &bytes)?;
    }
    if let (Some(target), Some(pem)) = (targets.anchor(), &parcel.trust.root_pem) {
        write(target, pem.as_bytes())?;
    }
    write(targets.proof.clone(), parcel.certificate.to_json().as_bytes())?;
    Ok(written)
}

/// Reads back what is written, and verifies it.
fn complete(
    targets: &Targets,
    job: &JobId,
    parcel: &Parcel,
    files: Vec<PathBuf>,
    outputs: bool,
) -> Result<Staged, Failure> {
    let proof = files::partial(&targets.proof, job);
    let bytes = fs::read(&proof).map_err(|error| {
        Failure::new(
            Exit::DoesNotHold,
            "could not read the proof that was just written",
        )
        .because(&error)
    })?;
    let folder = outputs.then(|| files::partial(&targets.outputs, job));
    let check = self_check(&bytes, parcel, folder.as_deref())?;
    Ok(Staged {
        targets: targets.clone(),
        job: job.clone(),
        files,
        outputs,
        again: false,
        check,
        certificate: parcel.certificate.clone(),
        trust: parcel.trust.clone(),
        instead: None,
    })
}

/// Saves results that cannot be put where they belong beside the state, where the outputs are already.
fn stage_elsewhere(
    targets: &Targets,
    rescue: &Path,
    job: &JobId,
    parcel: &Parcel,
    cancelled: &AtomicBool,
    failure: Failure,
) -> Result<Staged, Failure> {
    for path in targets.all() {
        let _ = files::remove(&files::partial(&path, job));
    }
    if cancelled.load(Ordering::Relaxed) {
        return Err(failure);
    }
    match files::private(rescue).map(|()| stage(&targets.inside(rescue), job, parcel, cancelled)) {
        Ok(Ok(staged)) => Ok(Staged {
            instead: Some(failure),
            ..staged
        }),
        // The first reason is the one to act on.
        _ => Err(failure),
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    let failure =
        Failure::new(Exit::DoesNotHold, format!("could not write {}", path.display())).because(error);
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => failure
            .help("free some space, or name a place on a larger disk with `--output-bom` and `--outputs`"),
        _ => failure,
    }
}

/// Verifies what was just written as a stranger would, with the trust anchor that is handed out with it.
fn self_check(
    proof: &[u8],
    parcel: &Parcel,
    outputs: Option<&Path>,
) -> Result<Result<Verified<Certificate>, Rejection>, Failure> {
    let mut options = parcel
        .trust
        .options()?
        .with_expected_nonce(parcel.nonce)
        .accepting_failed_jobs();
    if let Some(at) = parcel.at {
        options.time = at;
    }
    let check = || {
        let verified = aicert_verify::verify(Unverified::from_slice(proof)?, &options)?;
        if let Some(folder) = outputs {
            verify::check_outputs(&verified, folder, Some(&parcel.manifest))?;
        }
        Ok(verified)
    };
    Ok(check())
}

impl Staged {
    /// Gives everything its name, the proof last. Nothing is awaited in between: an interruption finds all or nothing,
    /// and a crash in between leaves no proof.
    pub(crate) fn publish(mut self) -> Result<Published, Failure> {
        let from = self.targets.clone();
        if let Some(obstacle) = from.obstacle(|path| self.is_published(path)) {
            self.instead = Some(Failure::new(
                Exit::DoesNotHold,
                format!("{} was put in the way while the job ran", obstacle.display()),
            ));
            self.targets = from.renamed(&self.job);
        }
        let to = &self.targets;
        let name = |staged: &Path| {
            let mut pairs = from.files().into_iter().zip(to.files());
            pairs.find(|(from, _)| from == staged).map(|(_, to)| to)
        };
        if self.outputs && !self.is_published(&to.outputs) {
            files::publish_folder(&files::partial(&from.outputs, &self.job), &to.outputs)
                .map_err(|error| unwritable(&to.outputs, &error))?;
        }
        // What an older proof had beside it belongs to nothing now.
        for stale in to
            .files()
            .iter()
            .filter(|file| to.replace && !self.files.contains(file))
        {
            files::remove(stale).map_err(|error| unwritable(stale, &error))?;
        }
        for staged in &self.files {
            let target = name(staged).unwrap_or_else(|| staged.clone());
            if self.is_published(&target) {
                let _ = files::remove(&files::partial(staged, &self.job));
                continue;
            }
            files::publish(&files::partial(staged, &self.job), &target, to.replace)
                .map_err(|error| unwritable(&target, &error))?;
        }
        Ok(Published {
            manifest: self.files.contains(&from.manifest()),
            targets: self.targets,
            trust: self.trust,
            check: self.check,
            certificate: self.certificate,
            outputs: self.outputs,
            times: None,
            instead: self.instead,
        })
    }
}

impl Published {
    pub(crate) fn exit(&self) -> Exit {
        match &self.check {
            Ok(verified) if verified.is_of_a_model() && self.instead.is_none() => Exit::Holds,
            _ => Exit::DoesNotHold,
        }
    }
}
