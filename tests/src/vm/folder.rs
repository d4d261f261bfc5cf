//! The folder of a machine at its provider, for what its owner can do with it and the provider does not offer.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::wait_for;

const QEMU: &str = "qemu";
const SWTPM: &str = "swtpm";

/// How long a process may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A machine's folder.
#[derive(Debug, Clone)]
pub struct MachineFolder(PathBuf);

impl MachineFolder {
    /// That of the only machine there is.
    pub(super) fn only(machines: &Path) -> Option<Self> {
        let entries = fs::read_dir(machines).ok()?.flatten();
        let mut visible = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
        visible.next().map(|entry| Self(entry.path()))
    }

    /// A file in it.
    pub fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Where its server is reached; nothing before it is complete.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        let record = read(&self.at("record.json"))?;
        record["endpoint"].as_str()?.parse().ok()
    }

    /// The process that is the machine; nothing before it was started.
    pub fn qemu(&self) -> Option<Pid> {
        self.process(QEMU)
    }

    fn process(&self, program: &str) -> Option<Pid> {
        let process = read(&self.at(&format!("{program}.process")))?;
        Pid::from_raw(process["pid"].as_i64()?.try_into().ok()?)
    }

    /// Cuts the power.
    ///
    /// # Panics
    ///
    /// When there is no machine, or it does not end.
    pub fn cut_power(&self) {
        let pid = self.qemu().expect("there is a machine");
        kill_process(pid, Signal::KILL).expect("it runs");
        for pid in [Some(pid), self.process(SWTPM)].into_iter().flatten() {
            wait_for("a process ends", PATIENCE, || ended(pid).then_some(()));
        }
    }

    /// Cuts the power, and turns the machine on again: the same disk, TPM, firmware variables and address.
    ///
    /// # Panics
    ///
    /// When it does not come up again.
    pub fn power_cycle(&self) {
        let endpoint = self.endpoint().expect("the machine is complete");
        let arguments = [SWTPM, QEMU].map(|program| (program, self.arguments(program)));
        self.cut_power();
        for socket in ["tpm-control", "monitor"] {
            let _ = fs::remove_file(self.at(socket));
        }
        for ((program, arguments), socket) in arguments.into_iter().zip(["tpm-control", "monitor"]) {
            // The port that the provider had asked for whichever it is must be the same again.
            let arguments = arguments.into_iter().map(|argument| {
                let any = "hostfwd=tcp:127.0.0.1:0-";
                let same = format!("hostfwd=tcp:{endpoint}-");
                argument.replace(any, &same)
            });
            self.start(program, &arguments.collect::<Vec<_>>());
            wait_for("a program listens", PATIENCE, || {
                self.at(socket).exists().then_some(())
            });
        }
    }

    /// The command line of a program.
    fn arguments(&self, program: &str) -> Vec<String> {
        let pid = self.process(program).expect("it was started").as_raw_nonzero();
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).expect("it runs");
        let arguments = bytes
            .split(|byte| *byte == 0)
            .filter(|argument| !argument.is_empty());
        arguments
            .map(|argument| {
                let argument = std::ffi::OsString::from_vec(argument.to_vec());
                argument.into_string().expect("paths of tests are plain")
            })
            .collect()
    }

    /// Starts a program as the provider does, and writes down which process it is, so that it ends with the machine.
    fn start(&self, program: &str, arguments: &[String]) {
        let mut child = Command::new(&arguments[0])
            .args(&arguments[1..])
            .current_dir(&self.0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("it starts");
        let pid = child.id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        // Fields are counted from the end of the name, which may have anything in it: state is 3, start time is 22.
        let (_, fields) = stat.rsplit_once(')').expect("proc(5)");
        let started: u64 = fields
            .split_whitespace()
            .nth(22 - 3)
            .and_then(|field| field.parse().ok())
            .expect("proc(5)");
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("proc(5)");
        let process = json!({"pid": pid, "started": started, "boot": boot.trim()});
        fs::write(self.at(&format!("{program}.process")), process.to_string())
            .expect("a file can be written");
        // Whoever started a process must ask how it ended.
        std::thread::spawn(move || child.wait());
    }
}

fn ended(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.map_or(true, |stat| {
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
    })
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}
