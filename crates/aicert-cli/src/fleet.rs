//! All machines of this user, wherever they are, and the jobs that they are for.

mod entry;
mod site;

use std::sync::Arc;

use aicert_core::cloud::{CloudProvider, MachineId};
use aicert_core::runtime::JobId;
use futures_util::future::join_all;

pub(crate) use self::entry::{Entry, MachineState};
use self::entry::{local_entry, machine_entry, run_entry};
use self::site::{Found, Site, sites};
use crate::backends;
use crate::error::{Exit, Failure};
use crate::local::{LOCAL, LocalProvider, Purpose};
use crate::place::{Place, Places};
use crate::recover;
use crate::remote::record::{Known, Runs, Take};
use crate::state::State;

/// The places where machines of this user can be, and the records of this user.
pub(crate) struct Fleet {
    state: State,
    local: Result<LocalProvider, Failure>,
    sites: Vec<Site>,
    /// Why there may be more of them.
    unknown_sites: Vec<Failure>,
    runs: Runs,
    places: Places,
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

/// A machine that is to be removed.
struct Doomed<'a> {
    provider: &'a Arc<dyn CloudProvider>,
    machine: MachineId,
    in_use: Option<bool>,
    /// Whether the provider has shown it; what was made just now may not show yet.
    listed: bool,
}

impl Fleet {
    /// All places that are known to `state`, and another one, for whoever names one.
    pub(crate) fn of(state: State, other: Option<&Place>) -> Self {
        let (runs, places) = (Runs::of(&state), Places::of(&state));
        let (sites, unknown_sites) = sites(&state, &runs, &places, other);
        Self {
            local: LocalProvider::new(&state.folder, Purpose::default()).map_err(|error| Failure::of(&error)),
            sites,
            unknown_sites,
            runs,
            places,
            state,
        }
    }

    /// The provider that looks after a place.
    pub(crate) fn provider(&self, place: &Place) -> Result<&Arc<dyn CloudProvider>, Failure> {
        self.site(place)?.provider()
    }

    fn site(&self, place: &Place) -> Result<&Site, Failure> {
        let mut sites = self.sites.iter();
        sites
            .find(|site| site.place == *place)
            .ok_or_else(|| no_provider(&place.provider))
    }

    /// The place of an entry, among those that are known.
    fn site_of(&self, entry: &Entry) -> Result<&Site, Failure> {
        let is_there = |site: &&Site| {
            let place = &site.place;
            let owner = place.owner().map(aicert_cloud_common::Owner::as_str);
            place.provider == entry.provider
                && place.name() == entry.place.as_deref()
                && owner == entry.owner.as_deref()
        };
        let mut sites = self.sites.iter();
        sites.find(is_there).ok_or_else(|| no_provider(&entry.provider))
    }

    pub(crate) fn runs(&self) -> &Runs {
        &self.runs
    }

