//! The firewall rule of a job: it lets its users reach the machine's server, and is the trace that is left before there is a
//! machine and until it is gone.

use std::time::{SystemTime, UNIX_EPOCH};

use aicert_cloud_common::Names;
use aicert_core::cloud::{CloudErrorKind, Network};
use aicert_core::progress::{Progress, ProgressEvent};
use aicert_core::runtime::JobId;
use google_cloud_compute_v1::model::firewall::{Allowed, Direction};
use google_cloud_compute_v1::model::{Firewall, Operation};

use crate::SERVER_PORT;
use crate::api::Api;
use crate::error::Fault;
use crate::marks::{Marks, request_id};

/// A rule that has the name of a job's.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// Google's number for it.
    pub(crate) id: u64,
    /// What it says of itself, when that is of aicert.
    pub(crate) marks: Option<Marks>,
    /// Whom it admits.
    pub(crate) ranges: Vec<String>,
    pub(crate) name: String,
}

impl Rule {
    pub(crate) fn read(firewall: Firewall) -> Self {
        Self {
            id: firewall.id.unwrap_or_default(),
            marks: Marks::read(firewall.description.as_deref().unwrap_or_default()),
            ranges: firewall.source_ranges,
            name: firewall.name.unwrap_or_default(),
        }
    }
}

/// The address of a network that is named, in this project unless it says otherwise.
pub(crate) fn network(project: &str, name: Option<&str>) -> String {
    match name {
        Some(path) if path.contains('/') => path.to_owned(),
        name => format!("projects/{project}/global/networks/{}", name.unwrap_or("default")),
    }
}

/// Who may reach a machine, in IPv4: machines have no other address.
pub(crate) fn ranges(access: &[Network], progress: &Progress) -> Result<Vec<String>, Fault> {
    let (v4, v6): (Vec<&Network>, Vec<&Network>) =
        access.iter().partition(|network| network.address().is_ipv4());
    if v4.is_empty() && !v6.is_empty() {
        return Err(Fault::new(
            "admit anybody to the machine",
            CloudErrorKind::Unsupported,
            "machines in Compute Engine have IPv4 addresses, and `access` names IPv6 alone",
        )
        .advise("name the IPv4 address that you come from as well"));
    }
    if !v6.is_empty() {
        progress.send(ProgressEvent::Warning {
            message:
                "IPv6 addresses in `access` are of no use: machines in Compute Engine have IPv4 addresses"
                    .into(),
        });
    }
    let mut ranges: Vec<_> = v4.into_iter().map(Network::to_string).collect();
    ranges.sort();
    ranges.dedup();
    Ok(ranges)
}

/// The rule that is made for a job. Nobody being admitted is a rule that is off: one without addresses would admit everybody.
pub(crate) fn body(name: &str, network: &str, ranges: &[String], marks: &Marks) -> Firewall {
    Firewall::new()
        .set_name(name)
        .set_description(marks.describe())
        .set_network(network)
        .set_direction(Direction::Ingress)
        .set_priority(1000)
        .set_disabled(ranges.is_empty())
        .set_source_ranges(if ranges.is_empty() {
            vec!["127.0.0.1/32".to_owned()]
        } else {
            ranges.to_vec()
        })
        .set_target_tags([name])
        .set_allowed([Allowed::new()
            .set_ip_protocol("tcp")
            .set_ports([SERVER_PORT.to_string()])])
}

impl Api {
    /// The rule of that job's name, whoever made it.
    pub(crate) async fn rule(&self, doing: &str, job: &JobId) -> Result<Option<Rule>, Fault> {
        let name = Names(job).main();
        let found = self
            .find(doing, |clients| {
                let request = clients.firewalls.get();
                request.set_project(self.project()).set_firewall(&name).send()
            })
            .await?;
        Ok(found.map(Rule::read))
    }

    /// Every rule whose name could be one of ours.
    pub(crate) async fn rules(&self, doing: &str) -> Result<Vec<Rule>, Fault> {
        let mut rules = Vec::new();
        let mut page = String::new();
        loop {
            let list = self
                .ask(doing, |clients| {
                    let request = clients
                        .firewalls
                        .list()
                        .set_project(self.project())
                        .set_filter("name eq \"aicert-.*\"");
                    match page.as_str() {
                        "" => request.send(),
                        page => request.set_page_token(page).send(),
                    }
                })
                .await?;
            rules.extend(list.items.into_iter().map(Rule::read));
            match list.next_page_token.filter(|token| !token.is_empty()) {
                Some(token) if token != page => page = token,
                _ => return Ok(rules),
            }
        }
    }

    pub(crate) async fn insert_rule(
        &self,
        doing: &str,
        rule: &Firewall,
        marks: &Marks,
    ) -> Result<Operation, Fault> {
        // Another attempt is another request, however soon it comes: Google would take it for this one.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let attempt = format!("{} {}", std::process::id(), now.as_nanos());
        let id = request_id(&["firewall", self.project(), marks.tags.job.as_str(), &attempt]);
        self.ask(doing, |clients| {
            let request = clients.firewalls.insert();
            request
                .set_project(self.project())
                .set_request_id(&id)
                .set_body(rule.clone())
                .send()
        })
        .await
    }

    pub(crate) async fn delete_rule(
        &self,
        doing: &str,
        rule: &Rule,
        attempt: u32,
    ) -> Result<Operation, Fault> {
        let id = request_id(&[
            "firewall-delete",
            self.project(),
            &rule.id.to_string(),
            &attempt.to_string(),
        ]);
        self.ask(doing, |clients| {
            let request = clients.firewalls.delete();
            request
                .set_project(self.project())
                .set_request_id(&id)
                .set_firewall(&rule.name)
                .send()
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_admitted_who_is_not_named() {
        let networks =
            |texts: &[&str]| -> Vec<Network> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let quiet = Progress::ignored();
        assert_eq!(
            ranges(
                &networks(&["203.0.113.7", "198.51.100.0/24", "203.0.113.7", "::1"]),
                &quiet
            )
            .unwrap(),
            ["198.51.100.0/24", "203.0.113.7/32"]
        );
        assert!(ranges(&networks(&["2001:db8::/32"]), &quiet).is_err());
        assert!(ranges(&[], &quiet).unwrap().is_empty());
    }

    #[test]
    fn networks_are_of_the_project_unless_they_say_otherwise() {
        assert_eq!(network("p", None), "projects/p/global/networks/default");
        assert_eq!(network("p", Some("n")), "projects/p/global/networks/n");
        let other = "projects/host/global/networks/n";
        assert_eq!(network("p", Some(other)), other);
    }
}
