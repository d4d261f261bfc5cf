//! Progress, at a rate that a reader can follow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aicert_core::progress::{Progress, Step};

const STEP_BYTES: u64 = 128 * 1024;

/// Reports bytes of one input.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    progress: Progress,
    subject: Arc<str>,
    reported: Arc<AtomicU64>,
}

impl Reporter {
    pub(crate) fn new(progress: Progress, subject: &str) -> Self {
        Self {
            progress,
            subject: subject.into(),
            reported: Arc::default(),
        }
    }

    /// So many bytes are done; not every call is passed on.
    pub(crate) fn at(&self, done: u64, total: Option<u64>) {
        let reported = self.reported.load(Ordering::Relaxed);
        if done < reported || done - reported >= STEP_BYTES || Some(done) == total {
            self.reported.store(done, Ordering::Relaxed);
            self.progress.advanced(Step::Fetch, &*self.subject, done, total);
        }
    }
}
