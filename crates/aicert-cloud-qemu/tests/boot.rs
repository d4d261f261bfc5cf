//! Machines that firmware really boots, without virtualization: from power-on to attested, and what is said of those that
//! do not come up.
//!
//! The base image is the one that the environment variable `AICERT_BASE_IMAGE` names, raw, with its reference values beside
//! it, as `image/base/build` writes both. These tests show how long each phase takes, and run when asked for (`--ignored`): the
//! tests of the whole, in `tests/`, build the image and boot it always.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests may panic and print like tests"
)]

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aicert_client::{Client, ClientError, Identity};
use aicert_cloud_qemu::{QemuConfig, QemuProvider, explain_end};
use aicert_core::cloud::{CloudProvider as _, MachineId, MachineRequest};
use aicert_core::progress::Progress;
use aicert_core::spec::{Accelerator, QemuMachine};
use aicert_core::time::Timestamp;
use aicert_swtpm_testing::skip_without;
use aicert_verify::policy::Policy;
use aicert_verify::reference::ReferenceValues;
use aicert_verify::{Options, TrustAnchors};

/// How long a boot may take here, on a busy machine without virtualization.
const PATIENCE: Duration = Duration::from_secs(240);

/// What shows on the console how far a machine is.
const PHASES: [(&str, &str); 8] = [
    ("firmware has found the image", "BdsDxe: loading Boot"),
    ("firmware has loaded the image", "BdsDxe: starting Boot"),
    ("the image has measured itself", "Measured initrd data"),
    ("the kernel has begun", "[    0."),
    ("init has begun", "aicert-init: stage 1"),
    ("the root file system is mounted", "aicert-init: stage 2"),
    ("programs are started", "aicert-init: started "),
    ("the server listens", "aicert-server: ready"),
];

fn have_programs() -> bool {
    !skip_without(&["swtpm", "qemu-system-x86_64", "qemu-img"])
}

/// The base image, unless QEMU is missing.
///
/// # Panics
///
/// When nobody says where it is.
fn base_image() -> Option<PathBuf> {
    let image = std::env::var_os("AICERT_BASE_IMAGE").expect("AICERT_BASE_IMAGE names the base image");
    have_programs().then(|| image.into())
}

fn provider(state: &Path, image: &Path) -> QemuProvider {
    let machine = QemuMachine {
        image: image.to_owned(),
        reference_values: None,
        accelerator: Accelerator::Tcg,
        cpus: 2,
        memory: 2 << 30,
        disk: 8 << 30,
        boot_limit: PATIENCE,
    };
    QemuProvider::new(QemuConfig::new(state).with_machine(machine)).unwrap()
}

fn request(identity: &Identity) -> MachineRequest {
    MachineRequest {
        job: "boot".parse().unwrap(),
        instance_type: None,
        region: None,
        client: Some(identity.digest()),
        idle: Duration::from_secs(600),
        progress: Progress::ignored(),
    }
}

