//! The commands for experts on real evidence: what clouds' machines produced, what a software TPM signs here, and what other
//! tools make of the same files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use aicert_core::certificate::Certificate;
use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues, TpmBackend as _};
use aicert_swtpm_testing::{KeyAlgorithm, SimulatedTpm, SimulationOptions};
use aicert_tests::machine::{MachineOptions, have_machines};
use aicert_tests::proofs;
use aicert_tests::scene::Scene;
use aicert_tests::tools;
use aicert_verify::eventlog::EventType;
use aicert_verify::reference::{Digests, ExpectedEvent, FirmwareReference, ImageReference, ReferenceValues};
use aicert_verify::testing::{Boot, BootEvent, application, event, section, separator, utf16, variable};
use serde_json::{Value, json};

const AICERT: &str = env!("CARGO_BIN_EXE_aicert-under-test");

/// A folder of the evidence outside of the repository. Without it these tests say so and are skipped.
fn vectors(name: &str) -> Option<PathBuf> {
    let Some(root) = std::env::var_os("AICERT_TEST_VECTORS") else {
        println!("skipped: AICERT_TEST_VECTORS is not set");
        return None;
    };
    let folder = Path::new(&root).join(name);
    assert!(folder.is_dir(), "{} is missing", folder.display());
    Some(folder)
}

/// Runs the command in a folder with `--json`; returns what it says, having asserted how it ends.
#[track_caller]
fn run(folder: &Path, arguments: &[&str], code: i32) -> Value {
    let output = Command::new(AICERT)
        .args(arguments)
        .arg("--json")
        .current_dir(folder)
        .output()
        .unwrap();
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(
        output.status.code(),
        Some(code),
        "{arguments:?}\n{}{}",
        shown(&output.stdout),
        shown(&output.stderr)
    );
    let bytes = if output.stdout.is_empty() {
        &output.stderr
    } else {
        &output.stdout
    };
    serde_json::from_slice(bytes).unwrap()
}

/// The causes of the failures in a result.
fn causes(result: &Value) -> Vec<&str> {
    assert_eq!(result["verified"], false);
    let failures = result["failures"].as_array().unwrap().iter();
    failures
        .map(|failure| failure["cause"].as_str().unwrap())
        .collect()
}

#[test]
fn logs_of_real_machines_replay_as_known_and_as_tpm2_tools_say() {
    let Some(folder) = vectors("eventlogs") else {
        return;
    };
    let tools = tools::have("tpm2_eventlog");
    for (name, values) in [
        ("arch-linux", 18),
        ("bootorder", 20),
        ("gce-ubuntu-2104-log", 33),
        ("sd-boot-fedora37", 10),
        ("uefi-sha1-log", 8),
    ] {
        let (log, pcrs) = (format!("{name}.bin"), format!("{name}.pcrs.json"));
        let shown = Command::new(AICERT)
            .args(["eventlog", &log, "--pcrs", &pcrs, "--json"])
            .current_dir(&folder)
            .output()
            .unwrap();
        let result: Value = serde_json::from_slice(&shown.stdout).unwrap();
        let compared = result["compared"].as_array().unwrap();
        assert_eq!(compared.len(), values, "{name}");
        assert!(
            compared.iter().all(|pcr| pcr["equal"] == true),
            "{name}: {compared:?}"
        );
        let faults = result["faults"].as_array().unwrap();
        assert_eq!(
            shown.status.code(),
            Some(i32::from(!faults.is_empty())),
            "{name}: {faults:?}"
        );
        if tools {
            assert_eq!(replayed_by_tools(&folder.join(&log)), pcrs_of(&result), "{name}");
        }
    }
}

type Pcrs = BTreeMap<String, BTreeMap<u8, String>>;

