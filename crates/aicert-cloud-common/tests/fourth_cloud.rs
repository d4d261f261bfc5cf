//! A provider from nothing, to begin another one with: CONTRIBUTING.md goes through it. The cloud is one that is imagined, and
//! lives in this process; everything else is as it is for a real one.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod nimbus;

use std::sync::Arc;
use std::time::Duration;

use aicert_cloud_common::{Names, Owner, Pace, PriceClass, Tags, WaitError, provisioning_document};
use aicert_core::attestation::KeyLocation;
use aicert_core::cloud::{
    CloudCapabilities, CloudError, CloudErrorKind, CloudProvider, MachineId, MachineRecord, MachineRequest,
};
use aicert_core::conformance::cloud as conformance;
use aicert_core::progress::Step;
use async_trait::async_trait;

use nimbus::{Nimbus, NimbusError, Server, State};

/// The value of `provider` in the configuration.
const PROVIDER: &str = "nimbus";
const DEFAULT_TYPE: &str = "small";
/// Where this cloud's TPMs have their attestation key.
const KEY: KeyLocation = KeyLocation::Persistent {
    handle: 0x8101_0001,
    certificate: 0x01c1_0000,
};
const PACE: Pace = Pace {
    first: Duration::from_millis(1),
    longest: Duration::from_millis(10),
    limit: Duration::from_secs(10),
};

struct NimbusProvider {
    capabilities: CloudCapabilities,
    cloud: Arc<Nimbus>,
    owner: Owner,
}

impl NimbusProvider {
    fn new(cloud: Arc<Nimbus>, owner: Owner) -> Self {
        Self {
            capabilities: CloudCapabilities {
                name: PROVIDER,
                measured_boot: true,
                simulated: false,
            },
            cloud,
            owner,
        }
    }

    /// The server of a job, if it is ours.
    async fn find(&self, id: &MachineId) -> Result<Option<(Server, Tags)>, NimbusError> {
        let servers = PACE.retry(|| self.cloud.list()).await.map_err(ended)?;
        Ok(self.ours(servers).find(|(_, tags)| tags.job.as_str() == id.0))
    }

    fn ours(&self, servers: Vec<Server>) -> impl Iterator<Item = (Server, Tags)> {
        servers.into_iter().filter_map(|server| {
            let tags = Tags::read(|key| server.tags.get(key).map(String::as_str))?;
            (tags.owner == self.owner).then_some((server, tags))
        })
    }

    async fn make(&self, request: &MachineRequest, name: &str, tags: &Tags) -> Result<(), CloudError> {
        let orders = provisioning_document(request, PROVIDER, DEFAULT_TYPE, "here", KEY, &[])?;
        let tags = tags.pairs().into_iter().collect();
        let created = PACE.retry(|| self.cloud.create(name, &tags, &orders)).await;
        match created.map_err(ended) {
            // The answer to an earlier attempt was lost.
            Ok(()) | Err(NimbusError::Exists) => {}
            Err(error) => return Err(error.into()),
        }
        let running = PACE.until(|| async {
            let servers = self.cloud.list().await?;
            let found = servers.into_iter().find(|server| server.name == name);
            Ok(found.filter(|server| server.state == State::Running).map(drop))
        });
        Ok(running.await.map_err(ended)?)
    }
}

#[async_trait]
impl CloudProvider for NimbusProvider {
    fn capabilities(&self) -> &CloudCapabilities {
        &self.capabilities
    }

    fn trust_anchor(&self) -> Option<&str> {
        None
    }

    async fn provision(&self, request: MachineRequest) -> Result<MachineRecord, CloudError> {
        let name = Names(&request.job).main();
        let subject = format!("{PROVIDER}: {DEFAULT_TYPE}, {}", PriceClass::Cents);
        request.progress.started(Step::Machine, subject.clone());
        // The name and the tags say whose it is and what for, from the first request on: there is nothing to write down before.
        let tags = Tags::new(&self.owner, &request);
        let id = MachineId(request.job.to_string());
        if let Err(error) = self.make(&request, &name, &tags).await {
            return Err(match self.destroy(&id).await {
                Ok(()) => error,
                Err(left) => error.with_advice(format!("{name} may be left: {left}")),
            });
        }
        let found = self.find(&id).await?;
        let (server, tags) =
            found.ok_or_else(|| CloudError::new(CloudErrorKind::Failed, format!("{name} is gone")))?;
        request.progress.finished(Step::Machine, subject, name);
        Ok(record(server, tags))
    }

