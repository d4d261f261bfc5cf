//! Machines that real firmware boots, with the TPM that it measures into: what is computed from an image's file is what
//! was measured, and proofs hold for machines that booted the released image, and for no others.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::{self, File};
use std::io::{Cursor, Read, Seek};
use std::sync::Arc;

use aicert_core::certificate::{Base64, Certificate, PlatformKind};
use aicert_core::digest::Nonce;
use aicert_core::event::Tool;
use aicert_core::pipeline::{self, Backends, Job};
use aicert_core::progress::Progress;
use aicert_core::spec::JobSpec;
use aicert_core::time::Timestamp;
use aicert_core::tpm::{PcrBank, PcrIndex, TpmBackend as _};
use aicert_runtime_docker::{DockerConfig, DockerRuntime};
use aicert_tests::machine::{Machine, MachineOptions, have_machines};
use aicert_tests::{proofs, tools};
use aicert_verify::boot::{Firmware, SecureBoot};
use aicert_verify::image::{self, MeasureOptions};
use aicert_verify::reference::{FirmwareReference, ImageReference, ReferenceValues};
use aicert_verify::{Options, Rejection, TrustAnchors, Unverified, Verified, verify};

/// As its `os-release` says.
const IMAGE: &str = "aicert test machine 1";
const FIRMWARE: &str = "OVMF in QEMU";

/// A word for the kernel command line; this one changes nothing, others would give the machine away.
const WORD: &str = "aicert.one_more_word";

fn options() -> MachineOptions {
    MachineOptions::new(env!("CARGO_BIN_EXE_guest"))
}

/// Reference values computed from the file of an image, as whoever releases it would.
fn reference_values(file: impl Read + Seek) -> ReferenceValues {
    ReferenceValues {
        images: vec![image::measure(file, &MeasureOptions::default()).unwrap()],
        ..ReferenceValues::default()
    }
}

/// The reference values of the released image, and this machine's firmware.
async fn released(machine: &Machine) -> ReferenceValues {
    let mut values = reference_values(Cursor::new(options().uki()));
    values.firmware.push(firmware(machine).await);
    values
}

/// What firmware measured into its own PCRs on this machine, as known firmware.
async fn firmware(machine: &Machine) -> FirmwareReference {
    let own: Vec<_> = [0, 2, 3].into_iter().filter_map(PcrIndex::new).collect();
    let pcrs = machine.tpm().read_pcrs(PcrBank::Sha256, &own).await.unwrap();
    FirmwareReference {
        name: FIRMWARE.into(),
        pcrs: [(PcrBank::Sha256, pcrs)].into(),
    }
}

/// Asserts that what was computed for these PCRs, and no others, is what this machine's TPM has, in every bank.
async fn assert_measured(machine: &Machine, image: &ImageReference, pcrs: &[u8]) {
    assert_eq!(image.pcrs.len(), 3, "SHA-256, SHA-384 and SHA-512");
    let pcrs: Vec<_> = pcrs.iter().copied().filter_map(PcrIndex::new).collect();
    for (bank, computed) in &image.pcrs {
        let measured = machine.tpm().read_pcrs(*bank, &pcrs).await.unwrap();
        assert_eq!(*computed, measured, "{bank}");
    }
}

async fn proof(machine: &Machine) -> Certificate {
    let tpm = machine.tpm();
    proofs::certify(&*tpm, &proofs::honest_contents(&*tpm).await).await
}

fn check(
    machine: &Machine,
    certificate: &Certificate,
    references: ReferenceValues,
) -> Result<Verified<Certificate>, Rejection> {
    let anchors = TrustAnchors::pinned()
        .with_root(machine.ca().root_pem().as_bytes())
        .unwrap();
    let options = Options::new(anchors, Timestamp::now()).with_reference_values(references);
    verify(
        Unverified::from_slice(certificate.to_json().as_bytes())?,
        &options,
    )
}

/// The causes and the words of a rejection.
fn reasons(result: Result<Verified<Certificate>, Rejection>) -> Vec<(&'static str, String)> {
    let rejection = result.expect_err("a proof of another boot was accepted");
    rejection
        .failures()
        .iter()
        .map(|failure| (failure.cause().name(), failure.to_string()))
        .collect()
}

