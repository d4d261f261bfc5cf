//! Manifests: what is read and written again is the same, and each listing has the root that it claims.
#![no_main]

use aicert_core::manifest::Manifest;
use aicert_fuzz::compact;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| match Manifest::read(bytes) {
    Ok(manifest) => {
        let mut out = Vec::new();
        manifest.write(&mut out).expect("what was read can be written");
        assert_eq!(compact(&out), compact(bytes), "one spelling");
        assert_eq!(Manifest::read(&out[..]).ok().as_ref(), Some(&manifest));
    }
    Err(error) => assert!(!error.to_string().is_empty()),
});
