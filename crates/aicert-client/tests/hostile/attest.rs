//! What a client meets before it has attested anything. Nothing but a nonce may ever be sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aicert_client::{Client, ClientError, Identity};
use aicert_core::attestation::{Attestation, attestation_qualifying_data};
use aicert_core::digest::{Nonce, TlsKeyDigest};
use aicert_verify::attestation::AttestationFault;
use aicert_verify::{Cause, Options};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::answer::{answer, unused};
use crate::machine::machine_options;
use crate::server::*;
use crate::support::Recipe;

fn client(server: &Server) -> Client {
    Client::new(server.address, Identity::generate().unwrap()).with_settings(settings())
}

async fn refused(server: &Server) -> ClientError {
    client(server).attest(&machine_options()).await.unwrap_err()
}

/// What an honest machine with this key answers.
fn honest(key: TlsKeyDigest, nonce: Nonce) -> Attestation {
    let recipe = Recipe {
        nonce,
        extra_data: Some(attestation_qualifying_data(&key, &nonce).to_vec()),
        ..unused()
    };
    let mut answer = answer(&recipe);
    answer.tls_key = key;
    answer
}

fn nonce_of(seen: &Seen) -> Nonce {
    let nonce = seen.line.strip_prefix("GET /v1/attestation?nonce=").unwrap();
    nonce.parse().unwrap()
}

/// A server that answers for a key: its own, or somebody else's.
async fn machine(answers_for: Option<TlsKeyDigest>) -> Server {
    let key = ServerKey::generate();
    let answers_for = answers_for.unwrap_or(key.digest);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Server::on(listener, key, move |seen, stream| async move {
        let answer = honest(answers_for, nonce_of(&seen));
        say(
            stream,
            ok("application/json", serde_json::to_vec(&answer).unwrap()),
        )
        .await;
    })
}

#[tokio::test]
async fn an_honest_machine_is_attested_and_its_key_pinned() {
    let server = machine(None).await;
    let attested = client(&server).attest(&machine_options()).await.unwrap();
    let session = attested.session().clone();
    assert_eq!((session.endpoint, session.tls_key), (server.address, server.key));
    assert_eq!(session.image.as_deref(), Some("aicert-base 1.0"));
    assert_eq!(session.firmware.as_deref(), Some("firmware 1.0"));
    let verified = attested.attestation().unwrap();
    assert_eq!(verified.tls_key(), &server.key);
    assert_eq!(verified.nonce(), &nonce_of(&server.seen()[0]));
    let text = serde_json::to_string(&session).unwrap();
    assert_eq!(
        serde_json::from_str::<aicert_client::Session>(&text).unwrap(),
        session
    );
    // Each attestation asks with a nonce of its own.
    client(&server).attest(&machine_options()).await.unwrap();
    let nonces: Vec<_> = server.seen().iter().map(nonce_of).collect();
    assert_ne!(nonces[0], nonces[1]);
}

/// Somebody stands in between, and passes on the genuine, fresh answer of a machine.
#[tokio::test]
async fn somebody_in_between_is_recognised_before_anything_is_sent() {
    let real = machine(None).await;
    let middle = machine(Some(real.key)).await;
    let error = refused(&middle).await;
    let ClientError::Rejected(rejection) = &error else {
        panic!("{error}");
    };
    assert!(matches!(
        rejection.failures()[0].cause(),
        Cause::Attestation(AttestationFault::OtherTlsKey { expected, found })
            if *expected == middle.key && *found == real.key
    ));
    let text = error.to_string();
    assert!(text.contains("nothing was sent to it"), "{text}");
    assert!(
        text.contains("somebody stands between you and the machine"),
        "{text}"
    );
    assert_eq!(middle.seen().len(), 1);
}

/// A machine is attested; later, its address answers with another key.
#[tokio::test]
async fn another_key_later_gets_nothing() {
    let server = machine(None).await;
    let attested = client(&server).attest(&machine_options()).await.unwrap();
    let address = server.address;
    drop(server);
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let other = Server::on(listener, ServerKey::generate(), |_, stream| async {
        say(stream, ok("application/json", "{}")).await;
    });
    let job = "job".parse().unwrap();
    let error = attested.status(&job).await.unwrap_err();
    let ClientError::Changed { expected, found, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!((*expected, *found), (attested.session().tls_key, other.key));
    assert!(!error.is_retryable());
    let text = error.to_string();
    assert!(
        text.contains("the machine was restarted, or somebody stands in between"),
        "{text}"
    );
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn what_is_not_there_yet_is_told_from_what_is_wrong() {
    let options = machine_options();
    let identity = Identity::generate().unwrap();
    let attest = |address| {
        let client = Client::new(address, identity.clone()).with_settings(settings());
        let options = &options;
        async move { client.attest(options).await.unwrap_err() }
    };
    // Nobody listens.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = attest(address).await;
    assert!(matches!(error, ClientError::NotYet { .. }), "{error}");
    assert!(error.is_retryable() && error.advice().is_some());

    // A proxy listens, and nobody behind it: the connection is closed, or reset, or stays silent, before or within TLS.
    for (number, say) in [(0, &[][..]), (1, &[]), (2, &[]), (3, &[0x16, 3, 3, 0, 100, 2])] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                let _ = socket.read(&mut [0; 1000]).await;
                let _ = socket.write_all(say).await;
                match number {
                    // With unread data, closing is a reset.
                    1 => drop(socket),
                    2 => kept.push(socket),
                    _ => {
                        let _ = socket.shutdown().await;
                    }
                }
            }
        });
        let start = Instant::now();
        let error = attest(address).await;
        assert!(matches!(error, ClientError::NotYet { .. }), "{number}: {error:?}");
        assert!(start.elapsed() < Duration::from_secs(6));
        task.abort();
    }

    // Something else listens.
    for (name, says) in [
        (
            "HTTP",
            &b"HTTP/1.1 400 Bad Request\r\n\r\nThe plain HTTP request was sent to HTTPS port"[..],
        ),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("garbage", &[0xff; 4096]),
        ("a TLS alert", &[0x15, 3, 3, 0, 2, 2, 40]),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let _ = socket.read(&mut [0; 4096]).await;
                let _ = socket.write_all(says).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let error = attest(address).await;
        assert!(matches!(error, ClientError::Protocol { .. }), "{name}: {error:?}");
        assert!(!error.is_retryable());
        task.abort();
    }
}

