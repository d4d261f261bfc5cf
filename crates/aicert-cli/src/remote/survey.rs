//! What earlier commands left on other machines: told to the user, and removed where nothing can be lost.

use super::job::lost;
use super::record::{Phase, Take};
use crate::backends;
use crate::error::Failure;
use crate::fleet::{Entry, Fleet, InUse, MachineState};
use crate::output::Terminal;

/// What is done about a job that nobody follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Somebody follows it, or may.
    Leave,
    /// The user is told how to go on with it.
    MentionJob,
    /// Its machine has ended, and an earlier command may have brought the results before: the user is told how to find out.
    MentionResults,
    /// Nobody knows what it is for.
    MentionMachine,
    /// What it is, or whether it still is, cannot be found out.
    MentionProblem,
    /// It is removed, after saying what is lost, as far as that is known.
    CleanUp(Option<Phase>),
    /// It is removed; nothing is lost.
    CleanUpQuietly,
}

fn verdict(entry: &Entry) -> Verdict {
    match (entry.in_use, entry.state, entry.phase) {
        (Some(true), ..) => Verdict::Leave,
        _ if entry.problem.is_some() => Verdict::MentionProblem,
        (_, MachineState::Unknown, _) => Verdict::MentionProblem,
        // Another computer of the same owner may be making it, or may have its record.
        (_, MachineState::Ended, None) if entry.is_in_cloud() => Verdict::MentionMachine,
        (_, _, Some(Phase::Delivered)) => Verdict::CleanUpQuietly,
        (_, MachineState::Running, Some(_)) => Verdict::MentionJob,
        (_, MachineState::Running, None) => Verdict::MentionMachine,
        (_, MachineState::Ended | MachineState::Absent, Some(Phase::Finished)) => Verdict::MentionResults,
        (_, MachineState::Ended | MachineState::Absent, phase) => Verdict::CleanUp(phase),
    }
}

/// Tells of machines that nobody uses any more, and cleans up after those that have ended. What goes wrong with that is told
/// as well, and stops nobody from running another job.
pub(crate) async fn survey(fleet: &Fleet, terminal: Terminal) {
    let found = fleet.survey_remote().await;
    for failure in found.failures {
        terminal.warning(&format!(
            "what earlier commands left cannot be looked at: {}",
            failure.with_advice()
        ));
    }
    for entry in found.entries {
        let name = describe(&entry);
        let job = &entry.job;
        let verdict = verdict(&entry);
        match verdict {
            Verdict::Leave => {}
            Verdict::MentionJob => {
                terminal.warning(&format!(
                    "{name} is still there, and nobody follows it: the machine {}. `aicert attach {job}` goes on with it, \
                     `aicert machines destroy {job}` removes it",
                    entry.activity
                ));
            }
            Verdict::MentionResults => {
                terminal.warning(&format!(
                    "the machine of {name} has ended, which had the results: `aicert attach {job}` finds out whether they are here, \
                     and `aicert machines destroy {job}` removes what arrived"
                ));
            }
            Verdict::MentionMachine => {
                let elsewhere = if entry.is_in_cloud() {
                    format!(
                        " here, at {}. Unless another computer of yours uses it,",
                        entry.whereabouts()
                    )
                } else {
                    ":".to_owned()
                };
                terminal.warning(&format!(
                    "there is a machine for {name}, of which nothing else is known{elsewhere} `aicert machines destroy {job}` removes it"
                ));
            }
            Verdict::MentionProblem => {
                let problem = entry
                    .problem
                    .as_deref()
                    .unwrap_or("nobody can say what became of it");
                terminal.warning(&format!(
                    "{name} is left as it is: {problem}; `aicert machines destroy {job}` removes what can be removed"
                ));
            }
            Verdict::CleanUp(_) | Verdict::CleanUpQuietly => {
                if let Err(failure) = clean_up(fleet, &entry, verdict, terminal).await {
                    terminal.warning(&format!(
                        "{}; `aicert machines destroy {job}` tries again",
                        failure.message
                    ));
                }
            }
        }
    }
}

