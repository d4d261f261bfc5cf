//! What there is, and what becomes of it.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::blobs::Upload;
use super::{Effect, Fault, IMAGE, SUBSCRIPTION, Seen, Settings};

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
    pub(super) token: usize,
    pub(super) seen: Vec<Seen>,
    pub(super) violations: Vec<String>,
    pub(super) uploads: HashMap<String, Upload>,
    pub(super) machines_made: usize,
    pub(super) bytes_received: u64,
    pub(super) paused: usize,
    pub(super) released: usize,
}

#[derive(Debug, Clone)]
struct Group {
    name: String,
    location: Value,
    tags: Value,
    unlisted: usize,
    deleting: bool,
    planted: bool,
}

#[derive(Debug, Clone)]
struct Thing {
    group: String,
    kind: String,
    name: String,
    body: Value,
    state: &'static str,
    power: &'static str,
    disk_state: &'static str,
}

/// An operation that goes on after the answer.
#[derive(Debug)]
struct Pending {
    what: What,
    polls: usize,
    failed: Option<(&'static str, &'static str)>,
    done: bool,
}

#[derive(Debug, Clone)]
enum What {
    Make(String),
    Remove(String),
    RemoveGroup(String),
    Grant(String),
    Revoke(String),
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

    pub(super) fn plant_group(&mut self, name: &str) {
        let group = Group {
            name: name.into(),
            location: json!("westeurope"),
            tags: json!({ "team": "somebody-else" }),
            unlisted: 0,
            deleting: false,
            planted: true,
        };
        self.groups.insert(name.to_ascii_lowercase(), group);
    }

