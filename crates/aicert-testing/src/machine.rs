//! A server that serves.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aicert_core::api::{KeyLocation, Provisioning};
use aicert_core::digest::{ClientDigest, TlsKeyDigest};
use aicert_core::time::Timestamp;
use aicert_core::tpm::TpmBackend;
use aicert_runtime_docker::{DockerConfig, DockerRuntime};
use aicert_server::{Backends, Ended, Limits, Server, ServerConfig, Stop};
use aicert_swtpm_testing::SimulatedTpm;
use aicert_verify::{Options, TrustAnchors};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How long a server may take to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a machine is made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MachineOptions {
    /// What it is told before it boots.
    pub provisioning: Provisioning,
    /// What others may ask of its server.
    pub limits: Limits,
    /// Where its server keeps things: a folder of its own, unless one is named here.
    pub state: Option<PathBuf>,
    /// The container engine that its jobs run in.
    pub docker: DockerConfig,
}

impl MachineOptions {
    /// The usual machine, for whoever has this certificate.
    pub fn of(client: ClientDigest) -> Self {
        Self {
            provisioning: Provisioning {
                client,
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
            },
            limits: Limits::default(),
            state: None,
            docker: DockerConfig::new(),
        }
    }
}

/// A server that serves on 127.0.0.1, with every source of inputs and the Docker engine of this computer.
#[derive(Debug)]
pub struct Machine {
    /// Where it listens.
    pub address: SocketAddr,
    /// The key of its connections.
    pub tls_key: TlsKeyDigest,
    /// Where it keeps things.
    pub state: PathBuf,
    stop: Stop,
    serving: JoinHandle<Ended>,
    _folder: tempfile::TempDir,
}

impl Machine {
    /// A server with this TPM, on a free port.
    pub async fn start(tpm: Arc<dyn TpmBackend>, options: MachineOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_on(listener, tpm, options).await
    }

    /// A server with this TPM, on this port.
    pub async fn start_on(listener: TcpListener, tpm: Arc<dyn TpmBackend>, options: MachineOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = options.state.unwrap_or_else(|| folder.path().join("state"));
        let backends = Backends {
            tpm,
            runtime: Arc::new(DockerRuntime::new(options.docker)),
            inputs: aicert_inputs::all(),
        };
        let config = ServerConfig::new(&state).with_limits(options.limits);
        let server = Server::new(config, options.provisioning, backends).await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            tls_key: server.tls_key(),
            state,
            stop: server.stop_handle(),
            serving: tokio::spawn(server.serve(listener)),
            _folder: folder,
        }
    }

    /// What ends it.
    pub fn stop_handle(&self) -> Stop {
        self.stop.clone()
    }

    /// Waits until it ends by itself.
    pub async fn ended(self) -> Ended {
        let ended = tokio::time::timeout(PATIENCE, self.serving).await;
        ended.expect("the server ends").unwrap()
    }

    /// Ends it.
    pub async fn stop(self) {
        self.stop.stop();
        assert_eq!(self.ended().await, Ended::Stopped);
    }
}

/// What trusts a machine with this TPM, now: there is nothing around it that could have measured anything.
pub fn trusting(tpm: &SimulatedTpm) -> Options {
    let anchors = TrustAnchors::pinned()
        .with_root(tpm.root_pem().as_bytes())
        .unwrap();
    Options::new(anchors, Timestamp::now()).dangerous_accepting_unmeasured_machines()
}
