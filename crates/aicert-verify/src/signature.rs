//! Public keys and signatures in pure Rust: RSA (PKCS #1 v1.5 and PSS) and ECDSA over P-256 and P-384, with SHA-2.

mod certificate;

use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use pki_types::alg_id;
use rsa::pkcs1::DecodeRsaPublicKey as _;
use rsa::traits::PublicKeyParts as _;
use rsa::{BigUint, Pkcs1v15Sign, RsaPublicKey};
use sha2::{Sha256, Sha384, Sha512};

pub(crate) use certificate::{Accepted, CertificateScheme, Remembering};

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

    /// The hash whose digests have this many bytes.
    pub(crate) fn from_digest_len(length: usize) -> Option<Self> {
        match length {
            32 => Some(Self::Sha256),
            48 => Some(Self::Sha384),
            64 => Some(Self::Sha512),
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

/// TPMs make PSS salts either as long as the digest or as long as the key allows (TPM 2.0 Library, part 1, annex B).
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

/// TPMs write a number either as long as the field, or without its leading zeros; in between there is no spelling.
fn left_pad(bytes: &[u8], length: usize) -> Result<Vec<u8>, KeyError> {
    let missing = length.checked_sub(bytes.len()).ok_or(KeyError::Invalid)?;
    if missing > 0 && bytes.first() == Some(&0) {
        return Err(KeyError::Invalid);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use p384::ecdsa::signature::Signer as _;
    use rsa::RsaPrivateKey;
    use rsa::rand_core::OsRng;

    #[test]
    fn rsa_signatures_hold_for_their_scheme_hash_and_message_only() {
        let private = RsaPrivateKey::new(&mut OsRng, 2048).unwrap();
        let key = PublicKey::checked_rsa(private.to_public_key()).unwrap();
        let hashed = Hash::Sha256.of([&b"message"[..]]);
        let hash = Hash::Sha256;

        let pkcs1 = private.sign(Pkcs1v15Sign::new::<Sha256>(), &hashed).unwrap();
        assert!(key.verifies(b"message", &Signature::Pkcs1 { hash, bytes: &pkcs1 }));
        assert!(!key.verifies(b"another", &Signature::Pkcs1 { hash, bytes: &pkcs1 }));
        assert!(!key.verifies(
            b"message",
            &Signature::Pkcs1 {
                hash: Hash::Sha384,
                bytes: &pkcs1
            }
        ));
        assert!(!key.verifies(b"message", &Signature::Pss { hash, bytes: &pkcs1 }));
        assert!(!key.verifies(
            b"message",
            &Signature::Pkcs1 {
                hash,
                bytes: &[&[0], &pkcs1[..]].concat()
            }
        ));

        // TPMs salt with as many bytes as the digest has, or as many as fit: 256 - 32 - 2.
        for salt in [32, 222] {
            let pss = private
                .sign_with_rng(&mut OsRng, rsa::Pss::new_with_salt::<Sha256>(salt), &hashed)
                .unwrap();
            assert!(
                key.verifies(b"message", &Signature::Pss { hash, bytes: &pss }),
                "{salt}"
            );
            assert!(!key.verifies(b"another", &Signature::Pss { hash, bytes: &pss }));
            assert!(!key.verifies(b"message", &Signature::Pkcs1 { hash, bytes: &pss }));
            // The same signature, spelled with the modulus added, where that fits.
            let twin = (BigUint::from_bytes_be(&pss) + private.n()).to_bytes_be();
            assert!(twin.len() != 256 || !key.verifies(b"message", &Signature::Pss { hash, bytes: &twin }));
        }
        let odd = private
            .sign_with_rng(&mut OsRng, rsa::Pss::new_with_salt::<Sha256>(20), &hashed)
            .unwrap();
        assert!(!key.verifies(b"message", &Signature::Pss { hash, bytes: &odd }));
    }

    #[test]
    fn p384_signatures_hold_in_certificates_and_from_tpms() {
        let private = p384::ecdsa::SigningKey::from_slice(&[7; 48]).unwrap();
        let point = private.verifying_key().to_encoded_point(false);
        let key = PublicKey::ecc(Curve::P384, point.x().unwrap(), point.y().unwrap()).unwrap();
        let signature: p384::ecdsa::Signature = private.sign(b"message");
        let (r, s) = (signature.r().to_bytes(), signature.s().to_bytes());
        let hash = Hash::Sha384;
        assert!(key.verifies(b"message", &Signature::Ecdsa { hash, r: &r, s: &s }));
        assert!(!key.verifies(b"message", &Signature::Ecdsa { hash, r: &s, s: &r }));
        assert!(!key.verifies(
            b"message",
            &Signature::Ecdsa {
                hash: Hash::Sha256,
                r: &r,
                s: &s
            }
        ));
        assert!(!key.verifies(
            b"message",
            &Signature::Ecdsa {
                hash,
                r: &[0; 48],
                s: &s
            }
        ));
        let der = signature.to_der();
        let in_certificate =
            |hash, message| CertificateScheme::Ecdsa(hash).verifies(&key, message, der.as_bytes());
        assert!(in_certificate(Hash::Sha384, b"message"));
        assert!(!in_certificate(Hash::Sha256, b"message"));
        assert!(!in_certificate(Hash::Sha384, b"other"));
        assert!(!CertificateScheme::Rsa(hash).verifies(&key, b"message", der.as_bytes()));
    }

    #[test]
    fn coordinates_longer_than_the_field_are_refused() {
        assert_eq!(
            PublicKey::ecc(Curve::P256, &[1; 33], &[1; 32]),
            Err(KeyError::Invalid)
        );
        assert_eq!(PublicKey::p256(&[2; 33]), Err(KeyError::Invalid));
        assert_eq!(left_pad(&[0, 1], 3), Err(KeyError::Invalid));
        assert_eq!(left_pad(&[0, 1], 2), Ok(vec![0, 1]));
        assert_eq!(left_pad(&[1], 2), Ok(vec![0, 1]));
    }
}
