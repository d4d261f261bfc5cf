//! The processes: QEMU, and a software TPM for it.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::command::command;
use super::{DISK, HELLO};

/// The file with the firmware's variables.
pub(super) const VARIABLES: &str = "variables.fd";

const CONSOLE: &str = "console.log";
const LINE: &str = "line";
const TPM: &str = "tpm";

/// The largest event log that is believed; theirs have some 20 KB.
const LOG_LIMIT: u32 = 1 << 20;

/// Becomes a program, and leaves a watcher behind that kills it when standard input ends without a line: when the test
/// has died in whatever way.
const WATCHED: &str = r#"
exec 3<&0 </dev/null
( read -r line <&3 || kill -KILL $$ ) >/dev/null 2>&1 &
exec "$@" 3<&-
"#;

/// A running machine.
#[derive(Debug)]
pub(super) struct Processes {
    // QEMU first: its TPM ends when nobody uses it any more.
    machine: Watched,
    _tpm: Watched,
    line: UnixListener,
    folder: PathBuf,
}

impl Processes {
    /// Starts a machine from what is in `folder`.
    pub(super) fn start(folder: &Path, firmware: &Path) -> Self {
        let at = |name: &str| folder.join(name).display().to_string();
        let state = folder.join("tpm-state");
        fs::create_dir(&state).expect("a folder can be made");
        let tpm = Watched::start(
            folder,
            "swtpm",
            &[
                "socket",
                "--tpm2",
                "--tpmstate",
                &format!("dir={}", state.display()),
                "--ctrl",
                &format!("type=unixio,path={}", at(TPM)),
                "--terminate",
            ],
        );
        wait_for(&folder.join(TPM));
        let line = UnixListener::bind(folder.join(LINE)).expect("a socket can be made");
        let machine = Watched::start(
            folder,
            "qemu-system-x86_64",
            &[
                "-nodefaults",
                "-no-user-config",
                "-no-reboot",
                "-display",
                "none",
                // Not KVM, even where it is there: this must be the same machine everywhere.
                "-machine",
                "q35,accel=tcg,smm=off",
                "-cpu",
                // QEMU 7.2 confuses the flags after CMPXCHG16B when an interrupt comes at once, and the kernel dies of it.
                "max,-cx16",
                "-m",
                "512",
                "-drive",
                &format!(
                    "if=pflash,unit=0,format=raw,readonly=on,file={}",
                    firmware.display()
                ),
                "-drive",
                &format!("if=pflash,unit=1,format=raw,file={}", at(VARIABLES)),
                "-drive",
                &format!("if=none,id=disk,format=raw,file={}", at(DISK)),
                "-device",
                "virtio-blk-pci,drive=disk",
                "-chardev",
                &format!("socket,id=tpm,path={}", at(TPM)),
                "-tpmdev",
                "emulator,id=tpm,chardev=tpm",
                "-device",
                "tpm-crb,tpmdev=tpm",
                "-serial",
                &format!("file:{}", at(CONSOLE)),
                "-chardev",
                &format!("socket,id=line,path={}", at(LINE)),
                "-serial",
                "chardev:line",
            ],
        );
        Self {
            machine,
            _tpm: tpm,
            line,
            folder: folder.to_owned(),
        }
    }

    /// Waits for the guest to speak; returns the line to it, and the event log.
    pub(super) fn greeting(&mut self, patience: Duration) -> Result<(UnixStream, Vec<u8>), String> {
        let end = Instant::now() + patience;
        let mut line = self.accept(end)?;
        let late = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => "it ended".to_owned(),
            io::ErrorKind::WouldBlock => format!("it has not spoken for {} s", patience.as_secs()),
            _ => error.to_string(),
        };
        line.set_read_timeout(Some(patience)).map_err(late)?;
        let mut last = Vec::new();
        while !last.ends_with(&HELLO) {
            let mut byte = [0];
            line.read_exact(&mut byte).map_err(late)?;
            last.extend(byte);
            if Instant::now() > end {
                return Err(format!("it is not up after {} s", patience.as_secs()));
            }
        }
        let mut size = [0; 4];
        line.read_exact(&mut size).map_err(late)?;
        let size = u32::from_be_bytes(size);
        if size > LOG_LIMIT {
            return Err(format!("its event log is said to have {size} bytes"));
        }
        let mut log = vec![0; size as usize];
        line.read_exact(&mut log).map_err(late)?;
        Ok((line, log))
    }

    fn accept(&mut self, end: Instant) -> Result<UnixStream, String> {
        self.line
            .set_nonblocking(true)
            .map_err(|error| error.to_string())?;
        loop {
            match self.line.accept() {
                Ok((line, _)) => {
                    line.set_nonblocking(false).map_err(|error| error.to_string())?;
                    return Ok(line);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.to_string()),
            }
            if let Ok(Some(status)) = self.machine.child.try_wait() {
                return Err(format!("QEMU ended with {status}"));
            }
            if Instant::now() > end {
                return Err("QEMU does not open its serial line".into());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the machine wrote to its console, and what the programs complained about.
    pub(super) fn console(&self) -> String {
        let read = |name: &str| {
            let bytes = fs::read(self.folder.join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        format!(
            "-- swtpm: {}\n-- QEMU: {}\n-- console: {}",
            read("swtpm.messages").trim(),
            read("qemu-system-x86_64.messages").trim(),
            read(CONSOLE).trim()
        )
    }
}

fn wait_for(socket: &Path) {
    let end = Instant::now() + Duration::from_secs(20);
    while !socket.exists() {
        assert!(
            Instant::now() < end,
            "swtpm does not start; `swtpm socket --tpm2` may say why"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

/// A process that ends when this is dropped, and when this process ends.
#[derive(Debug)]
struct Watched {
    child: Child,
    lifeline: ChildStdin,
}

impl Watched {
    fn start(folder: &Path, program: &str, arguments: &[&str]) -> Self {
        let messages = File::create(folder.join(format!("{program}.messages"))).expect("a file can be made");
        let mut child = command("sh")
            .args(["-c", WATCHED, "sh", program])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(messages)
            // Ctrl-C in a terminal is for the test.
            .process_group(0)
            .spawn()
            .expect("sh starts");
        let lifeline = child.stdin.take().expect("standard input is a pipe");
        Self { child, lifeline }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Both fail only when the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Only now, so that the watcher never sees the pipe end while the process id may be somebody else's.
        let _ = self.lifeline.write_all(b"done\n");
    }
}
