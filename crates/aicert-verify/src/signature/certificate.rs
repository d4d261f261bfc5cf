//! The signatures of certificates, for this crate's own path checks and for rustls-webpki.

use pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};
use rsa::RsaPublicKey;
use rsa::pkcs1::DecodeRsaPublicKey as _;

use super::{Hash, KeyError, PublicKey, Signature};

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
static ALGORITHMS: [&CertificateAlgorithm; 7] = [
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

/// A signature that [`CertificateScheme::verifies`] has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepted<'a> {
    pub(crate) scheme: CertificateScheme,
    /// The content of the key's BIT STRING.
    pub(crate) key: &'a [u8],
    pub(crate) message: &'a [u8],
    pub(crate) signature: &'a [u8],
}

/// An algorithm for rustls-webpki that does not compute again what is known of exactly the same bytes: RSA takes most of
/// the time of a verification, and webpki would call the same code.
#[derive(Debug)]
pub(crate) struct Remembering<'a> {
    algorithm: &'static CertificateAlgorithm,
    accepted: &'a [Accepted<'a>],
}

impl<'a> Remembering<'a> {
    /// Everything that certificates may be signed with.
    pub(crate) fn all(accepted: &'a [Accepted<'a>]) -> [Self; ALGORITHMS.len()] {
        ALGORITHMS.map(|algorithm| Self { algorithm, accepted })
    }
}

impl SignatureVerificationAlgorithm for Remembering<'_> {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let CertificateAlgorithm { key: kind, hash, .. } = *self.algorithm;
        let scheme = match kind {
            KeyKind::Rsa => CertificateScheme::Rsa(hash),
            KeyKind::P256 | KeyKind::P384 => CertificateScheme::Ecdsa(hash),
        };
        let asked = Accepted {
            scheme,
            key,
            message,
            signature,
        };
        if self.accepted.contains(&asked) {
            return Ok(());
        }
        self.algorithm.verify_signature(key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p256::ecdsa::signature::Signer as _;

    #[test]
    fn only_what_was_accepted_of_the_same_bytes_is_not_computed_again() {
        let private = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        let point = private.verifying_key().to_encoded_point(false);
        let signature: p256::ecdsa::DerSignature = private.sign(b"message");
        let known = Accepted {
            scheme: CertificateScheme::Ecdsa(Hash::Sha256),
            key: point.as_bytes(),
            message: b"known",
            signature: b"not even DER",
        };
        let accepted = [known];
        let ask = |id, message: &[u8], signature: &[u8]| {
            Remembering::all(&accepted)
                .iter()
                .find(|algorithm| {
                    algorithm.algorithm.key == KeyKind::P256 && algorithm.signature_alg_id() == id
                })
                .unwrap()
                .verify_signature(point.as_bytes(), message, signature)
                .is_ok()
        };
        assert!(ask(alg_id::ECDSA_SHA256, b"known", known.signature));
        assert!(!ask(alg_id::ECDSA_SHA384, b"known", known.signature));
        assert!(!ask(alg_id::ECDSA_SHA256, b"other", known.signature));
        assert!(!ask(alg_id::ECDSA_SHA256, b"known", signature.as_bytes()));
        assert!(ask(alg_id::ECDSA_SHA256, b"message", signature.as_bytes()));
    }
}
