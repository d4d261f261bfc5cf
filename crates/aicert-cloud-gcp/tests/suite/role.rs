//! The roles are what the calls need: no less, and no more.

use std::collections::BTreeSet;

use aicert_cloud_gcp::{GcpConfig, GcpProvider, GcpPublisher};
use aicert_cloud_testing::gcp::{BUCKET, Google, Habits};
use aicert_core::cloud::{CloudProvider as _, ImagePublisher as _, MachineId};

use crate::publish::{publication, small_image};
use crate::support::{config, credentials, machine, paces, request};

/// The permissions in a role's definition, as far as it is YAML of that form.
fn role(text: &str) -> BTreeSet<&str> {
    let permissions = text.split_once("includedPermissions:\n").unwrap().1;
    let listed: Vec<_> = permissions
        .lines()
        .map(|line| line.strip_prefix("  - ").unwrap())
        .collect();
    let set: BTreeSet<_> = listed.iter().copied().collect();
    assert_eq!(
        listed,
        set.iter().copied().collect::<Vec<_>>(),
        "sorted, each once"
    );
    set
}

#[tokio::test]
async fn the_role_is_what_calls_need() {
    let Some(google) = Google::start().await else {
        return;
    };
    let provider = GcpProvider::new(config(google.url(), machine()));
    let record = provider.provision(request("a")).await.unwrap();
    assert_eq!(provider.list().await.unwrap().len(), 1);
    assert!(provider.is_running(&record.id).await.unwrap());
    provider.console_log(&record.id).await.unwrap();
    provider.destroy(&record.id).await.unwrap();
    // A rule alone: operations that have not ended are looked for.
    google.put(None, serde_json::json!({"name": "aicert-b", "network": "n", "description":
        "aicert; aicert-owner=ada; aicert-job=b; aicert-created=1; aicert-zone=europe-west4-a; aicert-type=e2-standard-4"}));
    provider.destroy(&MachineId("b".into())).await.unwrap();
    let needed = google.permissions();
    assert_eq!(role(include_str!("../../roles/aicert.yaml")), needed);
}

#[tokio::test]
async fn the_role_of_publishers_is_what_calls_need() {
    let Some(google) = Google::start().await else {
        return;
    };
    google.set_habits(Habits {
        operation: 3,
        ..Habits::default()
    });
    let config = GcpConfig::new(aicert_cloud_testing::gcp::PROJECT, "ada".parse().unwrap())
        .with_endpoint(google.url())
        .with_credentials(credentials())
        .with_paces(paces());
    let publisher = GcpPublisher::new(config, BUCKET);
    let file = small_image(&[(0, "x")]);
    publisher.publish(publication(file.path(), "base")).await.unwrap();
    publisher.discard("base").await.unwrap();
    assert_eq!(google.resources(), [""; 0]);
    assert_eq!(
        role(include_str!("../../roles/publisher.yaml")),
        google.permissions()
    );
}
