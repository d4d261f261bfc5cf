//! A process that is killed at any request leaves nothing that the next one does not find.

use std::process::{Command, Stdio};

use aicert_cloud_aws::AwsProvider;
use aicert_cloud_testing::aws::{AwsCloud, Fault, Slow, When};
use aicert_core::cloud::{CloudProvider as _, MachineId};

use crate::scene::{Scene, config, request, until_ended};

const JOB: &str = "killed";

/// What is killed. As a test of its own, without being told what to do, it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Ok(image) = std::env::var("AICERT_AWS_TEST_IMAGE") else {
        return;
    };
    // Endpoint and credentials come by the SDK's default chain.
    let provider = AwsProvider::new(config("ada", &image));
    match std::env::var("AICERT_AWS_TEST_DOES").as_deref() {
        Ok("provision") => {
            provider.provision(request(JOB)).await.unwrap();
        }
        Ok("destroy") => provider.destroy(&MachineId(JOB.into())).await.unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Runs it until it comes to a pause, and kills it; whether it has ended by itself before.
async fn run(cloud: &AwsCloud, image: &str, does: &str) -> bool {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::child", "--test-threads=1"])
        .envs(cloud.environment())
        .env("AICERT_AWS_TEST_IMAGE", image)
        .env("AICERT_AWS_TEST_DOES", does)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    loop {
        tokio::select! {
            () = cloud.paused() => {
                child.kill().unwrap();
                child.wait().unwrap();
                return false;
            }
            () = tokio::time::sleep(std::time::Duration::from_millis(10)) => {
                if let Some(status) = child.try_wait().unwrap() {
                    assert!(status.success(), "{does}: {status}");
                    return true;
                }
            }
        }
    }
}

/// Whoever comes next lists what there is, and destroys it; what is not listed yet is found by its job.
async fn clean_up(scene: &Scene, why: &str) {
    let provider = scene.provider();
    for record in provider.list().await.unwrap() {
        assert_eq!(record.id.0, JOB, "{why}");
        provider.destroy(&record.id).await.unwrap();
    }
    provider.destroy(&MachineId(JOB.into())).await.unwrap();
    assert!(provider.list().await.unwrap().is_empty(), "{why}");
    scene.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_makes_a_machine() {
    until_ended(8, async |number| {
        let mut ended = false;
        for carried_out in [false, true] {
            let scene = Scene::new().await?;
            scene.cloud.slow(Slow {
                listing: u32::from(carried_out),
                start: 1,
                end: 1,
                ..Slow::default()
            });
            scene
                .cloud
                .inject(When::Request(number), Fault::Pause { carried_out });
            ended |= run(&scene.cloud, &scene.image, "provision").await;
            scene.cloud.forgive();
            let why = format!("killed at request {number}, carried out: {carried_out}");
            if number % 3 == 1 {
                // Or goes on with it.
                scene
                    .provision(JOB)
                    .await
                    .unwrap_or_else(|error| panic!("{why}: {error:?}"));
                assert!(scene.cloud.instances_made() <= 1, "{why}");
            }
            clean_up(&scene, &why).await;
        }
        Some(ended)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_destroys_a_machine() {
    until_ended(4, async |number| {
        let mut ended = false;
        for carried_out in [false, true] {
            let scene = Scene::new().await?;
            scene.provision(JOB).await.unwrap();
            scene.cloud.slow(Slow {
                end: 1,
                ..Slow::default()
            });
            scene
                .cloud
                .inject(When::Request(number), Fault::Pause { carried_out });
            ended |= run(&scene.cloud, &scene.image, "destroy").await;
            scene.cloud.forgive();
            clean_up(
                &scene,
                &format!("killed at request {number}, carried out: {carried_out}"),
            )
            .await;
        }
        Some(ended)
    })
    .await;
}