    pub(super) fn stop_machine(&mut self, name: &str) {
        for thing in self.things.values_mut().filter(|thing| thing.name == name) {
            thing.power = "stopped";
        }
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

    fn list_groups(&mut self, request: &Request<'_>) -> Answer {
        let wanted = request.parameter("$filter").and_then(|filter| {
            let (name, value) = filter
                .strip_prefix("tagName eq '")?
                .split_once("' and tagValue eq '")?;
            Some((name.to_owned(), value.strip_suffix('\'')?.to_owned()))
        });
        let Some((name, value)) = wanted else {
            return refuse(400, "InvalidFilterInQueryString", "The filter is not understood.");
        };
        let matches = |group: &Group| group.tags.get(&name).and_then(Value::as_str) == Some(&value);
        let from: usize = request
            .parameter("$skiptoken")
            .and_then(|token| token.parse().ok())
            .unwrap_or(0);
        let mut all = Vec::new();
        for group in self.groups.values_mut() {
            if group.unlisted > 0 {
                group.unlisted -= 1;
            } else if matches(group) {
                all.push(group.show());
            }
        }
        for (group, left) in &mut self.ghosts {
            if *left > 0 && matches(group) {
                *left -= 1;
                all.push(group.show());
            }
        }
        let page = match self.settings.page {
            0 => usize::MAX,
            page => page,
        };
        let mut body = json!({ "value": all.iter().skip(from).take(page).collect::<Vec<_>>() });
        if all.len() > from.saturating_add(page) {
            let mut next =
                url::Url::parse(&format!("{}{}", request.base, request.path)).expect("an address of ours");
            next.query_pairs_mut()
                .extend_pairs(request.query.iter().filter(|(key, _)| key != "$skiptoken"))
                .append_pair("$skiptoken", &(from + page).to_string());
            body["nextLink"] = json!(next.as_str());
        }
        answer(200, body)
    }

    fn put_group(&mut self, request: &Request<'_>) -> Answer {
        let name = request.path.rsplit('/').next().unwrap_or_default();
        let status = match self.groups.get(&request.group()) {
            Some(group) if group.deleting => {
                return refuse(
                    409,
                    "ResourceGroupBeingDeleted",
                    "The resource group is being deleted.",
                );
            }
            Some(group) if group.location != request.body["location"] => {
                return refuse(409, "InvalidResourceGroupLocation", "It is in another location.");
            }
            Some(_) => 200,
            None => 201,
        };
        let group = Group {
            name: name.into(),
            location: request.body["location"].clone(),
            tags: request.body["tags"].clone(),
            unlisted: self.settings.unlisted,
            deleting: false,
            planted: false,
        };
        let shown = group.show();
        self.groups.insert(request.group(), group);
        answer(status, shown)
    }

    fn delete_group(&mut self, request: &Request<'_>) -> Answer {
        let name = request.group();
        let Some(group) = self.groups.get_mut(&name) else {
            return refuse(404, "ResourceGroupNotFound", "Resource group could not be found.");
        };
        if group.planted {
            self.violations
                .push(format!("the group {name} of somebody else was to be deleted"));
        }
        group.deleting = true;
        let polls = self.settings.deletion_polls;
        let number = self.begin(What::RemoveGroup(name), polls, request.fail_later);
        let url = format!(
            "{}/subscriptions/{SUBSCRIPTION}/operationresults/{number}?api-version=2022-09-01",
            request.base
        );
        Answer {
            status: 202,
            headers: vec![("location", url), ("retry-after", "0".into())],
            body: None,
        }
    }

    fn list_things(&self, request: &Request<'_>) -> Answer {
        let things: Vec<Value> = self
            .things
            .iter()
            .filter(|(_, thing)| thing.group == request.group())
            .map(|(id, thing)| json!({ "id": id, "name": thing.name, "type": thing.kind, "location": "westeurope" }))
            .collect();
        answer(200, json!({ "value": things }))
    }

    fn put_thing(&mut self, request: &Request<'_>) -> Answer {
        let group = request.group();
        match self.groups.get(&group) {
            None => return refuse(404, "ResourceGroupNotFound", "Resource group could not be found."),
            Some(group) if group.deleting => {
                return refuse(
                    409,
                    "ResourceGroupBeingDeleted",
                    "The resource group is being deleted.",
                );
            }
            Some(_) => {}
        }
        let existed = self.things.contains_key(request.path);
        if existed && request.if_none_match {
            return refuse(412, "PreconditionFailed", "The resource exists already.");
        }
        let (kind, name) = kind_of(request.path);
        if let Some(missing) = self.missing(request) {
            return refuse(404, missing.0, &missing.1);
        }
        let is_machine = kind == "Microsoft.Compute/virtualMachines";
        if is_machine && !existed {
            self.machines_made += 1;
        }
        let sent = (kind == "Microsoft.Compute/disks")
            .then(|| request.body["properties"]["creationData"]["uploadSizeBytes"].as_u64());
        let disk_state = if sent.flatten().is_some() {
            "ReadyToUpload"
        } else {
            "Unattached"
        };
        if let Some(Some(length)) = sent {
            self.uploads.insert(name.clone(), Upload::new(length));
        }
        let thing = Thing {
            group,
            body: request.body.clone(),
            // Networks have no state for what is being made.
            state: if kind.starts_with("Microsoft.Network") {
                "Updating"
            } else {
                "Creating"
            },
            kind: kind.clone(),
            name,
            power: "running",
            disk_state,
        };
        self.things.insert(request.path.to_owned(), thing);
        if kind == "Microsoft.DevTestLab/schedules" {
            self.finish(&What::Make(request.path.to_owned()), None);
            return answer(if existed { 200 } else { 201 }, self.show(request.path, None));
        }
        let polls = self.settings.polls;
        let number = self.begin(What::Make(request.path.to_owned()), polls, request.fail_later);
        let mut answer = answer(
            if kind == "Microsoft.Compute/disks" {
                202
            } else if existed {
                200
            } else {
                201
            },
            self.show(request.path, None),
        );
        answer
            .headers
            .push(("azure-asyncoperation", operation_url(request.base, &kind, number)));
        answer.headers.push(("retry-after", "0".into()));
        answer
    }

    /// What a request refers to and is not there.
    fn missing(&self, request: &Request<'_>) -> Option<(&'static str, String)> {
        let mut parts: Vec<&str> = request.path.split('/').collect();
        if parts.len() > 9 {
            parts.truncate(parts.len() - 2);
            let parent = parts.join("/");
            if !self.things.contains_key(&parent) {
                return Some(("ParentResourceNotFound", format!("{parent} is not there")));
            }
        }
        let id = |at: &str| {
            request
                .body
                .pointer(at)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let referred = [
            id("/properties/networkSecurityGroup/id"),
            id("/properties/ipConfigurations/0/properties/publicIPAddress/id"),
            id("/properties/ipConfigurations/0/properties/subnet/id")
                .map(|subnet| subnet.split("/subnets/").next().unwrap_or_default().to_owned()),
            id("/properties/networkProfile/networkInterfaces/0/id"),
            id("/properties/storageProfile/osDiskImage/source/id"),
            id("/properties/targetResourceId"),
        ];
        for id in referred.into_iter().flatten() {
            if !self.things.contains_key(&id) {
                return Some(("InvalidResourceReference", format!("{id} is not there")));
            }
        }
        let image = id("/properties/storageProfile/imageReference/id")?;
        (image != IMAGE && !self.things.contains_key(&image))
            .then(|| ("GalleryImageNotFound", format!("{image} is not there")))
    }

    fn get_thing(&mut self, request: &Request<'_>) -> Answer {
        if !self.groups.contains_key(&request.group()) {
            return refuse(404, "ResourceGroupNotFound", "Resource group could not be found.");
        }
        if !self.things.contains_key(request.path) {
            return refuse(404, "ResourceNotFound", "The resource was not found.");
        }
        let shown = self.show(request.path, request.parameter("$expand"));
        answer(200, shown)
    }

    fn update_thing(&mut self, request: &Request<'_>) -> Answer {
        let Some(thing) = self.things.get_mut(request.path) else {
            return refuse(404, "ResourceNotFound", "The resource was not found.");
        };
        thing.body["tags"] = request.body["tags"].clone();
        answer(200, self.show(request.path, None))
    }

    fn delete_thing(&mut self, request: &Request<'_>) -> Answer {
        let Some(thing) = self.things.get(request.path) else {
            return Answer {
                status: 204,
                headers: Vec::new(),
                body: None,
            };
        };
        let children = format!("{}/", request.path);
        if self.things.keys().any(|id| id.starts_with(&children)) {
            return refuse(409, "CannotDeleteResource", "Nested resources exist.");
        }
        if matches!(thing.disk_state, "ActiveUpload") && thing.kind == "Microsoft.Compute/disks" {
            return refuse(
                409,
                "OperationNotAllowed",
                "There is an active shared access signature.",
            );
        }
        let kind = thing.kind.clone();
        let polls = self.settings.polls;
        let number = self.begin(What::Remove(request.path.to_owned()), polls, request.fail_later);
        Answer {
            status: 202,
            headers: vec![
                ("azure-asyncoperation", operation_url(request.base, &kind, number)),
                ("retry-after", "0".into()),
            ],
            body: None,
        }
    }

    fn access(&mut self, request: &Request<'_>) -> Answer {
        let Some((id, _)) = request.path.rsplit_once('/') else {
            return refuse(404, "ResourceNotFound", "The resource was not found.");
        };
        let Some(thing) = self.things.get(id) else {
            return refuse(404, "ResourceNotFound", "The resource was not found.");
        };
        let what = if request.operation == "Disks_GrantAccess" {
            if !matches!(thing.disk_state, "ReadyToUpload" | "ActiveUpload") {
                return refuse(409, "OperationNotAllowed", "The disk takes no uploads any more.");
            }
            What::Grant(id.to_owned())
        } else {
            What::Revoke(id.to_owned())
        };
        let kind = thing.kind.clone();
        let polls = self.settings.polls;
        let number = self.begin(what, polls, request.fail_later);
        let url = operation_url(request.base, &kind, number);
        let located = url.replace('?', "?monitor=true&");
        Answer {
            status: 202,
            headers: vec![
                ("azure-asyncoperation", url),
                ("location", located),
                ("retry-after", "0".into()),
            ],
            body: None,
        }
    }

    fn console(&self, request: &Request<'_>) -> Answer {
        let Some((id, _)) = request.path.rsplit_once('/') else {
            return refuse(404, "ResourceNotFound", "The resource was not found.");
        };
        match self.things.get(id) {
            None => refuse(404, "ResourceNotFound", "The resource was not found."),
            Some(thing) => answer(
                200,
                json!({
                    "consoleScreenshotBlobUri": format!("{}/blob/screen/{}?sig=secret", request.base, thing.name),
                    "serialConsoleLogBlobUri": format!("{}/blob/console/{}?sig=secret", request.base, thing.name),
                }),
            ),
        }
    }

    fn begin(&mut self, what: What, polls: usize, failed: Option<(&'static str, &'static str)>) -> u64 {
        let number = self.next;
        self.next += 1;
        let mut pending = Pending {
            what,
            polls,
            failed,
            done: false,
        };
        if polls == 0 {
            pending.done = true;
            let what = pending.what.clone();
            self.pending.insert(number, pending);
            self.finish(&what, failed);
        } else {
            self.pending.insert(number, pending);
        }
        number
    }

    /// Things go on while somebody looks at them, whichever way.
    pub(super) fn advance(&mut self, path: &str) {
        let numbers: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, pending)| {
                !pending.done
                    && match &pending.what {
                        What::RemoveGroup(name) => path
                            .to_ascii_lowercase()
                            .ends_with(&format!("resourcegroups/{name}")),
                        What::Make(id) | What::Remove(id) | What::Grant(id) | What::Revoke(id) => path == id,
                    }
            })
            .map(|(number, _)| *number)
            .collect();
        for number in numbers {
            self.step(number);
        }
    }

