use std::sync::Arc;
use std::time::{Duration, Instant};

use aicert_core::conformance::input::{Subject, all};
use aicert_core::digest::FileDigest;
use aicert_core::input::{FetchRequest, InputErrorKind, InputSource as _};
use aicert_core::progress::Progress;
use aicert_core::secret::Secret;
use aicert_inputs::FileSource;

use crate::server::{Server, answer, head, tls};
use crate::support::{SmallDisk, fetch, file_spec, hasty, noise, run_in_environment, skip};

use InputErrorKind::{Configuration, Mismatch, Network, NotFound, PermissionDenied, Refused, Storage};

const SECRET: &str = "hunter2-token";

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept_over_http() {
    let content = Arc::new(noise(8_000_000));
    let served = Arc::clone(&content);
    let server = Server::start(move |_, request, out| {
        let authorized = request.header("authorization") == Some("Bearer hunter2-token");
        match (authorized, request.path.as_str()) {
            (true, "/$(touch%20pwned);'x'?sig=hunter2-token") => answer(out, "200 OK", &[], &served),
            (true, _) => answer(out, "404 Not Found", &[], b""),
            (false, _) => answer(out, "401 Unauthorized", &[], b""),
        }
    });
    let url = server.url("/$(touch pwned);'x'?sig=hunter2-token");
    let subject = Subject {
        good: file_spec(&url, Some(&content), Some(SECRET)),
        files: vec![("target".into(), content.to_vec())],
        is_directory: false,
        missing: file_spec(server.url("/absent?sig=hunter2-token"), None, Some(SECRET)),
        mismatched: Some(file_spec(&url, Some(b"other"), Some(SECRET))),
        secret: Some(Secret::new(SECRET.into())),
    };
    all(&FileSource::default(), &subject).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept_on_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let content = noise(20_000_000);
    std::fs::write(folder.path().join("a b"), &content).unwrap();
    let url = |name: &str| format!("file://{}/{name}", folder.path().display());
    let subject = Subject {
        good: file_spec(url("a%20b"), Some(&content), None),
        files: vec![("target".into(), content)],
        is_directory: false,
        missing: file_spec(url("absent"), None, None),
        mismatched: Some(file_spec(url("a%20b"), Some(b"other"), None)),
        secret: None,
    };
    all(&FileSource::default(), &subject).await;
}

#[tokio::test]
async fn a_broken_download_continues_where_it_stopped() {
    let content = Arc::new(noise(1_000_000));
    let served = Arc::clone(&content);
    // Each connection breaks off after 300,000 bytes.
    let server = Server::start(move |_, request, out| {
        let start = request.range_start().unwrap_or(0);
        let end = (start + 300_000).min(served.len());
        match start {
            0 => head(out, "200 OK", &[("etag", "\"v1\"")], served.len())?,
            _ => {
                let range = format!("bytes {start}-{}/{}", served.len() - 1, served.len());
                let headers = [("etag", "\"v1\""), ("content-range", range.as_str())];
                head(out, "206 Partial Content", &headers, served.len() - start)?;
            }
        }
        out.write_all(&served[start..end])
    });
    let fetched = fetch(&hasty(), file_spec(server.url("/f"), None, None)).await;
    assert_eq!(
        fetched.ok().tree.entries()[0].hash(),
        Some(FileDigest::of(&content))
    );
    assert_eq!(std::fs::read(fetched.target()).unwrap(), *content);
    let requests = server.requests();
    let starts: Vec<_> = requests.iter().map(|request| request.range_start()).collect();
    assert_eq!(starts, [None, Some(300_000), Some(600_000), Some(900_000)]);
    assert!(
        requests[1..]
            .iter()
            .all(|request| request.header("if-range") == Some("\"v1\""))
    );
}

/// Breaks off the first answer in its middle, and answers the second request by `second`.
async fn after_a_break(
    validator: (&'static str, &'static str),
    second: impl Fn(&mut dyn std::io::Write, &[u8]) -> std::io::Result<()> + Send + Sync + 'static,
    expect: &[u8],
) -> Vec<Option<usize>> {
    let old = noise(200_000);
    let server = Server::start(move |number, _, out| match number {
        0 => {
            head(out, "200 OK", &[validator], old.len())?;
            out.write_all(&old[..100_000])
        }
        1 => second(out, &old),
        _ => answer(out, "200 OK", &[], &[old.as_slice(), b"new"].concat()),
    });
    let fetched = fetch(&hasty(), file_spec(server.url("/f"), None, None)).await;
    assert_eq!(
        fetched.ok().tree.entries()[0].hash(),
        Some(FileDigest::of(expect))
    );
    assert_eq!(std::fs::read(fetched.target()).unwrap(), expect);
    server
        .requests()
        .iter()
        .map(|request| request.range_start())
        .collect()
}

