//! The durable trace of a job on another machine: there before the machine is, and gone after it.
//!
//! `<state>/runs/<job>` holds everything that is needed to go on with the job from another process: a record of how far it
//! is, the client's key, the configuration as it was sent, and what the machine was verified against.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use aicert_core::cloud::{CloudError, MachineId, MachineIdentity};
use aicert_core::digest::{ConfigDigest, Nonce};
use aicert_core::runtime::JobId;
use aicert_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::files;
use crate::lock::Lock;
use crate::place::Place;
use crate::state::{self, State};
use crate::targets::Targets;

const RECORD: &str = "record.json";
/// The client's key and certificate.
pub(crate) const CLIENT: &str = "client.pem";
/// The configuration as it was when the job began.
pub(crate) const CONFIGURATION: &str = "aicert.yaml";
/// What machine and proof are verified against.
pub(crate) const TRUST_ANCHOR: &str = "trust-anchor.pem";
pub(crate) const REFERENCE_VALUES: &str = "reference-values.json";
pub(crate) const POLICY: &str = "policy.yaml";
/// The machine as it was attested.
pub(crate) const SESSION: &str = "session.json";
/// What was sent to it.
pub(crate) const SENT: &str = "sent.json";
/// What came of it, once everything is here.
pub(crate) const RESULT: &str = "result.json";
/// Marks folders that are not complete yet, or not any more. No job's name begins like this.
const NEW: &str = ".new-";
const OLD: &str = ".old-";
/// A record is a few kilobytes.
const RECORD_LIMIT: u64 = 4 << 20;

/// How far a job is. Each is recorded before anything is done that only the next one could undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// There may be a machine, and it is not known which.
    Prepared,
    /// There is a machine, and nothing is known of what it booted.
    Booting,
    /// The machine was verified, and nothing has been sent to it.
    Attested,
    /// The job may have been sent.
    Submitted,
    /// There is a certificate, and it is on the machine.
    Finished,
    /// Everything is here, and the machine is of no use any more.
    Delivered,
}

impl Phase {
    /// For people, after "the machine".
    pub(crate) fn in_words(self) -> &'static str {
        match self {
            Self::Prepared => "is being made",
            Self::Booting => "boots",
            Self::Attested => "is attested",
            Self::Submitted => "has the job",
            Self::Finished => "has the results",
            Self::Delivered => "is done",
        }
    }
}

/// What is known of a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// The job.
    pub(crate) job: String,
    /// Since when it exists.
    pub(crate) created: Timestamp,
    /// The process that follows it, for people.
    pub(crate) process: u32,
    /// The configuration, and its digest.
    pub(crate) configuration: PathBuf,
    pub(crate) config: ConfigDigest,
    /// Where results go, absolute.
    pub(crate) targets: Targets,
    /// Where the user has the reference values and the policy, for the advice how to verify.
    pub(crate) reference_values: Vec<PathBuf>,
    pub(crate) policy: Option<PathBuf>,
    /// The challenge that the proof answers.
    pub(crate) nonce: Nonce,
    /// Who provides the machine; the value of `provider` in the configuration.
    pub(crate) provider: String,
    /// Which of its places the machine is at, where it has several; records of older versions know none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<String>,
    /// Whose machine it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<String>,
    /// Its name there.
    pub(crate) machine: Option<String>,
    /// What its evidence must say, where the provider knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<MachineIdentity>,
    /// Where its server listens.
    pub(crate) endpoint: Option<SocketAddr>,
    /// How long it may take from power-on until it is attested, in seconds.
    pub(crate) boot_limit: u64,
    /// Which networks may reach it, where that is filtered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) access: Vec<String>,
    /// How many GPUs the job needs at least, where the machine is made to suit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gpus: Option<u32>,
    /// After how long the machine ends, whatever it does, in seconds, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lifetime: Option<u64>,
    /// How far the job is.
    pub(crate) phase: Phase,
    /// How long each phase has taken so far, in milliseconds.
    #[serde(default)]
    pub(crate) times: Times,
}

