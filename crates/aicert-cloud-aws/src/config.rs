//! Whose machines they are, where, and how long anything is waited for.

use std::fmt;
use std::time::Duration;

use aicert_cloud_common::{Owner, Pace};
use aicert_core::spec::AwsMachine;
use aws_sdk_ec2::config::{ProvideCredentials, SharedCredentialsProvider};

/// The configuration of an [`AwsProvider`](crate::AwsProvider) or [`AwsPublisher`](crate::AwsPublisher).
#[derive(Clone)]
pub struct AwsConfig {
    pub(crate) region: String,
    pub(crate) owner: Owner,
    pub(crate) machine: Option<AwsMachine>,
    pub(crate) endpoint: Option<String>,
    pub(crate) credentials: Option<SharedCredentialsProvider>,
    pub(crate) patience: Patience,
}

/// How long what is waited for. Machines with several GPUs take the longest, to start and to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For one answer, through throttling and faults that pass.
    pub answer: Pace,
    /// Until a machine runs and has an address.
    pub start: Pace,
    /// Until a machine is gone.
    pub end: Pace,
    /// Until a snapshot or an image is complete, once all of it is there.
    pub publish: Pace,
    /// How long something that is there may remain unlisted (EC2 API, "Eventual consistency").
    pub settle: Duration,
}

impl Patience {
    /// For something that is surely there, until it is listed.
    pub(crate) fn listing(&self) -> Pace {
        let limit = self.settle.max(self.answer.first) * 4;
        Pace::new(self.answer.first, self.answer.longest, limit)
    }
}

impl Default for Patience {
    fn default() -> Self {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        Self {
            answer: Pace::new(ms(500), s(15), s(120)),
            start: Pace::new(s(2), s(10), s(900)),
            end: Pace::new(s(2), s(10), s(1500)),
            publish: Pace::new(s(2), s(15), s(3600)),
            settle: s(15),
        }
    }
}

impl AwsConfig {
    /// In `region` (such as `eu-west-1`), what belongs to `owner`. Without [`with_machine`](Self::with_machine), machines can be
    /// listed, looked at and destroyed, and none made.
    pub fn new(region: impl Into<String>, owner: Owner) -> Self {
        Self {
            region: region.into(),
            owner,
            machine: None,
            endpoint: None,
            credentials: None,
            patience: Patience::default(),
        }
    }

    /// Makes machines like this. Its region must be that of this configuration.
    #[must_use]
    pub fn with_machine(mut self, machine: AwsMachine) -> Self {
        self.machine = Some(machine);
        self
    }

    /// Asks there instead of at Amazon. The environment variable `AWS_ENDPOINT_URL` does the same.
    #[must_use]
    pub fn with_endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// Takes credentials from there instead of the SDK's default chain.
    #[must_use]
    pub fn with_credentials(mut self, credentials: impl ProvideCredentials + 'static) -> Self {
        self.credentials = Some(SharedCredentialsProvider::new(credentials));
        self
    }

    /// Waits like this.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }
}

impl fmt::Debug for AwsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsConfig")
            .field("region", &self.region)
            .field("owner", &self.owner)
            .field("machine", &self.machine)
            .field("endpoint", &self.endpoint)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}
