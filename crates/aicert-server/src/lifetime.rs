//! The hard end of a machine, which holds for whatever runs: nobody may have to remember it.

use std::time::Duration;

use aicert_core::api::StreamEvent;
use aicert_core::progress::ProgressEvent;
use tokio::time::{Instant, sleep_until};

use crate::App;

/// How long before the end whoever listens is told.
const WARNINGS: [Duration; 3] = [
    Duration::from_secs(60 * 60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(60),
];

/// Returns when the machine's lifetime is over; never when it has none. Says some time before in the job's events that it will be.
pub(crate) async fn over(app: &App) {
    let Some(seconds) = app.provisioning.lifetime_seconds else {
        return std::future::pending().await;
    };
    let lifetime = Duration::from_secs(seconds);
    let begin = Instant::now();
    for left in warnings(lifetime) {
        sleep_until(begin + (lifetime - left)).await;
        let message = format!(
            "the machine ends in {}, whatever runs then: its lifetime of {} is over",
            in_words(left),
            in_words(lifetime)
        );
        tracing::warn!(message);
        if let Some(job) = app.jobs.current() {
            let event = ProgressEvent::Warning { message };
            job.events.push([StreamEvent::Progress { event }]);
        }
    }
    sleep_until(begin + lifetime).await;
}

/// When to warn: how long before the end, in the order in which that comes.
fn warnings(lifetime: Duration) -> Vec<Duration> {
    let mut warnings = WARNINGS.to_vec();
    warnings.retain(|left| *left < lifetime);
    if warnings.is_empty() {
        warnings.push(lifetime / 2);
    }
    warnings
}

fn in_words(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds >= 120 && seconds % 60 == 0 => format!("{} minutes", seconds / 60),
        60 => "a minute".into(),
        1 => "a second".into(),
        seconds => format!("{seconds} seconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_always_a_warning() {
        let warned = |seconds| -> Vec<u64> {
            let warnings = warnings(Duration::from_secs(seconds));
            warnings.iter().map(Duration::as_secs).collect()
        };
        assert_eq!(warned(24 * 60 * 60), [3600, 600, 60]);
        assert_eq!(warned(3600), [600, 60]);
        assert_eq!(warned(60), [30]);
        assert_eq!(warned(1), [0]);
        assert_eq!(in_words(Duration::from_secs(3600)), "60 minutes");
        assert_eq!(in_words(Duration::from_secs(60)), "a minute");
        assert_eq!(in_words(Duration::from_secs(61)), "61 seconds");
    }
}
