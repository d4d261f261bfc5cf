//! An account with an image, and a provider that uses it.

use std::time::Duration;

use aicert_cloud_aws::{AwsConfig, AwsProvider, AwsPublisher, Patience};
use aicert_cloud_common::Pace;
use aicert_cloud_testing::aws::AwsCloud;
use aicert_core::cloud::{CloudError, CloudProvider, MachineId, MachineRecord, MachineRequest};
use aicert_core::digest::ClientDigest;
use aicert_core::progress::Progress;
use aicert_core::spec::{AwsMachine, CloudMachine};
use aws_sdk_ec2::config::Credentials;
use futures_util::future::join_all;

pub(crate) struct Scene {
    pub(crate) cloud: AwsCloud,
    pub(crate) image: String,
}

/// Asks often, and gives up late: the computer may be busy.
pub(crate) fn patience() -> Patience {
    let (ms, s) = (Duration::from_millis, Duration::from_secs);
    let pace = Pace::new(ms(2), ms(20), s(60));
    Patience {
        answer: pace,
        start: pace,
        end: pace,
        publish: pace,
        settle: ms(200),
    }
}

/// Gives up soon, for faults that do not pass.
pub(crate) fn impatience() -> Patience {
    let answer = Pace {
        limit: Duration::from_secs(2),
        ..patience().answer
    };
    Patience { answer, ..patience() }
}

pub(crate) fn machine(image: &str) -> AwsMachine {
    AwsMachine {
        region: AwsCloud::REGION.into(),
        subnet: None,
        machine: CloudMachine {
            image: image.into(),
            reference_values: "base.reference-values.json".into(),
            instance_type: None,
            disk: 20 << 30,
            spot: false,
            access: Vec::new(),
            lifetime: Duration::from_secs(3600),
            boot_limit: Duration::from_secs(300),
            issuers: Vec::new(),
        },
    }
}

pub(crate) fn config(owner: &str, image: &str) -> AwsConfig {
    AwsConfig::new(AwsCloud::REGION, owner.parse().unwrap())
        .with_machine(machine(image))
        .with_patience(patience())
}

pub(crate) fn request(job: &str) -> MachineRequest {
    MachineRequest {
        job: job.parse().unwrap(),
        instance_type: None,
        region: None,
        client: Some(ClientDigest::from_bytes([7; 32])),
        access: vec!["203.0.113.7".parse().unwrap(), "2001:db8::/64".parse().unwrap()],
        gpus: 0,
        idle: Duration::from_secs(600),
        lifetime: Some(Duration::from_secs(3600)),
        progress: Progress::ignored(),
    }
}

/// Runs something for each number until it says that it has come to an end (nothing: there are no tools), which must not be before
/// `least`. Several at a time: mostly they wait.
pub(crate) async fn until_ended<F: Future<Output = Option<bool>>>(least: u64, run: impl Fn(u64) -> F) {
    const AT_ONCE: u64 = 6;
    for first in (0..).step_by(AT_ONCE as usize) {
        let ended = join_all((first..first + AT_ONCE).map(&run)).await;
        if ended.contains(&None) {
            return;
        }
        if let Some(last) = (first..).zip(ended).find(|(_, ended)| *ended == Some(true)) {
            assert!(last.0 > least, "{} requests", last.0);
            return;
        }
    }
}

impl Scene {
    pub(crate) async fn new() -> Option<Self> {
        let cloud = AwsCloud::start().await?;
        let image = cloud.image(&[]).await;
        Some(Self { cloud, image })
    }

    pub(crate) fn config(&self) -> AwsConfig {
        self.connected(config("ada", &self.image))
    }

    pub(crate) fn connected(&self, config: AwsConfig) -> AwsConfig {
        config
            .with_endpoint(self.cloud.endpoint())
            .with_credentials(Credentials::new(
                "AKIAIOSFODNN7EXAMPLE",
                "secret",
                None,
                None,
                "tests",
            ))
    }

    pub(crate) fn provider(&self) -> AwsProvider {
        AwsProvider::new(self.config())
    }

    pub(crate) fn publisher(&self) -> AwsPublisher {
        AwsPublisher::new(self.config())
    }

    pub(crate) async fn provision(&self, job: &str) -> Result<MachineRecord, CloudError> {
        self.provider().provision(request(job)).await
    }

    pub(crate) async fn destroy(&self, job: &str) -> Result<(), CloudError> {
        self.provider().destroy(&MachineId(job.into())).await
    }

    /// Nothing is left, and nothing was called that the roles do not allow.
    pub(crate) async fn assert_nothing_left(&self) {
        let left = self.cloud.left().await;
        assert!(left.is_empty(), "left: {left:?}");
        self.assert_within_roles();
    }

    pub(crate) fn assert_within_roles(&self) {
        crate::roles::assert_within(&self.cloud.requests());
    }
}
