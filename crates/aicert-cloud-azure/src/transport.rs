//! What carries requests: one HTTP client of the workspace's, under the generated client, under `azure_identity`, and for blobs.
//!
//! Access tokens are put into requests here, at the last moment. The generated client never has one: `azure_core` 0.21 shows
//! the header with the token, and hides all others, when it logs a request.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core_now::http as now;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, redirect};
use rustls::crypto::ring;
use tokio::sync::RwLock;
use url::Url;

use crate::credential::Credential;
use crate::error::Failure;
use crate::refusal::Refusal;

/// How long a connection may take to be made, and how long nothing may come through it.
const CONNECT: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_secs(120);

/// How much of an answer is read. The longest that is asked for is the list of a region's sizes, a few MiB.
const ANSWER_LIMIT: usize = 64 << 20;

/// An answer that is no error.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// `Retry-After`, in seconds; Azure writes no dates there.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        retry_after(&self.headers)
    }
}

/// Sends requests, without tokens.
#[derive(Debug, Clone)]
pub(crate) struct Http(reqwest::Client);

impl Http {
    /// A client that trusts what this machine trusts, uses the proxies of the environment, and follows no redirects.
    pub(crate) fn new() -> Result<Self, Failure> {
        let failed = |why: String| Failure::Local {
            what: "HTTPS cannot be set up on this machine".into(),
            why,
        };
        // The provider is named here, because a process-wide default is for the program to choose, not for a library.
        let provider = Arc::new(ring::default_provider());
        let mut tls = {
            use rustls_platform_verifier::BuilderVerifierExt as _;
            rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .and_then(|builder| builder.with_platform_verifier())
                .map_err(|error| failed(error.to_string()))?
                .with_no_client_auth()
        };
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .user_agent(concat!("aicert/", env!("CARGO_PKG_VERSION")))
            .build()
            .map(Self)
            .map_err(|error| failed(explain(&error)))
    }

    /// Sends a request; any answer is an answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Reply, Failure> {
        let request = name(&method, url);
        let unreachable = |error: reqwest::Error| Failure::Unreachable {
            request: request.clone(),
            why: explain(&error),
        };
        let mut answer = self
            .0
            .request(method, url.clone())
            .headers(headers)
            .body(body)
            .send()
            .await
            .map_err(unreachable)?;
        let status = answer.status().as_u16();
        let headers = std::mem::take(answer.headers_mut());
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > ANSWER_LIMIT {
                return Err(Failure::Unexpected {
                    request,
                    why: format!("it is longer than {ANSWER_LIMIT} bytes"),
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply {
            status,
            headers,
            body: body.into(),
        })
    }
}

/// Sends requests to Resource Manager, with tokens.
#[derive(Debug)]
pub(crate) struct Transport {
    http: Http,
    endpoint: Url,
    credential: Credential,
    /// Shared by requests that change something, as long as they are on their way.
    on_the_way: Arc<RwLock<()>>,
}

impl Transport {
    pub(crate) fn new(http: Http, endpoint: Url, credential: Credential) -> Self {
        Self {
            http,
            endpoint,
            credential,
            on_the_way: Arc::default(),
        }
    }

    /// Waits until no request is on its way that changes something: whoever gave up waiting for one does not know what
    /// becomes of it, and nothing that is looked at before its answer tells.
    pub(crate) async fn settle(&self) {
        drop(self.on_the_way.write().await);
    }

    /// Sends a request once; twice, when Azure takes the first token no more. An answer that says no is a failure.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &Url,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Reply, Failure> {
        let request = name(&method, url);
        // Addresses come from answers too.
        if url.origin() != self.endpoint.origin() {
            return Err(Failure::Unexpected {
                request,
                why: format!(
                    "it would go to {}, which gets no token",
                    url.origin().ascii_serialization()
                ),
            });
        }
        let mut token = self.credential.token().await?;
        let mut renewed = false;
        loop {
            headers.insert(AUTHORIZATION, token.header()?);
            let reply = self.once(&method, url, &headers, &body).await?;
            if reply.status == 401 && !renewed {
                // It may have been revoked, or have expired on the way.
                renewed = true;
                token = self.credential.renewed(&token).await?;
                continue;
            }
            return checked(request, reply);
        }
    }
}

