//! The order that events come in, as a state machine.

use crate::event::EventContent;

/// How far a log is. Starts at [`Stage::Empty`]; a complete log is at [`Stage::Closed`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// No event yet.
    #[default]
    Empty,
    /// `job_opened` is in.
    Opened,
    /// `machine` is in.
    Machine,
    /// At least one `input_measured` is in.
    Inputs,
    /// `image_resolved` is in.
    Image,
    /// `dependencies_measured` is in.
    Dependencies,
    /// `container_built` is in.
    Built,
    /// `sealed` is in: PCR 14 is final.
    Sealed,
    /// `execution_started` is in.
    Started,
    /// `execution_finished` is in.
    Finished,
    /// `outputs_measured` is in.
    Outputs,
    /// `closed` is in: the log is complete.
    Closed,
}

/// Says that an event may not come here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {seq} is `{found}`, where the log may only go on with {expected}")]
pub struct GrammarError {
    /// Its position.
    pub seq: u64,
    /// Its type.
    pub found: &'static str,
    /// What could have come.
    pub expected: &'static str,
}

impl Stage {
    /// The stage after an event at position `seq`.
    ///
    /// # Errors
    ///
    /// When an event of this type may not come now.
    pub fn after(self, seq: u64, event: &EventContent) -> Result<Self, GrammarError> {
        use EventContent as E;
        Ok(match (self, event) {
            (Self::Empty, E::JobOpened(_)) => Self::Opened,
            (Self::Opened, E::Machine(_)) => Self::Machine,
            (Self::Machine | Self::Inputs, E::InputMeasured(_)) => Self::Inputs,
            (Self::Inputs, E::ImageResolved(_)) => Self::Image,
            (Self::Image, E::DependenciesMeasured(_)) => Self::Dependencies,
            (Self::Dependencies, E::ContainerBuilt(_)) => Self::Built,
            (Self::Built, E::Sealed(_)) => Self::Sealed,
            (Self::Sealed, E::ExecutionStarted(_)) => Self::Started,
            (Self::Started, E::ExecutionFinished(_)) => Self::Finished,
            (Self::Finished, E::OutputsMeasured(_)) => Self::Outputs,
            (Self::Outputs, E::Closed(_)) => Self::Closed,
            _ => {
                return Err(GrammarError {
                    seq,
                    found: event.type_name(),
                    expected: self.expects(),
                });
            }
        })
    }

    /// What may come next, in words.
    pub fn expects(self) -> &'static str {
        match self {
            Self::Empty => "`job_opened`",
            Self::Opened => "`machine`",
            Self::Machine => "`input_measured`",
            Self::Inputs => "`input_measured` or `image_resolved`",
            Self::Image => "`dependencies_measured`",
            Self::Dependencies => "`container_built`",
            Self::Built => "`sealed`",
            Self::Sealed => "`execution_started`",
            Self::Started => "`execution_finished`",
            Self::Finished => "`outputs_measured`",
            Self::Outputs => "`closed`",
            Self::Closed => "nothing: it is closed",
        }
    }
}
