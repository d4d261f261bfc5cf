//! Processes that outlive the one that started them, and that are never confused with others: they are recorded before
//! they become what they are, and known by more than their id.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::config::search_path;

/// Waits for a word, and then becomes a program in a session of its own. Whoever starts it writes down who it is, and
/// then says the word: should it die before that, standard input ends without one, and nothing was started.
const GATE: &str = r#"read -r word; [ "$word" = go ] || exit 0; exec "$@" </dev/null"#;

/// How long a process that was killed may take to be gone.
const END_LIMIT: Duration = Duration::from_secs(20);

/// Which process: an id alone is given to others again. What another version of aicert may have added says no less which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The process id.
    pub(crate) pid: u32,
    /// When it was started, in clock ticks since the machine's start (proc(5), `/proc/pid/stat`).
    started: u64,
    /// Which start of the machine that was.
    boot: String,
}

impl Identity {
    /// The process that has this id now.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let (started, _) = look(pid)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(Self {
            pid,
            started,
            boot: boot()?,
        })
    }

    /// This very process.
    pub(crate) fn own() -> io::Result<Self> {
        Self::of(std::process::id())
    }

    /// Whether it still runs; one that has ended, and that nobody has asked how, does not. That it cannot be found out is an
    /// error: it may run.
    pub(crate) fn is_alive(&self) -> io::Result<bool> {
        // First, as it is there always: then a process that is not there is gone, and not only out of sight.
        if boot()? != self.boot {
            return Ok(false);
        }
        Ok(look(self.pid)?.is_some_and(|(started, alive)| alive && started == self.started))
    }

    /// Ends it, and returns when it is gone. What has ended already is gone.
    pub(crate) fn kill(&self) -> io::Result<()> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(());
        };
        // Opened first and then looked at: if it is the process that it should be, so is what was opened.
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(Errno::SRCH) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if !self.is_alive()? {
            return Ok(());
        }
        match pidfd_send_signal(&process, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
        let end = Instant::now() + END_LIMIT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let limit = Timespec::try_from(left).ok();
            // Readable when all its threads have ended (pidfd_open(2)), and with them its files and ports are free.
            match poll(&mut [PollFd::new(&process, PollFlags::IN)], limit.as_ref()) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Which start of the machine this is.
fn boot() -> io::Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(boot.trim().to_owned())
}

/// When a process was started, and whether it is alive; nothing when there is none.
fn look(pid: u32) -> io::Result<Option<(u64, bool)>> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let stat = match fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let stat = String::from_utf8_lossy(&stat);
    // The name, in parentheses, may have anything in it. Behind it come the state, which is field 3, and the others.
    let (_, fields) = stat.rsplit_once(')').ok_or_else(malformed)?;
    let fields: Vec<_> = fields.split_ascii_whitespace().collect();
    let alive = !matches!(fields.first(), Some(&("Z" | "X")) | None);
    let started = fields.get(22 - 3).and_then(|field| field.parse().ok());
    Ok(Some((started.ok_or_else(malformed)?, alive)))
}

