//! Where the server keeps things, and how much it lets others ask of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// The configuration of a [`crate::Server`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerConfig {
    /// A folder for everything that is written; made where it is missing, for nobody else to enter.
    pub state: PathBuf,
    /// What others may ask for at most.
    pub limits: Limits,
    /// For people: which certificate is missing of the chain of the attestation key, and where it was looked for.
    pub missing_issuer: Option<String>,
}

impl ServerConfig {
    /// The usual limits, and this folder.
    pub fn new(state: impl AsRef<Path>) -> Self {
        Self {
            state: state.as_ref().to_owned(),
            limits: Limits::default(),
            missing_issuer: None,
        }
    }

    /// Where the keys of SSH servers are that the client of a job vouches for: for whatever fetches repositories. Nothing that
    /// this machine knows by itself is the client's.
    pub fn known_hosts(&self) -> PathBuf {
        self.state.join("known_hosts")
    }

    /// Sets the limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Says why the chain of the attestation key is not complete. Whether it is, the server sees itself: this is what it tells those
    /// who submit a job, and can do something about it.
    #[must_use]
    pub fn with_missing_issuer(mut self, missing: impl Into<String>) -> Self {
        self.missing_issuer = Some(missing.into());
        self
    }
}

/// What others may ask for at most.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections that are not known to be the owner's. When there are as many, a new one takes the place of the oldest
    /// of the address that has most: whoever idles loses.
    pub strangers: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long a stranger has to ask something and to take the answer, which is always the same.
    pub refusal: Duration,
    /// Connections of the owner.
    pub owner: usize,
    /// How long the owner may take for the head of a request, and may keep a connection without one.
    pub head: Duration,
    /// How long the owner may take for the body of a request that is no upload, and the server for the head of an answer.
    pub request: Duration,
    /// How long an upload may pause.
    pub stall: Duration,
    /// Events of a job that are kept for readers.
    pub events: usize,
    /// Their size in bytes.
    pub event_bytes: usize,
    /// How long connections have to end when the server does.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            strangers: 128,
            handshake: Duration::from_secs(10),
            refusal: Duration::from_secs(5),
            owner: 32,
            head: Duration::from_secs(60),
            request: Duration::from_secs(120),
            stall: Duration::from_secs(60),
            events: 65_536,
            event_bytes: 16 << 20,
            grace: Duration::from_secs(5),
        }
    }
}
