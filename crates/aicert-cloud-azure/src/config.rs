//! What machines are made of, where, and with how much patience.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aicert_cloud_common::{Owner, Pace};
use aicert_core::spec::AzureMachine;

use crate::TokenCredential;

/// Where the public cloud's Resource Manager is.
const PUBLIC: &str = "https://management.azure.com";

/// How long what is waited for may take, and how often it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// One request, through errors that pass.
    pub request: Pace,
    /// What Azure goes on with after the answer: making a network or a machine, replicating an image.
    pub operation: Pace,
    /// Deleting everything of a job, and until it is listed or not listed any more.
    pub removal: Pace,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            request: Pace::new(seconds(1), seconds(30), seconds(5 * 60)),
            operation: Pace::new(seconds(1), seconds(15), seconds(60 * 60)),
            removal: Pace::new(seconds(2), seconds(15), seconds(30 * 60)),
        }
    }
}

/// The configuration of an [`AzureProvider`](crate::AzureProvider).
#[derive(Clone)]
pub struct AzureConfig {
    pub(crate) subscription: String,
    pub(crate) owner: Owner,
    pub(crate) machine: Option<AzureMachine>,
    pub(crate) endpoint: String,
    pub(crate) patience: Patience,
    pub(crate) credential: Option<Arc<dyn TokenCredential>>,
}

impl fmt::Debug for AzureConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureConfig")
            .field("subscription", &self.subscription)
            .field("owner", &self.owner)
            .field("machine", &self.machine)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl AzureConfig {
    /// Machines in a subscription, of one owner. Without [`with_machine`](Self::with_machine), machines can be listed, looked
    /// at and destroyed, and none made.
    pub fn new(subscription: impl Into<String>, owner: Owner) -> Self {
        Self {
            subscription: subscription.into(),
            owner,
            machine: None,
            endpoint: PUBLIC.into(),
            patience: Patience::default(),
            credential: None,
        }
    }

    /// Makes machines like this.
    #[must_use]
    pub fn with_machine(mut self, machine: AzureMachine) -> Self {
        self.machine = Some(machine);
        self
    }

    /// Talks to another Resource Manager than the public cloud's: `https://management.usgovcloudapi.net`,
    /// `https://management.chinacloudapi.cn`. Tokens are asked for, and sent, only for it.
    #[must_use]
    pub fn with_endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = url.into();
        self
    }

    /// Waits differently.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// Uses this credential, instead of what is found in the environment.
    #[must_use]
    pub fn with_credential(mut self, credential: Arc<dyn TokenCredential>) -> Self {
        self.credential = Some(credential);
        self
    }
}

/// The configuration of an [`AzurePublisher`](crate::AzurePublisher).
#[derive(Debug, Clone)]
pub struct AzurePublisherConfig {
    pub(crate) cloud: AzureConfig,
    pub(crate) region: String,
    pub(crate) more_regions: Vec<String>,
    pub(crate) group: String,
    pub(crate) gallery: String,
    pub(crate) uploads: usize,
}

impl AzurePublisherConfig {
    /// Publishes into the gallery `aicert` of the resource group `aicert-images` in a region; both are made where needed.
    pub fn new(cloud: AzureConfig, region: impl Into<String>) -> Self {
        Self {
            cloud,
            region: region.into(),
            more_regions: Vec::new(),
            group: "aicert-images".into(),
            gallery: "aicert".into(),
            uploads: 8,
        }
    }

    /// Replicates images to further regions; machines can be made from an image only where it is.
    #[must_use]
    pub fn with_regions(mut self, regions: impl IntoIterator<Item = String>) -> Self {
        self.more_regions.extend(regions);
        self
    }

    /// Uses another resource group and gallery.
    #[must_use]
    pub fn with_gallery(mut self, group: impl Into<String>, gallery: impl Into<String>) -> Self {
        self.group = group.into();
        self.gallery = gallery.into();
        self
    }

    /// Sends so many blocks of 4 MiB at a time; 8 unless said otherwise.
    #[must_use]
    pub fn with_parallel_uploads(mut self, uploads: usize) -> Self {
        self.uploads = uploads.max(1);
        self
    }
}
