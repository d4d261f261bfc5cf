//! A swtpm process of one's own.

use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::BuildHasher as _;
use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use aicert_core::tpm::{PcrBank, TpmError};
use aicert_tpm::{KeySource, TpmConfig};
use rustix::process::{Pid, Signal, kill_process};

use crate::config::SwtpmOptions;
use crate::error::Failure;
use crate::raw::{self, Shutdown};

/// Below what Linux hands out to clients (`net.ipv4.ip_local_port_range`), so that those do not get in the way.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const ATTEMPTS: u32 = 50;
const START_LIMIT: Duration = Duration::from_secs(20);
const PID_FILE: &str = "swtpm.pid";
const LOG_FILE: &str = "swtpm.log";
const MESSAGES_FILE: &str = "swtpm.stderr";

/// Becomes swtpm, and leaves a watcher behind that kills it when standard input ends without a line: when whoever holds
/// the other end has died in whatever way. The watcher looks at the name, lest it meets a successor of the process id.
const WATCHED: &str = r#"
exec 3<&0 </dev/null
( if ! read -r line <&3; then
    case "$(cat /proc/$$/comm 2>/dev/null)" in sh|dash|bash|swtpm) kill -KILL $$ ;; esac
  fi ) >/dev/null 2>&1 &
exec swtpm "$@" 3<&-
"#;

/// A running swtpm with its own state, on its own ports.
///
/// The process ends when this is dropped, and when the process that holds it ends, even by `SIGKILL`. Any number may run
/// at the same time.
#[derive(Debug)]
pub struct SwtpmInstance {
    process: Option<Process>,
    port: u16,
    directory: PathBuf,
    /// Whether the directory stays when this is dropped.
    kept: bool,
}

/// A swtpm process, with the pipe whose end is its end.
#[derive(Debug)]
struct Process {
    child: Child,
    lifeline: ChildStdin,
}

impl SwtpmInstance {
    /// Starts a software TPM, and returns when it answers. Blocks for some 20 ms.
    ///
    /// # Errors
    ///
    /// When swtpm is not installed or does not start, or the directory cannot be made.
    pub fn start(options: SwtpmOptions) -> Result<Self, TpmError> {
        let directory = make_directory(options.directory.as_deref())?;
        // From here on, `drop` cleans up.
        let mut instance = Self {
            process: None,
            port: 0,
            directory,
            kept: false,
        };
        instance.find_ports()?;
        if let Some(banks) = options.banks {
            instance.allocate(&banks)?;
        }
        Ok(instance)
    }

    /// Starts a software TPM that goes on with the state that [`into_state`](Self::into_state) left in `directory`, which is
    /// removed with it.
    ///
    /// # Errors
    ///
    /// Like [`start`](Self::start).
    pub fn resume(directory: impl Into<PathBuf>) -> Result<Self, TpmError> {
        let directory = directory.into();
        let directory = fs::canonicalize(&directory).map_err(|source| Failure::Directory {
            path: directory,
            source,
        })?;
        let mut instance = Self {
            process: None,
            port: 0,
            directory,
            kept: false,
        };
        instance.find_ports()?;
        Ok(instance)
    }

