//! Answers that must not be believed, each refused for its real cause.

use aicert_core::attestation::attestation_qualifying_data;
use aicert_core::certificate::qualifying_data;
use aicert_core::tpm::{PcrBank, PcrIndex};
use aicert_verify::Cause;
use aicert_verify::Party;
use aicert_verify::attestation::{self, AttestationFault as Fault};
use aicert_verify::boot::BootFault;
use aicert_verify::chain::ChainFault;
use aicert_verify::eventlog::EventType;
use aicert_verify::key::KeyFault;
use aicert_verify::quote::QuoteFault;
use aicert_verify::reference::ReferenceValues;

use crate::answer::*;
use crate::machine::*;
use crate::support::*;

/// Somebody in the middle passes on what the machine says: it is fresh, genuine, and about the machine's own key.
#[test]
fn an_answer_that_was_passed_on_shows_who_stands_in_between() {
    let recipe = Recipe {
        extra_data: Some(attestation_qualifying_data(&OTHER_KEY, &NONCE).to_vec()),
        ..unused()
    };
    let mut passed_on = answer(&recipe);
    passed_on.tls_key = OTHER_KEY;
    refused!(
        attest(&passed_on),
        Cause::Attestation(Fault::OtherTlsKey { .. }),
        "somebody stands between you and the machine, or the answer is another machine's"
    );
    // And when the middle says that its own key is the machine's.
    passed_on.tls_key = TLS_KEY;
    refused!(
        attest(&passed_on),
        Cause::Attestation(Fault::QualifyingData { .. }),
        "somebody stands between you and the machine, or the answer is another machine's"
    );
    // The quote is right, and the word beside it is not.
    let mut wrong_word = answer(&unused());
    wrong_word.tls_key = OTHER_KEY;
    refused_also!(
        attest(&wrong_word),
        Cause::Attestation(Fault::OtherTlsKey { .. }),
        "somebody stands between"
    );
}

#[test]
fn an_answer_to_another_nonce_is_an_old_one() {
    let recipe = Recipe {
        nonce: OTHER_NONCE,
        extra_data: Some(attestation_qualifying_data(&TLS_KEY, &OTHER_NONCE).to_vec()),
        ..unused()
    };
    refused!(
        attest(&answer(&recipe)),
        Cause::Attestation(Fault::OtherNonce { .. }),
        "it is an older one, or somebody else's"
    );
    let mut renamed = answer(&recipe);
    renamed.quote.nonce = NONCE;
    refused!(
        attest(&renamed),
        Cause::Attestation(Fault::QualifyingData { .. }),
        "qualifying data"
    );
}

#[test]
fn a_quote_about_nothing_or_about_a_log_is_no_attestation() {
    let recipe = |data: Vec<u8>| Recipe {
        extra_data: Some(data),
        ..unused()
    };
    refused!(
        attest(&answer(&recipe(Vec::new()))),
        Cause::Attestation(Fault::NothingBound { .. }),
        "no qualifying data"
    );
    let head = head_of(&[]);
    refused!(
        attest(&answer(&recipe(qualifying_data(&head, &NONCE).to_vec()))),
        Cause::Attestation(Fault::QualifyingData { .. }),
        "qualifying data"
    );
    // Cut, or with something behind it.
    let honest = attestation_qualifying_data(&TLS_KEY, &NONCE);
    for data in [honest[..31].to_vec(), [&honest[..], &[0]].concat()] {
        assert!(attest(&answer(&recipe(data))).is_err());
    }
}

/// What a machine says before a job can never pass for the end of one.
#[test]
fn a_quote_about_a_connection_is_no_quote_about_a_log() {
    let recipe = Recipe {
        extra_data: Some(attestation_qualifying_data(&TLS_KEY, &NONCE).to_vec()),
        nonce: NONCE,
        ..Recipe::default()
    };
    refused!(
        check(&recipe.build()),
        Cause::Quote(QuoteFault::QualifyingData { .. }),
        "another job"
    );
}

