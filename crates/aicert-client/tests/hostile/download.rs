//! Outputs, logs and manifests from servers that lie, and over connections that break.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aicert_client::ClientError;
use aicert_core::digest::FileDigest;
use aicert_core::measure::{self, HardLinks, Options};
use aicert_core::progress::{Progress, ProgressEvent, Step};
use aicert_core::runtime::JobId;
use aicert_core::tree::{Entry, Tree};
use tokio::io::AsyncWriteExt as _;

use crate::server::*;

fn job() -> JobId {
    "job".parse().unwrap()
}

/// Files with a content that differs at every place.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let content =
        |length: usize, seed: usize| (0..length).map(|at| (at * 7 + seed + at / 251) as u8).collect();
    vec![
        ("config.json", content(41, 1)),
        ("empty", Vec::new()),
        ("model/a.bin", content(1500, 2)),
        ("model/b.bin", content(459, 3)),
    ]
}

fn tree() -> Tree {
    let entries = files().into_iter().map(|(path, content)| {
        let size = content.len() as u64;
        Entry::file(path.parse().unwrap(), false, size, FileDigest::of(&content))
    });
    Tree::from_entries(entries.collect()).unwrap()
}

fn stream() -> Vec<u8> {
    files().into_iter().flat_map(|(_, content)| content).collect()
}

/// The head of an answer to a request for everything from an offset on.
fn head(offset: usize, total: usize) -> Vec<u8> {
    let length = total - offset;
    let text = match offset {
        0 => format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"),
        _ => format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {offset}-{}/{total}\r\nContent-Length: {length}\r\n\r\n",
            total - 1
        ),
    };
    text.into_bytes()
}

struct Download {
    folder: tempfile::TempDir,
}

impl Download {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("outputs")
    }

    async fn run(&self, server: &Server) -> Result<(), ClientError> {
        let client = server.attested();
        client
            .download_outputs(&job(), &tree(), &self.target(), &Progress::ignored())
            .await
    }

    fn assert_complete(&self) {
        let found = measure::measure(&self.target(), &Options::quiet(HardLinks::Refuse)).unwrap();
        assert_eq!(found, tree());
        assert_eq!(std::fs::read_dir(self.folder.path()).unwrap().count(), 1);
    }
}

#[tokio::test]
async fn an_honest_server_is_asked_once() {
    let server =
        Server::start(|seen, stream| say(stream, [head(seen.offset(), 2000), stream_from(&seen)].concat()))
            .await;
    let download = Download::new();
    let (progress, mut events) = Progress::channel(100);
    server
        .attested()
        .download_outputs(&job(), &tree(), &download.target(), &progress)
        .await
        .unwrap();
    download.assert_complete();
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].line, "GET /v1/jobs/job/outputs");
    assert_eq!(seen[0].header("range"), None);
    let mut last = None;
    while let Ok(event) = events.try_recv() {
        last = Some(event);
    }
    assert!(matches!(
        last,
        Some(ProgressEvent::StepFinished { step: Step::Receive, detail, .. }) if detail == "4 files, 2.0 KiB"
    ));
}

fn stream_from(seen: &Seen) -> Vec<u8> {
    stream()[seen.offset()..].to_vec()
}

/// The connection breaks after every `step` bytes, and the download goes on at the exact byte.
#[tokio::test]
async fn a_connection_that_breaks_again_and_again_loses_nothing() {
    for step in [1_usize, 7, 40, 41, 42, 500, 1999] {
        let server = Server::start(move |seen, stream| {
            let (offset, bytes) = (seen.offset(), stream_from(&seen));
            let bytes = bytes[..step.min(bytes.len())].to_vec();
            say_and_cut(stream, [head(offset, 2000), bytes].concat())
        })
        .await;
        let download = Download::new();
        // Byte by byte takes 2000 connections: begin where few are left.
        let from = if step == 1 { 1960 } else { 0 };
        if from > 0 {
            let partly = Server::start(move |seen, stream| {
                let bytes = stream_from(&seen);
                say_and_cut(
                    stream,
                    [head(seen.offset(), 2000), bytes[..from].to_vec()].concat(),
                )
            })
            .await;
            let client = partly.attested_with(impatient());
            let stopped = client
                .download_outputs(&job(), &tree(), &download.target(), &Progress::ignored())
                .await;
            assert!(
                matches!(stopped, Err(ClientError::Unreachable { .. })),
                "{stopped:?}"
            );
        }
        download.run(&server).await.unwrap();
        download.assert_complete();
        let offsets: Vec<_> = server.seen().iter().map(Seen::offset).collect();
        let expected: Vec<_> = (from..2000).step_by(step).collect();
        assert_eq!(offsets, expected, "step {step}");
    }
}

