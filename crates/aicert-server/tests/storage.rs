//! A disk that is full, on a small file system of its own.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // what helps a test may fail it; a skipped one says so

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use aicert_core::api::{JobState, Problem, ProblemCode};
use aicert_testing::no_docker;
use common::{Scene, Setup, config, job_id, small_tar, submission, tar_of};

/// A file system of some megabytes in memory, unmounted in the end.
struct Small {
    folder: tempfile::TempDir,
}

impl Small {
    fn mount(megabytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={megabytes}m,mode=0700"))
            .arg("tmpfs")
            .arg(folder.path())
            .output()
            .unwrap();
        if !mounted.status.success() {
            println!(
                "skipped: cannot mount a small file system: {}",
                String::from_utf8_lossy(&mounted.stderr)
            );
            return None;
        }
        Some(Self { folder })
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let unmounted = Command::new("umount")
            .arg("--lazy")
            .arg(self.folder.path())
            .status();
        assert!(unmounted.unwrap().success());
    }
}

fn setup(state: &Path) -> Setup {
    Setup {
        state: Some(state.to_owned()),
        ..Setup::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_that_do_not_fit_are_refused_and_awaited_again() {
    let Some(small) = Small::mount(16) else { return };
    let Some(scene) = Scene::with(setup(&small.state())).await else {
        return;
    };
    let (owner, id) = (&scene.owner, job_id());
    let path = format!("/v1/jobs/{id}/inputs/code");
    assert_eq!(
        owner
            .post("/v1/jobs", &submission(&id, &config("pass", "")))
            .await
            .0,
        201
    );
    let large = tar_of(&[("large", &vec![7; 20 << 20])]);
    // Told before it is sent, and found out while it is.
    let (status, body) = owner.put(&path, large.clone()).await;
    assert_eq!(status, 507, "{body}");
    assert!(body.contains("the machine has room for"), "{body}");
    let pieces: Vec<_> = large
        .chunks(100_000)
        .map(|piece| Ok::<_, std::io::Error>(piece.to_vec()))
        .collect();
    let stream = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    let (status, body) = owner.put(&path, stream).await;
    let told: Problem = serde_json::from_str(&body).unwrap();
    assert_eq!((status, told.code), (507, ProblemCode::StorageFull));
    assert!(told.message.contains("the machine's disk is full"), "{told:?}");
    assert_eq!(owner.status(&id).await.awaited.len(), 1);
    // What did not fit is gone.
    assert!(common::is_empty(
        &small.state().join("jobs").join(&id).join("uploads")
    ));
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_ends_the_job_without_a_proof() {
    if no_docker().await {
        return;
    }
    let Some(small) = Small::mount(8) else { return };
    let Some(scene) = Scene::with(setup(&small.state())).await else {
        return;
    };
    let (owner, id) = (&scene.owner, job_id());
    assert_eq!(
        owner
            .post(
                "/v1/jobs",
                &submission(&id, &config("for n in range(400000): print('x' * 100)", ""))
            )
            .await
            .0,
        201
    );
    assert_eq!(
        owner
            .put(&format!("/v1/jobs/{id}/inputs/code"), small_tar())
            .await
            .0,
        200
    );
    let ended = owner.end_of(&id).await;
    let told = ended.problem.clone().unwrap_or_else(|| panic!("{ended:?}"));
    assert_eq!(
        (ended.state, ended.result, told.code),
        (JobState::Failed, None, ProblemCode::StorageFull),
        "{told:?}"
    );
    assert_eq!(owner.get(&format!("/v1/jobs/{id}/certificate")).await.0, 409);
    // What was printed until then is there.
    let (status, log) = owner.get(&format!("/v1/jobs/{id}/log")).await;
    assert!(status == 200 && log.starts_with("xxx") && log.len() > 1 << 20);
    common::assert_nothing_is_left(&id).await;
    assert_eq!(owner.delete(&format!("/v1/jobs/{id}")).await.0, 200);
    scene.ended().await;
}