#[test]
fn a_machine_that_was_used_is_refused() {
    let value = vec![0xab; 32];
    for pcr in [14, 15] {
        let mut recipe = unused();
        recipe
            .boot_pcrs
            .0
            .insert(PcrIndex::new(pcr).unwrap(), value.clone());
        refused!(
            attest(&answer(&recipe)),
            Cause::Attestation(Fault::Used { .. }),
            &format!(
                "this machine has already been used: PCR {pcr} holds {}",
                hex::encode(&value)
            )
        );
    }
    // A job has run, whole.
    let run = Recipe {
        extra_data: unused().extra_data,
        nonce: NONCE,
        ..recipe(&honest_boot())
    };
    let rejection = attest(&answer(&run)).unwrap_err();
    assert_eq!(rejection.failures().len(), 2, "{rejection}");
    // The values shown are not those quoted.
    let mut hidden = answer(&run);
    for pcr in [PcrIndex::INPUTS, PcrIndex::OUTPUTS] {
        hidden.quote.pcrs.0.insert(pcr, vec![0; 32]);
    }
    refused!(
        attest(&hidden),
        Cause::Quote(QuoteFault::PcrDigest { .. }),
        "the PCR values shown"
    );
}

#[test]
fn an_image_that_measures_into_the_pcrs_of_the_job_is_refused() {
    let mut boot = honest_boot();
    boot.events.push(event(14, EventType::IPL, b"MokList"));
    let rejection = attest(&answer(&about(recipe(&boot)))).unwrap_err();
    assert!(rejection.failures().iter().all(|failure| matches!(
        failure.cause(),
        Cause::Boot(BootFault::JobPcr { .. }) | Cause::Attestation(Fault::Used { .. })
    )));
    assert!(rejection.failures().len() >= 2, "{rejection}");
}

#[test]
fn nothing_is_recognised_without_reference_values() {
    let options = options().with_reference_values(ReferenceValues::default());
    let rejection = attest_with(&answer(&unused()), &options).unwrap_err();
    assert_eq!(rejection.failures()[0].party(), Party::Verifier);
    refused!(
        Err::<(), _>(rejection),
        Cause::Boot(BootFault::NoReferenceValues {}),
        "there are no reference values for images"
    );
    let mut silent = answer(&unused());
    silent.boot_event_log.0.clear();
    refused_also!(
        attest_with(&silent, &options),
        Cause::Attestation(Fault::NoReferenceValues {}),
        "there are no reference values for images"
    );
    refused!(
        attest(&silent),
        Cause::Boot(BootFault::Unexplained { .. }),
        "the boot log is empty"
    );
}

#[test]
fn another_image_is_refused_with_the_difference() {
    let mut boot = honest_boot();
    for event in &mut boot.events {
        if event.hashed.as_deref() == Some(COMMAND_LINE.as_bytes()) {
            event.hashed = Some(b"root=/dev/sda1 init=/bin/sh".to_vec());
        }
    }
    refused_also!(
        attest(&answer(&about(recipe(&boot)))),
        Cause::Boot(BootFault::Changed { .. }),
        "section .cmdline: content"
    );
}

#[test]
fn a_key_that_nobody_vouches_for_is_refused() {
    let other_root = Recipe {
        chain: vec![
            Cert::leaf("ak", "Other Root").der(),
            Cert::ca("Other Root", "Other Root").der(),
        ],
        ..unused()
    };
    refused!(
        attest(&answer(&other_root)),
        Cause::Chain(ChainFault::UnknownRoot { .. }),
        "Other Root"
    );
    // As a machine hands it out that could not fetch the rest: it says where a user gives it.
    let incomplete = Recipe {
        chain: vec![Cert::leaf("ak", "Test CA").der()],
        ..unused()
    };
    let incomplete = attest(&answer(&incomplete));
    let advice = incomplete.as_ref().unwrap_err().failures()[0].advice();
    assert!(
        advice.contains("in `issuers` of the configuration's machine"),
        "{advice}"
    );
    refused!(
        incomplete,
        Cause::Chain(ChainFault::IssuerMissing { .. }),
        "was issued by \"CN=Test CA\", which is not in the chain"
    );
    let expired = Recipe {
        chain: vec![
            Cert {
                until: NOW - 1,
                ..Cert::leaf("ak", "Test CA")
            }
            .der(),
            Cert::ca("Test CA", "Test Root").der(),
            root().der(),
        ],
        ..unused()
    };
    refused!(
        attest(&answer(&expired)),
        Cause::Chain(ChainFault::Expired { .. }),
        "was valid until"
    );
    let unrestricted = Recipe {
        attributes: AK_ATTRIBUTES & !(1 << 16),
        ..unused()
    };
    refused!(
        attest(&answer(&unrestricted)),
        Cause::Key(KeyFault::Attributes { .. }),
        "restricted"
    );
    let other_key = Recipe {
        signer: "another".into(),
        ..unused()
    };
    refused!(
        attest(&answer(&other_key)),
        Cause::Key(KeyFault::NotTheCertifiedKey {}),
        "not the key"
    );
}

