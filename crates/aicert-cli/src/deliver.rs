//! From what a job left in its workspace to files of the user: complete, checked, and under their names only then.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aicert_core::certificate::Certificate;
use aicert_core::digest::Nonce;
use aicert_core::manifest::Manifest;
use aicert_core::pipeline::{LOG_FILE, OUTPUTS_DIRECTORY, Outcome};
use aicert_core::runtime::JobId;
use aicert_core::time::Timestamp;
use aicert_verify::{Options, Rejection, TrustAnchors, Unverified, Verified};

use crate::error::{Exit, Failure};
use crate::files;
use crate::targets::Targets;
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
    outcome: Outcome,
    nonce: Nonce,
    root_pem: Option<String>,
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
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.rescue)
            .ok()?;
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
        root_pem: Option<String>,
    ) -> Result<Staged, Failure> {
        let parcel = Parcel {
            outcome,
            nonce,
            root_pem,
        };
        let (targets, rescue, job) = (self.targets.clone(), self.rescue.clone(), self.job.clone());
        let (cancelled, busy) = (Arc::clone(&self.cancelled), Arc::clone(&self.busy));
        let staging = tokio::task::spawn_blocking(move || {
            let _busy = busy.lock().unwrap_or_else(PoisonError::into_inner);
            stage(&targets, &job, &parcel, &cancelled)
                .or_else(|failure| stage_elsewhere(&targets, &rescue, &job, &parcel, &cancelled, failure))
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
    check: Result<Verified<Certificate>, Rejection>,
    certificate: Certificate,
    /// Why the targets are not those that were asked for.
    instead: Option<Failure>,
}

/// Results that have their names.
pub(crate) struct Published {
    pub(crate) targets: Targets,
    pub(crate) check: Result<Verified<Certificate>, Rejection>,
    pub(crate) certificate: Certificate,
    pub(crate) outputs: bool,
    pub(crate) manifest: bool,
    /// Why the targets are not those that were asked for.
    pub(crate) instead: Option<Failure>,
}

fn stage(targets: &Targets, job: &JobId, parcel: &Parcel, cancelled: &AtomicBool) -> Result<Staged, Failure> {
    let Parcel {
        outcome,
        nonce,
        root_pem,
    } = parcel;
    let mut published = Vec::new();
    let mut write = |target: PathBuf, bytes: &[u8]| {
        files::write_new(&files::partial(&target, job), bytes)
            .map_err(|error| unwritable(&target, &error))?;
        published.push(target);
        Ok::<_, Failure>(())
    };
    if !outcome.manifest.is_empty() {
        let mut bytes = Vec::new();
        outcome.manifest.write(&mut bytes).map_err(|error| {
            Failure::new(Exit::DoesNotHold, "could not write the manifest").because(&error)
        })?;
        write(targets.manifest(), &bytes)?;
    }
    if let (Some(target), Some(pem)) = (targets.anchor(), root_pem) {
        write(target, pem.as_bytes())?;
    }
    let proof = outcome.certificate.to_json();
    write(targets.proof.clone(), proof.as_bytes())?;
    // It is no part of the proof: what matters is saved without it too.
    let log = targets.log();
    if fs::copy(&outcome.log_file, files::partial(&log, job)).is_ok() {
        published.insert(0, log);
    }
    let outputs = fs::read_dir(&outcome.outputs).is_ok_and(|mut entries| entries.next().is_some());
    let folder = files::partial(&targets.outputs, job);
    if outputs {
        files::stage_folder(&outcome.outputs, &folder, cancelled).map_err(|error| {
            Failure::new(
                Exit::DoesNotHold,
                format!("could not write the outputs to {}", targets.outputs.display()),
            )
            .because(&error)
            .maybe_help(error.advice())
        })?;
    }
    let checked = outputs.then_some(folder.as_path());
    let check = self_check(
        proof.as_bytes(),
        *nonce,
        root_pem.as_deref(),
        checked,
        &outcome.manifest,
    )?;
    Ok(Staged {
        targets: targets.clone(),
        job: job.clone(),
        files: published,
        outputs,
        check,
        certificate: outcome.certificate.clone(),
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
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(rescue);
    match made.map(|()| stage(&targets.inside(rescue), job, parcel, cancelled)) {
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
    nonce: Nonce,
    root_pem: Option<&str>,
    outputs: Option<&Path>,
    manifest: &Manifest,
) -> Result<Result<Verified<Certificate>, Rejection>, Failure> {
    let mut anchors = TrustAnchors::pinned();
    if let Some(pem) = root_pem {
        anchors = anchors.with_root(pem.as_bytes()).map_err(|error| {
            Failure::new(
                Exit::DoesNotHold,
                "the root of the simulated TPM is no trust anchor",
            )
            .because(&error)
        })?;
    }
    let options = Options::new(anchors, Timestamp::now())
        .with_expected_nonce(nonce)
        .accepting_failed_jobs();
    let check = || {
        let verified = aicert_verify::verify(Unverified::from_slice(proof)?, &options)?;
        if let Some(folder) = outputs {
            verify::check_outputs(&verified, folder, Some(manifest))?;
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
        if let Some(obstacle) = from.obstacle() {
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
        if self.outputs {
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
            files::publish(&files::partial(staged, &self.job), &target, to.replace)
                .map_err(|error| unwritable(&target, &error))?;
        }
        Ok(Published {
            manifest: self.files.contains(&from.manifest()),
            targets: self.targets,
            check: self.check,
            certificate: self.certificate,
            outputs: self.outputs,
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
