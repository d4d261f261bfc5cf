//! `TPMT_SIGNATURE` and ECDSA signatures in DER: each has one spelling.
#![no_main]

use aicert_fuzz as _;
use aicert_verify::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(again) = fuzzing::signature(bytes) {
        assert_eq!(again, bytes, "written again, it is the same");
    }
});
