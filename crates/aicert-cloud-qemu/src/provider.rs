//! The provider.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aicert_core::cloud::{
    CloudCapabilities, CloudError, CloudErrorKind, CloudProvider, MachineId, MachineRecord, MachineRequest,
};
use aicert_core::progress::Step;
use aicert_core::runtime::JobId;
use aicert_core::time::Timestamp;
use async_trait::async_trait;

use crate::config::{QemuConfig, instance_type};
use crate::error::Failure;
use crate::folder::{self, Folder, Machines};
use crate::make::{self, Order};
use crate::{authority, console};

/// The value of `provider` in the configuration.
pub(crate) const PROVIDER: &str = "qemu";
/// Where machines are: here.
pub(crate) const REGION: &str = "local";

/// Machines in QEMU, with a software TPM each. They outlive this, and the process that made them.
#[derive(Debug)]
pub struct QemuProvider {
    capabilities: CloudCapabilities,
    root: Option<String>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: QemuConfig,
    machines: Machines,
}

impl QemuProvider {
    /// Uses, and makes where needed, the state folder of `config`.
    ///
    /// # Errors
    ///
    /// When the state folder cannot be used, or belongs to others.
    pub fn new(config: QemuConfig) -> Result<Self, CloudError> {
        let machines = Machines::open(&config.state)?;
        let authority = match config.machine {
            Some(_) => Some(authority::read_or_make(&config.state)?),
            // Nothing but making machines needs it: a damaged one keeps nobody from those that there are.
            None => authority::read(&config.state).ok().flatten(),
        };
        Ok(Self {
            capabilities: CloudCapabilities {
                name: PROVIDER,
                measured_boot: true,
                simulated: true,
            },
            root: authority.map(|authority| authority.root_pem()),
            shared: Arc::new(Shared { config, machines }),
        })
    }

    /// Runs something that blocks where that disturbs nobody.
    async fn blocking<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<R, Failure> + Send + 'static,
    ) -> Result<R, CloudError> {
        let shared = Arc::clone(&self.shared);
        match tokio::task::spawn_blocking(move || work(&shared)).await {
            Ok(done) => Ok(done?),
            Err(error) => Err(
                CloudError::new(CloudErrorKind::Failed, "work on a machine was cut off").with_source(error),
            ),
        }
    }
}

#[async_trait]
impl CloudProvider for QemuProvider {
    fn capabilities(&self) -> &CloudCapabilities {
        &self.capabilities
    }

    fn trust_anchor(&self) -> Option<&str> {
        self.root.as_deref()
    }

    async fn provision(&self, request: MachineRequest) -> Result<MachineRecord, CloudError> {
        let MachineRequest {
            job,
            instance_type,
            region,
            client,
            idle,
            lifetime,
            progress,
            ..
        } = request;
        self.shared
            .require_offered(instance_type.as_deref(), region.as_deref())?;
        let client = client.ok_or_else(|| Failure::Unsupported {
            what: "nobody was named who may use the machine's server".into(),
            advice: "give the digest of the client's certificate along".into(),
        })?;
        progress.started(Step::Machine, PROVIDER);
        let given_up = GivenUp::default();
        let flag = Arc::clone(&given_up.0);
        let machine = self
            .blocking(move |shared| {
                let order = Order {
                    config: &shared.config,
                    machines: &shared.machines,
                    job: &job,
                    client,
                    idle,
                    lifetime,
                    given_up: &flag,
                };
                make::make(&order)?;
                Ok(shared.machine(job))
            })
            .await?;
        progress.finished(Step::Machine, PROVIDER, machine.id.to_string());
        Ok(machine)
    }

    async fn list(&self) -> Result<Vec<MachineRecord>, CloudError> {
        self.blocking(|shared| {
            let jobs = shared.machines.jobs()?;
            Ok(jobs.into_iter().map(|job| shared.machine(job)).collect())
        })
        .await
    }

    async fn is_running(&self, id: &MachineId) -> Result<bool, CloudError> {
        let Ok(job) = id.0.parse::<JobId>() else {
            return Ok(false);
        };
        self.blocking(move |shared| {
            let folder = shared.machines.folder(&job);
            console::cut(&folder);
            // Without its TPM, a machine is none that could be attested.
            Ok(folder.runs(folder::QEMU)? && folder.runs(folder::SWTPM)?)
        })
        .await
    }

    async fn destroy(&self, id: &MachineId) -> Result<(), CloudError> {
        // Whatever is not the name of a job is no machine of this provider, and surely no path to remove.
        let Ok(job) = id.0.parse::<JobId>() else {
            return Ok(());
        };
        self.blocking(move |shared| shared.machines.remove(&job)).await
    }

    async fn console_log(&self, id: &MachineId) -> Result<String, CloudError> {
        let Ok(job) = id.0.parse::<JobId>() else {
            return Ok(String::new());
        };
        self.blocking(move |shared| {
            let folder = shared.machines.folder(&job);
            console::cut(&folder);
            Ok(console::show(&folder))
        })
        .await
    }
}

impl Shared {
    fn require_offered(&self, kind: Option<&str>, region: Option<&str>) -> Result<(), Failure> {
        let offered = self.config.machine.as_ref().map(instance_type);
        let refuse = |what: &str, asked: &str, offered: &str| {
            Err(Failure::Unsupported {
                what: format!("the provider `{PROVIDER}` has no {what} {asked:?} here, only {offered:?}"),
                advice: "change the configuration of the machine".into(),
            })
        };
        match (kind, offered, region) {
            (Some(asked), Some(offered), _) if asked != offered => refuse("kind of machine", asked, &offered),
            (_, _, Some(asked)) if asked != REGION => refuse("region", asked, REGION),
            _ => Ok(()),
        }
    }

    fn machine(&self, job: JobId) -> MachineRecord {
        let folder = self.machines.folder(&job);
        let record = folder.record();
        MachineRecord {
            id: MachineId(job.to_string()),
            job,
            created: record
                .as_ref()
                .map_or_else(|| Timestamp::from_unix(0), |record| record.created),
            instance_type: record
                .as_ref()
                .map_or_else(|| "unknown".into(), |record| record.instance_type.clone()),
            region: REGION.into(),
            endpoint: record.as_ref().and_then(|record| record.endpoint),
            in_use: is_in_use(&folder, record.as_ref()),
            identity: record.and_then(|record| record.identity),
        }
    }
}

/// A machine whose maker has ended may be used again by whoever has the key to it; one that was never complete may not.
fn is_in_use(folder: &Folder, record: Option<&crate::record::Record>) -> Option<bool> {
    match record {
        _ if folder.is_locked() => Some(true),
        Some(record) if record.endpoint.is_none() => Some(false),
        Some(record) => record.maker.is_alive().ok().filter(|alive| *alive),
        None => None,
    }
}

/// Tells whoever makes a machine when nobody waits for it any more.
#[derive(Default)]
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
