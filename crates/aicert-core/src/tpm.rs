//! PCRs, quotes, and the trait of what can extend and sign them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

/// A bank of PCRs, named by its hash algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum PcrBank {
    /// SHA-1: extended where it is active, never trusted.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl PcrBank {
    /// Every bank that aicert can extend.
    pub const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// The bank of a `TPM_ALG_ID` (TPM 2.0 Library, part 2, section 6.3).
    pub fn from_algorithm_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|bank| bank.algorithm_id() == id)
    }

    /// Its `TPM_ALG_ID` (TPM 2.0 Library, part 2, section 6.3).
    pub fn algorithm_id(self) -> u16 {
        match self {
            Self::Sha1 => 0x0004,
            Self::Sha256 => 0x000b,
            Self::Sha384 => 0x000c,
            Self::Sha512 => 0x000d,
        }
    }

    /// The length of its digests in bytes.
    pub fn digest_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Hashes the concatenation of `parts` with the bank's algorithm.
    pub fn hash(self, parts: &[&[u8]]) -> Vec<u8> {
        fn run<D: sha2::Digest>(parts: &[&[u8]]) -> Vec<u8> {
            parts
                .iter()
                .fold(D::new(), |hasher, part| hasher.chain_update(part))
                .finalize()
                .to_vec()
        }
        match self {
            Self::Sha1 => run::<Sha1>(parts),
            Self::Sha256 => run::<Sha256>(parts),
            Self::Sha384 => run::<Sha384>(parts),
            Self::Sha512 => run::<Sha512>(parts),
        }
    }

    /// What a PCR holds after `digest` is extended into `value`.
    pub fn extend(self, value: &[u8], digest: &[u8]) -> Vec<u8> {
        self.hash(&[value, digest])
    }
}

impl fmt::Display for PcrBank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        })
    }
}

/// The number of a PCR, 0 to 23.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct PcrIndex(u8);

impl PcrIndex {
    /// Inputs and software are measured here.
    pub const INPUTS: Self = Self(14);
    /// Execution and outputs are measured here.
    pub const OUTPUTS: Self = Self(15);

    /// A PCR's number; nothing above 23.
    pub const fn new(index: u8) -> Option<Self> {
        if index < 24 { Some(Self(index)) } else { None }
    }

    pub(crate) const fn literal<const INDEX: u8>() -> Self {
        const { assert!(INDEX < 24) };
        Self(INDEX)
    }

    /// The number.
    pub const fn as_u8(self) -> u8 {
        self.0
    }

    /// The PCRs that a quote of aicert covers: 0 to 15.
    pub fn quoted() -> impl Iterator<Item = Self> {
        (0..16).map(Self)
    }
}

impl fmt::Display for PcrIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PcrIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PcrIndex({})", self.0)
    }
}

impl<'de> Deserialize<'de> for PcrIndex {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let index = u8::deserialize(deserializer)?;
        Self::new(index).ok_or_else(|| {
            serde::de::Error::custom(format_args!("there is no PCR {index}: they go from 0 to 23"))
        })
    }
}

/// The values of some PCRs of one bank; in JSON an object from the PCR's number to lowercase hexadecimal.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PcrValues(pub BTreeMap<PcrIndex, Vec<u8>>);

impl fmt::Debug for PcrValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.0.iter().map(|(index, value)| (index.0, hex::encode(value))))
            .finish()
    }
}

impl Serialize for PcrValues {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(index, value)| (index.0, hex::encode(value))))
    }
}

impl<'de> Deserialize<'de> for PcrValues {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut values = BTreeMap::new();
        for (index, text) in BTreeMap::<PcrIndex, String>::deserialize(deserializer)? {
            // No bank has longer digests than SHA-512.
            let value = hex::decode(&text)
                .ok()
                .filter(|value| value.len() <= PcrBank::Sha512.digest_len())
                .ok_or_else(|| {
                    serde::de::Error::custom(format_args!("PCR {index} is not hexadecimal, or too long"))
                })?;
            values.insert(index, value);
        }
        Ok(Self(values))
    }
}

/// A TPM's clock and its boot counters (`TPMS_CLOCK_INFO`, TPM 2.0 Library, part 2, section 10.11.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TpmClock {
    /// Milliseconds that the TPM has been powered, over its whole life.
    pub clock: u64,
    /// How often it was reset.
    pub reset_count: u64,
    /// How often it was resumed since the last reset.
    pub restart_count: u64,
}

#[cfg(feature = "pipeline")]
pub use backend::*;

#[cfg(feature = "pipeline")]
mod backend {
    use super::*;
    use crate::certificate::{Base64, EvidenceKind, KeyEvidence};
    use crate::error::Error;
    use async_trait::async_trait;

    /// An error of a [`TpmBackend`].
    pub type TpmError = Error<TpmErrorKind>;

    /// What went wrong with a TPM.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    #[non_exhaustive]
    pub enum TpmErrorKind {
        /// There is no TPM where one was looked for.
        Absent,
        /// Another process uses it.
        InUse,
        /// Access to it is not permitted.
        PermissionDenied,
        /// It did not answer in time, or asked to try again until patience ended.
        Busy,
        /// It cannot do what was asked (algorithm, bank, key).
        Unsupported,
        /// It answered with an error, or with something that makes no sense.
        Failed,
    }

