//! Who is on the other end of a connection.

use aicert_core::digest::ClientDigest;
use rustls::server::ServerConnection;

use crate::tls::client_digest;

/// Shows that a connection's other end holds the key of the client certificate that the machine was made for. Only
/// [`authorize`] makes one, and only with one are requests read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner(());

/// Somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stranger {
    /// Presented no certificate.
    Nobody,
    /// Presented another one.
    Somebody(ClientDigest),
}

/// Compares the certificate of a completed handshake, in which its key was proven to be there, with the one expected.
pub(crate) fn authorize(connection: &ServerConnection, expected: &ClientDigest) -> Result<Owner, Stranger> {
    let certificate = connection
        .peer_certificates()
        .and_then(|chain| chain.first())
        .ok_or(Stranger::Nobody)?;
    let found = client_digest(certificate);
    if found == *expected {
        Ok(Owner(()))
    } else {
        Err(Stranger::Somebody(found))
    }
}
