//! Telling people that a cloud is waited for.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aicert_core::progress::{Progress, ProgressEvent};
use tokio::time::Instant;

use crate::pace::{Again, Pace, Transient, WaitError};

/// Between two things that are told, however many requests are tried again.
const BETWEEN: Duration = Duration::from_secs(60);

/// A wait that is told of at once: whoever asks for so much is not only busy for a moment.
const LONG: Duration = Duration::from_secs(5);

/// Carries requests through errors that pass. When that is not done in a moment, somebody is told, once a minute at most; copies
/// share that minute.
#[derive(Debug, Clone)]
pub struct Waits {
    progress: Progress,
    told: Arc<Mutex<Option<Instant>>>,
}

impl Waits {
    /// Tells nobody.
    pub fn silent() -> Self {
        Self::told_to(&Progress::ignored())
    }

    /// Tells there.
    pub fn told_to(progress: &Progress) -> Self {
        Self {
            progress: progress.clone(),
            told: Arc::default(),
        }
    }

    /// Tries at a pace until it succeeds, as [`Pace::retry`] does.
    ///
    /// # Errors
    ///
    /// When an error does not pass, or patience ends.
    pub async fn retry<T, E, F>(&self, pace: Pace, mut attempt: impl FnMut() -> F) -> Result<T, WaitError<E>>
    where
        E: Transient + fmt::Display,
        F: Future<Output = Result<T, E>>,
    {
        let failed = AtomicU32::new(0);
        pace.retry(|| {
            let attempt = attempt();
            async {
                attempt.await.inspect_err(|error| {
                    let earlier = failed.fetch_add(1, Ordering::Relaxed);
                    self.tell(error, earlier, pace.limit);
                })
            }
        })
        .await
    }

    /// The first error of a request is nobody's business, if it is not to be waited for long.
    fn tell<E: Transient + fmt::Display>(&self, error: &E, earlier: u32, limit: Duration) {
        let is_long = match error.again() {
            None => return,
            Some(Again::After(wait)) => wait >= LONG,
            Some(Again::Soon) => false,
        };
        if earlier == 0 && !is_long {
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= BETWEEN) {
            *told = Some(Instant::now());
            let limit = limit.as_secs();
            self.progress.send(ProgressEvent::Warning {
                message: format!("{error}; this passes as a rule, and is tried again for {limit} s at most"),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy)]
    struct Busy(Option<Again>);

    impl fmt::Display for Busy {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("busy")
        }
    }

    impl Transient for Busy {
        fn again(&self) -> Option<Again> {
            self.0
        }
    }

    /// How often somebody is told when a request fails so, and then succeeds.
    async fn told(failures: &[Busy], requests: usize) -> usize {
        let (progress, mut events) = Progress::channel(100);
        let waits = Waits::told_to(&progress);
        let pace = Pace::new(
            Duration::from_secs(1),
            Duration::from_secs(1),
            Duration::from_secs(1000),
        );
        for _ in 0..requests {
            let left = Mutex::new(failures.iter());
            let _ = waits
                .retry(pace, || async {
                    let next = left.lock().unwrap().next();
                    next.map_or(Ok(()), |busy| Err(*busy))
                })
                .await;
        }
        std::iter::from_fn(|| events.try_recv().ok()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_is_told_of_when_it_takes_a_while_and_not_all_the_time() {
        let soon = Busy(Some(Again::Soon));
        let after = |seconds| Busy(Some(Again::After(Duration::from_secs(seconds))));
        assert_eq!(told(&[soon], 3).await, 0);
        assert_eq!(told(&[after(1)], 3).await, 0);
        assert_eq!(told(&[after(5)], 1).await, 1);
        assert_eq!(told(&[soon, soon], 1).await, 1);
        assert_eq!(told(&[soon, soon], 10).await, 1);
        assert_eq!(told(&[soon; 150], 1).await, 3);
        // What does not pass is an error, and told by whoever gets it.
        assert_eq!(told(&[Busy(None)], 5).await, 0);
        assert_eq!(told(&[soon, Busy(None)], 1).await, 0);
    }
}
