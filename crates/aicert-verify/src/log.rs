//! Step 7: the measurement log obeys its grammar, and explains PCR 14 and PCR 15 from zero on.

mod machine;

use aicert_core::digest::BootLogDigest;
use aicert_core::event::{Event, EventContent, ExecutionOutcome, JobResult};
use aicert_core::log::{CompleteLog, LogError, MeasurementLog};
use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues};

use crate::boot::ExplainedBoot;
use crate::error::faults;

faults! {
    /// Says what is wrong with the measurement log.
    enum LogFault {
        /// An event may not come where it stands.
        Order {
            /// Its position.
            seq: u64,
            /// What may come there.
            expected: &'static str,
            /// Its type.
            found: &'static str,
        } => Builder, "event {seq} is `{found}`, where the log may only go on with {expected}", "do not believe this proof: no run of a job leaves such a log";
        /// Positions have a gap or repeat.
        Sequence {
            /// The position.
            expected: u64,
            /// The number that the event carries.
            found: u64,
        } => File, "event {expected} has the number {found}: events are numbered from 0 without gaps", "do not believe this proof: an event was taken out, added or moved";
        /// The log ends too early.
        Incomplete {
            /// How many events there are.
            found: u64,
            /// What should follow.
            expected: &'static str,
        } => Builder, "the log ends after {found} events, where it must go on with {expected}", "do not believe this proof: the job was not recorded to its end";
        /// An event contradicts itself or another.
        Content {
            /// Its position.
            seq: u64,
            /// Its type.
            kind: &'static str,
            /// What is wrong, with what was expected and found.
            message: String,
        } => Builder, "event {seq} (`{kind}`): {message}", "do not believe this proof: what it says contradicts itself";
        /// An event cannot be encoded, and so has no digest.
        NotEncodable {
            /// Why.
            reason: String,
        } => File, "an event has no digest: {reason}", "get the proof again from whoever published it";
        /// Events were not extended into the bank that was quoted.
        BankNotOpened {
            /// The banks that the log was extended into.
            expected: String,
            /// The bank that was quoted.
            found: PcrBank,
        } => Builder, "the quote is over the bank {found}; the log was extended into {expected}", "do not believe this proof: a bank is shown that the job's events did not go into";
        /// The log does not give the value of the PCR.
        Replay {
            /// Which PCR.
            pcr: PcrIndex,
            /// What the log gives, from zero on; hexadecimal.
            expected: String,
            /// What the quote shows; hexadecimal.
            found: String,
        } => Builder, "PCR {pcr} is {found} in the quote; from the log follows {expected}: the log was altered, or the PCR was not zero when the job was opened, or something else was extended into it", "do not believe this proof: the log is not what the TPM recorded";
        /// The boot log in the file is not the one that the machine had.
        AnotherBootLog {
            /// What `job_opened` recorded.
            expected: BootLogDigest,
            /// That of the boot log in the file.
            found: BootLogDigest,
        } => Builder, "the boot log in the file is {found}; when the job was opened, the machine had {expected}", "do not believe this proof: the boot log was altered";
        /// The machine is said to be somebody's who does not vouch for its TPM.
        AnotherProvider {
            /// Who is said to provide the machine.
            said: String,
            /// What vouches for its TPM.
            found: &'static str,
        } => Builder, "the machine is said to be provided by {said:?}; what vouches for its TPM is {found}", "do not believe this proof: it says of its machine what is not so";
        /// The machine is said to be where it is not.
        AnotherRegion {
            /// Where it is said to be.
            said: String,
            /// The zone or region that its certificate names.
            found: String,
        } => Builder, "the machine is said to be in {said:?}; its certificate is for one in {found:?}", "do not believe this proof: it says of its machine what is not so";
        /// The quote is about other events.
        AnotherLog {} => File, "the quote was bound to other events than these", "verify the events that the quote is about";
        /// The job did not succeed.
        JobFailed {
            /// How it ended, in words.
            found: String,
        } => Builder, "the job failed ({found}): what it left is not certified as a model", "ask the builder for the proof of a run that succeeded; this one can be inspected, and says truly that it failed";
    }
}

impl From<LogError> for LogFault {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Grammar(error) => Self::Order {
                seq: error.seq,
                expected: error.expected,
                found: error.found,
            },
            LogError::Sequence { expected, found } => Self::Sequence { expected, found },
            LogError::Incomplete { events, expected } => Self::Incomplete {
                found: events,
                expected,
            },
            LogError::Content { seq, kind, message } => Self::Content { seq, kind, message },
            other => Self::NotEncodable {
                reason: other.to_string(),
            },
        }
    }
}

/// A complete log that the TPM recorded, and that the quote is about. Only [`verify`] makes it.
#[derive(Debug, Clone)]
pub struct AuthenticLog {
    log: MeasurementLog,
    boot: ExplainedBoot,
}

