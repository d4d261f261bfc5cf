//! Puts chains together from certificates in any order.

use aicert_core::time::Timestamp;

use super::{ChainFault, LENGTH_LIMIT, issuer_missing};
use crate::anchors::{NITRO_ROOT, TrustAnchors};
use crate::x509::Certificate;

/// The largest number of certificates in a [`Pool`].
pub const POOL_LIMIT: usize = 64;

/// How many certificates are tried as issuers before a search is given up. Chains without namesakes take as many as they
/// are long; crossed authorities made for the purpose would take forever.
const SEARCH_LIMIT: usize = 256;

/// Certificates that somebody has at hand, in any order. Nothing is believed because it is among them: a pool only puts
/// chains together, and [`super::verify`] judges them.
///
/// Azure's attestation keys come without their intermediates, of which there are one (`Global Virtual TPM CA - 01`) or two
/// (`Azure Cloud Virtual TPM CA - 24`, below `Azure Cloud Virtual TPM CA 2025`) below the root of 2023. Where a certificate
/// is missing, the error says which and, if the certificate below it does, from where it can be fetched.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    certificates: Vec<Certificate>,
}

/// Says why bytes cannot be added to a [`Pool`]. The fault is in what the verifier was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// They are neither one certificate in DER nor certificates in PEM.
    #[error("it is neither one certificate in DER nor certificates in PEM: {0}")]
    NotCertificates(String),
    /// The pool would have too many.
    #[error("there are more than {POOL_LIMIT} certificates; give only those that belong to the chain")]
    TooMany,
}

impl Pool {
    /// A pool without certificates.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds certificates: one in DER with nothing after it, or one or more in PEM with nothing but white space around the
    /// blocks. One that is there already is not added again.
    ///
    /// # Errors
    ///
    /// When the bytes are something else, or when there are too many.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), PoolError> {
        let certificates = Certificate::all_from_file(bytes)
            .map_err(|error| PoolError::NotCertificates(error.to_string()))?;
        for certificate in certificates {
            if self.certificates.iter().any(|other| other.der == certificate.der) {
                continue;
            }
            if self.certificates.len() == POOL_LIMIT {
                return Err(PoolError::TooMany);
            }
            self.certificates.push(certificate);
        }
        Ok(())
    }

    /// How many certificates there are.
    pub fn len(&self) -> usize {
        self.certificates.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    /// Puts together the chain of the only certificate that is not one of an authority: itself first, the root last.
    ///
    /// Where several chains are possible, the order of preference is: one whose certificates are all valid at `at` and
    /// whose root is believed; one whose root is believed; any. What is not on it is left out.
    ///
    /// # Errors
    ///
    /// When there is not exactly one such certificate, or no chain that reaches a root.
    pub fn assemble(&self, anchors: &TrustAnchors, at: Timestamp) -> Result<Vec<Vec<u8>>, Vec<ChainFault>> {
        let mut leaves = self.certificates.iter().filter(|certificate| !certificate.is_ca);
        let (Some(leaf), None) = (leaves.next(), leaves.next()) else {
            let found = self
                .certificates
                .iter()
                .filter(|certificate| !certificate.is_ca)
                .count();
            return Err(vec![ChainFault::LeafUnclear { found }]);
        };
        let pool: Vec<_> = self.certificates.iter().collect();
        let path = Search::new(&pool, anchors, at)
            .run(leaf)
            .map_err(|fault| vec![fault])?;
        Ok(path.iter().map(|certificate| certificate.der.clone()).collect())
    }

    /// Completes a chain as a proof carries it, the key's own certificate first, with those certificates of the pool that
    /// it lacks. What stands in the chain stays in it, so that [`super::verify`] still judges all of it; a chain that
    /// cannot be completed is returned as it is.
    pub fn complete<C: AsRef<[u8]>>(
        &self,
        chain: &[C],
        anchors: &TrustAnchors,
        at: Timestamp,
    ) -> Vec<Vec<u8>> {
        let mut complete: Vec<_> = chain.iter().map(|der| der.as_ref().to_vec()).collect();
        if self.is_empty() {
            return complete;
        }
        let own: Result<Vec<_>, _> = complete
            .iter()
            .take(LENGTH_LIMIT)
            .map(|der| Certificate::from_der(der))
            .collect();
        let Ok([leaf, others @ ..]) = own.as_deref() else {
            return complete;
        };
        // The chain's own come first: among namesakes they are tried first.
        let all: Vec<_> = others.iter().chain(&self.certificates).collect();
        let Ok(path) = Search::new(&all, anchors, at).run(leaf) else {
            return complete;
        };
        let Some(root) = path.last().map(|root| root.der.clone()) else {
            return complete;
        };
        let missing = path
            .iter()
            .map(|certificate| certificate.der.clone())
            .filter(|der| !complete.contains(der));
        let missing: Vec<_> = missing.collect();
        complete.extend(missing);
        // `verify` expects the root at the end, and intermediates in any order.
        if let Some(place) = complete.iter().position(|der| *der == root) {
            let root = complete.remove(place);
            complete.push(root);
        }
        complete
    }
}