    /// A quote with the values it covers.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Quote {
        /// The bank of the PCRs.
        pub bank: PcrBank,
        /// The PCRs covered, with their values at the time of the quote.
        pub pcrs: PcrValues,
        /// What was signed: a `TPMS_ATTEST`, or a whole document, as [`TpmCapabilities::evidence`] says.
        pub attest: Vec<u8>,
        /// The signature, `TPMT_SIGNATURE`; empty of a document, which has its own.
        pub signature: Vec<u8>,
    }

    /// The key that signs quotes.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct AttestationKey {
        /// Its public area, `TPMT_PUBLIC`.
        pub public: Vec<u8>,
        /// X.509 certificates in DER: the key's own, then intermediates, then the root.
        pub certificate_chain: Vec<Vec<u8>>,
    }

    impl From<AttestationKey> for KeyEvidence {
        fn from(key: AttestationKey) -> Self {
            Self {
                public: Base64(key.public),
                certificate_chain: key.certificate_chain.into_iter().map(Base64).collect(),
            }
        }
    }

    /// What a TPM can do.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct TpmCapabilities {
        /// The active banks, in the order of their algorithm ids. Every extend goes to each of them.
        pub banks: Vec<PcrBank>,
        /// What a quote is.
        pub evidence: EvidenceKind,
        /// Whether this is a software TPM for tests and demonstrations.
        pub simulated: bool,
    }

    impl TpmCapabilities {
        /// The bank that proofs and attestations quote: SHA-256 where it is active, else the strongest, and never SHA-1. A
        /// document has SHA-384 and no other.
        pub fn quoted_bank(&self) -> Option<PcrBank> {
            let active = |bank: PcrBank| self.banks.contains(&bank).then_some(bank);
            match self.evidence {
                EvidenceKind::NitroDocument => active(PcrBank::Sha384),
                EvidenceKind::Quote => [PcrBank::Sha256, PcrBank::Sha512, PcrBank::Sha384]
                    .into_iter()
                    .find_map(active),
            }
        }
    }

    /// A TPM that can be extended and asked for quotes.
    ///
    /// # Contract
    ///
    /// *Implemented by* crates for a kind of TPM. *Called by* the pipeline, which makes one call at a time; an
    /// implementation is nevertheless safe to share, and serializes commands itself.
    ///
    /// * `extend` extends all active banks with one command, or fails; it is never retried by the caller. If its future
    ///   is dropped, the extend may or may not have happened, and the caller must treat its log as broken.
    /// * `quote` returns the PCR values that were signed; an implementation that reads them separately must check that they
    ///   agree, and read again when they do not. A quote that is a document ([`TpmCapabilities::evidence`]) covers more PCRs
    ///   than were asked for, where the platform chooses them, and returns all that it covers; a bank other than
    ///   [`TpmCapabilities::quoted_bank`] is refused then.
    /// * Everything but `extend` may be repeated without effect.
    /// * An answer of "busy" or "try again" is handled inside, with a limit; what comes out is final.
    /// * Nothing is chosen by falling back: a bank, key or algorithm that is not there is [`TpmErrorKind::Unsupported`].
    #[async_trait]
    pub trait TpmBackend: Send + Sync {
        /// What this TPM can do.
        fn capabilities(&self) -> &TpmCapabilities;

        /// Reads the clock and the boot counters, as the attestation key's signatures show them: a verifier compares them
        /// with those in quotes, where they are obfuscated for some keys. Documents have none to be compared with.
        async fn clock(&self) -> Result<TpmClock, TpmError>;

        /// Reads PCRs of one bank, in as many commands as the TPM needs; the result holds exactly those asked for.
        async fn read_pcrs(&self, bank: PcrBank, pcrs: &[PcrIndex]) -> Result<PcrValues, TpmError>;

        /// Extends a PCR in every active bank. `digests` has exactly one digest for each bank of the capabilities.
        async fn extend(&self, pcr: PcrIndex, digests: &BTreeMap<PcrBank, Vec<u8>>) -> Result<(), TpmError>;

        /// Signs the values of PCRs of one bank, with `qualifying_data` as `extraData`, or as the nonce of a document.
        async fn quote(
            &self,
            bank: PcrBank,
            pcrs: &[PcrIndex],
            qualifying_data: &[u8],
        ) -> Result<Quote, TpmError>;

        /// The key that signs the quotes, with its certificates; none where a quote is a document, which brings its own.
        async fn attestation_key(&self) -> Result<Option<AttestationKey>, TpmError>;

        /// The boot event log as firmware wrote it (TCG PC Client Platform Firmware Profile); empty when the platform
        /// has none.
        async fn boot_event_log(&self) -> Result<Vec<u8>, TpmError>;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pcr_values_have_one_text_form() {
        let values = PcrValues([(PcrIndex::INPUTS, vec![0xab; 32]), (PcrIndex(2), vec![1; 32])].into());
        let text = serde_json::to_string(&values).unwrap();
        assert_eq!(
            text,
            format!("{{\"2\":\"{}\",\"14\":\"{}\"}}", "01".repeat(32), "ab".repeat(32))
        );
        assert_eq!(serde_json::from_str::<PcrValues>(&text).unwrap(), values);
        assert!(serde_json::from_str::<PcrValues>("{\"24\":\"00\"}").is_err());
    }
}
