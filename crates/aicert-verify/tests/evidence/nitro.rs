//! Attestation documents of NitroTPM, forged with a test authority whose keys are made on the spot.

use aicert_core::time::Timestamp;
use aicert_verify::chain::ChainFault;
use aicert_verify::nitro::{self, CborError, Expected, NitroFault, VerifiedDocument};
use aicert_verify::{Cause, Rejection, TrustAnchors};
use proptest::prelude::*;

use crate::document::*;
use crate::support::*;

trait Verify {
    fn verify(&self) -> Result<VerifiedDocument, Rejection>;
}

impl Verify for Recipe {
    fn verify(&self) -> Result<VerifiedDocument, Rejection> {
        nitro::verify(&self.document(), &expected())
    }
}

#[test]
fn an_honest_document_holds_and_is_simulated_under_another_root_than_that_of_aws() {
    let document = Recipe::default().document();
    let verified = nitro::verify(&document, &expected().answering([7; 32])).unwrap();
    assert!(verified.is_simulated() && verified.answers_nonce());
    assert_eq!(verified.module_id(), "i-0123-tpm0000");
    assert_eq!(verified.instance_id(), "i-0123");
    assert_eq!(verified.timestamp(), now());
    assert_eq!(verified.pcrs().0.len(), 24);
    assert_eq!(verified.user_data(), Some(&b"data"[..]));
    assert_eq!(verified.public_key(), None);
    assert_eq!(verified.subjects().len(), 4);
    assert_eq!(verified.valid_from().as_unix(), NOW - 3);

    // With the tag, with a map of definite length, and without the fields that may be left out.
    let tagged = [&[0xd2][..], &document].concat();
    nitro::verify(&tagged, &expected()).unwrap();
    let recipe = Recipe::default();
    let definite = recipe.document_with(Item::Map(recipe.fields.clone()).write());
    nitro::verify(&definite, &expected()).unwrap();
    for field in ["public_key", "user_data", "nonce"] {
        Recipe::without(field).verify().unwrap();
    }
    assert_eq!(Recipe::without("nonce").verify().unwrap().nonce(), None);
}

#[test]
fn a_document_whose_root_is_not_believed_is_refused() {
    let document = Recipe::default().document();
    refused!(
        nitro::verify(&document, &Expected::new(TrustAnchors::pinned(), now())),
        Cause::Chain(ChainFault::UnknownRoot { .. }),
        "CN=test.nitro"
    );
}

#[test]
fn a_document_of_an_enclave_is_refused_for_what_it_is() {
    let mut recipe = Recipe::without("nitrotpm_pcrs");
    recipe.fields.push((text("pcrs"), pcrs(0..16)));
    refused!(
        recipe.verify(),
        Cause::Nitro(NitroFault::Enclave {}),
        "is one of a Nitro Enclave"
    );
    refused!(
        Recipe::and("pcrs", pcrs(0..16)).verify(),
        Cause::Nitro(NitroFault::Enclave {}),
        "is one of a Nitro Enclave"
    );
}

#[test]
fn another_algorithm_is_refused() {
    let alg = |value| Item::Map(vec![(Item::Number(1), value)]);
    for (protected, found) in [
        (alg(Item::Negative(6)), "algorithm -7;"),
        (alg(Item::Negative(35)), "algorithm -36;"),
        (alg(Item::Number(34)), "algorithm 34;"),
        (alg(Item::Negative(u64::MAX)), "algorithm -18446744073709551616;"),
        (alg(text("ES384")), "algorithm a text;"),
    ] {
        refused!(
            Recipe {
                protected,
                ..Recipe::default()
            }
            .verify(),
            Cause::Nitro(NitroFault::Algorithm { .. }),
            found
        );
    }
}