    /// The port for commands on 127.0.0.1; the control channel is on the next one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id; `None` while it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.child.id())
    }

    /// Where everything is kept.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The configuration that opens this TPM.
    pub fn config(&self, key: KeySource) -> TpmConfig {
        TpmConfig::swtpm("127.0.0.1", self.port, key)
    }

    /// Sends one command as bytes, and returns the response as bytes.
    ///
    /// # Errors
    ///
    /// When the TPM is not there, or answers nothing.
    pub fn command(&self, command: &[u8]) -> io::Result<Vec<u8>> {
        raw::converse(self.port, command)
    }

    /// Occupies the TPM: until the connection is dropped, nobody else is served.
    ///
    /// # Errors
    ///
    /// When the TPM is not there.
    pub fn occupy(&self) -> io::Result<TcpStream> {
        TcpStream::connect(("127.0.0.1", self.port))
    }

    /// Shuts the TPM down in an orderly way and switches it off and on: PCRs and transient objects are gone, the reset
    /// count grows.
    ///
    /// # Errors
    ///
    /// When it does not come up again.
    pub fn reset(&mut self) -> Result<(), TpmError> {
        Ok(self.power_cycle(Shutdown::Clear)?)
    }

    /// Like [`reset`](Self::reset), but as after hibernation: the restart count grows instead of the reset count.
    ///
    /// # Errors
    ///
    /// When it does not come up again.
    pub fn restart(&mut self) -> Result<(), TpmError> {
        Ok(self.power_cycle(Shutdown::State)?)
    }

    /// Shuts the TPM down in an orderly way, ends it, and leaves its state in its directory, which it returns: for another
    /// swtpm, such as that of a virtual machine, to go on with.
    ///
    /// # Errors
    ///
    /// When the TPM does not answer any more; the directory is removed then.
    pub fn into_state(mut self) -> Result<PathBuf, TpmError> {
        raw::must(self.port, "TPM2_Shutdown", &Shutdown::Clear.command())?;
        self.stop();
        for file in [PID_FILE, LOG_FILE, MESSAGES_FILE] {
            // They are about the process, and it has ended.
            let _ = fs::remove_file(self.directory.join(file));
        }
        self.kept = true;
        Ok(self.directory.clone())
    }

    /// The process id of the software TPM that was started in `directory`, if it still runs.
    pub fn pid_in(directory: &Path) -> Option<u32> {
        let pid: u32 = fs::read_to_string(directory.join(PID_FILE))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        // The id may belong to another process by now; ours works in its directory.
        let works_in = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        let ours = works_in == fs::canonicalize(directory).ok()? && name.trim() == "swtpm";
        ours.then_some(pid)
    }

    /// Ends the software TPM that was started in `directory`, if it still runs, and removes the directory; for cleaning
    /// up after a process that died.
    ///
    /// # Errors
    ///
    /// When the directory cannot be removed.
    pub fn remove_leftovers(directory: &Path) -> io::Result<()> {
        if let Some(pid) = Self::pid_in(directory).and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            // It may end by itself at the same moment.
            let _ = kill_process(pid, Signal::KILL);
        }
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn find_ports(&mut self) -> Result<(), Failure> {
        for attempt in 0..ATTEMPTS {
            let Some(port) = free_pair() else { continue };
            self.port = port;
            match self.spawn() {
                Ok(()) => return Ok(()),
                // Somebody else may have taken a port between the look and the start.
                Err(Failure::DidNotStart { .. })
                    if attempt + 1 < ATTEMPTS && free_listeners(port).is_none() => {}
                Err(error) => return Err(error),
            }
        }
        Err(Failure::NoPorts { attempts: ATTEMPTS })
    }

    fn allocate(&mut self, banks: &[PcrBank]) -> Result<(), Failure> {
        raw::must(self.port, "TPM2_PCR_Allocate", &raw::pcr_allocate(banks))?;
        self.power_cycle(Shutdown::Clear)
    }

    fn power_cycle(&mut self, shutdown: Shutdown) -> Result<(), Failure> {
        raw::must(self.port, "TPM2_Shutdown", &shutdown.command())?;
        self.stop();
        self.spawn()
    }

    /// Starts the process, and waits until it listens and answers.
    fn spawn(&mut self) -> Result<(), Failure> {
        let directory = &self.directory;
        let use_directory = |source| Failure::Directory {
            path: directory.clone(),
            source,
        };
        // One of an earlier process would be taken for the new one's.
        let _ = fs::remove_file(directory.join(PID_FILE));
        let stderr = File::create(directory.join(MESSAGES_FILE)).map_err(use_directory)?;
        let (port, control) = (self.port, self.port + 1);
        let mut child = Command::new("sh")
            .args(["-c", WATCHED, "swtpm", "socket", "--tpm2"])
            .arg("--tpmstate")
            // Here, and everything else by a name without a folder: in its options, a path could not have a comma.
            .arg("dir=.")
            .arg("--server")
            .arg(format!("type=tcp,port={port},bindaddr=127.0.0.1"))
            .arg("--ctrl")
            .arg(format!("type=tcp,port={control},bindaddr=127.0.0.1"))
            .arg("--pid")
            .arg(format!("file={PID_FILE}"))
            .arg("--log")
            .arg(format!("file={LOG_FILE},level=1"))
            .args(["--flags", "not-need-init,startup-clear"])
            // The caller's environment may hold secrets, such as the tokens of a job; a TPM needs none.
            .env_clear()
            .envs(
                ["PATH", "LD_LIBRARY_PATH"]
                    .iter()
                    .filter_map(|name| Some((name, std::env::var_os(name)?))),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(stderr)
            // Ctrl-C in a terminal goes to a whole group: it is for us to end the TPM, after what we still need it for.
            .process_group(0)
            .current_dir(directory)
            .spawn()
            .map_err(|source| Failure::NotInstalled {
                program: "sh",
                source,
            })?;
        // `Stdio::piped` above is what makes it there.
        let lifeline = child.stdin.take().expect("standard input is a pipe");
        let mut process = Process { child, lifeline };
        match await_answer(&mut process.child, port, directory) {
            Ok(()) => {
                self.process = Some(process);
                Ok(())
            }
            Err(error) => {
                process.end();
                Err(error)
            }
        }
    }

    fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.end();
        }
    }
}

