//! What the quote of an attestation is about: a connection, and the nonce of who asked over it.

use aicert_core::attestation::{Attestation, attestation_qualifying_data};
use aicert_core::digest::{Nonce, TlsKeyDigest};

use super::{AuthenticQuote, BoundQuote, Statement};
use crate::attestation::AttestationFault;

/// What an attestation says that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionClaims {
    /// The key that connections to the machine are served with.
    pub tls_key: TlsKeyDigest,
    /// The nonce that it answers.
    pub nonce: Nonce,
}

/// The connection that a quote is about, and the nonce that it answers. Only [`AuthenticQuote::bind_session`] makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionBinding {
    tls_key: TlsKeyDigest,
    nonce: Nonce,
}

impl SessionBinding {
    /// The key of the connection.
    pub fn tls_key(&self) -> &TlsKeyDigest {
        &self.tls_key
    }

    /// The nonce.
    pub fn nonce(&self) -> &Nonce {
        &self.nonce
    }
}

impl SessionClaims {
    pub(crate) fn of(attestation: &Attestation) -> Self {
        Self {
            tls_key: attestation.tls_key,
            nonce: attestation.quote.nonce,
        }
    }
}

impl AuthenticQuote {
    /// Verifies that the quote is about the connection that is served with this key, and answers this nonce.
    ///
    /// `claims` is what comes with the quote: it must say the same, and tells apart what is wrong when it does not.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn bind_session(
        self,
        claims: &SessionClaims,
        tls_key: &TlsKeyDigest,
        nonce: &Nonce,
    ) -> Result<BoundQuote<SessionBinding>, Vec<AttestationFault>> {
        let faults = inspect_session(self.statement(), claims, tls_key, nonce);
        if faults.is_empty() {
            let to = SessionBinding {
                tls_key: *tls_key,
                nonce: *nonce,
            };
            Ok(BoundQuote { quote: self, to })
        } else {
            Err(faults)
        }
    }
}

/// Nothing is wrong exactly when the claims are the key and the nonce, and the qualifying data follows from them.
pub(crate) fn inspect_session(
    statement: Statement<'_>,
    claims: &SessionClaims,
    tls_key: &TlsKeyDigest,
    nonce: &Nonce,
) -> Vec<AttestationFault> {
    let mut faults = Vec::new();
    if claims.tls_key != *tls_key {
        faults.push(AttestationFault::OtherTlsKey {
            expected: *tls_key,
            found: claims.tls_key,
        });
    }
    if claims.nonce != *nonce {
        faults.push(AttestationFault::OtherNonce {
            expected: *nonce,
            found: claims.nonce,
        });
    }
    let expected = attestation_qualifying_data(&claims.tls_key, &claims.nonce);
    let found = statement.qualifying_data();
    if found.is_empty() {
        faults.push(AttestationFault::NothingBound {
            expected: hex::encode(expected),
        });
    } else if found != expected {
        faults.push(AttestationFault::QualifyingData {
            expected: hex::encode(expected),
            found: hex::encode(found),
        });
    }
    faults
}
