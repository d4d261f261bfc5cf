//! What is known of one job and its machine.

use std::path::PathBuf;

use aicert_core::cloud::{MachineId, MachineRecord};
use aicert_core::runtime::JobId;
use aicert_core::time::Timestamp;
use serde::Serialize;

use crate::local::{LOCAL, LocalProvider};
use crate::recover;
use crate::remote::record::{Known, Phase};

/// A job with its machine, as far as there is one.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Entry {
    #[serde(serialize_with = "as_text")]
    pub(crate) job: JobId,
    /// The value of `provider` in the configuration.
    pub(crate) provider: String,
    pub(crate) state: MachineState,
    /// Why something of it is not known, although it should be.
    pub(crate) problem: Option<String>,
    /// Whether a process follows it; nothing where that cannot be found out.
    pub(crate) in_use: Option<bool>,
    /// That process, when it last wrote it down.
    pub(crate) process: Option<u32>,
    /// How far the job is; nothing where there is no record of it that can be read.
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
    /// Nobody knows: there may be a machine.
    Unknown,
}

impl MachineState {
    pub(crate) fn in_words(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ended => "ended",
            Self::Absent => "no machine",
            Self::Unknown => "unknown",
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

pub(super) fn local_entry(local: &LocalProvider, machine: MachineRecord) -> Entry {
    let record = local.record(&machine.id);
    Entry {
        provider: LOCAL.to_owned(),
        state: if machine.in_use == Some(false) {
            MachineState::Ended
        } else {
            MachineState::Running
        },
        problem: None,
        in_use: machine.in_use,
        process: record.as_ref().map(|record| record.process),
        phase: None,
        activity: recover::stage_of(local, &machine.id).to_owned(),
        created: machine.created,
        configuration: record.map(|record| record.configuration),
        endpoint: None,
        machine: Some(machine.id),
        job: machine.job,
    }
}

/// An entry for a machine that a provider has.
pub(super) fn machine_entry(
    provider: &str,
    machine: MachineRecord,
    running: Result<bool, String>,
    run: Option<Known>,
) -> Entry {
    let mut entry = match run {
        Some(run) => run_entry(run, None),
        None => Entry {
            job: machine.job,
            provider: String::new(),
            state: MachineState::Unknown,
            problem: None,
            in_use: machine.in_use,
            process: None,
            phase: None,
            activity: "has no record".to_owned(),
            created: machine.created,
            configuration: None,
            machine: None,
            endpoint: None,
        },
    };
    provider.clone_into(&mut entry.provider);
    entry.state = match running {
        Ok(true) => MachineState::Running,
        Ok(false) => MachineState::Ended,
        Err(problem) => {
            entry.problem = Some(problem);
            MachineState::Unknown
        }
    };
    entry.created = machine.created;
    entry.endpoint = machine.endpoint.map(|endpoint| endpoint.to_string());
    entry.machine = Some(machine.id);
    entry
}

/// An entry for a job that no provider has a machine for; `silent` says why one that should know was not asked.
pub(super) fn run_entry(run: Known, silent: Option<&str>) -> Entry {
    let Known { job, record, in_use } = run;
    let (record, problem) = match record {
        Ok(record) => (Some(record), silent.map(str::to_owned)),
        Err(why) => (None, Some(why)),
    };
    let phase = record.as_ref().map(|record| record.phase);
    Entry {
        job,
        provider: record
            .as_ref()
            .map_or_else(|| "unknown".to_owned(), |record| record.provider.clone()),
        state: match problem {
            Some(_) => MachineState::Unknown,
            None => MachineState::Absent,
        },
        problem,
        in_use: Some(in_use),
        process: record.as_ref().map(|record| record.process),
        phase,
        activity: phase
            .map_or("has a record that cannot be read", Phase::in_words)
            .to_owned(),
        created: record
            .as_ref()
            .map_or_else(|| Timestamp::from_unix(0), |record| record.created),
        configuration: record.map(|record| record.configuration),
        machine: None,
        endpoint: None,
    }
}