/// How long the parts of a job took, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Times {
    /// Until the machine was switched on.
    pub(crate) machine: u64,
    /// From power-on until it was attested.
    pub(crate) attest: u64,
    /// Sending the job and its inputs.
    pub(crate) send: u64,
    /// From then until there was a certificate.
    pub(crate) run: u64,
    /// Bringing everything back, and verifying it.
    pub(crate) receive: u64,
}

impl Record {
    pub(crate) fn id(&self) -> Option<MachineId> {
        self.machine.clone().map(MachineId)
    }

    /// Where the machine is, or is to be; nothing when the record does not say so in a way that can be understood.
    pub(crate) fn place(&self) -> Option<Place> {
        match (&self.place, &self.owner) {
            (None, None) => Some(Place::only(&self.provider)),
            (Some(name), Some(owner)) => Some(Place::in_cloud(&self.provider, name, owner.parse().ok()?)),
            _ => None,
        }
    }

    /// Whether the machine is in a cloud.
    pub(crate) fn is_in_cloud(&self) -> bool {
        self.place.is_some()
    }

    /// When the machine ends at the latest.
    pub(crate) fn expires(&self) -> Option<Timestamp> {
        let lifetime = i64::try_from(self.lifetime?).ok()?;
        Some(Timestamp::from_unix(
            self.created.as_unix().saturating_add(lifetime),
        ))
    }

    /// Every file that may be left half written.
    pub(crate) fn partial_files(&self, job: &JobId) -> Vec<PathBuf> {
        let targets = self.targets.all();
        let mut partial: Vec<_> = targets.iter().map(|path| files::partial(path, job)).collect();
        partial.push(files::arriving(&self.targets.outputs, job));
        partial
    }
}

/// A job that this process follows, and nobody else.
#[derive(Debug)]
pub(crate) struct Run {
    job: JobId,
    folder: PathBuf,
    record: Record,
    /// Held for as long as this is.
    _lock: Lock,
}

impl Run {
    pub(crate) fn job(&self) -> &JobId {
        &self.job
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// Changes the record, durably.
    pub(crate) fn update(&mut self, change: impl FnOnce(&mut Record)) -> Result<(), CloudError> {
        let mut record = self.record.clone();
        change(&mut record);
        let bytes = to_json(&record).map_err(|error| state::storage("write", &self.folder, error))?;
        self.write(RECORD, &bytes)?;
        self.record = record;
        Ok(())
    }

    /// Keeps something beside the record, durably; only its owner can read it.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), CloudError> {
        let path = self.folder.join(name);
        files::replace_secret(&path, bytes).map_err(|error| state::storage("write", &path, error))
    }

    /// What is kept beside the record.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>, CloudError> {
        let path = self.folder.join(name);
        fs::read(&path).map_err(|error| state::storage("read", &path, error))
    }

    /// The path of something beside the record.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Removes what is half written.
    pub(crate) fn clear(&self) -> Result<(), CloudError> {
        for partial in self.record.partial_files(&self.job) {
            files::remove(&partial).map_err(|error| state::storage("remove", &partial, error))?;
        }
        Ok(())
    }

    /// Forgets the job: there is nothing left that belongs to it.
    pub(crate) fn forget(self) -> Result<(), CloudError> {
        self.clear()?;
        forget(&self.folder)
    }
}

/// Removes the folder of a job, for whoever holds its lock. It loses its name first: what is left of it, should this be cut
/// off, must not be taken for a job that did not come far.
fn forget(folder: &Path) -> Result<(), CloudError> {
    let mut name = std::ffi::OsString::from(OLD);
    name.push(folder.file_name().unwrap_or_default());
    let old = folder.with_file_name(name);
    match fs::rename(folder, &old) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(state::storage("remove", folder, error)),
        Ok(()) => {}
    }
    // What cannot be made durable or removed now, the next list removes.
    let _ = files::sync_folder(files::folder_of(folder));
    let _ = files::remove(&old);
    Ok(())
}

