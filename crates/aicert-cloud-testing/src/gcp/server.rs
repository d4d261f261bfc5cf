//! HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::fault::Fault;
use super::state::{Refusal, Reply};
use super::{Call, Inner, Shared, permission, storage};

/// Says that the connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("cut off, as planned")]
struct CutOff;

type Answer = Result<Response<Full<Bytes>>, CutOff>;

pub(super) async fn serve(shared: Arc<Shared>) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("this machine has a free port");
    let address = listener.local_addr().expect("it listens");
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                // That a connection is cut off is planned.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (format!("http://{address}"), server)
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| CutOff)?.to_bytes();
    let query: Vec<(String, String)> = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect();
    let header = |name| {
        let value = parts.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let asked = Asked {
        verb: parts.method.as_str().to_owned(),
        path: parts.uri.path().to_owned(),
        query,
        authorization: header(AUTHORIZATION),
        content_type: header(CONTENT_TYPE),
        body,
    };
    match carry_out(&shared, &asked) {
        Done::Answer(answer) => Ok(answer),
        Done::Cut => Err(CutOff),
        Done::Slow(answer, pause) => {
            tokio::time::sleep(pause).await;
            Ok(answer)
        }
        Done::Never => {
            shared.paused.send_modify(|count| *count += 1);
            std::future::pending().await
        }
    }
}

fn decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " "))
        .decode_utf8_lossy()
        .into_owned()
}

struct Asked {
    verb: String,
    path: String,
    query: Vec<(String, String)>,
    authorization: String,
    content_type: String,
    body: Bytes,
}

enum Done {
    Answer(Response<Full<Bytes>>),
    Cut,
    Slow(Response<Full<Bytes>>, Duration),
    Never,
}

fn carry_out(shared: &Shared, asked: &Asked) -> Done {
    let mut inner = shared.inner();
    let found = [shared.compute, shared.storage]
        .into_iter()
        .find_map(|document| Some((document, document.find(&asked.verb, &asked.path)?)));
    let Some((document, (method, path))) = found else {
        let violation = format!("no method is at {} {}", asked.verb, asked.path);
        inner.violations.push(violation.clone());
        return Done::Answer(refusal(&Refusal::new(404, "notFound", violation), None));
    };
    let (json, media) = match body(asked, method.upload) {
        Ok(body) => body,
        Err(why) => {
            inner.violations.push(format!("{}: {why}", method.id));
            return Done::Answer(refusal(&Refusal::new(400, "invalid", why), None));
        }
    };
    let faults = document.faults_of_request(method, &path, &asked.query, json.as_ref());
    inner.violations.extend(faults);
    if !asked.authorization.starts_with("Bearer ") {
        inner
            .violations
            .push(format!("{}: came without credentials", method.id));
    }
    inner.calls.push(Call {
        method: method.id.clone(),
        path: asked.path.clone(),
        query: asked.query.clone(),
        permissions: permission::needed(&method.id, json.as_ref()),
        body: json.clone(),
        authorization: asked.authorization.clone(),
    });
    let number = inner.calls.len();
    let fault = due(&mut inner, &method.id);
    if fault == Some(Fault::Expired) {
        inner.expired.insert(asked.authorization.clone());
    }
    if inner.expired.contains(&asked.authorization) {
        let why = "Request had invalid authentication credentials. Expected OAuth 2 access token.";
        return Done::Answer(refusal(&Refusal::new(401, "authError", why), None));
    }
    match fault {
        Some(Fault::Refused(status, after)) => {
            return Done::Answer(refusal(
                &Refusal::new(status, "planned", format!("planned: {status}")),
                after,
            ));
        }
        Some(Fault::Lost) => return Done::Cut,
        _ => {}
    }
    inner.state.tick();
    let question = Question {
        method: &method.id,
        path: &path,
        query: &asked.query,
        body: json.as_ref(),
        media,
        operation_fault: match fault {
            Some(Fault::Operation(code, message)) => Some((code, message)),
            _ => None,
        },
        corrupt: fault == Some(Fault::Corrupt),
    };
    let reply = if method.id.starts_with("storage.") {
        storage::reply(&mut inner.state, question)
    } else {
        super::compute::reply(&mut inner.state, question)
    };
    let response = match reply {
        Ok(reply) => {
            let faults = document.faults_of_answer(method, reply.as_ref());
            inner.violations.extend(faults);
            success(reply)
        }
        Err(why) => refusal(&why, None),
    };
    if inner.pause_at == Some(number) {
        return Done::Never;
    }
    match fault {
        Some(Fault::Cut) => Done::Cut,
        Some(Fault::Slow(pause)) => Done::Slow(response, pause),
        _ => Done::Answer(response),
    }
}

