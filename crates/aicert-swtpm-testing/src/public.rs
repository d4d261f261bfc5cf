//! Public areas as the rest of the world knows public keys.

use aicert_core::tpm::{PcrBank, TpmError};
use p256::elliptic_curve::sec1::FromEncodedPoint as _;
use p256::pkcs8::{Document, EncodePublicKey as _, LineEnding};
use tss_esapi::structures::Public;
use tss_esapi::traits::UnMarshall as _;

use crate::error::Failure;

/// The key of a public area (`TPMT_PUBLIC`) as `SubjectPublicKeyInfo` in DER.
///
/// # Errors
///
/// When it is neither P-256 nor RSA, or malformed.
pub fn public_key_der(public: &[u8]) -> Result<Vec<u8>, TpmError> {
    Ok(subject_public_key(public)?.into_vec())
}

/// The key of a public area (`TPMT_PUBLIC`) as PEM, as OpenSSL and the TPM tools read it.
///
/// # Errors
///
/// When it is neither P-256 nor RSA, or malformed.
pub fn public_key_pem(public: &[u8]) -> Result<String, TpmError> {
    Ok(subject_public_key(public)?
        .to_pem("PUBLIC KEY", LineEnding::LF)
        .map_err(Failure::certificate)?)
}

pub(crate) fn subject_public_key(public: &[u8]) -> Result<Document, Failure> {
    match Public::unmarshall(public).map_err(Failure::of("reading a public area"))? {
        Public::Ecc { unique, .. } => p256_key(unique.x().value(), unique.y().value())?
            .to_public_key_der()
            .map_err(Failure::certificate),
        Public::Rsa {
            unique, parameters, ..
        } => rsa_key(unique.value(), parameters.exponent().value())?
            .to_public_key_der()
            .map_err(Failure::certificate),
        _ => Err(Failure::certificate("the key is neither P-256 nor RSA")),
    }
}

pub(crate) fn p256_key(x: &[u8], y: &[u8]) -> Result<p256::PublicKey, Failure> {
    let wrong = || Failure::certificate("the key is no point of P-256");
    let coordinate = |bytes: &[u8]| -> Option<p256::FieldBytes> {
        // TPMs may leave out leading zeros.
        let mut padded = [0; 32];
        padded[32usize.checked_sub(bytes.len())?..].copy_from_slice(bytes);
        Some(padded.into())
    };
    let (x, y) = coordinate(x).zip(coordinate(y)).ok_or_else(wrong)?;
    let point = p256::EncodedPoint::from_affine_coordinates(&x, &y, false);
    Option::from(p256::PublicKey::from_encoded_point(&point)).ok_or_else(wrong)
}

pub(crate) fn rsa_key(modulus: &[u8], exponent: u32) -> Result<rsa::RsaPublicKey, Failure> {
    // Zero stands for 2^16 + 1 (TPM 2.0 Library, part 2, section 12.2.3.5).
    let exponent = if exponent == 0 { 65_537 } else { exponent };
    rsa::RsaPublicKey::new(rsa::BigUint::from_bytes_be(modulus), exponent.into())
        .map_err(Failure::certificate)
}

/// The name of an object whose name algorithm is SHA-256 (TPM 2.0 Library, part 1, section 16).
pub(crate) fn name(public: &[u8]) -> Vec<u8> {
    let hash = PcrBank::Sha256;
    [&hash.algorithm_id().to_be_bytes()[..], &hash.hash(&[public])].concat()
}