fn pcrs_of(result: &Value) -> Pcrs {
    let banks = result["pcrs"].as_object().unwrap().iter();
    let values = |bank: &Value| -> BTreeMap<u8, String> {
        let values = bank.as_object().unwrap().iter();
        values
            .map(|(pcr, value)| (pcr.parse().unwrap(), value.as_str().unwrap().to_owned()))
            .collect()
    };
    banks.map(|(bank, pcrs)| (bank.clone(), values(pcrs))).collect()
}

/// The last part of what `tpm2_eventlog` prints: banks, and below each `0  : 0x…`.
fn replayed_by_tools(log: &Path) -> Pcrs {
    let output = Command::new("tpm2_eventlog").arg(log).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, replay) = text.split_once("\npcrs:\n").unwrap();
    let mut pcrs = Pcrs::new();
    let mut bank = String::new();
    for line in replay.lines() {
        match line.trim().split_once(':') {
            Some((name, "")) => bank = name.to_owned(),
            Some((pcr, value)) => {
                let value = value.trim().strip_prefix("0x").unwrap().to_owned();
                pcrs.entry(bank.clone())
                    .or_default()
                    .insert(pcr.trim().parse().unwrap(), value);
            }
            None => panic!("{line}"),
        }
    }
    pcrs
}

const CHAIN: [&str; 4] = ["--chain", "chain-0.der", "chain-1.der", "chain-2.der"];

fn quote<'a>(platform: &'a str, signature: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let files = [
        "--message",
        "quote.msg",
        "--signature",
        signature,
        "--pcrs",
        "pcrs.json",
    ];
    [
        &["quote", "verify", "--platform", platform][..],
        &files,
        more,
        &CHAIN,
    ]
    .concat()
}

#[test]
fn quotes_of_azure_hold_while_their_certificates_are_valid() {
    for (name, at, machine) in [
        ("azure-trusted-launch", "2025-06-01T00:00:00Z", "2d056151df3d"),
        ("azure-trusted-launch-expired", "2024-06-01T00:00:00Z", ""),
    ] {
        let Some(folder) = vectors(name) else { return };
        // They are from when Azure's renewal certified whatever key it found.
        let early = "--dangerous-accept-azure-keys-certified-before-fix";
        let strict = quote("azure-trusted-launch", "quote.sig.tpmt", &["--at", at]);
        assert_eq!(causes(&run(&folder, &strict, 1)), ["CertifiedBeforeFix"]);
        let of = |more: &[&'static str]| {
            quote(
                "azure-trusted-launch",
                "quote.sig.tpmt",
                &[&[early], more].concat(),
            )
        };
        let result = run(&folder, &of(&["--at", at]), 0);
        assert_eq!(result["verified"], true);
        assert_eq!(result["platform"], "azure-trusted-launch");
        assert_eq!(result["simulated"], false);
        assert_eq!(result["nonce_compared"], false);
        assert_eq!(result["qualifying_data"], "");
        assert_eq!(result["pcrs"].as_object().unwrap().len(), 24);
        assert!(result["signed_by"][0].as_str().unwrap().contains(machine));
        // Leaf and intermediate have expired, and are named.
        let now = run(&folder, &of(&[]), 1);
        assert_eq!(causes(&now), ["Expired", "Expired"]);
        assert!(
            now["failures"][1]["message"]
                .as_str()
                .unwrap()
                .contains("Global Virtual TPM CA - 01")
        );
        // It was asked for without a nonce, so it answers none.
        let asked = run(&folder, &of(&["--at", at, "--nonce", "00"]), 1);
        assert_eq!(causes(&asked), ["NonceMissing"]);
        let other = run(
            &folder,
            &quote("gce-shielded-vm", "quote.sig.tpmt", &[early, "--at", at]),
            1,
        );
        assert_eq!(causes(&other), ["Platform"]);
    }
}

