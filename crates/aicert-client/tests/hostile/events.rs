//! Streams of events that break, lie, or never end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aicert_client::{AttestedClient, ClientError};
use aicert_core::api::{JobState, StreamEvent};
use futures_util::{StreamExt as _, pin_mut};
use tokio::io::AsyncWriteExt as _;

use crate::server::*;

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";

fn missed(id: u64) -> String {
    format!("id: {id}\ndata: {{\"kind\":\"missed\",\"events\":{id}}}\n\n")
}

fn end(id: u64) -> String {
    format!("id: {id}\ndata: {{\"kind\":\"end\",\"state\":\"finished\"}}\n\n")
}

type Items = Vec<Result<(u64, StreamEvent), ClientError>>;

async fn all(client: &AttestedClient, after: Option<u64>) -> Items {
    let events = client.events(&"job".parse().unwrap(), after);
    pin_mut!(events);
    let mut items = Vec::new();
    while let Some(item) = events.next().await {
        items.push(item);
    }
    items
}

fn ids(items: &Items) -> Vec<u64> {
    items
        .iter()
        .filter_map(|item| Some(item.as_ref().ok()?.0))
        .collect()
}

fn after(seen: &Seen) -> Option<u64> {
    let (_, id) = seen.line.split_once("?after=")?;
    id.parse().ok()
}

/// The connection ends after every event, in the middle of the next; each comes once, in order.
#[tokio::test]
async fn events_come_once_across_connections() {
    for comment in ["", ": still here\n\n"] {
        let server = Server::start(move |seen: Seen, stream| {
            let next = after(&seen).map_or(0, |id| id + 1);
            // The server repeats the event before, and is cut within the one behind.
            let before = next.checked_sub(1).map(missed).unwrap_or_default();
            let behind = missed(next + 1);
            let text = match next {
                9 => format!("{HEAD}{comment}{before}{}", end(9)),
                _ => format!(
                    "{HEAD}{before}{}{comment}{}",
                    missed(next),
                    &behind[..behind.len() - 3]
                ),
            };
            say_and_cut(stream, text)
        })
        .await;
        let items = all(&server.attested(), None).await;
        assert_eq!(ids(&items), (0..10).collect::<Vec<_>>());
        assert_eq!(items.len(), 10);
        assert!(matches!(
            items[9],
            Ok((
                9,
                StreamEvent::End {
                    state: JobState::Finished
                }
            ))
        ));
        let seen = server.seen();
        assert_eq!(seen[0].line, "GET /v1/jobs/job/events");
        assert_eq!(seen[3].line, "GET /v1/jobs/job/events?after=2");
        assert_eq!(seen[3].header("accept"), Some("text/event-stream"));
        assert_eq!(seen.len(), 10);
    }
}

#[tokio::test]
async fn a_reader_goes_on_where_it_was() {
    let server =
        Server::start(|_, stream| say(stream, format!("{HEAD}{}{}{}", missed(4), missed(5), end(6)))).await;
    let items = all(&server.attested(), Some(4)).await;
    assert_eq!(ids(&items), [5, 6]);
    assert_eq!(after(&server.seen()[0]), Some(4));
}

/// Whatever stands after the end is not read.
#[tokio::test]
async fn nothing_follows_the_end() {
    let server = Server::start(|_, stream| say(stream, format!("{HEAD}{}{}", end(0), missed(1)))).await;
    assert_eq!(ids(&all(&server.attested(), None).await), [0]);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn streams_that_are_none_are_refused() {
    let long = "x".repeat(2 << 20);
    for (bytes, cause) in [
        (format!("{HEAD}id: 0\ndata: not json\n\n"), "event 0: expected"),
        (
            format!("{HEAD}id: 0\ndata: {{\"kind\":\"unheard-of\"}}\n\n"),
            "event 0: unknown variant",
        ),
        (
            format!("{HEAD}data: {{\"kind\":\"missed\",\"events\":1}}\n\n"),
            "an event without a number",
        ),
        (format!("{HEAD}id: zero\ndata: x\n\n"), "the event id \"zero\""),
        (format!("{HEAD}data: {long}\n\n"), "more than 1048576 bytes"),
        (format!("{HEAD}{long}"), "more than 1048576 bytes"),
        (HEAD.replace("text/event-stream", "text/html"), "found text/html"),
        (
            HEAD.replace("Content-Type: text/event-stream\r\n", ""),
            "without a media type",
        ),
        (
            String::from_utf8(problem(404, "not_found")).unwrap(),
            "the words of",
        ),
    ] {
        let server = Server::start(move |_, stream| say(stream, bytes.clone())).await;
        let items = all(&server.attested(), None).await;
        assert_eq!(items.len(), 1, "{cause}");
        let error = items[0].as_ref().unwrap_err();
        assert!(error.to_string().contains(cause), "{cause}: {error}");
        assert!(!error.is_retryable());
        assert_eq!(server.seen().len(), 1);
    }
    let server = Server::start(|_, stream| say(stream, [HEAD.as_bytes(), b"data: \xff\n\n"].concat())).await;
    let items = all(&server.attested(), None).await;
    assert!(items[0].as_ref().unwrap_err().to_string().contains("not UTF-8"));
}

/// What came before something wrong is given out.
#[tokio::test]
async fn garbage_after_events_does_not_hide_them() {
    let server =
        Server::start(|_, stream| say(stream, format!("{HEAD}{}{}id: x\n\n", missed(0), missed(1)))).await;
    let items = all(&server.attested(), None).await;
    assert_eq!(ids(&items), [0, 1], "{items:?}");
    assert!(matches!(items[2], Err(ClientError::Protocol { .. })));
    assert_eq!(items.len(), 3);
}

#[tokio::test]
async fn a_server_that_is_gone_ends_the_stream() {
    let server = Server::start(|_, stream| say_and_cut(stream, HEAD)).await;
    let items = all(&server.attested(), None).await;
    assert_eq!(items.len(), 1);
    assert!(
        matches!(items[0], Err(ClientError::Unreachable { .. })),
        "{items:?}"
    );
    assert_eq!(server.seen().len(), 4);
}

/// A comment now and then says that the server is there; silence says that it is not.
#[tokio::test]
async fn silence_is_told_from_waiting() {
    let count = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |_, mut stream| {
        let first = count.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            let _ = stream.write_all(HEAD.as_bytes()).await;
            if first {
                // Longer than may be nothing.
                for _ in 0..10 {
                    let _ = stream.write_all(b":\n\n").await;
                    let _ = stream.flush().await;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                let _ = stream.write_all(missed(0).as_bytes()).await;
                let _ = stream.flush().await;
                tokio::time::sleep(Duration::from_secs(60)).await;
            } else {
                say(stream, end(1)).await;
            }
        }
    })
    .await;
    let start = Instant::now();
    let items = all(&server.attested(), None).await;
    assert_eq!(ids(&items), [0, 1]);
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(server.seen().len(), 2);
}
