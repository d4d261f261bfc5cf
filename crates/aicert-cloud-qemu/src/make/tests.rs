//! The process that makes or removes a machine is killed, at every step and at random moments: what is left is listed,
//! can be destroyed, and then nothing is left.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fs::{self, OpenOptions};
use std::hash::BuildHasher as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aicert_core::cloud::{CloudProvider as _, MachineRequest};
use aicert_core::digest::ClientDigest;
use aicert_core::progress::Progress;
use aicert_core::spec::{Accelerator, QemuMachine};
use rustix::process::{Signal, getpid, kill_process};

use crate::{QemuConfig, QemuProvider};

/// The folder in which a doomed process works.
const FOLDER: &str = "AICERT_TEST_DOOMED";
/// The instant at which it dies, as `name-number`.
const INSTANT: &str = "AICERT_TEST_INSTANT";

/// An instant is told apart from those of the same name by how many there were before; later ones are all alike.
const LAST: u32 = 4;

static SEEN: Mutex<Option<HashMap<String, u32>>> = Mutex::new(None);

/// Dies here if this is the instant to die at, and writes down that it came by.
pub(crate) fn instant(name: &str) {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let number = seen
        .get_or_insert_default()
        .entry(name.to_owned())
        .and_modify(|number| *number += 1)
        .or_insert(0);
    let this = format!("{name}-{number}");
    if std::env::var(INSTANT).is_ok_and(|instant| instant == this) {
        kill_process(getpid(), Signal::KILL).unwrap();
        std::thread::sleep(Duration::from_secs(60));
    }
    if *number <= LAST {
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join("instants"))
            .unwrap();
        writeln!(log, "{this}").unwrap();
    }
}

fn provider(folder: &Path) -> QemuProvider {
    let image = folder.join("image");
    if !image.exists() {
        fs::write(&image, [0; 1 << 20]).unwrap();
    }
    let machine = QemuMachine {
        image,
        reference_values: None,
        accelerator: Accelerator::Tcg,
        cpus: 1,
        memory: 128 << 20,
        disk: 8 << 20,
        boot_limit: Duration::from_secs(90),
    };
    QemuProvider::new(QemuConfig::new(folder.join("state")).with_machine(machine)).unwrap()
}

fn request() -> MachineRequest {
    MachineRequest {
        job: "doomed".parse().unwrap(),
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

/// What the doomed process does: it makes a machine, and destroys it.
#[tokio::test]
#[ignore = "is run by the tests of this module, in processes of their own"]
async fn doomed() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let provider = provider(&folder);
    let machine = provider.provision(request()).await.unwrap();
    provider.destroy(&machine.id).await.unwrap();
}

fn start(folder: &Path, instant: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "make::tests::doomed", "--ignored"])
        .env(FOLDER, folder)
        .env(INSTANT, instant)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What works in a folder, or below.
fn processes_in(folder: &Path) -> Vec<String> {
    let folder = folder.canonicalize().unwrap();
    let state = |pid: &str| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|pid| {
            fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| {
                // Of a folder that is gone, the kernel says so behind its name.
                cwd.to_string_lossy().starts_with(&*folder.to_string_lossy())
            })
        })
        .map(|pid| state(&pid))
        .filter(|stat| !stat.is_empty() && !stat.contains(") Z "))
        .collect()
}

fn wait_until_nothing_runs(folder: &Path, when: &str) {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let processes = processes_in(folder);
        if processes.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "{when}: left running: {processes:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// After a death: what there is, is listed and can be destroyed; nothing else is there.
async fn clean_up(folder: &Path, when: &str) -> usize {
    let provider = provider(folder);
    let end = Instant::now() + Duration::from_secs(10);
    let machines = loop {
        let machines = provider.list().await.unwrap();
        // A program that was just being started has the lock of who started it until it is another program.
        if machines.iter().all(|machine| machine.in_use != Some(true)) || Instant::now() > end {
            break machines;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    for machine in &machines {
        assert_eq!(machine.job.as_str(), "doomed", "{when}");
        assert_ne!(machine.in_use, Some(true), "{when}");
        if machine.endpoint.is_none() {
            assert_eq!(machine.in_use, Some(false), "{when}");
        }
        provider.destroy(&machine.id).await.unwrap();
        assert!(!provider.is_running(&machine.id).await.unwrap(), "{when}");
    }
    wait_until_nothing_runs(folder, when);
    assert!(provider.list().await.unwrap().is_empty(), "{when}");
    let left: Vec<_> = fs::read_dir(folder.join("state/machines"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != ".lock")
        .collect();
    assert!(left.is_empty(), "{when}: {left:?}");
    machines.len()
}

fn have_programs() -> bool {
    !aicert_swtpm_testing::skip_without(&["swtpm", "qemu-system-x86_64", "qemu-img"])
}

#[tokio::test]
async fn killed_at_every_step() {
    if !have_programs() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    assert!(start(folder.path(), "").wait().unwrap().success());
    assert_eq!(clean_up(folder.path(), "after a life without death").await, 0);
    let instants = fs::read_to_string(folder.path().join("instants")).unwrap();
    // Those that are waited in depend on how busy this machine is.
    let instants: Vec<_> = instants
        .lines()
        .filter(|instant| !instant.starts_with("waiting") || instant.ends_with("-0"))
        .collect();
    for expected in [
        "hidden-0",
        "gated-0",
        "recorded-1",
        "qemu-0",
        "made-0",
        "emptied-0",
    ] {
        assert!(instants.contains(&expected), "{instants:?}");
    }
    let mut listed = 0;
    for instant in &instants {
        assert!(
            !start(folder.path(), instant).wait().unwrap().success(),
            "{instant}: it must have been killed"
        );
        if *instant == "made-0" {
            // It was complete: it goes on without its maker, for whoever has the key to it.
            let provider = provider(folder.path());
            let machine = provider.list().await.unwrap().pop().unwrap();
            assert!(provider.is_running(&machine.id).await.unwrap());
            assert_eq!(machine.in_use, None);
            std::net::TcpStream::connect(machine.endpoint.unwrap()).unwrap();
        }
        listed += clean_up(folder.path(), instant).await;
    }
    // All but those before the folder has its name, and after it has lost it.
    assert!(listed >= instants.len() - 3, "{listed} of {}", instants.len());
}

#[tokio::test]
async fn killed_at_random() {
    if !have_programs() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    assert!(start(folder.path(), "").wait().unwrap().success());
    let life = begin.elapsed();
    let mut killed = 0;
    for attempt in 0..25 {
        let mut child = start(folder.path(), "");
        // Every `RandomState` has keys of its own.
        let part = (RandomState::new().hash_one(attempt) % 1_000) as u32;
        std::thread::sleep(life * part / 1_000);
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        clean_up(folder.path(), &format!("after {part} thousandths of {life:?}")).await;
    }
    assert!(killed > 5, "only {killed} were still alive when they were killed");
}
