//! What earlier commands left on other machines: told to the user, and removed where nothing can be lost.

use super::job::lost;
use super::record::Phase;
use crate::backends;
use crate::fleet::{Entry, Fleet, InUse, MachineState};
use crate::output::Terminal;

/// What is done about a job that nobody follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Somebody follows it, or may.
    Leave,
    /// The user is told how to go on with it.
    MentionJob,
    /// Nobody knows what it is for.
    MentionMachine,
    /// It is removed, after saying what is lost.
    CleanUp(Phase),
    /// It is removed; nothing is lost.
    CleanUpQuietly,
}

fn verdict(entry: &Entry) -> Verdict {
    match (entry.in_use, entry.state, entry.phase) {
        (Some(true), ..) => Verdict::Leave,
        (_, _, Some(Phase::Delivered)) => Verdict::CleanUpQuietly,
        (_, MachineState::Running, Some(_)) => Verdict::MentionJob,
        (_, MachineState::Running, None) => Verdict::MentionMachine,
        (_, _, Some(phase)) => Verdict::CleanUp(phase),
        (_, _, None) => Verdict::CleanUp(Phase::Prepared),
    }
}

/// Tells of machines that nobody uses any more, and cleans up after those that have ended. What goes wrong with that is told
/// as well, and stops nobody from running another job.
pub(crate) async fn survey(fleet: &Fleet, terminal: Terminal) {
    let entries = fleet.survey_remote().await.unwrap_or_else(|failure| {
        terminal.warning(&format!(
            "what earlier commands left cannot be looked at: {}",
            failure.message
        ));
        Vec::new()
    });
    for entry in entries {
        let name = describe(&entry);
        let job = &entry.job;
        match verdict(&entry) {
            Verdict::Leave => continue,
            Verdict::MentionJob => {
                terminal.warning(&format!(
                    "{name} is still there, and nobody follows it: the machine {}. `aicert attach {job}` goes on with it, \
                     `aicert machines destroy {job}` removes it",
                    entry.activity
                ));
                continue;
            }
            Verdict::MentionMachine => {
                terminal.warning(&format!(
                    "there is a machine for {name}, of which nothing else is known: `aicert machines destroy {job}` removes it"
                ));
                continue;
            }
            Verdict::CleanUp(phase) => {
                let console = fleet.console(&entry).await.unwrap_or_default();
                let explanation = backends::explain_end(&console)
                    .map_or_else(String::new, |explanation| format!(" ({explanation})"));
                terminal.warning(&format!("{name}: {}{explanation}. Cleaning up.", lost(phase)));
            }
            Verdict::CleanUpQuietly => {}
        }
        if let Err(failure) = fleet.destroy(&entry, InUse::Refuse).await {
            terminal.warning(&format!(
                "{}; `aicert machines destroy {job}` tries again",
                failure.message
            ));
        }
    }
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
            state,
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
        use MachineState::{Absent, Ended, Running};
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
                assert_eq!(
                    (of(Ended), of(Absent)),
                    (Verdict::CleanUp(phase), Verdict::CleanUp(phase))
                );
            }
        }
        for state in [Absent, Ended, Running] {
            let delivered = entry(Some(false), state, Some(Phase::Delivered));
            assert_eq!(verdict(&delivered), Verdict::CleanUpQuietly);
        }
        assert_eq!(verdict(&entry(Some(true), Running, None)), Verdict::Leave);
        assert_eq!(verdict(&entry(None, Running, None)), Verdict::MentionMachine);
    }
}
