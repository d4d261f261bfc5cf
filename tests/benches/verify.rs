//! Measures how long verifying takes: a proof of a TPM into which a boot log of 100 KB was measured.
//!
//! Three ways within one run, because machines are noisy: in process; the command from start to exit; and, as the
//! yardstick, `tpm2_checkquote` and `tpm2_eventlog`, which check less (no chain, no reference values, no comparison of log and
//! quote). All times are medians.

#![allow(clippy::print_stdout)] // what a benchmark is for

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aicert_core::time::Timestamp;
use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues, TpmBackend as _};
use aicert_swtpm_testing::{KeyAlgorithm, SimulatedTpm, SimulationOptions, TestCa};
use aicert_tests::proofs;
use aicert_verify::eventlog::EventType;
use aicert_verify::reference::{Digests, ExpectedEvent, FirmwareReference, ImageReference, ReferenceValues};
use aicert_verify::testing::{Boot, BootEvent, application, described, event, section, separator, variable};
use aicert_verify::{Options, TrustAnchors, Unverified, verify};

/// How often each way is measured.
const IN_PROCESS: usize = 300;
const PROCESSES: usize = 40;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // Cargo adds `--bench`.
    let boot = boot();
    let log_bytes = boot.log_of(&[PcrBank::Sha256]).len();
    println!("verifying a proof with a boot log of {log_bytes} bytes, medians");
    for algorithm in [KeyAlgorithm::EccP256, KeyAlgorithm::Rsa2048] {
        measure(&boot, algorithm).await;
    }
}

async fn measure(boot: &Boot, algorithm: KeyAlgorithm) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let at = |name: &str| folder.path().join(name);
    fs::write(at("boot.log"), boot.log_of(&[PcrBank::Sha256])).expect("log");
    let ca = TestCa::new().expect("a CA");
    let options = SimulationOptions::new(algorithm)
        .with_ca(ca.clone())
        .with_boot_event_log(at("boot.log"));
    let tpm = SimulatedTpm::start(options).await.expect("a software TPM");
    for event in boot.events.iter().filter(|event| event.hashed.is_some()) {
        let pcr = u8::try_from(event.pcr)
            .ok()
            .and_then(PcrIndex::new)
            .expect("a PCR");
        let digests: BTreeMap<_, _> = tpm
            .capabilities()
            .banks
            .iter()
            .map(|bank| (*bank, event.digest(*bank)))
            .collect();
        tpm.extend(pcr, &digests).await.expect("extend");
    }
    let proof = proofs::certify(&tpm, &proofs::honest_contents(&tpm).await)
        .await
        .to_json();
    let references = references(boot);
    fs::write(at("proof.json"), &proof).expect("proof");
    fs::write(at("ca.pem"), ca.root_pem()).expect("root");
    fs::write(
        at("references.json"),
        serde_json::to_vec(&references).expect("JSON"),
    )
    .expect("references");
    let anchors = TrustAnchors::pinned()
        .with_root(ca.root_pem().as_bytes())
        .expect("a root");
    let options = Options::new(anchors, Timestamp::now()).with_reference_values(references);

    let in_process = median(IN_PROCESS, || {
        let unverified = Unverified::from_slice(proof.as_bytes()).expect("a proof");
        verify(unverified, &options).expect("it holds");
    });
    let trust = [
        "--trust-anchor",
        "ca.pem",
        "--reference-values",
        "references.json",
    ];
    let command = |arguments: &[&str]| run(folder.path(), env!("CARGO_BIN_EXE_aicert-under-test"), arguments);
    command(&[&["inspect", "proof.json", "--export-quote", "quote"], &trust[..]].concat());
    let bare = median(PROCESSES, || run(folder.path(), "true", &[]));
    let aicert = median(PROCESSES, || {
        command(&[&["verify", "proof.json"], &trust[..]].concat())
    });
    let data = fs::read_to_string(at("quote/qualifying-data.hex")).expect("exported");
    let tools = median(PROCESSES, || {
        run(
            &at("quote"),
            "tpm2_checkquote",
            &[
                "-u",
                "ak.pem",
                "-m",
                "quote.msg",
                "-s",
                "quote.sig",
                "-f",
                "quote.pcrs",
                "-g",
                "sha256",
                "-q",
                data.trim(),
            ],
        );
        run(folder.path(), "tpm2_eventlog", &["boot.log"]);
    });
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1_000.0;
    println!("{algorithm:?}");
    println!(
        "  in process                       {:7.2} ms  (target <= 2 ms)",
        milliseconds(in_process)
    );
    println!(
        "  aicert verify, start to exit     {:7.2} ms  (target <= 20 ms; `true` takes {:.2} ms)",
        milliseconds(aicert),
        milliseconds(bare)
    );
    println!(
        "  tpm2_checkquote + tpm2_eventlog  {:7.2} ms",
        milliseconds(tools)
    );
    println!(
        "  in process / tools {:.3}, command / tools {:.3}",
        in_process.as_secs_f64() / tools.as_secs_f64(),
        aicert.as_secs_f64() / tools.as_secs_f64()
    );
}

