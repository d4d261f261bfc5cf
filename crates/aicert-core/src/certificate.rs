//! The certificate, or proof file: the log, the evidence that it is true, and summaries that a person can read.
//!
//! Nothing in a [`Certificate`] may be believed before `aicert-verify` has verified it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::canonical::{self, EncodeError, ReadError, at_most, to_jcs};
use crate::digest::{FileDigest, LogHead, Nonce, PlatformHash, TreeRoot};
use crate::event::{EVENT_LIMIT, Event, GPU_LIMIT, Gpu, INPUT_LIMIT, InputMeasured, JobResult, PinKind};
use crate::log::CompleteLog;
use crate::tpm::{PcrBank, PcrValues};
use crate::tree::{Entry, LISTING_LIMIT, TreePath};

/// What stands before the log head and the nonce in a quote's qualifying data, with the zero byte that ends it.
pub const QUOTE_DOMAIN: &[u8] = b"aicert/quote/v1\0";

/// The largest proof file that is read.
pub const SIZE_LIMIT: usize = 64 << 20;

/// More certificates are not read; fewer are accepted.
const CHAIN_LIMIT: usize = 64;

/// Bytes that are base64 in the file (RFC 4648, section 4, with padding).
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Base64(pub Vec<u8>);

impl std::fmt::Debug for Base64 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Base64({} bytes)", self.0.len())
    }
}

impl Serialize for Base64 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD
            .decode(text.as_bytes())
            .map(Self)
            .map_err(|error| serde::de::Error::custom(format_args!("not base64: {error}")))
    }
}

/// A proof file, as it is written. The order of the fields is the order in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The version of this format.
    pub version: Version,
    /// Summary: whether the job succeeded.
    pub result: JobResult,
    /// Summary: the inputs.
    #[serde(deserialize_with = "at_most::<INPUT_LIMIT, _, _>")]
    pub inputs: Vec<InputSummary>,
    /// Summary: the output files, while they are few enough to be listed.
    #[serde(deserialize_with = "at_most::<LISTING_LIMIT, _, _>")]
    pub outputs: Vec<OutputSummary>,
    /// Summary: the root over all outputs.
    pub output_model_hash: TreeRoot,
    /// Summary: the platform.
    pub platform: Platform,
    /// SHA-256 of the canonical form of `platform`.
    pub platform_hash: PlatformHash,
    /// The log.
    #[serde(deserialize_with = "at_most::<EVENT_LIMIT, _, _>")]
    pub measurement_log: Vec<Event>,
    /// What firmware measured, as it wrote it; empty when the platform has no such log.
    pub boot_event_log: Base64,
    /// What the TPM signed.
    pub low_level_quote: LowLevelQuote,
    /// The TPM's signature, `TPMT_SIGNATURE`; empty when the quote is a document, which has its own.
    pub signature: Base64,
    /// The key that signed; empty when the quote is a document, which names its own.
    pub attestation_key: KeyEvidence,
    /// Reserved for a timestamp token: null.
    pub timestamp: (),
}

/// The version of a proof file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Version {
    /// The only one so far.
    #[serde(rename = "v1")]
    V1,
}

/// An input, for readers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSummary {
    /// The kind of source.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Where it came from.
    pub download_url: String,
    /// The name that others know it by: a commit (`sha1:…`), a file's SHA-256, else the root of its tree.
    pub hash: String,
    /// The root over its files.
    pub tree: TreeRoot,
}

/// An output file, for readers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputSummary {
    /// Relative to the folder of the outputs.
    pub path: TreePath,
    /// In bytes.
    pub size: u64,
    /// What `sha256sum` prints.
    pub hash: FileDigest,
}

/// The platform, for readers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Platform {
    /// What vouches for the TPM. Follows from the trust anchor that the chain ends in.
    pub kind: PlatformKind,
    /// Whether the TPM is a simulation or vouched for by nobody the verifier knows by itself. Follows from the kind.
    pub simulated: bool,
    /// Who provided the machine, as the builder says: verifiers refuse what the chain contradicts.
    pub provider: String,
    /// The provider's name for the kind of machine: the builder's claim.
    pub instance_type: String,
    /// Where it was: the builder's claim, but for what the chain contradicts.
    pub region: String,
    /// Its GPUs.
    #[serde(deserialize_with = "at_most::<GPU_LIMIT, _, _>")]
    pub gpus: Vec<Gpu>,
}

/// What vouches for a TPM: the root that its certificates end in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PlatformKind {
    /// Azure's virtual TPM root.
    AzureTrustedLaunch,
    /// Google's EK/AK root.
    GceShieldedVm,
    /// AWS's root of attestation documents.
    #[serde(rename = "aws-nitrotpm")]
    AwsNitroTpm,
    /// A root that whoever verifies must bring.
    LocalCa,
}

impl PlatformKind {
    /// Whether nothing real vouches for the TPM.
    pub fn is_simulated(self) -> bool {
        self == Self::LocalCa
    }
}

