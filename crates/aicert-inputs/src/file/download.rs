//! Downloading over HTTP: redirects, broken connections, servers that are busy or lie.

use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::time::Duration;

use aicert_core::digest::FileDigest;
use aicert_core::input::{InputError, InputErrorKind};
use aicert_core::secret::Secret;
use aicert_core::spec::FileLocation;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_RANGE,
    LAST_MODIFIED, LOCATION, RANGE, RETRY_AFTER,
};
use reqwest::{Client, Response, StatusCode};
use tokio::time::timeout;
use url::Url;

use super::address::shown;
use super::client::{self, explain, is_certificate_error};
use super::part::Part;
use crate::config::FileConfig;
use crate::reporter::Reporter;

const REDIRECT_LIMIT: usize = 10;

/// One file to download.
pub(super) struct Download<'a> {
    client: Client,
    config: &'a FileConfig,
    url: &'a Url,
    location: &'a FileLocation,
    reporter: Reporter,
    /// How long the file is, where the server said so.
    total: Option<u64>,
    /// What tells this version of the file from another one.
    version: Option<HeaderValue>,
}

/// Why an attempt ended.
enum Failure {
    /// Trying again does not help.
    Final(InputError),
    /// It may help, after the time that the server asks for.
    Passing {
        error: InputError,
        wait: Option<Duration>,
    },
}

impl From<InputError> for Failure {
    fn from(error: InputError) -> Self {
        Self::Final(error)
    }
}

impl<'a> Download<'a> {
    pub(super) fn new(
        config: &'a FileConfig,
        url: &'a Url,
        location: &'a FileLocation,
        reporter: Reporter,
    ) -> Result<Self, InputError> {
        if location
            .token
            .as_ref()
            .is_some_and(|token| bearer(token).is_none())
        {
            return Err(InputError::new(
                InputErrorKind::Configuration,
                "the token holds characters that HTTP cannot carry",
            )
            .with_advice("check that the token was copied whole, without a line end or quotes"));
        }
        Ok(Self {
            client: client::client(config)?,
            config,
            url,
            location,
            reporter,
            total: None,
            version: None,
        })
    }

    /// Downloads to `target`. As long as the file grows, broken connections are continued; otherwise they are counted.
    pub(super) async fn run(mut self, target: &Path) -> Result<(FileDigest, u64), InputError> {
        let mut part = Part::create(target).await?;
        let (mut furthest, mut failures, mut attempts) = (0, 0, 0);
        loop {
            let Err(failure) = self.attempt(&mut part).await else {
                return part.finish(target).await;
            };
            let (error, wait) = match failure {
                Failure::Final(error) => return Err(error),
                Failure::Passing { error, wait } => (error, wait),
            };
            if part.len() > furthest {
                furthest = part.len();
                failures = 0;
            }
            failures += 1;
            attempts += 1;
            // The second limit is for servers that let go of a byte at a time.
            if failures >= self.config.attempts || attempts >= self.config.attempts.saturating_mul(20) {
                let message = format!("{} (tried {attempts} times)", error.message());
                return Err(InputError::new(error.kind(), message)
                    .with_advice("check the network and the server, then try again")
                    .retryable());
            }
            tokio::time::sleep(self.pause(failures, wait)).await;
        }
    }

    /// Doubles with every failure, and differs between clients so that they do not all come back at once.
    fn pause(&self, failures: u32, asked: Option<Duration>) -> Duration {
        let doubled = self.config.first_wait.saturating_mul(1 << (failures - 1).min(16));
        let random = RandomState::new().hash_one(failures) % 256;
        let jittered = doubled.mul_f64(0.75 + random as f64 / 512.0);
        jittered
            .max(asked.unwrap_or_default())
            .min(self.config.longest_wait)
    }