#[tokio::test]
async fn a_file_that_changes_in_between_is_never_stitched_together() {
    let (old, etag) = (noise(200_000), ("etag", "\"v1\""));
    let new = [old.as_slice(), b"new"].concat();
    let resumed = vec![None, Some(100_000)];
    let restarted = vec![None, Some(100_000), None];

    // The server honours If-Range, or knows no ranges: the whole new file at once.
    let whole =
        |out: &mut dyn std::io::Write, old: &[u8]| answer(out, "200 OK", &[], &[old, b"new"].concat());
    assert_eq!(after_a_break(etag, whole, &new).await, resumed);

    // It continues with another file: other entity tag, other length, other place, or no word of either.
    for headers in [
        &[
            ("etag", "\"v2\""),
            ("content-range", "bytes 100000-199999/200000"),
        ][..],
        &[
            ("etag", "\"v1\""),
            ("content-range", "bytes 100000-200002/200003"),
        ],
        &[("etag", "\"v1\""), ("content-range", "bytes 99999-199999/200000")],
        &[("etag", "\"v1\"")],
    ] {
        let other = |out: &mut dyn std::io::Write, old: &[u8]| {
            answer(out, "206 Partial Content", headers, &old[100_000..])
        };
        assert_eq!(after_a_break(etag, other, &new).await, restarted, "{headers:?}");
    }

    // It says that the range is beyond the end.
    let beyond = |out: &mut dyn std::io::Write, _: &[u8]| answer(out, "416 Range Not Satisfiable", &[], b"");
    assert_eq!(after_a_break(etag, beyond, &new).await, restarted);

    // Without a strong validator and without an expected hash, nothing is continued.
    let from_start = vec![None, None];
    assert_eq!(after_a_break(("etag", "W/\"v1\""), whole, &new).await, from_start);
    assert_eq!(after_a_break(("x", "y"), whole, &new).await, from_start);
    // A date will do.
    let date = ("last-modified", "Tue, 15 Nov 1994 12:45:26 GMT");
    assert_eq!(after_a_break(date, whole, &new).await, resumed);
}

#[tokio::test]
async fn an_expected_hash_allows_to_continue_without_a_validator() {
    let content = Arc::new(noise(200_000));
    let served = Arc::clone(&content);
    let server = Server::start(move |number, request, out| match number {
        0 => {
            head(out, "200 OK", &[], served.len())?;
            out.write_all(&served[..100_000])
        }
        _ => {
            assert_eq!(request.range_start(), Some(100_000));
            answer(
                out,
                "206 Partial Content",
                &[("content-range", "bytes 100000-199999/200000")],
                &served[100_000..],
            )
        }
    });
    let fetched = fetch(&hasty(), file_spec(server.url("/f"), Some(&content), None)).await;
    assert_eq!(fetched.ok().tree.bytes(), 200_000);
}

#[tokio::test]
async fn servers_that_fail_are_tried_again_and_named_in_the_end() {
    // Busy twice, then fine.
    let server = Server::start(|number, _, out| match number {
        0 => answer(out, "503 Service Unavailable", &[("retry-after", "86400")], b""),
        1 => answer(
            out,
            "429 Too Many Requests",
            &[("retry-after", "Tue, 15 Nov 2094 12:45:26 GMT")],
            b"",
        ),
        _ => answer(out, "200 OK", &[], b"fine"),
    });
    let started = Instant::now();
    assert_eq!(
        fetch(&hasty(), file_spec(server.url("/f"), None, None))
            .await
            .ok()
            .tree
            .bytes(),
        4
    );
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "a server cannot make us wait for a day"
    );

    // Promises more than it sends, always.
    let short = Server::start(|_, _, out| {
        head(out, "200 OK", &[("etag", "\"v\"")], 1_000)?;
        out.write_all(b"short")
    });
    let fetched = fetch(&hasty(), file_spec(short.url("/f"), None, None)).await;
    fetched.assert_error(Network, "broke off after 5 of 1000 bytes", "try again");
    assert!(
        fetched.error().to_string().contains("tried 3 times"),
        "{}",
        fetched.error()
    );

    // Sends a few bytes and then nothing.
    let silent = Server::start(|_, _, out| {
        head(out, "200 OK", &[], 1_000)?;
        out.write_all(b"short")?;
        out.flush()?;
        std::thread::sleep(Duration::from_secs(3));
        Ok(())
    });
    let fetched = fetch(&hasty(), file_spec(silent.url("/f"), None, None)).await;
    fetched.assert_error(Network, "sent nothing for", "try again");

    // Lets go of a byte per connection, for ever.
    let crumbs = Server::start(|_, request, out| {
        let start = request.range_start().unwrap_or(0);
        let range = format!("bytes {start}-999/1000");
        let status = if start == 0 {
            "200 OK"
        } else {
            "206 Partial Content"
        };
        head(
            out,
            status,
            &[("etag", "\"v\""), ("content-range", range.as_str())],
            1_000 - start,
        )?;
        out.write_all(b"x")
    });
    fetch(&hasty(), file_spec(crumbs.url("/f"), None, None))
        .await
        .assert_error(Network, "tried 60 times", "try again");
}