#[test]
fn another_protected_header_is_refused() {
    let es384 = || (Item::Number(1), Item::Negative(34));
    for protected in [
        Item::Map(vec![]),
        Item::Map(vec![es384(), (Item::Number(4), Item::Bytes(vec![1]))]),
        // `crit`: somebody demands that something be understood.
        Item::Map(vec![
            es384(),
            (Item::Number(2), Item::Array(vec![Item::Number(4)])),
        ]),
        Item::Map(vec![(Item::Number(2), Item::Negative(34))]),
        Item::Array(vec![Item::Negative(34)]),
    ] {
        refused!(
            Recipe {
                protected,
                ..Recipe::default()
            }
            .verify(),
            Cause::Nitro(NitroFault::Protected { .. }),
            "the protected header is not the one of attestation documents"
        );
    }
    for (protected, error) in [
        ("", "ends inside"),
        ("a201382201 3822", "stands twice"),
        ("a1013822 00", "1 bytes follow"),
        ("a101390022", "longer form"),
        ("a118013822", "longer form"),
    ] {
        let raw = Item::Raw(hex::decode(protected.replace(' ', "")).unwrap());
        refused!(
            Recipe {
                protected: raw,
                ..Recipe::default()
            }
            .verify(),
            Cause::Nitro(NitroFault::Cbor {
                part: "protected header",
                ..
            }),
            error
        );
    }
}

#[test]
fn an_unprotected_header_that_overrides_anything_is_refused() {
    for unprotected in [
        Item::Map(vec![(Item::Number(1), Item::Negative(34))]),
        Item::Map(vec![(Item::Number(33), Item::Bytes(nitro_leaf().der()))]),
        Item::OpenMap(vec![]),
    ] {
        refused!(
            Recipe {
                unprotected,
                ..Recipe::default()
            }
            .verify(),
            Cause::Nitro(NitroFault::Unprotected {}),
            "nothing in it is signed"
        );
    }
}

#[test]
fn what_is_no_sign1_is_refused() {
    for (envelope, text) in [
        (
            (|[a, b, c, d]| [vec![0x85], a, b, c, d, vec![0]].concat()) as fn([Vec<u8>; 4]) -> Vec<u8>,
            "not an array of four",
        ),
        (
            |[a, b, c, _]| [vec![0x83], a, b, c].concat(),
            "not an array of four",
        ),
        // Of indefinite length: a second spelling of what is not signed.
        (
            |e| [vec![0x9f], e.concat(), vec![0xff]].concat(),
            "not an array of four",
        ),
        // The tag of COSE_Sign, and that of COSE_Sign1 in a longer form or twice.
        (
            |e| [vec![0xd8, 0x62, 0x84], e.concat()].concat(),
            "not an array of four",
        ),
        (
            |e| [vec![0xd8, 0x12, 0x84], e.concat()].concat(),
            "not an array of four",
        ),
        (
            |e| [vec![0xd2, 0xd2, 0x84], e.concat()].concat(),
            "not an array of four",
        ),
        (
            |[_, b, c, d]| [vec![0x84, 0xa0], b, c, d].concat(),
            "the protected header",
        ),
        (
            |[a, _, c, d]| [vec![0x84], a, vec![0x40], c, d].concat(),
            "the unprotected header",
        ),
        // A detached payload.
        (
            |[a, b, _, d]| [vec![0x84], a, b, vec![0xf6], d].concat(),
            "the payload is not",
        ),
        (
            |[a, b, c, _]| [vec![0x84], a, b, c, vec![0xf6]].concat(),
            "the signature is not",
        ),
        (|e| [vec![0x84], e.concat(), vec![0]].concat(), "1 bytes follow"),
        (
            |[a, b, c, d]| [vec![0x84], a, b, c, d[..97].to_vec()].concat(),
            "it ends inside",
        ),
        (
            |[a, b, c, d]| [vec![0x84], a, b, c, vec![0x58, 97], d[2..].to_vec(), vec![0]].concat(),
            "has 97 bytes; one of ES384 has 96",
        ),
        (|_| Vec::new(), "not an array of four"),
        (|_| vec![0x84], "it ends inside"),
        (|_| vec![0x84; 40_000], "at most 32768"),
        // Sizes that no document has.
        (
            |_| [&[0x84, 0x5b][..], &[0xff; 8]].concat(),
            "which needs 18446744073709551615 more bytes where 0 are left",
        ),
        (
            |_| [&[0x84][..], &[0x81; 5_000]].concat(),
            "nested more than 3 deep",
        ),
    ] {
        let rejection = Recipe {
            envelope,
            ..Recipe::default()
        }
        .verify()
        .unwrap_err();
        assert!(
            matches!(rejection.failures()[0].cause(), Cause::Nitro(_)),
            "{rejection}"
        );
        assert!(rejection.to_string().contains(text), "{text}: {rejection}");
    }
}