    async fn attempt(&mut self, part: &mut Part) -> Result<(), Failure> {
        let mut response = self.request(part.len()).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if part.len() > 0 => {
                if let Err(what) = self.check_continues(&response, part.len()) {
                    self.forget(part).await?;
                    return Err(self.passing(InputErrorKind::Network, &what));
                }
            }
            StatusCode::OK => {
                self.forget(part).await?;
                self.total = response.content_length();
                self.version = version(response.headers());
            }
            status => return Err(self.refused(part, status, response.headers()).await),
        }
        self.receive(&mut response, part).await?;
        match self.total {
            Some(total) if total != part.len() => {
                let (found, error) = (part.len(), "the server closed the connection early");
                Err(self.passing(
                    InputErrorKind::Network,
                    &format!("{error}: {found} of {total} bytes came"),
                ))
            }
            _ => Ok(()),
        }
    }

    async fn forget(&mut self, part: &mut Part) -> Result<(), InputError> {
        (self.total, self.version) = (None, None);
        if part.len() > 0 {
            part.restart().await
        } else {
            Ok(())
        }
    }

    async fn receive(&self, response: &mut Response, part: &mut Part) -> Result<(), Failure> {
        loop {
            match timeout(self.config.idle_timeout, response.chunk()).await {
                Ok(Ok(Some(bytes))) => part.append(&bytes).await?,
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => {
                    let so_far = self.so_far(part.len());
                    return Err(self.passing(
                        InputErrorKind::Network,
                        &format!("the connection broke off {so_far}: {}", explain(&error)),
                    ));
                }
                Err(_) => {
                    let so_far = self.so_far(part.len());
                    let seconds = self.config.idle_timeout.as_secs();
                    return Err(self.passing(
                        InputErrorKind::Network,
                        &format!("the server sent nothing for {seconds} seconds {so_far}"),
                    ));
                }
            }
            self.reporter.at(part.len(), self.total);
        }
    }

    fn so_far(&self, len: u64) -> String {
        match self.total {
            Some(total) => format!("after {len} of {total} bytes"),
            None => format!("after {len} bytes"),
        }
    }

    /// Asks for the file, or for the rest of it, at the configured address and wherever that redirects to.
    async fn request(&self, have: u64) -> Result<Response, Failure> {
        let mut url = self.url.clone();
        let mut seen: Vec<Url> = Vec::new();
        loop {
            let sent = self
                .client
                .get(url.clone())
                .headers(self.headers(&url, have))
                .send();
            let response = match timeout(self.config.idle_timeout, sent).await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => return Err(self.unreachable(&url, &error)),
                Err(_) => {
                    return Err(self.passing(InputErrorKind::Network, "the server did not answer in time"));
                }
            };
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let next = self.redirect(&url, &response)?;
            seen.push(url);
            if seen.contains(&next) {
                return Err(self.stopped(
                    InputErrorKind::Network,
                    &format!("redirect loop at {}", shown(&next)),
                ));
            }
            if seen.len() > REDIRECT_LIMIT {
                return Err(self.stopped(
                    InputErrorKind::Network,
                    &format!("more than {REDIRECT_LIMIT} redirects"),
                ));
            }
            url = next;
        }
    }

    fn headers(&self, url: &Url, have: u64) -> HeaderMap {
        let mut headers = HeaderMap::new();
        // What is hashed must be the file, not a compressed form of it that depends on who asks.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let token = self
            .location
            .token
            .as_ref()
            .filter(|_| url.origin() == self.url.origin());
        if let Some(bearer) = token.and_then(bearer) {
            headers.insert(AUTHORIZATION, bearer);
        }
        // Without a version and without an expected hash, nothing would show that the rest is of another file.
        if have > 0 && (self.version.is_some() || self.location.sha256.is_some()) {
            headers.insert(RANGE, range_from(have));
            if let Some(version) = &self.version {
                headers.insert(IF_RANGE, version.clone());
            }
        }
        headers
    }

    fn redirect(&self, from: &Url, response: &Response) -> Result<Url, Failure> {
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok());
        let next = location
            .and_then(|location| from.join(location).ok())
            .ok_or_else(|| {
                self.stopped(
                    InputErrorKind::Network,
                    "the server redirects without a usable address",
                )
            })?;
        match (from.scheme(), next.scheme()) {
            (_, "https") | ("http", "http") => {}
            ("https", "http") => {
                let what = format!(
                    "the server redirects from https to {}, which is not encrypted",
                    shown(&next)
                );
                return Err(self.stopped(InputErrorKind::Refused, &what));
            }
            (_, other) => {
                let what = format!("the server redirects to {other:?}: expected https");
                return Err(self.stopped(InputErrorKind::Refused, &what));
            }
        }
        if !next.username().is_empty() || next.password().is_some() {
            let what = "the server redirects to an address with a user name or password";
            return Err(self.stopped(InputErrorKind::Refused, what));
        }
        Ok(next)
    }

    /// Makes sure that a partial answer is the rest of the file that we have the beginning of.
    fn check_continues(&mut self, response: &Response, have: u64) -> Result<(), String> {
        let (start, total) = content_range(response.headers())
            .ok_or("the server continued without saying where, or with what it was not asked for")?;
        if start != have {
            return Err(format!("the server continued at byte {start}: expected {have}"));
        }
        if let (Some(before), Some(now)) = (self.total, total)
            && before != now
        {
            return Err(format!(
                "the file changed on the server: it had {before} bytes, now it has {now}"
            ));
        }
        self.total = self.total.or(total);
        match (&self.version, version(response.headers())) {
            (Some(before), Some(now)) if *before != now => {
                Err("the file changed on the server while it was downloaded".into())
            }
            _ => Ok(()),
        }
    }

    /// What an answer without a file means.
    async fn refused(&mut self, part: &mut Part, status: StatusCode, headers: &HeaderMap) -> Failure {
        let said = format!("the server answered {status}");
        match status.as_u16() {
            404 | 410 => Failure::Final(self.error(InputErrorKind::NotFound, &said).with_advice(
                "check the URL; some servers also answer this to those who may not see the file",
            )),
            401 | 403 => Failure::Final(self.error(InputErrorKind::PermissionDenied, &said).with_advice(
                match self.location.token {
                    Some(_) => "check that the token is valid and may read the file",
                    None => "give a token that may read the file, or a signed URL that has not expired",
                },
            )),
            416 if part.len() > 0 => match self.forget(part).await {
                Ok(()) => self.passing(InputErrorKind::Network, "the file became shorter on the server"),
                Err(error) => Failure::Final(error),
            },
            408 | 425 | 429 | 500 | 502 | 503 | 504 => Failure::Passing {
                error: self.error(InputErrorKind::Network, &said),
                wait: headers.get(RETRY_AFTER).and_then(retry_after),
            },
            407 => Failure::Final(
                self.error(
                    InputErrorKind::PermissionDenied,
                    "the proxy asks for a user name and password",
                )
                .with_advice("put them into HTTPS_PROXY as http://user:password@host:port"),
            ),
            _ => self.stopped(InputErrorKind::Network, &said),
        }
    }

    fn unreachable(&self, url: &Url, error: &reqwest::Error) -> Failure {
        let host = url.host_str().unwrap_or_default();
        if is_certificate_error(error) {
            return Failure::Final(
                self.error(InputErrorKind::Refused, &format!("{host} cannot prove who it is: {}", explain(error)))
                    .with_advice(
                        "if your network has a certificate authority of its own, point SSL_CERT_FILE to its certificates",
                    ),
            );
        }
        let what = if error.is_connect() {
            "could not be reached"
        } else {
            "broke off the connection"
        };
        self.passing(
            InputErrorKind::Network,
            &format!("{host} {what}: {}", explain(error)),
        )
    }

    fn passing(&self, kind: InputErrorKind, what: &str) -> Failure {
        Failure::Passing {
            error: self.error(kind, what),
            wait: None,
        }
    }

    fn stopped(&self, kind: InputErrorKind, what: &str) -> Failure {
        Failure::Final(
            self.error(kind, what)
                .with_advice("check the URL, or ask whoever runs the server"),
        )
    }

    fn error(&self, kind: InputErrorKind, what: &str) -> InputError {
        let what = match &self.location.token {
            Some(token) => token.redact(what),
            None => what.to_owned(),
        };
        InputError::new(kind, format!("could not download {}: {what}", shown(self.url)))
    }
}

fn bearer(token: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn range_from(have: u64) -> HeaderValue {
    // Digits are always a header value.
    HeaderValue::from_str(&format!("bytes={have}-")).unwrap_or(HeaderValue::from_static("bytes=0-"))
}

/// What `If-Range` can be given: a strong entity tag, or else the date (RFC 9110, section 13.1.5).
fn version(headers: &HeaderMap) -> Option<HeaderValue> {
    let strong = |name: HeaderName| {
        headers
            .get(name)
            .filter(|value| !value.as_bytes().starts_with(b"W/"))
    };
    strong(ETAG).or_else(|| strong(LAST_MODIFIED)).cloned()
}

/// Start and total of `Content-Range: bytes start-end/total` (RFC 9110, section 14.4).
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let value = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    let total = if total == "*" {
        None
    } else {
        Some(total.parse().ok()?)
    };
    Some((start.parse().ok()?, total))
}

/// The seconds of `Retry-After`; its other form, a date, is left to the back-off.
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    Some(Duration::from_secs(value.to_str().ok()?.trim().parse().ok()?))
}
