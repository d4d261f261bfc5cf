//! `TPMT_PUBLIC`: its name is the hash of all its bytes, and no other public area stands for the key of a quote.
#![no_main]

use std::sync::LazyLock;

use aicert_core::certificate::Base64;
use aicert_core::certificate::Certificate;
use aicert_fuzz::{honest, support};
use aicert_verify::key::PublicArea;
use aicert_verify::{Unverified, verify};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest as _, Sha256};

static HONEST: LazyLock<Certificate> = LazyLock::new(|| honest::proofs().swap_remove(0));

fuzz_target!(|bytes: &[u8]| {
    let area = match PublicArea::parse(bytes) {
        Ok(area) => area,
        Err(fault) => {
            assert!(!fault.to_string().is_empty());
            return;
        }
    };
    assert_eq!(area.name()[..2], [0, 0x0b]);
    assert_eq!(area.name()[2..], Sha256::digest(bytes)[..]);
    let mut forged = HONEST.clone();
    forged.attestation_key.public = Base64(bytes.to_vec());
    let verified = verify(Unverified::new(forged.clone()), &support::options());
    assert_eq!(
        verified.is_ok(),
        forged == *HONEST,
        "only the public area of the key that signed is accepted"
    );
});