/// What becomes of the wish to follow a job.
#[derive(Debug)]
pub(crate) enum Take {
    /// This process follows it from here on.
    Run(Run),
    /// Another process does.
    Held {
        /// Which, when it last wrote that down.
        process: Option<u32>,
    },
    /// Nobody can: its record cannot be read.
    Unreadable(Unreadable),
    /// It is not there.
    Gone,
}

/// A job that this process holds, and of which it knows nothing.
#[derive(Debug)]
pub(crate) struct Unreadable {
    folder: PathBuf,
    /// Why it cannot be read.
    pub(crate) why: String,
    _lock: Lock,
}

impl Unreadable {
    /// Removes what there is of it.
    pub(crate) fn forget(self) -> Result<(), CloudError> {
        forget(&self.folder)
    }
}

/// A job that somebody has begun.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) job: JobId,
    /// Or why it cannot be read.
    pub(crate) record: Result<Record, String>,
    /// Whether a process follows it.
    pub(crate) in_use: bool,
}

impl Known {
    /// Whether its record says that its machine is at a place.
    pub(crate) fn is_at(&self, place: &Place) -> bool {
        let record = self.record.as_ref().ok();
        record.and_then(Record::place).is_some_and(|its| its == *place)
    }
}

/// The jobs on other machines of one state folder.
#[derive(Debug, Clone)]
pub(crate) struct Runs(PathBuf);

impl Runs {
    pub(crate) fn of(state: &State) -> Self {
        Self(state.folder.join("runs"))
    }

    /// Records a job, with what is kept beside the record: whatever is listed is complete.
    pub(crate) fn begin(&self, record: Record, beside: &[(&str, &[u8])]) -> Result<Run, CloudError> {
        state::private_folder(&self.0)?;
        let job: JobId = record
            .job
            .parse()
            .map_err(|_| state::storage("record the job in", &self.0, io::ErrorKind::InvalidInput.into()))?;
        let hidden = self.0.join(format!("{NEW}{job}"));
        let folder = self.0.join(job.as_str());
        let make = || -> io::Result<Lock> {
            fs::DirBuilder::new().mode(0o700).create(&hidden)?;
            let lock = Lock::make(&hidden)?;
            for (name, bytes) in beside {
                files::write_secret(&hidden.join(name), bytes)?;
            }
            files::write_secret(&hidden.join(RECORD), &to_json(&record)?)?;
            files::sync_folder(&hidden)?;
            if files::exists(&folder) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(&hidden, &folder)?;
            files::sync_folder(&self.0)?;
            Ok(lock)
        };
        match make() {
            Ok(lock) => Ok(Run {
                job,
                folder,
                record,
                _lock: lock,
            }),
            Err(error) => {
                let _ = files::remove(&hidden);
                Err(state::storage("record the job in", &self.0, error))
            }
        }
    }