    fn step(&mut self, number: u64) {
        let Some(pending) = self.pending.get_mut(&number).filter(|pending| !pending.done) else {
            return;
        };
        pending.polls = pending.polls.saturating_sub(1);
        if pending.polls == 0 {
            pending.done = true;
            let (what, failed) = (pending.what.clone(), pending.failed);
            self.finish(&what, failed);
        }
    }

    fn finish(&mut self, what: &What, failed: Option<(&'static str, &'static str)>) {
        match what {
            What::Make(id) => {
                let Some(thing) = self.things.get_mut(id) else {
                    return;
                };
                thing.state = if failed.is_some() { "Failed" } else { "Succeeded" };
                if thing.kind == "Microsoft.Compute/virtualMachines" && failed.is_none() {
                    let mut disk = thing.clone();
                    disk.kind = "Microsoft.Compute/disks".into();
                    disk.name = format!("{}_OsDisk_1", thing.name);
                    let id = id.replace("/virtualMachines/", "/disks/") + "_OsDisk_1";
                    self.things.insert(id, disk);
                }
            }
            What::Remove(id) if failed.is_none() => {
                self.things.remove(id);
            }
            What::RemoveGroup(name) => match (failed, self.groups.get_mut(name)) {
                (Some(_), Some(group)) => group.deleting = false,
                _ => {
                    self.things.retain(|_, thing| thing.group != *name);
                    if let Some(group) = self.groups.remove(name) {
                        self.ghosts.push((group, self.settings.lingering));
                    }
                }
            },
            What::Grant(id) if failed.is_none() => {
                if let Some(thing) = self.things.get_mut(id) {
                    thing.disk_state = "ActiveUpload";
                }
            }
            What::Revoke(id) if failed.is_none() => {
                let Some(thing) = self.things.get_mut(id) else {
                    return;
                };
                thing.disk_state = "Unattached";
                if thing.body["tags"].get("aicert-complete").is_some()
                    && let Some(fault) = self.uploads.get(&thing.name).and_then(Upload::fault_as_disk)
                {
                    self.violations.push(format!("the disk {}: {fault}", thing.name));
                }
            }
            What::Remove(_) | What::Grant(_) | What::Revoke(_) => {}
        }
    }