#[test]
fn a_quote_of_compute_engine_answers_its_nonce_and_names_its_machine() {
    let Some(folder) = vectors("gcp-cvm-amd") else {
        return;
    };
    let nonce = std::fs::read_to_string(folder.join("nonce.hex")).unwrap();
    let nonce = nonce.trim();
    let of = |nonce, at| {
        let more = ["--nonce", nonce, "--at", at];
        run(
            &folder,
            &quote("gce-shielded-vm", "quote.sig.der", &more),
            i32::from(nonce == "00" || at < "2026-02-02"),
        )
    };
    let result = of(nonce, "2026-02-03T00:00:00Z");
    assert_eq!(result["nonce_compared"], true);
    assert_eq!(result["qualifying_data"], nonce);
    assert_eq!(result["instance"]["zone"], "us-central1-f");
    // The serial number of the machine is also the name in its certificate.
    let name = result["signed_by"][0].as_str().unwrap();
    assert!(
        name.contains(&result["instance"]["instance_id"].to_string()),
        "{name}"
    );
    assert_eq!(causes(&of("00", "2026-02-03T00:00:00Z")), ["OtherNonce"]);
    assert_eq!(causes(&of(nonce, "2026-02-01T00:00:00Z")), ["NotYetValid"]);
}

#[test]
fn a_document_of_nitro_holds_when_it_was_made() {
    let Some(folder) = vectors("aws-nitrotpm") else {
        return;
    };
    let of = |more: &[&str], code| {
        let arguments = [&["nitro", "verify", "attestation-document.cbor"][..], more].concat();
        run(&folder, &arguments, code)
    };
    let now = of(&[], 1);
    assert!(causes(&now).iter().all(|cause| *cause == "Expired"), "{now:?}");
    let made = now["unverified_timestamp"].as_str().unwrap();
    assert!(made.starts_with("2026-02-03T"));
    let result = of(&["--at", made], 0);
    assert_eq!(result["timestamp"], made);
    assert_eq!(
        (&result["bank"], &result["simulated"]),
        (&json!("sha384"), &json!(false))
    );
    let known: Value = serde_json::from_slice(&std::fs::read(folder.join("pcrs.json")).unwrap()).unwrap();
    for (pcr, value) in result["pcrs"].as_object().unwrap() {
        assert_eq!(known["sha384"][pcr], *value, "PCR {pcr}");
    }
    assert_eq!(causes(&of(&["--at", "2026-02-04T10:12:02Z"], 1))[0], "Expired");
    of(&["--at", made, "--nonce", "00"], 1);
}

/// A software TPM into which this boot was measured, and whose log says so.
async fn booted(scene: &Scene, boot: &Boot) -> Option<SimulatedTpm> {
    if !tools::have("swtpm") {
        return None;
    }
    let log = scene.write("boot.log", boot.log());
    let options = SimulationOptions::new(KeyAlgorithm::EccP256).with_boot_event_log(log);
    let tpm = SimulatedTpm::start(options).await.unwrap();
    for event in boot.events.iter().filter(|event| event.hashed.is_some()) {
        let pcr = PcrIndex::new(u8::try_from(event.pcr).unwrap()).unwrap();
        let banks = tpm.capabilities().banks.iter();
        let digests = banks.map(|bank| (*bank, event.digest(*bank))).collect();
        tpm.extend(pcr, &digests).await.unwrap();
    }
    scene.write("ca.pem", tpm.root_pem());
    Some(tpm)
}

fn boot() -> Boot {
    let mut events = vec![
        event(0, EventType::S_CRTM_VERSION, &utf16("1.0")),
        event(
            7,
            EventType::EFI_VARIABLE_DRIVER_CONFIG,
            &variable("SecureBoot", &[0]),
        ),
    ];
    events.extend((0..8).map(separator));
    events.push(application("\\EFI\\BOOT\\BOOTX64.EFI", b"uki"));
    events.extend(section(".linux", b"kernel"));
    Boot { locality: 0, events }
}