#[tokio::test]
async fn answers_without_a_file_are_explained() {
    for (status, location, kind, words, advice, requests) in [
        (
            "404 Not Found",
            "",
            NotFound,
            "the server answered 404",
            "check the URL",
            1,
        ),
        (
            "410 Gone",
            "",
            NotFound,
            "the server answered 410",
            "check the URL",
            1,
        ),
        (
            "401 Unauthorized",
            "",
            PermissionDenied,
            "the server answered 401",
            "give a token",
            1,
        ),
        (
            "403 Forbidden",
            "",
            PermissionDenied,
            "the server answered 403",
            "give a token",
            1,
        ),
        (
            "500 Internal Server Error",
            "",
            Network,
            "answered 500 Internal Server Error (tried 3 times)",
            "try again",
            3,
        ),
        (
            "418 I'm a teapot",
            "",
            Network,
            "the server answered 418",
            "check the URL",
            1,
        ),
        (
            "206 Partial Content",
            "",
            Network,
            "the server answered 206",
            "check the URL",
            1,
        ),
        (
            "302 Found",
            "",
            Network,
            "redirects without a usable address",
            "check the URL",
            1,
        ),
        (
            "302 Found",
            "/f?other",
            Network,
            "redirect loop at",
            "check the URL",
            2,
        ),
        ("302 Found", "/f", Network, "redirect loop at", "check the URL", 2),
        (
            "302 Found",
            "file:///etc/passwd",
            Refused,
            "redirects to \"file\"",
            "check the URL",
            1,
        ),
        (
            "307 Temporary Redirect",
            "http://me:pass@127.0.0.1/",
            Refused,
            "user name or password",
            "check the URL",
            1,
        ),
    ] {
        let server = Server::start(move |_, _, out| {
            let headers = [("location", location)];
            answer(out, status, if location.is_empty() { &[] } else { &headers }, b"")
        });
        let fetched = fetch(&hasty(), file_spec(server.url("/f?sig=hunter2"), None, None)).await;
        fetched.assert_error(kind, words, advice);
        assert!(
            !format!("{:?}", fetched.error()).contains("hunter2"),
            "{:?}",
            fetched.error()
        );
        assert_eq!(server.requests().len(), requests, "{status}");
    }
    let endless = Server::start(|number, _, out| {
        answer(
            out,
            "302 Found",
            &[("location", format!("/{number}").as_str())],
            b"",
        )
    });
    let fetched = fetch(&hasty(), file_spec(endless.url("/f"), None, None)).await;
    fetched.assert_error(Network, "more than 10 redirects", "check the URL");
    assert_eq!(endless.requests().len(), 11);
}

#[tokio::test]
async fn a_token_goes_to_its_own_server_alone() {
    let other = Server::start(|_, _, out| answer(out, "200 OK", &[], b"content"));
    let elsewhere = other.url("/there");
    let server = Server::start(move |_, request, out| match request.path.as_str() {
        "/f" => answer(out, "302 Found", &[("location", "/near")], b""),
        _ => answer(out, "302 Found", &[("location", elsewhere.as_str())], b""),
    });
    let fetched = fetch(&hasty(), file_spec(server.url("/f"), None, Some(SECRET))).await;
    assert_eq!(fetched.ok().origin, server.url("/f"));
    assert!(
        server
            .requests()
            .iter()
            .all(|request| request.header("authorization") == Some("Bearer hunter2-token"))
    );
    assert_eq!(other.requests().len(), 1);
    assert_eq!(other.requests()[0].header("authorization"), None);

    for (url, token, words) in [
        ("https://me:hunter2@host/f", None, "holds a user name or password"),
        ("http://host.invalid/f", Some(SECRET), "without encryption"),
        (
            "https://host.invalid/f",
            Some("hunter2\nx: y"),
            "characters that HTTP cannot carry",
        ),
    ] {
        let fetched = fetch(&hasty(), file_spec(url, None, token)).await;
        fetched.assert_error(Configuration, words, "");
        assert!(!format!("{:?}", fetched.error()).contains("hunter2"));
    }
}

