//! A certification authority of one's own, as honest or as broken as a test needs it.

use std::str::FromStr as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aicert_core::secret::Secret;
use aicert_core::time::Timestamp;
use aicert_core::tpm::TpmError;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::elliptic_curve::rand_core::{OsRng, RngCore as _};
use p256::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, EncodePublicKey as _};
use sha1::{Digest as _, Sha1};
use x509_cert::certificate::{CertificateInner, Rfc5280, TbsCertificateInner, Version};
use x509_cert::der::asn1::{BitString, GeneralizedTime, Ia5String, ObjectIdentifier, OctetString, UtcTime};
use x509_cert::der::oid::AssociatedOid as _;
use x509_cert::der::pem::{LineEnding, decode_vec, encode_string};
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AccessDescription, AuthorityInfoAccessSyntax, AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage,
    KeyUsage, KeyUsages, SubjectKeyIdentifier,
};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};

use crate::activation::{Credential, make_credential};
use crate::error::Failure;
use crate::public;

/// `ecdsa-with-SHA256` (RFC 5758, section 3.2).
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
/// `tcg-kp-AIKCertificate` (TCG Credential Profiles).
const AIK_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.3");

const CERTIFICATE_BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// `id-ad-caIssuers`.
const CERT_CA_ISSUERS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.2");
const CERT_BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const CERT_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const CERT_EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const CERT_SUBJECT_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
const CERT_AUTHORITY_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");

/// What a certificate says, apart from the key. Start from one of the constructors, and change what a test is about.
#[derive(Debug, Clone)]
pub struct CertificateProfile {
    /// The subject's common name.
    pub subject: String,
    /// The issuer's common name; that of the authority that signs when absent.
    pub issuer: Option<String>,
    /// The first moment of validity.
    pub not_before: Timestamp,
    /// The last moment of validity.
    pub not_after: Timestamp,
    /// Basic constraints, critical: whether it is a CA, and how many CAs may follow.
    pub basic_constraints: Option<BasicConstraints>,
    /// Key usage, critical.
    pub key_usage: Option<KeyUsage>,
    /// Extended key usages; the extension is left out when empty.
    pub extended_key_usage: Vec<ObjectIdentifier>,
    /// Whether the key identifiers of subject and issuer are there.
    pub key_identifiers: bool,
    /// Any other extensions.
    pub extensions: Vec<Extension>,
}

impl CertificateProfile {
    /// A root: it may be followed by any number of CAs.
    pub fn root(subject: impl Into<String>) -> Self {
        Self::authority(subject.into(), None, 3650)
    }

    /// An intermediate: no other CA may follow it.
    pub fn intermediate(subject: impl Into<String>) -> Self {
        Self::authority(subject.into(), Some(0), 1825)
    }

    /// An attestation key's certificate.
    pub fn attestation_key(subject: impl Into<String>) -> Self {
        Self {
            basic_constraints: Some(BasicConstraints {
                ca: false,
                path_len_constraint: None,
            }),
            key_usage: Some(KeyUsage(KeyUsages::DigitalSignature.into())),
            extended_key_usage: vec![AIK_CERTIFICATE],
            ..Self::authority(subject.into(), None, 365)
        }
    }

    /// Has it say where the certificate of its issuer can be fetched (`id-ad-caIssuers`; RFC 5280, section 4.2.2.1).
    ///
    /// # Errors
    ///
    /// When a URL is no ASCII text.
    pub fn with_issuer_urls(mut self, urls: &[String]) -> Result<Self, TpmError> {
        let descriptions = urls.iter().map(|url| {
            let url = Ia5String::new(url).map_err(Failure::certificate)?;
            Ok(AccessDescription {
                access_method: CERT_CA_ISSUERS,
                access_location: GeneralName::UniformResourceIdentifier(url),
            })
        });
        let syntax = AuthorityInfoAccessSyntax(descriptions.collect::<Result<_, Failure>>()?);
        let value = syntax
            .to_der()
            .and_then(OctetString::new)
            .map_err(Failure::certificate)?;
        self.extensions.push(Extension {
            extn_id: AuthorityInfoAccessSyntax::OID,
            critical: false,
            extn_value: value,
        });
        Ok(self)
    }

