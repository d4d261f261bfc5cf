//! The command itself, in a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use aicert_core::api::Provisioning;
use aicert_core::certificate::Base64;
use aicert_swtpm_testing::{PlatformKey, SwtpmInstance, SwtpmOptions, TestCa};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::{Client, Identity};

/// A machine: a TPM as GCE has it, a disk, and what it was told before it booted.
pub(crate) struct Machine {
    pub(crate) swtpm: SwtpmInstance,
    pub(crate) ca: TestCa,
    pub(crate) identity: Identity,
    /// More of them for the server.
    pub(crate) arguments: Vec<String>,
    folder: tempfile::TempDir,
}

/// The server of a machine.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) owner: Client,
    lines: Lines<BufReader<ChildStdout>>,
    /// Everything that it logged and that was read.
    pub(crate) log: String,
}

impl Machine {
    pub(crate) async fn new() -> Self {
        let swtpm = SwtpmInstance::start(SwtpmOptions::new()).unwrap();
        let ca = TestCa::new().unwrap();
        let key = PlatformKey::like_gce();
        let location = key.location();
        let issuers = swtpm.provision(&ca, key).await.unwrap();
        Self::of(swtpm, ca, |document| {
            document.attestation_key = location;
            document.issuers = issuers.into_iter().map(Base64).collect();
        })
    }

    /// A machine with this TPM, which is told what `tell` adds.
    pub(crate) fn of(swtpm: SwtpmInstance, ca: TestCa, tell: impl FnOnce(&mut Provisioning)) -> Self {
        let identity = Identity::generate();
        let folder = tempfile::tempdir().unwrap();
        let mut document = super::provisioning(identity.digest(), 600);
        tell(&mut document);
        let text = serde_json::to_vec(&document).unwrap();
        std::fs::write(folder.path().join("provisioning.json"), text).unwrap();
        Self {
            swtpm,
            ca,
            identity,
            arguments: Vec::new(),
            folder,
        }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aicert-server"));
        command
            .arg("--provisioning")
            .arg(self.folder.path().join("provisioning.json"))
            .arg("--state")
            .arg(self.state())
            .args(["--listen", "127.0.0.1:0", "--tpm"])
            .arg(format!("swtpm:127.0.0.1:{}", self.swtpm.port()))
            .args(&self.arguments)
            .env("HUNTER_TOKEN", "hunter2-of-the-server")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Starts the server, and waits until it is ready.
    pub(crate) async fn start(&self) -> Process {
        let mut child = self.command().spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut log = String::new();
        let ready = async {
            loop {
                let line = lines
                    .next_line()
                    .await
                    .unwrap()
                    .expect("it says that it is ready");
                log.push_str(&line);
                log.push('\n');
                let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
                if entry["message"] == "aicert-server: ready" {
                    return entry["address"].as_str().unwrap().parse::<SocketAddr>().unwrap();
                }
            }
        };
        let address = tokio::time::timeout(Duration::from_secs(60), ready)
            .await
            .unwrap();
        Process {
            child,
            owner: Client::new(address, Some(&self.identity)),
            lines,
            log,
        }
    }
}

impl Process {
    /// As when the machine loses its power, as far as a process can.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for its end, and reads the rest of its log.
    pub(crate) async fn ended(mut self) -> (std::process::ExitStatus, String) {
        let ended = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                self.log.push_str(&line);
                self.log.push('\n');
            }
            self.child.wait().await.unwrap()
        };
        let status = tokio::time::timeout(Duration::from_secs(60), ended)
            .await
            .unwrap();
        (status, self.log)
    }

    /// What it occupies of the machine's memory at most, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

/// Whether any file below a folder holds a text; larger ones than any proof are none.
pub(crate) fn holds(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, text);
        }
        if std::fs::symlink_metadata(&path).unwrap().len() > 64 << 20 {
            return false;
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}
