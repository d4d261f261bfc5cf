//! Waiting, and trying again.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// How something is waited for: the first pause, how long pauses become, and when patience ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The first pause; each is twice the one before.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// How long all of it may take.
    pub limit: Duration,
}

/// An error of which it is known whether the same request may succeed later.
pub trait Transient {
    /// When to try again; never, when nothing is said.
    fn again(&self) -> Option<Again>;
}

/// When to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// After the usual pause.
    Soon,
    /// Not before that (`Retry-After`, RFC 9110, section 10.2.3).
    After(Duration),
}

/// Why waiting has ended.
#[derive(Debug)]
pub enum WaitError<E> {
    /// An error that no patience mends; or the last one before patience ended.
    Failed(E),
    /// Patience has ended, and there was no error.
    TooLong {
        /// How long it was waited.
        waited: Duration,
    },
}

impl Pace {
    /// A pace from its three durations, in the order of the fields.
    pub const fn new(first: Duration, longest: Duration, limit: Duration) -> Self {
        Self {
            first,
            longest,
            limit,
        }
    }

    /// Asks until there is an answer, and through errors that pass.
    ///
    /// What `ask` changes is to be in a cell: futures that borrow from their closure are not known to be `Send`.
    ///
    /// # Errors
    ///
    /// When an error does not pass, or patience ends.
    pub async fn until<T, E: Transient, F>(&self, mut ask: impl FnMut() -> F) -> Result<T, WaitError<E>>
    where
        F: Future<Output = Result<Option<T>, E>>,
    {
        let start = Instant::now();
        let end = start + self.limit;
        let mut pause = self.first;
        let mut last = None;
        loop {
            let wait = match timeout_at(end, ask()).await {
                Ok(Ok(Some(answer))) => return Ok(answer),
                Ok(Ok(None)) => {
                    last = None;
                    pause
                }
                Ok(Err(error)) => match error.again() {
                    None => return Err(WaitError::Failed(error)),
                    Some(again) => {
                        last = Some(error);
                        match again {
                            Again::Soon => pause,
                            Again::After(at_least) => at_least.max(pause),
                        }
                    }
                },
                Err(_) => Duration::ZERO,
            };
            if Instant::now() + wait >= end {
                let waited = start.elapsed();
                return Err(last.map_or(WaitError::TooLong { waited }, WaitError::Failed));
            }
            sleep(wait).await;
            pause = (pause * 2).min(self.longest);
        }
    }

    /// Tries until it succeeds, through errors that pass. What is tried must be idempotent.
    ///
    /// # Errors
    ///
    /// When an error does not pass, or patience ends.
    pub async fn retry<T, E: Transient, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T, WaitError<E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        self.until(|| {
            let attempt = attempt();
            async { attempt.await.map(Some) }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const PACE: Pace = Pace {
        first: Duration::from_secs(1),
        longest: Duration::from_secs(4),
        limit: Duration::from_secs(30),
    };

    #[derive(Debug, PartialEq)]
    struct Fault(Option<Again>);

    impl Transient for Fault {
        fn again(&self) -> Option<Again> {
            self.0
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_end() {
        let start = Instant::now();
        let asked = RefCell::new(Vec::new());
        let result: Result<(), _> = PACE
            .until(|| async {
                asked.borrow_mut().push(start.elapsed().as_secs());
                Ok::<_, Fault>(None)
            })
            .await;
        assert!(matches!(result, Err(WaitError::TooLong { .. })));
        assert_eq!(asked.into_inner(), [0, 1, 3, 7, 11, 15, 19, 23, 27]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_tried_again_when_it_says() {
        let start = Instant::now();
        let answers = RefCell::new(vec![
            Ok(7),
            Err(Fault(Some(Again::Soon))),
            Err(Fault(Some(Again::After(Duration::from_secs(9))))),
        ]);
        let result = PACE.retry(|| async { answers.borrow_mut().pop().unwrap() }).await;
        assert!(matches!(result, Ok(7)));
        assert_eq!(start.elapsed().as_secs(), 9 + 2);
        let result: Result<(), _> = PACE.retry(|| async { Err(Fault(None)) }).await;
        assert!(matches!(result, Err(WaitError::Failed(Fault(None)))));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_outlasts_patience() {
        let start = Instant::now();
        let result: Result<(), _> = PACE
            .retry(|| async {
                sleep(Duration::from_secs(1000)).await;
                Err(Fault(None))
            })
            .await;
        assert!(matches!(result, Err(WaitError::TooLong { .. })));
        assert_eq!(start.elapsed(), PACE.limit);
        // Told to come back after the end.
        let result: Result<(), _> = PACE
            .retry(|| async { Err(Fault(Some(Again::After(Duration::from_secs(60))))) })
            .await;
        assert!(matches!(result, Err(WaitError::Failed(_))));
    }
}