    async fn list(&self) -> Result<Vec<MachineRecord>, CloudError> {
        let servers = PACE.retry(|| self.cloud.list()).await.map_err(ended)?;
        let ours = self.ours(servers);
        Ok(ours.map(|(server, tags)| record(server, tags)).collect())
    }

    async fn is_running(&self, id: &MachineId) -> Result<bool, CloudError> {
        let found = self.find(id).await?;
        Ok(found.is_some_and(|(server, _)| server.state == State::Running))
    }

    async fn destroy(&self, id: &MachineId) -> Result<(), CloudError> {
        let gone = PACE.until(|| async {
            match self.find(id).await? {
                None => Ok(Some(())),
                Some((server, _)) => self.cloud.delete(&server.name).await.map(|()| None),
            }
        });
        Ok(gone.await.map_err(ended)?)
    }

    async fn console_log(&self, id: &MachineId) -> Result<String, CloudError> {
        let found = self.find(id).await?;
        Ok(found.map_or_else(String::new, |(server, _)| server.console))
    }
}

fn record(server: Server, tags: Tags) -> MachineRecord {
    MachineRecord {
        id: MachineId(tags.job.to_string()),
        job: tags.job,
        instance_type: DEFAULT_TYPE.into(),
        region: "here".into(),
        created: tags.created,
        endpoint: server.address,
        in_use: None,
        // What the certificate of the machine's key says of it, if it says anything that this API knows too.
        identity: None,
    }
}

fn ended(error: WaitError<NimbusError>) -> NimbusError {
    match error {
        WaitError::Failed(error) => error,
        WaitError::TooLong { .. } => NimbusError::Busy,
    }
}

/// The one place where errors of the cloud become errors for people.
impl From<NimbusError> for CloudError {
    fn from(error: NimbusError) -> Self {
        match error {
            NimbusError::Full => Self::new(CloudErrorKind::Exhausted, "Nimbus has no capacity left")
                .with_advice("try another region, or later")
                .retryable(),
            NimbusError::Exists | NimbusError::Busy => {
                Self::new(CloudErrorKind::Unavailable, "Nimbus does not answer as it should").retryable()
            }
        }
    }
}

fn provider(cloud: Nimbus) -> NimbusProvider {
    NimbusProvider::new(Arc::new(cloud), "ada".parse().unwrap())
}

fn job(name: &str) -> aicert_core::runtime::JobId {
    name.parse().unwrap()
}

#[tokio::test]
async fn conforms() {
    // One that is busy at every third request.
    let provider = provider(Nimbus::busy_every(3));
    conformance::provision_list_destroy(&provider, &job("a")).await;
    conformance::machines_are_independent(&provider, &job("b"), &job("c")).await;
    conformance::destroying_nothing_succeeds(&provider, &MachineId("nothing".into())).await;
    conformance::a_dropped_provision_is_listed_or_nothing(&provider, &job("d")).await;
    assert!(provider.cloud.names().is_empty(), "everything is gone");
}

#[tokio::test]
async fn what_cannot_be_had_leaves_nothing() {
    let provider = provider(Nimbus::full());
    let request = conformance::request(&job("a"));
    let error = provider.provision(request).await.unwrap_err();
    assert_eq!(error.kind(), CloudErrorKind::Exhausted);
    assert!(provider.cloud.names().is_empty());
}

#[tokio::test]
async fn machines_of_others_are_theirs() {
    let own = provider(Nimbus::default());
    let other = NimbusProvider::new(Arc::clone(&own.cloud), "bob".parse().unwrap());
    let machine = other.provision(conformance::request(&job("a"))).await.unwrap();
    assert!(own.list().await.unwrap().is_empty());
    own.destroy(&machine.id).await.unwrap();
    assert_eq!(own.cloud.names(), ["aicert-a"]);
}