    fn authority(subject: String, path_len_constraint: Option<u8>, days: i64) -> Self {
        // An hour for clocks that differ.
        let not_before = Timestamp::now().as_unix() - 3600;
        Self {
            subject,
            issuer: None,
            not_before: Timestamp::from_unix(not_before),
            not_after: Timestamp::from_unix(not_before + days * 86_400),
            basic_constraints: Some(BasicConstraints {
                ca: true,
                path_len_constraint,
            }),
            key_usage: Some(KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign)),
            extended_key_usage: Vec::new(),
            key_identifiers: true,
            extensions: Vec::new(),
        }
    }
}

/// A key with a certificate that certifies other keys.
#[derive(Clone)]
pub struct Authority {
    key: SigningKey,
    name: Name,
    certificate: Vec<u8>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.name)
    }
}

impl Authority {
    /// Makes a key and certifies it with itself.
    ///
    /// # Errors
    ///
    /// When the profile cannot be written as a certificate.
    pub fn self_signed(profile: &CertificateProfile) -> Result<Self, TpmError> {
        let key = SigningKey::random(&mut OsRng);
        let name = name(&profile.subject)?;
        let certificate = certify(&key, &name, &key_info(&key)?, profile)?;
        Ok(Self {
            key,
            name,
            certificate,
        })
    }

    /// Makes a key and certifies it with this one.
    ///
    /// # Errors
    ///
    /// When the profile cannot be written as a certificate.
    pub fn subordinate(&self, profile: &CertificateProfile) -> Result<Self, TpmError> {
        let key = SigningKey::random(&mut OsRng);
        Ok(Self {
            certificate: certify(&self.key, &self.name, &key_info(&key)?, profile)?,
            name: name(&profile.subject)?,
            key,
        })
    }

    /// Certifies the key of a public area (`TPMT_PUBLIC`), without asking anything about it. The certificate is in DER.
    ///
    /// # Errors
    ///
    /// When the key or the profile cannot be written as a certificate.
    pub fn issue(&self, public: &[u8], profile: &CertificateProfile) -> Result<Vec<u8>, TpmError> {
        let key = public::subject_public_key(public)?;
        let key = SubjectPublicKeyInfoOwned::from_der(key.as_bytes()).map_err(Failure::certificate)?;
        Ok(certify(&self.key, &self.name, &key, profile)?)
    }

    /// Key and certificate as PEM, for a CA that is used again by other processes.
    ///
    /// # Errors
    ///
    /// None at present.
    pub fn to_pem(&self) -> Result<Secret, TpmError> {
        let key = self
            .key
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(Failure::certificate)?;
        Ok(Secret::new([key.as_str(), &self.certificate_pem()].concat()))
    }

    /// Reads what [`to_pem`](Self::to_pem) wrote.
    ///
    /// # Errors
    ///
    /// When it is something else, or the certificate is another key's.
    pub fn from_pem(pem: &Secret) -> Result<Self, TpmError> {
        let broken = |what: &str| Failure::certificate(format!("this is no authority of a test CA: {what}"));
        let begin = pem
            .expose()
            .find(CERTIFICATE_BEGIN)
            .ok_or_else(|| broken("it has no certificate"))?;
        let (key, certificate) = pem.expose().split_at(begin);
        let key = SigningKey::from_pkcs8_pem(key).map_err(|error| broken(&error.to_string()))?;
        let (_, certificate) =
            decode_vec(certificate.as_bytes()).map_err(|error| broken(&error.to_string()))?;
        let body = CertificateInner::<Rfc5280>::from_der(&certificate)
            .map_err(|error| broken(&error.to_string()))?
            .tbs_certificate;
        if body.subject_public_key_info != key_info(&key)? {
            return Err(broken("the certificate is another key's").into());
        }
        Ok(Self {
            key,
            name: body.subject,
            certificate,
        })
    }

    /// Its own certificate, in DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Its own certificate, as PEM.
    pub fn certificate_pem(&self) -> String {
        // The buffer is sized by the same crate, from the same bytes.
        encode_string("CERTIFICATE", LineEnding::LF, &self.certificate).expect("bytes can be written as PEM")
    }
}

/// A root, an intermediate, and the rule that only a key in a TPM gets a certificate.
#[derive(Debug, Clone)]
pub struct TestCa {
    root: Authority,
    intermediate: Authority,
}

