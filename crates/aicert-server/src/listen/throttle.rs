//! Saying something not more often than now and then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets one through in each period, and counts the others.
#[derive(Debug)]
pub(crate) struct Throttle {
    period: Duration,
    state: Mutex<(Option<Instant>, u64)>,
}

impl Throttle {
    pub(crate) fn new(period: Duration) -> Self {
        Self {
            period,
            state: Mutex::new((None, 0)),
        }
    }

    /// Something happened: how many times it was not let through since the last time, when it is let through.
    pub(crate) fn note(&self) -> Option<u64> {
        let now = Instant::now();
        // Nothing panics while it is held.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0.is_some_and(|last| now.duration_since(last) < self.period) {
            state.1 += 1;
            return None;
        }
        state.0 = Some(now);
        Some(std::mem::take(&mut state.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_period_and_the_number_of_the_others() {
        let throttle = Throttle::new(Duration::from_millis(50));
        assert_eq!(
            [throttle.note(), throttle.note(), throttle.note()],
            [Some(0), None, None]
        );
        std::thread::sleep(Duration::from_millis(60));
        assert_eq!([throttle.note(), throttle.note()], [Some(2), None]);
    }
}
