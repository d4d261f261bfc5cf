//! What a machine answers, honest or forged.

use aicert_core::attestation::{Attestation, attestation_qualifying_data};
use aicert_core::digest::{Nonce, TlsKeyDigest};
use aicert_verify::attestation::{self, VerifiedAttestation};
use aicert_verify::{Options, Party, Rejection, verify_attestation};

use crate::machine::{honest_boot, machine_options, recipe};
use crate::support::Recipe;

/// The key of the connection, and the nonce that was asked with.
pub const TLS_KEY: TlsKeyDigest = TlsKeyDigest::from_bytes([0x11; 32]);
pub const NONCE: Nonce = Nonce::from_bytes([0x22; 32]);
/// Those of somebody else.
pub const OTHER_KEY: TlsKeyDigest = TlsKeyDigest::from_bytes([0x33; 32]);
pub const OTHER_NONCE: Nonce = Nonce::from_bytes([0x44; 32]);

/// The quote of a machine that has booted the released image and has done nothing yet.
pub fn unused() -> Recipe {
    about(recipe(&honest_boot()))
}

/// The same with another boot, or another machine.
pub fn about(recipe: Recipe) -> Recipe {
    Recipe {
        contents: Vec::new(),
        nonce: NONCE,
        extra_data: Some(attestation_qualifying_data(&TLS_KEY, &NONCE).to_vec()),
        ..recipe
    }
}

/// The answer with this quote.
pub fn answer(recipe: &Recipe) -> Attestation {
    let built = recipe.build();
    Attestation {
        tls_key: TLS_KEY,
        quote: built.low_level_quote,
        signature: built.signature,
        attestation_key: built.attestation_key,
        boot_event_log: built.boot_event_log,
        server_version: "0.1.0".into(),
    }
}

/// Verifies an answer the way it comes in.
pub fn attest(answer: &Attestation) -> Result<VerifiedAttestation, Rejection> {
    attest_with(answer, &machine_options())
}

pub fn attest_with(answer: &Attestation, options: &Options) -> Result<VerifiedAttestation, Rejection> {
    let bytes = serde_json::to_vec(answer).unwrap();
    let result =
        attestation::read(&bytes).and_then(|answer| verify_attestation(&answer, &TLS_KEY, &NONCE, options));
    if let Err(rejection) = &result {
        assert!(!rejection.failures().is_empty());
        for failure in rejection.failures() {
            // Who asks a machine is the builder, and holds no file.
            assert!(
                !matches!(failure.party(), Party::Builder | Party::File),
                "{failure:?}"
            );
            let advice = failure.advice();
            assert!(
                !advice.is_empty() && !advice.contains("proof"),
                "{failure:?}: {advice}"
            );
        }
    }
    result
}
