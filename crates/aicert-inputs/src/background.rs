//! Blocking work in a thread of its own, which stops soon after nobody waits for it any more.
//!
//! A plain thread rather than the async runtime's pool: a runtime waits for its pool when it shuts down, and a server
//! that has gone silent would hold up the end of the program.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aicert_core::input::{InputError, InputErrorKind};
use tokio::sync::oneshot;

use crate::error::{cancelled, storage};

/// What the work is told, and tells.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signals {
    cancelled: Arc<AtomicBool>,
    beats: Arc<AtomicU64>,
}

impl Signals {
    /// The flag that says that the work is no longer wanted.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.cancelled
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Says that the work goes on. Returns whether it should.
    pub(crate) fn beat(&self) -> bool {
        self.beats.fetch_add(1, Ordering::Relaxed);
        !self.is_cancelled()
    }

    /// [`Signals::beat`], as an error when the work should stop.
    pub(crate) fn check(&self) -> Result<(), InputError> {
        if self.beat() { Ok(()) } else { Err(cancelled()) }
    }
}

/// Removes what was made at a path unless it is kept.
#[derive(Debug)]
pub(crate) struct Unfinished(Option<PathBuf>);

impl Unfinished {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(Some(path))
    }

    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            remove(&path);
        }
    }
}

fn remove(path: &Path) {
    let _ = match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(_) => return,
    };
}

/// Runs `work`, which makes something at `target`. When it fails, and when nobody waits for it any more, nothing
/// remains there. When it gives no sign of life for `idle`, it is given up.
pub(crate) async fn make<T: Send + 'static>(
    target: &Path,
    idle: Option<Duration>,
    work: impl FnOnce(&Signals) -> Result<T, InputError> + Send + 'static,
) -> Result<T, InputError> {
    let signals = Signals::default();
    let _stop = StopOnDrop(signals.clone());
    let unfinished = Unfinished::new(target.to_owned());
    let (sender, mut receiver) = oneshot::channel();
    let in_thread = signals.clone();
    std::thread::Builder::new()
        .name("aicert-input".into())
        .spawn(move || {
            // The guard travels with the result: whoever drops it undelivered also removes what was made.
            let result = in_thread
                .check()
                .and_then(|()| work(&in_thread))
                .map(|made| (made, unfinished));
            let _ = sender.send(result);
        })
        .map_err(|error| storage("start a thread for", target, error))?;

    let lost = || {
        InputError::new(
            InputErrorKind::Storage,
            "the work on this input ended without a result",
        )
    };
    let Some(idle) = idle else {
        let (made, unfinished) = receiver.await.map_err(|_| lost())??;
        unfinished.keep();
        return Ok(made);
    };
    let mut last = signals.beats.load(Ordering::Relaxed);
    loop {
        tokio::select! {
            biased;
            result = &mut receiver => {
                let (made, unfinished) = result.map_err(|_| lost())??;
                unfinished.keep();
                return Ok(made);
            }
            () = tokio::time::sleep(idle) => {
                let now = signals.beats.load(Ordering::Relaxed);
                if now == last {
                    remove(target);
                    return Err(InputError::new(
                        InputErrorKind::Network,
                        format!("the other side sent nothing for {} seconds", idle.as_secs()),
                    )
                    .with_advice("check the address, the network and the proxy, then try again")
                    .retryable());
                }
                last = now;
            }
        }
    }
}

struct StopOnDrop(Signals);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }
}
