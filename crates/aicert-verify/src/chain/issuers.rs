//! For whoever puts a chain together from places that certificates name: what it takes to look for the next one, and to tell
//! whether it was found. Nothing is believed of what is found; [`super::verify`] judges the chain.

use super::PoolError;
use crate::x509::Certificate;

/// Where a certificate (DER) says that its issuer's can be fetched (RFC 5280, section 4.2.2.1, `id-ad-caIssuers`): a few URLs of
/// any kind. None when it says nothing, or is no certificate.
pub fn issuer_urls(certificate: &[u8]) -> Vec<String> {
    Certificate::from_der(certificate)
        .map(|certificate| certificate.issuer_urls)
        .unwrap_or_default()
}

/// Whether `issuer` has the name that stands in `certificate` as its issuer's, and the key that signed it (both in DER). Says
/// nothing of whether it may. A root is issued by itself.
pub fn is_issued_by(certificate: &[u8], issuer: &[u8]) -> bool {
    match (Certificate::from_der(certificate), Certificate::from_der(issuer)) {
        (Ok(certificate), Ok(issuer)) => {
            certificate.issuer == issuer.subject && certificate.is_signed_by(&issuer)
        }
        _ => false,
    }
}

/// The certificates (DER) in a file: one in DER with nothing after it, or one or more in PEM.
///
/// # Errors
///
/// When the bytes are something else.
pub fn certificates_of_file(bytes: &[u8]) -> Result<Vec<Vec<u8>>, PoolError> {
    let certificates =
        Certificate::all_from_file(bytes).map_err(|error| PoolError::NotCertificates(error.to_string()))?;
    Ok(certificates
        .into_iter()
        .map(|certificate| certificate.der)
        .collect())
}

/// The issuer that a certificate (DER) names, for people.
pub fn issuer(certificate: &[u8]) -> Option<String> {
    Some(Certificate::from_der(certificate).ok()?.issuer_text)
}
