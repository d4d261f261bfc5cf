//! From what a job left in its workspace to files of the user: complete, checked, and under their names only then.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aicert_core::certificate::Certificate;
use aicert_core::digest::Nonce;
use aicert_core::manifest::Manifest;
use aicert_core::pipeline::Outcome;
use aicert_core::runtime::JobId;
use aicert_core::time::Timestamp;
use aicert_verify::{Options, Rejection, TrustAnchors, Unverified, Verified};
use serde_json::json;

use crate::args::RunArgs;
use crate::card;
use crate::error::{Exit, Failure};
use crate::files;
use crate::output::Terminal;
use crate::text::Text;
use crate::verify;

/// Where results go.
#[derive(Debug, Clone)]
pub(crate) struct Targets {
    pub(crate) proof: PathBuf,
    pub(crate) outputs: PathBuf,
    pub(crate) manifest: PathBuf,
    pub(crate) log: PathBuf,
    /// For a simulated TPM.
    pub(crate) anchor: Option<PathBuf>,
    /// Whether files that are there are replaced.
    pub(crate) replace: bool,
}

impl Targets {
    /// Checks, before any work is done, that everything can be put where it belongs.
    pub(crate) fn of(args: &RunArgs, simulated: bool) -> Result<Self, Failure> {
        let proof = args.output_bom.clone().unwrap_or_else(|| "proof.json".into());
        let outputs = args.outputs.clone().unwrap_or_else(|| "outputs".into());
        if proof.file_name().is_none() {
            return Err(Failure::misuse(format!("`--output-bom {}` names no file", proof.display())));
        }
        if outputs.file_name().is_none() {
            return Err(Failure::misuse(format!("`--outputs {}` names no new folder", outputs.display()))
                .help("name a folder that is empty or not there"));
        }
        let targets = Self {
            manifest: files::beside(&proof, ".manifest"),
            log: files::sibling(&proof, ".log"),
            anchor: simulated.then(|| files::sibling(&proof, ".ca.pem")),
            proof: proof.clone(),
            outputs: outputs.clone(),
            replace: args.force,
        };
        for path in targets.files() {
            check_file(path, args.force)?;
        }
        check_folder(&outputs)?;
        let folder = absolute(&proof)?;
        if folder.starts_with(absolute(&outputs)?) {
            return Err(Failure::misuse("the proof cannot be inside the folder of the outputs")
                .help("the outputs are what the proof speaks of: keep it beside them"));
        }
        Ok(targets)
    }

    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.proof, &self.manifest, &self.log].into_iter().chain(&self.anchor)
    }

    /// Everything that is written, absolute, the proof first.
    pub(crate) fn all(&self) -> Vec<PathBuf> {
        self.files()
            .chain([&self.outputs])
            .filter_map(|path| std::path::absolute(path).ok())
            .collect()
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    // The parent exists by now; links in it are followed.
    let parent = files::folder_of(path);
    let name = path.file_name().unwrap_or_default();
    fs::canonicalize(parent)
        .map(|parent| parent.join(name))
        .map_err(|error| Failure::misuse(format!("there is no folder {}", parent.display())).because(&error))
}

fn check_file(path: &Path, force: bool) -> Result<(), Failure> {
    let shown = path.display();
    let folder = files::folder_of(path);
    if !folder.is_dir() {
        return Err(Failure::misuse(format!("there is no folder {}", folder.display()))
            .help("make it, or name another place for the proof with `--output-bom`"));
    }
    if rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_err() {
        return Err(Failure::misuse(format!("no permission to write to the folder {}", folder.display()))
            .help("name another place for the proof with `--output-bom`"));
    }
    if files::exists(path) && !force {
        return Err(Failure::misuse(format!("{shown} is already there"))
            .help("`--force` replaces it; `--output-bom` names another proof"));
    }
    if path.is_dir() {
        return Err(Failure::misuse(format!("{shown} is a folder")).help("name a file with `--output-bom`"));
    }
    Ok(())
}

fn check_folder(folder: &Path) -> Result<(), Failure> {
    let shown = folder.display();
    let parent = files::folder_of(folder);
    if !parent.is_dir() {
        return Err(Failure::misuse(format!("there is no folder {}", parent.display()))
            .help("make it, or name another place for the outputs with `--outputs`"));
    }
    if rustix::fs::access(parent, rustix::fs::Access::WRITE_OK).is_err() {
        return Err(Failure::misuse(format!("no permission to write to the folder {}", parent.display()))
            .help("name another place for the outputs with `--outputs`"));
    }
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::misuse(format!("could not look at {shown}")).because(&error)),
        Ok(metadata) if !metadata.is_dir() => Err(Failure::misuse(format!("{shown} is no folder"))
            .help("`--outputs` names a folder that is empty or not there")),
        Ok(_) => match fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::misuse(format!("the folder {shown} is not empty"))
                .help("`--outputs` names a folder that is empty or not there: what is in it will be exactly what was measured")),
            Err(error) => Err(Failure::misuse(format!("could not read {shown}")).because(&error)),
        },
    }
}