    /// Every job, the oldest first.
    pub(crate) fn list(&self) -> Result<Vec<Known>, CloudError> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(state::storage("read the state folder", &self.0, error)),
        };
        let mut names: Vec<String> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        self.sweep(&names);
        let jobs = names.into_iter().filter_map(|name| name.parse::<JobId>().ok());
        Ok(jobs.filter_map(|job| self.known(&job)).collect())
    }

    /// What is known of one job; nothing when it is not there.
    pub(crate) fn known(&self, job: &JobId) -> Option<Known> {
        let folder = self.0.join(job.as_str());
        let in_use = Lock::is_held(&folder);
        let record = read_record(&folder);
        // Last: it may have been forgotten meanwhile.
        files::exists(&folder).then(|| Known {
            job: job.clone(),
            record,
            in_use,
        })
    }

    /// Follows a job from here on.
    pub(crate) fn take(&self, job: &JobId) -> Result<Take, CloudError> {
        let folder = self.0.join(job.as_str());
        let lock = match Lock::take(&folder) {
            // Somebody has removed the lock alone, by hand.
            Err(error) if error.kind() == io::ErrorKind::NotFound && files::exists(&folder) => {
                Lock::make(&folder).map(Some)
            }
            other => other,
        };
        let lock = match lock {
            Ok(Some(lock)) => lock,
            Ok(None) => {
                let process = read_record(&folder).map(|record| record.process).ok();
                return Ok(Take::Held { process });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Take::Gone),
            Err(error) => return Err(state::storage("lock", &folder, error)),
        };
        // Whoever had the lock may have forgotten the job with it.
        if !files::exists(&folder) {
            return Ok(Take::Gone);
        }
        let record = match read_record(&folder) {
            Ok(record) => record,
            Err(why) => {
                return Ok(Take::Unreadable(Unreadable {
                    folder,
                    why,
                    _lock: lock,
                }));
            }
        };
        let mut run = Run {
            job: job.clone(),
            folder,
            record,
            _lock: lock,
        };
        // For people alone: that the disk is full, as of the machine that is to be removed, stops nobody.
        let _ = run.update(|record| record.process = std::process::id());
        Ok(Take::Run(run))
    }

    /// Removes folders whose making was interrupted, as nothing was made on their account, and those whose removal was.
    fn sweep(&self, names: &[String]) {
        for name in names {
            let folder = self.0.join(name);
            let abandoned =
                name.starts_with(OLD) || (name.starts_with(NEW) && files::is_older_than_a_minute(&folder));
            if abandoned && !Lock::is_held(&folder) {
                let _ = files::remove(&folder);
            }
        }
    }
}

fn to_json(record: &Record) -> io::Result<Vec<u8>> {
    // Fails for paths that are not UTF-8.
    serde_json::to_vec_pretty(record).map_err(io::Error::from)
}

