//! What the tests share: a real server on loopback with a software TPM and the Docker engine of this machine, and a client
//! that shares no code with aicert's own. Each test uses a part of it.
#![allow(dead_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout)] // what helps a test may fail it; a skipped one says so

pub(crate) mod answers;
pub(crate) mod binary;
pub(crate) mod client;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aicert_core::api::{JobState, JobStatus, Provisioning};
use aicert_core::digest::ClientDigest;
use aicert_runtime_docker::DockerConfig;
use aicert_server::{Ended, Limits};
use aicert_swtpm_testing::{KeyAlgorithm, SimulatedTpm, SimulationOptions, skip_without};
use aicert_testing::{Machine, MachineOptions};

pub(crate) use client::{Client, Identity};

/// The image that jobs run in.
pub(crate) const IMAGE: &str = "aicert/python:3.11";

/// How a scene differs from the usual one.
pub(crate) struct Setup {
    pub(crate) idle_seconds: u64,
    pub(crate) lifetime_seconds: Option<u64>,
    pub(crate) limits: Limits,
    /// Where the state is; a folder of its own otherwise.
    pub(crate) state: Option<PathBuf>,
    pub(crate) docker: DockerConfig,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            idle_seconds: 600,
            lifetime_seconds: None,
            limits: Limits::default(),
            state: None,
            docker: DockerConfig::new(),
        }
    }
}

/// A server that serves.
pub(crate) struct Scene {
    pub(crate) address: SocketAddr,
    pub(crate) tpm: Arc<SimulatedTpm>,
    pub(crate) owner: Client,
    pub(crate) identity: Identity,
    pub(crate) state: PathBuf,
    pub(crate) tls_key: aicert_core::digest::TlsKeyDigest,
    machine: Machine,
}

impl Scene {
    /// The usual scene; nothing where a tool is missing.
    pub(crate) async fn start() -> Option<Self> {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Option<Self> {
        if skip_without(&["swtpm"]) {
            return None;
        }
        let tpm = SimulatedTpm::start(SimulationOptions::new(KeyAlgorithm::EccP256))
            .await
            .unwrap();
        Some(Self::of(Arc::new(tpm), setup).await)
    }

    pub(crate) async fn of(tpm: Arc<SimulatedTpm>, setup: Setup) -> Self {
        let identity = Identity::generate();
        let mut options = MachineOptions::of(identity.digest());
        options.provisioning.idle_seconds = setup.idle_seconds;
        options.provisioning.lifetime_seconds = setup.lifetime_seconds;
        options.limits = setup.limits;
        options.state = setup.state;
        options.docker = setup.docker;
        let machine = Machine::start(Arc::clone(&tpm) as _, options).await;
        Self {
            address: machine.address,
            tpm,
            owner: Client::new(machine.address, Some(&identity)),
            identity,
            state: machine.state.clone(),
            tls_key: machine.tls_key,
            machine,
        }
    }

    /// Waits until the server ends by itself.
    pub(crate) async fn ended(self) -> Ended {
        self.machine.ended().await
    }

    /// Ends the server.
    pub(crate) async fn stop(self) {
        self.machine.stop().await;
    }
}

pub(crate) fn provisioning(client: ClientDigest, idle_seconds: u64) -> Provisioning {
    Provisioning {
        idle_seconds,
        ..MachineOptions::of(client).provisioning
    }
}

/// The name of a job, different in every test and process.
pub(crate) fn job_id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "server-test-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A configuration that runs a script in a folder of the client's; `more` are further lines.
pub(crate) fn config(script: &str, more: &str) -> String {
    format!(
        "kind: container\nimage: {IMAGE}\ncommand: [python3, -c, {}]\n\
         source: {{type: directory, path: ./code}}\nmachine: {{provider: local, tpm: swtpm}}\n{more}",
        serde_json::to_string(script).unwrap()
    )
}

pub(crate) fn submission(id: &str, config: &str) -> serde_json::Value {
    serde_json::json!({
        "id": id,
        "config": config,
        "base_dir": "/client/project",
        "nonce": "5a".repeat(32),
    })
}

/// A tar archive with one file.
pub(crate) fn small_tar() -> Vec<u8> {
    tar_of(&[("main.py", b"print('hello')\n")])
}

pub(crate) fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, contents) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, *contents).unwrap();
    }
    builder.into_inner().unwrap()
}

impl Client {
    /// Submits a job that is accepted, and sends its source.
    pub(crate) async fn begin(&self, id: &str, config: &str) {
        let (status, body) = self.post("/v1/jobs", &submission(id, config)).await;
        assert_eq!(status, 201, "{body}");
        let (status, body) = self.put(&format!("/v1/jobs/{id}/inputs/code"), small_tar()).await;
        assert_eq!(status, 200, "{body}");
    }

    pub(crate) async fn status(&self, id: &str) -> JobStatus {
        let (status, body) = self.get(&format!("/v1/jobs/{id}")).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Waits for the end of a job.
    pub(crate) async fn end_of(&self, id: &str) -> JobStatus {
        for _ in 0..2400 {
            let status = self.status(id).await;
            if !matches!(status.state, JobState::Receiving | JobState::Running) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("job {id} does not end");
    }

    /// Waits until the events of a job hold a text.
    pub(crate) async fn await_event(&self, id: &str, text: &str) {
        use futures_util::StreamExt as _;
        let response = self.request(reqwest::Method::GET, &format!("/v1/jobs/{id}/events"));
        let mut stream = response.send().await.unwrap().bytes_stream();
        let mut seen = String::new();
        while let Some(chunk) = stream.next().await {
            seen.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
            if seen.contains(text) {
                return;
            }
        }
        panic!("the job ended without {text}: {seen}");
    }
}

/// Nothing of a job is left in the engine.
pub(crate) async fn assert_nothing_is_left(id: &str) {
    let listed = tokio::process::Command::new("docker")
        .args(["ps", "--all", "--quiet", "--filter"])
        .arg(format!("label=aicert.job={id}"))
        .output()
        .await
        .unwrap();
    assert!(listed.status.success());
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "", "containers of {id}");
}

pub(crate) fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}
