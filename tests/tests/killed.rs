//! A run that is killed at any instant: never a proof, nothing left running, and the next start says what happened.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aicert_core::journal::Journal;
use aicert_core::pipeline::JOURNAL_FILE;
use aicert_core::time::Timestamp;
use aicert_tests::scene::Scene;
use aicert_tests::tools;
use aicert_verify::{Options, TrustAnchors, Unverified, verify};

const AICERT: &str = env!("CARGO_BIN_EXE_aicert-under-test");
const DOOMED: &str = env!("CARGO_BIN_EXE_doomed");

/// How many events the job of these tests has: it has one input.
const EVENTS: usize = 11;

fn doomed(folder: &Path, when: &str, at: usize) -> Option<i32> {
    fs::create_dir_all(folder.join("source")).unwrap();
    fs::write(
        folder.join("source/main.py"),
        "open('/workspace/outputs/model', 'w').write('weights')\n",
    )
    .unwrap();
    let workspace = folder.join("workspace");
    fs::create_dir(&workspace).unwrap();
    Command::new(DOOMED)
        .arg(&workspace)
        .args([when, &at.to_string()])
        .env("TSS2_LOG", "all+NONE")
        .status()
        .unwrap()
        .code()
}

/// Killed between writing an event and extending it, and between extending it and going on: for every event.
#[test]
fn killed_around_every_extend_leaves_no_proof() {
    if !(tools::have("swtpm") && tools::have_docker()) {
        return;
    }
    for at in 0..EVENTS {
        for when in ["before", "after"] {
            let folder = tempfile::tempdir().unwrap();
            assert_eq!(
                doomed(folder.path(), when, at),
                None,
                "{when} {at}: the process must have been killed"
            );
            let workspace = folder.path().join("workspace");
            // The event was durable before it was extended, so it is there either way, and no later one is.
            let log = Journal::read(&workspace.join(JOURNAL_FILE)).unwrap();
            assert_eq!(log.events().len(), at + 1, "{when} {at}");
            assert!(!workspace.join("proof.json").exists());
        }
    }
    // Past the last event the same program runs to its end, and its proof holds: the loop above tested what it says.
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(doomed(folder.path(), "before", EVENTS), Some(0));
    let proof = fs::read(folder.path().join("workspace/proof.json")).unwrap();
    let anchors = TrustAnchors::pinned()
        .with_root(&fs::read(folder.path().join("ca.pem")).unwrap())
        .unwrap();
    let verified = verify(
        Unverified::from_slice(&proof).unwrap(),
        &Options::new(anchors, Timestamp::now()),
    );
    assert!(verified.unwrap().is_of_a_model());
}

/// The command, killed as soon as its journal has so many events; then run again.
#[test]
fn the_next_start_says_what_happened_and_cleans_up() {
    if !(tools::have("swtpm") && tools::have_docker()) {
        return;
    }
    for (events, words) in [
        (1, "interrupted while it"),
        (4, "interrupted while it"),
        (8, "interrupted while it ran the job"),
    ] {
        let scene = Scene::new(AICERT);
        scene.python_job("import time\nopen('/workspace/outputs/model', 'w').write('x')\ntime.sleep(2)\n");
        let arguments = ["run", "--output-bom", "proof.json", "--outputs", "model"];
        let mut child = scene
            .command(&arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        while journal_length(&scene) < events {
            assert!(Instant::now() < deadline, "the run did not get to event {events}");
            assert!(
                child.try_wait().unwrap().is_none(),
                "the run ended before event {events}"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!scene.path().join("proof.json").exists());
        assert!(!scene.path().join("model").exists());

        let again = scene.run(&arguments).expect(0);
        assert!(again.stderr.contains(words), "{}", again.stderr);
        assert!(again.stderr.contains("no proof"), "{}", again.stderr);
        assert_eq!(
            fs::read_dir(scene.path().join("state/machines")).unwrap().count(),
            0
        );
        scene
            .run(&[
                "verify",
                "proof.json",
                "--trust-anchor",
                "proof.ca.pem",
                "--outputs",
                "model",
            ])
            .expect(0);
    }
}

fn journal_length(scene: &Scene) -> usize {
    let Ok(machines) = fs::read_dir(scene.path().join("state/machines")) else {
        return 0;
    };
    let journals = machines
        .filter_map(|machine| Journal::read(&machine.ok()?.path().join("workspace").join(JOURNAL_FILE)).ok());
    journals.map(|log| log.events().len()).max().unwrap_or(0)
}

/// Ctrl-C leaves nothing running and nothing behind.
#[test]
fn an_interrupt_cleans_up_at_once() {
    if !(tools::have("swtpm") && tools::have_docker()) {
        return;
    }
    let scene = Scene::new(AICERT);
    scene.python_job("import time\ntime.sleep(600)\n");
    let mut child = scene
        .command(&["run", "--output-bom", "proof.json", "--outputs", "model"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while journal_length(&scene) < 8 {
        assert!(
            Instant::now() < deadline && child.try_wait().unwrap().is_none(),
            "the job did not start"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(300));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert!(!status.success());
    assert_eq!(
        fs::read_dir(scene.path().join("state/machines")).unwrap().count(),
        0
    );
    assert!(!scene.path().join("proof.json").exists() && !scene.path().join("model").exists());
    let state = scene.path().canonicalize().unwrap();
    let running = Command::new("docker")
        .args(["ps", "--all", "--format", "{{.ID}} {{.Mounts}}", "--no-trunc"])
        .output()
        .unwrap();
    assert!(
        !String::from_utf8_lossy(&running.stdout).contains(state.to_str().unwrap()),
        "a container is left"
    );
    let left = fs::read_dir("/proc").unwrap().any(|process| {
        let process = process.unwrap().path();
        fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&state))
            && fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim() == "swtpm")
    });
    assert!(!left, "a software TPM is left");
}
