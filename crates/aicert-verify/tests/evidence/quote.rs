//! Quotes outside of proofs, forged from keys made on the spot.

use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues};
use aicert_verify::chain::ChainFault;
use aicert_verify::evidence::{self, Evidence, Expected, PcrBanks, VerifiedQuote};
use aicert_verify::key::KeyFault;
use aicert_verify::quote::QuoteFault;
use aicert_verify::{Cause, Rejection};

use crate::support::*;

/// Everything of a quote below a local authority. Starts honest; tests change fields.
struct Recipe {
    signer: &'static str,
    attributes: u32,
    public: bool,
    extra: Vec<u8>,
    selections: Vec<(u16, Vec<u8>)>,
    quoted: PcrValues,
    given: PcrBanks,
    /// Changes the signed bytes before they are signed.
    message: fn(&mut Vec<u8>),
    /// Makes the signature that is shown from the one of a TPM and the one in DER.
    signature: fn(Vec<u8>, Vec<u8>) -> Vec<u8>,
}

const PCRS: [u8; 4] = [0, 4, 7, 14];

impl Default for Recipe {
    fn default() -> Self {
        Self {
            signer: "ak",
            attributes: AK_ATTRIBUTES,
            public: true,
            extra: vec![0x5a; 20],
            selections: vec![(0x000b, PCRS.to_vec())],
            quoted: values(PCRS),
            given: PcrBanks::of(PcrBank::Sha256, values(PCRS)),
            message: |_| {},
            signature: |tpm, _| tpm,
        }
    }
}

fn root() -> Cert {
    Cert::ca("Root", "Root")
}

fn expected() -> Expected {
    Expected::new(anchors(&root()), now())
}

impl Recipe {
    fn verify(&self) -> Result<VerifiedQuote, Rejection> {
        self.verify_for(&expected())
    }

    fn verify_for(&self, expected: &Expected) -> Result<VerifiedQuote, Rejection> {
        let key = p256_key("ak");
        let public = public_area(&key, self.attributes);
        let selections: Vec<_> = self
            .selections
            .iter()
            .map(|(bank, pcrs)| (*bank, &pcrs[..]))
            .collect();
        let mut message = attest(&qualified_name(&public), &self.extra, &selections, &self.quoted);
        (self.message)(&mut message);
        let (tpm, der) = sign(&p256_key(self.signer), &message);
        let chain = [Cert::leaf("ak", "CA"), Cert::ca("CA", "Root"), root()];
        evidence::verify(
            &Evidence {
                message: &message,
                signature: &(self.signature)(tpm, der),
                pcrs: &self.given,
                certificates: &pool(chain.iter().map(Cert::der)).unwrap(),
                public: self.public.then_some(&public),
            },
            expected,
        )
    }
}

#[test]
fn a_quote_below_a_local_authority_holds_in_either_form_and_is_simulated() {
    for signature in [|tpm: Vec<u8>, _: Vec<u8>| tpm, |_: Vec<u8>, der: Vec<u8>| der] {
        let recipe = Recipe {
            signature,
            ..Recipe::default()
        };
        let quote = recipe.verify_for(&expected().answering([0x5a; 20])).unwrap();
        assert!(quote.is_simulated() && quote.answers_nonce() && quote.public_area().is_some());
        assert_eq!(quote.platform_name(), "local-ca");
        assert_eq!(quote.pcrs(), &values(PCRS));
        assert_eq!(quote.clock().clock, 1_000);
        assert_eq!((quote.clock().reset_count, quote.clock().restart_count), (2, 1));
    }
}

#[test]
fn a_local_authority_must_show_what_the_key_may_do() {
    refused!(
        Recipe {
            public: false,
            ..Recipe::default()
        }
        .verify(),
        Cause::Key(KeyFault::PublicAreaMissing {}),
        "nothing shows that it signs only what its TPM made"
    );
    refused!(
        Recipe {
            attributes: AK_ATTRIBUTES & !(1 << 16),
            ..Recipe::default()
        }
        .verify(),
        Cause::Key(KeyFault::Attributes { .. }),
        "is not restricted"
    );
}

#[test]
fn a_quote_by_another_key_than_the_certified_one_is_refused() {
    refused!(
        Recipe {
            signer: "other",
            ..Recipe::default()
        }
        .verify(),
        Cause::Quote(QuoteFault::Signature {}),
        "was not made by the attestation key"
    );
}

