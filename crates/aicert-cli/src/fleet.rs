//! All machines of this user, whoever provides them, and the jobs that they are for.

mod entry;

use std::sync::Arc;

use aicert_core::cloud::{CloudProvider, MachineId, MachineRecord};
use aicert_core::runtime::JobId;

pub(crate) use self::entry::{Entry, MachineState};
use self::entry::{local_entry, machine_entry, run_entry};
use crate::backends::{self, Provider};
use crate::error::{Exit, Failure};
use crate::local::{LOCAL, LocalProvider, Purpose};
use crate::recover;
use crate::remote::record::{Known, Runs, Take};
use crate::state::State;

/// The providers, and the records of this user.
pub(crate) struct Fleet {
    state: State,
    local: Result<LocalProvider, Failure>,
    remote: Vec<(&'static str, Provider)>,
    runs: Runs,
}

/// What there is, as far as it could be looked at: what is wrong with one provider hides nothing of another.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// The oldest first.
    pub(crate) entries: Vec<Entry>,
    /// Why there may be more.
    pub(crate) failures: Vec<Failure>,
}

/// How a machine is destroyed that a process still follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InUse {
    /// Not at all.
    Refuse,
    /// That process finds its machine gone.
    Destroy,
}

/// What was removed of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removed {
    /// Everything.
    Machine,
    /// What was known of it: there was no machine that could be seen.
    Record,
}

impl Fleet {
    pub(crate) fn of(state: State) -> Self {
        Self {
            local: LocalProvider::new(&state.folder, Purpose::default()).map_err(|error| Failure::of(&error)),
            remote: backends::providers(&state),
            runs: Runs::of(&state),
            state,
        }
    }

    /// The provider of that name.
    pub(crate) fn provider(&self, name: &str) -> Result<&Arc<dyn CloudProvider>, Failure> {
        match self.remote.iter().find(|(known, _)| *known == name) {
            Some((_, provider)) => provider.as_ref().map_err(Failure::clone),
            None => Err(no_provider(name)),
        }
    }

    pub(crate) fn runs(&self) -> &Runs {
        &self.runs
    }

    /// Everything there is.
    pub(crate) async fn survey(&self) -> Survey {
        let mut survey = self.survey_remote().await;
        match &self.local {
            Ok(local) => match local.list().await {
                Ok(machines) => survey
                    .entries
                    .extend(machines.into_iter().map(|machine| local_entry(local, machine))),
                Err(error) => survey.failures.push(Failure::of(&error)),
            },
            Err(failure) => survey.failures.push(failure.clone()),
        }
        survey
            .entries
            .sort_by(|a, b| (a.created, &a.job).cmp(&(b.created, &b.job)));
        survey
    }

    /// The machines of providers, and the jobs that are recorded for them.
    pub(crate) async fn survey_remote(&self) -> Survey {
        let mut survey = Survey::default();
        // The runs first: whatever is provisioned later has a record that is newer than this list.
        let mut runs = match self.runs.list() {
            Ok(runs) => runs,
            Err(error) => {
                survey.failures.push(Failure::of(&error));
                Vec::new()
            }
        };
        let unrecorded = survey.failures.first().map(|failure| failure.message.clone());
        for (name, provider) in &self.remote {
            let (provider, machines) = match machines_of(provider).await {
                Ok(listed) => listed,
                Err(failure) => {
                    let silent = |run: &Known| run.record.as_ref().is_ok_and(|it| it.provider == *name);
                    let silent = runs.extract_if(.., |run| silent(run));
                    survey
                        .entries
                        .extend(silent.map(|run| run_entry(run, Some(&failure.message))));
                    survey.failures.push(failure);
                    continue;
                }
            };
            for machine in machines {
                let at = runs.iter().position(|run| run.job == machine.job);
                // It may have been made since.
                let run = at.map_or_else(|| self.runs.known(&machine.job), |at| Some(runs.swap_remove(at)));
                let running = provider.is_running(&machine.id).await;
                let running = running.map_err(|error| error.message().to_owned());
                let mut entry = machine_entry(name, machine, running, run);
                if entry.phase.is_none() {
                    entry.problem = entry.problem.or_else(|| unrecorded.clone());
                }
                survey.entries.push(entry);
            }
        }
        let known = |name: &str| self.remote.iter().any(|(known, _)| *known == name);
        survey.entries.extend(runs.into_iter().map(|run| {
            let unknown = match &run.record {
                Ok(record) if !known(&record.provider) => Some(no_provider(&record.provider).message),
                _ => None,
            };
            run_entry(run, unknown.as_deref())
        }));
        survey
    }

