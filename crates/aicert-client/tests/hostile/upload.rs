//! Inputs on their way to servers that break off, refuse, stall, or ask for what is none of theirs.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aicert_client::{AttestedClient, ClientError, Sent, SentContent, Upload};
use aicert_core::api::{AwaitedInput, InputForm};
use aicert_core::digest::FileDigest;
use aicert_core::measure::{self, HardLinks, Options};
use aicert_core::progress::Progress;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::jobs::STATUS;
use crate::server::*;

fn inputs(folder: &Path) -> Vec<Upload> {
    let code = folder.join("code");
    std::fs::create_dir_all(code.join("a")).unwrap();
    std::fs::write(code.join("a/main.py"), "train()").unwrap();
    std::fs::write(code.join("big.bin"), vec![3; 900_000]).unwrap();
    std::fs::write(folder.join("data.bin"), vec![5; 700_000]).unwrap();
    vec![
        Upload {
            name: "code".into(),
            form: InputForm::Tar,
            path: code,
        },
        Upload {
            name: "data /ü?#%.bin".into(),
            form: InputForm::File,
            path: folder.join("data.bin"),
        },
    ]
}

fn awaited(uploads: &[Upload]) -> Vec<AwaitedInput> {
    let each = uploads.iter().map(|upload| AwaitedInput {
        name: upload.name.clone(),
        form: upload.form,
    });
    each.collect()
}

async fn send(client: &AttestedClient, uploads: &[Upload]) -> Result<Vec<Sent>, ClientError> {
    let job = "job".parse().unwrap();
    let mut sent = Vec::new();
    let note = |input: &Sent| {
        sent.push(input.clone());
        Ok(())
    };
    client
        .send_inputs(&job, uploads, &awaited(uploads), &Progress::ignored(), note)
        .await?;
    Ok(sent)
}

/// The whole body of a request, whatever its transfer coding.
async fn body(seen: &Seen, stream: &mut Stream) -> Option<Vec<u8>> {
    let mut bytes = seen.rest.clone();
    let more = |bytes: &mut Vec<u8>, buffer: &[u8]| bytes.extend_from_slice(buffer);
    let mut buffer = vec![0; 65536];
    if let Some(length) = seen.header("content-length") {
        let length: usize = length.parse().unwrap();
        while bytes.len() < length {
            match stream.read(&mut buffer).await {
                Ok(count) if count > 0 => more(&mut bytes, &buffer[..count]),
                _ => return None,
            }
        }
        return Some(bytes);
    }
    assert_eq!(seen.header("transfer-encoding"), Some("chunked"));
    let (mut out, mut at) = (Vec::new(), 0);
    loop {
        let rest = &bytes[at..];
        if let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
            let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
            if rest.len() >= end + 2 + size + 2 {
                if size == 0 {
                    return Some(out);
                }
                out.extend_from_slice(&rest[end + 2..end + 2 + size]);
                at += end + 2 + size + 2;
                continue;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(count) if count > 0 => more(&mut bytes, &buffer[..count]),
            _ => return None,
        }
    }
}

/// Receives everything, once the first `breaks` connections have broken in the middle.
async fn receiver(breaks: usize) -> (Server, tokio::sync::mpsc::Receiver<(String, Vec<u8>)>) {
    let (sender, received) = tokio::sync::mpsc::channel(10);
    let count = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |seen: Seen, mut stream| {
        let (sender, count) = (sender.clone(), count.clone());
        async move {
            if seen.line.starts_with("GET") {
                let waiting = STATUS.replace(
                    "\"awaited\":[]",
                    "\"awaited\":[{\"name\":\"code\",\"form\":\"tar\"},{\"name\":\"data /ü?#%.bin\",\"form\":\"file\"}]",
                );
                return say(stream, ok("application/json", waiting)).await;
            }
            if count.fetch_add(1, Ordering::Relaxed) < breaks {
                let _ = stream.read(&mut [0; 1000]).await;
                return;
            }
            if let Some(body) = body(&seen, &mut stream).await {
                sender.send((seen.line, body)).await.unwrap();
                say(stream, ok("application/json", STATUS)).await;
            }
        }
    })
    .await;
    (server, received)
}