/// Whether looking at a process failed because there is none.
fn is_gone(error: &io::Error) -> bool {
    // The second, when it ends between opening and reading (fs/proc/base.c, `proc_single_show`).
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// A process that waits to become a program. If it is dropped, it ends.
#[derive(Debug)]
pub(crate) struct Gated {
    child: Option<Child>,
    identity: Identity,
}

impl Gated {
    /// Starts it in `folder`; what the program complains about goes to `messages`.
    pub(crate) fn start(
        folder: &Path,
        messages: File,
        program: &Path,
        arguments: &[OsString],
    ) -> io::Result<Self> {
        let mut child = Command::new("sh")
            .args(["-c", GATE, "sh"])
            .arg(program)
            .args(arguments)
            // The caller's environment may hold secrets, such as the tokens of a job.
            .env_clear()
            .env("PATH", search_path())
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(messages)
            .current_dir(folder)
            .spawn()?;
        match Identity::of(child.id()) {
            Ok(identity) => Ok(Self {
                child: Some(child),
                identity,
            }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    /// Who it is, and will be.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Lets it become the program, which goes on by itself.
    pub(crate) fn release(mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            go(&mut child)?;
            // Whoever started a process must ask how it ended, or something of it stays.
            thread::Builder::new()
                .name("aicert-reaper".into())
                .spawn(move || child.wait())?;
        }
        Ok(())
    }

    /// Lets it become the program, and waits for its end.
    pub(crate) fn run(mut self) -> io::Result<Option<ExitStatus>> {
        let Some(mut child) = self.child.take() else {
            return Ok(None);
        };
        go(&mut child)?;
        child.wait().map(Some)
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child);
        }
    }
}

fn go(child: &mut Child) -> io::Result<()> {
    match child.stdin.take() {
        Some(mut gate) => gate.write_all(b"go\n"),
        None => Ok(()),
    }
}

/// Ends a process that waits: it hears no word.
fn end(child: &mut Child) {
    drop(child.stdin.take());
    // It fails only when it has been waited for already.
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gated(folder: &Path, program: &str, arguments: &[&str]) -> Gated {
        let messages = File::create(folder.join("messages")).unwrap();
        let arguments: Vec<_> = arguments.iter().map(Into::into).collect();
        Gated::start(folder, messages, Path::new(program), &arguments).unwrap()
    }

    fn wait_until(what: &str, condition: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(Instant::now() < end, "not within 10 s: {what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn nothing_is_started_before_the_word() {
        let folder = tempfile::tempdir().unwrap();
        let process = gated(folder.path(), "touch", &["made"]);
        thread::sleep(Duration::from_millis(50));
        assert!(!folder.path().join("made").exists());
        let identity = process.identity().clone();
        assert!(identity.is_alive().unwrap());
        drop(process);
        assert!(!folder.path().join("made").exists());
        assert!(!identity.is_alive().unwrap());

        assert!(
            gated(folder.path(), "touch", &["made"])
                .run()
                .unwrap()
                .unwrap()
                .success()
        );
        assert!(folder.path().join("made").exists());
    }

    #[test]
    fn it_is_the_same_process_before_and_after_and_in_a_session_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let process = gated(folder.path(), "setsid", &["sleep", "60"]);
        let identity = process.identity().clone();
        process.release().unwrap();
        let path = format!("/proc/{}/cmdline", identity.pid);
        wait_until("it sleeps", || fs::read(&path).unwrap() == b"sleep\x0060\0");
        assert!(identity.is_alive().unwrap());
        let stat = fs::read_to_string(format!("/proc/{}/stat", identity.pid)).unwrap();
        let session = stat.rsplit(')').next().unwrap().split(' ').nth(4).unwrap();
        assert_eq!(session, identity.pid.to_string());
        identity.kill().unwrap();
        assert!(!identity.is_alive().unwrap());
        identity.kill().unwrap();
        wait_until("it is reaped", || fs::read(&path).is_err());
    }

    #[test]
    fn another_process_with_the_same_id_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let process = gated(folder.path(), "sleep", &["60"]);
        let identity = process.identity().clone();
        for other in [
            Identity {
                started: identity.started + 1,
                ..identity.clone()
            },
            Identity {
                boot: "another".into(),
                ..identity.clone()
            },
        ] {
            assert!(!other.is_alive().unwrap());
            other.kill().unwrap();
            assert!(identity.is_alive().unwrap());
        }
        identity.kill().unwrap();
    }

    #[test]
    fn a_process_is_alive_until_it_ends_even_if_nobody_asks_how() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = gated(folder.path(), "true", &[]);
        let identity = process.identity().clone();
        go(process.child.as_mut().unwrap()).unwrap();
        wait_until("it ends", || !identity.is_alive().unwrap());
        assert!(Path::new(&format!("/proc/{}", identity.pid)).exists(), "a zombie");
        identity.kill().unwrap();
        drop(process);
        assert!(Identity::own().unwrap().is_alive().unwrap());
    }
}
