//! Software TPMs start, differ, are switched off and on, and end with whoever holds them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aicert_core::tpm::{PcrBank, PcrIndex, TpmBackend as _, TpmErrorKind};
use aicert_swtpm_testing::{
    KeyAlgorithm, KeyHierarchy, KeyTemplate, SimulatedTpm, SimulationOptions, SwtpmInstance, SwtpmOptions,
    skip_without,
};

const HOLDER: &str = "AICERT_TEST_HOLDER";

fn ecc() -> SimulationOptions {
    SimulationOptions::new(KeyAlgorithm::EccP256)
}

fn runs(pid: u32) -> bool {
    // A zombie does not run.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The processes that work in this directory: swtpm, and the shell that watches it.
fn processes_of(directory: &Path) -> Vec<u32> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            // When it is gone, the kernel says so behind its name.
            std::fs::read_link(format!("/proc/{pid}/cwd"))
                .is_ok_and(|cwd| cwd.to_string_lossy().starts_with(&*directory.to_string_lossy()))
        })
        .filter(|pid| runs(*pid))
        .collect()
}

#[test]
fn nothing_is_left_after_drop() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let instance = SwtpmInstance::start(SwtpmOptions::new()).unwrap();
    let (pid, directory) = (instance.pid().unwrap(), instance.directory().to_owned());
    assert!(runs(pid) && directory.is_dir());
    assert!(processes_of(&directory).contains(&pid));
    // The environment of whoever runs a job may hold its tokens.
    let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    assert!(
        !environment.contains("CARGO_MANIFEST_DIR") && !environment.contains("HOME="),
        "{environment}"
    );
    assert_eq!(SwtpmInstance::pid_in(&directory), Some(pid));
    drop(instance);
    assert!(!runs(pid) && !directory.exists());
    wait_until("the watcher ends too", || processes_of(&directory).is_empty());
}

#[test]
fn nothing_runs_after_its_holder_was_killed() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().canonicalize().unwrap().join("tpm, with a comma");
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holder", "--ignored", "--nocapture"])
        .env(HOLDER, &directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(holder.stdout.take().unwrap());
    output
        .lines()
        .find(|line| line.as_ref().unwrap().ends_with("ready"))
        .unwrap()
        .unwrap();
    let pid = SwtpmInstance::pid_in(&directory).unwrap();
    assert!(runs(pid));
    holder.kill().unwrap(); // SIGKILL
    holder.wait().unwrap();
    wait_until("swtpm ends with its holder", || !runs(pid));
    wait_until("the watcher ends too", || processes_of(&directory).is_empty());
    assert!(directory.exists(), "nobody was left to remove it");
    SwtpmInstance::remove_leftovers(&directory).unwrap();
    assert!(!directory.exists());
    SwtpmInstance::remove_leftovers(&directory).unwrap();
}

/// Not a test: the process that is killed above.
#[test]
#[ignore = "run by another test"]
fn holder() {
    let directory = PathBuf::from(std::env::var_os(HOLDER).expect("run by another test"));
    let _instance = SwtpmInstance::start(SwtpmOptions::new().with_directory(directory)).unwrap();
    println!("ready");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn leftovers_that_still_run_are_ended() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let instance = SwtpmInstance::start(SwtpmOptions::new()).unwrap();
    let pid = instance.pid().unwrap();
    SwtpmInstance::remove_leftovers(instance.directory()).unwrap();
    wait_until("it ends", || !runs(pid));
    assert!(!instance.directory().exists());
}

#[test]
fn a_directory_that_exists_is_refused() {
    let existing = tempfile::tempdir().unwrap();
    let file = existing.path().join("precious");
    std::fs::write(&file, "precious").unwrap();
    let error = SwtpmInstance::start(SwtpmOptions::new().with_directory(existing.path())).unwrap_err();
    assert!(
        error.message().contains(existing.path().to_str().unwrap()),
        "{error}"
    );
    assert!(file.exists(), "what was there must stay there");
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_run_at_the_same_time_and_do_not_mix() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let tasks: Vec<_> = (0..8u8)
        .map(|index| {
            tokio::spawn(async move {
                let tpm = SimulatedTpm::start(ecc()).await.unwrap();
                let banks = &tpm.capabilities().banks;
                let digests = banks.iter().map(|bank| (*bank, bank.hash(&[&[index]]))).collect();
                for _ in 0..20 {
                    tpm.extend(PcrIndex::INPUTS, &digests).await.unwrap();
                }
                let bank = PcrBank::Sha256;
                let mut expected = vec![0; 32];
                for _ in 0..20 {
                    expected = bank.extend(&expected, &digests[&bank]);
                }
                let values = tpm.read_pcrs(bank, &[PcrIndex::INPUTS]).await.unwrap();
                assert_eq!(values.0[&PcrIndex::INPUTS], expected, "TPM {index}");
                (
                    tpm.instance().port(),
                    tpm.attestation_key().await.unwrap().unwrap().public,
                )
            })
        })
        .collect();
    let mut ports = std::collections::BTreeSet::new();
    let mut keys = std::collections::BTreeSet::new();
    for task in tasks {
        let (port, key) = task.await.unwrap();
        ports.insert(port);
        keys.insert(key);
    }
    assert_eq!((ports.len(), keys.len()), (8, 8));
}

