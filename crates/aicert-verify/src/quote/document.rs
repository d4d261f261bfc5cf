//! Attestation documents in the place of quotes.
//!
//! A document brings its signature, its certificates and its PCRs along. In a proof it is the one thing that is believed: what
//! the file has beside it either repeats it (the PCRs and their bank), or is not there. Of what a guest can put into a
//! document, only the nonce is used; a document with anything else was made for another purpose.

use std::collections::BTreeSet;

use aicert_core::certificate::{KeyEvidence, LowLevelQuote};
use aicert_core::tpm::PcrBank;

use super::{AuthenticQuote, QuoteFault, Signer, check_coverage, list};
use crate::nitro::{Claims, VerifiedDocument};

/// Authenticates a quote that is an attestation document: it covers exactly the PCRs that it is shown with, and holds nothing of
/// the guest's but a nonce.
///
/// `document` must be what [`crate::nitro::verify`] made of the quote's bytes; this function compares what they say.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn authenticate_document(
    document: VerifiedDocument,
    quote: &LowLevelQuote,
) -> Result<AuthenticQuote, Vec<QuoteFault>> {
    let faults = inspect_document(Some(document.claims()), quote);
    if faults.is_empty() {
        Ok(AuthenticQuote {
            bank: document.bank(),
            pcrs: document.pcrs().clone(),
            signer: Signer::Document(Box::new(document)),
        })
    } else {
        Err(faults)
    }
}

/// What is wrong with how a document is shown, as far as it can be read.
pub(crate) fn inspect_document(claims: Option<&Claims>, quote: &LowLevelQuote) -> Vec<QuoteFault> {
    let mut faults = Vec::new();
    if quote.bank != PcrBank::Sha384 {
        faults.push(QuoteFault::DocumentBank { found: quote.bank });
    }
    check_coverage(quote, &mut faults);
    let Some(claims) = claims else {
        return faults;
    };
    if claims.is_tagged {
        faults.push(QuoteFault::TaggedDocument {});
    }
    let (covered, shown) = (&claims.pcrs().0, &quote.pcrs.0);
    let numbers = |values: &std::collections::BTreeMap<_, Vec<u8>>| values.keys().copied().collect();
    let (covered_numbers, shown_numbers): (BTreeSet<_>, BTreeSet<_>) = (numbers(covered), numbers(shown));
    if covered_numbers != shown_numbers {
        faults.push(QuoteFault::Selection {
            expected: list(&shown_numbers),
            found: list(&covered_numbers),
        });
    }
    for (pcr, found) in shown {
        if let Some(expected) = covered.get(pcr).filter(|expected| *expected != found) {
            faults.push(QuoteFault::DocumentPcr {
                pcr: *pcr,
                expected: hex::encode(expected),
                found: hex::encode(found),
            });
        }
    }
    let of_the_guest = [
        ("user_data", claims.user_data()),
        ("public_key", claims.public_key()),
    ];
    for (field, _) in of_the_guest.iter().filter(|(_, data)| data.is_some()) {
        faults.push(QuoteFault::GuestData { field });
    }
    faults
}

/// What stands beside a document, and must not.
pub(crate) fn inspect_beside(signature: &[u8], key: &KeyEvidence) -> Vec<QuoteFault> {
    let parts = [
        ("a signature", !signature.is_empty()),
        ("the public area of a key", !key.public.0.is_empty()),
        ("a chain of certificates", !key.certificate_chain.is_empty()),
    ];
    parts
        .into_iter()
        .filter(|(_, is_there)| *is_there)
        .map(|(what, _)| QuoteFault::BesideDocument { what })
        .collect()
}
