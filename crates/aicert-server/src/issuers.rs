//! The certificates above that of the attestation key, which clouds do not put into the TPM.
//!
//! Nobody believes them here: verifiers judge the chain. But a machine whose chain cannot be completed takes no job: which platform
//! it is of follows from the root, and a proof that has it wrong can never be verified, whatever else a verifier has. Such a machine
//! serves all the same, and tells whoever submits a job what is missing. A certificate is taken if it is the issuer of the one below it by name and signature, wherever it came
//! from; so what a machine in the middle or a wrong server can do is to withhold it.

use std::sync::Arc;
use std::time::Duration;

use aicert_core::tpm::{
    AttestationKey, PcrBank, PcrIndex, PcrValues, Quote, TpmBackend, TpmCapabilities, TpmClock, TpmError,
};
use aicert_verify::chain::{certificates_of_file, is_issued_by, issuer, issuer_urls};
use async_trait::async_trait;
use url::Url;

/// The largest certificate that is fetched; real ones have one to two thousand bytes.
pub const CERTIFICATE_LIMIT: usize = 16 << 10;

/// How many certificates are fetched one above the other: Azure's longest chain has three above the key's.
const HOPS: usize = 4;

/// How often the places of one certificate are tried.
const ROUNDS: usize = 2;

/// How long all of it may take: whoever waits for the machine should hear from itself what is missing.
const PATIENCE: Duration = Duration::from_secs(45);

/// Gets what is at a place.
///
/// # Contract
///
/// Returns at most [`CERTIFICATE_LIMIT`] bytes, in some seconds, and never what another host has. Errors are for people. May be
/// dropped at any time.
#[async_trait]
pub trait Fetch: Send + Sync {
    /// Gets it.
    async fn fetch(&self, url: &Url) -> Result<Vec<u8>, String>;
}

/// The hosts that certificates may be fetched from.
#[derive(Debug, Clone, Default)]
pub struct IssuerHosts {
    more: Vec<String>,
}

impl IssuerHosts {
    /// Those of the clouds alone.
    pub fn of_clouds() -> Self {
        Self::default()
    }

    /// Allows another one, by name or address and port.
    #[must_use]
    pub fn with(mut self, authority: impl Into<String>) -> Self {
        self.more.push(authority.into());
        self
    }

    /// The URL, if it may be fetched.
    fn allowed(&self, text: &str) -> Option<Url> {
        let url = Url::parse(text).ok()?;
        let plain =
            matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none();
        let host = url.host_str()?;
        let pinned = url.port().is_none() && is_of_a_cloud(host);
        let added = url
            .port_or_known_default()
            .is_some_and(|port| self.more.contains(&format!("{host}:{port}")));
        (plain && (pinned || added)).then_some(url)
    }
}

/// Where Azure and Google publish the certificates of their authorities for attestation keys: what real ones name.
fn is_of_a_cloud(host: &str) -> bool {
    // Azure: `http://www.microsoft.com/pkiops/certs/…` in "Global Virtual TPM CA - 01", and `primary-cdn.pki.core.windows.net` in
    // keys that "Azure Cloud Virtual TPM CA" certified. The names below the last are Microsoft's; storage accounts of customers have
    // others (`*.blob.core.windows.net`).
    const MICROSOFT: [&str; 2] = ["www.microsoft.com", "crl.microsoft.com"];
    const MICROSOFT_PKI: &str = ".pki.core.windows.net";
    // Google: one bucket for each pool of authorities, named by Certificate Authority Service.
    let bucket = host
        .strip_prefix("privateca-content-")
        .and_then(|rest| rest.strip_suffix(".storage.googleapis.com"));
    MICROSOFT.contains(&host)
        || host.ends_with(MICROSOFT_PKI)
        || bucket.is_some_and(|id| {
            id.len() == 36 && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
        })
}

/// A chain as far as it could be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// The key's own certificate first. Ends in a root if nothing is missing.
    pub chain: Vec<Vec<u8>>,
    /// How many of these were fetched.
    pub fetched: usize,
    /// For people: what is missing, and why.
    pub missing: Option<String>,
}

