//! Machines in QEMU, as far as they go without an image that boots: made, found again, and removed.
#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]
#![allow(clippy::print_stderr, reason = "who left a test out is told so")]

mod desk;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use desk::Desk;
use insta::assert_snapshot;
use rustix::process::{Pid, Signal};
use serde_json::Value;

const CONFIGURATION: &str = "kind: python
pythonVersion: 11
source: {type: directory, path: code}
machine: {provider: qemu, image: empty.raw, memory: 1GiB, disk: 1GiB, bootLimit: 10m}
";

/// How long a step may take on a machine that is busy with other things.
const LIMIT: Duration = Duration::from_secs(120);

/// Whether there is what these tests need; where tests must not be left out, it is an error if there is not.
fn have_qemu() -> bool {
    let missing: Vec<_> = ["qemu-system-x86_64", "qemu-img", "swtpm"]
        .into_iter()
        .filter(|tool| {
            let mut command = Command::new(tool);
            let command = command
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command.status().is_err()
        })
        .collect();
    if missing.is_empty() && Path::new("/usr/share/OVMF/OVMF_CODE_4M.fd").exists() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "missing: {missing:?}, or OVMF");
    eprintln!("skipped: missing {missing:?}, or OVMF");
    false
}

/// A desk with a disk that has nothing on it.
fn desk() -> Desk {
    let desk = Desk::new();
    std::fs::create_dir(desk.path("code")).unwrap();
    desk.write("code/main.py", "")
        .write("aicert.yaml", CONFIGURATION)
        .write("empty.raw", vec![0; 1 << 20])
        .write(
            "empty.reference-values.json",
            "{\"version\": \"aicert/reference-values/v1\"}",
        );
    desk
}

/// The only machine there is.
fn machine(desk: &Desk) -> Option<Value> {
    let output = desk.command(&["machines", "list", "--json"]).output().unwrap();
    let mut list: Value = serde_json::from_slice(&output.stdout).unwrap();
    let machines = list["machines"].as_array_mut().unwrap();
    assert!(machines.len() < 2, "{machines:?}");
    machines.pop()
}

/// A command that runs; it does not outlive the test.
struct Running(Child);

