//! Requests and answers, within bounds.
//!
//! Nothing that a server answers is believed to be of any size, kind or end: bodies are read up to a limit and a time,
//! redirects are not followed, nothing is decompressed, errors are read as [`Problem`]s or not at all.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use aicert_core::api::{Problem, ProblemCode};
use aicert_core::digest::TlsKeyDigest;
use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use url::Url;

use crate::config::Settings;
use crate::error::{ClientError, with_causes};
use crate::identity::Identity;
use crate::tls::{self, OtherKey, SameKey};

/// The largest [`Problem`] that is read.
const PROBLEM_LIMIT: usize = 64 << 10;

/// The largest status of a job that is read.
pub(crate) const STATUS_LIMIT: usize = 1 << 20;

/// A server with one key, over as many connections as it takes.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    client: reqwest::Client,
    pub(crate) endpoint: SocketAddr,
    keys: Arc<SameKey>,
    pub(crate) settings: Settings,
}

/// A request, with its name for people.
pub(crate) struct Request {
    pub(crate) builder: RequestBuilder,
    pub(crate) name: String,
}

impl Http {
    pub(crate) fn new(
        endpoint: SocketAddr,
        identity: &Identity,
        pinned: Option<TlsKeyDigest>,
        settings: &Settings,
    ) -> Result<Self, ClientError> {
        let unusable = |error: &dyn StdError| ClientError::Usage {
            message: format!("TLS cannot be set up with this identity: {}", with_causes(error)),
            advice: "make a new identity, and a new machine for it",
        };
        let keys = Arc::new(SameKey::new(pinned));
        let tls = tls::config(identity, keys.clone()).map_err(|error| unusable(&error))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            // Whatever other crates of a program ask of the library: nothing is decompressed.
            .no_gzip()
            .no_brotli()
            .no_deflate()
            .no_zstd()
            // A machine is where its provider says; what a proxy would answer is no machine.
            .no_proxy()
            .connect_timeout(settings.connect_limit)
            .tcp_nodelay(true)
            .user_agent(concat!("aicert/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| unusable(&error))?;
        Ok(Self {
            client,
            endpoint,
            keys,
            settings: settings.clone(),
        })
    }

    /// The key that every connection so far was served with.
    pub(crate) fn key(&self) -> Option<TlsKeyDigest> {
        self.keys.key()
    }

    /// Random bytes, for nonces.
    pub(crate) fn random(&self) -> Option<[u8; 32]> {
        self.keys.random()
    }

    /// A request for `/v1/` and these segments, each of which is encoded as one.
    pub(crate) fn request(&self, method: Method, segments: &[&str]) -> Request {
        self.request_with(method, segments, None)
    }

    /// The same with a parameter.
    pub(crate) fn request_with(
        &self,
        method: Method,
        segments: &[&str],
        parameter: Option<(&str, &str)>,
    ) -> Request {
        let name = format!("{method} /v1/{}", segments.join("/"));
        // A socket address is always a host and a port; what it is not, the server does not know.
        let base = format!("https://{}/", self.endpoint);
        let url = Url::parse(&base).map(|mut url| {
            if let Ok(mut path) = url.path_segments_mut() {
                path.clear().push("v1").extend(segments);
            }
            if let Some((name, value)) = parameter {
                url.query_pairs_mut().append_pair(name, value);
            }
            url
        });
        let builder = match url {
            Ok(url) => self.client.request(method, url),
            Err(_) => self.client.request(method, base),
        };
        let builder = builder.header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Request { builder, name }
    }

    /// Sends a request and waits for the head of an answer that is no error.
    pub(crate) async fn send(&self, request: Request) -> Result<Answer, ClientError> {
        let Request { builder, name } = request;
        let sent = self.within(builder.send()).await?;
        let response = sent.map_err(|error| self.transport(&name, &error))?;
        self.accept(name, response).await
    }

    /// Takes the head of an answer, unless it is an error.
    pub(crate) async fn accept(&self, name: String, response: Response) -> Result<Answer, ClientError> {
        let answer = Answer { name, response };
        let status = answer.response.status();
        if !status.is_success() {
            return Err(self.problem(answer).await);
        }
        if let Some(encoding) = answer.header(CONTENT_ENCODING.as_str())
            && !encoding.eq_ignore_ascii_case("identity")
        {
            let found = format!("the content encoding {encoding}");
            return Err(ClientError::protocol(
                answer.name,
                "an answer as it is, without compression",
                found,
            ));
        }
        Ok(answer)
    }

    /// Sends a request and reads a small answer whole.
    pub(crate) async fn bytes(&self, request: Request, limit: usize) -> Result<Vec<u8>, ClientError> {
        let whole = async {
            let answer = self.send(request).await?;
            self.read(answer, limit).await
        };
        self.within(whole).await?
    }

    /// Reads a body of at most `limit` bytes.
    pub(crate) async fn read(&self, mut answer: Answer, limit: usize) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk(&mut answer).await? {
            if body.len() + chunk.len() > limit {
                let expected = format!("at most {limit} bytes");
                return Err(ClientError::protocol(answer.name, expected, "more"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// The next bytes of a body; nothing at its end.
    pub(crate) async fn chunk(&self, answer: &mut Answer) -> Result<Option<Bytes>, ClientError> {
        let next = tokio::time::timeout(self.settings.idle_limit, answer.response.chunk()).await;
        match next {
            Ok(chunk) => chunk.map_err(|error| self.transport(&answer.name, &error)),
            Err(_) => Err(self.unreachable(format!(
                "nothing has come for {} seconds",
                self.settings.idle_limit.as_secs()
            ))),
        }
    }

    /// What `future` gives, if it does in time.
    async fn within<F: Future>(&self, future: F) -> Result<F::Output, ClientError> {
        let limit = self.settings.answer_limit;
        tokio::time::timeout(limit, future).await.map_err(|_| {
            self.unreachable(format!(
                "there was no whole answer within {} seconds",
                limit.as_secs()
            ))
        })
    }

    pub(crate) fn unreachable(&self, reason: impl Into<String>) -> ClientError {
        ClientError::Unreachable {
            endpoint: self.endpoint,
            reason: reason.into(),
        }
    }

    /// What a failed exchange means.
    pub(crate) fn transport(&self, request: &str, error: &reqwest::Error) -> ClientError {
        if let Some(OtherKey { expected, found }) = cause::<rustls::Error>(error).and_then(other_key) {
            return ClientError::Changed {
                endpoint: self.endpoint,
                expected,
                found,
            };
        }
        if let Some(error) = cause::<rustls::Error>(error).filter(|_| error.is_connect()) {
            let found = format!("something else ({error})");
            return ClientError::protocol(request, "TLS 1.3 as aicert's servers speak it", found);
        }
        if cause_text(error, "invalid HTTP") {
            return ClientError::protocol(request, "an answer in HTTP", with_causes(error));
        }
        self.unreachable(with_causes(error))
    }

    /// What an answer that is an error says.
    async fn problem(&self, answer: Answer) -> ClientError {
        let status = answer.response.status();
        let name = answer.name.clone();
        let is_problem = answer
            .header(CONTENT_TYPE.as_str())
            .is_some_and(|kind| kind.starts_with("application/problem+json"));
        let body = match is_problem {
            true => self.within(self.read(answer, PROBLEM_LIMIT)).await,
            false => Ok(Ok(Vec::new())),
        };
        let body = match body {
            Ok(Ok(body)) => body,
            Ok(Err(error)) | Err(error) => return error,
        };
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem)
                if problem.code == ProblemCode::Unauthorized || status == StatusCode::UNAUTHORIZED =>
            {
                ClientError::Unauthorized { problem }
            }
            Ok(problem) => ClientError::Problem {
                request: name,
                status: status.as_u16(),
                problem,
            },
            Err(_) => {
                let found = format!("status {status} without a word");
                ClientError::protocol(name, "an answer, or an error that says what is wrong", found)
            }
        }
    }
}

/// An answer whose body is still to come.
pub(crate) struct Answer {
    pub(crate) name: String,
    pub(crate) response: Response,
}

impl Answer {
    /// A header, if it is there and plain text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }
}

/// Reads JSON of an answer.
pub(crate) fn parse<T: DeserializeOwned>(name: String, bytes: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ClientError::protocol(name, "an answer of this API", error.to_string()))
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| {
        let error: &'a (dyn StdError + 'static) = *error;
        // An I/O error shows what it wraps to nobody who asks for its source.
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .map(|inner| inner as &(dyn StdError + 'static));
        inner.or_else(|| error.source())
    })
}

/// The first cause of this type.
fn cause<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    causes(error).find_map(|error| error.downcast_ref::<T>())
}

fn cause_text(error: &(dyn StdError + 'static), text: &str) -> bool {
    causes(error).any(|error| error.to_string().contains(text))
}

fn other_key(error: &rustls::Error) -> Option<OtherKey> {
    match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => {
            other.0.downcast_ref::<OtherKey>().copied()
        }
        _ => None,
    }
}
