//! Attestation documents of NitroTPM: nothing but what was signed is accepted.
#![no_main]

use std::sync::LazyLock;

use aicert_fuzz::nitro::{document, expected};
use aicert_verify::nitro::{Expected, unverified_timestamp, verify};
use libfuzzer_sys::fuzz_target;

static HONEST: LazyLock<(Vec<u8>, Expected)> = LazyLock::new(|| (document(), expected()));

fuzz_target!(|bytes: &[u8]| {
    let (document, expected) = &*HONEST;
    // The tag of a COSE_Sign1 may be left out.
    let honest = bytes.strip_prefix(&[0xd2]).unwrap_or(bytes) == document;
    match verify(bytes, expected) {
        Ok(verified) => {
            assert!(honest, "only what was signed is accepted");
            assert_eq!(unverified_timestamp(bytes).ok(), Some(verified.timestamp()));
        }
        Err(rejection) => {
            assert!(!honest, "{rejection}");
            assert!(!rejection.failures().is_empty() && !rejection.to_string().is_empty());
            let _ = unverified_timestamp(bytes);
        }
    }
});
