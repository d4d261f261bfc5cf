//! Where machines are on this machine's disk: `<state>/machines/<job>`, one folder for each, complete or not.

mod files;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aicert_core::runtime::JobId;
use aicert_swtpm_testing::SwtpmInstance;

pub(crate) use self::files::{Lock, read, replace, sync, write_new};
use crate::error::Failure;
use crate::process::Identity;
use crate::record::Record;

/// Marks folders that are not complete yet, or not any more. No job's name begins like this.
const HIDDEN: &str = ".";
const LOCK: &str = ".lock";

const RECORD: &str = "record.json";
const OWN_LOCK: &str = "lock";
const MARK: &str = "given-up";

/// The folder of the TPM's state, inside a machine's.
pub(crate) const TPM: &str = "tpm";
/// The file with what is told to the machine before it boots.
pub(crate) const PROVISIONING: &str = "provisioning.json";
/// The firmware's variables.
pub(crate) const VARIABLES: &str = "variables.fd";
/// The disk: what differs from the image.
pub(crate) const DISK: &str = "disk.qcow2";
/// QEMU's monitor.
pub(crate) const MONITOR: &str = "monitor";
/// The control channel of the software TPM.
pub(crate) const TPM_CONTROL: &str = "tpm-control";
/// What the machine writes to its first serial line.
pub(crate) const CONSOLE: &str = "console.log";

/// The programs that run for a machine; each is recorded in a file of that name, and writes its complaints to another.
pub(crate) const QEMU: &str = "qemu";
pub(crate) const SWTPM: &str = "swtpm";
pub(crate) const QEMU_IMG: &str = "qemu-img";
const PROGRAMS: [&str; 3] = [QEMU, SWTPM, QEMU_IMG];

/// How long to wait for somebody else who is at work on the same machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The largest record that is read.
const RECORD_LIMIT: u64 = 64 << 10;

/// The folder of all machines.
#[derive(Debug)]
pub(crate) struct Machines(PathBuf);

