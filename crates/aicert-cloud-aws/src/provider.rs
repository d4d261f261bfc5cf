//! The provider.

use std::collections::BTreeMap;

use aicert_cloud_common::console_text;
use aicert_core::cloud::{
    CloudCapabilities, CloudError, CloudProvider, MachineId, MachineRecord, MachineRequest,
};
use aicert_core::runtime::JobId;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::account::Account;
use crate::config::AwsConfig;
use crate::error::Failure;
use crate::{PROVIDER, group, instance, run};

/// Machines in Amazon EC2, with UEFI and NitroTPM.
#[derive(Debug)]
pub struct AwsProvider {
    capabilities: CloudCapabilities,
    account: Account,
}

impl AwsProvider {
    /// Of one owner, in one region. Nothing is asked of Amazon, and no credentials are looked for, until something is called.
    pub fn new(config: AwsConfig) -> Self {
        Self {
            capabilities: CloudCapabilities {
                name: PROVIDER,
                measured_boot: true,
                simulated: false,
            },
            account: Account::new(config),
        }
    }
}

#[async_trait]
impl CloudProvider for AwsProvider {
    fn capabilities(&self) -> &CloudCapabilities {
        &self.capabilities
    }

    fn trust_anchor(&self) -> Option<&str> {
        None
    }

    async fn provision(&self, request: MachineRequest) -> Result<MachineRecord, CloudError> {
        run::provision(&self.account, &request).await
    }

    async fn list(&self) -> Result<Vec<MachineRecord>, CloudError> {
        let region = &self.account.config.region;
        let mut records: BTreeMap<JobId, MachineRecord> = BTreeMap::new();
        // Those that were begun, and have no instance: then those that have one.
        for group in group::list(&self.account, None).await? {
            let job = group.tags.job;
            let record = MachineRecord {
                id: MachineId(job.to_string()),
                job: job.clone(),
                instance_type: "unknown".into(),
                region: region.clone(),
                created: group.tags.created,
                endpoint: None,
                in_use: None,
                identity: None,
            };
            records.insert(job, record);
        }
        for machine in instance::list(&self.account, None).await? {
            records.insert(machine.tags.job.clone(), machine.record(region));
        }
        Ok(records.into_values().collect())
    }

    async fn is_running(&self, id: &MachineId) -> Result<bool, CloudError> {
        let Ok(job) = id.0.parse::<JobId>() else {
            return Ok(false);
        };
        Ok(instance::runs(&self.account, &job).await?)
    }

    async fn destroy(&self, id: &MachineId) -> Result<(), CloudError> {
        // Whatever is not the name of a job is no machine of this provider, and no value for a filter.
        let Ok(job) = id.0.parse::<JobId>() else {
            return Ok(());
        };
        match instance::remove(&self.account, &job).await {
            Ok(()) => Ok(()),
            Err(failure) => {
                let left = instance::what_is_left(&self.account, &job).await;
                let error = CloudError::from(failure);
                let advice = format!(
                    "{}there may be: {}",
                    error
                        .advice()
                        .map(|advice| format!("{advice}; "))
                        .unwrap_or_default(),
                    left.join(", ")
                );
                Err(error.with_advice(advice))
            }
        }
    }

    async fn console_log(&self, id: &MachineId) -> Result<String, CloudError> {
        let Ok(job) = id.0.parse::<JobId>() else {
            return Ok(String::new());
        };
        match instance::list(&self.account, Some(&job)).await?.first() {
            Some(machine) => Ok(console(&self.account, &machine.id).await?),
            None => Ok(String::new()),
        }
    }
}

/// The newest output that EC2 has; machines that are not of the Nitro kind have only that of their last start.
async fn console(account: &Account, instance: &str) -> Result<String, Failure> {
    let ask = |latest: bool| {
        account.call("GetConsoleOutput", move |clients| {
            let request = clients.ec2.get_console_output().instance_id(instance);
            request.set_latest(latest.then_some(true)).send()
        })
    };
    let answer = match ask(true).await {
        Err(failure) if matches!(failure.code(), "UnsupportedOperation" | "Unsupported") => ask(false).await,
        answer => answer,
    };
    let output = match answer {
        Ok(answer) => answer.output().unwrap_or_default().to_owned(),
        Err(failure) if failure.code() == "InvalidInstanceID.NotFound" => String::new(),
        Err(failure) => return Err(failure),
    };
    Ok(console_text(&STANDARD.decode(output.trim()).unwrap_or_default()))
}
