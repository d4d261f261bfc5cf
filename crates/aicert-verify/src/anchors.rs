//! Who is believed: the roots that certificate chains may end in, and what kind of platform each vouches for.

use std::fmt;
use std::str::FromStr;

use aicert_core::certificate::PlatformKind;
use aicert_core::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use x509_cert::ext::pkix::KeyUsages;

use crate::x509::Certificate;

/// The SHA-256 of a certificate's DER; in text 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Wraps bytes that are already a fingerprint.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for Fingerprint {
    type Err = hex::FromHexError;

    /// Reads 64 hexadecimal digits in either case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

/// The roots of vendors that are known by themselves, by the SHA-256 of their DER.
///
/// * `Azure Virtual TPM Root Certificate Authority 2023` (valid to 2048-06-01), published by Microsoft with the
///   documentation of Trusted Launch;
/// * Google's `EK/AK CA Root` (valid to 2122-07-08), which Compute Engine's shielded VMs name in their certificates.
pub const PINNED: [(Fingerprint, PlatformKind); 2] = [
    (
        fingerprint(b"e6c596b17f8ffefba5c300f714cfb1260c6028704ecf7becc4ab5018efb00e95"),
        PlatformKind::AzureTrustedLaunch,
    ),
    (
        fingerprint(b"594759594b9b61524f6c8ef668f7177f7b9066bc0674f2f49fe9e052be78beb2"),
        PlatformKind::GceShieldedVm,
    ),
];

/// `aws.nitro-enclaves` (valid to 2049-10-28), published by AWS with the documentation of NitroTPM and of Nitro Enclaves.
///
/// It vouches for attestation documents ([`crate::nitro`]), as [`PlatformKind::AwsNitroTpm`], and for no attestation key of a
/// TPM: a quote whose chain ends in it is refused, and it cannot be added to the roots that vouch for such keys.
pub const NITRO_ROOT: Fingerprint =
    fingerprint(b"641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b");

/// 2025-11-01T00:00:00Z, in seconds since 1970: from when on a certificate of Azure must be valid to vouch for an attestation key.
///
/// Before, whoever owned a machine could put a key of his own in the place of the attestation key, and Azure's renewal certified it
/// (CVE-2025-49707, "Trust Fall"): such a key signs whatever PCR values are wanted. The CVE was published on 2025-08-12, and the mend in
/// Microsoft's paravisor on the days after (openvmm, pull requests 1849, 1868 and 1869). No source says when the last host had it, so
/// this is eleven weeks later: it costs nothing, because the certificates that are known live for less than a year.
pub const AZURE_KEYS_SINCE: i64 = 1_761_955_200;

const fn fingerprint(hexadecimal: &[u8; 64]) -> Fingerprint {
    const fn digit(byte: u8) -> u8 {
        match byte {
            b'0'..=b'9' => byte - b'0',
            _ => byte - b'a' + 10,
        }
    }
    let mut bytes = [0; 32];
    let mut i = 0;
    while i < 32 {
        bytes[i] = digit(hexadecimal[2 * i]) << 4 | digit(hexadecimal[2 * i + 1]);
        i += 1;
    }
    Fingerprint(bytes)
}

/// The kind of platform whose attestation keys a root certificate in DER vouches for: a vendor's, or
/// [`PlatformKind::LocalCa`] for every other. Whoever makes a certificate derives its summaries with this; it says nothing
/// about trust.
pub fn platform_of_root(der: &[u8]) -> PlatformKind {
    pinned(&Fingerprint::of(der)).unwrap_or(PlatformKind::LocalCa)
}

/// As [`platform_of_root`], of a root that vouches for attestation documents.
pub(crate) fn platform_of_document_root(root: &Fingerprint) -> PlatformKind {
    if *root == NITRO_ROOT {
        PlatformKind::AwsNitroTpm
    } else {
        PlatformKind::LocalCa
    }
}

/// The name of a kind of platform in proof files, and for `--platform`.
pub(crate) fn platform_name(kind: PlatformKind) -> &'static str {
    match kind {
        PlatformKind::AzureTrustedLaunch => "azure-trusted-launch",
        PlatformKind::GceShieldedVm => "gce-shielded-vm",
        PlatformKind::AwsNitroTpm => "aws-nitrotpm",
        PlatformKind::LocalCa => "local-ca",
        _ => "one that this version does not know",
    }
}

fn pinned(root: &Fingerprint) -> Option<PlatformKind> {
    PINNED
        .iter()
        .find(|(fingerprint, _)| fingerprint == root)
        .map(|(_, kind)| *kind)
}

/// The roots that a verification believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustAnchors {
    added: Vec<Fingerprint>,
    dangerous_accept_azure_keys_certified_before_fix: bool,
}

