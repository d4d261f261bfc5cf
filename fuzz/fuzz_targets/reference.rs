//! Files of reference values: what is read means the same when it is written again.
#![no_main]

use aicert_fuzz as _;
use aicert_verify::reference::ReferenceValues;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| match ReferenceValues::from_slice(bytes) {
    Ok(values) => {
        let out = serde_json::to_vec(&values).expect("what was read can be written");
        assert_eq!(ReferenceValues::from_slice(&out).ok().as_ref(), Some(&values));
        let mut merged = values.clone();
        if merged.merge(values.clone()).is_ok() {
            assert_eq!(merged, values, "twice the same is the same");
        }
    }
    Err(error) => assert!(!error.to_string().is_empty()),
});
