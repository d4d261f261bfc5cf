//! Why a proof was rejected: for programs a [`Cause`], for people a sentence and what to do.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::attestation::{self, AttestationFault};
use crate::boot::BootFault;
use crate::chain::ChainFault;
use crate::eventlog::EventLogFault;
use crate::input::InputFault;
use crate::key::KeyFault;
use crate::log::LogFault;
use crate::nitro::NitroFault;
use crate::output::OutputFault;
use crate::parse::ParseFault;
use crate::policy::PolicyFault;
use crate::quote::QuoteFault;
use crate::summary::SummaryFault;

/// The steps of verification, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Step {
    /// The file is read within bounds, in its one accepted spelling.
    Parse,
    /// The certificates of the attestation key lead to a trusted root.
    Chain,
    /// The attestation key is one that only signs what its TPM made.
    AttestationKey,
    /// An attestation document, which stands where a quote would where the platform certifies no keys, is one of the
    /// platform's.
    Document,
    /// The quote is signed by that key, or is such a document, and is about this log.
    Quote,
    /// The quote is about this connection, from a machine that nobody has used.
    Attestation,
    /// What firmware measured explains the boot PCRs.
    BootLog,
    /// The log obeys its grammar and explains PCR 14 and 15.
    MeasurementLog,
    /// The file's summaries say what the log says.
    Summaries,
    /// The files on disk are those that were measured.
    Outputs,
    /// An input is the one that was asked about.
    Inputs,
    /// Everything is as the end user's policy demands.
    Policy,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Parse => "reading the file",
            Self::Chain => "certificate chain",
            Self::AttestationKey => "attestation key",
            Self::Quote => "quote",
            Self::Attestation => "attestation",
            Self::BootLog => "boot log",
            Self::MeasurementLog => "measurement log",
            Self::Summaries => "summaries",
            Self::Outputs => "outputs",
            Self::Inputs => "inputs",
            Self::Policy => "policy",
            Self::Document => "attestation document",
        })
    }
}

/// Who has to answer for a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Party {
    /// Whoever ran the job and presents the proof.
    Builder,
    /// Whoever provides the TPM and vouches for it.
    Platform,
    /// The machine that answers, or whoever stands between it and the verifier.
    Machine,
    /// The file, damaged or altered on its way.
    File,
    /// Whoever verifies: something is missing from, or wrong in, what they asked for.
    Verifier,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Builder => "builder",
            Self::Platform => "platform",
            Self::Machine => "machine",
            Self::File => "file",
            Self::Verifier => "verifier",
        })
    }
}