    /// A look at an operation; nothing when there is none such.
    pub(super) fn poll(&mut self, base: &str, number: u64, located: bool) -> Option<Answer> {
        self.step(number);
        let pending = self.pending.get(&number)?;
        let group = matches!(pending.what, What::RemoveGroup(_));
        if !pending.done {
            return Some(Answer {
                status: if located || group { 202 } else { 200 },
                headers: vec![("retry-after", "0".into())],
                body: (!located && !group).then(|| json!({ "status": "InProgress" })),
            });
        }
        Some(match (pending.failed, located || group) {
            (Some((code, message)), true) => refuse(409, code, message),
            (Some((code, message)), false) => answer(
                200,
                json!({ "status": "Failed", "error": { "code": code, "message": message } }),
            ),
            (None, false) => answer(200, json!({ "status": "Succeeded" })),
            (None, true) => match &pending.what {
                What::Grant(id) => {
                    let disk = id.rsplit('/').next().unwrap_or_default();
                    answer(
                        200,
                        json!({ "accessSAS": format!("{base}/blob/upload/{disk}?sv=2018-03-28&sr=b&sig=secret") }),
                    )
                }
                _ => Answer {
                    status: 200,
                    headers: Vec::new(),
                    body: None,
                },
            },
        })
    }

    /// Something as an answer shows it.
    fn show(&self, id: &str, expand: Option<&str>) -> Value {
        let Some(thing) = self.things.get(id) else {
            return Value::Null;
        };
        let mut body = thing.body.clone();
        body["id"] = json!(id);
        body["name"] = json!(thing.name);
        body["type"] = json!(thing.kind);
        let properties = &mut body["properties"];
        properties["provisioningState"] = json!(thing.state);
        let told = properties["userData"].take();
        if let Some(map) = properties.as_object_mut() {
            map.remove("userData");
        }
        match thing.kind.as_str() {
            "Microsoft.Compute/virtualMachines" => {
                properties["vmId"] = json!("9f4c1c0e-0000-4000-8000-000000000002");
                if expand == Some("userData") {
                    properties["userData"] = told;
                }
                if expand == Some("instanceView") {
                    let mut statuses =
                        vec![json!({ "code": "ProvisioningState/succeeded", "level": "Info" })];
                    if thing.state == "Succeeded" {
                        statuses
                            .push(json!({ "code": format!("PowerState/{}", thing.power), "level": "Info" }));
                    }
                    properties["instanceView"] = json!({ "statuses": statuses });
                }
            }
            "Microsoft.Network/publicIPAddresses" if thing.state == "Succeeded" => {
                properties["ipAddress"] = json!("203.0.113.50");
            }
            "Microsoft.Compute/disks" => properties["diskState"] = json!(thing.disk_state),
            _ => {}
        }
        body
    }
}

