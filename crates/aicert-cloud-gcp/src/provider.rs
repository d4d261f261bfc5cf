//! The provider.

use std::collections::BTreeMap;

use aicert_cloud_common::console_text;
use aicert_core::cloud::{
    CloudCapabilities, CloudError, CloudProvider, MachineId, MachineRecord, MachineRequest,
};
use aicert_core::runtime::JobId;
use async_trait::async_trait;

use crate::PROVIDER;
use crate::api::Api;
use crate::config::GcpConfig;
use crate::instance;
use crate::locate::zone;

/// How much of a machine's console is asked for: its end.
const CONSOLE: i64 = 64 << 10;

/// Machines of one owner in one project of Google Cloud.
#[derive(Debug)]
pub struct GcpProvider {
    capabilities: CloudCapabilities,
    api: Api,
}

impl GcpProvider {
    /// Nothing is asked of Google, and no credentials are looked for, before something is to be done.
    pub fn new(config: GcpConfig) -> Self {
        Self {
            capabilities: CloudCapabilities {
                name: PROVIDER,
                measured_boot: true,
                simulated: false,
            },
            api: Api::new(config),
        }
    }
}

#[async_trait]
impl CloudProvider for GcpProvider {
    fn capabilities(&self) -> &CloudCapabilities {
        &self.capabilities
    }

    /// Verifiers know Google's roots.
    fn trust_anchor(&self) -> Option<&str> {
        None
    }

    async fn provision(&self, request: MachineRequest) -> Result<MachineRecord, CloudError> {
        self.api.telling(&request.progress).provision(request).await
    }

    async fn list(&self) -> Result<Vec<MachineRecord>, CloudError> {
        const DOING: &str = "look for machines";
        let mut machines = BTreeMap::new();
        for rule in self.api.rules(DOING).await? {
            let own = rule
                .marks
                .filter(|marks| marks.tags.owner == self.api.config.owner);
            if let Some(marks) = own {
                let record = instance::trace(&marks);
                machines.insert(record.id.clone(), record);
            }
        }
        for found in self.api.own_instances(DOING, None).await? {
            if let Some(record) = instance::record(self.api.project(), &found) {
                machines.insert(record.id.clone(), record);
            }
        }
        Ok(machines.into_values().collect())
    }

    async fn is_running(&self, id: &MachineId) -> Result<bool, CloudError> {
        let Ok(job) = id.0.parse::<JobId>() else {
            return Ok(false);
        };
        let found = self.api.locate("look at the machine", &job).await?;
        Ok(found.as_ref().is_some_and(instance::runs))
    }

    async fn destroy(&self, id: &MachineId) -> Result<(), CloudError> {
        // Whatever is not the name of a job is no machine of this provider.
        let Ok(job) = id.0.parse::<JobId>() else {
            return Ok(());
        };
        self.api.remove(&job).await
    }

    async fn console_log(&self, id: &MachineId) -> Result<String, CloudError> {
        const DOING: &str = "read the machine's console";
        let Ok(job) = id.0.parse::<JobId>() else {
            return Ok(String::new());
        };
        let Some(found) = self.api.locate(DOING, &job).await? else {
            return Ok(String::new());
        };
        let name = found.name.clone().unwrap_or_default();
        let output = self
            .api
            .find(DOING, |clients| {
                let request = clients.instances.get_serial_port_output();
                request
                    .set_project(self.api.project())
                    .set_zone(zone(&found))
                    .set_instance(&name)
                    .set_port(1)
                    .set_start(-CONSOLE)
                    .send()
            })
            .await?;
        let written = output.and_then(|output| output.contents).unwrap_or_default();
        Ok(console_text(written.as_bytes()))
    }
}
