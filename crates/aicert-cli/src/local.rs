//! The provider `local`: this machine, with a folder for each job.

mod record;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aicert_core::cloud::{
    CloudCapabilities, CloudError, CloudErrorKind, CloudProvider, MachineId, MachineRecord, MachineRequest,
};
use aicert_core::progress::Step;
use aicert_core::runtime::JobId;
use aicert_core::time::Timestamp;
use async_trait::async_trait;

pub(crate) use self::record::Record;
use crate::files;
use crate::lock::Lock;
use crate::state;

/// The value of `provider` in the configuration.
pub(crate) const LOCAL: &str = "local";
/// The folder, inside a machine's, where the job does its work.
const WORKSPACE: &str = "workspace";
/// The folder, inside a machine's, of its simulated TPM.
const TPM: &str = "tpm";
/// Marks folders that are not complete yet.
const NEW: &str = ".new-";

/// Machines that are folders of this machine: `<state>/machines/<job>`.
#[derive(Debug)]
pub(crate) struct LocalProvider {
    capabilities: CloudCapabilities,
    machines: PathBuf,
    /// What a record says about the run.
    purpose: Purpose,
    /// The machines of this process, each with the lock that shows others that it is in use.
    held: Mutex<HashMap<MachineId, Lock>>,
}

/// What a run is for: told to the user when it was interrupted, and cleaned up then.
#[derive(Debug, Clone, Default)]
pub(crate) struct Purpose {
    /// The configuration.
    pub(crate) configuration: PathBuf,
    /// Where the proof and the outputs will be.
    pub(crate) targets: Vec<PathBuf>,
    /// Whether the TPM of its machines is simulated.
    pub(crate) simulated: bool,
}

impl LocalProvider {
    /// Keeps machines below `state`, which is created where needed and must belong to this user alone.
    pub(crate) fn new(state: &Path, purpose: Purpose) -> Result<Self, CloudError> {
        let machines = state.join("machines");
        state::private_folder(&machines)?;
        Ok(Self {
            capabilities: CloudCapabilities {
                name: LOCAL,
                measured_boot: false,
                simulated: purpose.simulated,
            },
            machines,
            purpose,
            held: Mutex::default(),
        })
    }

    /// The folder of a machine.
    pub(crate) fn folder(&self, id: &MachineId) -> PathBuf {
        self.machines.join(&id.0)
    }

    /// The workspace of a machine.
    pub(crate) fn workspace(&self, id: &MachineId) -> PathBuf {
        self.folder(id).join(WORKSPACE)
    }

    /// Where the simulated TPM of a machine keeps its state.
    pub(crate) fn tpm_folder(&self, id: &MachineId) -> PathBuf {
        self.folder(id).join(TPM)
    }

    /// What a machine was made for, as far as it can be read.
    pub(crate) fn record(&self, id: &MachineId) -> Option<Record> {
        Record::read(&self.folder(id))
    }

    fn held(&self) -> MutexGuard<'_, HashMap<MachineId, Lock>> {
        // A map stays a map if a thread panicked while it held the lock.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the folder with record and workspace under a hidden name, then gives it its own in one step: whatever is
    /// listed is complete.
    fn make(&self, request: &MachineRequest, record: &Record) -> io::Result<Lock> {
        let hidden = self.machines.join(format!("{NEW}{}", request.job));
        let fresh = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path);
        fresh(&hidden)?;
        let lock = Lock::make(&hidden)?;
        record.write(&hidden)?;
        fresh(&hidden.join(WORKSPACE))?;
        files::sync_folder(&hidden)?;
        let folder = self.machines.join(request.job.as_str());
        if files::exists(&folder) {
            files::remove(&hidden)?;
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(&hidden, &folder)?;
        files::sync_folder(&self.machines)?;
        Ok(lock)
    }

    fn names(&self) -> Result<Vec<String>, CloudError> {
        let read = || -> io::Result<Vec<String>> {
            let mut names: Vec<_> = fs::read_dir(&self.machines)?
                .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                .collect();
            names.sort();
            Ok(names)
        };
        read().map_err(|error| state::storage("read the state folder", &self.machines, error))
    }

    /// Removes folders whose making was interrupted: nothing was made on their account.
    fn sweep(&self, names: &[String]) {
        for name in names.iter().filter(|name| name.starts_with(NEW)) {
            let folder = self.machines.join(name);
            if files::is_older_than_a_minute(&folder) && !Lock::is_held(&folder) {
                let _ = files::remove(&folder);
            }
        }
    }

    fn machine(&self, job: JobId) -> MachineRecord {
        let id = MachineId(job.as_str().to_owned());
        let folder = self.folder(&id);
        let record = Record::read(&folder);
        let created = record
            .as_ref()
            .map_or_else(|| Timestamp::from_unix(0), |record| record.created);
        MachineRecord {
            in_use: Some(self.held().contains_key(&id) || Lock::is_held(&folder)),
            identity: None,
            id,
            job,
            instance_type: std::env::consts::ARCH.to_owned(),
            region: "local".to_owned(),
            created,
            endpoint: None,
        }
    }
}

#[async_trait]
impl CloudProvider for LocalProvider {
    fn capabilities(&self) -> &CloudCapabilities {
        &self.capabilities
    }

