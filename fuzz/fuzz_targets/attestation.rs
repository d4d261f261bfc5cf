//! What a machine answers before it is trusted: whole, or an honest answer with a part replaced. Nothing is accepted that says
//! anything else than the honest answer, except where no signature covers it and nothing is decided by it.
#![no_main]

use std::sync::LazyLock;

use aicert_core::attestation::Attestation;
use aicert_fuzz::answer::{NONCE, TLS_KEY, answer, unused};
use aicert_fuzz::{compact, honest, machine};
use aicert_verify::attestation::{self, VerifiedAttestation};
use aicert_verify::{Options, verify_attestation};
use libfuzzer_sys::fuzz_target;

static OPTIONS: LazyLock<Options> = LazyLock::new(machine::machine_options);
static HONEST: LazyLock<(Attestation, VerifiedAttestation)> = LazyLock::new(|| {
    let honest = answer(&unused());
    let verified = verify_attestation(&honest, &TLS_KEY, &NONCE, &OPTIONS);
    (honest, verified.expect("the honest answer is accepted"))
});

fuzz_target!(|bytes: &[u8]| {
    let found = match bytes.split_first() {
        Some((b'0'..=b'9', _)) => match honest::answer_with_replaced(&HONEST.0, bytes) {
            Some(answer) => answer,
            None => return,
        },
        _ => match attestation::read(bytes) {
            Ok(answer) => {
                let again = serde_json::to_vec(&answer).expect("what was read can be written");
                assert_eq!(compact(&again), compact(bytes), "one spelling");
                answer
            }
            Err(rejection) => {
                assert!(!rejection.failures().is_empty() && !rejection.to_string().is_empty());
                return;
            }
        },
    };
    match verify_attestation(&found, &TLS_KEY, &NONCE, &OPTIONS) {
        Ok(verified) => {
            let mut same = found.clone();
            same.server_version.clone_from(&HONEST.0.server_version);
            same.boot_event_log.clone_from(&HONEST.0.boot_event_log);
            assert_eq!(same, HONEST.0, "nothing that is signed was changed");
            assert_eq!(verified.boot(), HONEST.1.boot(), "it is about the same boot");
        }
        Err(rejection) => {
            assert_ne!(found, HONEST.0);
            assert!(!rejection.failures().is_empty() && !rejection.to_string().is_empty());
            serde_json::to_vec(&rejection).expect("a rejection can be written as JSON");
        }
    }
});
