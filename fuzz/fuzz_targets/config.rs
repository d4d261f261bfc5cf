//! Configurations: reading is deterministic, and problems can be shown.
#![no_main]

use aicert_core::spec::JobSpec;
use aicert_fuzz as _;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let read = || {
        JobSpec::from_yaml(text, "/home/me".as_ref(), &|name| {
            (name != "UNSET").then(|| "value".into())
        })
    };
    match read() {
        Ok(job) => {
            let again = read().map(|job| format!("{job:?}"));
            assert_eq!(again.ok(), Some(format!("{job:?}")));
        }
        Err(error) => {
            assert!(!error.problems().is_empty());
            assert!(!error.render("aicert.yaml").is_empty());
        }
    }
});
