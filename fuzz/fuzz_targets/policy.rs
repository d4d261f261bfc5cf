//! Policies: reading is deterministic, and problems can be shown.
#![no_main]

use aicert_fuzz as _;
use aicert_verify::policy::Policy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match Policy::from_yaml(text) {
    Ok(policy) => assert_eq!(Policy::from_yaml(text).ok(), Some(policy)),
    Err(error) => {
        assert!(!error.problems().is_empty());
        assert!(!error.render("policy.yaml").is_empty());
        let lines = aicert_core::text::lines(text).count() as u32;
        assert!(error.problems().iter().all(|problem| problem.line() <= lines));
    }
});
