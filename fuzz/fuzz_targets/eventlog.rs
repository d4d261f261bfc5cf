//! TCG event logs: every event lies where the one before it ends, and what is written of a log is JSON.
#![no_main]

use aicert_core::tpm::PcrBank;
use aicert_fuzz as _;
use aicert_verify::eventlog::{EventLog, Format};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;

fuzz_target!(|bytes: &[u8]| {
    let log = match EventLog::parse(bytes) {
        Ok(log) => log,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    check_layout(&log, bytes);
    for bank in PcrBank::ALL {
        assert_eq!(log.replay(bank).is_ok(), log.banks().contains(&bank));
        for fault in log.inspect(bank) {
            assert!(!fault.to_string().is_empty());
        }
        for event in log.events() {
            let _ = event.data_check(bank);
        }
    }
    let json = serde_json::to_vec(&log).expect("a log that was read can be written as JSON");
    serde_json::from_slice::<IgnoredAny>(&json).expect("what is written is JSON");
    drop(log);
    let mut again = json.as_slice();
    let log = EventLog::parse(bytes).expect("what was read can be read");
    serde_json::to_writer(Expect(&mut again), &log).expect("reading is deterministic");
    assert!(again.is_empty(), "reading is deterministic");
});

/// Takes the bytes that are expected, and no others.
struct Expect<'a, 'b>(&'a mut &'b [u8]);

impl std::io::Write for Expect<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        *self.0 = self
            .0
            .strip_prefix(bytes)
            .ok_or(std::io::ErrorKind::InvalidData)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// No byte of a log is skipped, and none is read twice.
fn check_layout(log: &EventLog<'_>, bytes: &[u8]) {
    let digests: usize = match (log.format(), log.header()) {
        (Format::CryptoAgile, Some(header)) => {
            4 + header
                .algorithms
                .iter()
                .map(|algorithm| 2 + usize::from(algorithm.digest_len))
                .sum::<usize>()
        }
        _ => 20,
    };
    let mut end = log.events().first().map(|event| event.offset);
    for event in log.events() {
        assert_eq!(end, Some(event.offset));
        assert_eq!(bytes[event.offset..][..4], event.pcr.to_le_bytes());
        assert_eq!(bytes[event.offset + 4..][..4], event.event_type.0.to_le_bytes());
        let data = event.offset + 8 + digests + 4;
        assert_eq!(&bytes[data..][..event.raw.len()], event.raw);
        end = Some(data + event.raw.len());
        let place = &bytes[event.offset + 8..][..digests];
        for digest in PcrBank::ALL.into_iter().filter_map(|bank| event.digest(bank)) {
            assert!(place.windows(digest.len()).any(|window| window == digest));
        }
    }
    if let Some(padding) = log.padding() {
        assert!(end.is_none_or(|end| end == padding.offset));
        assert_eq!(padding.offset + padding.len, bytes.len());
        assert!(bytes[padding.offset..].iter().all(|byte| *byte == padding.byte));
    } else {
        assert!(end.is_none_or(|end| end == bytes.len()));
    }
}
