//! What every provider must do.

use aicert_cloud_testing::aws::Slow;
use aicert_core::cloud::{CloudProvider as _, MachineId};
use aicert_core::conformance::cloud as suite;

use crate::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn machines_come_and_go() {
    let Some(scene) = Scene::new().await else { return };
    let provider = scene.provider();
    suite::provision_list_destroy(&provider, &"conformance".parse().unwrap()).await;
    scene.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_are_independent() {
    let Some(scene) = Scene::new().await else { return };
    let provider = scene.provider();
    suite::machines_are_independent(&provider, &"first".parse().unwrap(), &"second".parse().unwrap()).await;
    scene.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn destroying_nothing_succeeds() {
    let Some(scene) = Scene::new().await else { return };
    let provider = scene.provider();
    suite::destroying_nothing_succeeds(&provider, &MachineId("unknown".into())).await;
    suite::destroying_nothing_succeeds(&provider, &MachineId("No job; *".into())).await;
    scene.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_provision_is_listed_or_nothing() {
    let Some(scene) = Scene::new().await else { return };
    let provider = scene.provider();
    suite::a_dropped_provision_is_listed_or_nothing(&provider, &"dropped".parse().unwrap()).await;
    // What was on its way when the last future was dropped.
    provider.destroy(&MachineId("dropped".into())).await.unwrap();
    scene.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_it_when_everything_takes_its_time() {
    let Some(scene) = Scene::new().await else { return };
    let provider = scene.provider();
    scene.cloud.slow(Slow {
        start: 4,
        end: 4,
        ..Slow::default()
    });
    suite::provision_list_destroy(&provider, &"slow".parse().unwrap()).await;
    suite::machines_are_independent(&provider, &"first".parse().unwrap(), &"second".parse().unwrap()).await;
    scene.assert_nothing_left().await;
}
