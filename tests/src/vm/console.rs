//! What machines write to their consoles, also after they are gone.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often consoles are looked at.
const PERIOD: Duration = Duration::from_millis(50);

/// What is said on the way up, in order: by the firmware, the kernel, init, the server.
const MILESTONES: [(&str, &str); 5] = [
    ("firmware", "BdsDxe"),
    ("kernel", "EFI stub"),
    ("initrd", "stage 1"),
    ("root file system", "stage 2"),
    ("server", "aicert-server: ready"),
];

/// Reads consoles for as long as it lives.
#[derive(Debug)]
pub struct Consoles {
    seen: Arc<Mutex<BTreeMap<PathBuf, Console>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Console {
    since: Instant,
    offset: u64,
    text: String,
    reached: Vec<(&'static str, Duration)>,
}

impl Consoles {
    /// Watches the machines of a provider.
    pub(super) fn watch(machines: &Path) -> Self {
        let seen = Arc::<Mutex<BTreeMap<_, _>>>::default();
        let stop = Arc::<AtomicBool>::default();
        let (map, stopped, machines) = (Arc::clone(&seen), Arc::clone(&stop), machines.to_owned());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                look(&machines, &mut lock(&map));
                thread::sleep(PERIOD);
            }
        });
        Self {
            seen,
            stop,
            thread: Some(thread),
        }
    }

    /// All that was written, machine after machine.
    pub fn text(&self) -> String {
        lock(&self.seen)
            .values()
            .map(|console| console.text.as_str())
            .collect()
    }

    /// How long after it was made each machine reached what, for people.
    pub fn milestones(&self) -> String {
        let consoles = lock(&self.seen);
        let lines = consoles.values().map(|console| {
            let reached = console.reached.iter();
            let reached: Vec<_> = reached
                .map(|(name, after)| format!("{name} {:.1} s", after.as_secs_f64()))
                .collect();
            reached.join(", ")
        });
        lines.collect::<Vec<_>>().join("; ")
    }

    /// The last lines of each.
    pub(super) fn end(&self, lines: usize) -> String {
        let consoles = lock(&self.seen);
        let shown = consoles.iter().map(|(path, console)| {
            let all: Vec<_> = console.text.lines().collect();
            let last = all[all.len().saturating_sub(lines)..].join("\n");
            format!("-- the console {}, at its end:\n{last}\n", path.display())
        });
        shown.collect()
    }
}

impl Drop for Consoles {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(map: &Mutex<BTreeMap<PathBuf, Console>>) -> MutexGuard<'_, BTreeMap<PathBuf, Console>> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look(machines: &Path, seen: &mut BTreeMap<PathBuf, Console>) {
    let folders = fs::read_dir(machines).into_iter().flatten().flatten();
    for path in folders.map(|folder| folder.path().join("console.log")) {
        let Ok(mut file) = File::open(&path) else { continue };
        let console = seen.entry(path).or_insert_with(|| Console {
            since: Instant::now(),
            offset: 0,
            text: String::new(),
            reached: Vec::new(),
        });
        let mut new = Vec::new();
        if file.seek(SeekFrom::Start(console.offset)).is_err() || file.read_to_end(&mut new).is_err() {
            continue;
        }
        console.offset += new.len() as u64;
        console.text.push_str(&plain(&new));
        for (name, words) in &MILESTONES[console.reached.len()..] {
            // In order, so that a second boot does not count.
            if !console.text.contains(words) {
                break;
            }
            console.reached.push((name, console.since.elapsed()));
        }
    }
}

/// Text that does nothing to a terminal.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars()
        .filter(|character| *character == '\n' || !character.is_control())
        .collect()
}
