//! Azure Resource Manager: requests, and what goes on after the answer.
//!
//! The generated clients of resource groups and networks would cost minutes of compiling for these few requests; what is sent
//! here is held to their published definitions all the same, by the tests.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use aicert_cloud_common::Waits;
use aicert_core::progress::Progress;
use azure_core::auth::{AccessToken, TokenCredential};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use crate::config::{AzureConfig, Patience};
use crate::credential::Credential;
use crate::error::Failure;
use crate::refusal::{Detail, Refusal};
use crate::transport::{Http, Reply, Transport};

/// A subscription, as Resource Manager shows it.
#[derive(Clone)]
pub(crate) struct Arm {
    pub(crate) subscription: String,
    pub(crate) patience: Patience,
    waits: Waits,
    pub(crate) compute: azure_mgmt_compute::Client,
    pub(crate) http: Http,
    endpoint: Url,
    transport: Arc<Transport>,
    /// Resource groups that this process has asked for, and that the list may not have yet.
    asked_for: Arc<Mutex<BTreeSet<String>>>,
}

impl std::fmt::Debug for Arm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arm")
            .field("subscription", &self.subscription)
            .field("endpoint", &self.endpoint.as_str())
            .finish_non_exhaustive()
    }
}

/// What a resource says of how far it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Progressing {
    properties: Option<Properties>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Properties {
    provisioning_state: Option<String>,
}

/// What the address in `Azure-AsyncOperation` answers.
#[derive(Deserialize)]
struct Operation {
    status: Option<String>,
    error: Option<Detail>,
}

/// One page of a list.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<T> {
    value: Vec<T>,
    next_link: Option<String>,
}

/// No list has more pages; one that has goes round in circles.
const PAGES: usize = 10_000;

/// What the generated client puts into its requests; the transport replaces it.
#[derive(Debug)]
struct NoToken;

#[async_trait::async_trait]
impl TokenCredential for NoToken {
    async fn get_token(&self, _: &[&str]) -> azure_core::Result<AccessToken> {
        Ok(AccessToken::new("none", time::OffsetDateTime::now_utc()))
    }

    async fn clear_cache(&self) -> azure_core::Result<()> {
        Ok(())
    }
}