/// Removes what there is of a job, unless somebody else has begun to do something about it since it was looked at.
async fn clean_up(fleet: &Fleet, entry: &Entry, verdict: Verdict, terminal: Terminal) -> Result<(), Failure> {
    let taken = fleet
        .runs()
        .take(&entry.job)
        .map_err(|error| Failure::of(&error))?;
    match (&taken, entry.phase) {
        (Take::Run(run), Some(phase)) if run.record().phase == phase => {}
        (Take::Gone, None) => {}
        _ => return Ok(()),
    }
    if let Verdict::CleanUp(phase) = verdict {
        let console = fleet.console(entry).await.unwrap_or_default();
        let explanation = backends::explain_end(&console)
            .map_or_else(String::new, |explanation| format!(" ({explanation})"));
        let lost = phase.map_or("its machine has ended, and nothing else is known of it", lost);
        terminal.warning(&format!("{}: {lost}{explanation}. Cleaning up.", describe(entry)));
    }
    fleet.remove(entry, taken, InUse::Refuse).await?;
    Ok(())
}

fn describe(entry: &Entry) -> String {
    match &entry.configuration {
        Some(configuration) => format!(
            "the job {} ({}, {})",
            entry.job,
            configuration.display(),
            entry.created
        ),
        None => format!("the job {}", entry.job),
    }
}

#[cfg(test)]
mod tests {
    use aicert_core::time::Timestamp;

    use super::*;

    fn entry(in_use: Option<bool>, state: MachineState, phase: Option<Phase>) -> Entry {
        Entry {
            job: "a".parse().unwrap(),
            provider: "qemu".into(),
            place: None,
            owner: None,
            expires: None,
            state,
            problem: None,
            in_use,
            process: None,
            phase,
            activity: String::new(),
            created: Timestamp::from_unix(0),
            configuration: None,
            machine: None,
            endpoint: None,
        }
    }

    #[test]
    fn only_what_cannot_be_lost_is_removed() {
        use MachineState::{Absent, Ended, Running, Unknown};
        for phase in [
            Phase::Prepared,
            Phase::Booting,
            Phase::Attested,
            Phase::Submitted,
            Phase::Finished,
        ] {
            for state in [Absent, Ended, Running] {
                assert_eq!(verdict(&entry(Some(true), state, Some(phase))), Verdict::Leave);
            }
            for in_use in [Some(false), None] {
                let of = |state| verdict(&entry(in_use, state, Some(phase)));
                assert_eq!(of(Running), Verdict::MentionJob);
                let without = match phase {
                    // They may be here.
                    Phase::Finished => Verdict::MentionResults,
                    phase => Verdict::CleanUp(Some(phase)),
                };
                assert_eq!((of(Ended), of(Absent)), (without, without));
                assert_eq!(of(Unknown), Verdict::MentionProblem);
            }
        }
        for state in [Absent, Ended, Running] {
            let delivered = entry(Some(false), state, Some(Phase::Delivered));
            assert_eq!(verdict(&delivered), Verdict::CleanUpQuietly);
        }
        assert_eq!(verdict(&entry(Some(true), Running, None)), Verdict::Leave);
        assert_eq!(verdict(&entry(None, Running, None)), Verdict::MentionMachine);
        assert_eq!(verdict(&entry(None, Ended, None)), Verdict::CleanUp(None));
        // What another computer may be making is not this one's to clean up; what is recorded here is.
        let in_cloud = |state, phase| Entry {
            place: Some("eu-west-1".into()),
            ..entry(None, state, phase)
        };
        assert_eq!(verdict(&in_cloud(Ended, None)), Verdict::MentionMachine);
        let booting = Some(Phase::Booting);
        assert_eq!(verdict(&in_cloud(Ended, booting)), Verdict::CleanUp(booting));
        // What is not known, is not nothing.
        for (state, phase) in [
            (Unknown, None),
            (Unknown, Some(Phase::Delivered)),
            (Ended, None),
            (Running, None),
        ] {
            let mut unknown = entry(Some(false), state, phase);
            unknown.problem = Some("its record cannot be read".into());
            assert_eq!(verdict(&unknown), Verdict::MentionProblem);
        }
    }
}