/// A boot as a machine with long lists of keys logs it.
fn boot() -> Boot {
    // EFI_SIGNATURE_LIST of SHA-256 hashes: type, sizes, then an owner and a hash each.
    let hashes = |count: u32| {
        let mut list = vec![
            0x26, 0x16, 0xc4, 0xc1, 0x4c, 0x50, 0x92, 0x40, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28,
        ];
        list.extend((28 + count * 48).to_le_bytes());
        list.extend(0_u32.to_le_bytes());
        list.extend(48_u32.to_le_bytes());
        for number in 0..count {
            list.extend([0x77; 16]);
            list.extend(PcrBank::Sha256.hash(&[&number.to_le_bytes()]));
        }
        list
    };
    let config = |name: &str, content: &[u8]| {
        event(7, EventType::EFI_VARIABLE_DRIVER_CONFIG, &variable(name, content))
    };
    let mut events = vec![event(0, EventType::S_CRTM_VERSION, &[0, 0])];
    events.extend([
        config("SecureBoot", &[1]),
        config("PK", &hashes(1)),
        config("KEK", &hashes(200)),
    ]);
    events.extend([config("db", &hashes(400)), config("dbx", &hashes(1_400))]);
    events.extend((0..8).map(separator));
    events.push(application("\\EFI\\BOOT\\BOOTX64.EFI", b"uki"));
    for name in [".linux", ".osrel", ".cmdline", ".initrd", ".uname"] {
        events.extend(section(name, name.as_bytes()));
    }
    for number in 0..40_u8 {
        events.push(described(0, EventType::POST_CODE, &[number; 16], &[number; 64]));
    }
    Boot { locality: 0, events }
}

fn references(boot: &Boot) -> ReferenceValues {
    let expected = |event: &BootEvent| ExpectedEvent {
        pcr: u8::try_from(event.pcr)
            .ok()
            .and_then(PcrIndex::new)
            .expect("a PCR"),
        event_type: event.event_type.to_string(),
        what: "a part of the image".into(),
        digests: Digests::with(|bank| event.digest(bank)),
        optional: false,
    };
    let is_image =
        |event: &&BootEvent| [4, 11].contains(&event.pcr) && event.event_type != EventType::SEPARATOR;
    let of_firmware = boot
        .pcrs(PcrBank::Sha256)
        .0
        .into_iter()
        .filter(|(pcr, _)| pcr.as_u8() < 4);
    ReferenceValues {
        images: vec![ImageReference {
            name: "benchmark".into(),
            sha256: Digests::of(b"benchmark").sha256,
            build: None,
            stub: None,
            kernel: None,
            command_line: None,
            events: boot.events.iter().filter(is_image).map(expected).collect(),
            pcrs: BTreeMap::new(),
        }],
        firmware: vec![FirmwareReference {
            name: "benchmark firmware".into(),
            pcrs: [(PcrBank::Sha256, PcrValues(of_firmware.collect()))].into(),
        }],
        ..ReferenceValues::default()
    }
}

fn median(rounds: usize, mut work: impl FnMut()) -> Duration {
    let mut times: Vec<_> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[rounds / 2]
}

fn run(folder: &Path, program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
