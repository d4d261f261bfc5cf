//! The resource group of a job: finding it, making it, and removing it with everything in it.

use std::collections::BTreeMap;

use aicert_cloud_common::{Names, Owner, Tags};
use aicert_core::runtime::JobId;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::arm::Arm;
use crate::error::Failure;

/// Of Microsoft.Resources.
pub(crate) const VERSION: &str = "2022-09-01";

/// What is not waited for when it is deleted: nothing on the machine is worth a graceful end.
const FORCED: &str = "Microsoft.Compute/virtualMachines";

/// A resource group that is there.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) location: String,
    #[serde(default)]
    tags: Option<BTreeMap<String, String>>,
    #[serde(default)]
    properties: GroupProperties,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct GroupProperties {
    provisioning_state: String,
}

impl Group {
    /// What aicert has marked it with; nothing when it was made by somebody else.
    pub(crate) fn tags(&self) -> Option<Tags> {
        let tags = self.tags.as_ref()?;
        Tags::read(|key| tags.get(key).map(String::as_str))
    }

    pub(crate) fn is_deleting(&self) -> bool {
        self.properties
            .provisioning_state
            .eq_ignore_ascii_case("deleting")
    }

    /// Whether it is that of a job of an owner.
    pub(crate) fn is_of(&self, owner: &Owner, job: &JobId) -> bool {
        self.tags()
            .is_some_and(|tags| tags.owner == *owner && tags.job == *job)
    }
}

pub(crate) fn tags_object<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> Value {
    Value::Object(
        pairs
            .into_iter()
            .map(|(key, value)| (key.to_owned(), Value::String(value)))
            .collect(),
    )
}

fn path(arm: &Arm, name: &str) -> String {
    format!("/subscriptions/{}/resourcegroups/{name}", arm.subscription)
}

/// The group with a name.
pub(crate) async fn find(arm: &Arm, name: &str) -> Result<Option<Group>, Failure> {
    arm.get(&path(arm, name), VERSION).await
}

/// Makes a group.
pub(crate) async fn make(arm: &Arm, name: &str, region: &str, tags: &Value) -> Result<(), Failure> {
    let body = json!({ "location": region, "tags": tags });
    arm.asked_for().insert(name.to_owned());
    arm.put("the resource group", &path(arm, name), VERSION, &body)
        .await?;
    Ok(())
}

/// Every group of an owner: those of the list, and those that this process has made and the list does not have yet.
pub(crate) async fn all(arm: &Arm, owner: &Owner) -> Result<Vec<Group>, Failure> {
    arm.settle().await;
    let mut groups = list(arm, owner).await?;
    let unlisted: Vec<String> = arm
        .asked_for()
        .iter()
        .filter(|name| !groups.iter().any(|group| group.name == **name))
        .cloned()
        .collect();
    for name in unlisted {
        groups.extend(
            find(arm, &name)
                .await?
                .filter(|group| group.tags().is_some_and(|tags| tags.owner == *owner)),
        );
    }
    Ok(groups)
}

async fn list(arm: &Arm, owner: &Owner) -> Result<Vec<Group>, Failure> {
    let filter = format!("tagName eq '{}' and tagValue eq '{owner}'", Tags::OWNER);
    let path = format!("/subscriptions/{}/resourcegroups", arm.subscription);
    let mut groups: Vec<Group> = arm
        .list(&path, &[("api-version", VERSION), ("$filter", &filter)])
        .await?;
    groups.retain(|group| group.tags().is_some_and(|tags| tags.owner == *owner));
    Ok(groups)
}

/// Waits until the list has a group: what costs something is made only then, so that nothing is ever left that is not listed.
pub(crate) async fn until_listed(arm: &Arm, owner: &Owner, name: &str) -> Result<(), Failure> {
    let what = format!("listing the resource group {name}");
    arm.patience
        .removal
        .until(|| async { Ok(is_listed(arm, owner, name).await?.then_some(())) })
        .await
        .map_err(Failure::waiting(what))
}

async fn is_listed(arm: &Arm, owner: &Owner, name: &str) -> Result<bool, Failure> {
    let groups = list(arm, owner).await?;
    Ok(groups.iter().any(|group| group.name.eq_ignore_ascii_case(name)))
}

/// Removes everything of a job, and returns when nothing is left and nothing is listed. What has the name of its group and is
/// not its, is left alone.
pub(crate) async fn remove(arm: &Arm, owner: &Owner, job: &JobId) -> Result<(), Failure> {
    let name = Names(job).main();
    arm.settle().await;
    let result = arm
        .patience
        .removal
        .until(|| async {
            match find(arm, &name).await? {
                None => Ok((!is_listed(arm, owner, &name).await?).then_some(())),
                // Somebody else's: nothing of the job is there.
                Some(group) if !group.is_of(owner, job) => Ok(Some(())),
                // Somebody is at it already: this user, before a crash.
                Some(group) if group.is_deleting() => Ok(None),
                Some(_) => {
                    delete(arm, &name).await?;
                    Ok(None)
                }
            }
        })
        .await
        .map_err(Failure::waiting(format!("deleting the resource group {name}")));
    match result {
        Err(why) => Err(with_what_is_left(arm, &name, why).await),
        Ok(()) => {
            arm.asked_for().remove(&name);
            Ok(())
        }
    }
}

async fn delete(arm: &Arm, name: &str) -> Result<(), Failure> {
    let query = [("api-version", VERSION), ("forceDeletionTypes", FORCED)];
    let what = format!("deleting the resource group {name}");
    let done = async {
        let reply = arm
            .request(Method::DELETE, &path(arm, name), &query, None)
            .await?;
        arm.finish(&what, reply, None).await
    };
    match done.await {
        Err(failure) if failure.is_not_found() => Ok(()),
        Err(failure) => Err(failure),
        Ok(_) => Ok(()),
    }
}

/// Adds to an error what is left of a job, as far as that can be found out.
async fn with_what_is_left(arm: &Arm, name: &str, why: Failure) -> Failure {
    match contents(arm, name).await {
        Ok(left) => Failure::Remains {
            cause: Box::new(why),
            left,
        },
        Err(_) => why,
    }
}

/// What is in a group, and the group.
async fn contents(arm: &Arm, name: &str) -> Result<Vec<String>, Failure> {
    #[derive(Deserialize)]
    struct Resource {
        #[serde(rename = "type")]
        kind: String,
        name: String,
    }
    let path = format!(
        "/subscriptions/{}/resourceGroups/{name}/resources",
        arm.subscription
    );
    let resources: Vec<Resource> = arm.list(&path, &[("api-version", VERSION)]).await?;
    let mut all: Vec<String> = resources
        .iter()
        .map(|resource| format!("{} {}", resource.kind, resource.name))
        .collect();
    all.push(format!("resource group {name}"));
    Ok(all)
}
