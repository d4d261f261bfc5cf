//! Finding machines.

use aicert_cloud_common::Names;
use aicert_core::runtime::JobId;
use google_cloud_compute_v1::model::Instance;
use google_cloud_compute_v1::model::instances_scoped_list::warning::Code;

use crate::api::Api;
use crate::error::Fault;
use crate::instance::last;
use crate::marks::{is_of, read_labels};

/// How many items a page has at most.
const PAGE: u32 = 500;

impl Api {
    /// The instance of that job's name in a zone, whoever made it.
    pub(crate) async fn instance(
        &self,
        doing: &str,
        zone: &str,
        job: &JobId,
    ) -> Result<Option<Instance>, Fault> {
        let name = Names(job).main();
        self.find(doing, |clients| {
            let request = clients.instances.get();
            request
                .set_project(self.project())
                .set_zone(zone)
                .set_instance(&name)
                .send()
        })
        .await
    }

    /// Whether an instance is this owner's, for that job.
    pub(crate) fn is_own(&self, instance: &Instance, job: &JobId) -> bool {
        is_of(read_labels(&instance.labels).as_ref(), &self.config.owner, job)
    }

    /// All instances of this owner, or that of one job, in all zones that answer.
    ///
    /// Zones that do not answer are no error, or nobody could clean up anything while some zone of the world is down: what is
    /// there has a firewall rule, which is known everywhere.
    pub(crate) async fn own_instances(
        &self,
        doing: &str,
        job: Option<&JobId>,
    ) -> Result<Vec<Instance>, Fault> {
        let mut filter = format!("(labels.aicert-owner = \"{}\")", self.config.owner);
        if let Some(job) = job {
            filter.push_str(&format!(" (labels.aicert-job = \"{job}\")"));
        }
        let mut found = Vec::new();
        let mut page = String::new();
        loop {
            let list = self
                .ask(doing, |clients| {
                    let request = clients
                        .instances
                        .aggregated_list()
                        .set_project(self.project())
                        .set_filter(&filter)
                        .set_max_results(PAGE);
                    match page.as_str() {
                        "" => request.send(),
                        page => request.set_page_token(page).send(),
                    }
                })
                .await?;
            for scope in &list.unreachables {
                tracing::warn!(scope, "Compute Engine could not look for machines everywhere");
            }
            for (scope, list) in list.items {
                match list.warning.and_then(|warning| warning.code) {
                    None | Some(Code::NoResultsOnPage) => {}
                    Some(code) => {
                        tracing::warn!(
                            scope,
                            ?code,
                            "Compute Engine could not look for machines everywhere"
                        );
                    }
                }
                found.extend(list.instances);
            }
            match list.next_page_token.filter(|token| !token.is_empty()) {
                Some(token) if token != page => page = token,
                _ => break,
            }
        }
        // Labels are copied with a machine; its name is not.
        found.retain(|instance| {
            read_labels(&instance.labels).is_some_and(|tags| {
                tags.owner == self.config.owner
                    && job.is_none_or(|job| tags.job == *job)
                    && instance.name.as_deref() == Some(&Names(&tags.job).main())
            })
        });
        Ok(found)
    }

    /// The machine of a job, wherever it is.
    pub(crate) async fn locate(&self, doing: &str, job: &JobId) -> Result<Option<Instance>, Fault> {
        let rule = self.rule(doing, job).await?;
        let marks = rule.and_then(|rule| rule.marks);
        if let Some(marks) = marks.filter(|marks| is_of(Some(&marks.tags), &self.config.owner, job)) {
            let found = self.instance(doing, &marks.zone, job).await?;
            return Ok(found.filter(|instance| self.is_own(instance, job)));
        }
        Ok(self.own_instances(doing, Some(job)).await?.into_iter().next())
    }
}

/// The zone of an instance.
pub(crate) fn zone(instance: &Instance) -> &str {
    last(instance.zone.as_deref().unwrap_or_default())
}