/// Follows the chain of a key from its own certificate, the first of `known`, to a root: by the others of `known`, in whatever order,
/// and by what certificates say of where their issuers' are.
pub async fn follow(known: &[Vec<u8>], hosts: &IssuerHosts, fetch: &dyn Fetch) -> Followed {
    let mut followed = Followed {
        chain: known.iter().take(1).cloned().collect(),
        fetched: 0,
        missing: None,
    };
    let end = tokio::time::Instant::now() + PATIENCE;
    while let Some(last) = followed.chain.last() {
        if is_issued_by(last, last) {
            break;
        }
        let brought = known.iter().find(|other| is_issued_by(last, other));
        // Certificates that issue each other are no chain.
        let (next, fetched) = match brought.filter(|other| !followed.chain.contains(other)) {
            Some(other) => (Ok(other.clone()), 0),
            None if followed.fetched == HOPS => {
                let why = format!("{HOPS} were fetched already, one above the other");
                (Err(why), 0)
            }
            None => (
                tokio::time::timeout_at(end, above(last, hosts, fetch))
                    .await
                    .unwrap_or_else(|_| Err(format!("there was no answer within {} s", PATIENCE.as_secs()))),
                1,
            ),
        };
        match next {
            Ok(next) => {
                followed.chain.push(next);
                followed.fetched += fetched;
            }
            Err(why) => {
                let name = issuer(last).unwrap_or_else(|| "no certificate that can be read".into());
                followed.missing = Some(format!("the certificate of {name:?}: {why}"));
                break;
            }
        }
    }
    followed
}

/// Fetches the certificate of who issued another.
async fn above(certificate: &[u8], hosts: &IssuerHosts, fetch: &dyn Fetch) -> Result<Vec<u8>, String> {
    let urls = issuer_urls(certificate);
    if urls.is_empty() {
        return Err(
            "nobody brought it, and the certificate below it does not say where it can be fetched".into(),
        );
    }
    let allowed: Vec<_> = urls.iter().filter_map(|url| hosts.allowed(url)).collect();
    if allowed.is_empty() {
        return Err(format!(
            "it is nowhere that certificates are fetched from: {urls:?}"
        ));
    }
    let mut why = String::new();
    for url in allowed.iter().cycle().take(ROUNDS * allowed.len()) {
        match fetch.fetch(url).await.and_then(|bytes| pick(&bytes, certificate)) {
            Ok(issuer) => return Ok(issuer),
            Err(error) => why = format!("{url}: {error}"),
        }
    }
    Err(why)
}

/// The issuer's certificate in a file.
fn pick(file: &[u8], certificate: &[u8]) -> Result<Vec<u8>, String> {
    if file.len() > CERTIFICATE_LIMIT {
        return Err(format!("it has more than {CERTIFICATE_LIMIT} bytes"));
    }
    certificates_of_file(file)
        .map_err(|error| error.to_string())?
        .into_iter()
        .find(|other| is_issued_by(certificate, other))
        .ok_or_else(|| "it is the certificate of somebody else".into())
}

/// A TPM whose attestation key has this chain.
pub struct WithChain {
    tpm: Arc<dyn TpmBackend>,
    chain: Vec<Vec<u8>>,
}

impl WithChain {
    /// Replaces what the TPM itself says of its key's certificates.
    pub fn new(tpm: Arc<dyn TpmBackend>, chain: Vec<Vec<u8>>) -> Self {
        Self { tpm, chain }
    }
}

#[async_trait]
impl TpmBackend for WithChain {
    fn capabilities(&self) -> &TpmCapabilities {
        self.tpm.capabilities()
    }

    async fn clock(&self) -> Result<TpmClock, TpmError> {
        self.tpm.clock().await
    }

    async fn read_pcrs(&self, bank: PcrBank, pcrs: &[PcrIndex]) -> Result<PcrValues, TpmError> {
        self.tpm.read_pcrs(bank, pcrs).await
    }

    async fn extend(
        &self,
        pcr: PcrIndex,
        digests: &std::collections::BTreeMap<PcrBank, Vec<u8>>,
    ) -> Result<(), TpmError> {
        self.tpm.extend(pcr, digests).await
    }

    async fn quote(
        &self,
        bank: PcrBank,
        pcrs: &[PcrIndex],
        qualifying_data: &[u8],
    ) -> Result<Quote, TpmError> {
        self.tpm.quote(bank, pcrs, qualifying_data).await
    }

    async fn attestation_key(&self) -> Result<Option<AttestationKey>, TpmError> {
        let key = self.tpm.attestation_key().await?;
        Ok(key.map(|key| AttestationKey {
            certificate_chain: self.chain.clone(),
            ..key
        }))
    }

    async fn boot_event_log(&self) -> Result<Vec<u8>, TpmError> {
        self.tpm.boot_event_log().await
    }
}

#[cfg(test)]
mod tests;
