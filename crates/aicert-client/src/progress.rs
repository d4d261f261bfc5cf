//! Reporting how far a transfer is, often enough and not more often.

use std::time::{Duration, Instant};

use aicert_core::progress::{Progress, Step};

/// The channel is for people: more reports would only push others out.
const PAUSE: Duration = Duration::from_millis(100);

/// Reports how far one transfer is.
#[derive(Debug)]
pub(crate) struct Meter {
    progress: Progress,
    step: Step,
    subject: String,
    total: u64,
    last: Option<Instant>,
}

impl Meter {
    /// Reports that the transfer begins.
    pub(crate) fn start(progress: &Progress, step: Step, subject: &str, total: u64) -> Self {
        progress.started(step, subject);
        Self {
            progress: progress.clone(),
            step,
            subject: subject.to_owned(),
            total,
            last: None,
        }
    }

    /// So many bytes are done.
    pub(crate) fn at(&mut self, done: u64) {
        if self.last.is_none_or(|last| last.elapsed() >= PAUSE) {
            self.last = Some(Instant::now());
            self.progress
                .advanced(self.step, &*self.subject, done, Some(self.total));
        }
    }

    /// It is done.
    pub(crate) fn finish(self, detail: impl Into<String>) {
        self.progress
            .advanced(self.step, &*self.subject, self.total, Some(self.total));
        self.progress.finished(self.step, self.subject, detail);
    }
}

/// A number of bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    #[allow(clippy::cast_precision_loss)] // two digits are shown
    let mut value = bytes as f64;
    let mut unit = UNITS[0];
    for next in UNITS {
        value /= 1024.0;
        unit = next;
        if value < 1024.0 {
            break;
        }
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (3 << 29, "1.5 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
