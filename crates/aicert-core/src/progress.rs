//! The one channel on which everything long reports how far it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// What a reader of the channel learns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProgressEvent {
    /// A step of the job begins.
    StepStarted {
        /// Which step.
        step: Step,
        /// What is worked on, for people: the name of an input, of an image, …
        subject: String,
    },
    /// A step has got further.
    StepAdvanced {
        /// Which step.
        step: Step,
        /// What is worked on.
        subject: String,
        /// Bytes (or other units of the step) done so far.
        done: u64,
        /// How many there will be, where that is known.
        total: Option<u64>,
    },
    /// A step is done.
    StepFinished {
        /// Which step.
        step: Step,
        /// What was worked on.
        subject: String,
        /// A few words about the result: a commit, a hash, a count.
        detail: String,
    },
    /// A line that the job printed.
    JobOutput {
        /// Whether it came from its standard error.
        is_error: bool,
        /// The text, without line end.
        line: String,
    },
    /// Something the user should know.
    Warning {
        /// What.
        message: String,
    },
}

/// The steps of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// A machine is got ready.
    Machine,
    /// A machine is attested.
    Attest,
    /// Inputs are sent to a machine.
    Send,
    /// An input is fetched and measured.
    Fetch,
    /// A container image is found, pulled or built.
    Image,
    /// Dependencies are resolved, downloaded and measured.
    Dependencies,
    /// The container is built.
    Build,
    /// The job runs.
    Run,
    /// Outputs are measured.
    Outputs,
    /// The TPM signs.
    Quote,
    /// Results come back from a machine.
    Receive,
    /// An image is put where machines are made from.
    Publish,
}

/// The sending end: cheap to clone, never blocks, never fails.
///
/// The channel is bounded, so that neither a slow terminal nor a chatty job costs memory or time: when its reader
/// falls behind, events are dropped. Nothing that matters depends on them; the job's whole output is in its log file.
#[derive(Debug, Clone, Default)]
pub struct Progress(Option<Sender>);

#[derive(Debug, Clone)]
struct Sender {
    events: mpsc::Sender<ProgressEvent>,
    dropped: Arc<AtomicU64>,
}

impl Progress {
    /// A channel that holds up to `capacity` events.
    pub fn channel(capacity: usize) -> (Self, mpsc::Receiver<ProgressEvent>) {
        let (events, receiver) = mpsc::channel(capacity);
        let dropped = Arc::default();
        (Self(Some(Sender { events, dropped })), receiver)
    }

    /// Progress that nobody reads.
    pub fn ignored() -> Self {
        Self(None)
    }

    /// Reports an event.
    pub fn send(&self, event: ProgressEvent) {
        if let Some(Sender { events, dropped }) = &self.0
            && events.try_send(event).is_err()
        {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many events were dropped so far because the reader was behind, or gone.
    pub fn dropped(&self) -> u64 {
        self.0
            .as_ref()
            .map_or(0, |sender| sender.dropped.load(Ordering::Relaxed))
    }

    /// Reports that a step begins.
    pub fn started(&self, step: Step, subject: impl Into<String>) {
        self.send(ProgressEvent::StepStarted {
            step,
            subject: subject.into(),
        });
    }

    /// Reports how far a step is.
    pub fn advanced(&self, step: Step, subject: impl Into<String>, done: u64, total: Option<u64>) {
        self.send(ProgressEvent::StepAdvanced {
            step,
            subject: subject.into(),
            done,
            total,
        });
    }

    /// Reports that a step is done.
    pub fn finished(&self, step: Step, subject: impl Into<String>, detail: impl Into<String>) {
        self.send(ProgressEvent::StepFinished {
            step,
            subject: subject.into(),
            detail: detail.into(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_slow_reader_misses_is_counted() {
        let (progress, mut events) = Progress::channel(2);
        for number in 0..5 {
            progress.clone().advanced(Step::Fetch, "data", number, None);
        }
        assert_eq!(progress.dropped(), 3);
        assert_eq!(std::iter::from_fn(|| events.try_recv().ok()).count(), 2);
        progress.started(Step::Run, "job");
        assert_eq!((progress.dropped(), Progress::ignored().dropped()), (3, 0));
    }
}
