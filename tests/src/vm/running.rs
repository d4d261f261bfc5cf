//! The command while it runs.

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::scene::Ended;

/// How often the memory of the command is looked at.
const PERIOD: Duration = Duration::from_millis(20);

/// A command that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Captured,
    stderr: Captured,
    peak: Arc<AtomicU64>,
}

impl Running {
    pub(super) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let stdout = Captured::of(child.stdout.take().expect("it is a pipe"));
        let stderr = Captured::of(child.stderr.take().expect("it is a pipe"));
        let peak = Arc::<AtomicU64>::default();
        let (pid, memory) = (child.id(), Arc::clone(&peak));
        thread::spawn(move || {
            while let Some(bytes) = peak_memory(pid) {
                memory.fetch_max(bytes, Ordering::Relaxed);
                thread::sleep(PERIOD);
            }
        });
        Self {
            child,
            stdout,
            stderr,
            peak,
        }
    }

    /// What it has printed so far.
    pub fn printed(&self) -> String {
        format!("{}{}", self.stdout.text(), self.stderr.text())
    }

    /// The most memory that it has had, in bytes.
    pub fn peak_memory(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.peak)
    }

    /// Waits until something is there while the command runs.
    ///
    /// # Panics
    ///
    /// When it is not in time, or the command ends before.
    #[track_caller]
    pub fn until<T>(&mut self, what: &str, limit: Duration, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let end = Instant::now() + limit;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                self.finish_reading();
                panic!("the command ended ({status}) before {what}:\n{}", self.printed());
            }
            assert!(
                Instant::now() < end,
                "not within {} s: {what}\n{}",
                limit.as_secs(),
                self.printed()
            );
            // Short, because what is waited for may be over in milliseconds.
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Kills it, as nothing can prevent.
    pub fn kill(mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.finish_reading();
        self.printed()
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// When it does not end in time.
    #[track_caller]
    pub fn wait(mut self, limit: Duration) -> Ended {
        let end = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                break status;
            }
            assert!(
                Instant::now() < end,
                "the command still runs after {} s:\n{}",
                limit.as_secs(),
                self.printed()
            );
            thread::sleep(Duration::from_millis(10));
        };
        self.finish_reading();
        Ended {
            code: status.code(),
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
        }
    }

    fn finish_reading(&mut self) {
        self.stdout.finish();
        self.stderr.finish();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let _ = writeln!(
                std::io::stderr(),
                "-- the command has printed:\n{}",
                self.printed()
            );
        }
    }
}

/// What comes out of a pipe.
#[derive(Debug)]
struct Captured {
    text: Arc<Mutex<String>>,
    thread: Option<JoinHandle<()>>,
}

impl Captured {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::<Mutex<String>>::default();
        let into = Arc::clone(&text);
        let thread = thread::spawn(move || {
            let mut reader = BufReader::new(pipe);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                let mut text = into.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Self {
            text,
            thread: Some(thread),
        }
    }

    fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn finish(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The most memory that a process has had (proc(5), `VmHWM`); nothing when it has ended.
fn peak_memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
