//! A process that is killed while it provisions or destroys, at every request there is: a fresh one finds what is left, and
//! removes it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aicert_cloud_azure::AzureProvider;
use aicert_cloud_testing::azure::{Azure, Effect, Fault, Settings};
use aicert_core::cloud::{CloudProvider as _, MachineId};

use support::{config_at, provider, request};

const ENDPOINT: &str = "AICERT_TEST_AZURE";
const TASK: &str = "AICERT_TEST_TASK";

/// What the process does that is killed: this program, started again.
#[tokio::test]
async fn victim() {
    let (Ok(endpoint), Ok(task)) = (std::env::var(ENDPOINT), std::env::var(TASK)) else {
        return;
    };
    let provider = AzureProvider::new(config_at(&endpoint)).unwrap();
    match task.as_str() {
        "provision" => drop(provider.provision(request("a")).await.unwrap()),
        _ => provider.destroy(&MachineId("a".into())).await.unwrap(),
    }
}

fn victim_of(azure: &Azure, task: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["victim", "--exact", "--test-threads=1"])
        .env(ENDPOINT, azure.endpoint())
        .env(TASK, task)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn settings() -> Settings {
    Settings {
        polls: 1,
        deletion_polls: 1,
        ..Settings::default()
    }
}

/// Waits until the process is held at a request; false when it came to its end instead.
fn held(azure: &Azure, child: &mut Child) -> bool {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if azure.await_pause(Duration::from_millis(10)) {
            return true;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(Instant::now() < end, "the process does not go on");
    }
}

async fn killed_at_every_request(task: &str) -> usize {
    for number in 1.. {
        let Some(azure) = Azure::start(settings()) else {
            return usize::MAX;
        };
        let before = if task == "provision" {
            0
        } else {
            provider(&azure).provision(request("a")).await.unwrap();
            azure.seen().len()
        };
        azure.fault(Fault {
            operation: None,
            number: before + number,
            effect: Effect::Pause,
        });
        let mut child = victim_of(&azure, task);
        let held = tokio::task::block_in_place(|| held(&azure, &mut child));
        // Until here the request was carried out, and its answer is on the way to nobody.
        child.kill().unwrap();
        child.wait().unwrap();
        azure.release();
        if !held {
            return number - 1;
        }
        let fresh = provider(&azure);
        let listed = fresh.list().await.unwrap();
        let made = azure.left();
        assert_eq!(
            listed.is_empty(),
            made.is_empty(),
            "{task} {number}: {listed:?}, {made:?}"
        );
        for machine in listed {
            fresh.destroy(&machine.id).await.unwrap();
        }
        assert!(azure.left().is_empty(), "{task} {number}: {:?}", azure.left());
        assert!(azure.machines_made() <= 1);
        azure.assert_clean();
    }
    unreachable!("there are fewer requests than numbers")
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_provisions() {
    let requests = killed_at_every_request("provision").await;
    assert!(requests > 15, "{requests}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_destroys() {
    let requests = killed_at_every_request("destroy").await;
    assert!(requests > 3, "{requests}");
}