impl Arm {
    /// Talks to nobody yet.
    pub(crate) fn new(config: &AzureConfig) -> Result<Self, Failure> {
        let subscription = config.subscription.to_ascii_lowercase();
        let is_id = subscription.len() == 36
            && subscription.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            });
        if !is_id {
            return Err(Failure::Unsupported {
                what: format!("{:?} is no id of a subscription", config.subscription.chars().take(60).collect::<String>()),
                advice: "`az account list --output table` shows the ids, such as 00000000-0000-0000-0000-000000000000".into(),
            });
        }
        let endpoint = Url::parse(&config.endpoint)
            .ok()
            .filter(|url| {
                // Tokens are sent there.
                url.scheme() == "https"
                    || (url.scheme() == "http"
                        && matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost")))
            })
            .ok_or_else(|| Failure::Unsupported {
                what: format!("{:?} is no address of Azure Resource Manager", config.endpoint),
                advice: "it begins with `https://`".into(),
            })?;
        let http = Http::new()?;
        let credential = Credential::new(&endpoint, http.clone(), config.credential.clone());
        let transport = Arc::new(Transport::new(http.clone(), endpoint.clone(), credential));
        let compute = azure_mgmt_compute::Client::builder(Arc::new(NoToken))
            .endpoint(endpoint.clone())
            // Trying again is this module's.
            .retry(azure_core::RetryOptions::none())
            .transport(azure_core::TransportOptions::new(
                Arc::clone(&transport) as Arc<dyn azure_core::HttpClient>
            ))
            .build()?;
        Ok(Self {
            subscription,
            patience: config.patience,
            waits: Waits::silent(),
            compute,
            http,
            endpoint,
            transport,
            asked_for: Arc::default(),
        })
    }

    /// The same, telling somebody when a request is tried again and again.
    pub(crate) fn telling(&self, progress: &Progress) -> Self {
        Self {
            waits: Waits::told_to(progress),
            ..self.clone()
        }
    }

    /// Tries a request until it succeeds, through errors that pass. All requests here may be sent twice.
    pub(crate) async fn retry<T, F>(
        &self,
        what: impl Into<String>,
        attempt: impl FnMut() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        self.waits
            .retry(self.patience.request, attempt)
            .await
            .map_err(Failure::waiting(what))
    }

    /// Waits until no request of this process is on its way that changes something.
    pub(crate) async fn settle(&self) {
        self.transport.settle().await;
    }

    /// The resource groups that this process has asked for.
    pub(crate) fn asked_for(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.asked_for.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id of a resource in a group.
    pub(crate) fn id(&self, group: &str, kind: &str, name: &str) -> String {
        format!(
            "/subscriptions/{}/resourceGroups/{group}/providers/{kind}/{name}",
            self.subscription
        )
    }

    /// Sends a request, through errors that pass: all requests here may be sent twice.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Reply, Failure> {
        let mut url = self.endpoint.clone();
        url.set_path(path);
        url.query_pairs_mut().extend_pairs(query);
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        self.send(method, &url, body).await
    }

    async fn send(&self, method: Method, url: &Url, body: Bytes) -> Result<Reply, Failure> {
        let mut headers = HeaderMap::new();
        if !body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        self.retry(format!("{method} {}", url.path()), || {
            self.transport
                .send(method.clone(), url, headers.clone(), body.clone())
        })
        .await
    }

    /// Sends a request of the generated client, through errors that pass. Its own way of waiting sends a `PUT` again at
    /// every look, and takes any answer 200 for success: so only its `send` is used.
    pub(crate) async fn generated<R: Into<azure_core::Response>>(
        &self,
        what: &str,
        call: impl Fn() -> BoxFuture<'static, azure_core::Result<R>>,
    ) -> Result<Reply, Failure> {
        self.retry(what, || async {
            let (status, headers, body) = call().await?.into().deconstruct();
            let body = body.collect().await?;
            let headers = headers
                .iter()
                .filter_map(|(name, value)| {
                    Some((
                        reqwest::header::HeaderName::from_bytes(name.as_str().as_bytes()).ok()?,
                        HeaderValue::from_str(value.as_str()).ok()?,
                    ))
                })
                .collect();
            Ok(Reply {
                status: status.into(),
                headers,
                body,
            })
        })
        .await
    }

    /// Everything of a list, page by page.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Vec<T>, Failure> {
        let mut page: Page<T> = read(path, &self.request(Method::GET, path, query, None).await?)?;
        let mut all = page.value;
        for _ in 0..PAGES {
            let Some(next) = page.next_link.filter(|next| !next.is_empty()) else {
                return Ok(all);
            };
            let next = Url::parse(&next).map_err(|error| unexpected(path, error))?;
            page = read(path, &self.send(Method::GET, &next, Bytes::new()).await?)?;
            all.append(&mut page.value);
        }
        Err(unexpected(path, "its pages do not end"))
    }

    /// Waits until what was answered with `reply` is done. `again` asks for the resource, where there is one in the end.
    ///
    /// Azure Resource Manager's asynchronous operations: the address in `Azure-AsyncOperation` has a status, the one in
    /// `Location` answers 202 until it is done; without either, the resource's `provisioningState` says how far it is.
    pub(crate) async fn finish(
        &self,
        what: &str,
        reply: Reply,
        again: Option<&dyn AsyncAgain>,
    ) -> Result<Reply, Failure> {
        let address = |name| {
            let url = Url::parse(reply.header(name)?).ok()?;
            // Any other would get no token; the resource then says how far it is.
            (url.origin() == self.endpoint.origin()).then_some(url)
        };
        let operation = address("azure-asyncoperation");
        let location = address("location").filter(|_| reply.status == 202);
        let start = Instant::now();
        let result = if let Some(url) = operation {
            self.patience
                .operation
                .until(|| async {
                    let reply = self.send(Method::GET, &url, Bytes::new()).await?;
                    operation_state(what, &reply).map(|done| done.then_some(()))
                })
                .await
                .map_err(Failure::waiting(what))?;
            match again {
                Some(_) => None,
                None => Some(match location {
                    // Where a POST's result is.
                    Some(url) => self.located(what, &url).await?,
                    None => reply,
                }),
            }
        } else if let Some(url) = location {
            let done = self.located(what, &url).await?;
            again.is_none().then_some(done)
        } else if let Some(state) = state_of(&reply) {
            is_done(what, &state)?.then_some(reply)
        } else {
            Some(reply)
        };
        let Some(again) = again else {
            return result.ok_or_else(|| Failure::TooLong {
                what: what.into(),
                waited: Some(start.elapsed()),
            });
        };
        match result {
            Some(reply) => Ok(reply),
            None => self
                .patience
                .operation
                .until(|| async {
                    let reply = again.ask().await?;
                    match state_of(&reply) {
                        Some(state) => Ok(is_done(what, &state)?.then_some(reply)),
                        None => Ok(Some(reply)),
                    }
                })
                .await
                .map_err(Failure::waiting(what)),
        }
    }

    async fn located(&self, what: &str, url: &Url) -> Result<Reply, Failure> {
        self.patience
            .operation
            .until(|| async {
                let reply = self.send(Method::GET, url, Bytes::new()).await?;
                if reply.status == 202 {
                    return Err(Failure::NotYet {
                        after: reply.retry_after(),
                    });
                }
                Ok(Some(reply))
            })
            .await
            .map_err(Failure::waiting(what))
    }

    /// Makes something, and waits until it is there. For what the generated client does not know.
    pub(crate) async fn put(
        &self,
        what: &str,
        path: &str,
        version: &str,
        body: &Value,
    ) -> Result<Reply, Failure> {
        let query = [("api-version", version)];
        let reply = self.request(Method::PUT, path, &query, Some(body)).await?;
        let again = Again(self, path, version);
        self.finish(what, reply, Some(&again)).await
    }

    /// Asks for something; nothing when it is not there.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        version: &str,
    ) -> Result<Option<T>, Failure> {
        match self
            .request(Method::GET, path, &[("api-version", version)], None)
            .await
        {
            Ok(reply) => read(path, &reply).map(Some),
            Err(failure) if failure.is_not_found() => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

/// Asks for a resource once more.
#[async_trait::async_trait]
pub(crate) trait AsyncAgain: Send + Sync {
    async fn ask(&self) -> Result<Reply, Failure>;
}

struct Again<'a>(&'a Arm, &'a str, &'a str);

#[async_trait::async_trait]
impl AsyncAgain for Again<'_> {
    async fn ask(&self) -> Result<Reply, Failure> {
        self.0
            .request(Method::GET, self.1, &[("api-version", self.2)], None)
            .await
    }
}