#[test]
fn another_signer_or_a_swapped_certificate_is_refused() {
    refused!(
        Recipe {
            signer: "stranger",
            ..Recipe::default()
        }
        .verify(),
        Cause::Nitro(NitroFault::Signature {}),
        "is not signed by the key of its certificate"
    );
    // Another machine's certificate, of the same authority.
    let other = Cert {
        key: Key::P384(p384_key("another machine")),
        ..nitro_leaf()
    };
    refused!(
        Recipe::with("certificate", Item::Bytes(other.der())).verify(),
        Cause::Nitro(NitroFault::Signature {}),
        "is not signed by the key of its certificate"
    );
    // The certificate of an authority, with which it could have signed.
    let authority = Recipe {
        signer: "i-0123",
        ..Recipe::with("certificate", Item::Bytes(bundle()[2].der()))
    };
    let above = bundle()[..2].iter().map(|cert| Item::Bytes(cert.der())).collect();
    let fields = authority.fields.iter().map(|(key, value)| match key {
        Item::Text(name) if name == "cabundle" => (key.clone(), Item::Array(Vec::clone(&above))),
        _ => (key.clone(), value.clone()),
    });
    let authority = Recipe {
        fields: fields.collect(),
        ..authority
    };
    refused!(
        authority.verify(),
        Cause::Chain(ChainFault::LeafIsAuthority { .. } | ChainFault::KeyUsage { position: 0, .. }),
        "is one of a certificate authority"
    );
    let weaker = Cert {
        key: Key::P256(p256_key("i-0123-tpm0000")),
        ..nitro_leaf()
    };
    refused!(
        Recipe::with("certificate", Item::Bytes(weaker.der())).verify(),
        Cause::Nitro(NitroFault::Key {}),
        "not one over P-384"
    );
    // One for attestation keys of TPMs.
    let other = Cert {
        purposes: &[AIK],
        ..nitro_leaf()
    };
    refused!(
        Recipe::with("certificate", Item::Bytes(other.der())).verify(),
        Cause::Chain(ChainFault::ExtendedKeyUsage { position: 0, .. }),
        "for the purposes 2.23.133.8.3"
    );
}

#[test]
fn a_bundle_that_is_not_the_path_from_the_root_is_refused() {
    let of = |certs: &[Cert]| {
        let certs = certs.iter().map(|cert| Item::Bytes(cert.der())).collect();
        Recipe::with("cabundle", Item::Array(certs))
    };
    let [root, zonal, instance] = <[Cert; 3]>::try_from(bundle()).ok().unwrap();
    refused!(
        of(&[root.clone(), instance.clone(), zonal.clone()]).verify(),
        Cause::Nitro(NitroFault::BundleOrder {}),
        "in that order and without others"
    );
    refused!(
        of(&[root.clone(), instance.clone()]).verify(),
        Cause::Chain(ChainFault::IssuerMissing { position: 1, .. }),
        "CN=zonal"
    );
    let reversed = of(&[instance.clone(), zonal.clone(), root.clone()]).verify();
    assert!(
        reversed
            .unwrap_err()
            .failures()
            .iter()
            .any(|failure| matches!(failure.cause(), Cause::Chain(ChainFault::UnknownRoot { .. })))
    );
    refused!(
        of(&[
            root.clone(),
            Cert::ca("other", "other"),
            zonal.clone(),
            instance.clone()
        ])
        .verify(),
        Cause::Chain(ChainFault::Unused { .. }),
        "has no part in the chain"
    );
    let broken = Cert {
        signer: Key::P384(p384_key("stranger")),
        ..zonal.clone()
    };
    refused!(
        of(&[root.clone(), broken, instance.clone()]).verify(),
        Cause::Chain(ChainFault::BadSignature { position: 2, .. }),
        "CN=zonal"
    );
    let short = Cert {
        path_length: Some(0),
        ..zonal.clone()
    };
    refused!(
        of(&[root.clone(), short, instance]).verify(),
        Cause::Chain(ChainFault::PathLength { .. }),
        "allows 0 intermediates"
    );
    refused!(
        of(&[]).verify(),
        Cause::Chain(ChainFault::IssuerMissing { position: 0, .. }),
        "CN=i-0123"
    );
    let many = vec![root; 8];
    refused!(
        of(&many).verify(),
        Cause::Chain(ChainFault::Length { found: 9 }),
        "2 to 8"
    );
}

