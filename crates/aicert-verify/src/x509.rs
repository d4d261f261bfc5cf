//! One X.509 certificate (RFC 5280), read strictly: exact DER, version 3, no extension twice.

use aicert_core::time::Timestamp;
use sha2::{Digest as _, Sha256};
use x509_cert::der::asn1::{BitStringRef, ObjectIdentifier};
use x509_cert::der::oid::AssociatedOid as _;
use x509_cert::der::{self, Decode as _, Encode as _, Reader as _, SliceReader, pem};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityInfoAccessSyntax, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages,
};

use crate::anchors::Fingerprint;
use crate::signature::{Accepted, CertificateScheme, KeyError, PublicKey};

/// A larger certificate is refused; real ones have one to two thousand bytes.
pub(crate) const SIZE_LIMIT: usize = 16 << 10;

/// What the path checks need of a certificate.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    pub(crate) der: Vec<u8>,
    /// The bytes that are signed.
    signed: std::ops::Range<usize>,
    signature: Vec<u8>,
    /// `None` for an algorithm that is not accepted, SHA-1 above all.
    pub(crate) scheme: Option<CertificateScheme>,
    pub(crate) scheme_oid: ObjectIdentifier,
    pub(crate) subject: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    /// For people: the subject, the issuer.
    pub(crate) subject_text: String,
    pub(crate) issuer_text: String,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    pub(crate) key: Result<PublicKey, KeyError>,
    key_bits: Vec<u8>,
    pub(crate) is_ca: bool,
    pub(crate) path_length: Option<u8>,
    pub(crate) key_usage: Option<KeyUsage>,
    pub(crate) extended_key_usage: Option<Vec<ObjectIdentifier>>,
    /// Critical extensions that nothing here understands.
    pub(crate) unknown_critical: Vec<ObjectIdentifier>,
    /// Where the issuer's certificate can be fetched, as the certificate says.
    pub(crate) issuer_urls: Vec<String>,
    /// The content of Compute Engine's instance information.
    pub(crate) instance: Option<Vec<u8>>,
    pub(crate) fingerprint: Fingerprint,
}

/// Says why bytes are not a certificate that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("it has {0} bytes; at most {SIZE_LIMIT} are accepted")]
    TooLarge(usize),
    #[error("it is PEM text, or holds some, where DER is expected")]
    Pem,
    #[error("{0}")]
    Der(String),
}

/// What every PEM block begins with (RFC 7468, section 2).
pub(crate) const PEM_MARK: &[u8] = b"-----BEGIN ";

/// Extensions whose meaning is enforced (RFC 5280, section 4.2.1): key usage, basic constraints, extended key usage.
const UNDERSTOOD: [&str; 3] = ["2.5.29.15", "2.5.29.19", "2.5.29.37"];

/// `id-ad-caIssuers` (RFC 5280, section 4.2.2.1).
const CA_ISSUERS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.2");

/// Says which instance of Compute Engine a certificate is for.
const INSTANCE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.11129.2.1.21");

impl Certificate {
    /// Reads a file of certificates: exactly one in DER, or PEM blocks with nothing but white space around them
    /// (RFC 7468, the strict form).
    pub(crate) fn all_from_file(bytes: &[u8]) -> Result<Vec<Self>, CertificateError> {
        const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
        const END: &str = "-----END CERTIFICATE-----";
        let refused = |reason: &str| CertificateError::Der(reason.to_owned());
        if bytes.first() == Some(&0x30) {
            return Ok(vec![Self::from_der(bytes)?]);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| refused("it is neither text nor DER"))?;
        let (mut rest, mut certificates) = (text.trim(), Vec::new());
        while let Some(block) = rest.strip_prefix(BEGIN) {
            let (base64, after) = block.split_once(END).ok_or_else(|| {
                refused("it does not begin and end with the lines of one CERTIFICATE block")
            })?;
            // A block inside a block would be read by some and skipped by others; the decoder refuses it as base64.
            // Decoded whole before it is parsed: the decoder that does both at once never ends when the base64 does too soon.
            let (_, der) = pem::decode_vec(format!("{BEGIN}{base64}{END}\n").as_bytes())
                .map_err(|error| CertificateError::Der(error.to_string()))?;
            certificates.push(Self::from_der(&der)?);
            rest = after.trim_start();
        }
        if !rest.is_empty() || certificates.is_empty() {
            return Err(refused(
                "it does not begin and end with the lines of one CERTIFICATE block",
            ));
        }
        Ok(certificates)
    }

