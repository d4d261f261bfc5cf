//! Who a client is: a key, and a certificate by which machines know it.

use aicert_core::digest::ClientDigest;
use aicert_core::secret::Secret;
use pki_types::pem::PemObject as _;
use pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use zeroize::Zeroizing;

use crate::error::ClientError;

/// A client's key (P-256) and the self-signed certificate for it. A machine is told the digest of the certificate before it
/// boots, and serves nobody else; one identity is for one machine.
#[derive(Clone)]
pub struct Identity {
    certificate: CertificateDer<'static>,
    /// PKCS #8, DER.
    key: Zeroizing<Vec<u8>>,
}

impl Identity {
    /// Makes up a new one.
    ///
    /// # Errors
    ///
    /// When there is no randomness.
    pub fn generate() -> Result<Self, ClientError> {
        let failed = |error: rcgen::Error| ClientError::Usage {
            message: format!("no client key could be made: {error}"),
            advice: "check that this computer has a source of randomness",
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = CertificateParams::default();
        // Who owns it is nobody's business: a machine looks at its digest alone.
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "aicert client");
        let certificate = params.self_signed(&key).map_err(failed)?;
        Ok(Self {
            certificate: certificate.der().clone().into_owned(),
            key: Zeroizing::new(key.serialize_der()),
        })
    }

    /// Reads what [`Identity::to_pem`] has written.
    ///
    /// # Errors
    ///
    /// When it is not a certificate and its key, each in PEM.
    pub fn from_pem(pem: &Secret) -> Result<Self, ClientError> {
        let failed = |what: &str| ClientError::Usage {
            message: format!("the client's identity cannot be read: {what}"),
            advice: "give the file that was written when the machine was made; without it, nobody can use the machine",
        };
        let pem = pem.expose().as_bytes();
        let certificate =
            CertificateDer::from_pem_slice(pem).map_err(|_| failed("there is no certificate"))?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| failed("there is no private key"))?;
        let identity = Self {
            certificate: certificate.into_owned(),
            key: Zeroizing::new(key.secret_pkcs8_der().to_vec()),
        };
        identity
            .check()
            .map_err(|_| failed("the key is not that of the certificate"))?;
        Ok(identity)
    }

    /// Certificate and private key in PEM, for a file that nobody else can read.
    pub fn to_pem(&self) -> Secret {
        let certificate = pem_of("CERTIFICATE", &self.certificate);
        let key = Zeroizing::new(pem_of("PRIVATE KEY", &self.key));
        Secret::new(format!("{certificate}{}", *key))
    }

    /// What a machine is told about who may use it.
    pub fn digest(&self) -> ClientDigest {
        ClientDigest::of(&self.certificate)
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.to_vec()).into()
    }

    /// Whether key and certificate belong together.
    fn check(&self) -> Result<(), rustls::Error> {
        let provider = rustls::crypto::ring::default_provider();
        let key = provider.key_provider.load_private_key(self.key())?;
        rustls::sign::CertifiedKey::new(vec![self.certificate()], key).keys_match()
    }
}

/// RFC 7468, section 3.
fn pem_of(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(der));
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = more;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("digest", &self.digest())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_its_file_and_shows_no_key() {
        let identity = Identity::generate().unwrap();
        let pem = identity.to_pem();
        let read = Identity::from_pem(&pem).unwrap();
        assert_eq!(read.digest(), identity.digest());
        assert_eq!(*read.key, *identity.key);
        let shown = format!("{identity:?}");
        assert!(!shown.contains("key"), "{shown}");
        assert_ne!(Identity::generate().unwrap().digest(), identity.digest());
    }

    #[test]
    fn a_certificate_with_another_key_is_no_identity() {
        let (one, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let mixed = Secret::new(format!(
            "{}{}",
            pem_of("CERTIFICATE", &one.certificate),
            pem_of("PRIVATE KEY", &other.key)
        ));
        for (text, cause) in [
            (mixed.expose(), "not that of the certificate"),
            (&pem_of("CERTIFICATE", &one.certificate), "no private key"),
            (&pem_of("PRIVATE KEY", &one.key), "no certificate"),
            ("", "no certificate"),
        ] {
            let error = Identity::from_pem(&Secret::new(text.to_owned())).unwrap_err();
            assert!(error.to_string().contains(cause), "{error}");
            assert!(error.advice().is_some());
        }
    }
}