/// Reads an answer.
pub(crate) fn read<T: DeserializeOwned>(request: &str, reply: &Reply) -> Result<T, Failure> {
    serde_json::from_slice(&reply.body).map_err(|error| unexpected(request, error))
}

fn unexpected(request: &str, why: impl ToString) -> Failure {
    Failure::Unexpected {
        request: request.into(),
        why: why.to_string(),
    }
}

fn state_of(reply: &Reply) -> Option<String> {
    serde_json::from_slice::<Progressing>(&reply.body)
        .ok()?
        .properties?
        .provisioning_state
}

/// Whether a resource is there; an error when it never will be.
fn is_done(what: &str, state: &str) -> Result<bool, Failure> {
    match state.to_ascii_lowercase().as_str() {
        "succeeded" => Ok(true),
        "failed" | "canceled" | "deleting" => Err(Failure::Ended {
            what: what.into(),
            state: state.chars().take(40).collect(),
        }),
        _ => Ok(false),
    }
}

fn operation_state(what: &str, reply: &Reply) -> Result<bool, Failure> {
    let operation: Operation = read(what, reply)?;
    let state = operation.status.unwrap_or_default();
    match state.to_ascii_lowercase().as_str() {
        "succeeded" => Ok(true),
        "failed" | "canceled" => Err(match operation.error {
            Some(detail) => {
                Failure::Refused(Box::new(Refusal::from_detail(what.into(), reply.status, detail)))
            }
            None => Failure::Ended {
                what: what.into(),
                state: state.chars().take(40).collect(),
            },
        }),
        _ => Err(Failure::NotYet {
            after: reply.retry_after(),
        }),
    }
}