fn impatient() -> aicert_client::Settings {
    let mut settings = settings();
    settings.retries = 0;
    settings
}

/// 200 instead of 206: what came before is skipped.
#[tokio::test]
async fn a_server_that_knows_no_ranges_is_listened_to_from_the_start() {
    let count = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |_, out| {
        let sent = 300 * (count.fetch_add(1, Ordering::Relaxed) + 1);
        let bytes = stream()[..sent.min(2000)].to_vec();
        say_and_cut(out, [head(0, 2000), bytes].concat())
    })
    .await;
    let download = Download::new();
    download.run(&server).await.unwrap();
    download.assert_complete();
    assert_eq!(server.seen().len(), 7);
}

/// Without a length, the end of the connection is all there is to go by; it is not believed.
#[tokio::test]
async fn an_answer_without_a_length_may_end_too_soon() {
    let server = Server::start(|seen, stream| {
        let offset = seen.offset();
        let head = match offset {
            0 => "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_owned(),
            _ => format!(
                "HTTP/1.1 206 X\r\nContent-Range: bytes {offset}-1999/2000\r\nConnection: close\r\n\r\n"
            ),
        };
        let bytes = stream_from(&seen);
        let bytes = bytes[..bytes.len().min(900)].to_vec();
        say(stream, [head.into_bytes(), bytes].concat())
    })
    .await;
    let download = Download::new();
    download.run(&server).await.unwrap();
    download.assert_complete();
    let offsets: Vec<_> = server.seen().iter().map(Seen::offset).collect();
    assert_eq!(offsets, [0, 900, 1800]);
}

#[tokio::test]
async fn answers_that_contradict_the_proof_are_refused() {
    let body = stream();
    let with_head = |head: &str, body: &[u8]| [head.as_bytes(), b"\r\n\r\n", body].concat();
    for (answer, cause) in [
        (
            with_head("HTTP/1.1 200 OK\r\nContent-Length: 1999", &body[..1999]),
            "expected 2000 bytes from byte 0 on, found 1999 bytes",
        ),
        (
            with_head(
                "HTTP/1.1 200 OK\r\nContent-Length: 2001",
                &[&body[..], b"x"].concat(),
            ),
            "found 2001 bytes",
        ),
        (
            with_head(
                "HTTP/1.1 200 OK\r\nConnection: close",
                &[&body[..], b"x"].concat(),
            ),
            "found more",
        ),
        (
            with_head(
                "HTTP/1.1 206 OK\r\nContent-Range: bytes 1-1999/2000\r\nContent-Length: 1999",
                &body[1..],
            ),
            "expected bytes 0-…, found bytes 1-1999/2000",
        ),
        (
            with_head("HTTP/1.1 206 OK\r\nContent-Length: 2000", &body),
            "found no Content-Range",
        ),
        (
            with_head(
                "HTTP/1.1 206 OK\r\nContent-Range: bytes 0-2999/3000\r\nContent-Length: 3000",
                &body,
            ),
            "expected 2000 bytes in total, found 3000",
        ),
        (
            with_head("HTTP/1.1 204 None\r\nContent-Length: 0", b""),
            "found 204",
        ),
        (
            with_head(
                "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 2000",
                &body,
            ),
            "found the content encoding br",
        ),
        (problem(409, "wrong_state"), "the words of"),
        (problem(401, "unauthorized"), "serves another client"),
        (
            b"HTTP/1.1 302 Go\r\nLocation: https://example.org/\r\nContent-Length: 0\r\n\r\n".to_vec(),
            "status 302",
        ),
    ] {
        let server = Server::start(move |_, stream| say(stream, answer.clone())).await;
        let download = Download::new();
        let error = download.run(&server).await.unwrap_err();
        assert!(error.to_string().contains(cause), "{cause}: {error}");
        assert_eq!(server.seen().len(), 1, "{cause}");
        assert!(!download.target().exists());
    }
}

#[tokio::test]
async fn other_bytes_than_those_measured_are_refused() {
    for at in [0, 40, 41, 1540, 1541, 1999] {
        let server = Server::start(move |seen, out| {
            let mut bytes = stream();
            bytes[at] ^= 0x10;
            say(
                out,
                [head(seen.offset(), 2000), bytes[seen.offset()..].to_vec()].concat(),
            )
        })
        .await;
        let download = Download::new();
        let error = download.run(&server).await.unwrap_err();
        let ClientError::OtherBytes { expected, found, .. } = &error else {
            panic!("{error}");
        };
        assert_ne!(expected, found);
        assert!(!error.is_retryable() && error.advice().is_some());
        assert!(!download.target().exists());
    }
}