/// Reads the record in the folder of a job, or says why it cannot be read.
fn read_record(folder: &Path) -> Result<Record, String> {
    let path = folder.join(RECORD);
    let unreadable =
        |why: &dyn std::fmt::Display| format!("its record {} cannot be read: {why}", path.display());
    let length = fs::metadata(&path).map_err(|error| unreadable(&error))?.len();
    if length > RECORD_LIMIT {
        return Err(unreadable(&format!("it has {length} bytes")));
    }
    let bytes = fs::read(&path).map_err(|error| unreadable(&error))?;
    serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn state(folder: &Path) -> State {
        State {
            folder: folder.join("state"),
            cache: folder.join("cache"),
        }
    }

    pub(in crate::remote) fn record(job: &str, folder: &Path) -> Record {
        let args = crate::args::RunArgs {
            output_bom: Some(folder.join("proof.json")),
            outputs: Some(folder.join("model")),
            ..Default::default()
        };
        Record {
            job: job.into(),
            created: Timestamp::now(),
            process: std::process::id(),
            configuration: folder.join("aicert.yaml"),
            config: ConfigDigest::of(b"x"),
            targets: Targets::of(&args, true).unwrap().absolute().unwrap(),
            reference_values: Vec::new(),
            policy: None,
            boot_limit: 300,
            nonce: Nonce::from_bytes([3; 32]),
            provider: "qemu".into(),
            place: None,
            owner: None,
            access: Vec::new(),
            gpus: None,
            lifetime: None,
            machine: None,
            identity: None,
            endpoint: None,
            phase: Phase::Prepared,
            times: Times::default(),
        }
    }

    #[test]
    fn a_run_is_recorded_followed_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let runs = Runs::of(&state(folder.path()));
        assert!(runs.list().unwrap().is_empty());
        let begun = runs.begin(record("a", folder.path()), &[("key", b"secret")]);
        let mut run = begun.unwrap();
        assert_eq!(run.read("key").unwrap(), b"secret");
        let mode = |name: &str| {
            let metadata = fs::metadata(run.path(name)).unwrap();
            metadata.permissions().mode() & 0o777
        };
        assert_eq!((mode("key"), mode(RECORD), mode(".")), (0o600, 0o600, 0o700));
        assert!(
            runs.begin(record("a", folder.path()), &[]).is_err(),
            "one job is begun once"
        );
        run.update(|record| {
            record.phase = Phase::Submitted;
            record.machine = Some("m".into());
        })
        .unwrap();
        let known = runs.list().unwrap();
        assert!(known.len() == 1 && known[0].in_use);
        let read = known[0].record.as_ref().unwrap();
        assert_eq!(
            (read.phase, read.machine.as_deref()),
            (Phase::Submitted, Some("m"))
        );
        let own = Some(std::process::id());
        assert!(
            matches!(runs.take(&known[0].job).unwrap(), Take::Held { process } if process == own),
            "another one follows it"
        );

        // The kernel gives the lock back whatever way a process ends.
        let job = run.job().clone();
        drop(run);
        assert!(!runs.list().unwrap()[0].in_use);
        let run = taken(&runs, &job);
        assert_eq!(run.record().phase, Phase::Submitted);
        let partial = files::partial(&folder.path().join("proof.json"), &job);
        fs::write(&partial, "half").unwrap();
        run.forget().unwrap();
        assert!(runs.list().unwrap().is_empty() && !files::exists(&partial));
        assert!(matches!(runs.take(&job).unwrap(), Take::Gone));
        assert_eq!(fs::read_dir(&runs.0).unwrap().count(), 0);
    }

    fn taken(runs: &Runs, job: &JobId) -> Run {
        match runs.take(job).unwrap() {
            Take::Run(run) => run,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn damaged_records_are_listed_and_can_be_removed() {
        let folder = tempfile::tempdir().unwrap();
        let runs = Runs::of(&state(folder.path()));
        let run = runs.begin(record("a", folder.path()), &[]).unwrap();
        fs::write(run.path(RECORD), "{").unwrap();
        drop(run);
        let known = runs.list().unwrap();
        let why = known[0].record.as_ref().unwrap_err();
        assert!(
            why.contains("record.json cannot be read: EOF") && !known[0].in_use,
            "{why}"
        );
        let Take::Unreadable(unreadable) = runs.take(&known[0].job).unwrap() else {
            panic!("it cannot be followed");
        };
        assert_eq!(unreadable.why, *why);
        assert!(matches!(
            runs.take(&known[0].job).unwrap(),
            Take::Held { process: None }
        ));
        unreadable.forget().unwrap();
        assert!(runs.list().unwrap().is_empty());
    }

    #[test]
    fn a_lock_that_somebody_removed_keeps_nobody_out() {
        let folder = tempfile::tempdir().unwrap();
        let runs = Runs::of(&state(folder.path()));
        let run = runs.begin(record("a", folder.path()), &[]).unwrap();
        let job = run.job().clone();
        fs::remove_file(run.path("owner.lock")).unwrap();
        drop(run);
        let run = taken(&runs, &job);
        assert!(matches!(runs.take(&job).unwrap(), Take::Held { .. }));
        run.forget().unwrap();
        assert!(runs.list().unwrap().is_empty());
    }

    #[test]
    fn a_job_whose_removal_was_cut_off_is_no_job_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let runs = Runs::of(&state(folder.path()));
        drop(runs.begin(record("a", folder.path()), &[]).unwrap());
        let old = runs.0.join(".old-b");
        fs::create_dir(&old).unwrap();
        // The process that removes it may be at it.
        let lock = Lock::make(&old).unwrap();
        assert_eq!(runs.list().unwrap().len(), 1);
        assert!(old.exists());
        drop(lock);
        assert_eq!(runs.list().unwrap().len(), 1);
        assert!(!old.exists());
    }

    #[test]
    fn what_was_never_complete_is_swept_later() {
        let folder = tempfile::tempdir().unwrap();
        let runs = Runs::of(&state(folder.path()));
        runs.begin(record("a", folder.path()), &[]).unwrap();
        let hidden = runs.0.join(".new-b");
        fs::create_dir(&hidden).unwrap();
        runs.list().unwrap();
        assert!(hidden.exists(), "somebody may be making it right now");
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(120);
        fs::File::open(&hidden).unwrap().set_modified(then).unwrap();
        assert_eq!(runs.list().unwrap().len(), 1);
        assert!(!hidden.exists());
    }
}
