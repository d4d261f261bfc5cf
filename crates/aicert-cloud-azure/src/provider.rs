//! The provider.

use std::net::SocketAddr;

use aicert_cloud_common::{Names, console_text};
use aicert_core::cloud::{
    CloudCapabilities, CloudError, CloudProvider, MachineId, MachineRecord, MachineRequest,
};
use aicert_core::runtime::JobId;
use aicert_core::time::Timestamp;
use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::arm::Arm;
use crate::config::AzureConfig;
use crate::error::Failure;
use crate::remove::Group;
use crate::{PROVIDER, SERVER_PORT, compute, make, network, remove};

/// How many machines are looked at at a time.
const LOOKS: usize = 8;

/// Machines of one owner in one subscription.
#[derive(Debug)]
pub struct AzureProvider {
    capabilities: CloudCapabilities,
    config: AzureConfig,
    arm: Arm,
}

impl AzureProvider {
    /// Asks nobody for anything yet, neither Azure nor for credentials.
    ///
    /// # Errors
    ///
    /// When the subscription or the endpoint is none, or HTTPS cannot be set up.
    pub fn new(config: AzureConfig) -> Result<Self, CloudError> {
        Ok(Self {
            capabilities: CloudCapabilities {
                name: PROVIDER,
                measured_boot: true,
                simulated: false,
            },
            arm: Arm::new(&config)?,
            config,
        })
    }

    /// The group of a machine, if there is one and it is this owner's.
    async fn group(&self, id: &MachineId) -> Result<Option<(String, JobId)>, Failure> {
        // Whatever is not the name of a job is no machine of this provider.
        let Ok(job) = id.0.parse::<JobId>() else {
            return Ok(None);
        };
        let name = Names(&job).main();
        let found = remove::find(&self.arm, &name).await?;
        Ok(found
            .filter(|group| group.is_of(&self.config.owner, &job))
            .map(|_| (name, job)))
    }

    /// What a group says of its machine, which may be half made.
    async fn record(&self, group: Group) -> Result<Option<MachineRecord>, Failure> {
        let Some(tags) = group.tags() else {
            return Ok(None);
        };
        let machine = compute::find(&self.arm, &group.name, "instanceView").await?;
        let address = network::find_address(&self.arm, &group.name).await?;
        let expired = tags
            .expires
            .is_some_and(|at| at.as_unix() <= Timestamp::now().as_unix());
        Ok(Some(MachineRecord {
            id: MachineId(tags.job.to_string()),
            job: tags.job,
            instance_type: machine.map_or_else(|| "none".into(), |machine| machine.size),
            region: group.location,
            created: tags.created,
            endpoint: address.map(|address| SocketAddr::new(address, SERVER_PORT)),
            in_use: expired.then_some(false),
            identity: None,
        }))
    }
}

#[async_trait]
impl CloudProvider for AzureProvider {
    fn capabilities(&self) -> &CloudCapabilities {
        &self.capabilities
    }

    /// Verifiers know Microsoft's root.
    fn trust_anchor(&self) -> Option<&str> {
        None
    }

    async fn provision(&self, request: MachineRequest) -> Result<MachineRecord, CloudError> {
        make::make(&self.arm, &self.config, &request).await
    }

    async fn list(&self) -> Result<Vec<MachineRecord>, CloudError> {
        let groups = remove::all(&self.arm, &self.config.owner).await?;
        let records: Vec<Option<MachineRecord>> = stream::iter(groups)
            .map(|group| self.record(group))
            .buffered(LOOKS)
            .try_collect()
            .await?;
        Ok(records.into_iter().flatten().collect())
    }

    async fn is_running(&self, id: &MachineId) -> Result<bool, CloudError> {
        let Some((name, _)) = self.group(id).await? else {
            return Ok(false);
        };
        let machine = compute::find(&self.arm, &name, "instanceView").await?;
        Ok(machine.is_some_and(|machine| machine.runs()))
    }

    async fn destroy(&self, id: &MachineId) -> Result<(), CloudError> {
        let Ok(job) = id.0.parse::<JobId>() else {
            return Ok(());
        };
        Ok(remove::remove(&self.arm, &self.config.owner, &job).await?)
    }

    async fn console_log(&self, id: &MachineId) -> Result<String, CloudError> {
        let Some((name, _)) = self.group(id).await? else {
            return Ok(String::new());
        };
        Ok(console_text(&compute::console(&self.arm, &name).await?))
    }
}
