//! The process that makes or removes a machine is killed, at every request.

use std::process::Stdio;

use aicert_cloud_gcp::GcpProvider;
use aicert_cloud_testing::gcp::{Google, Habits};
use aicert_core::cloud::{CloudProvider as _, MachineId};
use tokio::process::Command;

use crate::support::{config, machine, provider, request};

const CHILD: &str = "AICERT_TEST_KILLED";

/// Is run by the tests below, in a process of its own: `provision <address>` or `destroy <address>`.
#[tokio::test]
async fn child() {
    let Ok(order) = std::env::var(CHILD) else { return };
    let (what, url) = order.split_once(' ').unwrap();
    let provider = GcpProvider::new(config(url, machine()));
    match what {
        "provision" => _ = provider.provision(request("a")).await.unwrap(),
        _ => provider.destroy(&MachineId("a".into())).await.unwrap(),
    }
}

/// Runs the child until its request with that number was carried out, and kills it before it has the answer; false when it
/// made no such request.
async fn kill_at(google: &Google, what: &str, number: usize) -> bool {
    google.pause_at(google.count() + number);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["killed::child", "--exact", "--nocapture"])
        .env(CHILD, format!("{what} {}", google.url()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let killed = google
        .paused(async {
            assert!(child.wait().await.unwrap().success());
        })
        .await;
    // SIGKILL.
    child.kill().await.unwrap();
    google.pause_at(usize::MAX);
    killed
}

/// Another provider finds what is there, and removes all of it.
async fn clean_up(google: &Google, provider: &GcpProvider) {
    let listed = provider.list().await.unwrap();
    let there = google.resources();
    // The other way round, something may have gone in the meantime.
    assert!(!listed.is_empty() || there.is_empty(), "{there:?}");
    // Whoever remembers the job, and whoever finds it in the list.
    provider.destroy(&MachineId("a".into())).await.unwrap();
    assert_eq!(provider.list().await.unwrap(), []);
    assert_eq!(google.resources(), [""; 0]);
    google.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_makes_a_machine() {
    let Some(google) = Google::start().await else {
        return;
    };
    let provider = provider(&google);
    let mut number = 1;
    loop {
        // Alternately with what shows late.
        google.set_habits(if number % 2 == 0 {
            Habits {
                operation: 4,
                unlisted: 2,
                unseen: 2,
                ..Habits::default()
            }
        } else {
            Habits::default()
        });
        let made = google.instances_made();
        let killed = kill_at(&google, "provision", number).await;
        assert!(google.instances_made() <= made + 1);
        clean_up(&google, &provider).await;
        if !killed {
            break;
        }
        number += 1;
    }
    assert!(number > 8, "{number}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_asked_for_again() {
    let Some(google) = Google::start().await else {
        return;
    };
    let provider = provider(&google);
    for number in 1.. {
        let made = google.instances_made();
        if !kill_at(&google, "provision", number).await {
            break;
        }
        let record = provider.provision(request("a")).await.unwrap();
        assert_eq!(google.instances_made(), made + 1, "{number}");
        assert_eq!(provider.list().await.unwrap(), [record]);
        clean_up(&google, &provider).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_removes_a_machine() {
    let Some(google) = Google::start().await else {
        return;
    };
    let provider = provider(&google);
    let mut number = 1;
    loop {
        provider.provision(request("a")).await.unwrap();
        if !kill_at(&google, "destroy", number).await {
            break;
        }
        clean_up(&google, &provider).await;
        number += 1;
    }
    assert!(number > 5, "{number}");
}