#[tokio::test]
async fn another_file_than_expected_is_refused_with_both_hashes() {
    let server = Server::start(|_, _, out| answer(out, "200 OK", &[], b"found"));
    let fetched = fetch(&hasty(), file_spec(server.url("/f"), Some(b"expected"), None)).await;
    let (expected, found) = (FileDigest::of(b"expected"), FileDigest::of(b"found"));
    fetched.assert_error(Mismatch, &format!("expected {expected}, found {found}"), "sha256");
}

#[tokio::test]
async fn hosts_that_are_not_there_are_named() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let fetched = fetch(
        &hasty(),
        file_spec(format!("http://127.0.0.1:{port}/f?s=hunter2"), None, None),
    )
    .await;
    fetched.assert_error(Network, "127.0.0.1 could not be reached", "network");
    assert!(fetched.error().is_retryable() && !format!("{:?}", fetched.error()).contains("hunter2"));
}

#[test]
fn certificates_are_checked() {
    // A certificate authority that nobody knows, unless SSL_CERT_FILE names it.
    let (ca, config) = tls();
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("ca.pem");
    std::fs::write(&bundle, ca).unwrap();
    let plain = Server::start(|_, _, out| answer(out, "200 OK", &[], b"plain"));
    let downgrade = plain.url("/plain?sig=hunter2");
    let server = Server::with_tls(Some(config), move |_, request, out| match request.path.as_str() {
        "/downgrade" => answer(out, "302 Found", &[("location", downgrade.as_str())], b""),
        _ => answer(out, "200 OK", &[], b"content"),
    });
    let port = server.address.port();
    std::fs::write(folder.path().join("port"), port.to_string()).unwrap();
    for (test, bundle) in [
        ("files::child_trusts_ssl_cert_file", Some(bundle.as_path())),
        ("files::child_trusts_no_stranger", None),
    ] {
        let port_file = folder.path().join("port");
        let variables = [
            ("SSL_CERT_FILE", bundle),
            ("SSL_CERT_DIR", None),
            ("AICERT_TEST_PORT", Some(port_file.as_path())),
        ];
        run_in_environment(test, &variables);
    }
    assert!(
        plain.requests().is_empty(),
        "nothing is asked for without encryption"
    );
}

fn port() -> String {
    std::fs::read_to_string(std::env::var_os("AICERT_TEST_PORT").unwrap()).unwrap()
}

#[tokio::test]
#[ignore = "started by certificates_are_checked"]
async fn child_trusts_ssl_cert_file() {
    let port = port();
    let fetched = fetch(
        &hasty(),
        file_spec(format!("https://127.0.0.1:{port}/f"), None, None),
    )
    .await;
    assert_eq!(fetched.ok().tree.bytes(), 7);
    let fetched = fetch(
        &hasty(),
        file_spec(format!("https://127.0.0.1:{port}/downgrade"), None, None),
    )
    .await;
    fetched.assert_error(Refused, "redirects from https to http://", "");
    assert!(!format!("{:?}", fetched.error()).contains("hunter2"));
}

#[tokio::test]
#[ignore = "started by certificates_are_checked"]
async fn child_trusts_no_stranger() {
    let port = port();
    let fetched = fetch(
        &hasty(),
        file_spec(format!("https://127.0.0.1:{port}/f"), None, None),
    )
    .await;
    fetched.assert_error(Refused, "127.0.0.1 cannot prove who it is", "SSL_CERT_FILE");
}

#[tokio::test]
async fn a_full_or_read_only_disk_is_named() {
    let server = Server::start(|_, _, out| answer(out, "200 OK", &[], &noise(3_000_000)));
    for (options, words) in [
        ("size=1m", "the disk is full"),
        ("ro", "the file system is read-only"),
    ] {
        let Some(disk) = SmallDisk::new(options) else {
            return skip("mounting a small disk needs root");
        };
        for url in [server.url("/f"), "file:///proc/self/exe".into()] {
            let target = disk.path().join("target");
            let request = FetchRequest {
                spec: file_spec(url, None, None),
                target,
                progress: Progress::ignored(),
            };
            let error = hasty().fetch(request).await.unwrap_err();
            assert_eq!(error.kind(), Storage);
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(
                std::fs::read_dir(disk.path()).unwrap().count(),
                0,
                "nothing remains"
            );
        }
    }
}

#[tokio::test]
async fn only_files_are_files() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    for (path, words) in [
        (fifo, "is a FIFO"),
        (folder.path().to_owned(), "is a directory"),
        ("/dev/zero".into(), "device"),
    ] {
        let fetched = fetch(
            &hasty(),
            file_spec(format!("file://{}", path.display()), None, None),
        )
        .await;
        fetched.assert_error(Refused, words, "");
    }
}
