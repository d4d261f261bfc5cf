//! A place with the provider that looks after it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aicert_core::cloud::{CloudProvider, MachineRecord};
use futures_util::future::join_all;
use tokio::time::timeout;

use crate::backends::{self, Provider};
use crate::error::{Exit, Failure};
use crate::fleet::no_provider;
use crate::place::{Place, Places};
use crate::remote::record::{Record, Runs};
use crate::state::State;

/// How long a place may take to answer: finding credentials takes seconds, and what passes is tried again.
const PATIENCE: Duration = Duration::from_secs(30);

/// A place with the provider that looks after it.
pub(super) struct Site {
    pub(super) place: Place,
    provider: Provider,
}

/// A machine, and whether it runs, or why that is not known.
pub(super) struct Found {
    pub(super) machine: MachineRecord,
    pub(super) running: Result<bool, String>,
}

/// Every place that can be found out about: what is remembered, what is recorded of jobs, and what somebody names; and what is
/// wrong with others.
pub(super) fn sites(
    state: &State,
    runs: &Runs,
    places: &Places,
    other: Option<&Place>,
) -> (Vec<Site>, Vec<Failure>) {
    let (remembered, mut failures) = places.list();
    // That they cannot be listed is told when they are needed.
    let runs = runs.list().unwrap_or_default();
    let recorded = runs
        .iter()
        .filter_map(|run| run.record.as_ref().ok().and_then(Record::place));
    let all: BTreeSet<Place> = backends::only_places()
        .into_iter()
        .chain(remembered)
        .chain(recorded)
        .chain(other.cloned())
        .collect();
    let mut sites = Vec::new();
    for place in all {
        match backends::provider_at(&place, state) {
            Some(provider) => sites.push(Site { place, provider }),
            // A record of such a provider says so itself.
            None if place.is_cloud() => failures.push(unanswered(&place, no_provider(&place.provider))),
            None => {}
        }
    }
    (sites, failures)
}

impl Site {
    pub(super) fn provider(&self) -> Result<&Arc<dyn CloudProvider>, Failure> {
        self.provider
            .as_ref()
            .map_err(|failure| unanswered(&self.place, failure.clone()))
    }

    /// Every machine here.
    pub(super) async fn list(&self) -> Result<Vec<MachineRecord>, Failure> {
        let provider = self.provider()?;
        match timeout(PATIENCE, provider.list()).await {
            Ok(listed) => listed.map_err(|error| unanswered(&self.place, Failure::of(&error))),
            Err(_) => Err(unanswered(
                &self.place,
                Failure::new(Exit::DoesNotHold, silence()).help("check the network, and try again"),
            )),
        }
    }

    /// Every machine here, and whether it runs.
    pub(super) async fn machines(&self) -> Result<Vec<Found>, Failure> {
        let (machines, provider) = (self.list().await?, self.provider()?);
        let found = machines.into_iter().map(|machine| async move {
            let running = match timeout(PATIENCE, provider.is_running(&machine.id)).await {
                Ok(running) => running.map_err(|error| error.message().to_owned()),
                Err(_) => Err(silence()),
            };
            Found { machine, running }
        });
        Ok(join_all(found).await)
    }
}

/// Says which place it is that could not be asked, where there may be several.
fn unanswered(place: &Place, mut failure: Failure) -> Failure {
    if place.is_cloud() {
        failure.message = format!("machines at {place} cannot be looked at: {}", failure.message);
        // Whatever was found elsewhere holds, and there may be more.
        failure.exit = Exit::DoesNotHold;
    }
    failure
}

fn silence() -> String {
    format!("there was no answer within {} s", PATIENCE.as_secs())
}
