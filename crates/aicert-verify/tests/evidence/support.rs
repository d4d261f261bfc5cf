//! Certificates, quotes and their signatures, made from keys made on the spot; and the real evidence, where it is there.

use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use aicert_core::time::Timestamp;
use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues};
use aicert_verify::chain::{Pool, PoolError};
use aicert_verify::{Rejection, TrustAnchors};
use p256::ecdsa::signature::Signer as _;
use sha2::{Digest as _, Sha256, Sha384};
use x509_cert::der::asn1::{BitString, ObjectIdentifier, OctetString};
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::Extension;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};
use x509_cert::{TbsCertificate, Version};

/// When everything here is valid, unless a test says otherwise.
pub const NOW: i64 = 1_767_225_600; // 2026-01-01T00:00:00Z
pub const DAY: i64 = 86_400;

pub fn now() -> Timestamp {
    Timestamp::from_unix(NOW)
}

pub fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A key that a label always gives again.
#[derive(Clone)]
pub enum Key {
    P256(p256::ecdsa::SigningKey),
    P384(p384::ecdsa::SigningKey),
}

pub fn p256_key(label: &str) -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_slice(&Sha256::digest(label)).unwrap()
}

pub fn p384_key(label: &str) -> p384::ecdsa::SigningKey {
    p384::ecdsa::SigningKey::from_slice(&Sha384::digest(label)).unwrap()
}

impl Key {
    fn spki(&self) -> SubjectPublicKeyInfoOwned {
        let (curve, point) = match self {
            Self::P256(key) => (
                "1.2.840.10045.3.1.7",
                key.verifying_key().to_encoded_point(false).as_bytes().to_vec(),
            ),
            Self::P384(key) => (
                "1.3.132.0.34",
                key.verifying_key().to_encoded_point(false).as_bytes().to_vec(),
            ),
        };
        SubjectPublicKeyInfoOwned {
            // id-ecPublicKey (RFC 5480, section 2.1).
            algorithm: AlgorithmIdentifierOwned {
                oid: oid("1.2.840.10045.2.1"),
                parameters: Some(oid(curve).into()),
            },
            subject_public_key: BitString::from_bytes(&point).unwrap(),
        }
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::P256(_) => "1.2.840.10045.4.3.2",
            Self::P384(_) => "1.2.840.10045.4.3.3",
        }
    }

    fn sign_der(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::P256(key) => {
                let signature: p256::ecdsa::DerSignature = key.sign(message);
                signature.as_bytes().to_vec()
            }
            Self::P384(key) => {
                let signature: p384::ecdsa::DerSignature = key.sign(message);
                signature.as_bytes().to_vec()
            }
        }
    }
}

fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

pub const AIK: &str = "2.23.133.8.3";
pub const EK: &str = "2.23.133.8.1";
/// As Azure's leaves have beside `AIK`.
pub const MICROSOFT: &str = "1.3.6.1.4.1.311.10.3.12";

/// A certificate before it is signed. Starts honest; tests change fields.
#[derive(Clone)]
pub struct Cert {
    pub subject: String,
    pub issuer: String,
    pub key: Key,
    pub signer: Key,
    pub from: i64,
    pub until: i64,
    pub ca: bool,
    pub path_length: Option<u8>,
    pub purposes: &'static [&'static str],
    /// Where the issuer can be fetched.
    pub url: Option<&'static str>,
    /// Other extensions: identifier and content.
    pub extensions: Vec<(&'static str, Vec<u8>)>,
}

impl Cert {
    /// A P-256 authority whose key, and whose issuer's key, follow from the names.
    pub fn ca(name: &str, issuer: &str) -> Self {
        Self {
            subject: name.into(),
            issuer: issuer.into(),
            key: Key::P256(p256_key(name)),
            signer: Key::P256(p256_key(issuer)),
            from: NOW - DAY,
            until: NOW + DAY,
            ca: true,
            path_length: None,
            purposes: &[],
            url: None,
            extensions: Vec::new(),
        }
    }

    pub fn leaf(name: &str, issuer: &str) -> Self {
        Self {
            ca: false,
            purposes: &[AIK],
            ..Self::ca(name, issuer)
        }
    }