/// What is damaged on this computer is fetched again, once.
#[tokio::test]
async fn what_was_damaged_between_two_runs_is_mended() {
    let broken = Server::start(|seen, out| {
        say_and_cut(
            out,
            [head(seen.offset(), 2000), stream()[..1000].to_vec()].concat(),
        )
    })
    .await;
    let download = Download::new();
    let client = broken.attested_with(impatient());
    let stopped = client
        .download_outputs(&job(), &tree(), &download.target(), &Progress::ignored())
        .await;
    assert!(matches!(stopped, Err(ClientError::Unreachable { .. })));
    let part = std::fs::read_dir(download.folder.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    std::fs::write(part.join("model/a.bin"), [0; 800]).unwrap();
    let server =
        Server::start(|seen, stream| say(stream, [head(seen.offset(), 2000), stream_from(&seen)].concat()))
            .await;
    download.run(&server).await.unwrap();
    download.assert_complete();
    let offsets: Vec<_> = server.seen().iter().map(Seen::offset).collect();
    assert_eq!(offsets, [841, 41]);
}

#[tokio::test]
async fn a_server_that_is_gone_is_said_to_be_and_what_came_is_kept() {
    let server = Server::start(|seen, out| {
        let bytes = if seen.offset() == 0 {
            stream()[..700].to_vec()
        } else {
            Vec::new()
        };
        say_and_cut(out, [head(seen.offset(), 2000), bytes].concat())
    })
    .await;
    let download = Download::new();
    let error = download.run(&server).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    // The first, which brought something, and three more.
    assert_eq!(server.seen().len(), 1 + 3);
    assert!(!download.target().exists());
    drop(server);
    let server =
        Server::start(|seen, stream| say(stream, [head(seen.offset(), 2000), stream_from(&seen)].concat()))
            .await;
    download.run(&server).await.unwrap();
    download.assert_complete();
    assert_eq!(server.seen()[0].offset(), 700);
}

#[tokio::test]
async fn a_server_that_falls_silent_is_left_and_asked_again() {
    let server = Server::start(|seen, mut out| async move {
        let silent = seen.offset() == 0;
        let bytes = stream_from(&seen);
        let bytes = if silent { &bytes[..500] } else { &bytes[..] };
        let _ = out.write_all(&[&head(seen.offset(), 2000), bytes].concat()).await;
        let _ = out.flush().await;
        if silent {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    })
    .await;
    let download = Download::new();
    let start = Instant::now();
    download.run(&server).await.unwrap();
    download.assert_complete();
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(server.seen()[1].offset(), 500);
}

/// As long as something comes, it is waited for.
#[tokio::test]
async fn a_slow_server_is_listened_to() {
    let server = Server::start(|seen, mut out| async move {
        let _ = out.write_all(&head(seen.offset(), 2000)).await;
        for bytes in stream().chunks(50) {
            let _ = out.write_all(bytes).await;
            let _ = out.flush().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    let download = Download::new();
    download.run(&server).await.unwrap();
    download.assert_complete();
    assert_eq!(server.seen().len(), 1);
}

/// A file system of 64 KiB, for as long as the value lives.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "none"])
            .arg(folder.path())
            .stderr(std::process::Stdio::null())
            .status();
        match mounted {
            Ok(status) if status.success() => Some(Self(folder)),
            _ => {
                // It takes root, which not everybody tests as.
                eprintln!("skipped: no tmpfs can be mounted here");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_said_in_words() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let content = vec![7; 200_000];
    let tree = Tree::from_entries(vec![Entry::file(
        "model.bin".parse().unwrap(),
        false,
        content.len() as u64,
        FileDigest::of(&content),
    )])
    .unwrap();
    let server = Server::start(move |seen, stream| {
        let offset = seen.offset();
        say(
            stream,
            [head(offset, content.len()), content[offset..].to_vec()].concat(),
        )
    })
    .await;
    let into = disk.0.path().join("outputs");
    let client = server.attested();
    let error = client
        .download_outputs(&job(), &tree, &into, &Progress::ignored())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert!(error.advice().unwrap().contains("what has arrived is kept"));
    assert_eq!(server.seen().len(), 1);
    // There is more room now.
    let status = std::process::Command::new("mount")
        .args(["-o", "remount,size=1m"])
        .arg(disk.0.path())
        .status();
    assert!(status.unwrap().success());
    client
        .download_outputs(&job(), &tree, &into, &Progress::ignored())
        .await
        .unwrap();
    assert!(server.seen()[1].offset() > 0);
    assert_eq!(std::fs::metadata(into.join("model.bin")).unwrap().len(), 200_000);
}

/// Whoever stops waiting loses nothing, and the next may begin at once.
#[tokio::test]
async fn a_download_that_is_dropped_can_be_taken_up() {
    let slow = Server::start(|seen, mut out| async move {
        let _ = out.write_all(&head(seen.offset(), 2000)).await;
        let _ = out.write_all(&stream()[..1200]).await;
        let _ = out.flush().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    let download = Download::new();
    let stopped = tokio::time::timeout(Duration::from_millis(400), download.run(&slow)).await;
    assert!(stopped.is_err());
    tokio::time::sleep(Duration::from_millis(50)).await;
    let server =
        Server::start(|seen, stream| say(stream, [head(seen.offset(), 2000), stream_from(&seen)].concat()))
            .await;
    download.run(&server).await.unwrap();
    download.assert_complete();
    assert_eq!(server.seen()[0].offset(), 1200);
}

fn content(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[tokio::test]
async fn a_log_grows_with_what_the_job_prints() {
    let server = Server::start(|seen, stream| async move {
        let text = b"one\ntwo\nthree\n";
        let offset = seen.offset();
        if offset >= text.len() {
            say(stream, problem(416, "range")).await;
        } else {
            let end = (offset + 5).min(text.len());
            say_and_cut(
                stream,
                [head(offset, text.len()), text[offset..end].to_vec()].concat(),
            )
            .await;
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    std::fs::write(&path, "one\n").unwrap();
    let client = server.attested();
    assert_eq!(client.log(&job(), &path).await.unwrap(), 14);
    assert_eq!(content(&path), b"one\ntwo\nthree\n");
    let offsets: Vec<_> = server.seen().iter().map(Seen::offset).collect();
    assert_eq!(offsets, [4, 9]);
    assert_eq!(client.log(&job(), &path).await.unwrap(), 14);
    // With a limit, what comes behind it is left out, and not asked for again.
    let some = folder.path().join("some");
    assert_eq!(client.log_up_to(&job(), &some, 8).await.unwrap(), 8);
    assert_eq!(content(&some), b"one\ntwo\n");
    let asked = server.seen().len();
    assert_eq!(client.log_up_to(&job(), &some, 8).await.unwrap(), 8);
    assert_eq!(server.seen().len(), asked);
    assert_eq!(client.log_up_to(&job(), &some, 14).await.unwrap(), 14);
    let error = client.log(&job(), folder.path()).await.unwrap_err();
    assert!(matches!(error, ClientError::Storage { .. }), "{error}");
}

#[tokio::test]
async fn where_nothing_was_left_there_is_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("leftovers.tar");
    let nothing = Server::start(|_, stream| say(stream, problem(404, "not_found"))).await;
    assert_eq!(nothing.attested().leftovers(&job(), &path).await.unwrap(), 0);
    assert!(!path.exists());
    // What has arrived stays when no more comes.
    let broken = Server::start(|seen, stream| async move {
        match seen.offset() {
            0 => say_and_cut(stream, [head(0, 10), b"01234".to_vec()].concat()).await,
            _ => say(stream, problem(500, "failed")).await,
        }
    })
    .await;
    assert!(broken.attested().leftovers(&job(), &path).await.is_err());
    assert_eq!(content(&path), b"01234");
    let rest = Server::start(|seen, stream| {
        assert_eq!(seen.offset(), 5);
        say(stream, [head(5, 10), b"56789".to_vec()].concat())
    })
    .await;
    assert_eq!(rest.attested().leftovers(&job(), &path).await.unwrap(), 10);
    assert_eq!(content(&path), b"0123456789");
}

#[tokio::test]
async fn a_manifest_is_there_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manifest");
    let empty = Server::start(|_, stream| say(stream, ok("text/plain", ""))).await;
    assert_eq!(empty.attested().manifest(&job(), &path).await.unwrap(), 0);
    assert!(!path.exists());
    let count = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |_, stream| {
        let cut = count.fetch_add(1, Ordering::Relaxed) == 0;
        let answer = ok("text/plain", "0123456789");
        let end = if cut { answer.len() - 4 } else { answer.len() };
        say_and_cut(stream, answer[..end].to_vec())
    })
    .await;
    assert_eq!(server.attested().manifest(&job(), &path).await.unwrap(), 10);
    assert_eq!(content(&path), b"0123456789");
    let failing = Server::start(|_, stream| say(stream, problem(409, "wrong_state"))).await;
    assert!(failing.attested().manifest(&job(), &path).await.is_err());
    assert!(!path.exists());
}