impl Machines {
    /// Uses, and makes where needed, a folder below `state`.
    pub(crate) fn open(state: &Path) -> Result<Self, Failure> {
        let machines = state.join("machines");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&machines)
            .map_err(Failure::storage("make the state folder", &machines))?;
        let machines = machines
            .canonicalize()
            .map_err(Failure::storage("find the state folder", &machines))?;
        for folder in [machines.parent().unwrap_or(&machines), &machines] {
            let owner = fs::metadata(folder).map_err(Failure::storage("look at the state folder", folder))?;
            if owner.uid() != rustix::process::geteuid().as_raw() || owner.mode() & 0o022 != 0 {
                return Err(Failure::Forbidden {
                    what: format!(
                        "the state folder {} can be changed by other users",
                        folder.display()
                    ),
                    advice: "name another one, or `chmod 700` it".into(),
                });
            }
        }
        Ok(Self(machines))
    }

    /// The folder of a job's machine, which need not be there.
    pub(crate) fn folder(&self, job: &JobId) -> Folder {
        Folder(self.0.join(job.as_str()))
    }

    /// Makes the folder of a machine, with its record in it and nothing else: under a hidden name first, so that whatever
    /// is listed has a record. The folder is locked. Nothing is made when the machine is `given_up` already.
    pub(crate) fn begin(
        &self,
        job: &JobId,
        record: &Record,
        given_up: &AtomicBool,
    ) -> Result<(Folder, Lock), Failure> {
        let _all = Lock::wait(&self.0.join(LOCK), PATIENCE)?;
        if given_up.load(Ordering::Relaxed) {
            return Err(Failure::GivenUp);
        }
        self.sweep();
        let hidden = Folder(self.0.join(format!("{HIDDEN}new-{job}")));
        let folder = self.folder(job);
        if folder.exists() {
            return Err(Failure::Exists { job: job.to_string() });
        }
        let make = || -> io::Result<()> {
            fs::DirBuilder::new().mode(0o700).create(&hidden.0)?;
            crate::make::instant("hidden");
            write_new(&hidden.at(RECORD), &serde_json::to_vec_pretty(record)?)?;
            sync(&hidden.0)
        };
        make().map_err(Failure::storage("make the folder of a machine,", &hidden.0))?;
        let lock = Lock::wait(&hidden.at(OWN_LOCK), PATIENCE)?;
        crate::make::instant("locked");
        fs::rename(&hidden.0, &folder.0)
            .and_then(|()| sync(&self.0))
            .map_err(Failure::storage("make the folder of a machine,", &folder.0))?;
        crate::make::instant("listed");
        Ok((folder, lock))
    }

    /// The jobs of all machines, in order.
    pub(crate) fn jobs(&self) -> Result<Vec<JobId>, Failure> {
        // Whoever makes a folder right now has the lock; what is hidden then is theirs.
        if let Ok(Some(_all)) = Lock::take(&self.0.join(LOCK)) {
            self.sweep();
        }
        let entries = fs::read_dir(&self.0).map_err(Failure::storage("read the state folder", &self.0))?;
        let mut jobs: Vec<JobId> = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        jobs.sort();
        Ok(jobs)
    }

    /// Removes folders whose making or removal was cut off: nothing runs on their account. Needs the lock of all machines.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.0) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let hidden = name.to_str().is_some_and(|name| name.starts_with(HIDDEN));
            if hidden && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                // What cannot be removed is tried again next time.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Ends what runs for a machine and removes its folder; what is not there is gone.
    pub(crate) fn remove(&self, job: &JobId) -> Result<(), Failure> {
        let folder = self.folder(job);
        if !folder.exists() {
            // Somebody may be about to give it its name; who comes later sees that it was given up.
            drop(Lock::wait(&self.0.join(LOCK), PATIENCE)?);
            if !folder.exists() {
                return Ok(());
            }
        }
        // Whoever still makes this machine gives up at the next step, and ends its work on it.
        let _ = write_new(&folder.at(MARK), b"");
        match Lock::wait(&folder.at(OWN_LOCK), PATIENCE) {
            Ok(lock) => self.remove_locked(&folder, lock),
            // Somebody else has removed it.
            Err(_) if !folder.exists() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The same, for whoever has the lock.
    pub(crate) fn remove_locked(&self, folder: &Folder, _lock: Lock) -> Result<(), Failure> {
        if !folder.exists() {
            return Ok(());
        }
        crate::make::instant("removing");
        folder.end_processes()?;
        crate::make::instant("ended");
        let failed = Failure::storage("remove the folder of a machine,", &folder.0);
        folder.empty().map_err(&failed)?;
        crate::make::instant("emptied");
        let Some(name) = folder.0.file_name().and_then(|name| name.to_str()) else {
            return Ok(());
        };
        // The record goes last, and in one step: until then the machine is listed.
        let hidden = self.0.join(format!("{HIDDEN}old-{name}-{}", std::process::id()));
        fs::rename(&folder.0, &hidden).map_err(&failed)?;
        crate::make::instant("unlisted");
        // Should it be cut off here, the next list sweeps.
        let _ = fs::remove_dir_all(&hidden);
        sync(&self.0).map_err(failed)
    }
}

/// The folder of one machine.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a file in it.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The file with what a program complains about.
    pub(crate) fn messages(&self, program: &str) -> PathBuf {
        self.at(&format!("{program}.messages"))
    }

    pub(crate) fn exists(&self) -> bool {
        fs::symlink_metadata(&self.0).is_ok()
    }

    /// Whether somebody has asked for the machine to be removed.
    pub(crate) fn is_given_up(&self) -> bool {
        fs::symlink_metadata(self.at(MARK)).is_ok() || !self.exists()
    }

    /// Whether somebody makes or removes the machine right now.
    pub(crate) fn is_locked(&self) -> bool {
        matches!(Lock::take(&self.at(OWN_LOCK)), Ok(None))
    }

    /// What the machine was made for; nothing when that is not there or damaged.
    pub(crate) fn record(&self) -> Option<Record> {
        let bytes = read(&self.at(RECORD), RECORD_LIMIT).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Replaces the record.
    pub(crate) fn write_record(&self, record: &Record) -> io::Result<()> {
        replace(&self.at(RECORD), &serde_json::to_vec_pretty(record)?)?;
        sync(&self.0)
    }

    /// Writes down which process a program is.
    pub(crate) fn write_process(&self, program: &str, identity: &Identity) -> io::Result<()> {
        replace(&self.process_file(program), &serde_json::to_vec(identity)?)
    }

    /// Which process a program is; nothing when it was never started. Where that cannot be read, it may run.
    pub(crate) fn process(&self, program: &'static str) -> Result<Option<Identity>, Failure> {
        let path = self.process_file(program);
        let bytes = match read(&path, RECORD_LIMIT) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.unknown(program, path, error)),
        };
        match serde_json::from_slice(&bytes) {
            Ok(process) => Ok(Some(process)),
            Err(error) => Err(self.unknown(program, path, error.into())),
        }
    }

    /// Whether a program runs.
    pub(crate) fn runs(&self, program: &'static str) -> Result<bool, Failure> {
        match self.process(program)? {
            Some(process) => self.is_alive(program, &process),
            None => Ok(false),
        }
    }

    /// Whether the process of a program runs.
    pub(crate) fn is_alive(&self, program: &'static str, process: &Identity) -> Result<bool, Failure> {
        let path = || Path::new("/proc").join(process.pid.to_string());
        process
            .is_alive()
            .map_err(|error| self.unknown(program, path(), error))
    }

    fn unknown(&self, program: &'static str, path: PathBuf, source: io::Error) -> Failure {
        Failure::UnknownProcess {
            program,
            machine: self.0.clone(),
            path,
            source,
        }
    }

    fn process_file(&self, program: &str) -> PathBuf {
        process_file(&self.0, program)
    }

    fn end_processes(&self) -> Result<(), Failure> {
        let unending = |program, pid| move |source| Failure::Unending { program, pid, source };
        for program in PROGRAMS {
            if let Some(process) = self.process(program)? {
                process.kill().map_err(unending(program, process.pid))?;
            }
        }
        // The software TPM in which the keys were made, should its end have been cut off.
        if let Some(pid) = SwtpmInstance::pid_in(&self.at(TPM)) {
            let process = match Identity::of(pid) {
                Ok(process) => process,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(unending(SWTPM, pid)(error)),
            };
            if SwtpmInstance::pid_in(&self.at(TPM)) == Some(pid) {
                process.kill().map_err(unending(SWTPM, pid))?;
            }
        }
        Ok(())
    }

    /// Removes everything but the record and the lock.
    fn empty(&self) -> io::Result<()> {
        const ATTEMPTS: u32 = 40;
        let mut attempt = 0;
        loop {
            match self.try_empty() {
                // A process that was killed may have been in the middle of making a file.
                Err(_) if attempt < ATTEMPTS => {
                    attempt += 1;
                    thread::sleep(Duration::from_millis(50));
                }
                other => return other,
            }
        }
    }

    fn try_empty(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            if entry.file_name() == RECORD || entry.file_name() == OWN_LOCK {
                continue;
            }
            let removed = if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())
            } else {
                fs::remove_file(entry.path())
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The file that says which process a program of a machine is.
pub(crate) fn process_file(machine: &Path, program: &str) -> PathBuf {
    machine.join(format!("{program}.process"))
}

/// Opens a new file for what a program complains about.
pub(crate) fn messages(folder: &Folder, program: &str) -> io::Result<File> {
    File::create(folder.messages(program))
}

/// Waits, looking again and again, until something is there; nothing when it is not in time.
pub(crate) fn wait_for<R>(
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<R>, Failure>,
) -> Result<Option<R>, Failure> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Gated;
    use aicert_core::time::Timestamp;
    use std::os::unix::fs::PermissionsExt as _;

    fn record() -> Record {
        Record {
            job: "a".into(),
            created: Timestamp::now(),
            maker: Identity::own().unwrap(),
            instance_type: "tcg-1cpu-1024MiB".into(),
            image: "/image".into(),
            identity: None,
            endpoint: None,
        }
    }

    fn job() -> JobId {
        "a".parse().unwrap()
    }

    #[test]
    fn what_was_cut_off_before_it_was_listed_is_swept() {
        let state = tempfile::tempdir().unwrap();
        let machines = Machines::open(state.path()).unwrap();
        let (folder, lock) = machines
            .begin(&job(), &record(), &AtomicBool::new(false))
            .unwrap();
        assert_eq!(folder.record(), Some(record_of(&folder)));
        assert!(folder.is_locked());
        for hidden in [".new-b", ".old-c-1"] {
            fs::create_dir(state.path().join("machines").join(hidden)).unwrap();
        }
        // While somebody makes a folder, a hidden one may be theirs.
        let all = Lock::take(&state.path().join("machines/.lock")).unwrap().unwrap();
        assert_eq!(machines.jobs().unwrap(), [job()]);
        assert!(state.path().join("machines/.new-b").exists());
        drop(all);
        assert_eq!(machines.jobs().unwrap(), [job()]);
        assert!(!state.path().join("machines/.new-b").exists());
        assert!(!state.path().join("machines/.old-c-1").exists());

        assert!(matches!(
            machines.begin(&job(), &record(), &AtomicBool::new(false)),
            Err(Failure::Exists { .. })
        ));
        drop(lock);
        assert!(!folder.is_locked());
        machines.remove(&job()).unwrap();
        machines.remove(&job()).unwrap();
        assert!(matches!(
            machines.begin(&job(), &record(), &AtomicBool::new(true)),
            Err(Failure::GivenUp)
        ));
        assert!(machines.jobs().unwrap().is_empty());
    }

    fn record_of(folder: &Folder) -> Record {
        serde_json::from_slice(&fs::read(folder.at(RECORD)).unwrap()).unwrap()
    }

    #[test]
    fn a_damaged_record_hides_no_machine() {
        let state = tempfile::tempdir().unwrap();
        let machines = Machines::open(state.path()).unwrap();
        let (folder, lock) = machines
            .begin(&job(), &record(), &AtomicBool::new(false))
            .unwrap();
        drop(lock);
        for damaged in [&b""[..], b"{}", b"\xff", &[b' '; 100_000]] {
            fs::write(folder.at(RECORD), damaged).unwrap();
            assert_eq!(folder.record(), None);
            assert_eq!(machines.jobs().unwrap(), [job()]);
        }
        machines.remove(&job()).unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn a_process_that_cannot_be_known_is_not_forgotten() {
        let state = tempfile::tempdir().unwrap();
        let machines = Machines::open(state.path()).unwrap();
        let (folder, lock) = machines
            .begin(&job(), &record(), &AtomicBool::new(false))
            .unwrap();
        drop(lock);
        assert!(!folder.runs(QEMU).unwrap(), "it was never started");
        let messages = messages(&folder, QEMU).unwrap();
        let process = Gated::start(folder.path(), messages, Path::new("sleep"), &["60".into()]).unwrap();
        let identity = process.identity().clone();
        folder.write_process(QEMU, &identity).unwrap();
        process.release().unwrap();
        let file = folder.process_file(QEMU);
        let written = fs::read(&file).unwrap();
        // What cannot be read at all, as when too many files are open or the disk fails, and what says too little.
        let unreadable = || {
            fs::remove_file(&file).unwrap();
            fs::create_dir(&file).unwrap();
        };
        let damages: [&dyn Fn(); 3] = [
            &|| fs::write(&file, b"").unwrap(),
            &|| fs::write(&file, b"{\"pid\": 7}").unwrap(),
            &unreadable,
        ];
        for damage in damages {
            damage();
            let error = folder.runs(QEMU).unwrap_err();
            assert!(matches!(error, Failure::UnknownProcess { .. }), "{error}");
            let error = aicert_core::cloud::CloudError::from(machines.remove(&job()).unwrap_err());
            let advice = error.advice().unwrap();
            assert!(advice.contains(&file.display().to_string()), "{advice}");
            assert!(folder.exists() && identity.is_alive().unwrap());
        }
        // What another version has added changes nothing.
        fs::remove_dir(&file).unwrap();
        let mut newer: serde_json::Value = serde_json::from_slice(&written).unwrap();
        newer["cgroup"] = "x".into();
        fs::write(&file, newer.to_string()).unwrap();
        assert!(folder.runs(QEMU).unwrap());
        machines.remove(&job()).unwrap();
        assert!(!folder.exists() && !identity.is_alive().unwrap());
    }

    #[test]
    fn a_state_folder_of_others_is_refused() {
        for inner in ["", "machines"] {
            let state = tempfile::tempdir().unwrap();
            let folder = state.path().join("state");
            fs::create_dir_all(folder.join("machines")).unwrap();
            fs::set_permissions(folder.join(inner), fs::Permissions::from_mode(0o777)).unwrap();
            let error = Machines::open(&folder).unwrap_err();
            assert!(matches!(error, Failure::Forbidden { .. }), "{error}");
        }
    }
}
