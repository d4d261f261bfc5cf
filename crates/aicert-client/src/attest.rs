//! From an address to a machine that may be trusted.

use std::net::SocketAddr;

use aicert_core::attestation::ATTESTATION_LIMIT;
use aicert_core::certificate::{Certificate, PlatformKind};
use aicert_core::digest::{Nonce, TlsKeyDigest};
use aicert_core::time::Timestamp;
use aicert_verify::attestation::{self, AttestedBoot, VerifiedAttestation, verify_attestation};
use aicert_verify::boot::Firmware;
use aicert_verify::{Options, Unverified, Verified};
use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::config::Settings;
use crate::error::ClientError;
use crate::http::Http;
use crate::identity::Identity;

/// A client of one machine that is not attested: it can do nothing else than attest it.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: SocketAddr,
    identity: Identity,
    settings: Settings,
}

impl Client {
    /// A client of the machine that listens there, and was told of this identity before it booted.
    pub fn new(endpoint: SocketAddr, identity: Identity) -> Self {
        Self {
            endpoint,
            identity,
            settings: Settings::default(),
        }
    }

    /// Is as patient as these settings say.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Attests the machine: connects, has it answer a nonce that was never used before, and verifies the answer for the very
    /// key that it came over. Nothing but the nonce and the client's certificate leaves this computer before that holds.
    ///
    /// # Errors
    ///
    /// [`ClientError::NotYet`] when nothing answers, as while a machine boots: try again a little later.
    /// [`ClientError::Rejected`], [`ClientError::Unauthorized`], [`ClientError::Protocol`] when an answer came, and it is not
    /// that of a machine which may be trusted: trying again is of no use.
    pub async fn attest(&self, options: &Options) -> Result<AttestedClient, ClientError> {
        let http = Http::new(self.endpoint, &self.identity, None, &self.settings)?;
        let nonce = http
            .random()
            .map(Nonce::from_bytes)
            .ok_or_else(|| ClientError::Usage {
                message: "no nonce could be made up".into(),
                advice: "check that this computer has a source of randomness",
            })?;
        let text = nonce.to_string();
        let request = http.request_with(Method::GET, &["attestation"], Some(("nonce", &text)));
        let name = request.name.clone();
        let bytes = http.bytes(request, ATTESTATION_LIMIT).await.map_err(not_yet)?;
        let attestation = attestation::read(&bytes).map_err(ClientError::Rejected)?;
        let Some(tls_key) = http.key() else {
            return Err(ClientError::protocol(
                name,
                "an answer over TLS",
                "one without a key",
            ));
        };
        let verified =
            verify_attestation(&attestation, &tls_key, &nonce, options).map_err(ClientError::Rejected)?;
        Ok(AttestedClient {
            session: Session::of(self.endpoint, &verified),
            http,
            attestation: Some(verified),
        })
    }

    /// Goes on with a machine that was attested before; its key is pinned, so that nobody can take its place. Connects to
    /// nothing yet.
    ///
    /// # Errors
    ///
    /// When the identity is not usable.
    pub fn resume(&self, session: Session) -> Result<AttestedClient, ClientError> {
        let http = Http::new(
            session.endpoint,
            &self.identity,
            Some(session.tls_key),
            &self.settings,
        )?;
        Ok(AttestedClient {
            http,
            session,
            attestation: None,
        })
    }
}

/// What does not answer before it was ever attested is not there yet.
fn not_yet(error: ClientError) -> ClientError {
    match error {
        ClientError::Unreachable { endpoint, reason } => ClientError::NotYet { endpoint, reason },
        other => other,
    }
}

/// What is needed to go on with an attested machine after this program has ended: nothing in it is secret, but whoever can
/// change it can put another machine in the place of the attested one. Keep it where nobody else can write, and beside it the
/// [`Identity`], which is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Where the machine listens.
    pub endpoint: SocketAddr,
    /// The key that its connections are served with.
    pub tls_key: TlsKeyDigest,
    /// What recognises its proofs.
    pub boot: AttestedBoot,
    /// What vouches for its TPM.
    pub platform: PlatformKind,
    /// The image that it has booted, as the reference values name it.
    pub image: Option<String>,
    /// Its firmware, as the reference values name it.
    pub firmware: Option<String>,
    /// The nonce that the attestation answered.
    pub nonce: Nonce,
    /// When it was attested.
    pub attested_at: Timestamp,
}

impl Session {
    fn of(endpoint: SocketAddr, attestation: &VerifiedAttestation) -> Self {
        let firmware = match attestation.boot().firmware() {
            Firmware::Known(name) => Some(name.clone()),
            _ => None,
        };
        Self {
            endpoint,
            tls_key: *attestation.tls_key(),
            boot: attestation.attested_boot().clone(),
            platform: attestation.platform(),
            image: attestation.boot().image().map(str::to_owned),
            firmware,
            nonce: *attestation.nonce(),
            attested_at: attestation.verified_at(),
        }
    }
}

/// A client of a machine that was attested, and the only one that can send it anything. Every connection is held to the key
/// that was attested. Cheap to clone.
///
/// Only [`Client::attest`] makes it, and [`Client::resume`] from what was written down of one.
#[derive(Debug, Clone)]
pub struct AttestedClient {
    pub(crate) http: Http,
    session: Session,
    attestation: Option<VerifiedAttestation>,
}

impl AttestedClient {
    /// What to write down for going on with this machine later.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// What was verified; nothing after [`Client::resume`].
    pub fn attestation(&self) -> Option<&VerifiedAttestation> {
        self.attestation.as_ref()
    }

    /// The time for which to verify a proof that came from this machine: see [`AttestedBoot::verification_time`].
    pub fn verification_time(&self, proof: &Unverified<Certificate>, now: Timestamp) -> Timestamp {
        self.session.boot.verification_time(proof, now)
    }

    /// Checks that a proof is from the very machine and boot that was attested.
    ///
    /// # Errors
    ///
    /// [`ClientError::OtherMachine`] when it is not.
    pub fn check_proof(&self, proof: &Verified<Certificate>) -> Result<(), ClientError> {
        self.session
            .boot
            .check_proof(proof)
            .map_err(ClientError::OtherMachine)
    }
}