/// A request that is understood.
pub(super) struct Question<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a BTreeMap<String, String>,
    pub(super) query: &'a [(String, String)],
    pub(super) body: Option<&'a Value>,
    /// What is uploaded.
    pub(super) media: Option<Bytes>,
    pub(super) operation_fault: Option<(&'static str, &'static str)>,
    pub(super) corrupt: bool,
}

impl Question<'_> {
    /// A part of the path.
    pub(super) fn at(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }

    /// A parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(given, _)| given == name);
        found.map(|(_, value)| value.as_str())
    }
}

fn due(inner: &mut Inner, method: &str) -> Option<Fault> {
    let mut due = None;
    for planned in &mut inner.planned {
        if planned.is_due(method) {
            due = Some(planned.fault.clone());
        }
    }
    due
}

/// The JSON of a request, and what is uploaded with it (`multipart/related`, RFC 2387).
fn body(asked: &Asked, upload: bool) -> Result<(Option<Value>, Option<Bytes>), String> {
    let json =
        |bytes: &[u8]| serde_json::from_slice(bytes).map_err(|error| format!("the body is no JSON: {error}"));
    if !upload {
        return match asked.body.is_empty() {
            true => Ok((None, None)),
            false => Ok((Some(json(&asked.body)?), None)),
        };
    }
    if !asked
        .query
        .iter()
        .any(|(name, value)| name == "uploadType" && value == "multipart")
    {
        return Err("uploads are of the type `multipart` here".into());
    }
    let boundary = asked
        .content_type
        .strip_prefix("multipart/related; boundary=")
        .ok_or("an upload is multipart/related")?;
    let find = |haystack: &[u8], needle: &str| {
        haystack
            .windows(needle.len())
            .position(|window| window == needle.as_bytes())
    };
    let whole = &asked.body;
    let malformed = || "the parts of the upload are not separated by its boundary".to_owned();
    let (opening, closing) = (format!("--{boundary}\r\n"), format!("\r\n--{boundary}--"));
    let rest = whole.strip_prefix(opening.as_bytes()).ok_or_else(malformed)?;
    let head = find(rest, "\r\n\r\n").ok_or_else(malformed)?;
    if !rest[..head].starts_with(b"Content-Type: application/json") {
        return Err("the first part of an upload is JSON".into());
    }
    let rest = &rest[head + 4..];
    let separator = format!("\r\n--{boundary}\r\n");
    let end = find(rest, &separator).ok_or_else(malformed)?;
    let metadata = json(&rest[..end])?;
    let rest = &rest[end + separator.len()..];
    let head = find(rest, "\r\n\r\n").ok_or_else(malformed)?;
    let content = rest[head + 4..]
        .strip_suffix(closing.as_bytes())
        .ok_or_else(malformed)?;
    Ok((Some(metadata), Some(Bytes::copy_from_slice(content))))
}

fn success(reply: Reply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    match reply {
        Some(json) => {
            response.headers_mut().insert(
                CONTENT_TYPE,
                "application/json; charset=UTF-8".parse().expect("a header"),
            );
            *response.body_mut() = Full::from(json.to_string());
        }
        None => *response.status_mut() = StatusCode::NO_CONTENT,
    }
    response
}

/// Errors as Google's APIs write them.
fn refusal(why: &Refusal, retry_after: Option<u64>) -> Response<Full<Bytes>> {
    let body = json!({"error": {
        "code": why.status,
        "message": why.message,
        "errors": [{"message": why.message, "domain": "global", "reason": why.reason}],
    }});
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(why.status).expect("a status");
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        "application/json; charset=UTF-8".parse().expect("a header"),
    );
    if let Some(seconds) = retry_after {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    response
}