impl Running {
    fn start(desk: &Desk, arguments: &[&str]) -> Self {
        let mut command = desk.command(arguments);
        Self(
            command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    /// Sends a signal, and waits for the exit code.
    fn end(mut self, signal: Signal) -> Option<i32> {
        let id = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Begins a run, and waits until its machine boots.
fn begin(desk: &Desk) -> (Running, String) {
    let run = Running::start(desk, &["run"]);
    let begun = Instant::now();
    loop {
        let found = machine(desk).filter(|machine| machine["phase"] == "booting");
        if let Some(machine) = found {
            assert_eq!(
                (&machine["in_use"], &machine["state"]),
                (&true.into(), &"running".into())
            );
            return (run, machine["job"].as_str().unwrap().to_owned());
        }
        assert!(begun.elapsed() < LIMIT, "no machine boots");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Everything that is left of jobs and machines.
fn left(desk: &Desk) -> Vec<String> {
    let folders = ["state/runs", "state/qemu/machines", "state/machines"];
    let names = folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(desk.path(folder)));
    let mut names: Vec<_> = names
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ".lock")
        .collect();
    names.sort();
    names
}

/// What was said, with the names that differ from run to run replaced.
fn said(text: &str, job: &str) -> String {
    let text = text.replace(job, "JOB");
    let time = |word: &str| word.len() >= 20 && word.contains('T') && word.as_bytes()[4] == b'-';
    text.split(' ')
        .map(|word| if time(word) { "TIME):" } else { word })
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn without_reference_values_nothing_is_made() {
    let desk = desk();
    std::fs::remove_file(desk.path("empty.reference-values.json")).unwrap();
    assert_snapshot!(desk.run(&["run"]), @r#"
    exit code 2
    --- stderr
    error: there are no reference values DESK/empty.reference-values.json
    help: without them nobody can say what the machine boots: `aicert image measure IMAGE --json` computes them; `referenceValues` in the configuration, or `--reference-values`, names them
    "#);
    assert_eq!(left(&desk), Vec::<String>::new());
}

#[test]
fn an_interrupted_boot_leaves_nothing() {
    if !have_qemu() {
        return;
    }
    let desk = desk();
    let (run, job) = begin(&desk);
    assert_snapshot!(said(&desk.run(&["attach"]), &job).replace(&run.0.id().to_string(), "PROCESS"), @r#"
    exit code 1
    --- stderr
    error: another aicert (process PROCESS) follows the job JOB
    help: stop it there with Ctrl-C; it says how to go on
    "#);
    assert_snapshot!(said(&desk.run(&["machines", "destroy", "--all"]), &job).replace(&run.0.id().to_string(), "PROCESS"), @r#"
    exit code 1
    --- stderr
    error: another aicert (process PROCESS) follows the job JOB
    help: stop it there with Ctrl-C, or destroy the machine all the same with `--force`
    "#);
    assert_eq!(run.end(Signal::INT), Some(130));
    assert_eq!(left(&desk), Vec::<String>::new());
}

#[test]
fn a_killed_run_is_found_and_gone_on_with() {
    if !have_qemu() {
        return;
    }
    let desk = desk();
    let (run, job) = begin(&desk);
    run.end(Signal::KILL);
    let machine = machine(&desk).unwrap();
    assert_eq!(
        (&machine["in_use"], &machine["state"]),
        (&false.into(), &"running".into())
    );

    // The next run says so, whatever comes of it.
    desk.write(
        "local.yaml",
        CONFIGURATION.replace(
            "qemu, image: empty.raw, memory: 1GiB, disk: 1GiB, bootLimit: 10m",
            "local, tpm: swtpm",
        ),
    );
    let engine = format!("unix://{}", desk.path("no.sock").display());
    let mut other = desk.command(&["run", "-f", "local.yaml"]);
    let other = desk.show(&other.env("DOCKER_HOST", &engine).output().unwrap());
    assert_snapshot!(said(&other, &job), @r#"
    exit code 1
    --- stderr
    warning: the job JOB (DESK/aicert.yaml, TIME): is still there, and nobody follows it: the machine boots. `aicert attach JOB` goes on with it, `aicert machines destroy JOB` removes it
    error: cannot reach the Docker engine at DESK/no.sock: No such file or directory (os error 2)
    help: Docker is not running or not installed: `sudo service docker start`, or `sudo apt-get install docker.io`; set DOCKER_HOST if its socket is elsewhere
    "#);

    // Somebody goes on with it, and gives it up.
    let attached = Running::start(&desk, &["attach", &job[job.len() - 8..]]);
    let begun = Instant::now();
    while machine_is_free(&desk) {
        assert!(begun.elapsed() < LIMIT, "nobody attaches");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(attached.end(Signal::TERM), Some(143));
    assert_eq!(left(&desk), Vec::<String>::new());
}

#[test]
fn a_machine_that_the_record_does_not_know_is_made_again() {
    if !have_qemu() {
        return;
    }
    let desk = desk();
    let (run, job) = begin(&desk);
    run.end(Signal::KILL);
    // As if the command had been killed a moment earlier: the machine runs, and is not recorded yet.
    let path = desk.path(&format!("state/runs/{job}/record.json"));
    let mut record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    record["phase"] = "prepared".into();
    record["machine"] = Value::Null;
    record["endpoint"] = Value::Null;
    std::fs::write(&path, record.to_string()).unwrap();
    let entry = machine(&desk).unwrap();
    assert_eq!(
        (&entry["phase"], &entry["state"]),
        (&"prepared".into(), &"running".into())
    );
    let folder = desk.path(&format!("state/qemu/machines/{job}"));
    let left_behind = qemu_in(&folder);

    let attached = Running::start(&desk, &["attach"]);
    let begun = Instant::now();
    let found = loop {
        if let Some(machine) = machine(&desk).filter(|machine| machine["phase"] == "booting") {
            break machine;
        }
        assert!(begun.elapsed() < LIMIT, "no machine boots");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(
        (&found["job"], &found["in_use"], &found["state"]),
        (&job.as_str().into(), &true.into(), &"running".into())
    );
    // Nobody knew how far the first had come.
    assert_ne!(qemu_in(&folder), left_behind);
    assert_eq!(attached.end(Signal::TERM), Some(143));
    assert_eq!(left(&desk), Vec::<String>::new());
}

fn machine_is_free(desk: &Desk) -> bool {
    machine(desk).is_some_and(|machine| machine["in_use"] == false)
}

#[test]
fn a_machine_that_ended_is_cleaned_up() {
    if !have_qemu() {
        return;
    }
    for command in ["attach", "run"] {
        let desk = desk();
        let (run, job) = begin(&desk);
        run.end(Signal::KILL);
        let qemu = desk.path(&format!("state/qemu/machines/{job}"));
        end_machine(&qemu);
        assert_eq!(machine(&desk).unwrap()["state"], "ended");
        // Another run has nothing that it could run: it has said what it found before that.
        desk.write("empty.raw", "");
        let output = desk.command(&[command]).output().unwrap();
        assert!(!output.status.success());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            text.contains("the machine has ended before the job was sent to it"),
            "{text}"
        );
        assert_eq!(left(&desk), Vec::<String>::new(), "{command}: {text}");
    }
}

/// Cuts the power: ends the program that runs in this folder.
fn end_machine(folder: &Path) {
    rustix::process::kill_process(qemu_in(folder), Signal::KILL).unwrap();
}

/// The only machine that runs in this folder.
fn qemu_in(folder: &Path) -> Pid {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str()?.parse::<i32>().ok());
        let (Some(id), Ok(line)) = (name, std::fs::read(path.join("cmdline"))) else {
            continue;
        };
        let is_qemu = String::from_utf8_lossy(&line).contains("qemu-system");
        if is_qemu && std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd == folder) {
            found.push(Pid::from_raw(id).unwrap());
        }
    }
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]
}