/// Says why a root that was given is no root. The fault is in what the verifier was given, not in a proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnchorError {
    /// It is neither one certificate in PEM nor one in DER.
    #[error("the trust anchor is not one certificate in PEM or DER: {0}")]
    NotOneCertificate(String),
    /// It is a certificate, but not that of a certificate authority that signs itself.
    #[error("the trust anchor {subject:?} is no root: {reason}")]
    NotARoot {
        /// Its subject.
        subject: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl TrustAnchors {
    /// The vendors' roots of [`PINNED`], and no other.
    pub fn pinned() -> Self {
        Self {
            added: Vec::new(),
            dangerous_accept_azure_keys_certified_before_fix: false,
        }
    }

    /// Believes certificates of attestation keys, too, that Azure issued while the owner of a machine could choose the key: see
    /// [`AZURE_KEYS_SINCE`]. What such a key has signed shows nothing, unless it is known from elsewhere that nobody chose it, as of
    /// evidence that was recorded for tests.
    #[must_use]
    pub fn dangerous_accepting_azure_keys_certified_before_fix(mut self) -> Self {
        self.dangerous_accept_azure_keys_certified_before_fix = true;
        self
    }

    /// The moment from which on a certificate must be valid to vouch for an attestation key of this platform, if `from` is before it.
    pub(crate) fn too_early(&self, platform: PlatformKind, from: Timestamp) -> Option<Timestamp> {
        let since = Timestamp::from_unix(AZURE_KEYS_SINCE);
        (platform == PlatformKind::AzureTrustedLaunch
            && !self.dangerous_accept_azure_keys_certified_before_fix
            && from < since)
            .then_some(since)
    }

    /// Believes one more root, for simulated platforms: what it vouches for is [`PlatformKind::LocalCa`].
    ///
    /// `bytes` are exactly one certificate, in DER, or in PEM with nothing before or after its block.
    ///
    /// # Errors
    ///
    /// When they are not, or could be read as another certificate by another parser, or when it is not a self-signed
    /// certificate authority.
    pub fn with_root(mut self, bytes: &[u8]) -> Result<Self, AnchorError> {
        let root = read_root(bytes)?;
        if !self.added.contains(&root.fingerprint) {
            self.added.push(root.fingerprint);
        }
        Ok(self)
    }

    /// Whether this root was added with [`TrustAnchors::with_root`].
    pub(crate) fn was_added(&self, root: &Fingerprint) -> bool {
        self.added.contains(root)
    }

    /// The kind of platform whose attestation documents a root vouches for; nothing when it is not believed. AWS's root is
    /// believed for documents, the other vendors' for none.
    pub fn platform_of_documents(&self, root: &Fingerprint) -> Option<PlatformKind> {
        (*root == NITRO_ROOT || self.was_added(root)).then(|| platform_of_document_root(root))
    }

    /// The kind of platform whose attestation keys a root vouches for; nothing when it is not believed.
    pub fn platform_of(&self, root: &Fingerprint) -> Option<PlatformKind> {
        pinned(root).or_else(|| self.was_added(root).then_some(PlatformKind::LocalCa))
    }
}

fn read_root(bytes: &[u8]) -> Result<Certificate, AnchorError> {
    let mut certificates = Certificate::all_from_file(bytes)
        .map_err(|error| AnchorError::NotOneCertificate(error.to_string()))?;
    let root = match certificates.pop() {
        Some(root) if certificates.is_empty() => root,
        _ => {
            return Err(AnchorError::NotOneCertificate(
                "it holds more than one block".into(),
            ));
        }
    };
    let reason = if !root.is_ca || !root.allows(KeyUsages::KeyCertSign) {
        "it is not marked as a certificate authority that may sign certificates"
    } else if root.subject != root.issuer {
        "another authority issued it; give the root itself"
    } else if !root.is_signed_by(&root) {
        "its signature is not its own, or made with an algorithm that is not accepted"
    } else if root.fingerprint == NITRO_ROOT {
        "AWS certifies no attestation keys with it; attestation documents of NitroTPM are verified without adding it"
    } else {
        return Ok(root);
    };
    Err(AnchorError::NotARoot {
        subject: root.subject_text,
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn azure_is_believed_from_a_day_on() {
        let since: Timestamp = "2025-11-01T00:00:00Z".parse().unwrap();
        let before = Timestamp::from_unix(since.as_unix() - 1);
        let anchors = TrustAnchors::pinned();
        let azure = PlatformKind::AzureTrustedLaunch;
        assert_eq!(anchors.too_early(azure, since), None);
        assert_eq!(anchors.too_early(azure, before), Some(since));
        assert_eq!(anchors.too_early(azure, Timestamp::from_unix(0)), Some(since));
        for other in [
            PlatformKind::GceShieldedVm,
            PlatformKind::AwsNitroTpm,
            PlatformKind::LocalCa,
        ] {
            assert_eq!(anchors.too_early(other, before), None, "{other:?}");
        }
        let anchors = anchors.dangerous_accepting_azure_keys_certified_before_fix();
        assert_eq!(anchors.too_early(azure, before), None);
    }
}