impl TestCa {
    /// Makes an honest CA.
    ///
    /// # Errors
    ///
    /// When a certificate cannot be made.
    pub fn new() -> Result<Self, TpmError> {
        let root = Authority::self_signed(&CertificateProfile::root("Simulated TPM root"))?;
        let intermediate =
            root.subordinate(&CertificateProfile::intermediate("Simulated TPM intermediate"))?;
        Ok(Self { root, intermediate })
    }

    /// Puts a CA together from authorities.
    pub fn from_authorities(root: Authority, intermediate: Authority) -> Self {
        Self { root, intermediate }
    }

    /// The root.
    pub fn root(&self) -> &Authority {
        &self.root
    }

    /// The intermediate, which certifies attestation keys.
    pub fn intermediate(&self) -> &Authority {
        &self.intermediate
    }

    /// The root's certificate: the trust anchor that a verifier must be given.
    pub fn root_pem(&self) -> String {
        self.root.certificate_pem()
    }

    /// Certifies the key of a public area without asking anything about it: its certificate, the intermediate's and the
    /// root's.
    ///
    /// # Errors
    ///
    /// When the key or the profile cannot be written as a certificate.
    pub fn issue_chain(&self, public: &[u8], profile: &CertificateProfile) -> Result<Vec<Vec<u8>>, TpmError> {
        Ok(vec![
            self.intermediate.issue(public, profile)?,
            self.intermediate.certificate.clone(),
            self.root.certificate.clone(),
        ])
    }

    /// Begins to certify an attestation key: makes a secret that its TPM can find out only if it has both keys.
    pub(crate) fn challenge(
        &self,
        endorsement_key: &[u8],
        attestation_key: &[u8],
        check_key: bool,
    ) -> Result<(Challenge, Credential), Failure> {
        if check_key {
            require_attestation_key(attestation_key)?;
        }
        let mut secret = [0; 32];
        OsRng.fill_bytes(&mut secret);
        // There is no certificate of the endorsement key to check: this CA starts the TPM whose key it is.
        let credential = make_credential(endorsement_key, &public::name(attestation_key), &secret)?;
        let public = attestation_key.to_vec();
        Ok((Challenge { secret, public }, credential))
    }

    /// Ends what [`challenge`](Self::challenge) began.
    pub(crate) fn conclude(
        &self,
        challenge: Challenge,
        answer: &[u8],
        profile: &CertificateProfile,
    ) -> Result<Vec<Vec<u8>>, TpmError> {
        if answer != challenge.secret {
            let reason = "the TPM did not give back the secret".into();
            return Err(Failure::NotCertified { reason }.into());
        }
        self.issue_chain(&challenge.public, profile)
    }
}

/// A secret that was given to a TPM, and the key that is certified if it comes back.
pub(crate) struct Challenge {
    secret: [u8; 32],
    public: Vec<u8>,
}

/// Requires `fixedTPM`, `fixedParent`, `sensitiveDataOrigin`, `restricted` and `sign`, and not `decrypt`
/// (TPM 2.0 Library, part 2, section 8.3).
fn require_attestation_key(public: &[u8]) -> Result<(), Failure> {
    const REQUIRED: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 18;
    const FORBIDDEN: u32 = 1 << 17;
    let refuse = |reason| Failure::NotCertified { reason };
    let attributes: [u8; 4] = public
        .get(4..8)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| refuse("its public area is cut off".to_owned()))?;
    let attributes = u32::from_be_bytes(attributes);
    if attributes & (REQUIRED | FORBIDDEN) != REQUIRED {
        return Err(refuse(format!(
            "its attributes are {attributes:#010x}: expected fixedTPM, fixedParent, sensitiveDataOrigin, restricted \
             and sign ({REQUIRED:#010x}) and not decrypt"
        )));
    }
    Ok(())
}

pub(crate) fn name(common_name: &str) -> Result<Name, Failure> {
    // RFC 4514 has characters with a meaning of their own.
    let escaped: String = common_name
        .chars()
        .flat_map(|c| {
            let special = r#",+"\<>;="#.contains(c);
            special.then_some('\\').into_iter().chain([c])
        })
        .collect();
    Name::from_str(&format!("CN={escaped},O=aicert simulation")).map_err(Failure::certificate)
}