/// Waits until the console says why the machine has ended.
async fn explanation(provider: &QemuProvider, id: &MachineId) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        let console = provider.console_log(id).await.unwrap();
        if let Some(explanation) = explain_end(&console) {
            return explanation;
        }
        assert!(
            Instant::now() < end && provider.is_running(id).await.unwrap(),
            "it ended without a word, or not at all:\n{console}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "boots the image that AICERT_BASE_IMAGE names"]
async fn the_base_image_boots_and_is_attested() {
    let Some(image) = base_image() else { return };
    let state = tempfile::tempdir().unwrap();
    let provider = provider(state.path(), &image);
    let identity = Identity::generate().unwrap();
    let begin = Instant::now();
    let machine = provider.provision(request(&identity)).await.unwrap();
    eprintln!("{:6.1} s: QEMU runs", begin.elapsed().as_secs_f64());

    let references = fs::read(image.with_extension("reference-values.json")).unwrap();
    let anchors = TrustAnchors::pinned()
        .with_root(provider.trust_anchor().unwrap().as_bytes())
        .unwrap();
    let options = Options::new(anchors, Timestamp::now())
        .with_reference_values(ReferenceValues::from_slice(&references).unwrap())
        .with_policy(Policy::for_own_root().accepting_any_firmware());
    let client = Client::new(machine.endpoint.unwrap(), identity);
    let mut phases = PHASES.iter().peekable();
    loop {
        let console = provider.console_log(&machine.id).await.unwrap();
        while let Some((phase, _)) = phases.next_if(|(_, words)| console.contains(words)) {
            eprintln!("{:6.1} s: {phase}", begin.elapsed().as_secs_f64());
        }
        assert!(begin.elapsed() < PATIENCE, "{console}");
        assert!(provider.is_running(&machine.id).await.unwrap(), "{console}");
        assert_eq!(explain_end(&console), None, "{console}");
        if phases.peek().is_none() {
            match client.attest(&options).await {
                Ok(_) => break,
                Err(ClientError::NotYet { .. }) => {}
                Err(error) => panic!("{error:?}\n{console}"),
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eprintln!("{:6.1} s: it is attested", begin.elapsed().as_secs_f64());

    // Without its power, it is there to be looked at, and no more.
    provider.power_off(&machine.id).await.unwrap();
    assert!(!provider.is_running(&machine.id).await.unwrap());
    let console = provider.console_log(&machine.id).await.unwrap();
    assert!(console.contains("aicert-server: ready"), "{console}");
    provider.destroy(&machine.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "boots the image that AICERT_BASE_IMAGE names"]
async fn one_changed_byte_in_the_root_file_system_does_not_boot_and_is_told() {
    let Some(image) = base_image() else { return };
    let state = tempfile::tempdir().unwrap();
    let changed = state.path().join("changed.raw");
    fs::copy(&image, &changed).unwrap();
    flip_byte(&changed, root_partition(&changed) + 100);
    let provider = provider(&state.path().join("state"), &changed);
    let request = request(&Identity::generate().unwrap());
    let machine = provider.provision(request).await.unwrap();
    let explanation = explanation(&provider, &machine.id).await;
    assert!(
        explanation.starts_with(
            "the root file system is not the one that the image was built with: data block 0 does not have"
        ),
        "{explanation}"
    );
    let end = Instant::now() + Duration::from_secs(60);
    while provider.is_running(&machine.id).await.unwrap() {
        assert!(Instant::now() < end, "the kernel goes on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    provider.destroy(&machine.id).await.unwrap();
}

/// Where the partition with the root file system begins (UEFI 2.10, sections 5.3.2 and 5.3.3).
fn root_partition(image: &Path) -> u64 {
    let mut table = vec![0; 64 << 10];
    File::open(image).unwrap().read_exact(&mut table).unwrap();
    let name: Vec<u8> = "aicert-root".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let entry = table[1024..]
        .chunks(128)
        .find(|entry| entry[56..].starts_with(&name))
        .unwrap();
    u64::from_le_bytes(entry[32..40].try_into().unwrap()) * 512
}

fn flip_byte(path: &Path, position: u64) {
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(position)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(position)).unwrap();
    file.write_all(&[byte[0] ^ 1]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_with_nothing_to_boot_is_told() {
    if !have_programs() {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let image = state.path().join("nothing.raw");
    fs::write(&image, [0; 1 << 20]).unwrap();
    let provider = provider(&state.path().join("state"), &image);
    let request = request(&Identity::generate().unwrap());
    let machine = provider.provision(request).await.unwrap();
    let explanation = explanation(&provider, &machine.id).await;
    assert!(
        explanation.starts_with("firmware found nothing to boot"),
        "{explanation}"
    );
    assert!(provider.is_running(&machine.id).await.unwrap());
    provider.destroy(&machine.id).await.unwrap();
    assert!(!provider.is_running(&machine.id).await.unwrap());
}