    pub fn der(&self) -> Vec<u8> {
        let name = |common: &str| Name::from_str(&format!("CN={common}")).unwrap();
        let time = |seconds: i64| {
            let since = Duration::from_secs(u64::try_from(seconds).unwrap());
            Time::try_from(std::time::UNIX_EPOCH + since).unwrap()
        };
        let extension = |id: &str, critical, value: &[u8]| Extension {
            extn_id: oid(id),
            critical,
            extn_value: OctetString::new(value).unwrap(),
        };
        let mut constraints = Vec::new();
        if self.ca {
            constraints.extend([0x01, 0x01, 0xff]);
        }
        if let Some(length) = self.path_length {
            constraints.extend([0x02, 0x01, length]);
        }
        let constraints = [&[0x30, constraints.len() as u8][..], &constraints].concat();
        // keyCertSign, or digitalSignature (RFC 5280, section 4.2.1.3).
        let usage: &[u8] = if self.ca { &[3, 2, 2, 4] } else { &[3, 2, 7, 0x80] };
        let mut extensions = vec![
            extension("2.5.29.19", true, &constraints),
            extension("2.5.29.15", true, usage),
        ];
        if !self.purposes.is_empty() {
            let purposes: Vec<_> = self.purposes.iter().map(|purpose| oid(purpose)).collect();
            extensions.push(extension("2.5.29.37", false, &purposes.to_der().unwrap()));
        }
        if let Some(url) = self.url {
            // One AccessDescription: caIssuers, a URI (RFC 5280, section 4.2.2.1).
            let method = oid("1.3.6.1.5.5.7.48.2").to_der().unwrap();
            let location = [&[0x86, url.len() as u8][..], url.as_bytes()].concat();
            let description = tlv(0x30, &[method, location].concat());
            extensions.push(extension("1.3.6.1.5.5.7.1.1", false, &tlv(0x30, &description)));
        }
        for (id, value) in &self.extensions {
            extensions.push(extension(id, false, value));
        }
        let algorithm = AlgorithmIdentifierOwned {
            oid: oid(self.signer.algorithm()),
            parameters: None,
        };
        let tbs = TbsCertificate {
            version: Version::V3,
            serial_number: SerialNumber::from(7u32),
            signature: algorithm.clone(),
            issuer: name(&self.issuer),
            validity: Validity {
                not_before: time(self.from),
                not_after: time(self.until),
            },
            subject: name(&self.subject),
            subject_public_key_info: self.key.spki(),
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(extensions),
        };
        let signature = self.signer.sign_der(&tbs.to_der().unwrap());
        x509_cert::Certificate {
            tbs_certificate: tbs,
            signature_algorithm: algorithm,
            signature: BitString::from_bytes(&signature).unwrap(),
        }
        .to_der()
        .unwrap()
    }
}

/// A short element in DER.
pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    assert!(content.len() < 128);
    [&[tag, content.len() as u8][..], content].concat()
}

pub fn pool<C: AsRef<[u8]>>(certificates: impl IntoIterator<Item = C>) -> Result<Pool, PoolError> {
    let mut pool = Pool::new();
    for certificate in certificates {
        pool.add(certificate.as_ref())?;
    }
    Ok(pool)
}

pub fn anchors(root: &Cert) -> TrustAnchors {
    TrustAnchors::pinned().with_root(&root.der()).unwrap()
}

/// `TPMA_OBJECT`: fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, sign.
pub const AK_ATTRIBUTES: u32 = 0x0005_0072;

/// `TPMT_PUBLIC` of a P-256 key that signs with SHA-256 (TPM 2.0 Library, part 2, section 12.2.4).
pub fn public_area(key: &p256::ecdsa::SigningKey, attributes: u32) -> Vec<u8> {
    let point = key.verifying_key().to_encoded_point(false);
    [
        &[0, 0x23, 0, 0x0b][..],
        &attributes.to_be_bytes(),
        &[0, 0, 0, 0x10, 0, 0x18, 0, 0x0b, 0, 3, 0, 0x10],
        &[0, 32],
        point.x().unwrap(),
        &[0, 32],
        point.y().unwrap(),
    ]
    .concat()
}

/// The qualified name of a primary key of the endorsement hierarchy.
pub fn qualified_name(public: &[u8]) -> Vec<u8> {
    let name = [&[0, 0x0b][..], &Sha256::digest(public)].concat();
    let hash = Sha256::digest([&[0x40, 0, 0, 0x0b][..], &name].concat());
    [&[0, 0x0b][..], &hash].concat()
}