#[tokio::test]
async fn old_tls_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let key = ServerKey::with_versions(&[&rustls::version::TLS12]);
    let server = Server::on(listener, key, |_, stream| async {
        say(stream, ok("application/json", "{}")).await;
    });
    let error = refused(&server).await;
    assert!(matches!(error, ClientError::Protocol { .. }), "{error:?}");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn answers_that_are_none_are_refused() {
    let long = "x".repeat(100_000);
    for (bytes, cause) in [
        (ok("text/html", "<html></html>"), "the answer is no attestation"),
        (ok("application/json", ""), "the answer is no attestation"),
        (ok("application/json", &long), "the answer is no attestation"),
        (
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
            "found status 404 Not Found without a word",
        ),
        (
            format!("HTTP/1.1 500 X\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\n\r\n{long}", long.len()).into_bytes(),
            "expected at most 65536 bytes, found more",
        ),
        (problem(404, "not_found"), "the words of \\u{1b}[2Jthe server"),
        (problem(401, "unauthorized"), "the machine serves another client"),
        (b"HTTP/2.0 what\r\n\r\n".to_vec(), "expected an answer in HTTP"),
        (b"\0\0\0\r\n\r\n".to_vec(), "expected an answer in HTTP"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b".to_vec(),
            "found the content encoding gzip",
        ),
    ] {
        let server = Server::start(move |_, stream| say(stream, bytes.clone())).await;
        let error = refused(&server).await;
        assert!(error.to_string().contains(cause), "{error}");
        assert!(!error.is_retryable(), "{error}");
        assert!(!error.to_string().contains('\u{1b}'));
        let expected = match &error {
            ClientError::Problem { problem, .. } | ClientError::Unauthorized { problem } => {
                problem.advice.clone()
            }
            other => other.advice(),
        };
        assert_eq!(error.advice(), expected);
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = machine(None).await;
    let target = elsewhere.address;
    for status in [301, 302, 303, 307, 308] {
        let server = Server::start(move |seen: Seen, stream| {
            let path = seen.line.split_once(' ').unwrap().1.to_owned();
            say(
                stream,
                format!(
                    "HTTP/1.1 {status} Go\r\nLocation: https://{target}{path}\r\nContent-Length: 0\r\n\r\n"
                ),
            )
        })
        .await;
        let error = refused(&server).await;
        assert!(matches!(error, ClientError::Protocol { .. }), "{error:?}");
        assert_eq!(server.seen().len(), 1);
    }
    assert!(elsewhere.seen().is_empty());
}

/// Decompressed, it would be endless: it is not asked for, and refused when it comes nevertheless.
#[tokio::test]
async fn compression_is_not_asked_for() {
    let server = machine(None).await;
    client(&server).attest(&machine_options()).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].header("accept-encoding"), Some("identity"));
}

/// Answers without an end, in whatever form, cost neither memory nor time.
#[tokio::test]
async fn endless_answers_end() {
    type Endless = fn(Stream) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
    let endless: [(&str, Endless, &str); 4] = [
        (
            "a body",
            |mut stream| {
                Box::pin(async move {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                    while stream.write_all(&[b' '; 65536]).await.is_ok() {}
                })
            },
            "found more",
        ),
        (
            "a body of a length that nothing has",
            |mut stream| {
                Box::pin(async move {
                    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n";
                    let _ = stream.write_all(head).await;
                    while stream.write_all(&[b' '; 65536]).await.is_ok() {}
                })
            },
            "",
        ),
        (
            "headers",
            |mut stream| {
                Box::pin(async move {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
                    while stream.write_all(b"X-More: and more\r\n").await.is_ok() {}
                })
            },
            "",
        ),
        (
            "one byte after another",
            |mut stream| {
                Box::pin(async move {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                    while stream.write_all(b" ").await.is_ok() {
                        let _ = stream.flush().await;
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                })
            },
            "no whole answer within 2 seconds",
        ),
    ];
    for (name, answer, cause) in endless {
        let server = Server::start(move |_, stream| answer(stream)).await;
        let start = Instant::now();
        let error = refused(&server).await;
        assert!(start.elapsed() < Duration::from_secs(10), "{name}");
        assert!(error.to_string().contains(cause), "{name}: {error}");
    }
}

/// Without reference values nothing is trusted, whatever answers.
#[tokio::test]
async fn an_unknown_image_is_refused() {
    let server = machine(None).await;
    let options = crate::support::options();
    let error = client(&server).attest(&options).await.unwrap_err();
    assert!(
        error.to_string().contains("there are no reference values"),
        "{error}"
    );
    assert_eq!(server.seen().len(), 1);
}
