//! Proof files: whole, or an honest one with a part replaced: of the first (after a digit), or of the one whose evidence is an
//! attestation document (after a letter). Nothing is accepted but an honest proof.
#![no_main]

use std::sync::LazyLock;

use aicert_core::certificate::Certificate;
use aicert_fuzz::{compact, honest, nitro};
use aicert_verify::{Options, Unverified, verify};
use libfuzzer_sys::fuzz_target;

static HONEST: LazyLock<Vec<Certificate>> =
    LazyLock::new(|| honest::proofs().into_iter().chain([nitro::proof()]).collect());
static OPTIONS: LazyLock<Options> = LazyLock::new(nitro::options);

fuzz_target!(|bytes: &[u8]| {
    let proof = match bytes.split_first() {
        Some((b'0'..=b'9', _)) => match honest::with_replaced(&HONEST[0], bytes) {
            Some(certificate) => Unverified::new(certificate),
            None => return,
        },
        Some((letter @ b'a'..=b'j', rest)) => {
            let bytes = [&[letter - b'a' + b'0'], rest].concat();
            match honest::with_replaced(&HONEST[HONEST.len() - 1], &bytes) {
                Some(certificate) => Unverified::new(certificate),
                None => return,
            }
        }
        _ => match Unverified::from_slice(bytes) {
            Ok(proof) => {
                let contents = proof.unverified_contents();
                assert_eq!(
                    compact(contents.to_json().as_bytes()),
                    compact(bytes),
                    "one spelling"
                );
                proof
            }
            Err(rejection) => {
                assert!(!rejection.failures().is_empty() && !rejection.to_string().is_empty());
                return;
            }
        },
    };
    let certificate = proof.unverified_contents().clone();
    match verify(proof, &OPTIONS) {
        Ok(verified) => {
            assert!(HONEST.contains(&certificate), "only an honest proof is accepted");
            assert_eq!(verified.certificate(), &certificate);
        }
        Err(rejection) => {
            assert!(!HONEST.contains(&certificate));
            assert!(!rejection.failures().is_empty() && !rejection.to_string().is_empty());
            serde_json::to_vec(&rejection).expect("a rejection can be written as JSON");
        }
    }
});
