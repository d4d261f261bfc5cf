//! Unified kernel images: what is computed of one is a file of reference values, and does not depend on its checksum.
#![no_main]

use aicert_fuzz as _;
use aicert_verify::image::{MeasureOptions, measure_uki};
use aicert_verify::reference::{ImageReference, ReferenceValues};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let options = MeasureOptions::default();
    match measure_uki(bytes, &options) {
        Ok(image) => {
            let mut other = bytes.to_vec();
            let header = u32::from_le_bytes(bytes[0x3c..0x40].try_into().expect("four octets")) as usize;
            other[header + 24 + 64] ^= 1;
            let again = measure_uki(&other, &options).expect("a checksum is not looked at");
            assert_eq!(again.events, image.events);
            check(image);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

fn check(image: ImageReference) {
    let values = ReferenceValues {
        images: vec![image],
        ..ReferenceValues::default()
    };
    let json = serde_json::to_vec(&values).expect("values can be written");
    assert_eq!(
        ReferenceValues::from_slice(&json).ok(),
        Some(values),
        "what is computed can be used"
    );
}
