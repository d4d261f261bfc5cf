//! A server that serves, as a machine would run it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aicert_client::{Client, Identity, Settings};
use aicert_core::runtime::JobId;
use aicert_server::Ended;
use aicert_swtpm_testing::{KeyAlgorithm, SimulatedTpm, SimulationOptions, skip_without};
pub use aicert_testing::no_docker;
use aicert_testing::{Machine, MachineOptions, trusting};
use aicert_verify::Options;
use tokio::net::TcpListener;

pub struct Scene {
    pub address: SocketAddr,
    pub identity: Identity,
    pub tpm: Arc<SimulatedTpm>,
    machine: Machine,
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
        let options = MachineOptions::of(identity.digest());
        let machine = Machine::start_on(listener, tpm.clone(), options).await;
        Self {
            address: machine.address,
            identity,
            tpm,
            machine,
        }
    }

    /// What trusts this server.
    pub fn options(&self) -> Options {
        trusting(&self.tpm)
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
        self.machine.ended().await
    }

    pub async fn stop(self) -> Arc<SimulatedTpm> {
        self.machine.stop().await;
        self.tpm
    }
}

/// A name that is different in every test and process.
pub fn job_id() -> JobId {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("client-test-{}-{number}", std::process::id())
        .parse()
        .unwrap()
}
