//! Who is not the owner gets nothing, and takes nothing from the owner.
#![allow(clippy::unwrap_used)] // what helps a test may fail it

mod common;

use std::time::{Duration, Instant};

use aicert_core::api::{Attestation, Problem, ProblemCode};
use aicert_core::digest::TlsKeyDigest;
use common::client::connect;
use common::{Client, Identity, Scene, Setup};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const CHALLENGE: &str =
    "/v1/attestation?nonce=5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

async fn is_served(scene: &Scene) -> Attestation {
    let fresh = Client::new(scene.address, Some(&scene.identity));
    let asking = fresh.get(CHALLENGE);
    let (status, body) = tokio::time::timeout(Duration::from_secs(20), asking)
        .await
        .expect("the owner is served");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_the_owner_gets_401_for_everything() {
    let Some(scene) = Scene::start().await else { return };
    for identity in [None, Some(Identity::generate())] {
        let stranger = Client::new(scene.address, identity.as_ref());
        for path in [
            CHALLENGE,
            "/v1/jobs/x",
            "/",
            "/v1/jobs/x/outputs/..%2f..%2fetc",
            "/nonsense",
        ] {
            let response = stranger.request(reqwest::Method::GET, path).send().await.unwrap();
            assert_eq!(response.status(), 401, "{path}");
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            assert_eq!(response.headers()["connection"], "close");
            let problem: Problem = serde_json::from_str(&response.text().await.unwrap()).unwrap();
            assert_eq!(problem.code, ProblemCode::Unauthorized);
        }
        let body = common::submission("job", "kind: container");
        assert_eq!(stranger.post("/v1/jobs", &body).await.0, 401);
        assert_eq!(stranger.put("/v1/jobs/x/inputs/y", vec![0; 1 << 20]).await.0, 401);
        assert_eq!(stranger.delete("/v1/jobs/x").await.0, 401);
    }
    // Nothing of it was read: what is no request is answered in the same way, once, and the connection ends.
    for said in [&b"\x16\x03\x01garbage"[..], b"GET", &[0xff; 100_000]] {
        let stranger = Identity::generate();
        let mut stream = connect(scene.address, Some(&stranger)).await.unwrap();
        let _ = stream.write_all(said).await;
        let mut answer = Vec::new();
        // A reset, after the answer, is all that may happen.
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1);
    }
    is_served(&scene).await;
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owners_certificate_is_nothing_without_its_key() {
    let Some(scene) = Scene::start().await else { return };
    let impostor = scene.identity.impostor();
    let mut stream = connect(scene.address, Some(&impostor)).await.unwrap();
    // In TLS 1.3 the client learns of it when it reads.
    let _ = stream
        .write_all(b"GET /v1/jobs/x HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer).await;
    assert!(ended.is_err() && answer.is_empty(), "{ended:?} {answer:?}");
    let error = ended.unwrap_err().to_string();
    assert!(
        error.contains("BadSignature") || error.contains("DecryptError"),
        "{error}"
    );
    is_served(&scene).await;
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_tls_13_is_cut_off() {
    let Some(scene) = Scene::start().await else { return };
    let garbage = vec![0xaau8; 70_000];
    for said in [
        &b"GET /v1/jobs/x HTTP/1.1\r\nhost: x\r\n\r\n"[..],
        b"\x16\x03\x01\xff\xff\x01",
        &garbage,
    ] {
        let mut stream = TcpStream::connect(scene.address).await.unwrap();
        let _ = stream.write_all(said).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer))
            .await
            .expect("the connection ends");
        // At most an alert of TLS.
        assert!(answer.len() < 20 && !answer.starts_with(b"HTTP"), "{answer:?}");
    }
    let mut old = common::client::tls(Some(&scene.identity));
    old.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(scene.address).await.unwrap();
    let name = pki_types::ServerName::try_from("machine").unwrap();
    let refused = tokio_rustls::TlsConnector::from(std::sync::Arc::new(old))
        .connect(name, stream)
        .await;
    assert!(refused.is_err(), "HTTP/2 is not offered");
    is_served(&scene).await;
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_strangers_do_not_keep_the_owner_out() {
    let Some(scene) = Scene::start().await else { return };
    let stranger = Identity::generate();
    let (mut silent, mut slow, mut known) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..200 {
        match number % 3 {
            0 => silent.push(TcpStream::connect(scene.address).await.unwrap()),
            1 => {
                // The beginning of a handshake, one byte at a time.
                let mut stream = TcpStream::connect(scene.address).await.unwrap();
                let _ = stream.write_all(b"\x16\x03\x01").await;
                slow.push(stream);
            }
            _ => {
                // May be the one that made room.
                if let Ok(stream) = connect(scene.address, Some(&stranger)).await {
                    known.push(stream);
                }
            }
        }
    }
    let began = Instant::now();
    is_served(&scene).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // The latest of them idle on; they have seconds.
    for stream in &mut slow {
        let _ = stream.write_all(b"\x02").await;
    }
    let last = silent.last_mut().unwrap();
    let began = Instant::now();
    let mut byte = [0];
    let ended = tokio::time::timeout(Duration::from_secs(15), last.read(&mut byte)).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
    assert!(began.elapsed() < Duration::from_secs(12));
    is_served(&scene).await;
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_has_limits_too() {
    let mut setup = Setup::default();
    setup.limits.owner = 3;
    setup.limits.head = Duration::from_secs(2);
    let Some(scene) = Scene::with(setup).await else {
        return;
    };
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = connect(scene.address, Some(&scene.identity)).await.unwrap();
        // A head that never ends.
        stream.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
        held.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let another = Client::new(scene.address, Some(&scene.identity));
    let (status, body) = another.get(CHALLENGE).await;
    assert_eq!(status, 429, "{body}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    is_served(&scene).await;
    // A head that is too large.
    let mut stream = connect(scene.address, Some(&scene.identity)).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(200_000));
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(
        answer.starts_with(b"HTTP/1.1 431 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_attestation_binds_this_connection() {
    let Some(scene) = Scene::start().await else { return };
    let stream = connect(scene.address, Some(&scene.identity)).await.unwrap();
    let chain = stream.get_ref().1.peer_certificates().unwrap().to_vec();
    let certificate = <x509_cert::Certificate as x509_cert::der::Decode>::from_der(&chain[0]).unwrap();
    let key = x509_cert::der::Encode::to_der(&certificate.tbs_certificate.subject_public_key_info).unwrap();
    let attestation = is_served(&scene).await;
    assert_eq!(attestation.tls_key, TlsKeyDigest::of(&key));
    assert_eq!(attestation.tls_key, scene.tls_key);
    assert_eq!(attestation.quote.nonce.to_string(), "5a".repeat(32));
    for nonce in [
        "",
        "?nonce=",
        "?nonce=5a",
        &format!("?nonce={}", "5A".repeat(32)),
        &format!("?nonce={}&x=1", "5a".repeat(32)),
    ] {
        let (status, body) = scene.owner.get(&format!("/v1/attestation{nonce}")).await;
        assert_eq!(status, 400, "{nonce}: {body}");
    }
    let (status, body) = scene.owner.get("/v2").await;
    assert_eq!((status, body.contains("not_found")), (404, true));
    let (status, body) = scene.owner.delete(CHALLENGE).await;
    assert_eq!((status, body.contains("bad_request")), (405, true));
    scene.stop().await;
}
