//! Proofs of a machine with a NitroTPM, made on a software TPM with somebody in front of it who signs documents as AWS does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::Command;

use aicert_core::attestation::KeyLocation;
use aicert_core::certificate::{Certificate, EvidenceKind};
use aicert_core::time::Timestamp;
use aicert_core::tpm::{PcrBank, TpmBackend as _};
use aicert_swtpm_testing::{NitroAuthority, NitroProxy, SwtpmInstance, SwtpmOptions, skip_without};
use aicert_tests::proofs;
use aicert_tpm::{KeySource, Tpm};
use aicert_verify::chain::ChainFault;
use aicert_verify::quote::{QuoteFault, Signer};
use aicert_verify::{Cause, Options, TrustAnchors, Unverified, Verified, verify};

fn check(proof: &Certificate, anchors: TrustAnchors) -> Result<Verified<Certificate>, Vec<Cause>> {
    let options = Options::new(anchors, Timestamp::now()).with_expected_nonce(proofs::NONCE);
    let proof = Unverified::from_slice(proof.to_json().as_bytes()).unwrap();
    verify(proof, &options).map_err(|rejection| {
        let failures = rejection.failures().iter();
        failures.map(|failure| failure.cause().clone()).collect()
    })
}

#[tokio::test]
async fn a_proof_holds_for_the_root_of_its_documents_and_for_no_other() {
    if skip_without(&["swtpm", "python3"]) {
        return;
    }
    let banks = [PcrBank::Sha1, PcrBank::Sha256, PcrBank::Sha384];
    let instance = SwtpmInstance::start(SwtpmOptions::new().with_banks(banks)).unwrap();
    let authority = NitroAuthority::new().unwrap();
    let proxy = NitroProxy::start(&instance, authority.clone()).unwrap();
    let key = KeySource::Platform {
        location: KeyLocation::NitroDocument,
        issuers: Vec::new(),
    };
    let tpm = Tpm::open(proxy.config(key)).await.unwrap();
    let contents = proofs::honest_contents(&tpm).await;
    let events = proofs::events(&contents);
    proofs::extend(&tpm, &events).await;
    let bank = tpm.capabilities().quoted_bank().unwrap();
    let quote = proofs::quote(&tpm, bank, &events).await;
    let proof = proofs::assemble(&tpm, &events, &events, quote).await;
    assert_eq!(proof.low_level_quote.evidence(), EvidenceKind::NitroDocument);

    let root = TrustAnchors::pinned().with_root(authority.root()).unwrap();
    let verified = check(&proof, root.clone()).unwrap();
    assert!(verified.is_simulated());
    assert_eq!(verified.quote().bank(), PcrBank::Sha384);
    let Signer::Document(document) = verified.quote().signer() else {
        panic!("it is signed in a document");
    };
    assert_eq!(document.instance_id(), "i-0123456789abcdef0");
    assert_eq!(document.region(), Some("eu-central-1"));
    let causes = check(&proof, TrustAnchors::pinned()).unwrap_err();
    assert!(
        matches!(
            causes[..],
            [Cause::Chain(ChainFault::UnknownSimulatedRoot { .. })]
        ),
        "{causes:?}"
    );

    // The description of the log, in another language, reads it as well.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proof.json");
    std::fs::write(&file, proof.to_json()).unwrap();
    let replayed = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/replay_log.py"))
        .arg(&file)
        .output()
        .unwrap();
    assert!(replayed.status.success(), "{replayed:?}");

    // A later document of the same machine, about something else, does not fit.
    let pcrs: Vec<_> = aicert_core::tpm::PcrIndex::quoted().collect();
    let other = tpm.quote(bank, &pcrs, &[1; 32]).await.unwrap();
    let forged = proofs::assemble(&tpm, &events, &events, other).await;
    let causes = check(&forged, root).unwrap_err();
    assert!(
        matches!(causes[..], [Cause::Quote(QuoteFault::QualifyingData { .. })]),
        "{causes:?}"
    );
}