    async fn provision(&self, request: MachineRequest) -> Result<MachineRecord, CloudError> {
        for (asked, what) in [
            (&request.instance_type, "kind of machine"),
            (&request.region, "region"),
        ] {
            if let Some(asked) = asked {
                return Err(CloudError::new(
                    CloudErrorKind::Unsupported,
                    format!("the provider `local` has no {what} {asked:?}: it is this machine"),
                ));
            }
        }
        request.progress.started(Step::Machine, "this machine");
        let record = Record::new(&request.job, &self.purpose);
        let lock = self
            .make(&request, &record)
            .map_err(|error| state::storage("make the folder of the job in", &self.machines, error))?;
        self.held()
            .insert(MachineId(request.job.as_str().to_owned()), lock);
        let machine = self.machine(request.job);
        request
            .progress
            .finished(Step::Machine, "this machine", machine.job.as_str());
        Ok(machine)
    }

    fn trust_anchor(&self) -> Option<&str> {
        None
    }

    async fn is_running(&self, id: &MachineId) -> Result<bool, CloudError> {
        Ok(id.0.parse::<JobId>().is_ok() && files::exists(&self.folder(id)))
    }

    async fn list(&self) -> Result<Vec<MachineRecord>, CloudError> {
        let names = self.names()?;
        self.sweep(&names);
        Ok(names
            .into_iter()
            .filter_map(|name| name.parse().ok())
            .map(|job| self.machine(job))
            .collect())
    }

    async fn destroy(&self, id: &MachineId) -> Result<(), CloudError> {
        // Whatever is not the name of a job is no machine of this provider, and surely no path to remove.
        if id.0.parse::<JobId>().is_err() {
            return Ok(());
        }
        let folder = self.folder(id);
        if let Some(record) = Record::read(&folder) {
            for partial in record.partial_files() {
                files::remove(&partial).map_err(|error| state::storage("remove", &partial, error))?;
            }
        }
        #[cfg(feature = "simulation")]
        aicert_swtpm_testing::SwtpmInstance::remove_leftovers(&folder.join(TPM))
            .map_err(|error| state::storage("remove the simulated TPM of the job,", &folder, error))?;
        // A thread that was told to stop may still be writing its last file.
        let mut attempts = 0;
        loop {
            match files::remove(&folder) {
                Ok(()) => break,
                Err(_) if attempts < 20 => {
                    attempts += 1;
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                Err(error) => return Err(state::storage("remove the folder of the job,", &folder, error)),
            }
        }
        self.held().remove(id);
        Ok(())
    }

    async fn console_log(&self, _: &MachineId) -> Result<String, CloudError> {
        // This machine's console is the terminal that the user sits at.
        Ok(String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aicert_core::conformance::cloud;

    fn provider(folder: &Path) -> LocalProvider {
        LocalProvider::new(folder, Purpose::default()).unwrap()
    }

    fn job(text: &str) -> JobId {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn it_keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let provider = provider(folder.path());
        cloud::provision_list_destroy(&provider, &job("a")).await;
        cloud::machines_are_independent(&provider, &job("a"), &job("b")).await;
        cloud::destroying_nothing_succeeds(&provider, &MachineId("x".into())).await;
        cloud::destroying_nothing_succeeds(&provider, &MachineId("../machines".into())).await;
        cloud::a_dropped_provision_is_listed_or_nothing(&provider, &job("c")).await;
        assert!(provider.list().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_machine_of_a_process_that_is_gone_is_abandoned() {
        let folder = tempfile::tempdir().unwrap();
        let request = MachineRequest {
            job: job("a"),
            instance_type: None,
            region: None,
            client: None,
            access: Vec::new(),
            gpus: 0,
            idle: std::time::Duration::ZERO,
            lifetime: None,
            progress: aicert_core::progress::Progress::ignored(),
        };
        let first = provider(folder.path());
        let id = first.provision(request.clone()).await.unwrap().id;
        let second = provider(folder.path());
        assert_eq!(second.list().await.unwrap()[0].in_use, Some(true));
        assert_eq!(
            first.provision(request).await.unwrap_err().kind(),
            CloudErrorKind::Failed
        );
        // The kernel gives the lock back whatever way a process ends.
        drop(first);
        assert_eq!(second.list().await.unwrap()[0].in_use, Some(false));
        assert_eq!(second.record(&id).unwrap().job, "a");
        second.destroy(&id).await.unwrap();
        assert!(second.list().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn partial_results_go_with_the_machine() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("proof.json");
        let purpose = Purpose {
            targets: vec![target.clone()],
            ..Purpose::default()
        };
        let provider = LocalProvider::new(&folder.path().join("state"), purpose).unwrap();
        let request = MachineRequest {
            job: job("a"),
            instance_type: None,
            region: None,
            client: None,
            access: Vec::new(),
            gpus: 0,
            idle: std::time::Duration::ZERO,
            lifetime: None,
            progress: aicert_core::progress::Progress::ignored(),
        };
        let id = provider.provision(request).await.unwrap().id;
        let partial = files::partial(&target, &job("a"));
        fs::write(&partial, "half").unwrap();
        fs::write(&target, "older proof").unwrap();
        provider.destroy(&id).await.unwrap();
        assert!(!files::exists(&partial));
        assert!(files::exists(&target));
    }

    #[test]
    fn a_state_folder_of_others_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let machines = folder.path().join("machines");
        fs::create_dir(&machines).unwrap();
        fs::set_permissions(&machines, fs::Permissions::from_mode(0o777)).unwrap();
        let error = LocalProvider::new(folder.path(), Purpose::default()).unwrap_err();
        assert_eq!(error.kind(), CloudErrorKind::PermissionDenied);
    }
}
