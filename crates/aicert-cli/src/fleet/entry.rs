//! What is known of one job and its machine.

use std::path::PathBuf;

use aicert_core::cloud::{MachineId, MachineRecord};
use aicert_core::runtime::JobId;
use aicert_core::time::Timestamp;
use serde::Serialize;

use crate::local::{LOCAL, LocalProvider};
use crate::place::Place;
use crate::recover;
use crate::remote::record::{Known, Phase, Record};

/// A job with its machine, as far as there is one.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Entry {
    #[serde(serialize_with = "as_text")]
    pub(crate) job: JobId,
    /// The value of `provider` in the configuration.
    pub(crate) provider: String,
    /// Where the provider has it, in a cloud: the subscription, region or project.
    pub(crate) place: Option<String>,
    /// Whose it is there.
    pub(crate) owner: Option<String>,
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
    /// When it ends by itself, whatever it does, where that is known.
    pub(crate) expires: Option<Timestamp>,
    pub(crate) configuration: Option<PathBuf>,
    /// Its name at the provider.
    #[serde(serialize_with = "as_optional_text")]
    pub(crate) machine: Option<MachineId>,
    pub(crate) endpoint: Option<String>,
}

impl Entry {
    /// Whether its machine is in a cloud: where there may be machines that other computers look after.
    pub(crate) fn is_in_cloud(&self) -> bool {
        self.place.is_some()
    }

    /// Where it is, for people.
    pub(crate) fn whereabouts(&self) -> String {
        match &self.place {
            Some(place) => format!("{} {place}", self.provider),
            None => self.provider.clone(),
        }
    }

    /// Says where it is.
    fn put(&mut self, place: &Place) {
        self.provider.clone_from(&place.provider);
        self.place = place.name().map(str::to_owned);
        self.owner = place.owner().map(ToString::to_string);
    }
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
        place: None,
        owner: None,
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
        expires: None,
        configuration: record.map(|record| record.configuration),
        endpoint: None,
        machine: Some(machine.id),
        job: machine.job,
    }
}

/// An entry for a machine that a provider has.
pub(super) fn machine_entry(
    place: &Place,
    machine: MachineRecord,
    running: Result<bool, String>,
    run: Option<Known>,
) -> Entry {
    let mut entry = match run {
        Some(run) => run_entry(run, None),
        None => Entry {
            job: machine.job,
            provider: String::new(),
            place: None,
            owner: None,
            state: MachineState::Unknown,
            problem: None,
            in_use: machine.in_use,
            process: None,
            phase: None,
            activity: "has no record".to_owned(),
            created: machine.created,
            expires: None,
            configuration: None,
            machine: None,
            endpoint: None,
        },
    };
    entry.put(place);
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
        place: record.as_ref().and_then(|record| record.place.clone()),
        owner: record.as_ref().and_then(|record| record.owner.clone()),
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
        expires: record.as_ref().and_then(Record::expires),
        configuration: record.map(|record| record.configuration),
        machine: None,
        endpoint: None,
    }
}
