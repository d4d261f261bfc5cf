//! What holds, so that everything else is known to be refused for its own reason.

use aicert_core::certificate::PlatformKind;
use aicert_core::digest::Nonce;
use aicert_verify::quote::QuoteFault;
use aicert_verify::{Cause, Options, Party, Step, TrustAnchors, Unverified};

use crate::support::*;

#[test]
fn an_honest_proof_is_accepted_and_says_that_it_is_simulated() {
    let certificate = Recipe::default().build();
    let verified = check(&certificate).unwrap();
    assert_eq!(verified.certificate(), &certificate);
    assert!(verified.is_simulated() && verified.platform().simulated && verified.is_of_a_model());
    assert_eq!(verified.chain().platform(), PlatformKind::LocalCa);
    assert_eq!(
        verified.chain().subjects(),
        ["CN=ak", "CN=Test CA", "CN=Test Root"]
    );
    assert_eq!(verified.inputs().len(), 2);
    assert_eq!(verified.log().opened.tool.version, "0.1.0");
    assert_eq!(verified.events().len(), 12);
    assert_eq!(verified.quote().pcrs(), &certificate.low_level_quote.pcrs);
    assert_eq!(verified.verified_at(), now());
}

#[test]
fn a_proof_over_the_sha384_bank_is_accepted() {
    let recipe = Recipe {
        bank: aicert_core::tpm::PcrBank::Sha384,
        ..Recipe::default()
    };
    check(&recipe.build()).unwrap();
}

#[test]
fn a_proof_answers_the_challenge_that_was_posed_or_is_refused() {
    let certificate = Recipe::default().build();
    let asked = Nonce::from_bytes([0x5a; 32]);
    check_with(&certificate, &options().with_expected_nonce(asked)).unwrap();
    let other = options().with_expected_nonce(Nonce::from_bytes([1; 32]));
    refused!(
        check_with(&certificate, &other),
        Cause::Quote(QuoteFault::Nonce { found, .. }) if *found == asked,
        "not the 0101"
    );
}

#[test]
fn everything_wrong_is_reported_at_once_with_step_and_party() {
    let mut certificate = Recipe {
        chain: vec![
            Cert {
                until: NOW - 1,
                ..Cert::leaf("ak", "Other Root")
            }
            .der(),
            Cert::ca("Other Root", "Other Root").der(),
        ],
        attributes: AK_ATTRIBUTES & !0x1_0000,
        extra_data: Some(vec![0; 32]),
        boot_event_log: vec![1],
        ..Recipe::default()
    }
    .build();
    certificate.inputs[0].name = "other".into();
    let rejection = check(&certificate).unwrap_err();
    let steps: Vec<_> = rejection
        .failures()
        .iter()
        .map(|failure| failure.step())
        .collect();
    assert_eq!(
        steps,
        [
            Step::Chain,
            Step::Chain,
            Step::AttestationKey,
            Step::Quote,
            Step::BootLog,
            Step::Summaries
        ],
        "{rejection}"
    );
    assert!(
        rejection
            .failures()
            .iter()
            .any(|failure| failure.party() == Party::Builder)
    );
    let json = serde_json::to_value(&rejection).unwrap();
    assert_eq!(json[0]["step"], "chain");
    assert_eq!(json[0]["cause"], "Expired");
    assert!(
        json.as_array()
            .unwrap()
            .iter()
            .all(|failure| !failure["advice"].as_str().unwrap().is_empty())
    );
}

#[test]
fn what_is_not_a_proof_is_refused_when_it_is_read() {
    let text = Recipe::default().build().to_json();
    for (bytes, cause) in [
        (b"".to_vec(), "EOF"),
        (
            text.replacen("\"v1\"", "\"v2\"", 1).into_bytes(),
            "unknown variant `v2`",
        ),
        (
            text.replacen("\"result\"", "\"more\": 1,\n  \"result\"", 1)
                .into_bytes(),
            "unknown field `more`",
        ),
        (
            text.replacen("\"timestamp\": null", "\"timestamp\": 1", 1)
                .into_bytes(),
            "line",
        ),
        (
            vec![b' '; aicert_core::certificate::SIZE_LIMIT + 1],
            "at most 67108864",
        ),
    ] {
        let rejection = Unverified::from_slice(&bytes).unwrap_err();
        assert_eq!(rejection.failures()[0].step(), Step::Parse);
        assert!(rejection.to_string().contains(cause), "{rejection}");
    }
}

#[test]
fn a_simulated_proof_is_refused_without_its_root_and_the_text_says_what_to_pass() {
    use aicert_verify::chain::ChainFault;
    let only_vendors = Options::new(TrustAnchors::pinned(), now());
    refused!(
        check_with(&Recipe::default().build(), &only_vendors),
        Cause::Chain(ChainFault::UnknownSimulatedRoot { .. }),
        "pass --trust-anchor ca.pem"
    );
}

#[test]
fn a_chain_that_lacks_an_intermediate_is_completed_with_what_the_verifier_has_and_else_refused() {
    use aicert_verify::chain::{ChainFault, Pool};
    let certificate = Recipe {
        chain: vec![Cert::leaf("ak", "Test CA").der(), root().der()],
        ..Recipe::default()
    }
    .build();
    refused!(
        check(&certificate),
        Cause::Chain(ChainFault::IssuerMissing { issuer, .. }) if issuer == "CN=Test CA",
        "CN=Test CA"
    );
    let mut pool = Pool::new();
    pool.add(&Cert::ca("Test CA", "Test Root").der()).unwrap();
    let verified = check_with(&certificate, &options().with_intermediates(pool)).unwrap();
    assert_eq!(
        verified.chain().subjects(),
        ["CN=ak", "CN=Test CA", "CN=Test Root"]
    );
    // What it is completed with is believed no more than what the proof brings along.
    let mut impostor = Pool::new();
    impostor.add(&Cert::ca("Test CA", "Other Root").der()).unwrap();
    assert!(check_with(&certificate, &options().with_intermediates(impostor)).is_err());
}