#[tokio::test]
async fn the_chosen_banks_are_active() {
    if skip_without(&["swtpm"]) {
        return;
    }
    for banks in [
        vec![PcrBank::Sha256],
        vec![PcrBank::Sha1, PcrBank::Sha256, PcrBank::Sha384],
    ] {
        let swtpm = SwtpmOptions::new().with_banks(banks.clone());
        let tpm = SimulatedTpm::start(ecc().with_swtpm(swtpm)).await.unwrap();
        assert_eq!(tpm.capabilities().banks, banks);
    }
    let all = SimulatedTpm::start(ecc()).await.unwrap();
    assert_eq!(all.capabilities().banks, PcrBank::ALL);
}

#[tokio::test]
async fn switching_off_and_on_shows_in_pcrs_and_counters() {
    if skip_without(&["swtpm"]) {
        return;
    }
    for hierarchy in [KeyHierarchy::Endorsement, KeyHierarchy::Owner] {
        let key = KeyTemplate {
            hierarchy,
            ..KeyTemplate::attestation(KeyAlgorithm::EccP256)
        };
        let mut tpm = SimulatedTpm::start(ecc().dangerous_with_key(key)).await.unwrap();
        let digests = tpm
            .capabilities()
            .banks
            .iter()
            .map(|bank| (*bank, bank.hash(&[b"x"])))
            .collect();
        let pcr = [PcrIndex::INPUTS];
        for _ in 0..3 {
            let before = tpm.clock().await.unwrap();
            tpm.extend(PcrIndex::INPUTS, &digests).await.unwrap();
            tpm.reset().unwrap();
            let after = tpm.clock().await.unwrap();
            assert_eq!(after.reset_count, before.reset_count + 1, "{hierarchy:?}");
            assert!(after.clock >= before.clock);
            let values = tpm.read_pcrs(PcrBank::Sha256, &pcr).await.unwrap();
            assert_eq!(values.0[&PcrIndex::INPUTS], [0; 32], "a reset must clear PCRs");
        }
        // `TPM2_ReadClock`: the counters are bytes 26 to 34 of the answer.
        let answer = tpm
            .instance()
            .command(&[0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x81])
            .unwrap();
        let plain = u64::from(u32::from_be_bytes(answer[26..30].try_into().unwrap()));
        let before = tpm.clock().await.unwrap();
        let honest = hierarchy == KeyHierarchy::Endorsement;
        assert_eq!(
            before.reset_count == plain,
            honest,
            "{hierarchy:?}: {before:?}, {plain}"
        );
        tpm.restart().unwrap();
        let after = tpm.clock().await.unwrap();
        assert_eq!(after.reset_count, before.reset_count, "{hierarchy:?}");
        assert_eq!(after.restart_count, before.restart_count + 1, "{hierarchy:?}");
        tpm.quote(PcrBank::Sha256, &pcr, b"still there").await.unwrap();
    }
}

#[tokio::test]
async fn an_occupied_tpm_is_in_use_by_a_named_process() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let tpm = SimulatedTpm::start(ecc()).await.unwrap();
    let second = tpm.second_client().await.unwrap();
    second.clock().await.unwrap();
    let occupied = tpm.instance().occupy().unwrap();
    // It has to be accepted before it keeps others out.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let config = tpm.instance().config(tpm.key_source().await.unwrap());
    let error = aicert_tpm::Tpm::open(config.with_deadline(Duration::from_secs(2)))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), TpmErrorKind::InUse, "{error}");
    let own = format!("(pid {})", std::process::id());
    assert!(error.message().contains(&own), "{error}");
    drop(occupied);
    tpm.second_client().await.unwrap();
}