    /// The entry that a user means: by its whole name, or a part of it that no other has.
    pub(crate) fn choose<'a>(entries: &'a [Entry], name: &str) -> Result<&'a Entry, Failure> {
        if let Some(entry) = entries.iter().find(|entry| entry.job.as_str() == name) {
            return Ok(entry);
        }
        let mut similar = entries
            .iter()
            .filter(|entry| !name.is_empty() && entry.job.as_str().contains(name));
        match (similar.next(), similar.next()) {
            (Some(entry), None) => Ok(entry),
            (Some(_), Some(_)) => Err(Failure::misuse(format!(
                "there is more than one job with {name:?} in its name"
            ))
            .help("`aicert machines list` shows them")),
            (None, _) => Err(Failure::misuse(format!("there is no job {name:?}"))
                .help("`aicert machines list` shows those that there are")),
        }
    }

    /// What a machine wrote to its console.
    pub(crate) async fn console(&self, entry: &Entry) -> Result<String, Failure> {
        if entry.provider == LOCAL {
            let message = format!(
                "the job {} is on this machine: there is no console to show",
                entry.job
            );
            return Err(Failure::misuse(message).help("`aicert run` shows what its job prints"));
        }
        let Some(machine) = &entry.machine else {
            return Err(match &entry.problem {
                Some(problem) => unknown(entry, problem),
                None => Failure::new(
                    Exit::DoesNotHold,
                    format!(
                        "the job {} has no machine: there is no console to show",
                        entry.job
                    ),
                ),
            });
        };
        let provider = self.provider(&entry.provider)?;
        provider
            .console_log(machine)
            .await
            .map_err(|error| Failure::of(&error))
    }

    /// Whether a machine of another provider than this machine still runs.
    pub(crate) async fn is_running(&self, entry: &Entry) -> Result<bool, Failure> {
        let Some(machine) = &entry.machine else {
            return Ok(false);
        };
        let provider = self.provider(&entry.provider)?;
        provider
            .is_running(machine)
            .await
            .map_err(|error| Failure::of(&error))
    }

    /// Removes a machine, and everything that belongs to its job but for results that are complete.
    pub(crate) async fn destroy(&self, entry: &Entry, in_use: InUse) -> Result<Removed, Failure> {
        if entry.provider == LOCAL {
            self.destroy_local(entry).await?;
            return Ok(Removed::Machine);
        }
        let taken = self.runs.take(&entry.job).map_err(|error| Failure::of(&error))?;
        if let (Take::Held { process }, InUse::Refuse) = (&taken, in_use) {
            return Err(followed(&entry.job, *process)
                .help("stop it there with Ctrl-C, or destroy the machine all the same with `--force`"));
        }
        self.remove(entry, taken, in_use).await
    }

    /// The same for a job that this process has taken, or that may be taken from whoever has it.
    pub(crate) async fn remove(&self, entry: &Entry, taken: Take, in_use: InUse) -> Result<Removed, Failure> {
        if matches!(taken, Take::Gone) && entry.machine.is_none() {
            return Ok(Removed::Record);
        }
        // As it is now: the entry may be older than the machine.
        let machines = match (self.machines_of(entry, &taken).await, in_use) {
            (Ok(machines), _) => machines,
            (Err(problem), InUse::Refuse) => return Err(problem),
            (Err(_), InUse::Destroy) => self.machines_anywhere(&entry.job).await,
        };
        for (provider, machine) in &machines {
            if matches!(taken, Take::Gone) && machine.in_use == Some(true) && in_use == InUse::Refuse {
                return Err(
                    followed(&entry.job, None).help("destroy the machine all the same with `--force`")
                );
            }
            provider
                .destroy(&machine.id)
                .await
                .map_err(|error| Failure::of(&error))?;
        }
        let removed = match machines[..] {
            [] => Removed::Record,
            _ => Removed::Machine,
        };
        let forgotten = match taken {
            Take::Run(run) => run.forget(),
            Take::Unreadable(run) => run.forget(),
            Take::Gone => Ok(()),
            Take::Held { process } if machines.is_empty() => {
                let mut failure = followed(&entry.job, process);
                failure
                    .message
                    .push_str(", which has no machine to destroy and may get one at any moment");
                return Err(failure.help("stop it there with Ctrl-C, or try again"));
            }
            // Whoever follows it finds its machine gone, and cleans up.
            Take::Held { .. } => Ok(()),
        };
        forgotten.map_err(|error| Failure::of(&error))?;
        Ok(removed)
    }

    /// The machines of a job at the provider that its record names.
    async fn machines_of(
        &self,
        entry: &Entry,
        taken: &Take,
    ) -> Result<Vec<(&Arc<dyn CloudProvider>, MachineRecord)>, Failure> {
        let name = match taken {
            Take::Run(run) => &run.record().provider,
            _ => &entry.provider,
        };
        let listed = match self.remote.iter().find(|(known, _)| known == name) {
            Some((_, provider)) => machines_of(provider).await,
            None => Err(no_provider(name)),
        };
        let listed = listed.map(|(provider, machines)| of_job(provider, machines, &entry.job));
        listed.map_err(|failure| match (taken, &entry.machine) {
            // Then there is no name of a provider.
            (Take::Unreadable(run), None) => unknown(entry, &run.why).help(BY_FORCE),
            _ => unknown(entry, &failure.message)
                .maybe_help(failure.help)
                .more_help(BY_FORCE.into()),
        })
    }

    /// The machines of a job at all providers that can be asked.
    async fn machines_anywhere(&self, job: &JobId) -> Vec<(&Arc<dyn CloudProvider>, MachineRecord)> {
        let mut machines = Vec::new();
        for (_, provider) in &self.remote {
            if let Ok((provider, listed)) = machines_of(provider).await {
                machines.extend(of_job(provider, listed, job));
            }
        }
        machines
    }

    async fn destroy_local(&self, entry: &Entry) -> Result<(), Failure> {
        if entry.in_use != Some(false) {
            return Err(followed(&entry.job, entry.process).help("stop it there with Ctrl-C: it cleans up"));
        }
        let local = self.local.as_ref().map_err(Failure::clone)?;
        let runtime = backends::runtime(&self.state.cache)?;
        recover::clean_up(runtime.as_ref(), &entry.job).await?;
        let machine = MachineId(entry.job.as_str().to_owned());
        local.destroy(&machine).await.map_err(|error| Failure::of(&error))
    }
}

