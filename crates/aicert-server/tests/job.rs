//! The one job of a boot: from its submission to what it leaves, or to what stops it.
#![allow(clippy::unwrap_used)] // what helps a test may fail it

mod common;

use std::time::Duration;

use aicert_core::api::{InputForm, JobState, ProblemCode, StreamEvent};
use aicert_core::event::JobResult;
use aicert_core::tpm::{PcrBank, PcrIndex, TpmBackend as _};
use aicert_runtime_docker::DockerConfig;
use aicert_server::Ended;
use aicert_testing::no_docker;
use common::answers::{certificate, events, lines, problem};
use common::{Scene, Setup, config, job_id, small_tar, submission, tar_of};

const SCRIPT: &str = "
import os, shutil, time
print('begun', flush=True)
out = '/workspace/outputs'
os.makedirs(out + '/deep/er')
shutil.copy('/workspace/resources/data.bin', out + '/deep/er/data.bin')
shutil.copy('/workspace/src/main.py', out + '/a file.py')
open(out + '/empty', 'w').close()
os.symlink('deep/er/data.bin', out + '/link')
time.sleep(1.5)
for number in range(500): print('line', number)
";

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_local_inputs_leads_to_a_proof() {
    if no_docker().await {
        return;
    }
    let Some(scene) = Scene::start().await else { return };
    let (owner, id) = (&scene.owner, job_id());
    let at = |rest: &str| format!("/v1/jobs/{id}{rest}");
    let data: Vec<u8> = (0..700_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let source: &[(&str, &[u8])] = &[("main.py", b"print('x')\n"), ("lib/util.py", b"")];
    let config = config(
        SCRIPT,
        "resources:\n- {type: file, url: 'file:///client/da%74a.bin', destinationPath: data.bin}\n",
    );

    // Nothing that cannot be done takes the machine's one job.
    let git = "kind: container\nimage: x\nsource: {type: git, gitRepo: ./here}\nmachine: {provider: local, tpm: swtpm}\n";
    let (status, body) = owner.post("/v1/jobs", &submission(&id, git)).await;
    assert_eq!((status, problem(&body).code), (422, ProblemCode::Configuration));
    assert!(
        body.contains("aicert.yaml:3:21: the repository is a folder of your machine"),
        "{body}"
    );
    assert_eq!(owner.get(&at("")).await.0, 404);

    let (status, body) = owner.post("/v1/jobs", &submission(&id, &config)).await;
    assert_eq!(status, 201, "{body}");
    let accepted = owner.status(&id).await;
    let awaited: Vec<_> = accepted
        .awaited
        .iter()
        .map(|input| (input.name.as_str(), input.form))
        .collect();
    assert_eq!(
        awaited,
        [("code", InputForm::Tar), ("da%74a.bin", InputForm::File)]
    );
    assert_eq!((accepted.state, accepted.next_event), (JobState::Receiving, 0));

    // Again is the same; another is refused with the reason.
    assert_eq!(
        owner.post("/v1/jobs", &submission(&id, &config)).await,
        (200, body)
    );
    for (other, words) in [
        (submission(&job_id(), &config), "waits for its inputs"),
        (submission(&id, git), "was submitted with other contents"),
    ] {
        let (status, body) = owner.post("/v1/jobs", &other).await;
        assert_eq!((status, problem(&body).code), (409, ProblemCode::Occupied));
        assert!(body.contains(&id) && body.contains(words), "{body}");
    }
    let (status, body) = owner.get(&at("/certificate")).await;
    assert_eq!((status, problem(&body).code), (409, ProblemCode::WrongState));

    // What is refused or broken off is awaited again.
    let (status, body) = owner.put(&at("/inputs/nothing"), "x").await;
    assert_eq!(status, 404, "{body}");
    let (status, body) = owner.put(&at("/inputs/code"), "no archive").await;
    assert_eq!(status, 400, "{body}");
    let broken =
        futures_util::stream::iter([Ok(small_tar()[..600].to_vec()), Err(std::io::Error::other("cut"))]);
    let sent = owner
        .request(reqwest::Method::PUT, &at("/inputs/code"))
        .body(reqwest::Body::wrap_stream(broken));
    assert!(sent.send().await.is_err());
    for _ in 0..100 {
        let (status, body) = owner.put(&at("/inputs/code"), tar_of(source)).await;
        if status == 200 {
            break;
        }
        // The server has not noticed yet that the connection is gone.
        assert!(body.contains("is just being received"), "{body}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(owner.status(&id).await.awaited.len(), 1);
    let (status, body) = owner.put(&at("/inputs/code"), tar_of(source)).await;
    assert_eq!(status, 409, "{body}");
    assert!(
        scene
            .tpm
            .read_pcrs(PcrBank::Sha256, &[PcrIndex::INPUTS])
            .await
            .unwrap()
            .0
            .values()
            .all(|value| *value == [0; 32])
    );
    let (status, body) = owner.put(&at("/inputs/da%2574a.bin"), data.clone()).await;
    assert_eq!(status, 200, "{body}");

    // It is attested while it runs, any number of times.
    owner.await_event(&id, "\"line\":\"begun\"").await;
    let (_, log) = owner.get(&at("/log")).await;
    assert!(log.starts_with("begun\n"), "{log}");
    for _ in 0..10 {
        let nonce = format!("/v1/attestation?nonce={}", "11".repeat(32));
        assert_eq!(owner.get(&nonce).await.0, 200);
    }
    let ended = owner.end_of(&id).await;
    assert_eq!(
        (ended.state, ended.result),
        (JobState::Finished, Some(JobResult::Succeeded)),
        "{ended:?}"
    );

    let proof = certificate(&scene, &id).await;
    let inputs: Vec<_> = proof
        .inputs
        .iter()
        .map(|input| (input.kind.as_str(), input.download_url.as_str()))
        .collect();
    assert_eq!(
        inputs,
        [
            ("directory", "file:///client/project/code"),
            ("file", "file:///client/data.bin")
        ]
    );
    assert_eq!(
        (proof.platform.provider.as_str(), proof.platform.region.as_str()),
        ("qemu", "here")
    );

    events_can_be_resumed(&scene, &id, ended.next_event).await;
    outputs_can_be_resumed(&scene, &id, &data).await;

    // What was uploaded is needed no more; nothing that was written is for others.
    assert!(common::is_empty(
        &scene.state.join("jobs").join(&id).join("uploads")
    ));
    let (status, body) = owner.delete(&at("")).await;
    assert_eq!(status, 200, "{body}");
    common::assert_nothing_is_left(&id).await;
    assert!(common::is_empty(&scene.state.join("jobs")));
    assert_eq!(scene.ended().await, Ended::Removed);
}

async fn events_can_be_resumed(scene: &Scene, id: &str, next: u64) {
    let owner = &scene.owner;
    let (status, all) = owner.get(&format!("/v1/jobs/{id}/events")).await;
    assert_eq!(status, 200);
    let all = events(&all);
    assert_eq!(
        all.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
        (0..next).collect::<Vec<_>>()
    );
    assert_eq!(
        all.last().unwrap().1,
        StreamEvent::End {
            state: JobState::Finished
        }
    );
    let printed = lines(&all);
    assert_eq!((printed[0], printed[1], printed.len()), ("begun", "line 0", 501));
    for after in [0, next / 2, next - 2, next - 1, next + 5] {
        let expected = all.get(after as usize + 1..).unwrap_or_default();
        let (_, text) = owner.get(&format!("/v1/jobs/{id}/events?after={after}")).await;
        assert_eq!(events(&text), expected);
        let number = after.to_string();
        let path = format!("/v1/jobs/{id}/events");
        let (_, headers, text) = owner.range(&path, &[("last-event-id", &number)]).await;
        assert_eq!(headers["content-type"], "text/event-stream");
        assert_eq!(events(std::str::from_utf8(&text).unwrap()), expected);
    }
    for wrong in [
        "after=",
        "after=-1",
        "after=x",
        "after=18446744073709551615",
        "before=1",
    ] {
        let (status, _) = owner.get(&format!("/v1/jobs/{id}/events?{wrong}")).await;
        assert_eq!(status, 400, "{wrong}");
    }
}

async fn outputs_can_be_resumed(scene: &Scene, id: &str, data: &[u8]) {
    let owner = &scene.owner;
    let at = |rest: &str| format!("/v1/jobs/{id}{rest}");
    let whole = [b"print('x')\n", data].concat();
    let (status, headers, body) = owner.range(&at("/outputs"), &[]).await;
    assert_eq!(status, 200);
    assert!(body == whole);
    assert_eq!(headers["accept-ranges"], "bytes");
    let etag = headers["etag"].to_str().unwrap().to_owned();
    let mut pieces = Vec::new();
    while pieces.len() < whole.len() {
        let range = format!("bytes={}-{}", pieces.len(), pieces.len() + 99_999);
        let (status, headers, piece) = owner
            .range(&at("/outputs"), &[("range", &range), ("if-range", &etag)])
            .await;
        assert_eq!(status, 206);
        let last = (pieces.len() + 100_000).min(whole.len()) - 1;
        let expected = format!("bytes {}-{last}/{}", pieces.len(), whole.len());
        assert_eq!(headers["content-range"], expected.as_str());
        pieces.extend_from_slice(&piece);
    }
    assert!(pieces == whole);
    let (status, headers, body) = owner.range(&at("/outputs"), &[("range", "bytes=-5")]).await;
    assert_eq!((status, headers["content-length"].to_str().unwrap()), (206, "5"));
    assert!(whole.ends_with(&body));
    let (status, _, body) = owner
        .range(
            &at("/outputs"),
            &[("range", "bytes=5-"), ("if-range", "\"other\"")],
        )
        .await;
    assert_eq!((status, body.len()), (200, whole.len()));
    let past = format!("bytes={}-", whole.len());
    let (status, headers, body) = owner.range(&at("/outputs"), &[("range", &past)]).await;
    assert_eq!(
        (status, headers["content-range"].to_str().unwrap()),
        (416, format!("bytes */{}", whole.len()).as_str())
    );
    assert_eq!(
        problem(std::str::from_utf8(&body).unwrap()).code,
        ProblemCode::Range
    );

    let (status, _, body) = owner
        .range(&at("/outputs/deep/er/data.bin"), &[("range", "bytes=1000-1999")])
        .await;
    assert!(status == 206 && body == data[1000..2000]);
    assert_eq!(
        owner.get(&at("/outputs/a%20file.py")).await,
        (200, "print('x')\n".into())
    );
    assert_eq!(owner.get(&at("/outputs/empty")).await, (200, String::new()));
    for path in [
        "link",
        "nothing",
        "deep",
        "%2e%2e/job.log",
        "..%2fjob.log",
        "%00",
        "deep%2f..%2fempty",
        "/etc/passwd",
    ] {
        let (status, body) = owner.get(&at(&format!("/outputs/{path}"))).await;
        assert!(!body.is_empty(), "{path}: {status}");
        assert_eq!(
            (status, problem(&body).code),
            (404, ProblemCode::NotFound),
            "{path}"
        );
    }
    assert_eq!(owner.get(&at("/outputs/%ff")).await.0, 400);
    // As no client of HTTP would write it.
    for path in [
        "deep/../empty",
        "../job.log",
        "./empty",
        "deep/%2e%2e/empty",
        "/../../../../etc/passwd",
    ] {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = common::client::connect(scene.address, Some(&scene.identity))
            .await
            .unwrap();
        let request = format!(
            "GET {}{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            at("/outputs/")
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }

    let (status, log) = owner.get(&at("/log")).await;
    assert!(status == 200 && log.starts_with("begun\nline 0\n") && log.ends_with("line 499\n"));
    let (_, headers, tail) = owner.range(&at("/log"), &[("range", "bytes=-9")]).await;
    assert_eq!(tail, b"line 499\n");
    assert!(headers.contains_key("etag"));
    assert_eq!(owner.get(&at("/manifest")).await, (200, String::new()));

    // A file that is not what was measured is not served as if it were.
    let file = scene
        .state
        .join("jobs")
        .join(id)
        .join("workspace/outputs/a file.py");
    std::fs::write(&file, "other").unwrap();
    let (status, body) = owner.get(&at("/outputs/a%20file.py")).await;
    assert_eq!((status, problem(&body).code), (500, ProblemCode::Failed));
    assert!(body.contains("has 5 bytes, and had 11"), "{body}");
    assert_eq!(owner.get(&at("/outputs")).await.0, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_has_a_proof_that_says_so() {
    if no_docker().await {
        return;
    }
    let Some(scene) = Scene::start().await else { return };
    let id = job_id();
    scene
        .owner
        .begin(&id, &config("print('so far'); raise SystemExit(3)", ""))
        .await;
    let ended = scene.owner.end_of(&id).await;
    assert_eq!(
        (ended.state, ended.result),
        (JobState::Finished, Some(JobResult::Failed))
    );
    let proof = certificate(&scene, &id).await;
    assert_eq!(proof.result, JobResult::Failed);
    assert_eq!(scene.owner.get(&format!("/v1/jobs/{id}/log")).await.1, "so far\n");
    assert_eq!(
        scene.owner.get(&format!("/v1/jobs/{id}/outputs")).await,
        (200, String::new())
    );
    scene.stop().await;
}

/// What cannot be certified is not lost; nor is a proof when what goes with it cannot be written.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_left_without_a_proof_can_be_had() {
    if no_docker().await {
        return;
    }
    const LINKED: &str = "
import os
os.makedirs('/workspace/outputs/deep')
open('/workspace/outputs/deep/model', 'w').write('weights')
os.link('/workspace/outputs/deep/model', '/workspace/outputs/same')
";
    // More files than a proof lists: their listing is a file of its own.
    const MANY: &str = "
import time
print('begun', flush=True)
time.sleep(2)
for n in range(1001): open('/workspace/outputs/file-%04d' % n, 'w').write('x')
";
    for script in [LINKED, MANY] {
        let Some(scene) = Scene::start().await else { return };
        let (owner, id) = (&scene.owner, job_id());
        let at = |rest: &str| format!("/v1/jobs/{id}{rest}");
        owner.begin(&id, &config(script, "")).await;
        let (status, body) = owner.get(&at("/leftovers")).await;
        assert_eq!((status, problem(&body).code), (409, ProblemCode::WrongState));
        if script == MANY {
            owner.await_event(&id, "begun").await;
            std::fs::create_dir(scene.state.join("jobs").join(&id).join("manifest")).unwrap();
        }
        let ended = owner.end_of(&id).await;
        assert_eq!(ended.state, JobState::Failed, "{ended:?}");
        let (status, headers, whole) = owner.range(&at("/leftovers"), &[]).await;
        assert_eq!(
            (status, &headers["content-type"]),
            (200, &"application/x-tar".parse().unwrap())
        );
        let etag = headers["etag"].to_str().unwrap().to_owned();
        let (status, _, rest) = owner
            .range(&at("/leftovers"), &[("range", "bytes=700-"), ("if-range", &etag)])
            .await;
        assert!(status == 206 && rest == whole[700..]);
        let mut archive = tar::Archive::new(&whole[..]);
        let paths: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(paths[0], "UNCERTIFIED.txt");
        let (status, body) = owner.get(&at("/certificate")).await;
        if script == LINKED {
            assert!(paths.iter().any(|path| path == "outputs/deep/model"), "{paths:?}");
            assert!(paths.iter().any(|path| path == "outputs/same"), "{paths:?}");
            assert_eq!((status, ended.result), (409, None), "{body}");
        } else {
            assert_eq!(paths.len(), 1003);
            let told = ended.problem.unwrap();
            assert!(
                told.message.contains("has a proof, and its outputs cannot"),
                "{told:?}"
            );
            assert_eq!(ended.result, Some(JobResult::Succeeded));
            let proof = certificate(&scene, &id).await;
            assert_eq!((status, proof.result), (200, JobResult::Succeeded));
            assert_eq!(owner.get(&at("/outputs")).await.0, 409);
        }
        scene.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stops_a_job_is_told_and_leaves_no_proof() {
    let setup = Setup {
        docker: DockerConfig::new().with_host("unix:///nonexistent/docker.sock"),
        ..Setup::default()
    };
    let Some(scene) = Scene::with(setup).await else {
        return;
    };
    let id = job_id();
    scene.owner.begin(&id, &config("pass", "")).await;
    let ended = scene.owner.end_of(&id).await;
    let told = ended.problem.unwrap();
    assert_eq!((ended.state, told.code), (JobState::Failed, ProblemCode::Failed));
    assert!(told.message.contains("/nonexistent/docker.sock"), "{told:?}");
    for path in ["certificate", "manifest", "outputs", "outputs/x"] {
        let (status, body) = scene.owner.get(&format!("/v1/jobs/{id}/{path}")).await;
        assert_eq!(
            (status, problem(&body).code),
            (409, ProblemCode::WrongState),
            "{path}"
        );
        assert!(body.contains("/nonexistent/docker.sock"), "{body}");
    }
    let (status, body) = scene.owner.get(&format!("/v1/jobs/{id}/leftovers")).await;
    assert_eq!((status, problem(&body).code), (404, ProblemCode::NotFound));
    assert_eq!(
        scene.owner.get(&format!("/v1/jobs/{id}/log")).await,
        (200, String::new())
    );
    let (_, text) = scene.owner.get(&format!("/v1/jobs/{id}/events")).await;
    assert_eq!(
        events(&text).last().unwrap().1,
        StreamEvent::End {
            state: JobState::Failed
        }
    );
    let (status, body) = scene
        .owner
        .post("/v1/jobs", &submission("another", &config("pass", "")))
        .await;
    assert!(status == 409 && body.contains("has failed"), "{body}");
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tpm_that_fails_ends_the_job_without_a_proof() {
    if no_docker().await {
        return;
    }
    let Some(scene) = Scene::start().await else { return };
    let id = job_id();
    let script =
        "import time\nprint('begun', flush=True)\ntime.sleep(2)\nopen('/workspace/outputs/x','w').write('x')";
    scene.owner.begin(&id, &config(script, "")).await;
    scene.owner.await_event(&id, "\"line\":\"begun\"").await;
    let pid = i32::try_from(scene.tpm.instance().pid().unwrap()).unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    let ended = scene.owner.end_of(&id).await;
    let told = ended.problem.unwrap();
    assert_eq!((ended.state, told.code), (JobState::Failed, ProblemCode::Failed));
    assert!(told.message.contains("TPM"), "{told:?}");
    assert_eq!(
        scene.owner.get(&format!("/v1/jobs/{id}/certificate")).await.0,
        409
    );
    let (status, body) = scene
        .owner
        .get(&format!("/v1/attestation?nonce={}", "11".repeat(32)))
        .await;
    assert_eq!((status, problem(&body).code), (500, ProblemCode::Failed));
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_has_measured_something_takes_no_job() {
    let Some(scene) = Scene::start().await else { return };
    scene
        .tpm
        .extend_one_bank(PcrBank::Sha1, PcrIndex::INPUTS, &[7; 20])
        .await
        .unwrap();
    let (status, body) = scene
        .owner
        .post("/v1/jobs", &submission("job", &config("pass", "")))
        .await;
    assert_eq!((status, problem(&body).code), (409, ProblemCode::Occupied));
    assert!(body.contains("PCR 14 of the sha1 bank is not zero"), "{body}");
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_understood_is_refused_within_bounds() {
    let Some(scene) = Scene::start().await else { return };
    let owner = &scene.owner;
    for body in ["", "{}", "[", "null", "\"x\"", &"[".repeat(100_000)] {
        let request = owner
            .request(reqwest::Method::POST, "/v1/jobs")
            .body(body.to_owned());
        let (status, said) = owner.send(request).await;
        assert_eq!((status, problem(&said).code), (400, ProblemCode::BadRequest));
    }
    let mut secret = submission("job", "kind: container");
    secret["variables"] = serde_json::json!({"TOKEN": ["hunter2"]});
    let (status, said) = owner.post("/v1/jobs", &secret).await;
    assert!(status == 400 && !said.contains("hunter2"), "{said}");
    let (status, said) = owner
        .post("/v1/jobs", &submission("job", &"x".repeat(5 << 20)))
        .await;
    assert_eq!((status, problem(&said).code), (413, ProblemCode::TooLarge));
    let (status, said) = owner
        .post("/v1/jobs", &submission("job", "kind: python\nmachin: 1\n"))
        .await;
    assert_eq!(status, 422);
    assert!(said.contains("aicert.yaml:2:1: unknown key"), "{said}");
    for id in ["", "A", "../x", &"a".repeat(41)] {
        let (status, _) = owner.post("/v1/jobs", &submission(id, &config("pass", ""))).await;
        assert_eq!(status, 400, "{id}");
    }
    for (method, path) in [
        (reqwest::Method::PUT, "/v1/jobs/x/inputs/y"),
        (reqwest::Method::DELETE, "/v1/jobs/x"),
        (reqwest::Method::GET, "/v1/jobs/%ff"),
    ] {
        let (status, said) = owner.send(owner.request(method, path)).await;
        assert!(matches!(status, 400 | 404), "{path}: {said}");
    }
    // All of this, and the machine can still have its job.
    let (status, said) = owner
        .post("/v1/jobs", &submission("job", &config("pass", "")))
        .await;
    assert_eq!(status, 201, "{said}");
    scene.stop().await;
}
