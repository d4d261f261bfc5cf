//! A server as a machine would run it, and a job that is recorded for it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aicert_client::{Client, Identity};
use aicert_core::cloud::{MachineId, MachineRequest};
use aicert_core::digest::ConfigDigest;
use aicert_core::progress::{Progress, ProgressEvent};
use aicert_swtpm_testing::{KeyAlgorithm, SimulatedTpm, SimulationOptions, skip_without};
use aicert_testing::{Machine, MachineOptions, no_docker, trusting};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc};

use crate::args::{Color, GlobalArgs};
use crate::deliver::Delivery;
use crate::local::{LocalProvider, Purpose};
use crate::output::Terminal;
use crate::remote::Errand;
use crate::remote::record::tests::record;
use crate::remote::record::{CONFIGURATION, Phase, Run, Runs, SESSION};
use crate::state::State;
use crate::trust::Trust;

pub(super) struct Scene {
    pub(super) folder: tempfile::TempDir,
    pub(super) run: Run,
    pub(super) errand: Errand,
    pub(super) events: mpsc::Receiver<ProgressEvent>,
    machine: Machine,
    cut: broadcast::Sender<()>,
}

/// Where nothing is attested, and nobody answers: what is known of a job on this computer.
pub(super) fn errand(
    folder: &tempfile::TempDir,
    configuration: &str,
) -> (Run, Errand, mpsc::Receiver<ProgressEvent>) {
    let state = State {
        folder: folder.path().join("state"),
        cache: folder.path().join("cache"),
    };
    let mut record = record("a", folder.path());
    let job = format!("cli-test-{}-{:08x}", std::process::id(), rand());
    record.job = job.clone();
    record.config = ConfigDigest::of(configuration.as_bytes());
    record.machine = Some(job);
    record.phase = Phase::Attested;
    let targets = record.targets.clone();
    let beside = [(CONFIGURATION, configuration.as_bytes())];
    let run = Runs::of(&state).begin(record, &beside).unwrap();
    let (progress, events) = Progress::channel(4096);
    let errand = Errand {
        provider: Arc::new(LocalProvider::new(&state.folder, Purpose::default()).unwrap()),
        identity: Identity::generate().unwrap(),
        trust: Trust::default(),
        delivery: Delivery::new(targets, state.rescue(run.job()), run.job().clone()),
        progress,
        terminal: Terminal::new(&GlobalArgs {
            quiet: true,
            json: false,
            color: Color::Never,
        }),
    };
    (run, errand, events)
}

fn rand() -> u32 {
    u32::from_ne_bytes(crate::state::random().unwrap())
}

impl Scene {
    /// A machine that was attested and has no job yet; nothing where a tool is missing.
    pub(super) async fn attested(script: &str) -> Option<Self> {
        if skip_without(&["swtpm"]) || no_docker().await {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("code")).unwrap();
        fs::write(folder.path().join("code/main.py"), script).unwrap();
        let configuration = "kind: container\nimage: aicert/python:3.11\ncommand: [python3, /workspace/src/main.py]\n\
            source: {type: directory, path: ./code}\nmachine: {provider: local, tpm: swtpm}\n";
        let (run, mut errand, events) = errand(&folder, configuration);
        let options = SimulationOptions::new(KeyAlgorithm::EccP256);
        let tpm = Arc::new(SimulatedTpm::start(options).await.unwrap());
        errand.trust.root_pem = Some(tpm.root_pem());
        let options = MachineOptions::of(errand.identity.digest());
        let machine = Machine::start(tpm.clone(), options).await;
        let (cut, _) = broadcast::channel(1);
        let address = relay(machine.address, cut.clone()).await;
        let client = Client::new(address, errand.identity.clone());
        let attested = client.attest(&trusting(&tpm)).await.unwrap();
        run.write(SESSION, &serde_json::to_vec(attested.session()).unwrap())
            .unwrap();
        // What tells whether the machine runs.
        let request = MachineRequest {
            job: run.job().clone(),
            instance_type: None,
            region: None,
            client: None,
            access: Vec::new(),
            gpus: 0,
            idle: Duration::ZERO,
            lifetime: None,
            progress: Progress::ignored(),
        };
        errand.provider.provision(request).await.unwrap();
        Some(Self {
            folder,
            run,
            errand,
            events,
            machine,
            cut,
        })
    }

    /// Breaks every connection, in a moment.
    pub(super) fn cutter(&self) -> impl Fn() + use<> {
        let cut = self.cut.clone();
        move || {
            let cut = cut.clone();
            tokio::spawn(async move {
                // There is something to break by then.
                tokio::time::sleep(Duration::from_millis(500)).await;
                let _ = cut.send(());
            });
        }
    }

    /// Cuts the machine's power.
    pub(super) async fn end_machine(&self) {
        self.machine.stop_handle().stop();
        let _ = self.cut.send(());
        let machine = MachineId(self.run.job().to_string());
        self.errand.provider.destroy(&machine).await.unwrap();
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The hidden name of a result.
    pub(super) fn hidden(&self, name: &str) -> PathBuf {
        crate::files::partial(&self.at(name), self.run.job())
    }

    /// The warnings so far.
    pub(super) fn warnings(&mut self) -> Vec<String> {
        let mut warnings = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            if let ProgressEvent::Warning { message } = event {
                warnings.push(message);
            }
        }
        warnings
    }
}

/// Passes on what it cannot read, until the cable is pulled.
async fn relay(to: SocketAddr, cut: broadcast::Sender<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut cut = cut.subscribe();
            tokio::spawn(async move {
                let Ok(mut server) = TcpStream::connect(to).await else {
                    return;
                };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    _ = cut.recv() => {}
                }
            });
        }
    });
    address
}