#[test]
fn a_signature_is_read_in_the_form_that_its_first_byte_tells_and_in_no_other() {
    // Broken as the one form, it is not tried as the other.
    for (signature, text) in [
        (
            (|tpm, _| [vec![0x30], tpm].concat()) as fn(Vec<u8>, Vec<u8>) -> Vec<u8>,
            "not an ECDSA signature in exact DER",
        ),
        (|_, der| [vec![0], der].concat(), "expected RSASSA (0x0014)"),
        (|_, _| vec![0x31, 0x32, 0x33], "begins with 3132"),
        (|_, _| Vec::new(), "begins with nothing"),
        (|_, der| [der, vec![0]].concat(), "exact DER"),
        // A longer form of the length.
        (|_, der| [&[0x30, 0x81, der[1]], &der[2..]].concat(), "exact DER"),
        // A zero more before the first number, which is shorter or longer than the field.
        (
            |_, der| {
                let r = usize::from(der[3]);
                [
                    &[0x30, der[1] + 1, 2, der[3] + 1, 0][..],
                    &der[4..4 + r],
                    &der[4 + r..],
                ]
                .concat()
            },
            "exact DER",
        ),
        // The negative number that has the same bytes.
        (|_, _| vec![0x30, 6, 2, 1, 0x81, 2, 1, 0x81], "exact DER"),
    ] {
        refused!(
            Recipe {
                signature,
                ..Recipe::default()
            }
            .verify(),
            Cause::Quote(
                QuoteFault::SignatureDer { .. }
                    | QuoteFault::SignatureForm { .. }
                    | QuoteFault::Scheme { .. }
            ),
            text
        );
    }
}

#[test]
fn a_number_of_a_signature_has_one_spelling_in_a_tpm_signature() {
    // The same number with a zero more in front.
    refused!(
        Recipe {
            signature: |tpm, _| [&[0, 0x18, 0, 0x0b, 0, 33, 0][..], &tpm[6..]].concat(),
            ..Recipe::default()
        }
        .verify(),
        Cause::Quote(QuoteFault::Signature {}),
        "was not made by the attestation key"
    );
}

#[test]
fn a_structure_that_no_tpm_made_or_that_is_no_quote_is_refused() {
    refused!(
        Recipe {
            message: |message| message[0] ^= 1,
            ..Recipe::default()
        }
        .verify(),
        Cause::Quote(QuoteFault::Magic { .. }),
        "TPM_GENERATED_VALUE"
    );
    refused!(
        Recipe {
            message: |message| message[5] = 0x17,
            ..Recipe::default()
        }
        .verify(),
        Cause::Quote(QuoteFault::Type { found: 0x8017, .. }),
        "0x8017"
    );
    refused!(
        Recipe {
            message: |message| message.push(0),
            ..Recipe::default()
        }
        .verify(),
        Cause::Quote(QuoteFault::Malformed { .. }),
        "1 bytes follow"
    );
}

#[test]
fn values_of_pcrs_that_the_quote_does_not_cover_are_never_shown_as_verified() {
    let more = PcrBanks::of(PcrBank::Sha256, values([0, 4, 7, 14, 15, 23]));
    let recipe = Recipe {
        given: more,
        ..Recipe::default()
    };
    refused!(
        recipe.verify(),
        Cause::Quote(QuoteFault::NotCovered { .. }),
        "values of PCRs 15,23 were given, which the quote does not cover; it covers 0,4,7,14"
    );
    let quote = recipe
        .verify_for(&expected().setting_aside_pcrs_not_covered())
        .unwrap();
    assert_eq!(quote.pcrs(), &values(PCRS));
    let aside: Vec<_> = quote.pcrs_set_aside().iter().map(|pcr| pcr.as_u8()).collect();
    assert_eq!(aside, [15, 23]);
}

#[test]
fn values_of_a_resettable_pcr_shown_as_another_are_refused() {
    // PCR 23 was quoted with the value that PCR 14 should have.
    let mut quoted = values([0, 4, 7]);
    quoted.0.insert(PcrIndex::new(23).unwrap(), vec![14; 32]);
    let recipe = Recipe {
        selections: vec![(0x000b, vec![0, 4, 7, 23])],
        quoted,
        ..Recipe::default()
    };
    for expected in [expected(), expected().setting_aside_pcrs_not_covered()] {
        refused!(
            recipe.verify_for(&expected),
            Cause::Quote(QuoteFault::NotGiven { .. } | QuoteFault::NotCovered { .. }),
            "the quote covers PCRs 23, whose values were not given"
        );
    }
}

