//! All machines of this user, whoever provides them, and the jobs that they are for.

use std::path::PathBuf;
use std::sync::Arc;

use aicert_core::cloud::{CloudProvider, MachineId, MachineRecord};
use aicert_core::runtime::JobId;
use aicert_core::time::Timestamp;
use serde::Serialize;

use crate::backends;
use crate::error::{Exit, Failure};
use crate::local::{LocalProvider, Purpose};
use crate::recover;
use crate::remote::record::{Known, Phase, Runs};
use crate::state::State;

/// The providers, and the records of this user.
pub(crate) struct Fleet {
    state: State,
    local: LocalProvider,
    remote: Vec<Arc<dyn CloudProvider>>,
    runs: Runs,
}

/// A job with its machine, as far as there is one.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Entry {
    #[serde(serialize_with = "as_text")]
    pub(crate) job: JobId,
    /// The value of `provider` in the configuration.
    pub(crate) provider: String,
    pub(crate) state: MachineState,
    /// Whether a process follows it; nothing where that cannot be found out.
    pub(crate) in_use: Option<bool>,
    /// That process, when it last wrote it down.
    pub(crate) process: Option<u32>,
    /// How far the job is; nothing where there is no record of it.
    pub(crate) phase: Option<Phase>,
    /// The same for people.
    pub(crate) activity: String,
    pub(crate) created: Timestamp,
    pub(crate) configuration: Option<PathBuf>,
    /// Its name at the provider.
    #[serde(serialize_with = "as_optional_text")]
    pub(crate) machine: Option<MachineId>,
    pub(crate) endpoint: Option<String>,
}

/// Whether there is a machine, and whether it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MachineState {
    Running,
    /// It is there, and has ended.
    Ended,
    /// There is a record of a job, and no machine.
    Absent,
}

impl MachineState {
    pub(crate) fn in_words(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ended => "ended",
            Self::Absent => "no machine",
        }
    }
}

fn as_text<S: serde::Serializer>(job: &JobId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(job)
}

fn as_optional_text<S: serde::Serializer>(id: &Option<MachineId>, serializer: S) -> Result<S::Ok, S::Error> {
    match id {
        Some(id) => serializer.collect_str(id),
        None => serializer.serialize_none(),
    }
}

/// How a machine is destroyed that a process still follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InUse {
    /// Not at all.
    Refuse,
    /// That process finds its machine gone.
    Destroy,
}

impl Fleet {
    pub(crate) fn of(state: State) -> Result<Self, Failure> {
        let local =
            LocalProvider::new(&state.folder, Purpose::default()).map_err(|error| Failure::of(&error))?;
        Ok(Self {
            remote: backends::providers(&state)?,
            runs: Runs::of(&state),
            local,
            state,
        })
    }

    /// The provider of that name.
    pub(crate) fn provider(&self, name: &str) -> Result<&Arc<dyn CloudProvider>, Failure> {
        let mut providers = self.remote.iter();
        providers
            .find(|provider| provider.capabilities().name == name)
            .ok_or_else(|| Failure::misuse(format!("this build of aicert knows no provider `{name}`")))
    }

    pub(crate) fn runs(&self) -> &Runs {
        &self.runs
    }

    /// Everything there is, the oldest first.
    pub(crate) async fn survey(&self) -> Result<Vec<Entry>, Failure> {
        let mut entries = self.survey_remote().await?;
        for machine in self.local.list().await.map_err(|error| Failure::of(&error))? {
            entries.push(self.local_entry(machine));
        }
        entries.sort_by(|a, b| (a.created, &a.job).cmp(&(b.created, &b.job)));
        Ok(entries)
    }

    /// The machines of providers, and the jobs that are recorded for them.
    pub(crate) async fn survey_remote(&self) -> Result<Vec<Entry>, Failure> {
        // The runs first: whatever is provisioned later has a record that is newer than this list.
        let mut runs = self.runs.list().map_err(|error| Failure::of(&error))?;
        let mut entries = Vec::new();
        for provider in &self.remote {
            for machine in provider.list().await.map_err(|error| Failure::of(&error))? {
                let running = provider
                    .is_running(&machine.id)
                    .await
                    .map_err(|error| Failure::of(&error))?;
                let at = runs.iter().position(|run| run.job == machine.job);
                let run = match at.map(|at| runs.swap_remove(at)) {
                    Some(run) => Some(run),
                    // It may have been made since.
                    None => self.find(&machine.job)?,
                };
                let state = if running {
                    MachineState::Running
                } else {
                    MachineState::Ended
                };
                let name = provider.capabilities().name;
                entries.push(remote_entry(name, machine.job.clone(), Some(machine), state, run));
            }
        }
        for run in runs {
            let name = run
                .record
                .as_ref()
                .map_or("unknown", |record| &record.provider)
                .to_owned();
            entries.push(remote_entry(
                &name,
                run.job.clone(),
                None,
                MachineState::Absent,
                Some(run),
            ));
        }
        Ok(entries)
    }