/// The delivery of one job. Until [`Staged::publish`], everything has hidden names that a cleanup removes.
pub(crate) struct Delivery {
    targets: Targets,
    job: JobId,
    cancelled: Arc<AtomicBool>,
    /// Locked while a thread stages.
    busy: Arc<Mutex<()>>,
}

impl Delivery {
    pub(crate) fn new(targets: Targets, job: JobId) -> Self {
        Self {
            targets,
            job,
            cancelled: Arc::default(),
            busy: Arc::default(),
        }
    }

    /// Tells a thread that stages to stop.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Waits until no thread stages.
    pub(crate) async fn wait(&self) {
        let busy = Arc::clone(&self.busy);
        let _ = tokio::task::spawn_blocking(move || {
            drop(busy.lock().unwrap_or_else(PoisonError::into_inner));
        })
        .await;
    }

    /// Writes everything under hidden names, reads the proof back, and verifies it against the outputs.
    pub(crate) async fn stage(
        &self,
        outcome: Outcome,
        nonce: Nonce,
        root_pem: Option<String>,
    ) -> Result<Staged, Failure> {
        let (targets, job) = (self.targets.clone(), self.job.clone());
        let (cancelled, busy) = (Arc::clone(&self.cancelled), Arc::clone(&self.busy));
        let staging = tokio::task::spawn_blocking(move || {
            let _busy = busy.lock().unwrap_or_else(PoisonError::into_inner);
            stage(targets, &job, outcome, nonce, root_pem, &cancelled)
        });
        staging
            .await
            .map_err(|error| Failure::new(Exit::DoesNotHold, "writing the results was interrupted").because(&error))?
    }
}

/// Results that are complete, under hidden names.
pub(crate) struct Staged {
    /// From, to; the proof last.
    files: Vec<(PathBuf, PathBuf)>,
    outputs: Option<(PathBuf, PathBuf)>,
    manifest: bool,
    replace: bool,
    stale: Vec<PathBuf>,
    check: Result<Verified<Certificate>, Rejection>,
    certificate: Certificate,
}

/// Results that have their names.
pub(crate) struct Published {
    check: Result<Verified<Certificate>, Rejection>,
    certificate: Certificate,
    outputs: bool,
    manifest: bool,
}

fn stage(
    targets: Targets,
    job: &JobId,
    outcome: Outcome,
    nonce: Nonce,
    root_pem: Option<String>,
    cancelled: &AtomicBool,
) -> Result<Staged, Failure> {
    let proof = outcome.certificate.to_json();
    let mut files_to_publish = Vec::new();
    let mut write = |target: &Path, bytes: &[u8]| {
        let partial = files::partial(target, job);
        files::write_new(&partial, bytes).map_err(|error| unwritable(target, &error))?;
        files_to_publish.push((partial, target.to_owned()));
        Ok::<_, Failure>(())
    };
    if !outcome.manifest.is_empty() {
        let mut bytes = Vec::new();
        outcome.manifest.write(&mut bytes).map_err(|error| {
            Failure::new(Exit::DoesNotHold, "could not write the manifest").because(&error)
        })?;
        write(&targets.manifest, &bytes)?;
    }
    if let (Some(target), Some(pem)) = (&targets.anchor, &root_pem) {
        write(target, pem.as_bytes())?;
    }
    let log = files::partial(&targets.log, job);
    match fs::copy(&outcome.log_file, &log) {
        Ok(_) => files_to_publish.push((log, targets.log.clone())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(unwritable(&targets.log, &error)),
    }
    let partial = files::partial(&targets.proof, job);
    files::write_new(&partial, proof.as_bytes()).map_err(|error| unwritable(&targets.proof, &error))?;
    files_to_publish.push((partial, targets.proof.clone()));

    let left_outputs = fs::read_dir(&outcome.outputs).is_ok_and(|mut entries| entries.next().is_some());
    let outputs = left_outputs
        .then(|| {
            let partial = files::partial(&targets.outputs, job);
            files::stage_folder(&outcome.outputs, &partial, cancelled).map_err(|error| {
                Failure::new(
                    Exit::DoesNotHold,
                    format!("could not write the outputs to {}", targets.outputs.display()),
                )
                .because(&error)
                .maybe_help(error.advice())
            })?;
            Ok::<_, Failure>((partial, targets.outputs.clone()))
        })
        .transpose()?;
    let folder = outputs.as_ref().map(|(partial, _)| partial.as_path());
    let check = self_check(proof.as_bytes(), nonce, root_pem.as_deref(), folder, &outcome.manifest)?;
    let stale = targets
        .files()
        .filter(|target| targets.replace && !files_to_publish.iter().any(|(_, to)| to == *target))
        .cloned()
        .collect();
    Ok(Staged {
        stale,
        files: files_to_publish,
        outputs,
        manifest: !outcome.manifest.is_empty(),
        replace: targets.replace,
        check,
        certificate: outcome.certificate,
    })
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::new(Exit::DoesNotHold, format!("could not write {}", path.display())).because(error);
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            failure.help("free some space, or name a place on a larger disk with `--output-bom` and `--outputs`")
        }
        io::ErrorKind::AlreadyExists => failure.help("somebody put it there while the job ran; run again with another name"),
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
            Failure::new(Exit::DoesNotHold, "the root of the simulated TPM is no trust anchor").because(&error)
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
    pub(crate) fn publish(self) -> Result<Published, Failure> {
        if let Some((from, to)) = &self.outputs {
            files::publish_folder(from, to).map_err(|error| unwritable(to, &error))?;
        }
        // What an older proof had beside it belongs to nothing now.
        for stale in &self.stale {
            files::remove(stale).map_err(|error| unwritable(stale, &error))?;
        }
        for (from, to) in &self.files {
            files::publish(from, to, self.replace).map_err(|error| unwritable(to, &error))?;
        }
        Ok(Published {
            check: self.check,
            certificate: self.certificate,
            outputs: self.outputs.is_some(),
            manifest: self.manifest,
        })
    }
}

