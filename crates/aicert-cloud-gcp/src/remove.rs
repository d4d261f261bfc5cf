//! Removing all that was made for a job.

use std::collections::BTreeSet;

use aicert_cloud_common::Names;
use aicert_core::cloud::{CloudError, CloudErrorKind};
use aicert_core::runtime::JobId;
use google_cloud_compute_v1::model::Instance;
use tokio::time::{Instant, sleep};

use crate::api::Api;
use crate::error::Fault;
use crate::locate::zone;
use crate::marks::{is_of, request_id};
use crate::operation::Scope;
use crate::rule::Rule;

/// How often a deletion that has failed is begun anew.
const ATTEMPTS: u32 = 3;

/// How often it is looked for what does not show, at least.
const LOOKS: u32 = 4;

impl Api {
    /// Removes the machine of a job, and then its firewall rule; what has the name of either and is not this owner's stays.
    pub(crate) async fn remove(&self, job: &JobId) -> Result<(), CloudError> {
        // What was asked for before may come into being, or show, only now: looked for until there was something, or patience
        // has ended. A look is never broken off: it deletes what it finds.
        let settle = self.config.paces.settle;
        let end = Instant::now() + settle.limit;
        let mut pause = settle.first;
        let mut looks = 1;
        let mut left = loop {
            match self.remove_what_shows(job).await {
                Ok((false, _)) if looks < LOOKS || Instant::now() + pause < end => {}
                Ok((_, left)) => break left,
                Err(fault) => break vec![fault],
            }
            sleep(pause).await;
            looks += 1;
            pause = (pause * 2).min(settle.longest);
        };
        if left.is_empty() {
            match self.remove_rule(job).await {
                Ok(()) => return Ok(()),
                Err(fault) => left.push(fault),
            }
        }
        Err(incomplete(job, &left))
    }

    /// Removes instances; whether there were any, and what could not be removed.
    async fn remove_what_shows(&self, job: &JobId) -> Result<(bool, Vec<Fault>), Fault> {
        let doing = format!("look for the machine of the job {job}");
        let marks = self.own_rule(&doing, job).await?.and_then(|rule| rule.marks);
        let mut zones: BTreeSet<String> = self
            .own_instances(&doing, Some(job))
            .await?
            .iter()
            .map(|instance| zone(instance).to_owned())
            .collect();
        // Asked by its name, a machine shows earlier than in lists.
        zones.extend(marks.map(|marks| marks.zone));
        let mut seen = false;
        let mut left = Vec::new();
        for zone in zones {
            match self.remove_instance(job, &zone).await {
                Ok(was_there) => seen |= was_there,
                Err(fault) => {
                    seen = true;
                    left.push(fault);
                }
            }
        }
        Ok((seen, left))
    }

    async fn remove_instance(&self, job: &JobId, zone: &str) -> Result<bool, Fault> {
        let name = Names(job).main();
        let doing = format!("delete the instance {name} in {zone}");
        let mut seen = false;
        let mut last = None;
        for attempt in 0..ATTEMPTS {
            let Some(instance) = self.instance(&doing, zone, job).await? else {
                let pending = if seen {
                    Vec::new()
                } else {
                    self.pending_in_zone(&doing, zone, &name).await?
                };
                if pending.is_empty() {
                    return Ok(seen);
                }
                for operation in pending {
                    // That it fails is as good.
                    let _ = self.wait(&doing, operation, Scope::Zone(zone), None).await;
                }
                continue;
            };
            if !self.is_own(&instance, job) {
                return Ok(seen);
            }
            seen = true;
            match self.delete_instance(&doing, zone, &instance, attempt).await {
                Ok(()) => last = None,
                Err(fault) if fault.kind() == CloudErrorKind::PermissionDenied => return Err(fault),
                // Somebody else may be deleting it.
                Err(fault) => last = Some(fault),
            }
        }
        match (self.instance(&doing, zone, job).await?, last) {
            (None, _) => Ok(seen),
            (Some(instance), _) if !self.is_own(&instance, job) => Ok(seen),
            (Some(_), Some(fault)) => Err(fault),
            (Some(_), None) => Err(Fault::new(&doing, CloudErrorKind::Failed, "it is there again")),
        }
    }

    async fn delete_instance(
        &self,
        doing: &str,
        zone: &str,
        instance: &Instance,
        attempt: u32,
    ) -> Result<(), Fault> {
        let name = instance.name.clone().unwrap_or_default();
        let id = instance.id.unwrap_or_default().to_string();
        let request_id = request_id(&["instance-delete", self.project(), &id, &attempt.to_string()]);
        let asked = self
            .find(doing, |clients| {
                let request = clients.instances.delete();
                request
                    .set_project(self.project())
                    .set_zone(zone)
                    .set_instance(&name)
                    .set_request_id(&request_id)
                    .send()
            })
            .await;
        match asked {
            Ok(None) => Ok(()),
            Ok(Some(operation)) => match self.wait(doing, operation, Scope::Zone(zone), None).await {
                Err(fault) if fault.is_absent() => Ok(()),
                done => done,
            },
            Err(fault) => {
                // Refused while something else is under way with it, such as another deletion.
                for operation in self.pending_in_zone(doing, zone, &name).await? {
                    let _ = self.wait(doing, operation, Scope::Zone(zone), None).await;
                }
                Err(fault)
            }
        }
    }

    /// The rule of a job, if it is this owner's.
    pub(crate) async fn own_rule(&self, doing: &str, job: &JobId) -> Result<Option<Rule>, Fault> {
        Ok(self.rule(doing, job).await?.filter(|rule| {
            let tags = rule.marks.as_ref().map(|marks| &marks.tags);
            is_of(tags, &self.config.owner, job)
        }))
    }

    async fn remove_rule(&self, job: &JobId) -> Result<(), Fault> {
        let doing = format!("delete the firewall rule {}", Names(job).main());
        let mut last = None;
        for attempt in 0..ATTEMPTS {
            let Some(rule) = self.own_rule(&doing, job).await? else {
                return Ok(());
            };
            let deleted = match self.delete_rule(&doing, &rule, attempt).await {
                Ok(operation) => self.wait(&doing, operation, Scope::Global, None).await,
                Err(fault) => Err(fault),
            };
            match deleted {
                Err(fault) if fault.is_absent() => {}
                Err(fault) if fault.kind() == CloudErrorKind::PermissionDenied => return Err(fault),
                Err(fault) => last = Some(fault),
                Ok(()) => last = None,
            }
        }
        match (self.own_rule(&doing, job).await?, last) {
            (None, _) => Ok(()),
            (Some(_), Some(fault)) => Err(fault),
            (Some(_), None) => Err(Fault::new(&doing, CloudErrorKind::Failed, "it is there again")),
        }
    }
}

/// Says what is left.
fn incomplete(job: &JobId, left: &[Fault]) -> CloudError {
    let kind = left.first().map_or(CloudErrorKind::Failed, Fault::kind);
    let left: Vec<_> = left.iter().map(Fault::to_string).collect();
    CloudError::new(
        kind,
        format!("not everything of the job {job} is removed: {}", left.join("; ")),
    )
    .with_advice(
        "try again with `aicert machines destroy`, or delete what is named in Google's console: machines cost until then",
    )
    .retryable()
}
