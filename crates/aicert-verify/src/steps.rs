//! The steps that all evidence has in common, one after another.

use aicert_core::certificate::{EvidenceKind, KeyEvidence, LowLevelQuote, PlatformKind};
use aicert_core::time::Timestamp;

use crate::anchors::{TrustAnchors, platform_of_root};
use crate::attest::Attest;
use crate::chain::{self, ChainFault};
use crate::config::Options;
use crate::error::{Failure, Rejection};
use crate::key::{self, PublicArea};
use crate::nitro::{self, Claims};
use crate::quote::{self, AuthenticQuote, CLOCK_TOLERANCE, Statement};

/// Runs steps one after another, and collects what is wrong.
pub(crate) struct Steps<'a>(pub(crate) &'a mut Vec<Failure>);

/// Who is believed, and when.
#[derive(Clone, Copy)]
pub(crate) struct Believed<'a> {
    pub(crate) anchors: &'a TrustAnchors,
    pub(crate) time: Timestamp,
}

/// What a TPM is said to have signed, and with what.
pub(crate) struct Signed<'a> {
    pub(crate) quote: &'a LowLevelQuote,
    signature: &'a [u8],
    key: &'a KeyEvidence,
    evidence: Evidence,
}

/// The two kinds of evidence. Which one it is follows from the form of what was signed, and from nothing else: what would make it
/// the other kind is then a fault.
enum Evidence {
    /// A quote of a certified key.
    Quote {
        /// The certificates of the key, completed from the verifier's own.
        chain: Vec<Vec<u8>>,
    },
    /// An attestation document.
    Document {
        /// What it says, if it can be read.
        claims: Option<Claims>,
    },
}

impl<'a> Signed<'a> {
    pub(crate) fn new(
        quote: &'a LowLevelQuote,
        signature: &'a [u8],
        key: &'a KeyEvidence,
        options: &Options,
    ) -> Self {
        let evidence = match quote.evidence() {
            EvidenceKind::NitroDocument => Evidence::Document {
                claims: Claims::read(&quote.attest.0),
            },
            _ => Evidence::Quote {
                chain: options.chain_of(key),
            },
        };
        Self {
            quote,
            signature,
            key,
            evidence,
        }
    }

    /// What the root vouches for; when it is not believed, what it would be if it were. Nothing when there is no root.
    pub(crate) fn platform(&self) -> Option<PlatformKind> {
        match &self.evidence {
            Evidence::Quote { chain } => chain.last().map(|root| platform_of_root(root)),
            Evidence::Document { claims } => claims.as_ref().map(Claims::platform),
        }
    }

    /// The time for which to judge the certificates of an answer to a nonce that was made up at `now`: that of its document, if the
    /// two clocks agree about it as far as they must. The nonce shows that the document is younger than the question; but its
    /// certificates begin three seconds before it, and whoever asked looked at his clock before that.
    pub(crate) fn time_of_answer(&self, now: Timestamp) -> Timestamp {
        let Evidence::Document { claims: Some(claims) } = &self.evidence else {
            return now;
        };
        let made = claims.timestamp();
        let apart = made.as_unix().abs_diff(now.as_unix());
        if apart <= CLOCK_TOLERANCE.unsigned_abs() {
            made
        } else {
            now
        }
    }

    /// Looks for what is wrong in what was signed, whoever signed it, if it can be read at all.
    pub(crate) fn inspect_unproven<F>(&self, inspect: impl FnOnce(Statement<'_>) -> Vec<F>) -> Vec<F> {
        match &self.evidence {
            Evidence::Quote { .. } => Attest::parse(&self.quote.attest.0)
                .map_or(Vec::new(), |attest| inspect(Statement::Attest(&attest))),
            Evidence::Document { claims } => claims
                .as_ref()
                .map_or(Vec::new(), |claims| inspect(Statement::Document(claims))),
        }
    }
}

impl Steps<'_> {
    /// Steps 2 to 4: who signed the quote, and that it covers what it is shown with. `explain` may say more about a fault of the
    /// chain.
    pub(crate) fn authenticate(
        &mut self,
        signed: &Signed<'_>,
        believed: Believed<'_>,
        explain: impl Fn(ChainFault) -> ChainFault,
    ) -> Option<AuthenticQuote> {
        match &signed.evidence {
            Evidence::Quote { chain } => self.authenticate_quote(signed, chain, believed, explain),
            Evidence::Document { claims } => {
                self.authenticate_document(signed, claims.as_ref(), believed, explain)
            }
        }
    }

