//! Submitting a job to, and asking, servers that answer anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aicert_client::{ClientError, PreparedJob};
use aicert_core::api::JobState;
use aicert_core::digest::Nonce;
use tokio::io::AsyncReadExt as _;

use crate::server::*;

pub const STATUS: &str =
    r#"{"id":"job","state":"receiving","awaited":[],"result":null,"problem":null,"next_event":0}"#;

const CONFIG: &str = "\
kind: python
pythonVersion: 11
source: {type: git, gitRepo: 'https://example.org/code.git', tokenEnv: TOKEN}
machine: {provider: local, tpm: swtpm}
";

fn prepared() -> PreparedJob {
    let environment = |name: &str| (name == "TOKEN").then(|| "hunter2-token".to_owned());
    let nonce = Nonce::from_bytes([1; 32]);
    PreparedJob::from_yaml(&"job".parse().unwrap(), CONFIG, "/".as_ref(), nonce, &environment).unwrap()
}

/// Sending it twice is harmless, so a broken connection is no reason to give up.
#[tokio::test]
async fn a_job_is_submitted_again_when_the_connection_breaks() {
    let count = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |_, stream| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        async move {
            match number {
                0 => drop(stream),
                1 => say_and_cut(stream, &ok("application/json", STATUS)[..120]).await,
                2 => say(stream, problem(429, "busy")).await,
                _ => say(stream, ok("application/json", STATUS)).await,
            }
        }
    })
    .await;
    let job = prepared();
    let status = server.attested().submit(job.submission()).await.unwrap();
    assert_eq!(status.state, JobState::Receiving);
    let seen = server.seen();
    assert_eq!(seen.len(), 4);
    for request in &seen {
        assert_eq!(request.line, "POST /v1/jobs");
        assert_eq!(request.header("content-type"), Some("application/json"));
    }
}

#[tokio::test]
async fn a_machine_that_refuses_is_quoted_and_not_asked_again() {
    let server = Server::start(|_, stream| say(stream, problem(409, "occupied"))).await;
    let job = prepared();
    let error = server.attested().submit(job.submission()).await.unwrap_err();
    let ClientError::Problem { status: 409, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(
        error.to_string(),
        "POST /v1/jobs: the words of \\u{1b}[2Jthe server"
    );
    assert_eq!(error.advice().as_deref(), Some("do this"));
    assert!(!format!("{error:?}{error}").contains("hunter2"));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn statuses_that_are_none_are_refused() {
    for (body, cause) in [
        ("", "expected an answer of this API"),
        ("[]", "expected an answer of this API"),
        ("{\"id\":\"job\",\"state\":\"unheard-of\"}", "unknown variant"),
    ] {
        let server = Server::start(move |_, stream| say(stream, ok("application/json", body))).await;
        let error = server
            .attested()
            .status(&"job".parse().unwrap())
            .await
            .unwrap_err();
        assert!(error.to_string().contains(cause), "{error}");
        assert_eq!(server.seen().len(), 1);
    }
    let endless = Server::start(|_, mut stream| async move {
        use tokio::io::AsyncWriteExt as _;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b' '; 65536]).await.is_ok() {}
    })
    .await;
    let error = endless
        .attested()
        .status(&"job".parse().unwrap())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("at most 1048576 bytes"), "{error}");
}

#[tokio::test]
async fn a_job_that_is_too_large_is_not_sent() {
    let server = Server::start(|_, stream| say(stream, ok("application/json", STATUS))).await;
    let mut submission = prepared().submission().clone();
    submission.config.push_str(&"#".repeat(4 << 20));
    let error = server.attested().submit(&submission).await.unwrap_err();
    assert!(
        error.to_string().contains("a machine takes at most 4194304"),
        "{error}"
    );
    assert!(server.seen().is_empty());
}

/// Removing takes longer than any other answer; a machine that does not say that it did is to be destroyed.
#[tokio::test]
async fn removing_has_its_own_time_and_advice() {
    let slow = Server::start(|_, stream| async move {
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        say(stream, ok("application/json", STATUS)).await;
    })
    .await;
    let id = "job".parse().unwrap();
    let status = slow.attested().delete(&id).await.unwrap();
    assert_eq!(status.state, JobState::Receiving);
    let mut settings = settings();
    settings.removal_limit = std::time::Duration::from_millis(300);
    let silent = slow.attested_with(settings).delete(&id).await.unwrap_err();
    assert!(matches!(silent, ClientError::NotRemoved { .. }), "{silent}");
    let broken = Server::start(|_, _| async {}).await;
    for error in [silent, broken.attested().delete(&id).await.unwrap_err()] {
        assert!(
            error.to_string().contains("did not say that the job is removed"),
            "{error}"
        );
        assert!(error.advice().unwrap().starts_with("destroy the machine"));
    }
}

/// What was sent is what was read, and the proof file is taken as it is.
#[tokio::test]
async fn bytes_arrive_as_they_are() {
    let (sender, mut received) = tokio::sync::mpsc::channel(1);
    let server = Server::start(move |seen: Seen, mut stream| {
        let sender = sender.clone();
        async move {
            if seen.line.starts_with("POST") {
                let length = seen.header("content-length").unwrap().parse().unwrap();
                let mut body = seen.rest.clone();
                while body.len() < length {
                    let mut buffer = [0; 4096];
                    let count = stream.read(&mut buffer).await.unwrap();
                    body.extend_from_slice(&buffer[..count]);
                }
                sender.send(body).await.unwrap();
                say(stream, ok("application/json", STATUS)).await;
            } else {
                say(stream, ok("application/json", "{ \"any\": \"bytes\" }\n")).await;
            }
        }
    })
    .await;
    let client = server.attested();
    let job = prepared();
    client.submit(job.submission()).await.unwrap();
    let body = received.recv().await.unwrap();
    assert_eq!(body, serde_json::to_vec(job.submission()).unwrap());
    assert!(String::from_utf8(body).unwrap().contains("hunter2-token"));
    let id = "job".parse().unwrap();
    assert_eq!(
        client.certificate(&id).await.unwrap(),
        b"{ \"any\": \"bytes\" }\n"
    );
    client.delete(&id).await.unwrap_err();
    let lines: Vec<_> = server.seen().iter().map(|seen| seen.line.clone()).collect();
    assert_eq!(
        lines,
        [
            "POST /v1/jobs",
            "GET /v1/jobs/job/certificate",
            "DELETE /v1/jobs/job"
        ]
    );
}
