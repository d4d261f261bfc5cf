//! A proof that comes back is from the very machine and boot that was attested.

use aicert_core::certificate::Certificate;
use aicert_core::digest::BootLogDigest;
use aicert_core::tpm::TpmClock;
use aicert_verify::attestation::{AttestationFault as Fault, AttestedBoot, AttestedSigner};
use aicert_verify::{Cause, Verified};

use crate::answer::*;
use crate::machine::*;
use crate::support::{Recipe, check_with, contents, refused, with};

/// What was attested, before the job.
fn attested() -> AttestedBoot {
    let recipe = Recipe {
        clock: TpmClock {
            clock: 900,
            ..Recipe::default().clock
        },
        ..unused()
    };
    attest(&answer(&recipe)).unwrap().attested_boot().clone()
}

fn proof(recipe: &Recipe) -> Verified<Certificate> {
    check_with(&recipe.build(), &machine_options()).unwrap()
}

#[test]
fn the_proof_of_the_attested_boot_is_accepted() {
    let proof = proof(&recipe(&honest_boot()));
    let attested = attested();
    attested.check_proof(&proof).unwrap();
    // Also after it was written down.
    let text = serde_json::to_string(&attested).unwrap();
    let read: AttestedBoot = serde_json::from_str(&text).unwrap();
    assert_eq!(read, attested);
    read.check_proof(&proof).unwrap();
}

#[test]
fn the_proof_of_another_machine_is_refused() {
    let mut chain = crate::support::honest_chain();
    chain[0] = crate::support::Cert::leaf("other-ak", "Test CA").der();
    let other = Recipe {
        signer: "other-ak".into(),
        chain,
        ..recipe(&honest_boot())
    };
    refused!(
        attested().check_proof(&proof(&other)),
        Cause::Attestation(Fault::ProofOfOtherKey { .. }),
        "the machine that was attested has"
    );
    let mut unreadable = attested();
    if let AttestedSigner::Key { attestation_key, .. } = &mut unreadable.signer {
        attestation_key.0.clear();
    }
    refused!(
        unreadable.check_proof(&proof(&recipe(&honest_boot()))),
        Cause::Attestation(Fault::ProofOfOtherKey { .. }),
        "the machine that was attested has"
    );
}

/// The machine was attested, then reset, and something else had it until the job began.
#[test]
fn the_proof_of_another_boot_is_refused() {
    for (reset_count, restart_count) in [(3, 1), (2, 2), (3, 0), (1, 1)] {
        let clock = |clock| TpmClock {
            clock,
            reset_count,
            restart_count,
        };
        let recipe = Recipe {
            contents: with!(JobOpened, |opened| opened.tpm = clock(1_000)),
            clock: clock(5_000),
            ..recipe(&honest_boot())
        };
        refused!(
            attested().check_proof(&proof(&recipe)),
            Cause::Attestation(Fault::ProofOfOtherBoot { .. }),
            "it was restarted in between"
        );
    }
}

#[test]
fn the_proof_of_an_earlier_job_is_refused() {
    let recipe = Recipe {
        contents: with!(JobOpened, |opened| opened.tpm.clock = 899),
        ..recipe(&honest_boot())
    };
    refused!(
        attested().check_proof(&proof(&recipe)),
        Cause::Attestation(Fault::ProofTooEarly {
            expected: 900,
            found: 899
        }),
        "it is not the job that was sent"
    );
}

#[test]
fn the_proof_with_another_boot_log_is_refused() {
    let mut other = attested();
    other.boot_event_log = BootLogDigest::of(b"other");
    refused!(
        other.check_proof(&proof(&recipe(&honest_boot()))),
        Cause::Attestation(Fault::ProofOfOtherBootLog { .. }),
        "the boot log of the proof"
    );
}
