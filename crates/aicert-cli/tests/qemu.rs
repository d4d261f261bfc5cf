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
    /// What it says on standard error is in the file `said`.
    fn start(desk: &Desk, arguments: &[&str]) -> Self {
        let mut command = desk.command(arguments);
        let said = std::fs::File::create(desk.path("said")).unwrap();
        Self(command.stdout(Stdio::null()).stderr(said).spawn().unwrap())
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
    begin_with(desk, &["run"])
}

fn begin_with(desk: &Desk, arguments: &[&str]) -> (Running, String) {
    let run = Running::start(desk, arguments);
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
fn what_could_not_be_removed_is_said_to_who_wants_to_hear_nothing() {
    if !have_qemu() {
        return;
    }
    let desk = desk();
    let results = desk.path("results");
    std::fs::create_dir(&results).unwrap();
    let (run, job) = begin_with(&desk, &["run", "--quiet", "-b", "results/proof.json"]);
    // What may be half written cannot be looked for any more.
    std::fs::remove_dir(&results).unwrap();
    std::fs::write(&results, "").unwrap();
    assert_eq!(run.end(Signal::INT), Some(130));
    let said = std::fs::read_to_string(desk.path("said")).unwrap();
    assert!(
        said.contains("warning: ") && said.contains(&format!("`aicert machines destroy {job}`")),
        "{said}"
    );

    std::fs::remove_file(&results).unwrap();
    std::fs::create_dir(&results).unwrap();
    assert!(
        desk.command(&["machines", "destroy", &job])
            .output()
            .unwrap()
            .status
            .success()
    );
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

/// Changes a field of a job's record.
fn change_record(desk: &Desk, job: &str, field: &str, value: Value) {
    let path = desk.path(&format!("state/runs/{job}/record.json"));
    let mut record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    record[field] = value;
    std::fs::write(&path, record.to_string()).unwrap();
}

/// Runs another job that gets no machine; what it says before that is what it found.
fn warnings_of_another_run(desk: &Desk, job: &str) -> String {
    desk.write("empty.raw", "");
    let output = desk.command(&["run"]).output().unwrap();
    desk.write("empty.raw", vec![0; 1 << 20]);
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    let warnings: Vec<_> = text.lines().filter(|line| line.starts_with("warning")).collect();
    let text = warnings
        .join("\n")
        .replace(&desk.path("").display().to_string(), "DESK/");
    said(&text, job)
}

#[test]
fn a_machine_whose_process_cannot_be_known_is_not_forgotten() {
    if !have_qemu() {
        return;
    }
    let desk = desk();
    let (run, job) = begin(&desk);
    run.end(Signal::KILL);
    let folder = desk.path(&format!("state/qemu/machines/{job}"));
    let process = folder.join("qemu.process");
    let written = std::fs::read(&process).unwrap();
    std::fs::write(&process, "damaged").unwrap();
    let entry = machine(&desk).unwrap();
    assert_eq!(
        (&entry["state"], &entry["phase"]),
        (&"unknown".into(), &"booting".into())
    );
    assert_snapshot!(warnings_of_another_run(&desk, &job), @"warning: the job JOB (DESK/aicert.yaml, TIME): is left as it is: it cannot be found out whether qemu of the machine JOB still runs: could not read DESK/state/qemu/machines/JOB/qemu.process: expected value at line 1 column 1; `aicert machines destroy JOB` removes what can be removed");
    assert_snapshot!(said(&desk.run(&["attach"]), &job), @r#"
    exit code 1
    --- stderr
    error: nobody can go on with the job JOB: it cannot be found out whether qemu of the machine JOB still runs: could not read DESK/state/qemu/machines/JOB/qemu.process: expected value at line 1 column 1
    "#);
    for force in [&[][..], &["--force"]] {
        let destroyed = desk.run(&[&["machines", "destroy", "--all"], force].concat());
        assert!(destroyed.starts_with("exit code 1"), "{destroyed}");
        assert!(
            destroyed.contains("end them with `kill`, and remove DESK/state/qemu/machines/"),
            "{destroyed}"
        );
    }
    qemu_in(&folder);
    // What another version has added is no damage.
    let mut process_of_another: Value = serde_json::from_slice(&written).unwrap();
    process_of_another["added"] = 1.into();
    std::fs::write(&process, process_of_another.to_string()).unwrap();
    assert_eq!(machine(&desk).unwrap()["state"], "running");
    assert!(
        desk.run(&["machines", "destroy", "--all"])
            .starts_with("exit code 0")
    );
    assert_eq!(left(&desk), Vec::<String>::new());
}

#[test]
fn the_machine_of_a_job_whose_results_are_here_goes_without_a_word() {
    if !have_qemu() {
        return;
    }
    let desk = desk();
    let (run, job) = begin(&desk);
    run.end(Signal::KILL);
    // As if the command had been killed when everything was here, and before it had removed the machine.
    change_record(&desk, &job, "phase", "delivered".into());
    assert_eq!(warnings_of_another_run(&desk, &job), "");
    assert_eq!(left(&desk), Vec::<String>::new());
}

#[test]
fn a_machine_is_taken_from_who_follows_it_only_by_force() {
    if !have_qemu() {
        return;
    }
    let desk = desk();
    let (mut run, _) = begin(&desk);
    assert!(
        desk.run(&["machines", "destroy", "--all"])
            .starts_with("exit code 1")
    );
    let destroyed = desk.run(&["machines", "destroy", "--all", "--force"]);
    assert!(
        destroyed.starts_with("exit code 0\n--- stdout\nDestroyed the machine"),
        "{destroyed}"
    );
    assert_eq!(run.0.wait().unwrap().code(), Some(1));
    assert_eq!(left(&desk), Vec::<String>::new());
}

/// Runs in namespaces of its own, and ends with everything that it has started: `$1` is the command.
const ON_A_FULL_DISK: &str = r#"
mount -t tmpfs -o size=64m,mode=700 tmpfs state || exit 77
"$1" run & run=$!
tries=0
until grep -qs booting state/runs/*/record.json; do
    tries=$((tries + 1)); [ $tries -lt 1200 ] || { echo "no machine boots"; exit 1; }
    sleep 0.1
done
kill -KILL $run
dd if=/dev/zero of=state/filler bs=4k 2>/dev/null
cp aicert.yaml state/ 2>/dev/null && { echo "the disk is not full"; exit 1; }
"$1" attach 2>attached & attach=$!
until grep -q Attest attached; do
    kill -0 $attach 2>/dev/null || { cat attached; exit 1; }
    sleep 0.1
done
kill -KILL $attach
"$1" machines destroy --all || exit
ls -A state/runs
"#;

#[test]
fn a_machine_can_be_destroyed_when_the_disk_is_full() {
    if !have_qemu() {
        return;
    }
    let desk = desk();
    std::fs::create_dir(desk.path("state")).unwrap();
    let mut command = desk.command(&[]);
    let aicert = command.get_program().to_owned();
    let variables: Vec<_> = command
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    command = Command::new("unshare");
    command
        .args([
            "--map-root-user",
            "--mount",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
        ])
        .args(["sh", "-c", ON_A_FULL_DISK, "sh"])
        .arg(aicert)
        .envs(variables)
        .current_dir(desk.path(""));
    let output = command.output();
    let Some(output) = output.ok().filter(|output| {
        !String::from_utf8_lossy(&output.stderr).contains("unshare:") && output.status.code() != Some(77)
    }) else {
        eprintln!("skipped: no file system can be mounted here");
        return;
    };
    let shown = desk.show(&output);
    assert!(shown.starts_with("exit code 0"), "{shown}");
    let told = String::from_utf8_lossy(&output.stdout);
    // Nothing of the job is left.
    assert!(
        told.starts_with("Destroyed the machine of the job") && told.lines().count() == 1,
        "{shown}"
    );
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
        // The kernel takes its time to take a machine apart.
        let begun = Instant::now();
        while machine(&desk).unwrap()["state"] != "ended" {
            assert!(begun.elapsed() < LIMIT, "it goes on without QEMU");
        }
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
