//! What moto does not keep: client tokens, what images are, what takes time, and blocks of snapshots.

use std::collections::{BTreeMap, BTreeSet};

use roxmltree::Document;

use super::fault::Slow;
use super::query::Seen;
use super::xml::{self, Edits};

/// The state of one account.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) slow: Slow,
    /// By their ids: how they were registered.
    pub(crate) images: BTreeMap<String, Seen>,
    pub(crate) instances: BTreeMap<String, Instance>,
    /// The requests that instances were made with, by their client tokens.
    tokens: BTreeMap<String, (Seen, String)>,
    pub(crate) snapshots: BTreeMap<String, Snapshot>,
    /// How often something is asked for until it is listed, runs, has ended, or is complete.
    unlisted: BTreeMap<String, u32>,
    starting: BTreeMap<String, u32>,
    ending: BTreeMap<String, u32>,
    completing: BTreeMap<String, u32>,
}

pub(crate) struct Instance {
    groups: BTreeSet<String>,
    ended: bool,
}

/// A snapshot whose blocks were written one by one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) token: String,
    pub(crate) request: BTreeMap<String, String>,
    pub(crate) blocks: BTreeMap<i32, [u8; 32]>,
    pub(crate) completed: bool,
    pub(crate) failed: bool,
}

/// A refusal: a code and a message.
pub(crate) type Refusal = (&'static str, String);

impl World {
    /// What was made is listed, runs or is complete some time later.
    pub(crate) fn made(&mut self, id: &str) {
        if self.slow.listing > 0 {
            self.unlisted.insert(id.into(), self.slow.listing);
        }
    }

    /// Instances that have not ended are left out so many times, though they were listed before.
    pub(crate) fn unlist_instances(&mut self, times: u32) {
        let there = self.instances.iter().filter(|(_, instance)| !instance.ended);
        self.unlisted.extend(there.map(|(id, _)| (id.clone(), times)));
    }

    /// Something that Amazon would refuse and moto would not.
    pub(crate) fn refuses(&mut self, seen: &Seen) -> Option<Refusal> {
        match seen.operation.as_str() {
            "DeleteSecurityGroup" => {
                let group = seen.get("GroupId");
                let ending = &self.ending;
                let used = self
                    .instances
                    .iter()
                    .find(|(id, instance)| {
                        instance.groups.contains(group)
                            && (!instance.ended || ending.get(*id).is_some_and(|n| *n > 0))
                    })
                    .map(|(id, _)| id.clone())?;
                // Time passes for whoever waits with this alone.
                if let Some(asks) = self.ending.get_mut(&used) {
                    *asks = asks.saturating_sub(1);
                }
                Some((
                    "DependencyViolation",
                    format!("resource {group} has a dependent object"),
                ))
            }
            "RegisterImage" => {
                let name = seen.get("Name");
                if self.images.values().any(|image| image.get("Name") == name) {
                    return Some((
                        "InvalidAMIName.Duplicate",
                        format!("AMI name {name} is already in use"),
                    ));
                }
                let snapshot = seen.get("BlockDeviceMapping.1.Ebs.SnapshotId");
                let pending = self
                    .snapshots
                    .get(snapshot)
                    .is_some_and(|snapshot| !snapshot.completed);
                let completing = self.completing.get(snapshot).is_some_and(|asks| *asks > 0);
                (pending || completing).then(|| ("InvalidSnapshot", format!("{snapshot} is not completed")))
            }
            "DeleteSnapshot" => {
                let snapshot = seen.get("SnapshotId");
                let used = self
                    .images
                    .values()
                    .any(|image| image.get("BlockDeviceMapping.1.Ebs.SnapshotId") == snapshot);
                used.then(|| ("InvalidSnapshot.InUse", format!("{snapshot} is in use by an AMI")))
            }
            "RunInstances" => {
                let (before, id) = self.tokens.get(seen.get("ClientToken"))?;
                if before.parameters != seen.parameters {
                    return Some((
                        "IdempotentParameterMismatch",
                        "the client token was used with other parameters".into(),
                    ));
                }
                let ended = self.instances.get(id).is_some_and(|instance| instance.ended);
                ended.then(|| ("IdempotentInstanceTerminated", format!("{id} is terminated")))
            }
            _ => None,
        }
    }

    /// The instance that this very request has made before.
    pub(crate) fn repeated(&self, seen: &Seen) -> Option<String> {
        let (_, id) = self.tokens.get(seen.get("ClientToken"))?;
        Some(id.clone())
    }

    /// The answer to a request to terminate an instance that has been terminated.
    pub(crate) fn ended_before(&self, seen: &Seen) -> Option<String> {
        let id = seen.get("InstanceId.1");
        let ended = seen.operation == "TerminateInstances" && self.instances.get(id)?.ended;
        ended.then(|| {
            let state = "<code>48</code><name>terminated</name>";
            format!(
                "<TerminateInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15\"><instancesSet><item><instanceId>{id}\
                 </instanceId><currentState>{state}</currentState><previousState>{state}</previousState></item></instancesSet>\
                 </TerminateInstancesResponse>"
            )
        })
    }

    /// Keeps what moto has just done.
    pub(crate) fn note(&mut self, seen: &Seen, answer: &str) {
        let Ok(document) = Document::parse(answer) else {
            return;
        };
        match seen.operation.as_str() {
            "RunInstances" => {
                for item in xml::items(&document, "instancesSet") {
                    let id = xml::text(item, "instanceId").to_owned();
                    let groups = seen
                        .parameters
                        .iter()
                        .filter(|(key, _)| key.contains("SecurityGroupId"))
                        .map(|(_, group)| group.clone())
                        .collect();
                    self.instances
                        .insert(id.clone(), Instance { groups, ended: false });
                    self.tokens
                        .insert(seen.get("ClientToken").into(), (seen.clone(), id.clone()));
                    self.starting.insert(id.clone(), self.slow.start);
                    self.made(&id);
                }
            }
            "TerminateInstances" => {
                for item in xml::items(&document, "instancesSet") {
                    let id = xml::text(item, "instanceId");
                    if let Some(instance) = self.instances.get_mut(id)
                        && !instance.ended
                    {
                        instance.ended = true;
                        self.ending.insert(id.into(), self.slow.end);
                    }
                }
            }
            "CreateSecurityGroup" => {
                let id = xml::text(document.root_element(), "groupId").to_owned();
                self.made(&id);
            }
            "RegisterImage" => {
                let id = xml::text(document.root_element(), "imageId").to_owned();
                self.completing.insert(id.clone(), self.slow.image);
                self.made(&id);
                self.images.insert(id, seen.clone());
            }
            "DeregisterImage" => {
                self.images.remove(seen.get("ImageId"));
            }
            "DeleteSnapshot" => {
                self.snapshots.remove(seen.get("SnapshotId"));
            }
            _ => {}
        }
    }

    /// A snapshot is sealed.
    pub(crate) fn complete(&mut self, id: &str) {
        if let Some(snapshot) = self.snapshots.get_mut(id) {
            snapshot.completed = true;
            self.completing.insert(id.into(), self.slow.snapshot);
        }
    }

    /// An answer as Amazon would have given it. `states` are those of instances that were asked for.
    pub(crate) fn patch(&mut self, operation: &str, answer: &str, states: &[String]) -> String {
        let Ok(document) = Document::parse(answer) else {
            return answer.into();
        };
        let mut edits = Edits::default();
        match operation {
            "DescribeInstances" => {
                for reservation in xml::items(&document, "reservationSet") {
                    let Some(item) =
                        xml::child(reservation, "instancesSet").and_then(|set| xml::child(set, "item"))
                    else {
                        continue;
                    };
                    let id = xml::text(item, "instanceId");
                    let state = xml::child(item, "instanceState");
                    let now = state.map_or("", |state| xml::text(state, "name"));
                    let (code, shown) = if now == "terminated" && passes(&mut self.ending, id) {
                        ("32", "shutting-down")
                    } else if now == "running" && passes(&mut self.starting, id) {
                        if let Some(address) = xml::child(item, "ipAddress") {
                            edits.replace(address, "");
                        }
                        ("0", "pending")
                    } else {
                        ("", now)
                    };
                    let asked = states.is_empty() || states.iter().any(|state| state == shown);
                    if passes(&mut self.unlisted, id) || !asked {
                        // Nothing within it may be changed, too.
                        edits = edits.without(&reservation.range());
                        edits.replace(reservation, "");
                    } else if let (Some(state), false) = (state, code.is_empty()) {
                        edits.replace(
                            state,
                            format!("<instanceState><code>{code}</code><name>{shown}</name></instanceState>"),
                        );
                    }
                }
            }
            "DescribeSecurityGroups" => {
                for item in xml::items(&document, "securityGroupInfo") {
                    if passes(&mut self.unlisted, xml::text(item, "groupId")) {
                        edits.replace(item, "");
                    }
                }
            }
            "DescribeSnapshots" => {
                for item in xml::items(&document, "snapshotSet") {
                    let id = xml::text(item, "snapshotId");
                    if passes(&mut self.unlisted, id) {
                        edits.replace(item, "");
                        continue;
                    }
                    let Some(snapshot) = self.snapshots.get(id) else {
                        continue;
                    };
                    let state = match snapshot {
                        Snapshot { failed: true, .. } => "error",
                        Snapshot { completed: false, .. } => "pending",
                        _ if passes(&mut self.completing, id) => "pending",
                        _ => "completed",
                    };
                    if let Some(status) = xml::child(item, "status") {
                        edits.replace(status, format!("<status>{state}</status>"));
                    }
                }
            }
            "DescribeImages" => {
                for item in xml::items(&document, "imagesSet") {
                    let id = xml::text(item, "imageId");
                    if passes(&mut self.unlisted, id) {
                        edits.replace(item, "");
                        continue;
                    }
                    let Some(image) = self.images.get(id).cloned() else {
                        continue;
                    };
                    for name in [
                        "blockDeviceMapping",
                        "rootDeviceName",
                        "rootDeviceType",
                        "bootMode",
                        "architecture",
                        "tpmSupport",
                        "tagSet",
                    ] {
                        if let Some(wrong) = xml::child(item, name) {
                            edits.replace(wrong, "");
                        }
                    }
                    edits.append(item, &registered(&image));
                    if passes(&mut self.completing, id)
                        && let Some(state) = xml::child(item, "imageState")
                    {
                        edits.replace(state, "<imageState>pending</imageState>");
                    }
                }
            }
            _ => {}
        }
        edits.apply(answer)
    }
}

/// What an image is, as it was registered.
fn registered(image: &Seen) -> String {
    let root = image.get("RootDeviceName");
    let ebs = |name: &str| image.get(&format!("BlockDeviceMapping.1.Ebs.{name}")).to_owned();
    let mut text = format!(
        "<architecture>{}</architecture><rootDeviceType>ebs</rootDeviceType><rootDeviceName>{root}</rootDeviceName>\
         <blockDeviceMapping><item><deviceName>{root}</deviceName><ebs><snapshotId>{}</snapshotId><volumeSize>1</volumeSize>\
         <volumeType>gp3</volumeType><deleteOnTermination>true</deleteOnTermination></ebs></item></blockDeviceMapping>",
        image.get("Architecture"),
        ebs("SnapshotId"),
    );
    let tags = image.parameters.iter().filter_map(|(key, name)| {
        let place = key
            .strip_prefix("TagSpecification.1.Tag.")?
            .strip_suffix(".Key")?;
        let value = image.get(&format!("TagSpecification.1.Tag.{place}.Value"));
        Some(format!("<item><key>{name}</key><value>{value}</value></item>"))
    });
    text += &format!("<tagSet>{}</tagSet>", tags.collect::<String>());
    for (name, value) in [
        ("bootMode", image.get("BootMode")),
        ("tpmSupport", image.get("TpmSupport")),
    ] {
        if !value.is_empty() {
            text += &format!("<{name}>{value}</{name}>");
        }
    }
    text
}

/// Whether something takes its time still; each time it is asked, it becomes less.
fn passes(counters: &mut BTreeMap<String, u32>, id: &str) -> bool {
    match counters.get_mut(id) {
        Some(asks) if *asks > 0 => {
            *asks -= 1;
            true
        }
        _ => false,
    }
}
