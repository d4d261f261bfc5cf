//! Before anything is sent to a machine: what it is told before it boots, and the evidence that it hands out of what has
//! booted and of who holds the key of its TLS connections.
//!
//! Nothing here is trusted by itself: `aicert-verify` verifies an [`Attestation`].

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::certificate::{Base64, KeyEvidence, LowLevelQuote};
use crate::digest::{ClientDigest, Nonce, TlsKeyDigest};

/// What stands before the TLS key and the nonce in the qualifying data of an attestation, with the zero byte that ends it.
pub const ATTESTATION_DOMAIN: &[u8] = b"aicert/attestation/v1\0";

/// The largest provisioning document that is read.
pub const PROVISIONING_LIMIT: usize = 64 << 10;

/// The largest attestation that is read: a boot log has at most a few hundred kilobytes.
pub const ATTESTATION_LIMIT: usize = 8 << 20;

/// The qualifying data of the quote in an attestation: it binds the nonce of the client, and the key of the TLS connection.
pub fn attestation_qualifying_data(tls_key: &TlsKeyDigest, nonce: &Nonce) -> [u8; 32] {
    Sha256::new()
        .chain_update(ATTESTATION_DOMAIN)
        .chain_update(tls_key.as_bytes())
        .chain_update(nonce.as_bytes())
        .finalize()
        .into()
}

/// The answer to `GET /v1/attestation?nonce=`: evidence of what has booted and of who holds the key of this TLS connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Attestation {
    /// SHA-256 of the `SubjectPublicKeyInfo` (DER) of the key that this TLS connection is served with.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub tls_key: TlsKeyDigest,
    /// What the TPM signed: PCRs 0 to 15, or all that a document has. Its qualifying data is [`attestation_qualifying_data`].
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub quote: LowLevelQuote,
    /// The TPM's signature, `TPMT_SIGNATURE`, base64; empty when the quote is a document.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub signature: Base64,
    /// The key that signed, with its certificates; empty when the quote is a document.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub attestation_key: KeyEvidence,
    /// What firmware measured, as it wrote it, base64.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub boot_event_log: Base64,
    /// The version of the server, for people: the measurements say which one it really is.
    pub server_version: String,
}

/// What a machine is told before it boots: by fw_cfg in QEMU, by the metadata service of a cloud. No measurement covers
/// it, and nobody believes it: at worst, the machine serves somebody else, its key is not recognised, or a proof repeats what
/// the machine was told of itself, which verifiers compare with the certificates as far as those know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provisioning {
    /// Who may use the machine: the SHA-256 of the client's certificate (DER). Everybody else is refused.
    pub client: ClientDigest,
    /// Who provides the machine; the value of `provider` in the configuration.
    pub provider: String,
    /// The provider's name for the kind of machine.
    pub instance_type: String,
    /// Where the machine is.
    pub region: String,
    /// Where its attestation key is.
    pub attestation_key: KeyLocation,
    /// Certificates (DER) between that of the attestation key and a root, the root last, where the provider knows them.
    #[serde(default)]
    pub issuers: Vec<Base64>,
    /// The machine turns itself off when no client has been there for so many seconds and no job runs.
    pub idle_seconds: u64,
    /// The machine turns itself off so many seconds after its server has started, whatever runs; never, where this is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_seconds: Option<u64>,
}

/// Where a platform keeps the key that signs quotes, and its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum KeyLocation {
    /// A primary key of the endorsement hierarchy: made anew from a template, and always the same.
    Template {
        /// The NV index with the template, a `TPMT_PUBLIC`.
        template: u32,
        /// The NV index with the certificate (DER).
        certificate: u32,
    },
    /// A persistent key.
    Persistent {
        /// Its handle.
        handle: u32,
        /// The NV index with the certificate (DER).
        certificate: u32,
    },
    /// Nowhere: the platform certifies no key of the TPM, and makes attestation documents instead, as AWS NitroTPM.
    NitroDocument,
}

/// How the evidence of a machine names it: without that, another machine of the same provider, which has booted the same
/// image, could answer in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum MachineIdentity {
    /// Its attestation key has this name (TPM 2.0 Library, part 1, section 16): the algorithm, and the hash of its public area.
    AttestationKey(Vec<u8>),
    /// The certificate of its attestation key names this instance of Compute Engine.
    Gce {
        /// The project's id.
        project: String,
        /// The zone.
        zone: String,
        /// The instance's number.
        instance: u64,
    },
    /// Its attestation documents name this instance of EC2.
    Ec2 {
        /// `i-` and hexadecimal digits.
        instance: String,
    },
}
