//! Attestation documents under a root of one's own.

use aicert_core::time::Timestamp;
use aicert_core::tpm::{PcrValues, TpmError};
use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{DerSignature, Signature, SigningKey};
use p384::elliptic_curve::rand_core::OsRng;
use p384::pkcs8::EncodePublicKey as _;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::pem::{LineEnding, encode_string};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use crate::ca::{self, CertificateProfile};
use crate::error::Failure;

/// `ecdsa-with-SHA384` (RFC 5758, section 3.2).
const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
/// How long the certificate of a document lives.
const LIFE: i64 = 3 * 3_600;

/// What a document says.
#[derive(Debug, Clone)]
pub struct NitroStatement {
    /// The module: the instance, `-tpm`, and sixteen digits.
    pub module_id: String,
    /// The region of the instance, which its certificate names.
    pub region: String,
    /// When it is made.
    pub made: Timestamp,
    /// The PCRs, of the SHA-384 bank.
    pub pcrs: PcrValues,
    /// The guest's nonce.
    pub nonce: Option<Vec<u8>>,
    /// The guest's data.
    pub user_data: Option<Vec<u8>>,
    /// The guest's key.
    pub public_key: Option<Vec<u8>>,
}

/// A root over P-384, and an authority below it, that sign documents as AWS's do.
#[derive(Debug, Clone)]
pub struct NitroAuthority {
    root: Signed,
    zonal: Signed,
}

#[derive(Debug, Clone)]
struct Signed {
    key: SigningKey,
    name: String,
    certificate: Vec<u8>,
}

impl NitroAuthority {
    /// Makes an authority.
    ///
    /// # Errors
    ///
    /// When a certificate cannot be made.
    pub fn new() -> Result<Self, TpmError> {
        let root = Signed::new(None, CertificateProfile::root("Simulated Nitro root"))?;
        let zonal = Signed::new(
            Some(&root),
            CertificateProfile::intermediate("Simulated Nitro zone"),
        )?;
        Ok(Self { root, zonal })
    }

    /// The root's certificate, in DER.
    pub fn root(&self) -> &[u8] {
        &self.root.certificate
    }

    /// The root's certificate: the trust anchor that a verifier must be given.
    pub fn root_pem(&self) -> String {
        // The buffer is sized by the same crate, from the same bytes.
        encode_string("CERTIFICATE", LineEnding::LF, &self.root.certificate)
            .expect("bytes can be written as PEM")
    }

    /// Makes a document, with a key and a certificate made for it.
    ///
    /// # Errors
    ///
    /// When the certificate cannot be made.
    pub fn document(&self, statement: &NitroStatement) -> Result<Vec<u8>, TpmError> {
        let made = statement.made.as_unix();
        let subject = format!("{}.{}.aws", statement.module_id, statement.region);
        let leaf = Signed::new(
            Some(&self.zonal),
            CertificateProfile {
                not_before: Timestamp::from_unix(made - 3),
                not_after: Timestamp::from_unix(made + LIFE),
                extended_key_usage: Vec::new(),
                ..CertificateProfile::attestation_key(subject.as_str())
            },
        )?;
        let bundle = [&self.root.certificate, &self.zonal.certificate];
        // As AWS writes it: a map of indefinite length, the root first.
        let pcrs = statement
            .pcrs
            .0
            .iter()
            .flat_map(|(pcr, value)| [item(0, pcr.as_u8().into()), bytes(value)].concat());
        let payload = [
            vec![0xbf],
            text("module_id"),
            text(&statement.module_id),
            text("digest"),
            text("SHA384"),
            text("timestamp"),
            item(0, u64::try_from(made).unwrap_or_default() * 1_000),
            text("nitrotpm_pcrs"),
            item(5, statement.pcrs.0.len() as u64),
            pcrs.collect(),
            text("certificate"),
            bytes(&leaf.certificate),
            text("cabundle"),
            item(4, bundle.len() as u64),
            bundle.iter().flat_map(|certificate| bytes(certificate)).collect(),
            text("public_key"),
            optional(statement.public_key.as_deref()),
            text("user_data"),
            optional(statement.user_data.as_deref()),
            text("nonce"),
            optional(statement.nonce.as_deref()),
            vec![0xff],
        ]
        .concat();
        // {1: -35}, ES384 (RFC 9053, section 2.1).
        let protected = bytes(&[0xa1, 0x01, 0x38, 0x22]);
        let payload = bytes(&payload);
        // `Sig_structure` (RFC 9052, section 4.4).
        let signed = [
            item(4, 4),
            text("Signature1"),
            protected.clone(),
            bytes(&[]),
            payload.clone(),
        ]
        .concat();
        let signature: Signature = leaf.key.sign(&signed);
        Ok([
            item(4, 4),
            protected,
            item(5, 0),
            payload,
            bytes(&signature.to_bytes()),
        ]
        .concat())
    }
}

impl Signed {
    fn new(issuer: Option<&Self>, profile: CertificateProfile) -> Result<Self, Failure> {
        let key = SigningKey::random(&mut OsRng);
        let info = key_info(&key)?;
        let (signer, issuer) = match issuer {
            Some(issuer) => (&issuer.key, &issuer.name),
            None => (&key, &profile.subject),
        };
        let sign = |body: &[u8]| {
            let signature: DerSignature = signer.sign(body);
            signature.as_bytes().to_vec()
        };
        let signer_info = key_info(signer)?;
        let issuer = ca::name(issuer)?;
        let certificate = ca::certify_with(ECDSA_SHA384, &signer_info, &issuer, &info, &profile, sign)?;
        Ok(Self {
            name: profile.subject,
            key,
            certificate,
        })
    }
}

fn key_info(key: &SigningKey) -> Result<SubjectPublicKeyInfoOwned, Failure> {
    let der = key
        .verifying_key()
        .to_public_key_der()
        .map_err(Failure::certificate)?;
    SubjectPublicKeyInfoOwned::from_der(der.as_bytes()).map_err(Failure::certificate)
}

pub(super) fn text(text: &str) -> Vec<u8> {
    [item(3, text.len() as u64), text.as_bytes().to_vec()].concat()
}

pub(super) fn bytes(bytes: &[u8]) -> Vec<u8> {
    [item(2, bytes.len() as u64), bytes.to_vec()].concat()
}

fn optional(data: Option<&[u8]>) -> Vec<u8> {
    data.map_or(vec![0xf6], bytes)
}

/// The head of an item in CBOR, or a number (RFC 8949, section 3).
pub(super) fn item(major: u8, value: u64) -> Vec<u8> {
    let major = major << 5;
    match value {
        0..24 => vec![major | value as u8],
        24..0x100 => vec![major | 24, value as u8],
        0x100..0x1_0000 => [&[major | 25][..], &(value as u16).to_be_bytes()].concat(),
        0x1_0000..0x1_0000_0000 => [&[major | 26][..], &(value as u32).to_be_bytes()].concat(),
        _ => [&[major | 27][..], &value.to_be_bytes()].concat(),
    }
}
