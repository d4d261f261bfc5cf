//! Machines that boot nothing: what the contract says, and what becomes of machines whose processes end.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use aicert_cloud_qemu::{QemuConfig, QemuProvider, explain_end};
use aicert_core::attestation::{KeyLocation, Provisioning};
use aicert_core::cloud::{CloudErrorKind, CloudProvider, MachineId, MachineRequest};
use aicert_core::conformance::cloud as suite;
use aicert_core::digest::ClientDigest;
use aicert_core::progress::Progress;
use aicert_core::runtime::JobId;
use aicert_core::spec::{Accelerator, QemuMachine};
use aicert_swtpm_testing::{skip_without, x509_cert};
use rustix::process::{Pid, Signal, kill_process};
use x509_cert::der::{Decode as _, DecodePem as _};

/// How long firmware may take until it has found nothing, on a busy machine without virtualization.
const BOOT_LIMIT: Duration = Duration::from_secs(240);

/// A folder in which nothing runs any more after the test, however that ends.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let left = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let cwd = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
            cwd.starts_with(self.path()).then(|| Pid::from_raw(pid))?
        });
        for pid in left.collect::<Vec<_>>() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn have_programs() -> bool {
    !skip_without(&["swtpm", "qemu-system-x86_64", "qemu-img"])
}

fn machine(folder: &Path) -> QemuMachine {
    let image = folder.join("an image, of nothing");
    if !image.exists() {
        fs::write(&image, [0; 1 << 20]).unwrap();
    }
    QemuMachine {
        image,
        reference_values: None,
        accelerator: Accelerator::Tcg,
        cpus: 2,
        memory: 128 << 20,
        disk: 64 << 20,
        boot_limit: Duration::from_secs(90),
    }
}

/// A state folder whose path is too long for a socket, and has a comma in it.
fn state(folder: &Path) -> std::path::PathBuf {
    folder.join("state, ".repeat(15))
}

fn provider(folder: &Path) -> QemuProvider {
    QemuProvider::new(QemuConfig::new(state(folder)).with_machine(machine(folder))).unwrap()
}

fn job(text: &str) -> JobId {
    text.parse().unwrap()
}

fn request(name: &str) -> MachineRequest {
    MachineRequest {
        job: job(name),
        instance_type: None,
        region: None,
        client: Some(ClientDigest::from_bytes([7; 32])),
        access: Vec::new(),
        gpus: 0,
        idle: Duration::from_secs(600),
        lifetime: None,
        progress: Progress::ignored(),
    }
}