impl Group {
    fn show(&self) -> Value {
        json!({
            "id": format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{}", self.name),
            "name": self.name,
            "type": "Microsoft.Resources/resourceGroups",
            "location": self.location,
            "tags": self.tags,
            "properties": { "provisioningState": if self.deleting { "Deleting" } else { "Succeeded" } },
        })
    }
}

/// The kind and the name of what an address is of.
fn kind_of(path: &str) -> (String, String) {
    let parts: Vec<&str> = path.split('/').collect();
    let at = parts.iter().position(|part| *part == "providers").unwrap_or(0);
    let mut kind = vec![parts.get(at + 1).copied().unwrap_or_default()];
    kind.extend(parts.iter().skip(at + 2).step_by(2));
    (
        kind.join("/"),
        parts.last().copied().unwrap_or_default().to_owned(),
    )
}

/// Where operations are looked at: each service of Azure has a place of its own.
fn operation_url(base: &str, kind: &str, number: u64) -> String {
    let (service, place) = match kind {
        "Microsoft.Compute/disks" => ("Microsoft.Compute", "DiskOperations"),
        kind if kind.starts_with("Microsoft.Compute/galleries") => ("Microsoft.Compute", "capsOperations"),
        kind if kind.starts_with("Microsoft.Compute") => ("Microsoft.Compute", "operations"),
        _ => ("Microsoft.Network", "operations"),
    };
    format!(
        "{base}/subscriptions/{SUBSCRIPTION}/providers/{service}/locations/westeurope/{place}/{number}?api-version=2024-07-01"
    )
}

/// Sizes, as `westeurope` could have them.
fn sizes() -> Vec<Value> {
    let size = |name: &str, capabilities: &[(&str, &str)]| {
        let mut all = vec![json!({ "name": "HyperVGenerations", "value": "V1,V2" })];
        all.extend(
            capabilities
                .iter()
                .map(|(name, value)| json!({ "name": name, "value": value })),
        );
        json!({ "resourceType": "virtualMachines", "name": name, "locations": ["westeurope"], "capabilities": all, "restrictions": [] })
    };
    let mut sold_out = size("Standard_NC24ads_A100_v4", &[("GPUs", "1")]);
    sold_out["restrictions"] = json!([{ "type": "Location", "values": ["westeurope"], "reasonCode": "NotAvailableForSubscription" }]);
    vec![
        json!({ "resourceType": "disks", "name": "Standard_D4s_v5" }),
        size(
            "Standard_D4s_v5",
            &[("vCPUs", "4"), ("LowPriorityCapable", "True")],
        ),
        size(
            "Standard_NC4as_T4_v3",
            &[("GPUs", "1"), ("LowPriorityCapable", "True")],
        ),
        size("Standard_DC4as_v5", &[("ConfidentialComputingType", "SNP")]),
        size("Standard_M8ms", &[("TrustedLaunchDisabled", "True")]),
        sold_out,
    ]
}