#[test]
fn values_altered_cut_or_of_another_bank_are_refused() {
    let mut altered = values(PCRS);
    altered.0.get_mut(&PcrIndex::new(4).unwrap()).unwrap()[31] ^= 1;
    refused!(
        Recipe {
            given: PcrBanks::of(PcrBank::Sha256, altered),
            ..Recipe::default()
        }
        .verify(),
        Cause::Quote(QuoteFault::PcrDigest { .. }),
        "the TPM signed"
    );
    // A byte moved from one value to the next leaves the digest as it was.
    let mut moved = values(PCRS);
    let byte = moved
        .0
        .get_mut(&PcrIndex::new(4).unwrap())
        .unwrap()
        .pop()
        .unwrap();
    moved
        .0
        .get_mut(&PcrIndex::new(7).unwrap())
        .unwrap()
        .insert(0, byte);
    refused!(
        Recipe {
            given: PcrBanks::of(PcrBank::Sha256, moved),
            ..Recipe::default()
        }
        .verify(),
        Cause::Quote(QuoteFault::ValueLength { .. }),
        "the value of PCR 4 has 31 bytes"
    );
    refused!(
        Recipe {
            given: PcrBanks::of(PcrBank::Sha384, PcrValues::default()),
            ..Recipe::default()
        }
        .verify(),
        Cause::Quote(QuoteFault::BankNotGiven { .. }),
        "the quote covers the bank sha256; values were given of sha384"
    );
    refused!(
        Recipe {
            given: PcrBanks::default(),
            ..Recipe::default()
        }
        .verify(),
        Cause::Quote(QuoteFault::BankNotGiven { .. }),
        "values were given of no bank"
    );
}

#[test]
fn a_quote_over_no_pcr_no_bank_two_banks_or_the_sha1_bank_is_refused() {
    let none = PcrValues::default();
    refused!(
        Recipe {
            selections: vec![(0x000b, vec![])],
            quoted: none.clone(),
            given: PcrBanks::of(PcrBank::Sha256, none.clone()),
            ..Recipe::default()
        }
        .verify(),
        Cause::Quote(QuoteFault::NoPcrs {}),
        "covers no PCR at all"
    );
    for (selections, text) in [
        (vec![], "the banks none"),
        (
            vec![(0x000b, PCRS.to_vec()), (0x0004, PCRS.to_vec())],
            "the banks 0x000b, 0x0004",
        ),
        (
            vec![(0x000b, PCRS.to_vec()), (0x000b, PCRS.to_vec())],
            "the banks 0x000b, 0x000b",
        ),
        (vec![(0x0012, PCRS.to_vec())], "the banks 0x0012"),
    ] {
        refused!(
            Recipe {
                selections,
                ..Recipe::default()
            }
            .verify(),
            Cause::Quote(QuoteFault::NotOneBank { .. }),
            text
        );
    }
    refused!(
        Recipe {
            selections: vec![(0x0004, PCRS.to_vec())],
            ..Recipe::default()
        }
        .verify(),
        Cause::Quote(QuoteFault::Sha1Bank {}),
        "can be made to collide"
    );
}

#[test]
fn a_quote_signed_with_sha1_is_refused() {
    refused!(
        Recipe {
            signature: |mut tpm, _| {
                tpm[3] = 4;
                tpm
            },
            ..Recipe::default()
        }
        .verify(),
        Cause::Quote(QuoteFault::Scheme { found: 4, .. }),
        "SHA-1 is refused"
    );
}

#[test]
fn a_quote_that_answers_nothing_or_another_nonce_is_refused_where_one_was_posed() {
    refused!(
        Recipe {
            extra: Vec::new(),
            ..Recipe::default()
        }
        .verify_for(&expected().answering([0x5a; 20])),
        Cause::Quote(QuoteFault::NonceMissing { .. }),
        "the quote has no qualifying data"
    );
    for nonce in [vec![0x5a; 19], vec![0x5a; 21], vec![0x5b; 20]] {
        refused!(
            Recipe::default().verify_for(&expected().answering(nonce)),
            Cause::Quote(QuoteFault::OtherNonce { .. }),
            "the quote's qualifying data is 5a5a"
        );
    }
}

#[test]
fn everything_wrong_is_reported_at_once() {
    let mut wrong = expected().answering([1]);
    wrong.time = aicert_core::time::Timestamp::from_unix(NOW + 2 * DAY);
    let rejection = Recipe {
        signer: "other",
        attributes: AK_ATTRIBUTES & !(1 << 1),
        given: PcrBanks::of(PcrBank::Sha256, values([0, 4, 7, 14, 23])),
        ..Recipe::default()
    }
    .verify_for(&wrong)
    .unwrap_err();
    let has = |wanted: fn(&Cause) -> bool| rejection.failures().iter().any(|failure| wanted(failure.cause()));
    assert!(
        has(|cause| matches!(cause, Cause::Chain(ChainFault::Expired { .. }))),
        "{rejection}"
    );
    assert!(
        has(|cause| matches!(cause, Cause::Key(KeyFault::Attributes { .. }))),
        "{rejection}"
    );
    assert!(
        has(|cause| matches!(cause, Cause::Quote(QuoteFault::Signature {}))),
        "{rejection}"
    );
    assert!(
        has(|cause| matches!(cause, Cause::Quote(QuoteFault::NotCovered { .. }))),
        "{rejection}"
    );
    assert!(
        has(|cause| matches!(cause, Cause::Quote(QuoteFault::OtherNonce { .. }))),
        "{rejection}"
    );
}
