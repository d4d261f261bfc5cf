//! TLS with servers whose certificates mean nothing, and whose keys mean everything.
//!
//! A machine makes its key when it boots, and a certificate for it that nobody vouches for. So no certificate is verified
//! here: that the server holds the key is (by the signature of the handshake), and that it is always the same key. Whether
//! that key may be trusted, the attestation says.

use std::sync::{Arc, OnceLock};

use aicert_core::digest::TlsKeyDigest;
use pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, PeerIncompatible, SignatureScheme,
};

use crate::identity::Identity;

/// TLS 1.3 with the keys of one machine, as this client.
pub(crate) fn config(identity: &Identity, keys: Arc<SameKey>) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(keys.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(keys)
        .with_client_auth_cert(vec![identity.certificate()], identity.key())?;
    // Every connection shows the key again.
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// Accepts servers that hold one and the same key: the given one, or that of the first connection.
#[derive(Debug)]
pub(crate) struct SameKey {
    provider: Arc<CryptoProvider>,
    key: OnceLock<TlsKeyDigest>,
}

/// A server has another key than the one that is pinned.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the server has the TLS key {found}, not {expected}")]
pub(crate) struct OtherKey {
    pub(crate) expected: TlsKeyDigest,
    pub(crate) found: TlsKeyDigest,
}

impl SameKey {
    /// Accepts this key; that of the first connection when absent.
    pub(crate) fn new(pinned: Option<TlsKeyDigest>) -> Self {
        Self {
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            key: pinned.map_or_else(OnceLock::new, OnceLock::from),
        }
    }

    /// The key that all connections so far were served with.
    pub(crate) fn key(&self) -> Option<TlsKeyDigest> {
        self.key.get().copied()
    }

    /// Random bytes, for nonces.
    pub(crate) fn random(&self) -> Option<[u8; 32]> {
        let mut bytes = [0; 32];
        self.provider.secure_random.fill(&mut bytes).ok()?;
        Some(bytes)
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let found = key_of(certificate)?;
        // Of two first connections at one time, one decides.
        let expected = *self.key.get_or_init(|| found);
        if expected == found {
            return Ok(());
        }
        let other = OtherError(Arc::new(OtherKey { expected, found }));
        Err(CertificateError::Other(other).into())
    }
}

fn key_of(certificate: &CertificateDer<'_>) -> Result<TlsKeyDigest, rustls::Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    Ok(TlsKeyDigest::of(&parsed.subject_public_key_info()))
}

impl ServerCertVerifier for SameKey {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // Says early what the signature would only say later.
        if let Some(expected) = self.key() {
            let found = key_of(certificate)?;
            if found != expected {
                let other = OtherError(Arc::new(OtherKey { expected, found }));
                return Err(CertificateError::Other(other).into());
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let valid = verify_tls13_signature(message, certificate, signature, algorithms)?;
        // Only now is it known that the server holds the key.
        self.check(certificate)?;
        Ok(valid)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