#[test]
fn every_certificate_must_be_valid_and_the_document_made_while_its_own_was() {
    let verify = |seconds: i64| {
        let mut expected = expected();
        expected.time = Timestamp::from_unix(NOW + seconds);
        nitro::verify(&Recipe::default().document(), &expected)
    };
    verify(3 * 3_600).unwrap();
    refused!(
        verify(3 * 3_600 + 1),
        Cause::Chain(ChainFault::Expired { position: 0, .. }),
        "CN=i-0123-tpm0000"
    );
    refused!(
        verify(-4),
        Cause::Chain(ChainFault::NotYetValid { position: 0, .. }),
        "CN=i-0123-tpm0000"
    );
    for seconds in [-4, 3 * 3_600 + 1] {
        let made = Item::Number((NOW + seconds) as u64 * 1_000);
        refused!(
            Recipe::with("timestamp", made).verify(),
            Cause::Nitro(NitroFault::MadeOutsideValidity { .. }),
            "its certificate is valid from 2025-12-31T23:59:57Z to 2026-01-01T03:00:00Z"
        );
    }
}

#[test]
fn missing_unknown_and_doubled_fields_are_refused() {
    for field in [
        "module_id",
        "digest",
        "timestamp",
        "nitrotpm_pcrs",
        "certificate",
        "cabundle",
    ] {
        refused!(
            Recipe::without(field).verify(),
            Cause::Nitro(NitroFault::Missing { field: f }) if *f == field,
            &format!("has no `{field}`")
        );
    }
    refused!(
        Recipe::and("extra\u{1b}", Item::Null).verify(),
        Cause::Nitro(NitroFault::Unknown { .. }),
        "the field \"extra\\u{1b}\""
    );
    refused!(
        Recipe::and("digest", text("SHA384")).verify(),
        Cause::Nitro(NitroFault::Cbor {
            part: "payload",
            error: CborError::Duplicate { .. }
        }),
        "stands twice"
    );
}