    pub(crate) fn from_der(bytes: &[u8]) -> Result<Self, CertificateError> {
        if bytes.len() > SIZE_LIMIT {
            return Err(CertificateError::TooLarge(bytes.len()));
        }
        // What is DER to us must not be PEM to another parser.
        if bytes.windows(PEM_MARK.len()).any(|window| window == PEM_MARK) {
            return Err(CertificateError::Pem);
        }
        Self::parse(bytes)
    }

    fn parse(bytes: &[u8]) -> Result<Self, CertificateError> {
        let wrong = |error: der::Error| CertificateError::Der(error.to_string());
        let refused = |reason: &str| CertificateError::Der(reason.to_owned());
        let certificate = decode(bytes)?;
        if certificate.to_der().map_err(wrong)? != bytes {
            return Err(refused("it is not in the one encoding that DER allows"));
        }
        let (signed, signature) = split(bytes).map_err(wrong)?;
        let tbs = &certificate.tbs_certificate;
        if tbs.version != x509_cert::Version::V3 {
            return Err(refused("it is not of version 3"));
        }
        if tbs.signature != certificate.signature_algorithm {
            return Err(refused("it names two different signature algorithms"));
        }
        let extensions = tbs.extensions.as_deref().unwrap_or_default();
        for (index, extension) in extensions.iter().enumerate() {
            if extensions[..index]
                .iter()
                .any(|other| other.extn_id == extension.extn_id)
            {
                return Err(CertificateError::Der(format!(
                    "it has extension {} twice",
                    extension.extn_id
                )));
            }
        }
        let constraints = tbs
            .get::<BasicConstraints>()
            .map_err(wrong)?
            .map(|(_, constraints)| constraints);
        let algorithm = certificate.signature_algorithm.to_der().map_err(wrong)?;
        let moment = |time: x509_cert::time::Time| {
            Timestamp::from_unix(i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX))
        };
        Ok(Self {
            signed,
            signature,
            // The content of a short SEQUENCE; a longer one is no algorithm that is known.
            scheme: CertificateScheme::from_algorithm(algorithm.get(2..).unwrap_or_default()),
            scheme_oid: certificate.signature_algorithm.oid,
            subject: tbs.subject.to_der().map_err(wrong)?,
            issuer: tbs.issuer.to_der().map_err(wrong)?,
            subject_text: shorten(&tbs.subject.to_string()),
            issuer_text: shorten(&tbs.issuer.to_string()),
            not_before: moment(tbs.validity.not_before),
            not_after: moment(tbs.validity.not_after),
            key: PublicKey::from_spki(&tbs.subject_public_key_info),
            key_bits: tbs
                .subject_public_key_info
                .subject_public_key
                .raw_bytes()
                .to_vec(),
            is_ca: constraints.as_ref().is_some_and(|constraints| constraints.ca),
            path_length: constraints.and_then(|constraints| constraints.path_len_constraint),
            key_usage: tbs.get::<KeyUsage>().map_err(wrong)?.map(|(_, usage)| usage),
            extended_key_usage: tbs
                .get::<ExtendedKeyUsage>()
                .map_err(wrong)?
                .map(|(_, usage)| usage.0),
            unknown_critical: extensions
                .iter()
                .filter(|extension| {
                    extension.critical && !UNDERSTOOD.contains(&&*extension.extn_id.to_string())
                })
                .map(|extension| extension.extn_id)
                .collect(),
            // Of use to people only: one that cannot be read is as good as none.
            issuer_urls: issuer_urls(extensions),
            instance: extensions
                .iter()
                .find(|extension| extension.extn_id == INSTANCE)
                .map(|extension| extension.extn_value.as_bytes().to_vec()),
            fingerprint: Fingerprint::of(bytes),
            der: bytes.to_vec(),
        })
    }

    /// Whether `issuer`'s key made this certificate's signature. Says nothing of whether it may.
    pub(crate) fn is_signed_by(&self, issuer: &Self) -> bool {
        match (&self.scheme, &issuer.key) {
            (Some(scheme), Ok(key)) => scheme.verifies(key, self.message(), &self.signature),
            _ => false,
        }
    }

    /// That [`Certificate::is_signed_by`] holds, for whoever has seen that it does.
    pub(crate) fn accepted_signature<'a>(&'a self, issuer: &'a Self) -> Option<Accepted<'a>> {
        let (key, message) = (issuer.key_bits.as_slice(), self.message());
        self.scheme.map(|scheme| Accepted {
            scheme,
            key,
            message,
            signature: &self.signature,
        })
    }

    fn message(&self) -> &[u8] {
        &self.der[self.signed.clone()]
    }

    pub(crate) fn allows(&self, usage: KeyUsages) -> bool {
        self.key_usage
            .as_ref()
            .is_some_and(|allowed| allowed.0.contains(usage))
    }
}

