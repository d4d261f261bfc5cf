//! The key of the server's connections: made in memory when it starts, and in no file ever. The attestation binds it.

use std::sync::Arc;

use aicert_core::digest::{ClientDigest, TlsKeyDigest};
use pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// Says why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// It could not be made.
    #[error("the TLS key could not be made: {0}")]
    Key(#[from] rcgen::Error),
    /// It could not be used.
    #[error("TLS could not be set up: {0}")]
    Setup(#[from] Error),
}

/// The key of this run of the server, ready to be served with.
pub(crate) struct Identity {
    /// SHA-256 of its `SubjectPublicKeyInfo`.
    pub(crate) key: TlsKeyDigest,
    pub(crate) config: Arc<ServerConfig>,
}

impl Identity {
    /// Makes a key, and a certificate that it signs itself: clients know the server by the attestation alone.
    pub(crate) fn generate() -> Result<Self, TlsError> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let certificate = rcgen::CertificateParams::new(vec!["aicert-server".into()])?.self_signed(&key)?;
        let digest = TlsKeyDigest::of(&rcgen::PublicKeyData::subject_public_key_info(&key));
        let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(AnyClient { provider }))
            .with_single_cert(vec![certificate.der().clone()], private)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Every connection proves anew who it is from.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            key: digest,
            config: Arc::new(config),
        })
    }
}

/// The digest that names a client.
pub(crate) fn client_digest(certificate: &CertificateDer<'_>) -> ClientDigest {
    ClientDigest::of(certificate)
}

/// Accepts any certificate or none, but only from whoever holds its key: who it is, is for [`crate::authorize`] to say.
#[derive(Debug)]
struct AnyClient {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        // Whoever has none is told in words.
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not offered".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
