//! The steps that all evidence has in common, one after another.

use aicert_core::certificate::{KeyEvidence, LowLevelQuote};

use crate::chain::{self, ChainFault};
use crate::config::Options;
use crate::error::Failure;
use crate::key::{self, PublicArea};
use crate::quote::{self, AuthenticQuote};

/// Runs steps one after another, and collects what is wrong.
pub(crate) struct Steps<'a>(pub(crate) &'a mut Vec<Failure>);

/// What a TPM is said to have signed, and with which key.
pub(crate) struct Signed<'a> {
    /// The certificates of the key, as [`Options::chain_of`] completes them.
    pub(crate) chain: &'a [Vec<u8>],
    /// The key's public area, `TPMT_PUBLIC`.
    pub(crate) public: &'a [u8],
    /// What was signed.
    pub(crate) quote: &'a LowLevelQuote,
    /// The signature, `TPMT_SIGNATURE`.
    pub(crate) signature: &'a [u8],
}

impl Steps<'_> {
    /// Steps 2 to 4: the chain, the key, and its quote. `explain` may say more about a fault of the chain.
    pub(crate) fn authenticate(
        &mut self,
        signed: &Signed<'_>,
        options: &Options,
        explain: impl Fn(ChainFault) -> ChainFault,
    ) -> Option<AuthenticQuote> {
        let Signed {
            chain,
            public,
            quote,
            signature,
        } = *signed;
        let proof = chain::verify(chain, &options.trust_anchors, options.time)
            .map_err(|faults| faults.into_iter().map(explain).collect());
        let proof = self.keep(proof);
        let key = self.next(
            proof,
            |proof| key::verify(proof, public),
            || key::inspect(public, chain::unproven_key(chain).as_ref()),
        );
        let area = || PublicArea::parse(public).ok();
        self.next(
            key,
            |key| quote::authenticate(key, quote, signature),
            || quote::inspect(area().as_ref(), quote, signature),
        )
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

impl Options {
    /// The chain of a key, with the intermediates that it lacks where they are at hand.
    pub(crate) fn chain_of(&self, key: &KeyEvidence) -> Vec<Vec<u8>> {
        let chain: Vec<_> = key.certificate_chain.iter().map(|der| der.0.as_slice()).collect();
        self.intermediates
            .complete(&chain, &self.trust_anchors, self.time)
    }
}