#[test]
fn quotes_are_held_to_what_those_of_proofs_are_held_to() {
    let refused_as = |recipe: Recipe, name: &str| {
        let rejection = attest(&answer(&recipe)).unwrap_err();
        let names: Vec<_> = rejection
            .failures()
            .iter()
            .map(|failure| failure.cause().name())
            .collect();
        assert!(names.contains(&name), "{names:?}");
    };
    refused_as(Recipe { magic: 0, ..unused() }, "Magic");
    refused_as(
        Recipe {
            attest_type: 0x8017,
            ..unused()
        },
        "Type",
    );
    refused_as(
        Recipe {
            hierarchy: 0x4000_0001,
            ..unused()
        },
        "QualifiedSigner",
    );
    // PCR 23, which anybody can reset, is shown as PCR 14.
    refused_as(
        Recipe {
            selection: Some((0x000b, (0..14).chain([15, 23]).collect())),
            ..unused()
        },
        "Selection",
    );
    refused_as(
        Recipe {
            selection: Some((0x000b, (0..14).collect())),
            shown: |pcrs| {
                pcrs.0.remove(&PcrIndex::INPUTS);
                pcrs.0.remove(&PcrIndex::OUTPUTS);
            },
            quoted: |pcrs| {
                pcrs.0.remove(&PcrIndex::INPUTS);
                pcrs.0.remove(&PcrIndex::OUTPUTS);
            },
            ..unused()
        },
        "PcrsMissing",
    );
    let boot = honest_boot();
    refused_as(
        Recipe {
            bank: PcrBank::Sha1,
            boot_pcrs: boot.pcrs(PcrBank::Sha1),
            ..unused()
        },
        "Sha1Bank",
    );
    refused_as(
        Recipe {
            signature: |bytes| *bytes.last_mut().unwrap() ^= 1,
            ..unused()
        },
        "Signature",
    );
}

/// One look shows everything: who stands in between, that the machine was used, and that it runs something else.
#[test]
fn everything_wrong_is_reported_at_once() {
    let mut boot = honest_boot();
    let at = position(&boot, |event| event.hashed.as_deref() == Some(b"uki"));
    boot.events[at].hashed = Some(b"other".to_vec());
    let mut recipe = Recipe {
        signer: "another".into(),
        ..about(recipe(&boot))
    };
    recipe.boot_pcrs.0.insert(PcrIndex::INPUTS, vec![1; 32]);
    let mut answer = answer(&recipe);
    answer.tls_key = OTHER_KEY;
    let rejection = attest(&answer).unwrap_err();
    let names: Vec<_> = rejection
        .failures()
        .iter()
        .map(|failure| failure.cause().name())
        .collect();
    for expected in [
        "NotTheCertifiedKey",
        "OtherTlsKey",
        "Used",
        "UnknownImage",
        "Changed",
    ] {
        assert!(names.contains(&expected), "{names:?}");
    }
}

#[test]
fn what_is_no_attestation_is_said_to_be_none() {
    let honest = serde_json::to_string(&answer(&unused())).unwrap();
    for (text, cause) in [
        (
            "<html></html>".to_owned(),
            "the answer is no attestation: line 1, column 1",
        ),
        (
            honest.replacen("{", "{\"more\":1,", 1),
            "the answer is no attestation: line 1",
        ),
        (
            honest.replacen("{", "{\"tls_key\":\"\",", 1),
            "the answer is no attestation: line 1",
        ),
        (
            " ".repeat(aicert_core::attestation::ATTESTATION_LIMIT + 1),
            "at most 8388608 are accepted",
        ),
    ] {
        refused!(
            attestation::read(text.as_bytes()),
            Cause::Attestation(Fault::Malformed { .. }),
            cause
        );
    }
}