impl Fingerprint {
    pub(crate) fn of(der: &[u8]) -> Self {
        Self::from_bytes(Sha256::digest(der).into())
    }
}

/// Decodes a certificate, and checks nothing but its form.
pub(crate) fn decode(bytes: &[u8]) -> Result<x509_cert::Certificate, CertificateError> {
    if !lengths_fit(bytes) {
        let reason = "a length in it is larger than what it is part of, or it is no DER at all";
        return Err(CertificateError::Der(reason.into()));
    }
    x509_cert::Certificate::from_der(bytes).map_err(|error| CertificateError::Der(error.to_string()))
}

/// Whether every element of DER (X.690, section 8.1) is inside of the one that it is part of.
///
/// The `der` crate makes room for a text or a number of as many bytes as it is said to have, which may be 256 MiB, before it looks
/// whether they are there.
fn lengths_fit(bytes: &[u8]) -> bool {
    // A certificate nests about ten deep.
    const DEPTH_LIMIT: usize = 64;
    // What follows the outermost one is for the decoder to refuse.
    let Some((_, outermost)) = element(bytes) else {
        return false;
    };
    let (mut at, mut ends) = (0, vec![outermost.end]);
    while let Some(&end) = ends.last() {
        if at == end {
            ends.pop();
            continue;
        }
        let Some((is_constructed, content)) = bytes.get(at..end).and_then(element) else {
            return false;
        };
        // Inside of `bytes`, as `element` says.
        let (start, stop) = (at + content.start, at + content.end);
        if is_constructed {
            if ends.len() == DEPTH_LIMIT {
                return false;
            }
            ends.push(stop);
            at = start;
        } else {
            at = stop;
        }
    }
    true
}

/// Whether the element that `bytes` begin with is made of others, and where its content is.
fn element(bytes: &[u8]) -> Option<(bool, std::ops::Range<usize>)> {
    const CONSTRUCTED: u8 = 0x20;
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (start, length) = match (first, rest) {
        (0..=0x7f, _) => (2, usize::from(*first)),
        (0x81, [length, ..]) => (3, usize::from(*length)),
        (0x82, [high, low, ..]) => (4, usize::from(u16::from_be_bytes([*high, *low]))),
        // No certificate that is read is as large as lengths with more bytes say.
        _ => return None,
    };
    (length <= bytes.len() - start).then(|| (tag & CONSTRUCTED != 0, start..start + length))
}

/// The range of the signed part, and the signature.
fn split(bytes: &[u8]) -> der::Result<(std::ops::Range<usize>, Vec<u8>)> {
    let mut reader = SliceReader::new(bytes)?;
    // Into the outer SEQUENCE; that it is one and ends with the bytes has been checked.
    der::Header::decode(&mut reader)?;
    let start = usize::try_from(reader.position())?;
    let length = reader.tlv_bytes()?.len();
    reader.tlv_bytes()?;
    let signature = BitStringRef::decode(&mut reader)?;
    let signature = signature
        .as_bytes()
        .ok_or_else(|| der::Tag::BitString.value_error())?;
    Ok((start..start + length, signature.to_vec()))
}