/// What is known of that boot: the image under a name, and the firmware.
fn references(boot: &Boot) -> ReferenceValues {
    let of_image =
        |event: &&BootEvent| [4, 11].contains(&event.pcr) && event.event_type != EventType::SEPARATOR;
    let expected = |event: &BootEvent| ExpectedEvent {
        pcr: PcrIndex::new(u8::try_from(event.pcr).unwrap()).unwrap(),
        event_type: event.event_type.to_string(),
        what: "a part of the image".into(),
        digests: Digests::with(|bank| event.digest(bank)),
        optional: false,
    };
    let pcrs = boot.pcrs(PcrBank::Sha256).0;
    let of_firmware = pcrs
        .into_iter()
        .filter(|(pcr, _)| [0, 2, 3].contains(&pcr.as_u8()));
    ReferenceValues {
        images: vec![ImageReference {
            name: "an image 1.0".into(),
            sha256: Digests::of(b"image").sha256,
            build: None,
            stub: None,
            kernel: None,
            command_line: None,
            events: boot.events.iter().filter(of_image).map(expected).collect(),
            pcrs: BTreeMap::new(),
        }],
        firmware: vec![FirmwareReference {
            name: "firmware 2".into(),
            pcrs: [(PcrBank::Sha256, PcrValues(of_firmware.collect()))].into(),
        }],
        ..ReferenceValues::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quote_of_a_software_tpm_holds_for_its_own_root_and_no_other() {
    let scene = Scene::new(AICERT);
    let Some(tpm) = booted(&scene, &boot()).await else {
        return;
    };
    let selected: Vec<_> = (0..8).filter_map(PcrIndex::new).collect();
    let quote = tpm.quote(PcrBank::Sha256, &selected, b"challenge").await.unwrap();
    let key = tpm.attestation_key().await.unwrap().unwrap();
    scene.write("quote.msg", &quote.attest);
    scene.write("quote.sig", &quote.signature);
    scene.write("key", &key.public);
    // As tpm2_readpublic writes it: with its length.
    let length = u16::try_from(key.public.len()).unwrap().to_be_bytes();
    scene.write("key.tpm2b", [&length[..], &key.public].concat());
    // The root first: the order does not matter.
    let chain: Vec<_> = (0..key.certificate_chain.len())
        .map(|index| format!("{index}.der"))
        .collect();
    for (name, der) in chain.iter().zip(&key.certificate_chain) {
        scene.write(name, der);
    }
    let values = |pcrs: &PcrValues| json!({ "sha256": pcrs }).to_string();
    scene.write("pcrs.json", values(&quote.pcrs));
    let nonce = hex::encode("challenge");
    let of = |pcrs: &str, more: &[&str], code| {
        let mut arguments = vec![
            "quote",
            "verify",
            "--platform",
            "local-ca",
            "--message",
            "quote.msg",
        ];
        arguments.extend(["--signature", "quote.sig", "--pcrs", pcrs, "--chain"]);
        arguments.extend(chain.iter().rev().map(String::as_str));
        arguments.extend(more);
        run(scene.path(), &arguments, code)
    };
    let trusted = ["--trust-anchor", "ca.pem", "--public", "key", "--nonce", &nonce];

    let result = of("pcrs.json", &trusted, 0);
    assert_eq!(
        (&result["platform"], &result["simulated"]),
        (&json!("local-ca"), &json!(true))
    );
    assert_eq!(result["public_area_compared"], true);
    assert_eq!(result["pcrs"], json!(quote.pcrs));
    of(
        "pcrs.json",
        &["--trust-anchor", "ca.pem", "--public", "key.tpm2b"],
        0,
    );

    assert_eq!(causes(&of("pcrs.json", &trusted[2..], 1)), ["UnknownRoot"]);
    assert_eq!(causes(&of("pcrs.json", &trusted[..2], 1)), ["PublicAreaMissing"]);
    let other = ["--trust-anchor", "ca.pem", "--public", "key", "--nonce", "00"];
    assert_eq!(causes(&of("pcrs.json", &other, 1)), ["OtherNonce"]);

    // One value more than the quote covers: refused, unless it is set aside, and then it is in no result.
    let mut more = quote.pcrs.clone();
    more.0.insert(PcrIndex::new(23).unwrap(), vec![0; 32]);
    scene.write("more.json", values(&more));
    assert_eq!(causes(&of("more.json", &trusted, 1)), ["NotCovered"]);
    let set_aside = of(
        "more.json",
        &[&trusted[..], &["--set-aside-other-pcrs"]].concat(),
        0,
    );
    assert_eq!(set_aside["pcrs_set_aside"], json!([23]));
    assert_eq!(set_aside["pcrs"], json!(quote.pcrs));

    // One value less, and one that is another.
    let mut fewer = quote.pcrs.clone();
    fewer.0.remove(&PcrIndex::new(4).unwrap());
    scene.write("fewer.json", values(&fewer));
    assert_eq!(causes(&of("fewer.json", &trusted, 1)), ["NotGiven"]);
    let mut forged = quote.pcrs.clone();
    forged.0.insert(PcrIndex::new(4).unwrap(), vec![4; 32]);
    scene.write("forged.json", values(&forged));
    assert_eq!(causes(&of("forged.json", &trusted, 1)), ["PcrDigest"]);

    // The log explains the same PCRs, and notices the forged one.
    let log = run(scene.path(), &["eventlog", "boot.log", "--pcrs", "pcrs.json"], 0);
    assert_eq!(log["compared"].as_array().unwrap().len(), 8);
    run(
        scene.path(),
        &["eventlog", "boot.log", "--pcrs", "forged.json"],
        1,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_is_held_to_reference_values_policy_and_nonce() {
    let scene = Scene::new(AICERT);
    let Some(tpm) = booted(&scene, &boot()).await else {
        return;
    };
    let proof = proofs::certify(&tpm, &proofs::honest_contents(&tpm).await).await;
    scene.write("proof.json", proof.to_json());
    let references = references(&boot());
    scene.write("references.json", serde_json::to_vec(&references).unwrap());
    let of = |proof: &str, more: &[&str], code| {
        let arguments = [&["verify", proof, "--trust-anchor", "ca.pem"][..], more].concat();
        run(scene.path(), &arguments, code)
    };
    let known = ["--reference-values", "references.json"];

    let result = of("proof.json", &known, 0);
    assert_eq!(
        result["boot"],
        json!({ "image": "an image 1.0", "firmware": "firmware 2", "secure_boot": "off" })
    );
    assert_eq!(causes(&of("proof.json", &[], 1)), ["NoReferenceValues"]);

    // Image and firmware may be in files of their own.
    let image = ReferenceValues {
        firmware: vec![],
        ..references.clone()
    };
    let firmware = ReferenceValues {
        images: vec![],
        ..references
    };
    scene.write("image.json", serde_json::to_vec(&image).unwrap());
    scene.write("firmware.json", serde_json::to_vec(&firmware).unwrap());
    let both = [
        "--reference-values",
        "image.json",
        "--reference-values",
        "firmware.json",
    ];
    assert_eq!(of("proof.json", &both, 0)["boot"], result["boot"]);
    assert_eq!(causes(&of("proof.json", &both[..2], 1)), ["Firmware"]);

    // A policy, kept and broken.
    scene.write(
        "own.yaml",
        "simulated: true\nimages: [an image 1.0]\nfirmware: known\n",
    );
    scene.write(
        "strict.yaml",
        "simulated: true\nsecure_boot: required\nimages: [another image]\n",
    );
    of("proof.json", &[&known[..], &["--policy", "own.yaml"]].concat(), 0);
    let strict = of(
        "proof.json",
        &[&known[..], &["--policy", "strict.yaml"]].concat(),
        1,
    );
    let failures = strict["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 2, "{strict:#}");
    assert!(
        failures.iter().all(|failure| failure["step"] == "policy"),
        "{strict:#}"
    );

    // A nonce, answered and not.
    let nonce = proofs::NONCE.to_string();
    of("proof.json", &[&known[..], &["--nonce", &nonce]].concat(), 0);
    let other = of(
        "proof.json",
        &[&known[..], &["--nonce", &"00".repeat(32)]].concat(),
        1,
    );
    assert_eq!(causes(&other), ["Nonce"]);

    // A chain without its intermediate, which whoever verifies has.
    let mut short: Certificate = proof;
    let intermediate = short.attestation_key.certificate_chain.remove(1);
    scene.write("short.json", short.to_json());
    scene.write("intermediate.der", &intermediate.0);
    assert_eq!(causes(&of("short.json", &known, 1)), ["IssuerMissing"]);
    of(
        "short.json",
        &[&known[..], &["--intermediate", "intermediate.der"]].concat(),
        0,
    );

    // People see the same.
    let trusted = [&["verify", "proof.json", "--trust-anchor", "ca.pem"][..], &known].concat();
    let shown = scene.run(&trusted).expect(0).stdout;
    for words in ["an image 1.0", "firmware 2", "Secure Boot: off"] {
        assert!(shown.contains(words), "{shown}");
    }
    let inspect = [
        "inspect",
        "proof.json",
        "--export-quote",
        "quote",
        "--trust-anchor",
        "ca.pem",
    ];
    let inspected = scene.run(&[&inspect[..], &known].concat()).expect(0).stdout;
    assert!(inspected.contains("booted"), "{inspected}");
    let exported = scene
        .run(&["eventlog", "quote/boot-event-log.bin"])
        .expect(0)
        .stdout;
    assert!(exported.contains("EV_SEPARATOR"), "{exported}");
}

#[test]
fn what_is_measured_of_an_image_is_a_file_of_reference_values() {
    if !have_machines() {
        return;
    }
    let scene = Scene::new(AICERT);
    let uki = MachineOptions::new(env!("CARGO_BIN_EXE_guest")).uki();
    scene.write("image.efi", &uki);
    let measured = scene
        .run(&["image", "measure", "image.efi", "--name", "test 1", "--json"])
        .expect(0);
    let values = ReferenceValues::from_slice(measured.stdout.as_bytes()).unwrap();
    let options = {
        let mut options = aicert_verify::image::MeasureOptions::default();
        options.name = Some("test 1".into());
        options
    };
    assert_eq!(
        values.images,
        [aicert_verify::image::measure_uki(&uki, &options).unwrap()]
    );

    // The command takes its own file, and goes on to what is wrong with this proof.
    scene.write("references.json", &measured.stdout);
    scene.write("proof.json", "{}");
    let proof = ["verify", "proof.json", "--reference-values", "references.json"];
    assert!(scene.run(&proof).expect(2).stdout.contains("missing field"));

    // People see the values, too, and a pipe does as well as a file.
    let shown = scene.run(&["image", "measure", "image.efi"]).expect(0).stdout;
    for words in [
        "systemd-stub",
        "console=ttyS0",
        ".cmdline",
        "EV_EFI_BOOT_SERVICES_APPLICATION",
    ] {
        assert!(shown.contains(words), "{shown}");
    }
    let mut command = scene.command(&["image", "measure", "-", "--name", "test 1", "--json"]);
    let file = std::fs::File::open(scene.path().join("image.efi")).unwrap();
    let piped = command.stdin(file).output().unwrap();
    assert_eq!(String::from_utf8(piped.stdout).unwrap(), measured.stdout);

    // One byte of the kernel changed: other values.
    let mut other = uki;
    let last = other.len() - 1;
    other[last] ^= 1;
    scene.write("other.efi", other);
    let changed = scene.run(&["image", "measure", "other.efi", "--name", "test 1", "--json"]);
    assert_ne!(changed.stdout, measured.stdout);
}