/// A bounded depth-first search from a certificate to a root, along signatures that hold.
struct Search<'a> {
    pool: &'a [&'a Certificate],
    anchors: &'a TrustAnchors,
    at: Timestamp,
    tried: usize,
    best: Option<(u8, Vec<&'a Certificate>)>,
    /// The longest way that led nowhere.
    dead_end: Option<(usize, ChainFault)>,
}

impl<'a> Search<'a> {
    fn new(pool: &'a [&'a Certificate], anchors: &'a TrustAnchors, at: Timestamp) -> Self {
        Self {
            pool,
            anchors,
            at,
            tried: 0,
            best: None,
            dead_end: None,
        }
    }

    fn run(mut self, leaf: &'a Certificate) -> Result<Vec<&'a Certificate>, ChainFault> {
        self.follow(&mut vec![leaf]);
        match (self.best, self.dead_end) {
            (Some((_, path)), _) => Ok(path),
            (None, Some((_, fault))) if self.tried < SEARCH_LIMIT => Err(fault),
            _ => Err(ChainFault::NoChain { limit: LENGTH_LIMIT }),
        }
    }

    /// At most as deep as a chain is long.
    fn follow(&mut self, path: &mut Vec<&'a Certificate>) {
        let Some(&last) = path.last() else { return };
        if last.subject == last.issuer && path.len() > 1 {
            let worth = self.worth(path);
            if self.best.as_ref().is_none_or(|(best, _)| worth > *best) {
                self.best = Some((worth, path.clone()));
            }
            return;
        }
        let named: Vec<_> = self
            .pool
            .iter()
            .copied()
            .filter(|issuer| issuer.subject == last.issuer && issuer.is_ca)
            .filter(|issuer| !path.iter().any(|other| other.der == issuer.der))
            .collect();
        let mut found = false;
        for issuer in &named {
            if self.tried >= SEARCH_LIMIT || path.len() == LENGTH_LIMIT {
                return;
            }
            self.tried += 1;
            if last.is_signed_by(issuer) {
                found = true;
                path.push(issuer);
                self.follow(path);
                path.pop();
            }
        }
        if !found
            && self
                .dead_end
                .as_ref()
                .is_none_or(|(depth, _)| path.len() > *depth)
        {
            self.dead_end = Some((path.len(), dead_end(path.len() - 1, last, named.is_empty())));
        }
    }

    /// Two for a root that is believed, one for being valid.
    fn worth(&self, path: &[&Certificate]) -> u8 {
        let believed = path.last().is_some_and(|root| {
            self.anchors.platform_of(&root.fingerprint).is_some() || root.fingerprint == NITRO_ROOT
        });
        let valid = path
            .iter()
            .all(|certificate| (certificate.not_before..=certificate.not_after).contains(&self.at));
        2 * u8::from(believed) + u8::from(valid)
    }
}

fn dead_end(position: usize, certificate: &Certificate, missing: bool) -> ChainFault {
    let subject = certificate.subject_text.clone();
    if missing {
        issuer_missing(position, certificate)
    } else if certificate.scheme.is_none() {
        ChainFault::Algorithm {
            position,
            subject,
            found: certificate.scheme_oid.to_string(),
        }
    } else {
        ChainFault::BadSignature {
            position,
            subject,
            issuer: certificate.issuer_text.clone(),
        }
    }
}
