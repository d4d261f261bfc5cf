//! Large files pass through, and are never held. A program of its own, since its memory is measured.

#![allow(unreachable_pub)] // a test binary has no outside
#![allow(dead_code)] // the helpers serve other tests as well
#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do
#![allow(clippy::print_stdout)] // the speed is of interest

#[path = "hostile/server.rs"]
mod server;

use std::time::Instant;

use aicert_client::Upload;
use aicert_core::api::{AwaitedInput, InputForm};
use aicert_core::digest::FileDigest;
use aicert_core::progress::Progress;
use aicert_core::tree::{Entry, Tree};
use server::{Seen, Server, ok, say};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// More than this program may occupy. `AICERT_LARGE_MIB` makes it larger.
fn size() -> usize {
    let mebibytes = std::env::var("AICERT_LARGE_MIB").map_or(400, |text| text.parse().unwrap());
    mebibytes << 20
}

/// What the program may occupy at most, the server included.
const LIMIT: u64 = 128 << 20;

const PIECE: usize = 1 << 20;

fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn report(what: &str, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    let (mebibytes, peak) = (size() >> 20, peak() >> 20);
    #[allow(clippy::cast_precision_loss)] // of a number of mebibytes
    let speed = mebibytes as f64 / seconds;
    println!(
        "{what}: {mebibytes} MiB in {seconds:.1} s, {speed:.0} MiB/s; the program has occupied {peak} MiB at most"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn large_files_are_not_held_in_memory() {
    let piece: &'static [u8] = vec![0x5a; PIECE].leak();
    let hasher = (0..size() / PIECE).fold(Sha256::new(), |hasher, _| hasher.chain_update(piece));
    let digest = FileDigest::from_bytes(hasher.finalize().into());
    let server = Server::start(move |seen: Seen, mut stream| async move {
        if seen.line.starts_with("PUT") {
            let mut left = size() - seen.rest.len();
            let mut buffer = vec![0; PIECE];
            while left > 0 {
                left -= stream.read(&mut buffer).await.unwrap();
            }
            let status =
                r#"{"id":"job","state":"running","awaited":[],"result":null,"problem":null,"next_event":0}"#;
            return say(stream, ok("application/json", status)).await;
        }
        let (offset, total) = (seen.offset(), size());
        let head = match offset {
            0 => format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n"),
            _ => format!(
                "HTTP/1.1 206 OK\r\nContent-Range: bytes {offset}-{}/{total}\r\nContent-Length: {}\r\n\r\n",
                total - 1,
                total - offset
            ),
        };
        stream.write_all(head.as_bytes()).await.unwrap();
        // The connection breaks four times on the way.
        let end = total.min(offset + total / 5 + 12_345);
        let mut at = offset;
        while at < end {
            let length = PIECE.min(end - at);
            if stream.write_all(&piece[..length]).await.is_err() {
                return;
            }
            at += length;
        }
        let _ = stream.flush().await;
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let job = "job".parse().unwrap();
    let entry = Entry::file("model.bin".parse().unwrap(), false, size() as u64, digest);
    let tree = Tree::from_entries(vec![entry]).unwrap();
    let into = folder.path().join("outputs");
    let client = server.attested();
    let start = Instant::now();
    client
        .download_outputs(&job, &tree, &into, &Progress::ignored())
        .await
        .unwrap();
    report("received", start);
    assert_eq!(server.seen().len(), 5);

    let name = String::from("model");
    let form = InputForm::File;
    let path = into.join("model.bin");
    let awaited = [AwaitedInput {
        name: name.clone(),
        form,
    }];
    let start = Instant::now();
    client
        .send_inputs(
            &job,
            &[Upload { name, form, path }],
            &awaited,
            &Progress::ignored(),
            |_| Ok(()),
        )
        .await
        .unwrap();
    report("sent", start);
    assert!(peak() < LIMIT, "{}", peak());
}
