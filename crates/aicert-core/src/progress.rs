//! The one channel on which everything long reports how far it is.

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
}

/// The sending end: cheap to clone, never blocks, never fails.
///
/// The channel is bounded, so that neither a slow terminal nor a chatty job costs memory or time: when its reader
/// falls behind, events are dropped. Nothing that matters depends on them; the job's whole output is in its log file.
#[derive(Debug, Clone, Default)]
pub struct Progress(Option<mpsc::Sender<ProgressEvent>>);

impl Progress {
    /// A channel that holds up to `capacity` events.
    pub fn channel(capacity: usize) -> (Self, mpsc::Receiver<ProgressEvent>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Self(Some(sender)), receiver)
    }

    /// Progress that nobody reads.
    pub fn ignored() -> Self {
        Self(None)
    }

    /// Reports an event.
    pub fn send(&self, event: ProgressEvent) {
        if let Some(sender) = &self.0 {
            let _ = sender.try_send(event);
        }
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
