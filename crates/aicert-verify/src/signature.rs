//! Public keys and signatures in pure Rust: RSA (PKCS #1 v1.5 and PSS) and ECDSA over P-256 and P-384, with SHA-2.

use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};
use rsa::pkcs1::DecodeRsaPublicKey as _;
use rsa::traits::PublicKeyParts as _;
use rsa::{BigUint, Pkcs1v15Sign, RsaPublicKey};
use sha2::{Sha256, Sha384, Sha512};

/// A hash algorithm that signatures may use. SHA-1 is not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Hash {
    /// The hash of a `TPM_ALG_ID` (TPM 2.0 Library, part 2, section 6.3); nothing for SHA-1 and what is not known.
    pub(crate) fn from_algorithm_id(id: u16) -> Option<Self> {
        match id {
            0x000b => Some(Self::Sha256),
            0x000c => Some(Self::Sha384),
            0x000d => Some(Self::Sha512),
            _ => None,
        }
    }

    /// Hashes the concatenation of `parts`.
    pub(crate) fn of<'a>(self, parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        fn run<'a, D: sha2::Digest>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
            parts
                .into_iter()
                .fold(D::new(), |hasher, part| hasher.chain_update(part))
                .finalize()
                .to_vec()
        }
        match self {
            Self::Sha256 => run::<Sha256>(parts),
            Self::Sha384 => run::<Sha384>(parts),
            Self::Sha512 => run::<Sha512>(parts),
        }
    }
}

/// A key that signatures are checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PublicKey {
    Rsa(RsaPublicKey),
    P256(p256::ecdsa::VerifyingKey),
    P384(p384::ecdsa::VerifyingKey),
}

/// RSA keys below are refused.
pub(crate) const RSA_MINIMUM_BITS: usize = 2048;

/// Says why a public key is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("RSA with {0} bits; expected 2048 to 4096")]
    RsaSize(usize),
    #[error("RSA with a public exponent below 65537")]
    RsaExponent,
    #[error("not a point of its curve, or not a valid RSA key")]
    Invalid,
    #[error("of a kind that is not accepted; expected RSA, or elliptic-curve over P-256 or P-384")]
    Unsupported,
}

impl PublicKey {
    pub(crate) fn rsa(modulus: &[u8], exponent: u32) -> Result<Self, KeyError> {
        let key = RsaPublicKey::new(BigUint::from_bytes_be(modulus), exponent.into())
            .map_err(|_| KeyError::Invalid)?;
        Self::checked_rsa(key)
    }

    fn checked_rsa(key: RsaPublicKey) -> Result<Self, KeyError> {
        let bits = key.n().bits();
        if bits < RSA_MINIMUM_BITS {
            return Err(KeyError::RsaSize(bits));
        }
        if *key.e() < BigUint::from(65_537u32) {
            return Err(KeyError::RsaExponent);
        }
        Ok(Self::Rsa(key))
    }

    /// A point in SEC 1 form; only the uncompressed one is accepted.
    fn p256(point: &[u8]) -> Result<Self, KeyError> {
        let point = Some(point)
            .filter(|point| point.len() == 65)
            .ok_or(KeyError::Invalid)?;
        p256::ecdsa::VerifyingKey::from_sec1_bytes(point)
            .map(Self::P256)
            .map_err(|_| KeyError::Invalid)
    }

    fn p384(point: &[u8]) -> Result<Self, KeyError> {
        let point = Some(point)
            .filter(|point| point.len() == 97)
            .ok_or(KeyError::Invalid)?;
        p384::ecdsa::VerifyingKey::from_sec1_bytes(point)
            .map(Self::P384)
            .map_err(|_| KeyError::Invalid)
    }

    /// The point with these coordinates, each at most as long as the curve's field.
    pub(crate) fn ecc(curve: Curve, x: &[u8], y: &[u8]) -> Result<Self, KeyError> {
        let point = [
            &[4][..],
            &left_pad(x, curve.field_len())?,
            &left_pad(y, curve.field_len())?,
        ]
        .concat();
        match curve {
            Curve::P256 => Self::p256(&point),
            Curve::P384 => Self::p384(&point),
        }
    }

