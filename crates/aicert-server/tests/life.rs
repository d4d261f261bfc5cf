//! A job among clients that are slow, that go, that come back, and that want it removed.
#![allow(clippy::unwrap_used)] // what helps a test may fail it

mod common;

use std::time::{Duration, Instant};

use aicert_core::api::{JobState, StreamEvent};
use aicert_core::event::{EventContent, JobResult};
use aicert_runtime_docker::DockerConfig;
use aicert_server::Ended;
use aicert_testing::no_docker;
use common::answers::{certificate, events, lines};
use common::{Client, Scene, Setup, config, job_id, small_tar, submission, tar_of};

/// How long the job itself ran.
async fn wall(scene: &Scene, id: &str) -> Duration {
    let proof = certificate(scene, id).await;
    let finished = proof
        .measurement_log
        .iter()
        .find_map(|event| match &event.content {
            EventContent::ExecutionFinished(finished) => Some(finished.wall_milliseconds),
            _ => None,
        });
    Duration::from_millis(finished.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_slows_nothing() {
    if no_docker().await {
        return;
    }
    const CHATTY: &str = "
import sys, time
time.sleep(1)
for n in range(100000): print('this is line number', n, 'x' * 100)
open('/workspace/outputs/done', 'w').write('done')
";
    let mut walls = Vec::new();
    for slow in [false, true] {
        let Some(scene) = Scene::start().await else { return };
        let id = job_id();
        let mut readers = Vec::new();
        scene.owner.begin(&id, &config(CHATTY, "")).await;
        if slow {
            for _ in 0..3 {
                let mut stream = common::client::connect(scene.address, Some(&scene.identity))
                    .await
                    .unwrap();
                let path = format!("/v1/jobs/{id}/events");
                readers.push(tokio::spawn(async move {
                    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                    stream
                        .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
                        .await
                        .unwrap();
                    let (mut byte, mut read) = ([0], 0);
                    while stream.read(&mut byte).await.is_ok_and(|length| length > 0) {
                        read += 1;
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    read
                }));
            }
        }
        assert_eq!(scene.owner.end_of(&id).await.result, Some(JobResult::Succeeded));
        walls.push(wall(&scene, &id).await);
        // A reader that comes late is told what is gone, and the log has everything.
        let (_, text) = scene.owner.get(&format!("/v1/jobs/{id}/events")).await;
        let read = events(&text);
        let missed: u64 = read
            .iter()
            .map(|(_, event)| match event {
                StreamEvent::Missed { events } => *events,
                _ => 0,
            })
            .sum();
        assert!(missed + read.len() as u64 > 100_000, "{missed} + {}", read.len());
        let (_, log) = scene.owner.get(&format!("/v1/jobs/{id}/log")).await;
        assert_eq!(log.lines().count(), 100_000);
        readers.iter().for_each(tokio::task::JoinHandle::abort);
        scene.stop().await;
    }
    assert!(walls[1] < 2 * walls[0] + Duration::from_secs(2), "{walls:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_come_and_go() {
    if no_docker().await {
        return;
    }
    let Some(scene) = Scene::start().await else { return };
    let id = job_id();
    let script =
        "import time\nprint('begun', flush=True)\ntime.sleep(2)\nopen('/workspace/outputs/x','w').write('x')";
    {
        let gone = Client::new(scene.address, Some(&scene.identity));
        gone.begin(&id, &config(script, "")).await;
        gone.await_event(&id, "begun").await;
    }
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let back = Client::new(scene.address, Some(&scene.identity));
    assert_eq!(back.end_of(&id).await.result, Some(JobResult::Succeeded));
    let (_, text) = back.get(&format!("/v1/jobs/{id}/events")).await;
    assert_eq!(lines(&events(&text)), ["begun"]);
    scene.stop().await;
}

/// The job begins although nobody waits for the answer to the last upload: needs no engine, as a job that cannot run has
/// begun as well.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_input_counts_also_when_its_sender_is_gone() {
    use tokio::io::AsyncWriteExt as _;
    let docker = DockerConfig::new().with_host("unix:///nowhere/docker.sock");
    let Some(scene) = Scene::with(Setup {
        docker,
        ..Setup::default()
    })
    .await
    else {
        return;
    };
    let (owner, id) = (&scene.owner, job_id());
    let sent = submission(&id, &config("pass", ""));
    assert_eq!(owner.post("/v1/jobs", &sent).await.0, 201);
    // Takes longer to write than to receive.
    let names: Vec<_> = (0..4000).map(|number| format!("file-{number}")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
    let body = tar_of(&files);
    let head = format!(
        "PUT /v1/jobs/{id}/inputs/code HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = common::client::connect(scene.address, Some(&scene.identity))
        .await
        .unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    let status = owner.end_of(&id).await;
    assert_eq!(status.state, JobState::Failed, "{status:?}");
    assert!(status.awaited.is_empty());
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_leaves_nothing_in_any_phase() {
    if no_docker().await {
        return;
    }
    for phase in ["receiving", "uploading", "starting", "running", "finished"] {
        let Some(scene) = Scene::start().await else { return };
        let (owner, id) = (&scene.owner, job_id());
        let script = match phase {
            "finished" => "open('/workspace/outputs/x','w').write('x')",
            _ => "import time\nprint('begun', flush=True)\ntime.sleep(600)",
        };
        let mut uploading = None;
        match phase {
            "receiving" | "uploading" => {
                assert_eq!(
                    owner
                        .post("/v1/jobs", &submission(&id, &config(script, "")))
                        .await
                        .0,
                    201
                );
            }
            _ => owner.begin(&id, &config(script, "")).await,
        }
        match phase {
            "uploading" => {
                use futures_util::StreamExt as _;
                let endless =
                    futures_util::stream::iter([Ok::<_, std::io::Error>(small_tar()[..600].to_vec())])
                        .chain(futures_util::stream::pending());
                let request = owner.request(reqwest::Method::PUT, &format!("/v1/jobs/{id}/inputs/code"));
                let sending = request.body(reqwest::Body::wrap_stream(endless)).send();
                uploading = Some(tokio::spawn(sending));
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            "running" => owner.await_event(&id, "begun").await,
            "finished" => assert_eq!(owner.end_of(&id).await.state, JobState::Finished),
            _ => {}
        }
        let began = Instant::now();
        let path = format!("/v1/jobs/{id}");
        // Twice at once: one of them may find that the server has ended already.
        let delete = || async {
            let response = owner.request(reqwest::Method::DELETE, &path).send().await.ok()?;
            assert_eq!(response.status(), 200, "{phase}");
            Some(response.text().await.unwrap())
        };
        let (first, second) = tokio::join!(delete(), delete());
        let answer = first.or(second).expect("one is answered");
        let expected = if phase == "finished" {
            "finished"
        } else {
            "cancelled"
        };
        assert!(
            answer.contains(&format!("\"state\":\"{expected}\"")),
            "{phase}: {answer}"
        );
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{phase}: {:?}",
            began.elapsed()
        );
        common::assert_nothing_is_left(&id).await;
        assert!(common::is_empty(&scene.state.join("jobs")), "{phase}");
        if let Some(uploading) = uploading {
            let _ = uploading.await.unwrap();
        }
        assert_eq!(scene.ended().await, Ended::Removed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_nobody_needs_ends() {
    let impatient = || Setup {
        idle_seconds: 2,
        ..Setup::default()
    };
    let Some(scene) = Scene::with(impatient()).await else {
        return;
    };
    let stranger = Client::new(scene.address, None);
    let began = Instant::now();
    // A stranger is nobody.
    let knocking = tokio::spawn(async move {
        while stranger.request(reqwest::Method::GET, "/").send().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    assert_eq!(scene.ended().await, Ended::Idle);
    assert!(began.elapsed() >= Duration::from_secs(2) && began.elapsed() < Duration::from_secs(6));
    knocking.await.unwrap();
    // Nor is a client that only listens to a job that has not begun, and may be stopped: the server's own comments are nobody.
    let Some(scene) = Scene::with(impatient()).await else {
        return;
    };
    let id = job_id();
    let sent = submission(&id, &config("pass", ""));
    assert_eq!(scene.owner.post("/v1/jobs", &sent).await.0, 201);
    let listener = Client::new(scene.address, Some(&scene.identity));
    let began = Instant::now();
    let listening = tokio::spawn(async move { listener.get(&format!("/v1/jobs/{id}/events")).await.0 });
    assert_eq!(scene.ended().await, Ended::Idle);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    listening.abort();
    if no_docker().await {
        return;
    }
    let Some(scene) = Scene::with(impatient()).await else {
        return;
    };
    let id = job_id();
    let script = "import time\ntime.sleep(5)\nopen('/workspace/outputs/x','w').write('x')";
    scene.owner.begin(&id, &config(script, "")).await;
    // Nobody asks while it runs; whoever listens to its events is there.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let (status, text) = scene.owner.get(&format!("/v1/jobs/{id}/events")).await;
    assert_eq!(status, 200);
    assert_eq!(
        events(&text).last().unwrap().1,
        StreamEvent::End {
            state: JobState::Finished
        }
    );
    assert_eq!(scene.ended().await, Ended::Idle);
    common::assert_nothing_is_left(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lifetime_ends_whatever_runs() {
    let of = |seconds| Setup {
        lifetime_seconds: Some(seconds),
        ..Setup::default()
    };
    // Although its client is there all the time.
    let Some(scene) = Scene::with(of(6)).await else {
        return;
    };
    let visitor = Client::new(scene.address, Some(&scene.identity));
    let visiting = tokio::spawn(async move {
        while visitor
            .request(reqwest::Method::GET, "/v1/jobs/none")
            .send()
            .await
            .is_ok()
        {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let began = Instant::now();
    assert_eq!(scene.ended().await, Ended::Lifetime);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    visiting.await.unwrap();

    if no_docker().await {
        return;
    }
    let Some(scene) = Scene::with(of(16)).await else {
        return;
    };
    let (id, began) = (job_id(), Instant::now());
    scene
        .owner
        .begin(&id, &config("import time\ntime.sleep(600)", ""))
        .await;
    let listener = Client::new(scene.address, Some(&scene.identity));
    let path = format!("/v1/jobs/{id}/events");
    let listening = tokio::spawn(async move { listener.get(&path).await.1 });
    assert_eq!(scene.ended().await, Ended::Lifetime);
    assert!(
        began.elapsed() >= Duration::from_secs(14),
        "{:?}",
        began.elapsed()
    );
    let text = listening.await.unwrap();
    assert!(
        text.contains("the machine ends in 8 seconds, whatever runs then"),
        "{text}"
    );
    common::assert_nothing_is_left(&id).await;
}