    /// The chain, the key, and its quote.
    fn authenticate_quote(
        &mut self,
        signed: &Signed<'_>,
        chain: &[Vec<u8>],
        believed: Believed<'_>,
        explain: impl Fn(ChainFault) -> ChainFault,
    ) -> Option<AuthenticQuote> {
        let Signed {
            quote,
            signature,
            key: KeyEvidence { public, .. },
            ..
        } = signed;
        let proof = chain::verify(chain, believed.anchors, believed.time)
            .map_err(|faults| faults.into_iter().map(explain).collect());
        let proof = self.keep(proof);
        let key = self.next(
            proof,
            |proof| key::verify(proof, &public.0),
            || key::inspect(&public.0, chain::unproven_key(chain).as_ref()),
        );
        let area = || PublicArea::parse(&public.0).ok();
        self.next(
            key,
            |key| quote::authenticate(key, quote, signature),
            || quote::inspect(area().as_ref(), quote, signature),
        )
    }

    /// The document, with nothing of another kind of evidence beside it.
    fn authenticate_document(
        &mut self,
        signed: &Signed<'_>,
        claims: Option<&Claims>,
        believed: Believed<'_>,
        explain: impl Fn(ChainFault) -> ChainFault,
    ) -> Option<AuthenticQuote> {
        let Signed {
            quote,
            signature,
            key,
            ..
        } = signed;
        let beside = quote::inspect_beside(signature, key);
        let is_alone = beside.is_empty();
        self.0.extend(beside.into_iter().map(Failure::from));
        let expected = nitro::Expected::new(believed.anchors.clone(), believed.time);
        let explain = |fault| explain(explain_expiry(fault, claims));
        let explain = |failure: Failure| failure.explained(explain);
        let document = nitro::verify(&quote.attest.0, &expected)
            .map_err(Rejection::into_failures)
            .map_err(|failures| failures.into_iter().map(explain).collect());
        let document = self.keep(document);
        let quote = self.next(
            document,
            |document| quote::authenticate_document(document, quote),
            || quote::inspect_document(claims, quote),
        );
        quote.filter(|_| is_alone)
    }

    /// Keeps what is wrong.
    pub(crate) fn keep<T, F: Into<Failure>>(&mut self, result: Result<T, Vec<F>>) -> Option<T> {
        result
            .map_err(|faults| self.0.extend(faults.into_iter().map(Into::into)))
            .ok()
    }

    /// Verifies with what the step before returned; when that is missing, only looks for what is wrong.
    pub(crate) fn next<P, T, F: Into<Failure>>(
        &mut self,
        previous: Option<P>,
        verify: impl FnOnce(P) -> Result<T, Vec<F>>,
        inspect: impl FnOnce() -> Vec<F>,
    ) -> Option<T> {
        let result = match previous {
            Some(previous) => verify(previous),
            None => Err(inspect()),
        };
        self.keep(result)
    }
}

/// The certificates of a document expire within hours: it says for which time they were made.
fn explain_expiry(fault: ChainFault, claims: Option<&Claims>) -> ChainFault {
    match (fault, claims) {
        (
            ChainFault::Expired {
                position,
                subject,
                until,
                at,
            },
            Some(claims),
        ) => ChainFault::DocumentExpired {
            position,
            subject,
            until,
            at,
            made: claims.timestamp(),
        },
        (fault, _) => fault,
    }
}

impl Options {
    pub(crate) fn believed(&self) -> Believed<'_> {
        Believed {
            anchors: &self.trust_anchors,
            time: self.time,
        }
    }

    /// The chain of a key, with the intermediates that it lacks where they are at hand.
    fn chain_of(&self, key: &KeyEvidence) -> Vec<Vec<u8>> {
        let chain: Vec<_> = key.certificate_chain.iter().map(|der| der.0.as_slice()).collect();
        self.intermediates
            .complete(&chain, &self.trust_anchors, self.time)
    }
}