    fn find(&self, job: &JobId) -> Result<Option<Known>, Failure> {
        let runs = self.runs.list().map_err(|error| Failure::of(&error))?;
        Ok(runs.into_iter().find(|run| run.job == *job))
    }

    fn local_entry(&self, machine: MachineRecord) -> Entry {
        let record = self.local.record(&machine.id);
        Entry {
            provider: self.local.capabilities().name.to_owned(),
            state: if machine.in_use == Some(false) {
                MachineState::Ended
            } else {
                MachineState::Running
            },
            in_use: machine.in_use,
            process: record.as_ref().map(|record| record.process),
            phase: None,
            activity: recover::stage_of(&self.local, &machine.id).to_owned(),
            created: machine.created,
            configuration: record.map(|record| record.configuration),
            endpoint: None,
            machine: Some(machine.id),
            job: machine.job,
        }
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
        if entry.provider == self.local.capabilities().name {
            let message = format!(
                "the job {} is on this machine: there is no console to show",
                entry.job
            );
            return Err(Failure::misuse(message).help("`aicert run` shows what its job prints"));
        }
        let Some(machine) = &entry.machine else {
            return Ok(String::new());
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
    pub(crate) async fn destroy(&self, entry: &Entry, in_use: InUse) -> Result<(), Failure> {
        if entry.provider == self.local.capabilities().name {
            return self.destroy_local(entry).await;
        }
        let run = self.runs.take(&entry.job).map_err(|error| Failure::of(&error))?;
        if run.is_none() && entry.in_use == Some(true) && in_use == InUse::Refuse {
            return Err(Self::followed(entry)
                .help("stop it there with Ctrl-C, or destroy the machine all the same with `--force`"));
        }
        if let Some(machine) = &entry.machine {
            let provider = self.provider(&entry.provider)?;
            provider
                .destroy(machine)
                .await
                .map_err(|error| Failure::of(&error))?;
        }
        match run {
            Some(run) => run.forget().map_err(|error| Failure::of(&error)),
            // Whoever follows it finds its machine gone, and cleans up.
            None if entry.in_use == Some(true) => Ok(()),
            None => self.runs.remove(&entry.job).map_err(|error| Failure::of(&error)),
        }
    }

    async fn destroy_local(&self, entry: &Entry) -> Result<(), Failure> {
        if entry.in_use != Some(false) {
            return Err(Self::followed(entry).help("stop it there with Ctrl-C: it cleans up"));
        }
        let runtime = backends::runtime(&self.state.cache)?;
        recover::clean_up(runtime.as_ref(), &entry.job).await?;
        let machine = MachineId(entry.job.as_str().to_owned());
        self.local
            .destroy(&machine)
            .await
            .map_err(|error| Failure::of(&error))
    }

    /// Says that a job is another process's.
    pub(crate) fn followed(entry: &Entry) -> Failure {
        let process = entry
            .process
            .map_or_else(String::new, |process| format!(" (process {process})"));
        Failure::new(
            Exit::DoesNotHold,
            format!("another aicert{process} follows the job {}", entry.job),
        )
    }
}

fn remote_entry(
    provider: &str,
    job: JobId,
    machine: Option<MachineRecord>,
    state: MachineState,
    run: Option<Known>,
) -> Entry {
    let (record, known_use) = match run {
        Some(run) => (run.record, Some(run.in_use)),
        None => (None, None),
    };
    let machine = machine.as_ref();
    let phase = record.as_ref().map(|record| record.phase);
    let created = machine
        .map(|machine| machine.created)
        .or(record.as_ref().map(|record| record.created));
    Entry {
        job,
        provider: provider.to_owned(),
        state,
        in_use: known_use.or(machine.and_then(|machine| machine.in_use)),
        process: record.as_ref().map(|record| record.process),
        phase,
        activity: phase.map_or("has no record", Phase::in_words).to_owned(),
        created: created.unwrap_or_else(|| Timestamp::from_unix(0)),
        endpoint: machine
            .and_then(|machine| machine.endpoint)
            .map(|endpoint| endpoint.to_string()),
        configuration: record.map(|record| record.configuration),
        machine: machine.map(|machine| machine.id.clone()),
    }
}