impl Drop for SwtpmInstance {
    fn drop(&mut self) {
        self.stop();
        if !self.kept {
            // What cannot be removed stays; there is nobody to tell.
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

impl Process {
    fn end(mut self) {
        // Both fail only when the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Only now, so that the watcher never sees the pipe end while the process id may be somebody else's.
        let _ = self.lifeline.write_all(b"done\n");
    }
}

fn make_directory(wanted: Option<&Path>) -> Result<PathBuf, Failure> {
    let made = match wanted {
        // Not `create_dir_all`: it would take a directory that exists, and `drop` would remove what is in it.
        Some(path) => fs::create_dir(path).map(|()| path.to_owned()),
        None => tempfile::Builder::new()
            .prefix("aicert-swtpm-")
            .tempdir()
            .map(tempfile::TempDir::keep),
    };
    made.and_then(fs::canonicalize)
        .map_err(|source| Failure::Directory {
            path: wanted.map_or_else(std::env::temp_dir, Path::to_owned),
            source,
        })
}

fn free_pair() -> Option<u16> {
    // Every `RandomState` has keys of its own.
    let random = RandomState::new().hash_one(std::process::id());
    let pairs = u64::from(PORTS.end - PORTS.start) / 2;
    let port = PORTS.start + u16::try_from(random % pairs).ok()? * 2;
    free_listeners(port).map(|_| port)
}

fn free_listeners(port: u16) -> Option<(TcpListener, TcpListener)> {
    Some((
        TcpListener::bind(("127.0.0.1", port)).ok()?,
        TcpListener::bind(("127.0.0.1", port + 1)).ok()?,
    ))
}

fn await_answer(child: &mut Child, port: u16, directory: &Path) -> Result<(), Failure> {
    let end = Instant::now() + START_LIMIT;
    let reason = |what: String| {
        let said = fs::read_to_string(directory.join(MESSAGES_FILE)).unwrap_or_default();
        let reason = [what.as_str(), said.trim()].join(": ");
        Failure::DidNotStart { reason }
    };
    loop {
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) if status.code() == Some(127) => {
                return Err(Failure::NotInstalled {
                    program: "swtpm",
                    source: io::Error::new(io::ErrorKind::NotFound, "there is no such program"),
                });
            }
            Ok(Some(status)) => return Err(reason(format!("it ended with {status}"))),
            Err(error) => return Err(reason(error.to_string())),
        }
        // An answer alone would not do: it could come from somebody else's on the same port. The file comes last, and
        // is cheaper to look for.
        let announced = directory.join(PID_FILE).exists();
        if announced && listens(child.id(), port) && listens(child.id(), port + 1) {
            // Any answer will do; this one changes nothing.
            return raw::must(port, "TPM2_GetRandom", &GET_RANDOM);
        }
        if Instant::now() >= end {
            return Err(reason(format!(
                "it does not listen after {} s",
                START_LIMIT.as_secs()
            )));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// `TPM2_GetRandom` of one byte (TPM 2.0 Library, part 3, section 16.1).
const GET_RANDOM: [u8; 12] = [0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 1];

/// Whether it is this process that listens on a port of 127.0.0.1 (proc(5), `/proc/net/tcp`).
fn listens(pid: u32, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let Ok(table) = fs::read_to_string("/proc/net/tcp") else {
        return false;
    };
    let address = format!("{:08X}:{port:04X}", u32::from_ne_bytes([127, 0, 0, 1]));
    let inode = table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        (fields.get(1) == Some(&address.as_str()) && fields.get(3) == Some(&LISTEN))
            .then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
    });
    let Some(inode) = inode.map(PathBuf::from) else {
        return false;
    };
    fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|descriptors| {
        descriptors
            .filter_map(|descriptor| fs::read_link(descriptor.ok()?.path()).ok())
            .any(|target| target == inode)
    })
}