    /// The places in clouds that are asked.
    pub(crate) fn places_in_clouds(&self) -> impl Iterator<Item = &Place> {
        self.sites
            .iter()
            .map(|site| &site.place)
            .filter(|place| place.is_cloud())
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
        survey.failures.extend(self.unknown_sites.iter().cloned());
        // All at once: a place that does not answer holds up no other.
        let asked = join_all(self.sites.iter().map(Site::machines)).await;
        for (site, found) in self.sites.iter().zip(asked) {
            let machines = match found {
                Ok(machines) => machines,
                Err(failure) => {
                    let silent = |run: &Known| run.is_at(&site.place);
                    let silent = runs.extract_if(.., |run| silent(run));
                    survey
                        .entries
                        .extend(silent.map(|run| run_entry(run, Some(&failure.message))));
                    survey.failures.push(failure);
                    continue;
                }
            };
            if machines.is_empty() && !runs.iter().any(|run| run.is_at(&site.place)) {
                self.places.forget_if_quiet(&site.place);
            }
            for Found { machine, running } in machines {
                let at = runs.iter().position(|run| run.job == machine.job);
                // It may have been made since.
                let run = at.map_or_else(|| self.runs.known(&machine.job), |at| Some(runs.swap_remove(at)));
                let mut entry = machine_entry(&site.place, machine, running, run);
                if entry.phase.is_none() {
                    entry.problem = entry.problem.or_else(|| unrecorded.clone());
                }
                survey.entries.push(entry);
            }
        }
        survey.entries.extend(runs.into_iter().map(|run| {
            let unknown = match &run.record {
                Ok(record) if !self.sites.iter().any(|site| run.is_at(&site.place)) => {
                    Some(no_provider(&record.provider).message)
                }
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
        let provider = self.site_of(entry)?.provider()?;
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
        let provider = self.site_of(entry)?.provider()?;
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
            (Err(_), InUse::Destroy) => {
                // What is known of the job is about to go; that there may be a machine must not.
                if let Take::Run(run) = &taken
                    && let Some(place) = run.record().place()
                {
                    let remembered = self.places.remember(&place);
                    remembered.map_err(|error| Failure::of(&error))?;
                }
                self.machines_anywhere(&entry.job).await
            }
        };
        for doomed in &machines {
            if matches!(taken, Take::Gone) && doomed.in_use == Some(true) && in_use == InUse::Refuse {
                return Err(
                    followed(&entry.job, None).help("destroy the machine all the same with `--force`")
                );
            }
            doomed
                .provider
                .destroy(&doomed.machine)
                .await
                .map_err(|error| Failure::of(&error))?;
        }
        let removed = if machines.iter().any(|doomed| doomed.listed) {
            Removed::Machine
        } else {
            Removed::Record
        };
        let forgotten = match taken {
            Take::Run(run) => run.forget(),
            Take::Unreadable(run) => run.forget(),
            Take::Gone => Ok(()),
            Take::Held { process } if removed == Removed::Record => {
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

    /// The machines of a job at the place that its record names.
    async fn machines_of<'a>(&'a self, entry: &Entry, taken: &Take) -> Result<Vec<Doomed<'a>>, Failure> {
        let site = match taken {
            Take::Run(run) => match run.record().place() {
                Some(place) => self.site(&place),
                None => Err(no_provider(&run.record().provider)),
            },
            _ => self.site_of(entry),
        };
        let listed = match site {
            Ok(site) => site.list().await.map(|machines| (site, machines)),
            Err(failure) => Err(failure),
        };
        let (site, mut machines) = listed.map_err(|failure| match (taken, &entry.machine) {
            // Then there is no name of a provider.
            (Take::Unreadable(run), None) => unknown(entry, &run.why).help(BY_FORCE),
            _ => unknown(entry, &failure.message)
                .maybe_help(failure.help)
                .more_help(BY_FORCE.into()),
        })?;
        let provider = site.provider()?;
        machines.retain(|machine| machine.job == entry.job);
        let mut doomed: Vec<_> = machines
            .into_iter()
            .map(|machine| Doomed {
                provider,
                machine: machine.id,
                in_use: machine.in_use,
                listed: true,
            })
            .collect();
        if doomed.is_empty() && site.place.is_cloud() {
            doomed.push(Doomed {
                provider,
                machine: MachineId(entry.job.to_string()),
                in_use: None,
                listed: false,
            });
        }
        Ok(doomed)
    }

    /// The machines of a job at all places that can be asked.
    async fn machines_anywhere<'a>(&'a self, job: &JobId) -> Vec<Doomed<'a>> {
        let asked = join_all(self.sites.iter().map(Site::list)).await;
        let mut doomed = Vec::new();
        for (site, machines) in self.sites.iter().zip(asked) {
            let (Ok(provider), Ok(machines)) = (site.provider(), machines) else {
                continue;
            };
            let of_job = machines.into_iter().filter(|machine| machine.job == *job);
            doomed.extend(of_job.map(|machine| Doomed {
                provider,
                machine: machine.id,
                in_use: machine.in_use,
                listed: true,
            }));
        }
        doomed
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
