//! `TPMS_ATTEST`: what is read is what is written, and nothing but what was signed is accepted.
#![no_main]

use std::sync::LazyLock;

use aicert_core::tpm::PcrBank;
use aicert_fuzz::{honest, support};
use aicert_verify::chain::Pool;
use aicert_verify::evidence::{self, Evidence, Expected, PcrBanks};
use aicert_verify::fuzzing;
use libfuzzer_sys::fuzz_target;

struct Honest {
    message: Vec<u8>,
    signature: Vec<u8>,
    pcrs: PcrBanks,
    pool: Pool,
    public: Vec<u8>,
    expected: Expected,
}

static HONEST: LazyLock<Honest> = LazyLock::new(|| {
    let (message, signature, pcrs) = honest::quote();
    let mut pool = Pool::new();
    for certificate in support::honest_chain() {
        pool.add(&certificate).expect("a certificate");
    }
    Honest {
        message,
        signature,
        pcrs: PcrBanks::of(PcrBank::Sha256, pcrs),
        pool,
        public: honest::public_areas().swap_remove(0),
        expected: Expected::new(support::options().trust_anchors, support::now()),
    }
});

fuzz_target!(|bytes: &[u8]| {
    let Some(again) = fuzzing::attest(bytes) else {
        return;
    };
    assert_eq!(
        fuzzing::attest(&again).as_ref(),
        Some(&again),
        "one value, one writing"
    );
    // Selections may be written with fewer octets or more; all else has one spelling.
    let selections = u32::from_be_bytes(bytes[count_at(bytes)..][..4].try_into().expect("four octets"));
    if again.len() == bytes.len() && selections <= 1 {
        assert_eq!(again, bytes, "written again, it is the same");
    }
    let honest = &*HONEST;
    let verified = evidence::verify(
        &Evidence {
            message: bytes,
            signature: &honest.signature,
            pcrs: &honest.pcrs,
            certificates: &honest.pool,
            public: Some(&honest.public),
        },
        &honest.expected,
    );
    assert_eq!(
        verified.is_ok(),
        bytes == honest.message,
        "only what was signed is accepted"
    );
});

/// Where the number of selections stands: after two sized fields, the clock and the version of the firmware.
fn count_at(bytes: &[u8]) -> usize {
    let sized = |at: usize| at + 2 + usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    sized(sized(6)) + 17 + 8
}
