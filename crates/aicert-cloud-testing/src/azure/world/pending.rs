//! What goes on after the answer.

use serde_json::json;

use super::{Answer, SUBSCRIPTION, World, answer, refuse};

/// An operation that goes on after the answer.
#[derive(Debug)]
pub(super) struct Pending {
    what: What,
    polls: usize,
    failed: Option<(&'static str, &'static str)>,
    done: bool,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Make(String),
    Remove(String),
    RemoveGroup(String),
    Grant(String),
    Revoke(String),
}

impl World {
    pub(super) fn begin(
        &mut self,
        what: What,
        polls: usize,
        failed: Option<(&'static str, &'static str)>,
    ) -> u64 {
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
    pub(in crate::azure) fn advance(&mut self, path: &str) {
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

    pub(super) fn finish(&mut self, what: &What, failed: Option<(&'static str, &'static str)>) {
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
                if let Some((image, _)) = id.split_once("/versions/") {
                    self.nested.insert(image.to_owned(), self.settings.nested);
                }
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
            }
            What::Remove(_) | What::Grant(_) | What::Revoke(_) => {}
        }
    }

    /// A look at an operation; nothing when there is none such.
    pub(in crate::azure) fn poll(&mut self, base: &str, number: u64, located: bool) -> Option<Answer> {
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
}

/// Where operations are looked at: each service of Azure has a place of its own.
pub(super) fn operation_url(base: &str, kind: &str, number: u64) -> String {
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