impl AuthenticLog {
    /// The parts of the log.
    pub fn parts(&self) -> CompleteLog<'_> {
        // `verify` makes no `AuthenticLog` of a log that is not complete, and the log does not change.
        self.log.complete().expect("an authentic log is complete")
    }

    /// The events.
    pub fn events(&self) -> &[Event] {
        self.log.events()
    }

    /// The evidence that it is authentic.
    pub fn boot(&self) -> &ExplainedBoot {
        &self.boot
    }
}

/// Verifies the log that a quote is about. A log that says that its job failed is authentic, too: see
/// [`crate::Options::accept_failed_job`].
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn verify(boot: ExplainedBoot, events: &[Event]) -> Result<AuthenticLog, Vec<LogFault>> {
    let quote = boot.quote();
    let (log, mut faults) = examine(quote.quote().bank(), quote.quote().pcrs(), events, boot.log);
    let Some(log) = log else {
        return Err(faults);
    };
    if !log.head().is_ok_and(|head| head == quote.to) {
        faults.push(LogFault::AnotherLog {});
    }
    if let Ok(parts) = log.complete() {
        faults.extend(machine::contradictions(parts.machine, quote.quote()));
    }
    if faults.is_empty() {
        Ok(AuthenticLog { log, boot })
    } else {
        Err(faults)
    }
}

/// Reads events as a complete log. That they are one says nothing about whether they are true.
pub(crate) fn read(events: &[Event]) -> Result<MeasurementLog, LogFault> {
    let log = MeasurementLog::from_events(events.to_vec())?;
    log.complete()?;
    Ok(log)
}

/// What is wrong with events, whether or not the quote is authentic.
pub(crate) fn inspect(
    bank: PcrBank,
    pcrs: &PcrValues,
    events: &[Event],
    boot_event_log: &[u8],
) -> Vec<LogFault> {
    examine(bank, pcrs, events, BootLogDigest::of(boot_event_log)).1
}

/// The log that events are, if they are a complete one, and everything that is wrong with them: something, if they are
/// none.
fn examine(
    bank: PcrBank,
    pcrs: &PcrValues,
    events: &[Event],
    boot_log: BootLogDigest,
) -> (Option<MeasurementLog>, Vec<LogFault>) {
    let mut faults = Vec::new();
    let log = read(events).map_err(|fault| faults.push(fault)).ok();
    if let Some(EventContent::JobOpened(opened)) = events.first().map(|event| &event.content) {
        if !opened.banks.contains(&bank) {
            let banks: Vec<_> = opened.banks.iter().map(ToString::to_string).collect();
            faults.push(LogFault::BankNotOpened {
                expected: banks.join(", "),
                found: bank,
            });
        }
        if opened.boot_event_log != boot_log {
            faults.push(LogFault::AnotherBootLog {
                expected: opened.boot_event_log,
                found: boot_log,
            });
        }
    }
    for pcr in [PcrIndex::INPUTS, PcrIndex::OUTPUTS] {
        match (replay(bank, pcr, events), pcrs.0.get(&pcr)) {
            (Ok(expected), Some(found)) if expected != *found => {
                faults.push(LogFault::Replay {
                    pcr,
                    expected: hex::encode(expected),
                    found: hex::encode(found),
                });
            }
            (Ok(expected), None) => {
                faults.push(LogFault::Replay {
                    pcr,
                    expected: hex::encode(expected),
                    found: "not shown".into(),
                });
            }
            (Ok(_), Some(_)) => {}
            (Err(fault), _) => faults.push(fault),
        }
    }
    (log, faults)
}

/// As [`MeasurementLog::replay`], for events that need not obey the grammar: so that both failures can be reported.
fn replay(bank: PcrBank, pcr: PcrIndex, events: &[Event]) -> Result<Vec<u8>, LogFault> {
    let mut value = vec![0; bank.digest_len()];
    for event in events.iter().filter(|event| event.content.pcr() == pcr) {
        let digest = event.digest(bank).map_err(|error| LogFault::NotEncodable {
            reason: error.to_string(),
        })?;
        value = bank.extend(&value, &digest);
    }
    Ok(value)
}

/// What keeps a complete log from certifying a model.
pub(crate) fn inspect_result(log: &CompleteLog<'_>) -> Option<LogFault> {
    if log.closed.result == JobResult::Succeeded {
        return None;
    }
    let exit = log.finished.exit_code;
    let ended = match log.finished.outcome {
        ExecutionOutcome::Exited if exit == 0 => "it exited with 0".to_owned(),
        ExecutionOutcome::Exited => format!("it exited with {exit}"),
        ExecutionOutcome::TimedOut => "its time limit was reached".to_owned(),
        ExecutionOutcome::OutOfMemory => "its memory limit was reached".to_owned(),
        other => format!("{other:?}"),
    };
    let files = log.outputs.tree.files;
    let content = match log.outputs.tree.bytes {
        0 if files > 0 => ", all of them empty",
        _ => "",
    };
    Some(LogFault::JobFailed {
        found: format!("{ended}, and left {files} output files{content}"),
    })
}
