//! What is in groups: making, changing, showing and deleting it.

use serde_json::{Value, json};

use super::pending::{What, operation_url};
use super::sizes::capability;
use super::{Answer, Request, World, answer, refuse};
use crate::azure::IMAGE;
use crate::azure::blobs::Upload;

#[derive(Debug, Clone)]
pub(super) struct Thing {
    pub(super) group: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) body: Value,
    pub(super) state: &'static str,
    pub(super) power: &'static str,
    pub(super) disk_state: &'static str,
}

impl World {
    pub(in crate::azure) fn stop_machine(&mut self, name: &str) {
        for thing in self.things.values_mut().filter(|thing| thing.name == name) {
            thing.power = "stopped";
        }
    }

    pub(super) fn list_things(&self, request: &Request<'_>) -> Answer {
        let things: Vec<Value> = self
            .things
            .iter()
            .filter(|(_, thing)| thing.group == request.group())
            .map(|(id, thing)| json!({ "id": id, "name": thing.name, "type": thing.kind, "location": "westeurope" }))
            .collect();
        answer(200, json!({ "value": things }))
    }

    pub(super) fn put_thing(&mut self, request: &Request<'_>) -> Answer {
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
        if let Some(namespace) = self
            .unregistered
            .iter()
            .find(|gone| request.path.contains(&format!("/providers/{gone}/")))
        {
            let message = format!("The subscription is not registered to use namespace '{namespace}'.");
            return refuse(409, "MissingSubscriptionRegistration", &message);
        }
        let existed = self.things.contains_key(request.path);
        if self
            .things
            .get(request.path)
            .is_some_and(|thing| thing.body["location"] != request.body["location"])
        {
            return refuse(409, "InvalidResourceLocation", "It is in another location.");
        }
        if existed && request.if_none_match {
            return refuse(412, "PreconditionFailed", "The resource exists already.");
        }
        let (kind, name) = kind_of(request.path);
        if let Some(missing) = self.missing(request) {
            return refuse(404, missing.0, &missing.1);
        }
        if let Some(fixed) = self.changes_what_is_fixed(request) {
            return refuse(
                409,
                "PropertyChangeNotAllowed",
                &format!("{fixed} cannot be changed."),
            );
        }
        if let Some(why) = unfit(request.body) {
            return refuse(400, "InvalidParameter", &why);
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
            // It says itself how far it is: no operation is named.
            let shown = self.show(request.path, None);
            self.begin(What::Make(request.path.to_owned()), 1, None);
            return answer(if existed { 200 } else { 201 }, shown);
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
            // What a version was made from may be gone since.
            let is_made = id.contains("/disks/") && self.things.contains_key(request.path);
            if !is_made && !self.things.contains_key(&id) {
                return Some(("InvalidResourceReference", format!("{id} is not there")));
            }
        }
        let image = id("/properties/storageProfile/imageReference/id")?;
        (image != IMAGE && !self.things.contains_key(&image))
            .then(|| ("GalleryImageNotFound", format!("{image} is not there")))
    }

    pub(super) fn get_thing(&mut self, request: &Request<'_>) -> Answer {
        if !self.groups.contains_key(&request.group()) {
            return refuse(404, "ResourceGroupNotFound", "Resource group could not be found.");
        }
        if !self.things.contains_key(request.path) {
            return refuse(404, "ResourceNotFound", "The resource was not found.");
        }
        let shown = self.show(request.path, request.parameter("$expand"));
        answer(200, shown)
    }

    /// What of a version of an image stays as it was made.
    fn changes_what_is_fixed(&self, request: &Request<'_>) -> Option<&'static str> {
        let thing = self.things.get(request.path)?;
        ["/properties/storageProfile", "/properties/securityProfile"]
            .into_iter()
            .find(|at| {
                thing.kind == "Microsoft.Compute/galleries/images/versions"
                    && thing.body.pointer(at) != request.body.pointer(at)
            })
    }

    pub(super) fn update_thing(&mut self, request: &Request<'_>) -> Answer {
        let Some(thing) = self.things.get_mut(request.path) else {
            return refuse(404, "ResourceNotFound", "The resource was not found.");
        };
        if thing.disk_state == "ActiveUpload" {
            return refuse(409, "OperationNotAllowed", "The disk is written to.");
        }
        thing.body["tags"] = request.body["tags"].clone();
        if thing.body["tags"].get("aicert-complete").is_some()
            && let Some(fault) = self.uploads.get(&thing.name).and_then(Upload::fault_as_disk)
        {
            self.violations.push(format!("the disk {}: {fault}", thing.name));
        }
        answer(200, self.show(request.path, None))
    }

    pub(super) fn delete_thing(&mut self, request: &Request<'_>) -> Answer {
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
        if let Some(left) = self.nested.get_mut(request.path).filter(|left| **left > 0) {
            *left -= 1;
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

    pub(super) fn access(&mut self, request: &Request<'_>) -> Answer {
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
        } else if thing.disk_state == "ActiveUpload" {
            What::Revoke(id.to_owned())
        } else {
            return refuse(409, "OperationNotAllowed", "Nobody has access to the disk.");
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

    pub(super) fn console(&self, request: &Request<'_>) -> Answer {
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

/// Why a machine of that size does not start with these disks.
fn unfit(machine: &Value) -> Option<String> {
    let text = |at: &str| machine.pointer(at).and_then(Value::as_str);
    let size = text("/properties/hardwareProfile/vmSize")?;
    let can = |name: &str| capability(size, name).unwrap_or_default();
    let premium =
        text("/properties/storageProfile/osDisk/managedDisk/storageAccountType") == Some("Premium_LRS");
    if premium && can("PremiumIO") == "False" {
        return Some(format!(
            "Requested operation cannot be performed because the VM size {size} does not support the storage account type \
             Premium_LRS of disk."
        ));
    }
    let controllers = can("DiskControllerTypes");
    let asked = text("/properties/storageProfile/diskControllerType").unwrap_or("SCSI");
    (!controllers.is_empty() && !controllers.contains(asked)).then(|| {
        format!(
            "The VM size '{size}' cannot boot with OS image or disk. Please check that disk controller types supported by the OS \
             image or disk is one of the supported disk controller types for the VM size '{size}'."
        )
    })
}
