//! The role files allow what is called, and nothing else.

use std::collections::BTreeSet;

use aicert_cloud_testing::aws::Seen;
use aicert_core::cloud::{CloudProvider as _, ImagePublisher as _};
use serde_json::Value;

use crate::publish::{disk, order};
use crate::scene::{Scene, request};

const AICERT: &str = include_str!("../../roles/aicert.json");
const PUBLISHER: &str = include_str!("../../roles/publisher.json");

/// The actions that a role allows.
fn actions(role: &str) -> BTreeSet<String> {
    let role: Value = serde_json::from_str(role).unwrap();
    let mut actions = BTreeSet::new();
    for statement in role["Statement"].as_array().unwrap() {
        assert_eq!(statement["Effect"], "Allow");
        let named = &statement["Action"];
        let named = named.as_array().cloned().unwrap_or_else(|| vec![named.clone()]);
        actions.extend(named.iter().map(|action| action.as_str().unwrap().to_owned()));
        // Only what only looks, and what says otherwise what it concerns, may concern everything.
        let looks = named
            .iter()
            .all(|action| action.as_str().unwrap().starts_with("ec2:Describe"));
        assert_eq!(statement["Resource"] == "*", looks, "{statement}");
        assert!(named.iter().all(|action| !action.as_str().unwrap().contains('*')));
    }
    actions
}

/// The actions that both roles allow together.
pub(crate) fn allowed() -> BTreeSet<String> {
    actions(AICERT).into_iter().chain(actions(PUBLISHER)).collect()
}

/// The actions that a request needs (Service Authorization Reference, "Amazon EC2" and "Amazon Elastic Block Store").
pub(crate) fn needed(seen: &Seen) -> Vec<String> {
    let mut needed = vec![format!("{}:{}", seen.service, seen.operation)];
    // What is made with tags is tagged by whoever makes it.
    let tagged = seen
        .parameters
        .keys()
        .any(|key| key.starts_with("TagSpecification") || key == "Tags");
    if tagged {
        needed.push("ec2:CreateTags".into());
    }
    needed
}

fn called(scene: &Scene, from: usize) -> BTreeSet<String> {
    scene.cloud.requests()[from..].iter().flat_map(needed).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_what_is_called() {
    let Some(scene) = Scene::new().await else { return };
    let provider = scene.provider();
    let machine = provider.provision(request("role")).await.unwrap();
    let mut other = request("role");
    other.access = vec!["198.51.100.0/24".parse().unwrap()];
    provider.provision(other).await.unwrap();
    provider.list().await.unwrap();
    assert!(provider.is_running(&machine.id).await.unwrap());
    assert!(!provider.console_log(&machine.id).await.unwrap().is_empty());
    provider.destroy(&machine.id).await.unwrap();
    assert_eq!(called(&scene, 0), actions(AICERT));

    let from = scene.cloud.requests().len();
    let folder = tempfile::tempdir().unwrap();
    let publisher = scene.publisher();
    publisher.publish(order(&disk(folder.path(), 3))).await.unwrap();
    publisher.discard("aicert-0.1.0").await.unwrap();
    assert_eq!(called(&scene, from), actions(PUBLISHER));
    scene.assert_nothing_left().await;
}
