//! A run that is killed (SIGKILL) at an exact point: just before or just after the n-th event is extended.
//!
//! usage: doomed WORKSPACE before|after N
//!
//! It runs the real pipeline with a real software TPM and a real container engine; only the TPM backend is wrapped. Exits
//! with 0, and a proof in the workspace, when the point is never reached.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aicert_core::certificate::PlatformKind;
use aicert_core::digest::Nonce;
use aicert_core::event::Tool;
use aicert_core::pipeline::{self, Backends, Job};
use aicert_core::progress::Progress;
use aicert_core::spec::JobSpec;
use aicert_core::tpm::{
    AttestationKey, PcrBank, PcrIndex, PcrValues, Quote, TpmBackend, TpmCapabilities, TpmClock, TpmError,
};
use aicert_runtime_docker::{DockerConfig, DockerRuntime};
use aicert_swtpm_testing::{KeyAlgorithm, SimulatedTpm, SimulationOptions};
use async_trait::async_trait;

/// Kills its own process around one of its extends.
struct KillingTpm {
    inner: SimulatedTpm,
    before: bool,
    at: usize,
    extends: AtomicUsize,
}

impl KillingTpm {
    fn die() -> ! {
        let me = rustix::process::getpid();
        let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
        unreachable!("SIGKILL cannot be caught")
    }
}

#[async_trait]
impl TpmBackend for KillingTpm {
    fn capabilities(&self) -> &TpmCapabilities {
        self.inner.capabilities()
    }

    async fn clock(&self) -> Result<TpmClock, TpmError> {
        self.inner.clock().await
    }

    async fn read_pcrs(&self, bank: PcrBank, pcrs: &[PcrIndex]) -> Result<PcrValues, TpmError> {
        self.inner.read_pcrs(bank, pcrs).await
    }

    async fn extend(&self, pcr: PcrIndex, digests: &BTreeMap<PcrBank, Vec<u8>>) -> Result<(), TpmError> {
        let number = self.extends.fetch_add(1, Ordering::SeqCst);
        if number == self.at && self.before {
            Self::die();
        }
        let result = self.inner.extend(pcr, digests).await;
        if number == self.at {
            Self::die();
        }
        result
    }

    async fn quote(
        &self,
        bank: PcrBank,
        pcrs: &[PcrIndex],
        qualifying_data: &[u8],
    ) -> Result<Quote, TpmError> {
        self.inner.quote(bank, pcrs, qualifying_data).await
    }

    async fn attestation_key(&self) -> Result<Option<AttestationKey>, TpmError> {
        self.inner.attestation_key().await
    }

    async fn boot_event_log(&self) -> Result<Vec<u8>, TpmError> {
        self.inner.boot_event_log().await
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, workspace, when, at] = &arguments[..] else {
        return ExitCode::from(2);
    };
    let workspace = PathBuf::from(workspace);
    let configuration = "kind: python\npythonVersion: 11\nsource: {type: directory, path: source}\nmachine: {provider: local, tpm: swtpm}\n";
    let folder = workspace.parent().expect("the workspace is in the test's folder");
    let spec = JobSpec::from_yaml(configuration, folder, &|_| None).expect("the configuration is valid");
    let inner = SimulatedTpm::start(SimulationOptions::new(KeyAlgorithm::EccP256))
        .await
        .expect("a software TPM starts");
    std::fs::write(folder.join("ca.pem"), inner.root_pem()).expect("the CA can be written");
    let tpm = KillingTpm {
        inner,
        before: when == "before",
        at: at.parse().expect("N is a number"),
        extends: AtomicUsize::new(0),
    };
    let backends = Backends {
        tpm: Arc::new(tpm),
        runtime: Arc::new(DockerRuntime::new(DockerConfig::new())),
        inputs: aicert_inputs::all(),
    };
    let job = Job {
        spec,
        tool: Tool {
            name: "aicert".into(),
            version: "0.0.0-test".into(),
        },
        id: format!("doomed-{}", std::process::id())
            .parse()
            .expect("a valid job id"),
        workspace: workspace.clone(),
        nonce: Nonce::from_bytes([1; 32]),
        platform_kind: PlatformKind::LocalCa,
        provider: "local".into(),
        instance_type: "test".into(),
        region: "local".into(),
    };
    let outcome = pipeline::run(&job, &backends, &Progress::ignored())
        .await
        .expect("the job runs");
    std::fs::write(workspace.join("proof.json"), outcome.certificate.to_json())
        .expect("the proof can be written");
    backends
        .runtime
        .clean_up(&job.id)
        .await
        .expect("what is left can be removed");
    ExitCode::SUCCESS
}
