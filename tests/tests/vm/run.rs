//! The whole promise by the command alone: from power-on to a proof that verifies, for a job that tries to get out of its container.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aicert_tests::base::{Alteration, BaseImage};
use aicert_tests::vm::Desk;
use serde_json::Value;

use crate::WORKSHOP;

/// How long everything may take on a host that has much else to do.
const LIMIT: Duration = Duration::from_secs(1200);

/// How long a machine may take from power-on until it is attested, without hardware acceleration.
const ATTESTED_WITHIN: f64 = 90.0;

/// What the command may have of memory, whatever the outputs.
const MEMORY_LIMIT: u64 = 256 << 20;

/// The outputs of the job that are not about what it found.
const WEIGHTS: u64 = 32 << 20;

#[test]
fn from_power_on_to_proof_and_the_job_cannot_get_out() {
    let Some(image) = BaseImage::released(&WORKSHOP) else {
        return;
    };
    let desk = Desk::new(WORKSHOP.aicert);
    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    host.set_nonblocking(true).unwrap();
    let data = desk.scene().write("data.bin", [7; 1000]);
    desk.python_job(
        &image,
        6144,
        include_str!("../../jobs/containment.py"),
        &format!(
            "resources: [{{type: file, url: \"file://{}\", destinationPath: data.bin}}]\nenvironment: {{HOST_PORT: \"{}\"}}\n",
            data.display(),
            host.local_addr().unwrap().port()
        ),
    );
    let running = desk.start_run();
    let memory = running.peak_memory();
    let ended = running.wait(LIMIT).expect(0);
    eprintln!("milestones: {}", desk.consoles().milestones());
    eprintln!(
        "memory of the command: {} MiB",
        memory.load(Ordering::Relaxed) >> 20
    );
    assert_attested_in_time(&ended.stdout);

    assert_nothing_got_out(&desk);
    let reached = host.accept().map(|(_, address)| address);
    assert!(reached.is_err(), "{reached:?} came from the job");
    assert!(memory.load(Ordering::Relaxed) < MEMORY_LIMIT);
    assert_eq!(fs::metadata(desk.at("model/weights.bin")).unwrap().len(), WEIGHTS);

    desk.assert_nothing_is_left();
    // What the user is told.
    for words in ["aicert-base", "SIMULATED", "It took:"] {
        assert!(ended.all().contains(words), "no {words:?} in\n{}", ended.all());
    }

    // Offline, with what was published of the image.
    let verified = desk.verify(&image.reference_values).expect(0);
    assert!(verified.stdout.contains("aicert-base"), "{}", verified.stdout);
    assert_measured_as_computed(&desk, &image);

    // With the reference values of another image it does not hold.
    let other = tempfile::tempdir().unwrap();
    let values = measured(
        &image.altered(&Alteration::CommandLine("one.more=word"), other.path()),
        &desk,
    );
    let refused = desk.verify(&values).expect(1);
    assert!(refused.all().contains("one.more=word"), "{}", refused.all());
    // Without the authority, nobody vouches for the key.
    let values = image.reference_values.display().to_string();
    let refused = desk
        .scene()
        .run(&["verify", "proof.json", "--reference-values", &values])
        .expect(1);
    assert!(refused.all().contains("--trust-anchor"), "{}", refused.all());
}

#[track_caller]
fn assert_attested_in_time(printed: &str) {
    let line = printed.lines().find(|line| line.contains("It took:"));
    let line = line.expect("the command says how long everything took");
    eprintln!("{line}");
    let (_, rest) = line.split_once("from power-on to attested ").unwrap();
    let seconds: f64 = rest.split_once(" s").unwrap().0.parse().unwrap();
    assert!(
        seconds < ATTESTED_WITHIN,
        "{seconds} s until the machine was attested"
    );
}

#[track_caller]
fn assert_nothing_got_out(desk: &Desk) {
    let found: Value = serde_json::from_slice(&fs::read(desk.at("model/found.json")).unwrap()).unwrap();
    let results = |kind: &str, refused: bool| -> Vec<String> {
        let results = found[kind].as_object().unwrap().iter();
        let results = results.filter(|(_, result)| result["refused"] == refused);
        results
            .map(|(name, result)| format!("{name}: {}", result["how"]))
            .collect()
    };
    assert_eq!(
        results("attempts", false),
        Vec::<String>::new(),
        "the job got out"
    );
    assert_eq!(
        results("control", true),
        Vec::<String>::new(),
        "the attempts show nothing"
    );
    assert!(results("attempts", true).len() > 120 && results("control", false).len() > 10);
}

/// Every PCR that the reference values name, in the bank of the quote.
#[track_caller]
fn assert_measured_as_computed(desk: &Desk, image: &BaseImage) {
    let read =
        |path: &std::path::Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let (values, proof) = (read(&image.reference_values), read(&desk.at("proof.json")));
    let computed = values["images"][0]["pcrs"]["sha256"].as_object().unwrap();
    let measured = &proof["low_level_quote"]["pcrs"];
    for pcr in ["4", "5", "9", "11", "12", "13"] {
        assert!(
            computed.contains_key(pcr),
            "the reference values name no PCR {pcr}"
        );
    }
    for (pcr, value) in computed {
        assert_eq!(measured[pcr], *value, "PCR {pcr}");
    }
}

/// Writes the reference values of an image.
fn measured(image: &BaseImage, desk: &Desk) -> std::path::PathBuf {
    let mut measure = Command::new(WORKSHOP.aicert);
    let output = measure
        .args(["image", "measure", "--json"])
        .arg(&image.disk)
        .output()
        .unwrap();
    assert!(output.status.success());
    desk.scene().write("other.json", output.stdout)
}
