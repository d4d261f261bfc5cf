//! Whatever the bytes are: no panic, an answer in no time, and no more memory than bytes call for.

use aicert_core::tpm::PcrBank;
use aicert_verify::eventlog::{EVENT_LIMIT, EventLog, EventLogError, EventType, SIZE_LIMIT};
use proptest::prelude::*;

use crate::builder::{self, Log};

/// Does everything that can be done with a log.
fn exercise(bytes: &[u8]) {
    let Ok(log) = EventLog::parse(bytes) else { return };
    for bank in PcrBank::ALL {
        let _ = log.replay(bank);
        for fault in log.inspect(bank) {
            assert!(!fault.to_string().is_empty() && !fault.advice().is_empty());
        }
    }
    for event in log.events() {
        let line = event.data.describe();
        assert!(!line.chars().any(aicert_core::text::is_deceptive), "{line:?}");
    }
    serde_json::to_string(&log).unwrap();
}

fn any_event_type() -> impl Strategy<Value = EventType> {
    prop_oneof![
        8 => proptest::sample::select(EventType::ALL),
        1 => any::<u32>().prop_map(EventType),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        exercise(&bytes);
        let header = builder::header(&builder::spec_id(&[PcrBank::Sha256]));
        exercise(&[header, bytes].concat());
    }

    #[test]
    fn any_data_of_any_type_is_read_or_refused(
        pcr in 0_u32..16,
        event_type in any_event_type(),
        data in proptest::collection::vec(prop_oneof![3 => Just(0), 1 => 0_u8..8, 2 => any::<u8>()], 0..200),
    ) {
        let mut log = Log::new(&[PcrBank::Sha256]);
        log.hash(pcr, event_type, &data);
        exercise(&log.bytes());
    }

    #[test]
    fn real_looking_logs_with_some_bytes_changed_are_read_or_refused(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = Log::honest().bytes();
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        exercise(&bytes);
        exercise(&bytes[..cut.index(bytes.len())]);
    }

    #[test]
    fn real_data_under_another_type_is_read_or_refused(
        event in any::<proptest::sample::Index>(),
        event_type in any_event_type(),
        pcr in 0_u32..26,
        cut in 0_usize..64,
    ) {
        let mut log = Log::honest();
        let event = event.get(&log.events).clone();
        let length = event.data.len().saturating_sub(cut);
        log.describe(pcr, event_type, &event.data[..length], &event.data);
        exercise(&log.bytes());
    }
}

#[test]
fn every_cut_and_every_changed_byte_of_an_honest_log_is_read_or_refused() {
    let bytes = Log::honest().bytes();
    for index in 0..bytes.len() {
        let _ = EventLog::parse(&bytes[..index]);
        let mut changed = bytes.clone();
        changed[index] ^= 0xff;
        if let Ok(log) = EventLog::parse(&changed) {
            log.inspect(PcrBank::Sha256);
        }
    }
}

#[test]
fn sizes_and_numbers_have_limits() {
    let error = EventLog::parse(&vec![0; SIZE_LIMIT + 1]).unwrap_err();
    assert_eq!(
        error,
        EventLogError::TooLarge {
            found: SIZE_LIMIT + 1
        }
    );
    let mut log = Log::sha1_only();
    let event = log.event(0, EventType::EFI_ACTION, b"", b"");
    log.events = vec![event; EVENT_LIMIT];
    assert_eq!(EventLog::parse(&log.bytes()).unwrap().events().len(), EVENT_LIMIT);
    log.events.push(log.events[0].clone());
    assert_eq!(
        EventLog::parse(&log.bytes()).unwrap_err(),
        EventLogError::TooManyEvents
    );
}

#[test]
fn the_largest_logs_take_no_time() {
    let start = std::time::Instant::now();
    let mut log = Log::new(&[PcrBank::Sha256]);
    // One variable full of the smallest entries, and one path full of the smallest nodes.
    let list = [
        &[7; 16][..],
        &(28 + 17 * 100_000_u32).to_le_bytes(),
        &[0; 4],
        &17_u32.to_le_bytes(),
    ]
    .concat();
    let list = [list, vec![1; 17 * 100_000]].concat();
    log.hash(
        7,
        EventType::EFI_VARIABLE_DRIVER_CONFIG,
        &builder::variable("PK", &list),
    );
    let nodes = [1, 5, 4, 0].repeat(250_000);
    let image = [builder::le(&[0, 0, 0, nodes.len() as u64]), nodes].concat();
    log.describe(4, EventType::EFI_BOOT_SERVICES_APPLICATION, &image, b"x");
    exercise(&log.bytes());
    let mut log = Log::sha1_only();
    log.events = vec![log.event(8, EventType::IPL, b"grub_cmd: x", b"x"); EVENT_LIMIT];
    exercise(&log.bytes());
    // In a build without optimisation, on a machine that does other things too.
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}
