//! The measurement log: the only source of truth about a job.

mod content;

use sha2::{Digest as _, Sha256};

use crate::canonical::EncodeError;
use crate::digest::LogHead;
use crate::event::{
    Closed, ContainerBuilt, DependenciesMeasured, Event, EventContent, ExecutionFinished, ExecutionStarted,
    ImageResolved, InputMeasured, JobOpened, JobResult, Machine, OutputsMeasured,
};
use crate::grammar::{GrammarError, Stage};
use crate::time::Timestamp;
use crate::tpm::{PcrBank, PcrIndex};

/// Says why events are no log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// An event may not come where it is.
    #[error(transparent)]
    Grammar(#[from] GrammarError),
    /// Positions have a gap or repeat.
    #[error("event {expected} has the number {found}: events are numbered from 0 without gaps")]
    Sequence {
        /// The position.
        expected: u64,
        /// The number it carries.
        found: u64,
    },
    /// The log ends too early.
    #[error("the log ends after {events} events, where it must go on with {expected}")]
    Incomplete {
        /// How many events there are.
        events: u64,
        /// What should follow.
        expected: &'static str,
    },
    /// An event contradicts itself or another.
    #[error("event {seq} (`{kind}`): {message}")]
    Content {
        /// Its position.
        seq: u64,
        /// Its type.
        kind: &'static str,
        /// What is wrong, with what was expected and found.
        message: String,
    },
}

/// A log that obeys the grammar as far as it goes, and whose events do not contradict each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MeasurementLog {
    events: Vec<Event>,
    stage: Stage,
}

impl MeasurementLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes events over, checking each.
    ///
    /// # Errors
    ///
    /// When their order, numbers or contents are not those of a log.
    pub fn from_events(events: Vec<Event>) -> Result<Self, LogError> {
        let mut log = Self::new();
        for event in events {
            log.push(event)?;
        }
        Ok(log)
    }

    /// The event that `content` would be, if it may come now. The log is not changed: the event is first made durable
    /// and extended, then given to [`MeasurementLog::push`].
    ///
    /// # Errors
    ///
    /// When it may not come now or contradicts the log.
    pub fn next_event(&self, content: EventContent) -> Result<Event, LogError> {
        let event = Event {
            seq: self.events.len() as u64,
            content,
        };
        self.check(&event)?;
        Ok(event)
    }

    /// Appends an event.
    ///
    /// # Errors
    ///
    /// When it may not come now or contradicts the log.
    pub fn push(&mut self, event: Event) -> Result<(), LogError> {
        self.stage = self.check(&event)?;
        self.events.push(event);
        Ok(())
    }

    /// The events.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// How far the log is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// What the events so far make of the job: it succeeded when it exited with 0 and left outputs that are not all
    /// empty; anything else, including that it has not ended, is a failure.
    pub fn result(&self) -> JobResult {
        content::result(&self.events)
    }

    /// The time of the last event that has one.
    pub fn last_time(&self) -> Option<Timestamp> {
        content::last_time(&self.events)
    }

    /// The head of this log: see [`head_of`].
    ///
    /// # Errors
    ///
    /// When an event has no canonical form.
    pub fn head(&self) -> Result<LogHead, EncodeError> {
        head_of(&self.events)
    }

    /// What `pcr` of `bank` holds when it started at zero and every event of the log for it was extended.
    ///
    /// # Errors
    ///
    /// When an event has no canonical form.
    pub fn replay(&self, bank: PcrBank, pcr: PcrIndex) -> Result<Vec<u8>, EncodeError> {
        let zero = vec![0; bank.digest_len()];
        self.events
            .iter()
            .filter(|event| event.content.pcr() == pcr)
            .try_fold(zero, |value, event| Ok(bank.extend(&value, &event.digest(bank)?)))
    }

    /// The parts of a complete log.
    ///
    /// # Errors
    ///
    /// When the log is not closed.
    pub fn complete(&self) -> Result<CompleteLog<'_>, LogError> {
        use EventContent as E;
        let incomplete = || LogError::Incomplete {
            events: self.events.len() as u64,
            expected: self.stage.expects(),
        };
        if self.stage != Stage::Closed {
            return Err(incomplete());
        }
        macro_rules! part {
            ($variant:ident) => {
                self.events
                    .iter()
                    .find_map(|event| match &event.content {
                        E::$variant(content) => Some(content),
                        _ => None,
                    })
                    .ok_or_else(incomplete)?
            };
        }
        Ok(CompleteLog {
            opened: part!(JobOpened),
            machine: part!(Machine),
            inputs: self.inputs().collect(),
            image: part!(ImageResolved),
            dependencies: part!(DependenciesMeasured),
            built: part!(ContainerBuilt),
            started: part!(ExecutionStarted),
            finished: part!(ExecutionFinished),
            outputs: part!(OutputsMeasured),
            closed: part!(Closed),
        })
    }

    fn inputs(&self) -> impl Iterator<Item = &InputMeasured> {
        self.events.iter().filter_map(|event| match &event.content {
            EventContent::InputMeasured(input) => Some(input),
            _ => None,
        })
    }

    /// Checks everything that can be said of an event at the end of this log.
    fn check(&self, event: &Event) -> Result<Stage, LogError> {
        let expected = self.events.len() as u64;
        if event.seq != expected {
            return Err(LogError::Sequence {
                expected,
                found: event.seq,
            });
        }
        let stage = self.stage.after(event.seq, &event.content)?;
        content::check(&self.events, &event.content).map_err(|message| LogError::Content {
            seq: event.seq,
            kind: event.content.type_name(),
            message,
        })?;
        Ok(stage)
    }
}

/// SHA-256 over the SHA-256 digests of all events, in order, whether or not they obey the grammar.
///
/// # Errors
///
/// When an event has no canonical form.
pub fn head_of(events: &[Event]) -> Result<LogHead, EncodeError> {
    let mut hasher = Sha256::new();
    for event in events {
        hasher.update(event.digest(PcrBank::Sha256)?);
    }
    Ok(LogHead::from_bytes(hasher.finalize().into()))
}

/// The parts of a complete log.
#[derive(Debug, Clone)]
pub struct CompleteLog<'a> {
    /// How the job was opened.
    pub opened: &'a JobOpened,
    /// The machine.
    pub machine: &'a Machine,
    /// The inputs, in the order of the configuration.
    pub inputs: Vec<&'a InputMeasured>,
    /// The base image.
    pub image: &'a ImageResolved,
    /// The packages.
    pub dependencies: &'a DependenciesMeasured,
    /// The image that ran.
    pub built: &'a ContainerBuilt,
    /// How the job was started.
    pub started: &'a ExecutionStarted,
    /// How it ended.
    pub finished: &'a ExecutionFinished,
    /// What it left.
    pub outputs: &'a OutputsMeasured,
    /// The result.
    pub closed: &'a Closed,
}

#[cfg(test)]
pub(crate) mod tests;