fn key_info(key: &SigningKey) -> Result<SubjectPublicKeyInfoOwned, Failure> {
    let der = key
        .verifying_key()
        .to_public_key_der()
        .map_err(Failure::certificate)?;
    SubjectPublicKeyInfoOwned::from_der(der.as_bytes()).map_err(Failure::certificate)
}

fn certify(
    signer: &SigningKey,
    issuer: &Name,
    key: &SubjectPublicKeyInfoOwned,
    profile: &CertificateProfile,
) -> Result<Vec<u8>, Failure> {
    let sign = |body: &[u8]| {
        let signature: DerSignature = signer.sign(body);
        signature.as_bytes().to_vec()
    };
    certify_with(ECDSA_SHA256, &key_info(signer)?, issuer, key, profile, sign)
}

/// Makes a certificate; `sign` signs its body with the algorithm named and the key of `signer`.
pub(crate) fn certify_with(
    algorithm: ObjectIdentifier,
    signer: &SubjectPublicKeyInfoOwned,
    issuer: &Name,
    key: &SubjectPublicKeyInfoOwned,
    profile: &CertificateProfile,
    sign: impl FnOnce(&[u8]) -> Vec<u8>,
) -> Result<Vec<u8>, Failure> {
    let algorithm = AlgorithmIdentifierOwned {
        oid: algorithm,
        parameters: None,
    };
    let body = TbsCertificateInner {
        version: Version::V3,
        serial_number: random_serial()?,
        signature: algorithm.clone(),
        issuer: match &profile.issuer {
            Some(other) => name(other)?,
            None => issuer.clone(),
        },
        validity: Validity {
            not_before: time(profile.not_before)?,
            not_after: time(profile.not_after)?,
        },
        subject: name(&profile.subject)?,
        subject_public_key_info: key.clone(),
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(extensions(signer, key, profile)?),
    };
    let signature = sign(&body.to_der().map_err(Failure::certificate)?);
    CertificateInner {
        tbs_certificate: body,
        signature_algorithm: algorithm,
        signature: BitString::from_bytes(&signature).map_err(Failure::certificate)?,
    }
    .to_der()
    .map_err(Failure::certificate)
}

fn extensions(
    issuer: &SubjectPublicKeyInfoOwned,
    subject: &SubjectPublicKeyInfoOwned,
    profile: &CertificateProfile,
) -> Result<Vec<Extension>, Failure> {
    let mut extensions = Vec::new();
    let mut add = |extn_id, critical, value: x509_cert::der::Result<Vec<u8>>| {
        let extn_value = value.and_then(OctetString::new).map_err(Failure::certificate)?;
        extensions.push(Extension {
            extn_id,
            critical,
            extn_value,
        });
        Ok::<_, Failure>(())
    };
    if let Some(constraints) = &profile.basic_constraints {
        add(CERT_BASIC_CONSTRAINTS, true, constraints.to_der())?;
    }
    if let Some(usage) = &profile.key_usage {
        add(CERT_KEY_USAGE, true, usage.to_der())?;
    }
    if !profile.extended_key_usage.is_empty() {
        let usage = ExtendedKeyUsage(profile.extended_key_usage.clone());
        add(CERT_EXTENDED_KEY_USAGE, false, usage.to_der())?;
    }
    if profile.key_identifiers {
        let own = SubjectKeyIdentifier(key_identifier(subject)?);
        add(CERT_SUBJECT_KEY_ID, false, own.to_der())?;
        let authority = AuthorityKeyIdentifier {
            key_identifier: Some(key_identifier(issuer)?),
            ..Default::default()
        };
        add(CERT_AUTHORITY_KEY_ID, false, authority.to_der())?;
    }
    extensions.extend(profile.extensions.iter().cloned());
    Ok(extensions)
}

/// SHA-1 over the key's bits (RFC 5280, section 4.2.1.2, method 1): a name, not a protection.
fn key_identifier(key: &SubjectPublicKeyInfoOwned) -> Result<OctetString, Failure> {
    let digest = Sha1::digest(key.subject_public_key.raw_bytes());
    OctetString::new(digest.to_vec()).map_err(Failure::certificate)
}

