//! The programs that the image is for: the server, and the container engine. When one ends, the machine does.

use std::fmt;
use std::fs;
use std::io::pipe;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use rustix::thread::set_no_new_privs;

use crate::console::say;
use crate::engine::{self, PATH};
use crate::failure::{Failure, OrFail as _, Outcome};
use crate::forward;

/// The user that the server runs as, and its group.
pub(crate) const USER: u32 = 1000;

/// Where the server keeps what it has, and its home.
pub(crate) const STATE: &str = "/var/lib/aicert";

const SERVER: &str = "/usr/lib/aicert/aicert-server";
const PYTHON_IMAGE: &str = "/usr/share/aicert/python-3.11.tar";

/// How long the last lines of a service take to the console.
const LAST_LINES: Duration = Duration::from_millis(100);

const IMAGE: &str = "the image is incomplete";

/// Files that the server is told of.
#[derive(Debug)]
pub(crate) struct Files<'a> {
    pub(crate) provisioning: &'a Path,
    pub(crate) boot_log: &'a Path,
    pub(crate) tpm: &'a Path,
}

/// A running program.
#[derive(Debug)]
struct Service {
    name: &'static str,
    process: Pid,
}

/// Starts all, and waits until one has ended; says which, and how.
pub(crate) fn run(files: &Files<'_>) -> Outcome {
    // First, because the server may look for its socket at once, and waits there until it answers.
    let mut dockerd = engine::dockerd(USER)?;
    let services = [
        confined(|| Service::start("aicert-server", &mut server(files), -900))?,
        Service::start("containerd", &mut engine::containerd()?, -800)?,
        Service::start("dockerd", &mut dockerd, -800)?,
    ];
    say!(
        "started {}",
        services.each_ref().map(Service::to_string).join(", ")
    );
    let (name, status) = reap(&services)?;
    // What it printed last is still on its way to the console.
    thread::sleep(LAST_LINES);
    say!("{name} ended: {}", in_words(status));
    Ok(())
}

fn server(files: &Files<'_>) -> Command {
    let mut command = Command::new(SERVER);
    command
        .arg("--provisioning")
        .arg(files.provisioning)
        .args(["--state", STATE])
        .args(["--listen", "0.0.0.0:8443"])
        .arg("--tpm")
        .arg(files.tpm)
        .arg("--boot-event-log")
        .arg(files.boot_log)
        .args(["--python-image", PYTHON_IMAGE])
        .stdin(Stdio::null())
        .env_clear()
        .env("HOME", STATE)
        .env("TMPDIR", "/var/tmp")
        .env("PATH", PATH)
        .current_dir(STATE)
        .uid(USER)
        .gid(USER);
    command
}

/// Does something in a thread that can never gain privileges by starting programs, and neither can those.
fn confined<T: Send>(what: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
    let fault = || {
        Failure::new(
            "the thread that starts the server ended early",
            "a fault in aicert-init itself",
        )
    };
    thread::scope(|scope| {
        scope
            .spawn(|| {
                set_no_new_privs(true).or_fail(|| "cannot give privileges up".into(), IMAGE)?;
                what()
            })
            .join()
            .map_err(|_| fault())?
    })
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.process)
    }
}

impl Service {
    /// Starts a program; what it prints goes to the console. `adjustment` says how unlikely the kernel is to end it when
    /// memory runs out: jobs have 0.
    fn start(name: &'static str, command: &mut Command, adjustment: i32) -> Outcome<Self> {
        let what = || format!("cannot start {name}");
        let (reader, writer) = pipe().or_fail(what, IMAGE)?;
        let child = command
            .stdout(writer.try_clone().or_fail(what, IMAGE)?)
            .stderr(writer)
            .process_group(0)
            .spawn()
            .or_fail(what, IMAGE)?;
        forward::start(name, reader);
        let process = Pid::from_child(&child);
        // Should it have ended already, its end is what there is to report.
        let _ = fs::write(format!("/proc/{process}/oom_score_adj"), adjustment.to_string());
        Ok(Self { name, process })
    }
}

/// Collects every process that ends, whoever started it, until one of these has.
fn reap(services: &[Service]) -> Outcome<(&'static str, WaitStatus)> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((process, status))) => {
                if let Some(service) = services.iter().find(|service| service.process == process) {
                    return Ok((service.name, status));
                }
            }
            Ok(None) | Err(Errno::INTR) => {}
            Err(error) => {
                return Err(Failure::new(
                    format!("cannot wait for processes: {error}"),
                    "a fault in aicert-init itself",
                ));
            }
        }
    }
}

fn in_words(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => "it had finished".into(),
        (Some(code), _) => format!("with exit status {code}; its messages are above"),
        (None, Some(9)) => "killed, as the kernel does when memory runs out".into(),
        (None, Some(signal)) => format!("by signal {signal}"),
        (None, None) => "in a way that is not known".into(),
    }
}
