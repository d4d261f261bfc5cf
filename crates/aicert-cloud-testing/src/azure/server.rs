//! The HTTP side: what comes in is recognized, checked, carried out, and answered.

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::world::{self, Answer, CONSOLE, refuse};
use super::{Effect, SUBSCRIPTION, Seen, Shared, actions};

/// How long something is held that nobody lets go of.
const HELD: Duration = Duration::from_secs(60);

pub(super) fn serve(listener: TcpListener, shared: Arc<Shared>, ended: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        listener.set_nonblocking(true).expect("a socket of this process");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket of this process");
        let accept = async {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                    // Clients come and go as they like.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        };
        tokio::select! {
            () = accept => {}
            _ = ended => {}
        }
    });
    runtime.shutdown_background();
}

/// A request, read whole.
struct Whole {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    headers: hyper::HeaderMap,
    body: Bytes,
}

impl Whole {
    fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name)?.to_str().ok().map(str::to_owned)
    }
}

/// Something raw to write.
struct Raw {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl From<Answer> for Raw {
    fn from(answer: Answer) -> Self {
        let mut headers = answer.headers;
        headers.push(("content-type", "application/json; charset=utf-8".into()));
        Self {
            status: answer.status,
            headers,
            body: answer
                .body
                .map_or_else(Bytes::new, |body| body.to_string().into()),
        }
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, io::Error> {
    let cut = || io::Error::from(io::ErrorKind::ConnectionAborted);
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| cut())?.to_bytes();
    let url = url::Url::parse(&format!("http://azure{}", head.uri)).map_err(|_| cut())?;
    let whole = Whole {
        method: head.method.to_string(),
        path: url.path().to_owned(),
        query: url.query_pairs().into_owned().collect(),
        headers: head.headers,
        body,
    };
    let worker = Arc::clone(&shared);
    let served = tokio::task::spawn_blocking(move || carry_out(&worker, &whole)).await;
    let Ok(Some(raw)) = served else {
        return Err(cut());
    };
    let mut response = Response::builder().status(raw.status);
    for (name, value) in raw.headers {
        response = response.header(name, value);
    }
    response.body(Full::new(raw.body)).map_err(|_| cut())
}

/// What to answer; nothing when the connection is to end.
fn carry_out(shared: &Shared, whole: &Whole) -> Option<Raw> {
    let operation = shared.definitions.operation(&whole.method, &whole.path);
    let polled = poll_number(&whole.path);
    let comp = whole
        .query
        .iter()
        .find(|(key, _)| key == "comp")
        .map(|(_, value)| value.as_str());
    let is_blob = whole.path.starts_with("/blob/");
    let name = match (&operation, polled, comp) {
        _ if is_blob => comp.unwrap_or("console").to_owned(),
        (Some(operation), ..) => operation.id.clone(),
        (None, Some(_), _) => "poll".into(),
        (None, None, _) => "unknown".into(),
    };
    let mut world = shared.world();
    let effect = world.fault_of(&name);
    let body: Value = serde_json::from_slice(&whole.body).unwrap_or(Value::Null);
    let mut seen = Seen {
        operation: name,
        request: format!("{} {}", whole.method, whole.path),
        actions: if is_blob {
            Default::default()
        } else {
            actions::needed(&whole.method, &whole.path, &body)
        },
        body: body.clone(),
        status: 0,
    };
    let mut wrong = Vec::new();
    if let Some(Effect::Expire) = effect {
        world.token += 1;
    }
    let token = whole.header("authorization");
    let refused = match &effect {
        Some(Effect::Refuse {
            status,
            code,
            retry_after,
        }) => {
            let mut answer = refuse(*status, code, "as the test has it");
            answer
                .headers
                .extend(retry_after.map(|seconds| ("retry-after", seconds.to_string())));
            Some(answer)
        }
        _ if is_blob => None,
        _ if token != Some(format!("Bearer token-{}", world.token)) => Some(refuse(
            401,
            "ExpiredAuthenticationToken",
            "The access token expiry UTC time is earlier than current UTC time.",
        )),
        _ => None,
    };
    let base = format!("http://{}", shared.address);
    let raw: Raw = if let Some(answer) = refused {
        answer.into()
    } else if is_blob {
        blob(
            &mut world,
            whole,
            comp,
            matches!(effect, Some(Effect::Corrupt)),
            &mut wrong,
        )
    } else if let Some(number) = polled.filter(|_| operation.is_none()) {
        let located = whole.query.iter().any(|(key, _)| key == "monitor");
        match world.poll(&base, number, located) {
            Some(answer) => answer.into(),
            None => {
                wrong.push("no such operation was ever begun".into());
                refuse(404, "NotFound", "There is no such operation.").into()
            }
        }
    } else if let Some(operation) = &operation {
        wrong = shared
            .definitions
            .check_request(operation, &whole.query, &whole.body);
        if !whole.path.starts_with(&format!("/subscriptions/{SUBSCRIPTION}")) {
            wrong.push("another subscription".into());
        }
        world.advance(&whole.path);
        let answer = world.handle(&world::Request {
            operation: &operation.id,
            base: &base,
            path: &whole.path,
            query: &whole.query,
            body: &body,
            if_none_match: whole.header("if-none-match").as_deref() == Some("*"),
            fail_later: match effect {
                Some(Effect::FailLater(code, message)) => Some((code, message)),
                _ => None,
            },
        });
        if answer.status < 300 {
            let found = shared
                .definitions
                .check_response(operation, answer.status, answer.body.as_ref());
            wrong.extend(
                found
                    .into_iter()
                    .map(|wrong| format!("the stand-in's answer: {wrong}")),
            );
        }
        answer.into()
    } else {
        wrong.push("no published operation".into());
        Answer {
            status: 404,
            headers: Vec::new(),
            body: Some(json!({ "error": { "code": "NotFound", "message": "nothing is published there" } })),
        }
        .into()
    };
    seen.status = raw.status;
    world.violations.extend(
        wrong
            .into_iter()
            .map(|wrong| format!("{}: {wrong}", seen.request)),
    );
    world.seen.push(seen);
    match effect {
        Some(Effect::Cut) => None,
        Some(Effect::Pause) => {
            world.paused += 1;
            let before = world.released;
            shared.changed.notify_all();
            let (mut world, _) = shared
                .changed
                .wait_timeout_while(world, HELD, |world| world.released == before)
                .unwrap_or_else(PoisonError::into_inner);
            world.paused -= 1;
            Some(raw)
        }
        _ => Some(raw),
    }
}

fn blob(
    world: &mut world::World,
    whole: &Whole,
    comp: Option<&str>,
    corrupt: bool,
    wrong: &mut Vec<String>,
) -> Raw {
    if whole.header("authorization").is_some() {
        wrong.push("a token was sent to a blob".into());
    }
    if !whole
        .query
        .iter()
        .any(|(key, value)| key == "sig" && value == "secret")
    {
        wrong.push("a blob without its signature".into());
    }
    let text = |status, body: &str| Raw {
        status,
        headers: vec![("content-type", "application/xml".into())],
        body: body.to_owned().into(),
    };
    if whole.path.starts_with("/blob/console/") {
        return text(200, CONSOLE);
    }
    let disk = whole.path.rsplit('/').next().unwrap_or_default();
    world.bytes_received += whole.body.len() as u64;
    let Some(upload) = world.uploads.get_mut(disk) else {
        return text(404, "<Error><Code>BlobNotFound</Code></Error>");
    };
    let answer = match comp {
        Some("page") => upload.put(|name| whole.header(name), &whole.body, corrupt, wrong),
        _ => upload.list(),
    };
    let mut raw = text(answer.status, &answer.body);
    raw.headers.extend(answer.md5.map(|md5| ("content-md5", md5)));
    raw
}

/// The number of the operation that is looked at.
fn poll_number(path: &str) -> Option<u64> {
    let parts: Vec<&str> = path.split('/').collect();
    let at = parts.iter().position(|part| {
        matches!(
            *part,
            "operationresults" | "operations" | "DiskOperations" | "capsOperations"
        )
    })?;
    parts.get(at + 1)?.parse().ok()
}
