//! What must be known of an attestation key's certificate to tell whether it is that key's. Verifiers check the rest.

use tss_esapi::structures::Public;
use x509_cert::Certificate;
use x509_cert::der::asn1::{ObjectIdentifier, UintRef};
use x509_cert::der::{Decode as _, Header, Reader as _, SliceReader};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

/// `id-ecPublicKey` and `secp256r1` (RFC 5480, sections 2.1.1 and 2.1.1.1).
const EC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// `rsaEncryption` (RFC 3279, section 2.3.1).
const RSA_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// The length of the certificate that `bytes` begin with; whatever follows it is not looked at.
pub(crate) fn length(bytes: &[u8]) -> Result<usize, String> {
    let mut reader = SliceReader::new(bytes).map_err(|error| error.to_string())?;
    let header = Header::decode(&mut reader).map_err(|error| error.to_string())?;
    // Decoding refuses lengths that would not be those of DER, and `bytes` have at most some KiB.
    let length = u32::from(reader.position()) as usize + u32::from(header.length) as usize;
    let certificate = bytes
        .get(..length)
        .ok_or_else(|| format!("it says to have {length} bytes, and {} are there", bytes.len()))?;
    Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    Ok(length)
}

/// Requires that the key in a certificate is this one; the error says what it is instead.
pub(crate) fn require_key(certificate: &[u8], public: &Public) -> Result<(), String> {
    let certificate = Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let body = certificate.tbs_certificate;
    if is_key(&body.subject_public_key_info, public) {
        return Ok(());
    }
    Err(format!(
        "it certifies another key, for {:?}",
        body.subject.to_string()
    ))
}

fn is_key(certified: &SubjectPublicKeyInfoOwned, public: &Public) -> bool {
    let algorithm = &certified.algorithm;
    let bits = certified.subject_public_key.raw_bytes();
    match public {
        Public::Ecc { unique, .. } => {
            let curve = algorithm
                .parameters
                .as_ref()
                .and_then(|parameters| parameters.decode_as::<ObjectIdentifier>().ok());
            // Uncompressed (SEC 1, section 2.3.3): the one form that certificates of P-256 keys have in practice.
            let point = |x: &[u8], y: &[u8]| Some([&[4][..], &padded(x)?, &padded(y)?].concat());
            algorithm.oid == EC_KEY
                && curve == Some(P256)
                && point(unique.x().value(), unique.y().value()).is_some_and(|point| point == bits)
        }
        Public::Rsa {
            unique, parameters, ..
        } => {
            // Zero stands for 2^16 + 1 (TPM 2.0 Library, part 2, section 12.2.3.5).
            let exponent = match parameters.exponent().value() {
                0 => 65_537,
                other => other,
            };
            algorithm.oid == RSA_KEY
                && rsa_key(bits).is_some_and(|(n, e)| {
                    n == significant(unique.value()) && e == significant(&exponent.to_be_bytes())
                })
        }
        _ => false,
    }
}

/// Modulus and exponent (`RSAPublicKey`, RFC 8017, appendix A.1.1).
fn rsa_key(bits: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = SliceReader::new(bits).ok()?;
    let (n, e) = reader
        .sequence(|reader| Ok((UintRef::decode(reader)?, UintRef::decode(reader)?)))
        .ok()?;
    reader.is_finished().then_some((n.as_bytes(), e.as_bytes()))
}

/// TPMs may leave out leading zeros of a coordinate.
fn padded(coordinate: &[u8]) -> Option<[u8; 32]> {
    let mut padded = [0; 32];
    padded[32usize.checked_sub(coordinate.len())?..].copy_from_slice(coordinate);
    Some(padded)
}

fn significant(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use aicert_swtpm_testing::{CertificateProfile, ForgedKey, TestCa};
    use tss_esapi::traits::UnMarshall as _;

    #[test]
    fn what_follows_a_certificate_is_cut_off_and_what_is_none_is_refused() {
        let ca = TestCa::new().unwrap();
        let key = ForgedKey::new(ForgedKey::ATTESTATION);
        let profile = CertificateProfile::attestation_key("key");
        let certificate = ca.intermediate().issue(&key.public(), &profile).unwrap();
        for after in [&b""[..], &[0; 800], &[0xff; 3], &certificate] {
            let padded = [&certificate, after].concat();
            assert_eq!(length(&padded), Ok(certificate.len()));
        }
        for end in 0..certificate.len() {
            assert!(length(&certificate[..end]).is_err(), "{end}");
        }
        for wrong in [
            &[0; 64][..],
            &[0xff; 64],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            b"PEM",
        ] {
            assert!(length(wrong).is_err(), "{wrong:?}");
        }

        let public = |key: &ForgedKey| Public::unmarshall(&key.public()).unwrap();
        require_key(&certificate, &public(&key)).unwrap();
        let other = ForgedKey::new(ForgedKey::ATTESTATION);
        let error = require_key(&certificate, &public(&other)).unwrap_err();
        assert!(error.contains("CN=key"), "{error}");
    }
}