fn issuer_urls(extensions: &[x509_cert::ext::Extension]) -> Vec<String> {
    const LIMIT: usize = 8;
    let access = extensions
        .iter()
        .find(|extension| extension.extn_id == AuthorityInfoAccessSyntax::OID)
        .map(|extension| extension.extn_value.as_bytes())
        .filter(|value| lengths_fit(value))
        .and_then(|value| AuthorityInfoAccessSyntax::from_der(value).ok());
    access
        .iter()
        .flat_map(|access| &access.0)
        .filter(|description| description.access_method == CA_ISSUERS)
        .filter_map(|description| match &description.access_location {
            GeneralName::UniformResourceIdentifier(url) => Some(url.as_str().to_owned()),
            _ => None,
        })
        .take(LIMIT)
        .collect()
}

/// Names come from the file: they are shown escaped by whoever prints them, and never at any length.
pub(crate) fn shorten(name: &str) -> String {
    const LIMIT: usize = 200;
    let mut text: String = name.chars().take(LIMIT).collect();
    if text.len() < name.len() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use x509_cert::der::pem::LineEnding;

    /// As PEM of a certificate that was cut: it ends, and it fails.
    #[test]
    fn certificates_that_end_too_soon_are_refused() {
        for cut in ["", "MIIB", "MIIBAQ==", "MAA="] {
            let text = format!("-----BEGIN CERTIFICATE-----\n{cut}\n-----END CERTIFICATE-----\n");
            assert!(Certificate::all_from_file(text.as_bytes()).is_err(), "{cut}");
        }
    }

    /// A certificate of a few bytes with an element that is said to have 1,000, and nothing else wrong up to there.
    #[test]
    fn no_room_is_made_for_what_is_not_there() {
        let tlv = |tag: u8, content: &[u8]| [&[tag, content.len() as u8][..], content].concat();
        for tag in [0x02, 0x03, 0x04, 0x06, 0x0c, 0x13, 0x16, 0x30, 0xa3] {
            let claim = [tag, 0x82, 0x03, 0xe8, 1, 2, 3];
            for inner in [
                claim.to_vec(),
                [&claim[..], &[0x84, 0x0f, 0xff, 0xff, 0xff]].concat(),
            ] {
                let tbs = tlv(0x30, &[tlv(0xa0, &tlv(0x02, &[2])), inner].concat());
                let error = decode(&tlv(0x30, &tbs)).unwrap_err().to_string();
                assert!(error.contains("larger than what it is part of"), "{error}");
            }
        }
        let deep = (0..60).fold(Vec::new(), |content: Vec<u8>, _| tlv(0x30, &content));
        assert!(lengths_fit(&deep));
        assert!(!lengths_fit(&[0x30, 0x80].repeat(1_000)));
        let mut deeper = Vec::new();
        for _ in 0..100 {
            let length = (deeper.len() as u16).to_be_bytes();
            deeper = [&[0x30, 0x82][..], &length, &deeper].concat();
        }
        assert!(!lengths_fit(&deeper));
        assert!(!lengths_fit(&[0x04, 0x84, 0x0f, 0xff, 0xff, 0xff]));
        assert!(!lengths_fit(&[0x30]) && !lengths_fit(&[0x30, 0x81]) && !lengths_fit(&[0x30, 0x82, 0]));
    }

    proptest! {
        #[test]
        fn reading_any_bytes_as_pem_ends(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for bytes in [bytes.clone(), [&[0x30, 0x82, 1], &bytes[..]].concat()] {
                let text = pem::encode_string("CERTIFICATE", LineEnding::LF, &bytes).unwrap();
                prop_assert!(Certificate::all_from_file(text.as_bytes()).is_err());
            }
        }

        #[test]
        fn reading_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Certificate::from_der(&bytes).is_err());
            prop_assert!(Certificate::from_der(&[&[0x30, 0x81, 200], &bytes[..]].concat()).is_err());
            prop_assert!(crate::TrustAnchors::pinned().with_root(&bytes).is_err());
        }
    }
}