fn no_provider(name: &str) -> Failure {
    Failure::misuse(format!("this build of aicert knows no provider `{name}`"))
}

/// Says that a job is another process's.
pub(crate) fn followed(job: &JobId, process: Option<u32>) -> Failure {
    let process = process.map_or_else(String::new, |process| format!(" (process {process})"));
    Failure::new(
        Exit::DoesNotHold,
        format!("another aicert{process} follows the job {job}"),
    )
}

/// What to do about a job that nobody knows enough of.
const BY_FORCE: &str = "`aicert machines destroy --force` forgets the job all the same, and leaves a machine that this aicert cannot see";

/// Says that nobody knows whether there is a machine.
fn unknown(entry: &Entry, problem: &str) -> Failure {
    Failure::new(
        Exit::DoesNotHold,
        format!(
            "it is not known whether there is a machine for the job {}: {problem}",
            entry.job
        ),
    )
}

/// Asks a provider for all its machines.
async fn machines_of(provider: &Provider) -> Result<(&Arc<dyn CloudProvider>, Vec<MachineRecord>), Failure> {
    let provider = provider.as_ref().map_err(Failure::clone)?;
    let machines = provider.list().await.map_err(|error| Failure::of(&error))?;
    Ok((provider, machines))
}

/// Those of a job, each with its provider.
fn of_job<'a>(
    provider: &'a Arc<dyn CloudProvider>,
    mut machines: Vec<MachineRecord>,
    job: &JobId,
) -> Vec<(&'a Arc<dyn CloudProvider>, MachineRecord)> {
    machines.retain(|machine| machine.job == *job);
    machines.into_iter().map(|machine| (provider, machine)).collect()
}