fn random_serial() -> Result<SerialNumber, Failure> {
    let mut serial = [0; 16];
    OsRng.fill_bytes(&mut serial);
    // Positive, and never shorter.
    serial[0] = serial[0] & 0x7f | 0x40;
    SerialNumber::new(&serial).map_err(Failure::certificate)
}

/// `UTCTime` until 2049, `GeneralizedTime` from then on (RFC 5280, section 4.1.2.5).
fn time(moment: Timestamp) -> Result<Time, Failure> {
    let since: u64 = moment
        .as_unix()
        .try_into()
        .map_err(|_| Failure::certificate(format!("{moment} is before 1970")))?;
    let moment: SystemTime = UNIX_EPOCH + Duration::from_secs(since);
    if let Ok(time) = UtcTime::from_system_time(moment) {
        return Ok(Time::UtcTime(time));
    }
    GeneralizedTime::from_system_time(moment)
        .map(Time::GeneralTime)
        .map_err(Failure::certificate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::ForgedKey;

    #[test]
    fn a_key_that_can_sign_anything_gets_no_certificate() {
        let ca = TestCa::new().unwrap();
        let endorsement = ForgedKey::new(0x0003_00b2);
        let honest = ForgedKey::new(ForgedKey::ATTESTATION);
        assert!(
            ca.challenge(&endorsement.public(), &honest.public(), true)
                .is_ok()
        );
        for missing in [1, 4, 5, 16, 18] {
            let key = ForgedKey::new(ForgedKey::ATTESTATION & !(1 << missing));
            let refused = ca.challenge(&endorsement.public(), &key.public(), true);
            assert!(refused.is_err(), "without attribute {missing}");
        }
        let decrypting = ForgedKey::new(ForgedKey::ATTESTATION | 1 << 17);
        assert!(
            ca.challenge(&endorsement.public(), &decrypting.public(), true)
                .is_err()
        );
    }

    #[test]
    fn a_wrong_answer_gets_no_certificate() {
        let ca = TestCa::new().unwrap();
        let key = ForgedKey::new(ForgedKey::ATTESTATION);
        let (challenge, _) = ca.challenge(&key.public(), &key.public(), true).unwrap();
        let profile = CertificateProfile::attestation_key("nobody");
        assert!(ca.conclude(challenge, &[0; 32], &profile).is_err());
    }

    #[test]
    fn an_authority_is_read_as_it_was_written() {
        let ca = TestCa::new().unwrap();
        let [root, intermediate] = [ca.root(), ca.intermediate()].map(|authority| {
            let pem = authority.to_pem().unwrap();
            let read = Authority::from_pem(&pem).unwrap();
            assert_eq!(read.certificate(), authority.certificate());
            pem
        });
        let again = TestCa::from_authorities(
            Authority::from_pem(&root).unwrap(),
            Authority::from_pem(&intermediate).unwrap(),
        );
        assert_eq!(again.root_pem(), ca.root_pem());
        let key = ForgedKey::new(ForgedKey::ATTESTATION);
        let profile = CertificateProfile::attestation_key("key");
        let leaf = again.intermediate().issue(&key.public(), &profile).unwrap();
        let leaf = x509_cert::Certificate::from_der(&leaf).unwrap();
        let issuer = x509_cert::Certificate::from_der(ca.intermediate().certificate()).unwrap();
        assert_eq!(leaf.tbs_certificate.issuer, issuer.tbs_certificate.subject);

        let begin = |pem: &Secret| pem.expose().find(CERTIFICATE_BEGIN).unwrap();
        let mixed = [
            &root.expose()[..begin(&root)],
            &intermediate.expose()[begin(&intermediate)..],
        ]
        .concat();
        for wrong in [mixed.as_str(), "", &ca.root_pem(), &root.expose()[..begin(&root)]] {
            assert!(
                Authority::from_pem(&Secret::new(wrong.to_owned())).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn names_are_taken_literally() {
        let profile = CertificateProfile::root("a, O=b + \"c\"");
        let root = Authority::self_signed(&profile).unwrap();
        let certificate = x509_cert::Certificate::from_der(root.certificate()).unwrap();
        let subject = certificate.tbs_certificate.subject;
        assert_eq!(subject.0.len(), 2, "{subject}");
    }
}