#[tokio::test]
async fn inputs_arrive_as_they_were_measured_across_broken_connections() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = inputs(folder.path());
    for breaks in [0, 1, 3] {
        let (server, mut received) = receiver(breaks).await;
        let sent = send(&server.attested(), &uploads).await.unwrap();
        let (line, archive) = received.recv().await.unwrap();
        assert_eq!(line, "PUT /v1/jobs/job/inputs/code");
        let to = tempfile::tempdir().unwrap();
        tar::Archive::new(&archive[..]).unpack(to.path()).unwrap();
        let measured = |path| measure::measure(path, &Options::quiet(HardLinks::Refuse)).unwrap();
        let tree = measured(&uploads[0].path);
        assert_eq!(measured(to.path()), tree);
        let (line, bytes) = received.recv().await.unwrap();
        assert_eq!(line, "PUT /v1/jobs/job/inputs/data%20%2F%C3%BC%3F%23%25.bin");
        let file = std::fs::read(&uploads[1].path).unwrap();
        assert!(bytes == file);
        assert_eq!(sent[0].content, SentContent::Directory(tree.root()));
        assert_eq!(sent[1].content, SentContent::File(FileDigest::of(&file)));
    }
    let (server, _received) = receiver(100).await;
    let error = send(&server.attested(), &uploads).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
}

/// The answer was lost, and the machine has the input.
#[tokio::test]
async fn what_the_machine_has_is_not_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = inputs(folder.path());
    let server = Server::start(|seen: Seen, mut stream| async move {
        if seen.line.starts_with("GET") {
            say(stream, ok("application/json", STATUS)).await;
        } else {
            let _ = body(&seen, &mut stream).await;
        }
    })
    .await;
    send(&server.attested(), &uploads[..1]).await.unwrap();
    let lines: Vec<_> = server.seen().iter().map(|seen| seen.line.clone()).collect();
    assert_eq!(lines, ["PUT /v1/jobs/job/inputs/code", "GET /v1/jobs/job"]);

    // It says so itself, and is right; then it says so and is wrong.
    for (status, is_there, puts) in [
        (STATUS.to_owned(), true, 1),
        (
            STATUS.replace(
                "\"awaited\":[]",
                "\"awaited\":[{\"name\":\"code\",\"form\":\"tar\"}]",
            ),
            false,
            4,
        ),
        // A job that has failed had all its inputs; one that was stopped never gets them.
        (STATUS.replace("receiving", "failed"), true, 1),
        (STATUS.replace("receiving", "cancelled"), false, 1),
    ] {
        let server = Server::start(move |seen: Seen, mut stream| {
            let status = status.clone();
            async move {
                if seen.line.starts_with("GET") {
                    say(stream, ok("application/json", status)).await;
                } else {
                    let _ = body(&seen, &mut stream).await;
                    say(stream, problem(409, "wrong_state")).await;
                }
            }
        })
        .await;
        let result = send(&server.attested(), &uploads[..1]).await;
        assert_eq!(result.is_ok(), is_there, "{result:?}");
        let seen = server.seen();
        let count = seen.iter().filter(|seen| seen.line.starts_with("PUT")).count();
        assert_eq!(count, puts);
    }
}