    /// The key of a `SubjectPublicKeyInfo` (RFC 5280, section 4.1.2.7; RFC 3279, section 2.3; RFC 5480, section 2).
    pub(crate) fn from_spki(spki: &x509_cert::spki::SubjectPublicKeyInfoOwned) -> Result<Self, KeyError> {
        use x509_cert::der::{Encode as _, asn1::ObjectIdentifier};
        let algorithm = spki.algorithm.to_der().map_err(|_| KeyError::Invalid)?;
        // `AlgorithmIdentifier` of pki-types is the content of the SEQUENCE; these are short, so the header is 2 bytes.
        let content = algorithm.get(2..).unwrap_or_default();
        let key = spki.subject_public_key.as_bytes().ok_or(KeyError::Invalid)?;
        if content == alg_id::RSA_ENCRYPTION.as_ref() {
            let key = RsaPublicKey::from_pkcs1_der(key).map_err(|_| KeyError::Invalid)?;
            Self::checked_rsa(key)
        } else if content == alg_id::ECDSA_P256.as_ref() {
            Self::p256(key)
        } else if content == alg_id::ECDSA_P384.as_ref() {
            Self::p384(key)
        } else if spki.algorithm.oid == ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1") {
            Err(KeyError::Invalid)
        } else {
            Err(KeyError::Unsupported)
        }
    }

    /// Whether `signature` is one of this key over `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &Signature<'_>) -> bool {
        let hashed = signature.hash().of([message]);
        match (self, signature) {
            (Self::Rsa(key), Signature::Pkcs1 { hash, bytes }) => {
                let scheme = match hash {
                    Hash::Sha256 => Pkcs1v15Sign::new::<Sha256>(),
                    Hash::Sha384 => Pkcs1v15Sign::new::<Sha384>(),
                    Hash::Sha512 => Pkcs1v15Sign::new::<Sha512>(),
                };
                key.verify(scheme, &hashed, bytes).is_ok()
            }
            (Self::Rsa(key), Signature::Pss { hash, bytes }) => verifies_pss(key, *hash, &hashed, bytes),
            (Self::P256(key), Signature::Ecdsa { r, s, .. }) => (|| {
                let (r, s): ([u8; 32], [u8; 32]) = (
                    left_pad(r, 32).ok()?.try_into().ok()?,
                    left_pad(s, 32).ok()?.try_into().ok()?,
                );
                let signature = p256::ecdsa::Signature::from_scalars(r, s).ok()?;
                key.verify_prehash(&hashed, &signature).ok()
            })()
            .is_some(),
            (Self::P384(key), Signature::Ecdsa { r, s, .. }) => (|| {
                let (r, s): ([u8; 48], [u8; 48]) = (
                    left_pad(r, 48).ok()?.try_into().ok()?,
                    left_pad(s, 48).ok()?.try_into().ok()?,
                );
                let signature = p384::ecdsa::Signature::from_scalars(r, s).ok()?;
                key.verify_prehash(&hashed, &signature).ok()
            })()
            .is_some(),
            _ => false,
        }
    }
}

/// TPMs make PSS salts either as long as the digest or as long as the key allows (TPM 2.0 Library, part 1, annex B.7).
fn verifies_pss(key: &RsaPublicKey, hash: Hash, hashed: &[u8], signature: &[u8]) -> bool {
    // The `rsa` crate does not compare with the modulus here: a signature plus the modulus would be a second spelling.
    if BigUint::from_bytes_be(signature) >= *key.n() {
        return false;
    }
    let longest = (key.n().bits() - 1).div_ceil(8).checked_sub(hashed.len() + 2);
    [Some(hashed.len()), longest].into_iter().flatten().any(|salt| {
        let scheme = match hash {
            Hash::Sha256 => rsa::Pss::new_with_salt::<Sha256>(salt),
            Hash::Sha384 => rsa::Pss::new_with_salt::<Sha384>(salt),
            Hash::Sha512 => rsa::Pss::new_with_salt::<Sha512>(salt),
        };
        key.verify(scheme, hashed, signature).is_ok()
    })
}

fn left_pad(bytes: &[u8], length: usize) -> Result<Vec<u8>, KeyError> {
    let missing = length.checked_sub(bytes.len()).ok_or(KeyError::Invalid)?;
    Ok([&vec![0; missing], bytes].concat())
}

/// An elliptic curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
}

impl Curve {
    /// The curve of a `TPM_ECC_CURVE` (TPM 2.0 Library, part 2, section 6.4).
    pub(crate) fn from_id(id: u16) -> Option<Self> {
        match id {
            0x0003 => Some(Self::P256),
            0x0004 => Some(Self::P384),
            _ => None,
        }
    }

    fn field_len(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }
}

/// A signature as a TPM writes it: for ECDSA two numbers, not DER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Signature<'a> {
    Pkcs1 { hash: Hash, bytes: &'a [u8] },
    Pss { hash: Hash, bytes: &'a [u8] },
    Ecdsa { hash: Hash, r: &'a [u8], s: &'a [u8] },
}

impl Signature<'_> {
    pub(crate) fn hash(&self) -> Hash {
        match self {
            Self::Pkcs1 { hash, .. } | Self::Pss { hash, .. } | Self::Ecdsa { hash, .. } => *hash,
        }
    }
}

/// A kind of signature that certificates may carry.
#[derive(Debug)]
pub(crate) struct CertificateAlgorithm {
    key: KeyKind,
    hash: Hash,
    signature_id: AlgorithmIdentifier,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    Rsa,
    P256,
    P384,
}

