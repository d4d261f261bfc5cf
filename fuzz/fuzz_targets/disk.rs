//! Disk images: the partition table, FAT, and the image on it. The checksums of the table are made right before, unless the
//! first byte is odd.
#![no_main]

use std::io::Cursor;

use aicert_fuzz::image::repair;
use aicert_verify::image::{MeasureOptions, measure};
use aicert_verify::reference::ReferenceValues;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut disk = bytes.to_vec();
    if bytes.first().is_some_and(|first| first % 2 == 0) {
        repair(&mut disk);
    }
    let options = MeasureOptions::default();
    match measure(Cursor::new(&disk), &options) {
        Ok(image) => {
            let again = measure(Cursor::new(&disk), &options).expect("measuring is deterministic");
            assert_eq!(again, image);
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
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