/// PCRs of the SHA-256 bank, each of its own value.
pub fn values(pcrs: impl IntoIterator<Item = u8>) -> PcrValues {
    let value = |pcr: u8| {
        (
            PcrIndex::new(pcr).unwrap(),
            vec![pcr; PcrBank::Sha256.digest_len()],
        )
    };
    PcrValues(pcrs.into_iter().map(value).collect())
}

/// `TPMS_ATTEST` of a quote over these selections, with the digest of these values.
pub fn attest(signer: &[u8], extra: &[u8], selections: &[(u16, &[u8])], quoted: &PcrValues) -> Vec<u8> {
    let digest = quoted
        .0
        .values()
        .fold(Sha256::new(), Sha256::chain_update)
        .finalize();
    let mut out = hex::decode("ff5443478018").unwrap();
    for part in [signer, extra] {
        out.extend((part.len() as u16).to_be_bytes());
        out.extend(part);
    }
    out.extend(hex::decode("00000000000003e8000000020000000101").unwrap()); // clock 1000, reset 2, restart 1, safe
    out.extend(0x2025_0101_0000_0000u64.to_be_bytes());
    out.extend((selections.len() as u32).to_be_bytes());
    for (bank, pcrs) in selections {
        let mut bits = [0u8; 3];
        for pcr in *pcrs {
            bits[usize::from(pcr / 8)] |= 1 << (pcr % 8);
        }
        out.extend(bank.to_be_bytes());
        out.push(3);
        out.extend(bits);
    }
    out.extend([0, 32]);
    out.extend(digest);
    out
}

/// `TPMT_SIGNATURE`, and the same signature in DER.
pub fn sign(key: &p256::ecdsa::SigningKey, message: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let signature: p256::ecdsa::Signature = key.sign(message);
    let (r, s) = (signature.r().to_bytes(), signature.s().to_bytes());
    let tpm = [&[0, 0x18, 0, 0x0b, 0, 32][..], &r, &[0, 32], &s].concat();
    (tpm, signature.to_der().as_bytes().to_vec())
}

/// Asserts that a verification fails for this reason alone, and that the sentence for people names it.
macro_rules! refused {
    ($result:expr, $pattern:pat $(if $guard:expr)?, $text:expr) => {{
        let rejection = $result.expect_err("this must be refused");
        for failure in rejection.failures() {
            assert!(
                matches!(failure.cause(), $pattern $(if $guard)?),
                "unexpected: {:?}\n{rejection}",
                failure.cause()
            );
            assert!(!failure.advice().is_empty());
        }
        let text = rejection.to_string();
        assert!(text.contains($text), "{text}");
    }};
}
pub(crate) use refused;

/// A folder of real evidence; nothing when there is none, which is said.
pub fn vector(name: &str) -> Option<PathBuf> {
    let Ok(root) = std::env::var("AICERT_TEST_VECTORS") else {
        println!("skipped: AICERT_TEST_VECTORS is not set");
        return None;
    };
    Some(Path::new(&root).join(name))
}

pub fn read(folder: &Path, name: &str) -> Vec<u8> {
    let path = folder.join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The `subjectPublicKey` of a certificate.
pub fn certified_key(der: &[u8]) -> Vec<u8> {
    x509_cert::Certificate::from_der(der)
        .unwrap()
        .tbs_certificate
        .subject_public_key_info
        .subject_public_key
        .raw_bytes()
        .to_vec()
}

/// Changes every byte, one at a time, in three ways, and asserts that each change is refused.
pub fn no_byte_can_change<T>(
    what: &str,
    honest: &[u8],
    check: impl Fn(&[u8]) -> Result<T, Option<Rejection>> + Sync,
) {
    assert!(check(honest).is_ok(), "{what}: the honest one is refused");
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let check = &check;
    std::thread::scope(|scope| {
        for worker in 0..workers {
            scope.spawn(move || {
                let mut forged = honest.to_vec();
                for at in (worker..honest.len()).step_by(workers) {
                    let byte = honest[at];
                    let ways = [byte ^ 0x01, byte ^ 0x80, byte.wrapping_add(1)];
                    // Adding one to an even byte is the first way again.
                    for changed in &ways[..2 + usize::from(byte & 1)] {
                        let changed = *changed;
                        forged[at] = changed;
                        assert!(
                            check(&forged).is_err(),
                            "{what}: byte {at} as {changed:#04x} in place of {byte:#04x}"
                        );
                    }
                    forged[at] = byte;
                }
            });
        }
    });
}