#[test]
fn fields_of_another_kind_or_value_are_refused() {
    let own = Recipe::with;
    for (recipe, sentence) in [
        (own("digest", text("SHA256")), "of the digest \"SHA256\""),
        (
            own("digest", Item::Bytes(b"SHA384".to_vec())),
            "`digest` is a byte string",
        ),
        (own("module_id", text("")), "`module_id` is a text of 0 bytes"),
        (
            own("module_id", text("i-0\u{1b}[2J")),
            "`module_id` is \"i-0\\u{1b}[2J\"",
        ),
        (
            own("module_id", text(&"i".repeat(129))),
            "`module_id` is a text of 129 bytes",
        ),
        (
            own("module_id", Item::Number(1)),
            "`module_id` is an unsigned integer",
        ),
        (
            own("timestamp", Item::Negative(1)),
            "`timestamp` is a negative integer",
        ),
        (
            own("timestamp", Item::Number(u64::MAX)),
            "`timestamp` is 18446744073709551615",
        ),
        (own("certificate", Item::Null), "`certificate` is null"),
        (
            own("cabundle", Item::Bytes(vec![])),
            "`cabundle` is a byte string",
        ),
        (
            own("cabundle", Item::Array(vec![text("x")])),
            "`cabundle` is a text",
        ),
        (own("public_key", text("key")), "`public_key` is a text"),
        (
            own("user_data", Item::Bytes(vec![0; 1_025])),
            "`user_data` is a byte string of 1025",
        ),
        (own("nonce", Item::Array(vec![])), "`nonce` is an array"),
        (
            own("nitrotpm_pcrs", Item::Array(vec![])),
            "`nitrotpm_pcrs` is an array",
        ),
        (own("nitrotpm_pcrs", pcrs([])), "covers no PCR at all"),
        (own("nitrotpm_pcrs", pcrs([0, 24])), "the PCR 24"),
        (own("nitrotpm_pcrs", pcrs([256])), "the PCR 256"),
        (
            own(
                "nitrotpm_pcrs",
                Item::Map(vec![(text("0"), Item::Bytes(vec![0; 48]))]),
            ),
            "the PCR a text",
        ),
        (
            own(
                "nitrotpm_pcrs",
                Item::Map(vec![(Item::Number(3), Item::Bytes(vec![0; 32]))]),
            ),
            "the value of PCR 3 has 32 bytes",
        ),
        (
            own("nitrotpm_pcrs", Item::Map(vec![(Item::Number(3), Item::Null)])),
            "`nitrotpm_pcrs` is null",
        ),
        (own("user_data", Item::Raw(vec![0xf7])), "begins with 0xf7"),
        (
            own("user_data", Item::Raw(vec![0x5f, 0x41, 0, 0xff])),
            "of indefinite length",
        ),
        (own("user_data", Item::Raw(vec![0x58, 1, 0])), "longer form"),
        (own("user_data", Item::Raw(vec![0xc0, 0x40])), "begins with 0xc0"),
        (
            own("user_data", Item::Raw(vec![0x81; 100])),
            "nested more than 3 deep",
        ),
        (
            own(
                "user_data",
                Item::Raw(vec![0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            ),
            "more than 64",
        ),
        (own("nitrotpm_pcrs", pcrs(0..65)), "more than 64"),
    ] {
        refused!(recipe.verify(), Cause::Nitro(_), sentence);
    }
    let recipe = Recipe::default();
    for (payload, sentence) in [
        (Item::Array(vec![]).write(), "`payload` is an array"),
        (
            Item::Map(vec![(Item::Number(1), Item::Null)]).write(),
            "`payload` is an unsigned integer",
        ),
        (Vec::new(), "it ends inside"),
        (
            [Item::OpenMap(fields()).write(), vec![0]].concat(),
            "1 bytes follow",
        ),
        (vec![0xbf], "it ends inside"),
    ] {
        refused!(
            nitro::verify(&recipe.document_with(payload), &expected()),
            Cause::Nitro(_),
            sentence
        );
    }
}

#[test]
fn another_nonce_or_none_is_refused_where_one_was_posed() {
    let verify =
        |recipe: &Recipe, nonce: &[u8]| nitro::verify(&recipe.document(), &expected().answering(nonce));
    refused!(
        verify(&Recipe::default(), &[7; 31]),
        Cause::Nitro(NitroFault::OtherNonce { .. }),
        "answers the nonce 0707"
    );
    for recipe in [Recipe::without("nonce"), Recipe::with("nonce", Item::Null)] {
        refused!(
            verify(&recipe, &[7; 32]),
            Cause::Nitro(NitroFault::NonceMissing { .. }),
            "the document has no nonce"
        );
    }
    refused!(
        verify(&Recipe::default(), &[]),
        Cause::Nitro(NitroFault::EmptyNonce {}),
        "is empty"
    );
    assert!(!Recipe::default().verify().unwrap().answers_nonce());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Bytes removed, doubled or inserted: refused without a panic.
    #[test]
    fn a_document_that_was_changed_anywhere_is_refused(
        at in any::<prop::sample::Index>(),
        length in 0usize..60,
        inserted in proptest::collection::vec(any::<u8>(), 0..8),
    ) {
        let honest = Recipe::default().document();
        let mut document = honest.clone();
        let start = at.index(document.len());
        let end = (start + length).min(document.len());
        document.splice(start..end, inserted);
        if document != honest {
            prop_assert!(nitro::verify(&document, &expected()).is_err());
            let _ = nitro::unverified_timestamp(&document);
        }
    }

    /// Bytes of all kinds, signed by whoever could.
    #[test]
    fn a_payload_of_any_bytes_is_refused(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        let document = Recipe::default().document_with(payload);
        prop_assert!(nitro::verify(&document, &expected()).is_err());
    }
}