/// Whoever is killed at any time knows of everything that the machine may have.
#[tokio::test]
async fn what_is_sent_is_noted_before_the_first_byte() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = inputs(folder.path());
    let (server, mut received) = receiver(0).await;
    let (client, job) = (server.attested(), "job".parse().unwrap());
    let mut noted = Vec::new();
    let note = |input: &Sent| {
        noted.push(input.clone());
        // The second cannot be written down.
        (noted.len() < 2)
            .then_some(())
            .ok_or(std::io::ErrorKind::StorageFull.into())
    };
    let error = client
        .send_inputs(&job, &uploads, &awaited(&uploads), &Progress::ignored(), note)
        .await
        .unwrap_err();
    assert!(matches!(&error, ClientError::Storage { .. }), "{error}");
    assert!(
        error.to_string().contains("could not note what is sent of"),
        "{error}"
    );
    let names: Vec<_> = noted.iter().map(|input| &*input.name).collect();
    assert_eq!(names, ["code", "data /ü?#%.bin"]);
    assert_eq!(received.recv().await.unwrap().0, "PUT /v1/jobs/job/inputs/code");
    assert_eq!(server.seen().len(), 1);
}

/// A server gets what the configuration names, and nothing else of this computer.
#[tokio::test]
async fn what_is_no_input_of_the_job_is_not_sent() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = inputs(folder.path());
    let server = Server::start(|_, stream| say(stream, ok("application/json", STATUS))).await;
    for asked in [
        AwaitedInput {
            name: "/etc/passwd".into(),
            form: InputForm::File,
        },
        AwaitedInput {
            name: "code".into(),
            form: InputForm::File,
        },
    ] {
        let error = server
            .attested()
            .send_inputs(
                &"job".parse().unwrap(),
                &uploads,
                &[asked],
                &Progress::ignored(),
                |_| Ok(()),
            )
            .await
            .unwrap_err();
        assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
    }
    assert!(server.seen().is_empty());
}

/// The answer comes before the input is sent.
#[tokio::test]
async fn a_refusal_is_heard_while_sending() {
    let folder = tempfile::tempdir().unwrap();
    let mut uploads = inputs(folder.path());
    std::fs::write(&uploads[1].path, vec![0; 30 << 20]).unwrap();
    let uploads = uploads.split_off(1);
    let server = Server::start(|_, mut stream| async move {
        let _ = stream.write_all(&problem(413, "too_large")).await;
        let _ = stream.flush().await;
        // It goes on listening for a while, as servers do so that the answer is not lost.
        let mut buffer = vec![0; 65536];
        for _ in 0..20 {
            let _ = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut buffer)).await;
        }
    })
    .await;
    let error = send(&server.attested(), &uploads).await.unwrap_err();
    assert!(
        matches!(error, ClientError::Problem { status: 413, .. }),
        "{error:?}"
    );
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_server_that_takes_nothing_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut uploads = inputs(folder.path());
    std::fs::write(&uploads[1].path, vec![0; 30 << 20]).unwrap();
    let uploads = uploads.split_off(1);
    let server = Server::start(|seen: Seen, stream| async move {
        if seen.line.starts_with("GET") {
            return say(stream, problem(404, "not_found")).await;
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    let start = Instant::now();
    let error = send(&server.attested(), &uploads).await.unwrap_err();
    assert!(
        matches!(error, ClientError::Problem { status: 404, .. }),
        "{error:?}"
    );
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn inputs_that_cannot_be_read_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, stream| say(stream, ok("application/json", STATUS))).await;
    for (name, form, cause) in [
        ("absent", InputForm::File, "it does not exist"),
        ("absent", InputForm::Tar, "it does not exist"),
        ("", InputForm::File, "expected a file"),
    ] {
        let upload = Upload {
            name: "data".into(),
            form,
            path: folder.path().join(name),
        };
        let error = send(&server.attested(), &[upload]).await.unwrap_err();
        assert!(error.to_string().contains(cause), "{error}");
        assert!(error.to_string().starts_with("input \"data\""), "{error}");
        assert!(error.advice().is_some());
    }
    let code = folder.path().join("code");
    std::fs::create_dir(&code).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", code.join("leads-out")).unwrap();
    let upload = Upload {
        name: "code".into(),
        form: InputForm::Tar,
        path: code,
    };
    let error = send(&server.attested(), &[upload]).await.unwrap_err();
    assert!(
        error.to_string().contains("its target is an absolute path"),
        "{error}"
    );
    assert!(server.seen().is_empty());
}