impl Published {
    pub(crate) fn exit(&self) -> Exit {
        match &self.check {
            Ok(verified) if verified.is_of_a_model() => Exit::Holds,
            _ => Exit::DoesNotHold,
        }
    }
}

/// Tells the user what was made, and how anybody checks it.
pub(crate) fn report(published: &Published, targets: &Targets, terminal: Terminal) {
    let command = verify_command(published, targets);
    match &published.check {
        Ok(verified) => {
            let text = card::verified(verified)
                .line_end()
                .append(written(published, targets))
                .plain(if verified.is_of_a_model() {
                    "Anybody verifies it with\n  "
                } else {
                    "Anybody can look at it with\n  "
                })
                .bold(&card::shown_command(&command))
                .line_end();
            terminal.result(&text);
            let mut value = card::verified_json(verified);
            if let serde_json::Value::Object(object) = &mut value {
                object.insert("files".into(), files_json(published, targets));
                object.insert("verify_command".into(), json!(command));
            }
            terminal.json_result(&value);
            if !verified.is_of_a_model() {
                let how = card::how_it_ended(&verified.log());
                let log = targets.log.display();
                terminal.error(
                    &Failure::new(Exit::DoesNotHold, format!("the job failed: {how}"))
                        .help(format!("what it printed is in {log}; the proof says that it failed, and certifies no model")),
                );
            }
        }
        Err(rejection) => {
            let text = card::rejection(&targets.proof, rejection.failures())
                .line_end()
                .append(written(published, targets));
            terminal.result(&text);
            terminal.json_result(&json!({
                "verified": false,
                "failures": rejection.failures(),
                "unverified_claims": { "result": published.certificate.result },
                "files": files_json(published, targets),
            }));
            terminal.error(
                &Failure::new(Exit::DoesNotHold, "the proof was written, but does not verify")
                    .help("this version of aicert may not be able to verify proofs of this machine: see the reasons above"),
            );
        }
    }
}

fn written(published: &Published, targets: &Targets) -> Text {
    let mut text = Text::from("Wrote ").append(crate::run::shown(&targets.proof));
    if published.outputs {
        text = text.plain(" and the outputs in ").append(crate::run::shown(&targets.outputs));
    }
    text.plain(".\n")
}

fn files_json(published: &Published, targets: &Targets) -> serde_json::Value {
    json!({
        "proof": targets.proof,
        "outputs": published.outputs.then_some(&targets.outputs),
        "manifest": published.manifest.then_some(&targets.manifest),
        "trust_anchor": targets.anchor,
        "log": targets.log,
    })
}

fn verify_command(published: &Published, targets: &Targets) -> Vec<String> {
    let verb = if published.exit() == Exit::Holds { "verify" } else { "inspect" };
    let mut command: Vec<String> = ["aicert", verb].map(str::to_owned).into();
    command.push(targets.proof.display().to_string());
    if let Some(anchor) = &targets.anchor {
        command.extend(["--trust-anchor".to_owned(), anchor.display().to_string()]);
    }
    if published.outputs {
        command.extend(["--outputs".to_owned(), targets.outputs.display().to_string()]);
    }
    command
}