/// What the TPM signed, and what it takes to recompute it.
///
/// Which of the two kinds of evidence it is follows from the first byte of `attest` alone: see [`LowLevelQuote::evidence`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LowLevelQuote {
    /// The bank of the PCRs.
    pub bank: PcrBank,
    /// The PCRs that the quote covers.
    pub pcrs: PcrValues,
    /// What was signed: a `TPMS_ATTEST`, or the whole attestation document (`COSE_Sign1`, without a tag) of a NitroTPM.
    pub attest: Base64,
    /// The nonce in the qualifying data.
    pub nonce: Nonce,
}

/// What a TPM makes when it is asked for a quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EvidenceKind {
    /// A `TPMS_ATTEST`, with a signature of a certified attestation key beside it.
    Quote,
    /// The attestation document of an AWS NitroTPM, with its signature and certificates inside: PCRs of the SHA-384 bank, and
    /// the qualifying data as its nonce.
    NitroDocument,
}

impl LowLevelQuote {
    /// Which kind of evidence it claims to be. A `TPMS_ATTEST` begins with `ff` (TPM 2.0 Library, part 2, section 6.2), a
    /// `COSE_Sign1` with an array of four elements (RFC 9052, section 4.2), or with the tag 18 before it.
    pub fn evidence(&self) -> EvidenceKind {
        match self.attest.0.first() {
            Some(0x84 | 0xd2) => EvidenceKind::NitroDocument,
            _ => EvidenceKind::Quote,
        }
    }
}

/// The key that signed, and who says so. Empty beside an attestation document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEvidence {
    /// Its public area, `TPMT_PUBLIC`.
    pub public: Base64,
    /// X.509 certificates in DER: the key's own, then intermediates, then the root.
    #[serde(deserialize_with = "at_most::<CHAIN_LIMIT, _, _>")]
    pub certificate_chain: Vec<Base64>,
}

/// Everything in a certificate that follows from its log and from the kind of platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summaries {
    /// See [`Certificate::result`].
    pub result: JobResult,
    /// See [`Certificate::inputs`].
    pub inputs: Vec<InputSummary>,
    /// See [`Certificate::outputs`].
    pub outputs: Vec<OutputSummary>,
    /// See [`Certificate::output_model_hash`].
    pub output_model_hash: TreeRoot,
    /// See [`Certificate::platform`].
    pub platform: Platform,
    /// See [`Certificate::platform_hash`].
    pub platform_hash: PlatformHash,
}

impl Summaries {
    /// Derives the summaries.
    ///
    /// # Errors
    ///
    /// When the platform has no canonical form, which no platform of strings and booleans lacks.
    pub fn derive(log: &CompleteLog<'_>, kind: PlatformKind) -> Result<Self, EncodeError> {
        let platform = Platform {
            kind,
            simulated: kind.is_simulated(),
            provider: log.machine.provider.clone(),
            instance_type: log.machine.instance_type.clone(),
            region: log.machine.region.clone(),
            gpus: log.machine.gpus.clone(),
        };
        Ok(Self {
            result: log.closed.result,
            inputs: log.inputs.iter().map(|input| summarize_input(input)).collect(),
            outputs: log
                .outputs
                .tree
                .listing
                .iter()
                .flatten()
                .filter_map(summarize_output)
                .collect(),
            output_model_hash: log.outputs.tree.root,
            platform_hash: PlatformHash::of(&to_jcs(&platform)?),
            platform,
        })
    }
}

fn summarize_input(input: &InputMeasured) -> InputSummary {
    let pin = |kind| {
        input
            .resolved
            .iter()
            .find(|pin| pin.kind == kind)
            .map(|pin| pin.value.clone())
    };
    InputSummary {
        kind: input.kind.clone(),
        name: input.name.clone(),
        download_url: input.origin.clone(),
        hash: pin(PinKind::Commit)
            .or_else(|| pin(PinKind::Sha256))
            .unwrap_or_else(|| input.tree.root.to_string()),
        tree: input.tree.root,
    }
}

fn summarize_output(entry: &Entry) -> Option<OutputSummary> {
    entry.hash().map(|hash| OutputSummary {
        path: entry.path().clone(),
        size: entry.size(),
        hash,
    })
}

/// The qualifying data of a quote: `SHA-256("aicert/quote/v1" || 0x00 || log head || nonce)`.
pub fn qualifying_data(head: &LogHead, nonce: &Nonce) -> [u8; 32] {
    Sha256::new()
        .chain_update(QUOTE_DOMAIN)
        .chain_update(head.as_bytes())
        .chain_update(nonce.as_bytes())
        .finalize()
        .into()
}

impl Certificate {
    /// Reads a proof file. That it can be read says nothing about whether it is true.
    ///
    /// # Errors
    ///
    /// When it is too large, malformed, or not spelled in the one accepted way.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ReadError> {
        canonical::from_slice(bytes, SIZE_LIMIT)
    }

    /// Writes the file, indented for people.
    pub fn to_json(&self) -> String {
        // Strings, integers, arrays and string-keyed objects in memory: nothing that serde_json refuses.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}
