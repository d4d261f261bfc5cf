//! The HTTP client, and what its errors mean.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use aicert_core::input::{InputError, InputErrorKind};
use reqwest::{Client, redirect};
use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls_platform_verifier::BuilderVerifierExt as _;

use crate::config::FileConfig;

/// A client that trusts what this machine trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` included), uses the proxies of the
/// environment, and follows no redirect by itself.
pub(super) fn client(config: &FileConfig) -> Result<Client, InputError> {
    let failed = |source: Box<dyn StdError + Send + Sync>| {
        InputError::new(
            InputErrorKind::Configuration,
            format!("HTTPS cannot be set up on this machine: {source}"),
        )
        .with_advice("install the CA certificates of the system, or point SSL_CERT_FILE to them")
    };
    // The provider is named here, because a process-wide default is for the program to choose, not for a library.
    let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_platform_verifier())
        .map_err(|error| failed(error.into()))?
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(redirect::Policy::none())
        .connect_timeout(config.connect_timeout)
        .user_agent(concat!("aicert/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| failed(error.without_url().into()))
}

/// Whether a certificate of the other side was refused: trying again does not help.
pub(super) fn is_certificate_error(error: &reqwest::Error) -> bool {
    find_source(error, |cause| {
        matches!(
            cause.downcast_ref(),
            Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
        )
    })
}

/// What went wrong, in one line, without the URL.
pub(super) fn explain(error: &reqwest::Error) -> String {
    // The innermost cause is the one that says something.
    let mut cause: &(dyn StdError + 'static) = error;
    while let Some(inner) = inner(cause) {
        cause = inner;
    }
    if cause.is::<reqwest::Error>() {
        String::from("the connection failed")
    } else {
        cause.to_string()
    }
}

fn find_source(error: &reqwest::Error, matches: impl Fn(&(dyn StdError + 'static)) -> bool) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = cause {
        if matches(current) {
            return true;
        }
        cause = inner(current);
    }
    false
}

fn inner<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    // `io::Error::source` skips the error that it wraps.
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}