async fn wait_until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(Instant::now() < end, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn it_keeps_the_contract() {
    if !have_programs() {
        return;
    }
    let folder = Scene::new();
    let provider = provider(folder.path());
    suite::provision_list_destroy(&provider, &job("a")).await;
    suite::machines_are_independent(&provider, &job("a"), &job("b")).await;
    suite::destroying_nothing_succeeds(&provider, &MachineId("x".into())).await;
    suite::destroying_nothing_succeeds(&provider, &MachineId("../machines".into())).await;
    suite::a_dropped_provision_is_listed_or_nothing(&provider, &job("c")).await;
    assert!(provider.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_provision_that_is_dropped_at_any_moment_leaves_nothing_after_destroy() {
    if !have_programs() {
        return;
    }
    let folder = Scene::new();
    let provider = provider(folder.path());
    let begin = Instant::now();
    let id = provider.provision(request("a")).await.unwrap().id;
    let life = begin.elapsed();
    provider.destroy(&id).await.unwrap();
    for part in 0..20 {
        let provision = provider.provision(request("a"));
        let _ = tokio::time::timeout(life * part / 20, provision).await;
        provider.destroy(&id).await.unwrap();
        assert!(provider.list().await.unwrap().is_empty());
        assert!(!provider.is_running(&id).await.unwrap());
        let names: Vec<_> = fs::read_dir(state(folder.path()).join("machines"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(names.iter().all(|name| name == ".lock"), "{names:?}");
    }
}

/// The process id that the provider has written down.
fn pid(folder: &Path, job: &str, program: &str) -> Pid {
    let path = state(folder).join(format!("machines/{job}/{program}.process"));
    let process: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    Pid::from_raw(process["pid"].as_i64().unwrap().try_into().unwrap()).unwrap()
}

#[tokio::test]
async fn machines_are_as_they_were_asked_for_and_their_end_is_noticed() {
    if !have_programs() {
        return;
    }
    let folder = Scene::new();
    let provider = provider(folder.path());
    let mut machines = Vec::new();
    for name in ["a", "b"] {
        let machine = provider.provision(request(name)).await.unwrap();
        assert_eq!(machine.instance_type, "tcg-2cpu-128MiB");
        assert_eq!(machine.region, "local");
        assert_eq!(machine.in_use, Some(true));
        // Somebody listens there, who has nobody to forward to yet.
        TcpStream::connect(machine.endpoint.unwrap()).unwrap();
        machines.push(machine);
    }
    let again = provider.provision(request("a")).await.unwrap_err();
    assert!(again.message().contains("for the job a already"), "{again}");
    assert_eq!(provider.list().await.unwrap(), machines);

    // What the machine is told, and the same for everybody who looks at the state folder later.
    let told = fs::read(state(folder.path()).join("machines/a/provisioning.json")).unwrap();
    let told: Provisioning = serde_json::from_slice(&told).unwrap();
    assert_eq!(told.client, ClientDigest::from_bytes([7; 32]));
    assert_eq!(
        (
            told.provider.as_str(),
            told.instance_type.as_str(),
            told.region.as_str()
        ),
        ("qemu", "tcg-2cpu-128MiB", "local")
    );
    let gce = KeyLocation::Template {
        template: 0x01c1_0003,
        certificate: 0x01c1_0002,
    };
    assert_eq!((told.attestation_key, told.idle_seconds), (gce, 600));
    let root = x509_cert::Certificate::from_pem(provider.trust_anchor().unwrap()).unwrap();
    let last = x509_cert::Certificate::from_der(&told.issuers.last().unwrap().0).unwrap();
    assert_eq!(last, root);
    let later = QemuProvider::new(QemuConfig::new(state(folder.path()))).unwrap();
    assert_eq!(later.trust_anchor(), provider.trust_anchor());
    assert_eq!(later.list().await.unwrap(), machines);

    // No secrets in arguments: there is not even the client's digest.
    for program in ["qemu", "swtpm"] {
        let pid = pid(folder.path(), "a", program).as_raw_nonzero();
        let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(!arguments.contains("0707"), "{arguments}");
        let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
        assert!(!environment.contains("CARGO"), "{environment}");
    }

    // QEMU ends, and its TPM with it.
    kill_process(pid(folder.path(), "a", "qemu"), Signal::KILL).unwrap();
    // The TPM alone.
    kill_process(pid(folder.path(), "b", "swtpm"), Signal::KILL).unwrap();
    for machine in &machines {
        wait_until("its end is noticed", async || {
            !later.is_running(&machine.id).await.unwrap()
        })
        .await;
    }
    assert_eq!(later.list().await.unwrap().len(), 2, "what ended is still listed");
    for machine in &machines {
        later.destroy(&machine.id).await.unwrap();
    }
    assert!(provider.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_damaged_authority_keeps_nobody_from_machines() {
    if !have_programs() {
        return;
    }
    let folder = Scene::new();
    let id = provider(folder.path()).provision(request("a")).await.unwrap().id;
    fs::write(state(folder.path()).join("authority/root.pem"), "damaged").unwrap();
    let later = QemuProvider::new(QemuConfig::new(state(folder.path()))).unwrap();
    assert!(later.is_running(&id).await.unwrap());
    assert_eq!(later.list().await.unwrap().len(), 1);
    later.destroy(&id).await.unwrap();
    // Whoever wants to make another one is told.
    let config = QemuConfig::new(state(folder.path())).with_machine(machine(folder.path()));
    let error = QemuProvider::new(config).unwrap_err();
    assert!(
        error.message().contains("root.pem") && error.advice().is_some(),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_not_offered_is_refused() {
    let folder = Scene::new();
    let refused = async |change: &dyn Fn(&mut MachineRequest), machine: QemuMachine| {
        let config = QemuConfig::new(state(folder.path())).with_machine(machine);
        let provider = QemuProvider::new(config).unwrap();
        let mut request = request("a");
        change(&mut request);
        let error = provider.provision(request).await.unwrap_err();
        assert!(error.advice().is_some(), "{error}");
        assert!(provider.list().await.unwrap().is_empty(), "{error}");
        (error.kind(), error.message().to_owned())
    };
    let usual = || machine(folder.path());
    let nothing = |_: &mut MachineRequest| ();
    for (kind, words, change, machine) in [
        (
            CloudErrorKind::Unsupported,
            "has no kind of machine \"large\" here, only \"tcg-2cpu-128MiB\"",
            &(|request: &mut MachineRequest| request.instance_type = Some("large".into()))
                as &dyn Fn(&mut MachineRequest),
            usual(),
        ),
        (
            CloudErrorKind::Unsupported,
            "has no region \"moon\" here, only \"local\"",
            &|request| request.region = Some("moon".into()),
            usual(),
        ),
        (
            CloudErrorKind::Unsupported,
            "nobody was named who may use the machine's server",
            &|request| request.client = None,
            usual(),
        ),
        (
            CloudErrorKind::NotFound,
            "cannot be read: No such file",
            &nothing,
            QemuMachine {
                image: "/no/such/image".into(),
                ..usual()
            },
        ),
        (
            CloudErrorKind::Unsupported,
            "a disk of 1024 bytes was asked for, and the image ",
            &nothing,
            QemuMachine {
                disk: 1024,
                ..usual()
            },
        ),
    ] {
        if !have_programs() {
            return;
        }
        let (found, message) = refused(change, machine).await;
        assert_eq!(found, kind, "{message}");
        assert!(message.contains(words), "{message}");
    }
    if !Path::new("/dev/kvm").exists() {
        let kvm = QemuMachine {
            accelerator: Accelerator::Kvm,
            ..usual()
        };
        let (kind, message) = refused(&nothing, kvm).await;
        assert_eq!(kind, CloudErrorKind::Unsupported);
        assert!(message.contains("/dev/kvm cannot be used"), "{message}");
    }
    let without = QemuProvider::new(QemuConfig::new(state(folder.path()))).unwrap();
    let error = without.provision(request("a")).await.unwrap_err();
    assert_eq!(error.kind(), CloudErrorKind::Unsupported);
}

#[tokio::test]
async fn what_a_program_complains_about_is_told() {
    if !have_programs() {
        return;
    }
    let folder = Scene::new();
    // More than any QEMU has.
    let config = QemuConfig::new(state(folder.path())).with_machine(QemuMachine {
        cpus: 1_000_000,
        ..machine(folder.path())
    });
    let provider = QemuProvider::new(config).unwrap();
    let error = provider.provision(request("a")).await.unwrap_err();
    assert_eq!(error.kind(), CloudErrorKind::Boot);
    assert!(error.message().contains("Invalid SMP CPUs 1000000"), "{error}");
    assert!(provider.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_disk_with_nothing_to_boot_is_told() {
    if !have_programs() {
        return;
    }
    let folder = Scene::new();
    let provider = provider(folder.path());
    let machine = provider.provision(request("a")).await.unwrap();
    let begin = Instant::now();
    let explanation = loop {
        let console = provider.console_log(&machine.id).await.unwrap();
        if let Some(explanation) = explain_end(&console) {
            break explanation;
        }
        assert!(begin.elapsed() < BOOT_LIMIT, "{console}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(
        explanation.starts_with("firmware found nothing to boot"),
        "{explanation}"
    );
    assert!(provider.is_running(&machine.id).await.unwrap());
    provider.destroy(&machine.id).await.unwrap();
    assert!(!provider.is_running(&machine.id).await.unwrap());
}