/// Defines the faults of a step: each with its documentation, its fields (expected and found values), the party that
/// has to answer for it, the sentence for people, and what to do.
macro_rules! faults {
    (
        $(#[$meta:meta])*
        enum $enum:ident {
            $(
                $(#[$doc:meta])*
                $variant:ident { $( $(#[$field_doc:meta])* $field:ident: $type:ty ),* $(,)? }
                => $party:ident, $message:literal, $advice:literal;
            )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
        #[non_exhaustive]
        pub enum $enum {
            $( $(#[$doc])* #[error($message)] $variant { $( $(#[$field_doc])* $field: $type ),* }, )*
        }

        impl $enum {
            /// Who has to answer for it.
            pub fn party(&self) -> $crate::error::Party {
                match self { $( Self::$variant { .. } => $crate::error::Party::$party, )* }
            }

            /// What to do about it.
            #[allow(unused_variables, clippy::useless_format)] // not every advice uses every field
            pub fn advice(&self) -> String {
                match self { $( Self::$variant { $($field),* } => format!($advice), )* }
            }

            /// The name of the variant, for programs that do not link this crate.
            pub fn name(&self) -> &'static str {
                match self { $( Self::$variant { .. } => stringify!($variant), )* }
            }
        }
    };
}
pub(crate) use faults;

macro_rules! causes {
    ($( $(#[$doc:meta])* $variant:ident($fault:ty) at $step:ident, )*) => {
        /// What is wrong, for programs: one enumeration for each step, with expected and found values.
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
        #[non_exhaustive]
        pub enum Cause {
            $( $(#[$doc])* #[error(transparent)] $variant(#[from] $fault), )*
        }

        impl Cause {
            /// The step that found it.
            pub fn step(&self) -> Step {
                match self { $( Self::$variant(_) => Step::$step, )* }
            }

            /// Who has to answer for it.
            pub fn party(&self) -> Party {
                match self { $( Self::$variant(fault) => fault.party(), )* }
            }

            /// What to do about it.
            pub fn advice(&self) -> String {
                match self { $( Self::$variant(fault) => fault.advice(), )* }
            }

            /// The name of the fault, for programs that do not link this crate; unique within its step.
            pub fn name(&self) -> &'static str {
                match self { $( Self::$variant(fault) => fault.name(), )* }
            }
        }

        $( impl From<$fault> for Failure {
            fn from(fault: $fault) -> Self {
                Self {
                    cause: fault.into(),
                    subject: Subject::Proof,
                }
            }
        } )*
    };
}

causes! {
    /// In the file as such.
    Parse(ParseFault) at Parse,
    /// In the certificate chain.
    Chain(ChainFault) at Chain,
    /// In the attestation key.
    Key(KeyFault) at AttestationKey,
    /// In the quote.
    Quote(QuoteFault) at Quote,
    /// In what an attestation is about.
    Attestation(AttestationFault) at Attestation,
    /// In the boot log and the boot PCRs.
    Boot(BootFault) at BootLog,
    /// In the boot log itself.
    EventLog(EventLogFault) at BootLog,
    /// In the measurement log.
    Log(LogFault) at MeasurementLog,
    /// In the summaries.
    Summary(SummaryFault) at Summaries,
    /// In the outputs on disk.
    Output(OutputFault) at Outputs,
    /// In an input that was asked about.
    Input(InputFault) at Inputs,
    /// In what the end user demands.
    Policy(PolicyFault) at Policy,
    /// In an attestation document.
    Nitro(NitroFault) at Document,
}

/// One thing that is wrong. Its `Display` is a sentence for people, with expected and found values; text from the
/// file is shown escaped, so that no proof can fool a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    cause: Cause,
    subject: Subject,
}

/// What was verified: it decides who has to answer, and what can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// A proof, or other evidence that is passed on.
    Proof,
    /// A machine that is there and answers.
    Machine,
}

impl Failure {
    /// The step that found it.
    pub fn step(&self) -> Step {
        self.cause.step()
    }

    /// Who has to answer for it.
    pub fn party(&self) -> Party {
        match (self.subject, self.cause.party()) {
            // There is no builder to be suspected by whoever is the builder, and no file.
            (Subject::Machine, Party::Builder | Party::File) => Party::Machine,
            (_, party) => party,
        }
    }

    /// What is wrong, for programs.
    pub fn cause(&self) -> &Cause {
        &self.cause
    }

    /// Says more about a fault of the chain.
    pub(crate) fn explained(self, explain: impl FnOnce(ChainFault) -> ChainFault) -> Self {
        match self.cause {
            Cause::Chain(fault) => Self {
                cause: explain(fault).into(),
                ..self
            },
            _ => self,
        }
    }

    /// What to do about it.
    pub fn advice(&self) -> String {
        match self.subject {
            Subject::Proof => self.cause.advice(),
            Subject::Machine => attestation::advice(&self.cause),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl Serialize for Failure {
    /// As an object with `step`, `party`, `cause`, `message` and `advice`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut object = serializer.serialize_struct("Failure", 5)?;
        object.serialize_field("step", &self.step())?;
        object.serialize_field("party", &self.party())?;
        object.serialize_field("cause", self.cause.name())?;
        object.serialize_field("message", &self.to_string())?;
        object.serialize_field("advice", &self.advice())?;
        object.end()
    }
}

/// Everything that one pass found wrong: never empty, in the order of the steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Rejection {
    failures: Vec<Failure>,
}

impl Rejection {
    /// `Err` with the failures, if there are any.
    pub(crate) fn unless_empty(mut failures: Vec<Failure>) -> Result<(), Self> {
        failures.sort_by_key(Failure::step);
        if failures.is_empty() {
            Ok(())
        } else {
            Err(Self { failures })
        }
    }

    /// Refuses a machine that was to be attested, for these failures.
    pub(crate) fn of_a_machine(mut failures: Vec<Failure>) -> Self {
        failures.sort_by_key(Failure::step);
        for failure in &mut failures {
            failure.subject = Subject::Machine;
        }
        Self { failures }
    }

    /// The failures.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    pub(crate) fn into_failures(self) -> Vec<Failure> {
        self.failures
    }
}

impl From<Failure> for Rejection {
    fn from(failure: Failure) -> Self {
        Self {
            failures: vec![failure],
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it does not hold:")?;
        for failure in &self.failures {
            write!(
                f,
                "\n{} ({}): {failure}. {}",
                failure.step(),
                failure.party(),
                failure.advice()
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for Rejection {}
