//! Why a job does not go on here, and what becomes of its machine.

use aicert_client::ClientError;
use aicert_core::api::ProblemCode;
use aicert_core::cloud::CloudError;
use aicert_core::runtime::JobId;
use aicert_verify::{Failure as Finding, Rejection};

use super::record::{Phase, Record};
use crate::error::{Exit, Failure};
use crate::text::one_line;

/// How many of the last lines of a console are shown.
const CONSOLE_LINES: usize = 15;
/// How much of each.
const CONSOLE_WIDTH: usize = 200;

/// Why a job does not go on here.
#[derive(Debug)]
pub(crate) struct Stop {
    pub(crate) failure: Failure,
    pub(crate) fate: Fate,
}

/// What becomes of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing of use is on it.
    Destroy,
    /// There is or may be something on it that is nowhere else.
    Keep,
}

impl Stop {
    pub(crate) fn destroy(failure: Failure) -> Self {
        Self {
            failure,
            fate: Fate::Destroy,
        }
    }

    /// Leaves the machine, and says how to go on.
    pub(crate) fn keep(failure: Failure, job: &JobId) -> Self {
        Self {
            failure: failure.more_help(how_to_go_on(job)),
            fate: Fate::Keep,
        }
    }

    /// After which nothing has been sent yet.
    pub(crate) fn provider(error: &CloudError) -> Self {
        Self::destroy(Failure::of(error))
    }
}

fn how_to_go_on(job: &JobId) -> String {
    format!(
        "the machine is left as it is: `aicert attach {job}` goes on, `aicert machines destroy {job}` ends it"
    )
}

/// What Ctrl-C means in this phase.
pub(crate) fn interrupted(number: u8, record: &Record) -> Stop {
    let failure = |message: &str| Failure::new(Exit::Signal(number), message);
    let job = record.job.parse::<JobId>();
    match (record.phase, job) {
        (Phase::Submitted, Ok(job)) => {
            Stop::keep(failure("interrupted; the machine goes on with what it has"), &job)
        }
        (Phase::Finished, Ok(job)) => Stop::keep(
            failure("interrupted; the job has ended, and its results are on the machine"),
            &job,
        ),
        (Phase::Delivered, _) => Stop::destroy(failure("interrupted; the results are here")),
        _ => Stop::destroy(failure("interrupted: nothing was sent, and nothing was written")),
    }
}

/// An error of the client, which says itself what to do.
pub(crate) fn failure(error: &ClientError) -> Failure {
    match error {
        ClientError::Rejected(rejection) => {
            refused("the machine is refused, and nothing was sent to it", rejection)
        }
        ClientError::OtherMachine(rejection) => {
            refused("the proof is not of the machine that was attested", rejection)
        }
        // What the machine said is escaped already; what is wrong with a configuration has several lines.
        ClientError::Problem { problem, .. } if problem.code == ProblemCode::Configuration => {
            let lines: Vec<_> = error.to_string().lines().map(one_line).collect();
            Failure::new(Exit::DoesNotHold, lines.join("\n"))
                .maybe_help(error.advice().map(|advice| one_line(&advice)))
        }
        error => Failure::new(Exit::DoesNotHold, one_line(&error.to_string()))
            .with_causes_of(error)
            .maybe_help(error.advice().map(|advice| one_line(&advice))),
    }
}

/// A refusal with every reason, and what to do about each.
pub(crate) fn refused(message: &str, rejection: &Rejection) -> Failure {
    let failure = Failure::new(Exit::DoesNotHold, message);
    let findings = rejection.failures();
    let reasons = findings.iter().map(reason).collect();
    let advice = findings.first().map(|finding| one_line(&finding.advice()));
    failure.with_reasons(reasons, findings).maybe_help(advice)
}

fn reason(finding: &Finding) -> String {
    format!(
        "{} (answerable: the {}): {}",
        finding.step(),
        finding.party(),
        one_line(&finding.to_string())
    )
}

/// What a console says last.
pub(crate) fn last_lines(console: &str) -> Vec<String> {
    let lines: Vec<&str> = console.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(CONSOLE_LINES);
    lines[from..]
        .iter()
        .map(|line| {
            let line = one_line(line.trim_end());
            line.chars().take(CONSOLE_WIDTH).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use aicert_core::api::Problem;

    use super::*;
    use crate::remote::record::tests::record;

    #[test]
    fn a_signal_leaves_a_machine_only_when_it_has_the_job() {
        let folder = tempfile::tempdir().unwrap();
        let mut record = record("a", folder.path());
        for (phase, fate) in [
            (Phase::Prepared, Fate::Destroy),
            (Phase::Booting, Fate::Destroy),
            (Phase::Attested, Fate::Destroy),
            (Phase::Submitted, Fate::Keep),
            (Phase::Finished, Fate::Keep),
            (Phase::Delivered, Fate::Destroy),
        ] {
            record.phase = phase;
            let stop = interrupted(2, &record);
            assert_eq!(
                (stop.fate, stop.failure.exit),
                (fate, Exit::Signal(2)),
                "{phase:?}"
            );
            let help = stop.failure.help.unwrap_or_default();
            assert_eq!(help.contains("aicert attach a"), fate == Fate::Keep, "{help}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_configuration_keeps_its_shape() {
        let error = |code| ClientError::Problem {
            request: "POST /v1/jobs".into(),
            status: 422,
            problem: Problem {
                code,
                message: "a.yaml:1:2: no\n  |\n1 | x\u{1b}[2J".into(),
                advice: Some("a\nb".into()),
            },
        };
        let refused = failure(&error(ProblemCode::Configuration));
        assert!(
            refused
                .message
                .ends_with("\na.yaml:1:2: no\n  |\n1 | x\\u{1b}[2J"),
            "{refused:?}"
        );
        assert_eq!(refused.help.unwrap().lines().count(), 1);
        assert_eq!(failure(&error(ProblemCode::Failed)).message.lines().count(), 1);
    }

    #[test]
    fn the_end_of_a_console_is_short_and_harmless() {
        let console: String = (0..100).map(|n| format!("line {n}\x1b[2J\r\n\n")).collect();
        let lines = last_lines(&console);
        assert_eq!(lines.len(), CONSOLE_LINES);
        assert_eq!(lines.last().unwrap(), "line 99\\u{1b}[2J");
        assert_eq!(last_lines(&"x".repeat(1000))[0].len(), CONSOLE_WIDTH);
        assert!(last_lines("").is_empty());
    }
}
