//! A server that serves, as a machine would run it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aicert_client::{Client, Identity, Settings};
use aicert_core::api::{KeyLocation, Provisioning};
use aicert_core::progress::Progress;
use aicert_core::runtime::{JobId, Runtime as _};
use aicert_core::spec::ImageSpec;
use aicert_core::time::Timestamp;
use aicert_runtime_docker::{DockerConfig, DockerRuntime};
use aicert_server::{Backends, Ended, Server, ServerConfig, Stop};
use aicert_swtpm_testing::{KeyAlgorithm, SimulatedTpm, SimulationOptions, skip_without};
use aicert_verify::{Options, TrustAnchors};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub struct Scene {
    pub address: SocketAddr,
    pub identity: Identity,
    pub tpm: Arc<SimulatedTpm>,
    stop: Stop,
    serving: JoinHandle<Ended>,
    _state: tempfile::TempDir,
}

impl Scene {
    /// Nothing where a tool is missing.
    pub async fn start() -> Option<Self> {
        if skip_without(&["swtpm"]) {
            return None;
        }
        let options = SimulationOptions::new(KeyAlgorithm::EccP256);
        let tpm = Arc::new(SimulatedTpm::start(options).await.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Some(Self::with(tpm, listener, Identity::generate().unwrap()).await)
    }

    pub async fn with(tpm: Arc<SimulatedTpm>, listener: TcpListener, identity: Identity) -> Self {
        let state = tempfile::tempdir().unwrap();
        let backends = Backends {
            tpm: tpm.clone(),
            runtime: Arc::new(DockerRuntime::new(DockerConfig::new())),
            inputs: aicert_inputs::all(),
        };
        let provisioning = Provisioning {
            client: identity.digest(),
            provider: "qemu".into(),
            instance_type: "test".into(),
            region: "here".into(),
            attestation_key: KeyLocation::Persistent {
                handle: 0x8100_0003,
                certificate: 0x01c1_0002,
            },
            issuers: Vec::new(),
            idle_seconds: 600,
            lifetime_seconds: None,
        };
        let config = ServerConfig::new(state.path().join("state"));
        let server = Server::new(config, provisioning, backends).await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            identity,
            tpm,
            stop: server.stop_handle(),
            serving: tokio::spawn(server.serve(listener)),
            _state: state,
        }
    }

    /// What trusts this server: there is no machine around it that could have measured anything.
    pub fn options(&self) -> Options {
        let anchors = TrustAnchors::pinned()
            .with_root(self.tpm.root_pem().as_bytes())
            .unwrap();
        Options::new(anchors, Timestamp::now()).dangerous_accepting_unmeasured_machines()
    }

    pub fn client(&self) -> Client {
        self.client_at(self.address)
    }

    /// The client, which takes this for the address of the machine.
    pub fn client_at(&self, address: SocketAddr) -> Client {
        let mut settings = Settings::default();
        settings.pause = Duration::from_millis(20);
        settings.longest_pause = Duration::from_millis(200);
        settings.retries = 30;
        settings.idle_limit = Duration::from_secs(40);
        Client::new(address, self.identity.clone()).with_settings(settings)
    }

    /// Waits until the server ends by itself.
    pub async fn ended(self) -> Ended {
        let ended = tokio::time::timeout(Duration::from_secs(60), self.serving);
        ended.await.expect("the server ends").unwrap()
    }

    pub async fn stop(self) -> Arc<SimulatedTpm> {
        self.stop.stop();
        let tpm = self.tpm.clone();
        assert_eq!(self.ended().await, Ended::Stopped);
        tpm
    }
}

/// Whether jobs cannot run: there is no Docker engine.
pub async fn no_docker() -> bool {
    static BUILD: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let runtime = DockerRuntime::new(DockerConfig::new());
    if let Err(error) = runtime.check().await {
        assert!(std::env::var_os("CI").is_none(), "no usable Docker: {error}");
        println!("skipped: no usable Docker: {error}");
        return true;
    }
    let _one_at_a_time = BUILD.lock().await;
    runtime
        .resolve_image(&ImageSpec::Python { minor: 11 }, &Progress::ignored())
        .await
        .expect("the base image");
    false
}

/// A name that is different in every test and process.
pub fn job_id() -> JobId {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("client-test-{}-{number}", std::process::id())
        .parse()
        .unwrap()
}