impl Transport {
    async fn once(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Reply, Failure> {
        let (http, method, url) = (self.http.clone(), method.clone(), url.clone());
        let (headers, body) = (headers.clone(), body.clone());
        if method == Method::GET {
            return http.send(method, &url, headers, body).await;
        }
        // It is carried through although nobody may wait for it any more.
        let guard = Arc::clone(&self.on_the_way).read_owned().await;
        let request = name(&method, &url);
        tokio::spawn(async move {
            let _guard = guard;
            http.send(method, &url, headers, body).await
        })
        .await
        .unwrap_or_else(|error| {
            Err(Failure::Local {
                what: format!("{request} was cut off"),
                why: error.to_string(),
            })
        })
    }
}

/// An answer that is no error.
pub(crate) fn checked(request: String, reply: Reply) -> Result<Reply, Failure> {
    if (200..300).contains(&reply.status) {
        return Ok(reply);
    }
    let mut refusal = Refusal::read(request, reply.status, &reply.body);
    refusal.retry_after = reply.retry_after();
    refusal.id = reply
        .header("x-ms-request-id")
        .filter(|id| {
            id.len() <= 80
                && id
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == ':')
        })
        .map(str::to_owned);
    Err(Failure::Refused(Box::new(refusal)))
}

/// What a request is called in messages: addresses of blobs have secrets in their query.
fn name(method: &Method, url: &Url) -> String {
    format!("{method} {}", url.path())
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(24 * 60 * 60)))
}

/// What went wrong, in one line, without the address.
fn explain(error: &reqwest::Error) -> String {
    let mut cause: &(dyn StdError + 'static) = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if cause.is::<reqwest::Error>() {
        "the connection failed".into()
    } else {
        cause.to_string()
    }
}

/// The generated client's side.
#[async_trait]
impl azure_core::HttpClient for Transport {
    async fn execute_request(
        &self,
        request: &azure_core::Request,
    ) -> azure_core::Result<azure_core::Response> {
        let failed = |failure: Failure| azure_core::Error::new(azure_core::error::ErrorKind::Other, failure);
        let url = Url::parse(request.url().as_str()).map_err(|error| failed(unsendable(error)))?;
        let headers = request.headers().iter();
        let headers = headers.map(|(name, value)| (name.as_str(), value.as_str()));
        let (method, headers) = head(request.method().as_ref(), headers).map_err(failed)?;
        let azure_core::Body::Bytes(body) = request.body() else {
            return Err(failed(unsendable("a stream")));
        };
        let body = without_nulls(body).map_err(failed)?;
        let reply = self.send(method, &url, headers, body).await.map_err(failed)?;
        let status = azure_core::StatusCode::try_from(reply.status)
            .map_err(|_| failed(unsendable("a status that is none")))?;
        let headers: std::collections::HashMap<_, _> = reply
            .headers
            .iter()
            .filter_map(|(name, value)| {
                Some((
                    azure_core::headers::HeaderName::from(name.as_str().to_owned()),
                    azure_core::headers::HeaderValue::from(value.to_str().ok()?.to_owned()),
                ))
            })
            .collect();
        let body = Box::pin(futures_util::stream::iter([Ok(reply.body)]));
        Ok(azure_core::Response::new(status, headers.into(), body))
    }
}

/// The generated types write a null for each date that nobody gave; the API has none of them.
fn without_nulls(body: &Bytes) -> Result<Bytes, Failure> {
    fn strip(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(map) => {
                map.retain(|_, value| !value.is_null());
                map.values_mut().for_each(strip);
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    if body.is_empty() {
        return Ok(body.clone());
    }
    let mut value = serde_json::from_slice(body).map_err(unsendable)?;
    strip(&mut value);
    Ok(serde_json::to_vec(&value).map_err(unsendable)?.into())
}

/// The side of `azure_identity`.
#[async_trait]
impl now::HttpClient for Http {
    async fn execute_request(&self, request: &now::Request) -> azure_core_now::Result<now::AsyncRawResponse> {
        use azure_core_now::Error;
        use azure_core_now::error::ErrorKind;
        let failed = |failure: Failure| Error::new(ErrorKind::Io, failure);
        let headers = request.headers().iter();
        let headers = headers.map(|(name, value)| (name.as_str(), value.as_str()));
        let (method, headers) = head(request.method().as_ref(), headers).map_err(failed)?;
        let now::Body::Bytes(body) = request.body() else {
            return Err(failed(unsendable("a stream")));
        };
        let reply = self
            .send(method, request.url(), headers, body.clone())
            .await
            .map_err(failed)?;
        let mut headers = now::headers::Headers::new();
        for (name, value) in &reply.headers {
            if let Ok(value) = value.to_str() {
                headers.insert(name.as_str().to_owned(), value.to_owned());
            }
        }
        Ok(now::AsyncRawResponse::from_bytes(
            reply.status.into(),
            headers,
            reply.body,
        ))
    }
}

/// What both generations of `azure_core` have before the body, each in types of its own.
fn head<'a>(
    method: &str,
    headers: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<(Method, HeaderMap), Failure> {
    let headers = headers
        .map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(unsendable)?;
            Ok((name, HeaderValue::from_str(value).map_err(unsendable)?))
        })
        .collect::<Result<_, Failure>>()?;
    Ok((method.parse().map_err(unsendable)?, headers))
}

fn unsendable(why: impl ToString) -> Failure {
    Failure::Local {
        what: "a request to Azure cannot be sent".into(),
        why: why.to_string(),
    }
}
