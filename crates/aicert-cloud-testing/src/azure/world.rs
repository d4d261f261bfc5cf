//! What there is, and what becomes of it.

mod groups;
mod pending;
mod sizes;
mod things;

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::blobs::Upload;
use super::{Effect, Fault, SUBSCRIPTION, Seen, Settings};
use groups::Group;
use pending::Pending;
use sizes::sizes;
use things::Thing;

/// The serial console of every machine.
pub(super) const CONSOLE: &str = "\u{1b}[2Jaicert-init: started\r\naicert-server: ready\r\n";

/// Everything there is.
#[derive(Debug)]
pub(super) struct World {
    pub(super) settings: Settings,
    pub(super) faults: Vec<Fault>,
    counts: HashMap<String, usize>,
    total: usize,
    groups: BTreeMap<String, Group>,
    ghosts: Vec<(Group, usize)>,
    things: BTreeMap<String, Thing>,
    pending: HashMap<u64, Pending>,
    next: u64,
    /// What lately had a part that is gone, and how often that is still said to be there.
    nested: HashMap<String, usize>,
    pub(super) unregistered: Vec<String>,
    pub(super) token: usize,
    pub(super) seen: Vec<Seen>,
    pub(super) violations: Vec<String>,
    pub(super) uploads: HashMap<String, Upload>,
    pub(super) machines_made: usize,
    pub(super) bytes_received: u64,
    pub(super) paused: usize,
    pub(super) released: usize,
}

/// An answer, before it is written.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Option<Value>,
}

pub(super) fn refuse(status: u16, code: &str, message: &str) -> Answer {
    Answer {
        status,
        headers: vec![("x-ms-request-id", "5f1c7a30-0000-4000-8000-000000000001".into())],
        body: Some(json!({ "error": { "code": code, "message": message } })),
    }
}

fn answer(status: u16, body: Value) -> Answer {
    Answer {
        status,
        headers: Vec::new(),
        body: Some(body),
    }
}

/// A request to Resource Manager.
pub(super) struct Request<'a> {
    pub(super) operation: &'a str,
    pub(super) base: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a [(String, String)],
    pub(super) body: &'a Value,
    pub(super) if_none_match: bool,
    pub(super) fail_later: Option<(&'static str, &'static str)>,
}

impl Request<'_> {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The group that the address names.
    fn group(&self) -> String {
        let parts: Vec<&str> = self.path.split('/').collect();
        parts.get(4).copied().unwrap_or_default().to_ascii_lowercase()
    }
}

impl World {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            faults: Vec::new(),
            counts: HashMap::new(),
            total: 0,
            groups: BTreeMap::new(),
            ghosts: Vec::new(),
            things: BTreeMap::new(),
            pending: HashMap::new(),
            next: 1,
            nested: HashMap::new(),
            unregistered: Vec::new(),
            token: 1,
            seen: Vec::new(),
            violations: Vec::new(),
            uploads: HashMap::new(),
            machines_made: 0,
            bytes_received: 0,
            paused: 0,
            released: 0,
        }
    }

    pub(super) fn left(&self) -> Vec<String> {
        let groups = self
            .groups
            .values()
            .filter(|group| !group.planted)
            .map(|group| format!("resource group {}", group.name));
        groups.chain(self.things.keys().cloned()).collect()
    }

    /// What is to go wrong with a request; counts it.
    pub(super) fn fault_of(&mut self, operation: &str) -> Option<Effect> {
        self.total += 1;
        let count = self.counts.entry(operation.to_owned()).or_default();
        *count += 1;
        let (count, total) = (*count, self.total);
        let at = self.faults.iter().position(|fault| match fault.operation {
            Some(name) => name == operation && fault.number == count,
            None => fault.number == total,
        })?;
        Some(self.faults.remove(at).effect)
    }

    /// Answers a request.
    pub(super) fn handle(&mut self, request: &Request<'_>) -> Answer {
        match request.operation {
            "ResourceGroups_List" => self.list_groups(request),
            "ResourceGroups_Get" => match self.groups.get(&request.group()) {
                Some(group) => answer(200, group.show()),
                None => refuse(404, "ResourceGroupNotFound", "Resource group could not be found."),
            },
            "ResourceGroups_CreateOrUpdate" => self.put_group(request),
            "ResourceGroups_Delete" => self.delete_group(request),
            "Resources_ListByResourceGroup" => self.list_things(request),
            "Providers_Get" => self.provider(request),
            "ResourceSkus_List" => answer(200, json!({ "value": sizes() })),
            "VirtualMachines_RetrieveBootDiagnosticsData" => self.console(request),
            "Disks_GrantAccess" | "Disks_RevokeAccess" => self.access(request),
            operation if operation.ends_with("_CreateOrUpdate") => self.put_thing(request),
            operation if operation.ends_with("_Get") => self.get_thing(request),
            operation if operation.ends_with("_Update") => self.update_thing(request),
            operation if operation.ends_with("_Delete") => self.delete_thing(request),
            other => refuse(501, "NotImplemented", other),
        }
    }

    fn provider(&self, request: &Request<'_>) -> Answer {
        let namespace = request.path.rsplit('/').next().unwrap_or_default();
        let state = if self.unregistered.iter().any(|gone| gone == namespace) {
            "NotRegistered"
        } else {
            "Registered"
        };
        answer(200, json!({ "namespace": namespace, "registrationState": state }))
    }
}
