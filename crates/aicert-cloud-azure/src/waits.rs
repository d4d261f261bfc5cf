//! Telling people that Azure is waited for.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aicert_cloud_common::{Again, Pace, Transient as _};
use aicert_core::progress::{Progress, ProgressEvent};

use crate::error::Failure;

/// Between two things that are told, however many requests are tried again.
const BETWEEN: Duration = Duration::from_secs(60);

/// A wait that is told of at once: whoever asks for so much is not only busy for a moment.
const LONG: Duration = Duration::from_secs(5);

/// Carries requests through errors that pass; when that is not done in a moment, somebody is told.
#[derive(Debug, Clone)]
pub(crate) struct Waits {
    pace: Pace,
    progress: Progress,
    last: Arc<Mutex<Option<Instant>>>,
}

impl Waits {
    /// Tells nobody.
    pub(crate) fn new(pace: Pace) -> Self {
        Self::telling(pace, &Progress::ignored())
    }

    pub(crate) fn telling(pace: Pace, progress: &Progress) -> Self {
        Self {
            pace,
            progress: progress.clone(),
            last: Arc::default(),
        }
    }

    /// Tries until it succeeds, through errors that pass. All requests here may be sent twice.
    pub(crate) async fn retry<T, F>(
        &self,
        what: impl Into<String>,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let failed = AtomicU32::new(0);
        self.pace
            .retry(|| {
                let attempt = attempt();
                async { attempt.await.inspect_err(|failure| self.tell(failure, &failed)) }
            })
            .await
            .map_err(Failure::waiting(what))
    }

    /// The first error of a request is nobody's business, if it is not to be waited for long.
    fn tell(&self, failure: &Failure, failed: &AtomicU32) {
        let is_long = match failure.again() {
            None => return,
            Some(Again::After(wait)) => wait >= LONG,
            Some(Again::Soon) => false,
        };
        if failed.fetch_add(1, Ordering::Relaxed) == 0 && !is_long {
            return;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|at| at.elapsed() >= BETWEEN) {
            *last = Some(Instant::now());
            self.progress.send(ProgressEvent::Warning {
                message: format!(
                    "{failure}; this passes as a rule, and is tried again for {} s at most",
                    self.pace.limit.as_secs()
                ),
            });
        }
    }
}
