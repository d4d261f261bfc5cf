//! Files of PCR values: every value has the length of its bank.
#![no_main]

use aicert_fuzz as _;
use aicert_verify::evidence::PcrBanks;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| match PcrBanks::from_json(bytes) {
    Ok(banks) => {
        for bank in banks.banks() {
            let values = banks.bank(bank).expect("a bank that is listed");
            assert!(values.0.values().all(|value| value.len() == bank.digest_len()));
            assert!(values.0.len() <= 24);
        }
    }
    Err(error) => assert!(!error.to_string().is_empty()),
});