/// Everything that certificates may be signed with. SHA-1 and MD5 are not among them.
pub(crate) static CERTIFICATE_ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    &RSA_SHA256,
    &RSA_SHA384,
    &RSA_SHA512,
    &P256_SHA256,
    &P256_SHA384,
    &P384_SHA256,
    &P384_SHA384,
];

static RSA_SHA256: CertificateAlgorithm = CertificateAlgorithm {
    key: KeyKind::Rsa,
    hash: Hash::Sha256,
    signature_id: alg_id::RSA_PKCS1_SHA256,
};
static RSA_SHA384: CertificateAlgorithm = CertificateAlgorithm {
    key: KeyKind::Rsa,
    hash: Hash::Sha384,
    signature_id: alg_id::RSA_PKCS1_SHA384,
};
static RSA_SHA512: CertificateAlgorithm = CertificateAlgorithm {
    key: KeyKind::Rsa,
    hash: Hash::Sha512,
    signature_id: alg_id::RSA_PKCS1_SHA512,
};
static P256_SHA256: CertificateAlgorithm = CertificateAlgorithm {
    key: KeyKind::P256,
    hash: Hash::Sha256,
    signature_id: alg_id::ECDSA_SHA256,
};
static P256_SHA384: CertificateAlgorithm = CertificateAlgorithm {
    key: KeyKind::P256,
    hash: Hash::Sha384,
    signature_id: alg_id::ECDSA_SHA384,
};
static P384_SHA256: CertificateAlgorithm = CertificateAlgorithm {
    key: KeyKind::P384,
    hash: Hash::Sha256,
    signature_id: alg_id::ECDSA_SHA256,
};
static P384_SHA384: CertificateAlgorithm = CertificateAlgorithm {
    key: KeyKind::P384,
    hash: Hash::Sha384,
    signature_id: alg_id::ECDSA_SHA384,
};

impl SignatureVerificationAlgorithm for CertificateAlgorithm {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let key = match self.key {
            KeyKind::Rsa => RsaPublicKey::from_pkcs1_der(public_key)
                .map_err(|_| KeyError::Invalid)
                .and_then(PublicKey::checked_rsa),
            KeyKind::P256 => PublicKey::p256(public_key),
            KeyKind::P384 => PublicKey::p384(public_key),
        };
        let key = key.map_err(|_| InvalidSignature)?;
        if verifies_certificate(&key, self.hash, message, signature) {
            Ok(())
        } else {
            Err(InvalidSignature)
        }
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        match self.key {
            KeyKind::Rsa => alg_id::RSA_ENCRYPTION,
            KeyKind::P256 => alg_id::ECDSA_P256,
            KeyKind::P384 => alg_id::ECDSA_P384,
        }
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.signature_id
    }
}

/// How a certificate says that it is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CertificateScheme {
    Rsa(Hash),
    Ecdsa(Hash),
}

impl CertificateScheme {
    /// The scheme of the content of an `AlgorithmIdentifier`; nothing for SHA-1 and what is not known.
    pub(crate) fn from_algorithm(content: &[u8]) -> Option<Self> {
        let hash_of = |known: &[&'static CertificateAlgorithm]| {
            known
                .iter()
                .find(|algorithm| algorithm.signature_id.as_ref() == content)
                .map(|algorithm| algorithm.hash)
        };
        hash_of(&[&RSA_SHA256, &RSA_SHA384, &RSA_SHA512])
            .map(Self::Rsa)
            .or_else(|| hash_of(&[&P256_SHA256, &P256_SHA384]).map(Self::Ecdsa))
    }

    pub(crate) fn verifies(self, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
        match (self, key) {
            (Self::Rsa(hash), PublicKey::Rsa(_))
            | (Self::Ecdsa(hash), PublicKey::P256(_) | PublicKey::P384(_)) => {
                verifies_certificate(key, hash, message, signature)
            }
            _ => false,
        }
    }
}

/// Certificates carry ECDSA signatures as DER (RFC 3279, section 2.2.3), which has one spelling for each signature.
fn verifies_certificate(key: &PublicKey, hash: Hash, message: &[u8], signature: &[u8]) -> bool {
    let scalars = match key {
        PublicKey::Rsa(_) => {
            return key.verifies(
                message,
                &Signature::Pkcs1 {
                    hash,
                    bytes: signature,
                },
            );
        }
        PublicKey::P256(_) => {
            p256::ecdsa::Signature::from_der(signature).map(|signature| signature.to_bytes().to_vec())
        }
        PublicKey::P384(_) => {
            p384::ecdsa::Signature::from_der(signature).map(|signature| signature.to_bytes().to_vec())
        }
    };
    scalars.is_ok_and(|scalars| {
        let (r, s) = scalars.split_at(scalars.len() / 2);
        key.verifies(message, &Signature::Ecdsa { hash, r, s })
    })
}