#[track_caller]
fn assert_says(reasons: &[(&'static str, String)], cause: &str, words: &str) {
    assert!(
        reasons
            .iter()
            .any(|(name, text)| *name == cause && text.contains(words)),
        "no {cause} that says {words:?} in {reasons:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_computed_from_the_image_is_what_was_measured() {
    if !have_machines() {
        return;
    }
    let machine = Machine::boot(options()).await;
    assert_eq!(machine.uki(), options().uki(), "an image can be built again");
    let references = released(&machine).await;
    let mut of_disk = reference_values(File::open(machine.disk()).unwrap());
    // The partition table is the disk's: the image alone does not say what it is.
    assert_measured(&machine, &references.images[0], &[4, 9, 11, 12, 13]).await;
    assert_measured(&machine, &of_disk.images[0], &[4, 5, 9, 11, 12, 13]).await;

    let certificate = proof(&machine).await;
    assert_eq!(certificate.boot_event_log.0, machine.event_log());
    let verified = check(&machine, &certificate, references.clone()).unwrap();
    assert_eq!(verified.boot().image(), Some(IMAGE));
    assert_eq!(verified.boot().firmware(), &Firmware::Known(FIRMWARE.into()));
    assert_eq!(verified.boot().secure_boot(), SecureBoot::Off);

    let other_firmware = reasons(check(&machine, &certificate, of_disk.clone()));
    assert!(
        matches!(&other_firmware[..], [("Firmware", _)]),
        "{other_firmware:#?}"
    );
    of_disk.firmware.push(firmware(&machine).await);
    check(&machine, &certificate, of_disk).unwrap();

    let unknown = reasons(check(&machine, &certificate, ReferenceValues::default()));
    assert_says(&unknown, "NoReferenceValues", "no reference values");

    // Without its log, whatever a machine booted is not explained by the image alone.
    let mut silent = certificate.clone();
    silent.boot_event_log = Base64::default();
    let silent = reasons(check(&machine, &silent, references.clone()));
    assert_says(&silent, "Unexplained", "the boot log is empty");

    // Every byte of the log is covered: the digests by PCRs, all else by the measurement log.
    for position in (0..machine.event_log().len()).step_by(97) {
        let mut altered = certificate.clone();
        altered.boot_event_log.0[position] ^= 1;
        reasons(check(&machine, &altered, references.clone()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_more_word_from_outside_the_image_is_rejected_and_named() {
    if !have_machines() {
        return;
    }
    let machine = Machine::boot(options().with_word_outside_image(WORD)).await;
    assert_eq!(machine.uki(), options().uki(), "it is the released image");
    let certificate = proof(&machine).await;
    let reasons = reasons(check(&machine, &certificate, released(&machine).await));
    assert_says(&reasons, "CommandLine", &format!("added: {WORD:?}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_image_is_rejected_and_its_difference_named() {
    if !have_machines() {
        return;
    }
    let machine = Machine::boot(options().with_word_in_image(WORD)).await;
    assert_ne!(machine.uki(), options().uki());
    let certificate = proof(&machine).await;
    let reasons = reasons(check(&machine, &certificate, released(&machine).await));
    assert_says(&reasons, "UnknownImage", IMAGE);
    assert_says(&reasons, "Changed", ".cmdline");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_on_a_machine_is_certified_with_what_the_machine_booted() {
    if !have_machines() || !tools::have_docker() {
        return;
    }
    let machine = Machine::boot(options()).await;
    let folder = tempfile::tempdir().unwrap();
    let (source, workspace) = (folder.path().join("source"), folder.path().join("workspace"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&workspace).unwrap();
    let program = "open('/workspace/outputs/model', 'w').write('weights')\n";
    fs::write(source.join("main.py"), program).unwrap();
    let configuration = "kind: python\npythonVersion: 11\nsource: {type: directory, path: source}\nmachine: {provider: local, tpm: swtpm}\n";
    let backends = Backends {
        tpm: machine.tpm(),
        runtime: Arc::new(DockerRuntime::new(DockerConfig::new())),
        inputs: aicert_inputs::all(),
    };
    let job = Job {
        spec: JobSpec::from_yaml(configuration, folder.path(), &|_| None).unwrap(),
        tool: Tool {
            name: "aicert".into(),
            version: "0.0.0-test".into(),
        },
        id: format!("machine-{}", std::process::id()).parse().unwrap(),
        workspace,
        nonce: Nonce::from_bytes([1; 32]),
        platform_kind: PlatformKind::LocalCa,
        provider: "local".into(),
        instance_type: "q35".into(),
        region: "local".into(),
    };
    let outcome = pipeline::run(&job, &backends, &Progress::ignored())
        .await
        .unwrap();
    backends.runtime.clean_up(&job.id).await.unwrap();

    let verified = check(&machine, &outcome.certificate, released(&machine).await).unwrap();
    assert!(verified.is_of_a_model());
    assert_eq!(verified.boot().image(), Some(IMAGE));
    assert_eq!(verified.certificate().boot_event_log.0, machine.event_log());
}
