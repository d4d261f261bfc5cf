//! What there is.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};

use super::fault::Habits;
use super::{IMAGE, PROJECT};

/// An answer, with a body or without.
pub(super) type Reply = Option<Value>;

/// An error that is answered.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            reason,
            message: message.into(),
        }
    }

    pub(super) fn absent(what: &str) -> Self {
        Self::new(404, "notFound", format!("The resource '{what}' was not found"))
    }
}

/// Everything in a project.
#[derive(Debug)]
pub(super) struct State {
    pub(super) habits: Habits,
    pub(super) firewalls: BTreeMap<String, Shown>,
    /// By zone and name.
    pub(super) instances: BTreeMap<(String, String), Shown>,
    /// By path.
    pub(super) images: BTreeMap<String, Value>,
    /// What images were made from.
    pub(super) imported: BTreeMap<String, Vec<u8>>,
    pub(super) operations: BTreeMap<String, Running>,
    /// Operations by the requests that they came from.
    pub(super) requests: BTreeMap<(String, String), String>,
    pub(super) objects: BTreeMap<String, Stored>,
    pub(super) instances_made: usize,
    numbers: u64,
}

/// Something that does not show everywhere at once.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) json: Value,
    pub(super) unlisted: u32,
    pub(super) unseen: u32,
}

/// An operation.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) json: Value,
    /// After how many requests it has ended.
    pub(super) left: u32,
    pub(super) effect: Effect,
    pub(super) error: Option<(&'static str, &'static str)>,
}

/// What an operation does in the end.
#[derive(Debug, Clone)]
pub(super) enum Effect {
    Nothing,
    MakeFirewall(String),
    Start(String, String),
    DeleteInstance(String, String),
    DeleteFirewall(String),
    FinishImage(String),
    DeleteImage(String),
}

/// An object in the bucket.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) bytes: Bytes,
    pub(super) metadata: Value,
    pub(super) generation: u64,
    /// Of how many others it was composed.
    pub(super) components: u32,
}

impl Default for State {
    fn default() -> Self {
        let image = json!({
            "kind": "compute#image", "id": "77", "name": "aicert-base", "status": "READY", "diskSizeGb": "2",
            "architecture": "X86_64",
            "guestOsFeatures": [{"type": "UEFI_COMPATIBLE"}, {"type": "GVNIC"}, {"type": "SEV_CAPABLE"}],
        });
        Self {
            habits: Habits::default(),
            firewalls: BTreeMap::new(),
            instances: BTreeMap::new(),
            images: BTreeMap::from([(IMAGE.to_owned(), image)]),
            imported: BTreeMap::new(),
            operations: BTreeMap::new(),
            requests: BTreeMap::new(),
            objects: BTreeMap::new(),
            instances_made: 0,
            numbers: 0,
        }
    }
}

impl State {
    /// A number that nothing else has.
    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        4_000_000_000_000_000_000 + self.numbers
    }

    /// Time passes.
    pub(super) fn tick(&mut self) {
        let due: Vec<String> = self
            .operations
            .iter_mut()
            .filter(|(_, operation)| operation.json["status"] != "DONE")
            .filter_map(|(name, operation)| {
                operation.left = operation.left.saturating_sub(1);
                (operation.left == 0).then(|| name.clone())
            })
            .collect();
        for name in due {
            self.end(&name);
        }
    }

    /// An operation ends.
    fn end(&mut self, name: &str) {
        let Some(operation) = self.operations.get_mut(name) else {
            return;
        };
        operation.json["status"] = "DONE".into();
        operation.json["progress"] = 100.into();
        operation.json["endTime"] = "2026-01-01T00:00:00.000-00:00".into();
        let (effect, error) = (operation.effect.clone(), operation.error);
        if let Some((code, message)) = error {
            operation.json["error"] = json!({"errors": [{"code": code, "message": message}]});
            operation.json["httpErrorStatusCode"] = 503.into();
            operation.json["httpErrorMessage"] = "SERVICE UNAVAILABLE".into();
            match effect {
                Effect::Start(zone, name) => _ = self.instances.remove(&(zone, name)),
                Effect::FinishImage(path) => _ = self.images.remove(&path),
                Effect::MakeFirewall(name) => _ = self.firewalls.remove(&name),
                // What was to be deleted stays.
                Effect::DeleteInstance(zone, name) => {
                    if let Some(instance) = self.instances.get_mut(&(zone, name)) {
                        instance.json["status"] = "RUNNING".into();
                    }
                }
                _ => {}
            }
            return;
        }
        match effect {
            Effect::Nothing | Effect::MakeFirewall(_) => {}
            Effect::Start(zone, name) => {
                if let Some(instance) = self.instances.get_mut(&(zone, name)) {
                    instance.json["status"] = "RUNNING".into();
                    if !instance.json["scheduling"]["maxRunDuration"].is_null() {
                        instance.json["resourceStatus"] =
                            json!({"scheduling": {"terminationTimestamp": "2026-01-02T00:00:00.000-00:00"}});
                    }
                    instance.json["networkInterfaces"][0]["accessConfigs"][0]["natIP"] = "203.0.113.9".into();
                }
            }
            Effect::DeleteInstance(zone, name) => _ = self.instances.remove(&(zone, name)),
            Effect::DeleteFirewall(name) => _ = self.firewalls.remove(&name),
            Effect::FinishImage(path) => {
                if let Some(image) = self.images.get_mut(&path) {
                    image["status"] = "READY".into();
                }
            }
            Effect::DeleteImage(path) => _ = self.images.remove(&path),
        }
    }

    pub(super) fn resources(&self) -> Vec<String> {
        let mut resources = Vec::new();
        resources.extend(self.firewalls.keys().map(|name| format!("firewall {name}")));
        let instances = self.instances.keys();
        resources.extend(instances.map(|(zone, name)| format!("instance {zone}/{name}")));
        let images = self.images.keys().filter(|path| *path != IMAGE);
        resources.extend(images.map(|path| format!("image {path}")));
        resources.extend(self.objects.keys().map(|name| format!("object {name}")));
        resources
    }

    pub(super) fn stop_instances(&mut self) {
        for instance in self.instances.values_mut() {
            instance.json["status"] = "TERMINATED".into();
            // "The termination timestamp is automatically cleared whenever a VM is stopped or suspended" (Compute Engine's
            // documentation, "Limit the run time of a VM").
            if let Some(timers) = instance.json.pointer_mut("/resourceStatus/scheduling") {
                *timers = json!({});
            }
        }
    }

    pub(super) fn outlive_instances(&mut self) {
        self.instances.retain(|_, instance| {
            let timer = instance
                .json
                .pointer("/resourceStatus/scheduling/terminationTimestamp");
            timer.is_none() || instance.json["scheduling"]["instanceTerminationAction"] != "DELETE"
        });
    }

    pub(super) fn put(&mut self, zone: Option<&str>, mut json: Value) {
        json["id"] = self.number().to_string().into();
        let name = json["name"].as_str().unwrap_or_default().to_owned();
        let shown = |json| Shown {
            json,
            unlisted: 0,
            unseen: 0,
        };
        match zone {
            Some(zone) => {
                json["zone"] =
                    format!("https://www.googleapis.com/compute/v1/projects/{PROJECT}/zones/{zone}").into();
                self.instances.insert((zone.to_owned(), name), shown(json));
            }
            None => _ = self.firewalls.insert(name, shown(json)),
        }
    }

    pub(super) fn change_image(&mut self, path: &str, change: impl FnOnce(&mut Value)) {
        change(self.images.get_mut(path).expect("an image that is there"));
    }
}
