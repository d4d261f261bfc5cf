//! Measurement logs: one spelling for one value, and digests of what is in them.
#![no_main]

use aicert_core::canonical::{self, to_jcs};
use aicert_core::certificate::{PlatformKind, Summaries};
use aicert_core::event::Event;
use aicert_core::log::MeasurementLog;
use aicert_core::tpm::{PcrBank, PcrIndex};
use aicert_fuzz::compact;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let events = match canonical::from_slice::<Vec<Event>>(bytes, bytes.len()) {
        Ok(events) => events,
        Err(error) => {
            let text = error.to_string();
            assert!(
                !text.is_empty() && !text.contains(|c: char| c.is_control()),
                "{text:?}"
            );
            any_json(bytes);
            return;
        }
    };
    assert_eq!(
        serde_json::to_vec(&events).expect("JSON"),
        compact(bytes),
        "one spelling"
    );
    // Integers that not every reader of JSON holds exactly are read, and have no canonical form.
    let mut is_canonical = true;
    for event in &events {
        let Ok(jcs) = to_jcs(event) else {
            assert!(event.digest(PcrBank::Sha256).is_err());
            is_canonical = false;
            continue;
        };
        let again: Event = serde_json::from_slice(&jcs).unwrap_or_else(|_| event.clone());
        assert_eq!(&again, event, "the canonical form means the same");
        assert_eq!(
            event.digest(PcrBank::Sha256).ok(),
            Some(PcrBank::Sha256.hash(&[b"aicert/event/v1\0", &jcs]))
        );
    }
    let log = match MeasurementLog::from_events(events.clone()) {
        Ok(log) => log,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert_eq!(log.events(), events);
    assert_eq!(log.head().is_ok(), is_canonical);
    for bank in PcrBank::ALL {
        let values = [PcrIndex::INPUTS, PcrIndex::OUTPUTS].map(|pcr| log.replay(bank, pcr));
        assert_eq!(values.iter().all(Result::is_ok), is_canonical);
        for value in values.into_iter().flatten() {
            assert_eq!(value.len(), bank.digest_len());
        }
    }
    if let Ok(complete) = log.complete() {
        Summaries::derive(&complete, PlatformKind::LocalCa).expect("the platform has a canonical form");
    }
});

/// What is no log may still be JSON, and has one canonical form or none.
fn any_json(bytes: &[u8]) {
    let Ok(value) = canonical::from_slice::<Value>(bytes, bytes.len()) else {
        return;
    };
    if let Ok(jcs) = to_jcs(&value) {
        let again: Value = serde_json::from_slice(&jcs).expect("the canonical form is JSON");
        assert_eq!(again, value);
        assert_eq!(to_jcs(&again).ok(), Some(jcs));
    }
}
