//! Logs that were changed after the boot, as far as a log alone can show it (attacks 13 to 15), and logs that no boot can give.

use aicert_core::tpm::PcrBank;
use aicert_verify::eventlog::{EventLog, EventLogError, EventLogFault, EventType};

use crate::builder::{self, Log};

const BANK: PcrBank = PcrBank::Sha256;

fn faults(log: &Log) -> Vec<EventLogFault> {
    EventLog::parse(&log.bytes()).unwrap().inspect(BANK)
}

fn names(log: &Log) -> Vec<&'static str> {
    faults(log).iter().map(EventLogFault::name).collect()
}

fn replay(log: &Log) -> aicert_core::tpm::PcrValues {
    EventLog::parse(&log.bytes()).unwrap().replay(BANK).unwrap()
}

/// Whether the log alone shows it, or comparing its replay with the quote does.
fn assert_noticed(log: &Log, what: &str) {
    let noticed = !faults(log).is_empty() || replay(log) != replay(&Log::honest());
    assert!(noticed, "{what}");
}

#[test]
fn attack_13_logs_with_events_removed_doubled_swapped_or_cut_off_are_noticed() {
    let honest = Log::honest();
    for index in 0..honest.events.len() {
        let mut log = honest.clone();
        log.events.remove(index);
        assert_noticed(&log, &format!("event {index} removed"));
        let mut log = honest.clone();
        log.events.insert(index, log.events[index].clone());
        assert_noticed(&log, &format!("event {index} doubled"));
        let mut log = honest.clone();
        log.events.truncate(index);
        assert_noticed(&log, &format!("cut at event {index}"));
        let next = (index + 1..honest.events.len())
            .find(|next| honest.events[*next].pcr == honest.events[index].pcr);
        let Some(next) = next else { continue };
        let mut log = honest.clone();
        log.events.swap(index, next);
        assert_noticed(&log, &format!("events {index} and {next} swapped"));
    }
}

#[test]
fn attack_13_a_log_without_events_lacks_every_separator() {
    let log = Log::new(&[BANK]);
    match &faults(&log)[..] {
        [EventLogFault::SeparatorMissing { pcrs }] => assert_eq!(pcrs, "0, 1, 2, 3, 4, 5, 6, 7"),
        other => panic!("{other:?}"),
    }
    assert_eq!(EventLog::parse(&[]).unwrap_err(), EventLogError::Empty);
}

#[test]
fn attack_14_an_event_that_is_made_to_extend_nothing_is_noticed() {
    let mut log = Log::honest();
    let index = log.position(4, EventType::EFI_BOOT_SERVICES_APPLICATION);
    log.events[index].event_type = EventType::NO_ACTION;
    let found = hex::encode(&log.events[index].digests[0].1);
    assert_eq!(
        faults(&log),
        [EventLogFault::HiddenExtend {
            event: index,
            pcr: 4,
            found
        }]
    );
    // Without its digest it is an honest statement, and the PCR differs.
    log.events[index] = log.note(4, b"nothing to see");
    assert_eq!(names(&log), [""; 0]);
    assert_ne!(replay(&log), replay(&Log::honest()));
}

#[test]
fn attack_14_an_application_that_is_labelled_as_anything_else_is_noticed() {
    for event_type in EventType::ALL {
        let mut log = Log::honest();
        log.find(4, EventType::EFI_BOOT_SERVICES_APPLICATION).event_type = *event_type;
        let allowed = matches!(
            *event_type,
            EventType::EFI_BOOT_SERVICES_APPLICATION
                | EventType::EFI_BOOT_SERVICES_DRIVER
                | EventType::EFI_RUNTIME_SERVICES_DRIVER
        );
        assert_eq!(names(&log).is_empty(), allowed, "{event_type}");
    }
}

#[test]
fn attack_14_every_event_whose_data_was_hashed_holds_on_to_its_data() {
    let honest = Log::honest();
    let bytes = honest.bytes();
    let parsed = EventLog::parse(&bytes).unwrap();
    let mut held = 0;
    for event in parsed.events() {
        if event.data_check(BANK) != aicert_verify::eventlog::DataCheck::Matches {
            continue;
        }
        // The name of a UKI section: without its digest it describes the section's content.
        if event.event_type == EventType::IPL && event.pcr == 11 {
            continue;
        }
        held += 1;
        for index in 0..event.raw.len() {
            let mut log = honest.clone();
            log.events[event.number].data[index] ^= 0x20;
            // EDK II does not hash the names and the namespaces of variables that say what to boot.
            let named = event.event_type == EventType::EFI_VARIABLE_BOOT && index < event.raw.len() - 2;
            let found = names(&log);
            assert!(named || !found.is_empty(), "event {} byte {index}", event.number);
        }
    }
    assert_eq!(held, 18);
}

#[test]
fn attack_14_data_that_was_replaced_is_named_with_both_digests() {
    let mut log = Log::honest();
    let event = log.find(12, EventType::IPL);
    event.data = builder::utf16("console=ttyS0 quiet\0");
    let (expected, found) = (
        hex::encode(BANK.hash(&[&event.data])),
        hex::encode(&event.digests[0].1),
    );
    let number = log.position(12, EventType::IPL);
    let faults = faults(&log);
    assert_eq!(
        faults,
        [EventLogFault::DataDiffers {
            event: number,
            pcr: 12,
            event_type: EventType::IPL,
            expected,
            found
        }]
    );
    assert!(faults[0].to_string().contains("PCR 12, EV_IPL"), "{}", faults[0]);
}

#[test]
fn attack_15_a_bank_without_digests_is_named() {
    let log = Log::honest().bytes();
    let log = EventLog::parse(&log).unwrap();
    let error = log.replay(PcrBank::Sha512).unwrap_err();
    assert_eq!(
        error,
        EventLogError::NoSuchBank {
            bank: PcrBank::Sha512
        }
    );
    let faults = log.inspect(PcrBank::Sha512);
    assert_eq!(
        faults[0].to_string(),
        "the boot log has no digests of the bank sha512, only of sha256, sha384"
    );
    assert_eq!(faults.len(), 1);
}

#[test]
fn attack_15_events_must_have_each_digest_of_the_header_once() {
    let parse = |change: fn(&mut Vec<(u16, Vec<u8>)>)| {
        let mut log = Log::honest();
        change(&mut log.events[3].digests);
        EventLog::parse(&log.bytes()).unwrap_err()
    };
    let error = parse(|digests| drop(digests.pop()));
    assert!(
        matches!(
            error,
            EventLogError::DigestCount {
                number: 3,
                found: 1,
                expected: 2,
                ..
            }
        ),
        "{error}"
    );
    let error = parse(|digests| digests[1] = digests[0].clone());
    assert!(
        matches!(
            error,
            EventLogError::DigestAlgorithm {
                number: 3,
                found: 0x0b,
                expected: "each algorithm once",
                ..
            }
        ),
        "{error}"
    );
    let error = parse(|digests| digests[1].0 = 0x0d);
    assert!(
        matches!(error, EventLogError::DigestAlgorithm { found: 0x0d, .. }),
        "{error}"
    );
}

#[test]
fn attack_15_sizes_near_the_largest_are_clean_errors() {
    let honest = Log::honest().bytes();
    // The header's data begins at 32, its list of algorithms at 56, the first event after it.
    let first = 32 + builder::spec_id(&[PcrBank::Sha256, PcrBank::Sha384]).len();
    for (offset, what) in [
        (28, "size of the header"),
        (56, "number of algorithms"),
        (first + 8, "number of digests"),
    ] {
        for value in [u32::MAX, u32::MAX - 1, 1 << 31, 0x0100_0000, 17] {
            let mut bytes = honest.clone();
            bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
            let error = EventLog::parse(&bytes).unwrap_err();
            assert!(!error.to_string().is_empty(), "{what} {value}");
        }
    }
    let size = first + 12 + 2 + 32 + 2 + 48;
    for value in [u32::MAX, u32::MAX - 1, 1 << 31] {
        let mut bytes = honest.clone();
        bytes[size..size + 4].copy_from_slice(&value.to_le_bytes());
        match EventLog::parse(&bytes).unwrap_err() {
            EventLogError::Truncated {
                number: 0,
                field: "data",
                needed,
                ..
            } => assert_eq!(needed, value as usize),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn attack_15_the_locality_is_stated_once_and_first_and_for_pcr_0() {
    let mut log = Log::honest();
    log.events.insert(0, log.locality(3));
    assert_eq!(names(&log), [""; 0]);
    assert_ne!(replay(&log), replay(&Log::honest()));
    let mut twice = log.clone();
    twice.events.insert(1, twice.locality(0));
    assert_eq!(faults(&twice), [EventLogFault::LocalityRepeated { event: 1 }]);
    // It is the first that counts.
    assert_eq!(replay(&twice), replay(&log));
    let mut late = Log::honest();
    late.events.insert(1, late.locality(3));
    assert_eq!(
        faults(&late),
        [EventLogFault::LocalityLate { event: 1, first: 0 }]
    );
    let mut elsewhere = log.clone();
    elsewhere.events[0].pcr = 1;
    assert_eq!(
        faults(&elsewhere),
        [EventLogFault::LocalityElsewhere { event: 0, pcr: 1 }]
    );
    let mut wrong = log;
    wrong.events[0] = wrong.locality(1);
    assert_eq!(names(&wrong), ["Malformed"]);
}

#[test]
fn separators_are_known_by_their_digests() {
    let mut log = Log::honest();
    log.hash(7, EventType::SEPARATOR, &[0xff; 4]);
    assert_eq!(names(&log), ["SeparatorRepeated"]);

    let mut log = Log::honest();
    log.describe(5, EventType::EFI_PLATFORM_FIRMWARE_BLOB, &[1; 16], &[0; 4]);
    assert_eq!(names(&log), ["SeparatorDisguised", "SeparatorRepeated"]);

    // A separator by its type and its data, but not by what was measured.
    let mut log = Log::honest();
    let separator = log.position(4, EventType::SEPARATOR);
    log.events[separator] = log.event(4, EventType::SEPARATOR, &[0; 4], b"an application");
    assert_eq!(names(&log), ["DataDiffers", "SeparatorMissing"]);

    let mut log = Log::honest();
    let separator = log.position(3, EventType::SEPARATOR);
    log.events[separator] = log.event(3, EventType::SEPARATOR, &[1, 0, 0, 0], &[1, 0, 0, 0]);
    assert_eq!(names(&log), ["FirmwareError"]);
}

#[test]
fn what_runs_before_firmware_is_done_is_named() {
    let mut log = Log::honest();
    let separator = log.position(4, EventType::SEPARATOR);
    let early = log.event(
        4,
        EventType::EFI_BOOT_SERVICES_APPLICATION,
        &builder::image(),
        b"tool",
    );
    log.events.insert(separator, early);
    assert_eq!(
        faults(&log),
        [EventLogFault::ImageBeforeSeparator {
            event: separator,
            separator: separator + 1
        }]
    );
}

#[test]
fn secure_boot_cannot_be_turned_on_afterwards() {
    let mut log = Log::honest();
    log.hash(
        7,
        EventType::EFI_VARIABLE_DRIVER_CONFIG,
        &builder::variable("SecureBoot", &[1]),
    );
    assert_eq!(names(&log), ["SecureBootLate", "SecureBootRepeated"]);
}

#[test]
fn what_weakens_the_machine_is_known_by_its_digest() {
    for text in ["UEFI Debug Mode", "DMA Protection Disabled"] {
        for end in ["", "\0"] {
            let measured = format!("{text}{end}");
            let mut log = Log::honest();
            let before = log.position(7, EventType::SEPARATOR);
            let event = log.event(7, EventType::EFI_ACTION, measured.as_bytes(), measured.as_bytes());
            log.events.insert(before, event);
            match &faults(&log)[..] {
                [EventLogFault::Weakened { what, .. }] => assert_eq!(*what, text),
                other => panic!("{other:?}"),
            }
            log.events[before].event_type = EventType::EFI_PLATFORM_FIRMWARE_BLOB;
            log.events[before].data = vec![7; 16];
            assert_eq!(names(&log), ["Misplaced", "Weakened"]);
        }
    }
}

#[test]
fn types_and_pcrs_that_do_not_exist_are_named() {
    let mut log = Log::honest();
    log.hash(0, EventType(0x8000_1234), b"x");
    log.hash(24, EventType::EFI_ACTION, b"x");
    let faults = faults(&log);
    assert_eq!(
        faults.iter().map(EventLogFault::name).collect::<Vec<_>>(),
        ["UnknownType", "NoSuchPcr"]
    );
    assert!(faults[0].to_string().contains("0x80001234"));
}

#[test]
fn only_padding_may_follow_the_last_event() {
    for byte in [0, 0xff] {
        for len in [1, 7, 8, 100, 5000] {
            let mut log = Log::honest();
            let offset = log.bytes().len();
            log.tail = vec![byte; len];
            let bytes = log.bytes();
            let parsed = EventLog::parse(&bytes).unwrap();
            let padding = parsed.padding().unwrap();
            assert_eq!((padding.offset, padding.len, padding.byte), (offset, len, byte));
            assert_eq!(parsed.events().len(), log.events.len());
            *log.tail.last_mut().unwrap() = 0x55;
            assert!(EventLog::parse(&log.bytes()).is_err(), "{byte} {len}");
        }
    }
}

#[test]
fn headers_that_make_no_sense_are_refused() {
    let honest = builder::spec_id(&[PcrBank::Sha256, PcrBank::Sha384]);
    let error = |data: &[u8]| match EventLog::parse(&builder::header(data)) {
        Err(EventLogError::Header { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert!(error(&builder::spec_id(&[])).contains("0 algorithms"));
    assert!(error(&builder::spec_id(&[BANK, BANK])).contains("twice"));
    assert!(error(&[&honest[..], &[0]].concat()).contains("follow the vendor information"));
    assert!(error(&honest[..honest.len() - 1]).contains("vendor information"));
    assert!(error(&honest[..30]).contains("ends inside its length of digests"));
    let mut wrong = honest.clone();
    wrong[30] = 20;
    assert!(error(&wrong).contains("have 20 bytes, expected 32"));
}

/// Every event could begin the padding: it is looked for once.
#[test]
fn a_log_of_zeros_that_is_no_padding_is_refused_at_once() {
    let mut log = vec![0; aicert_verify::eventlog::SIZE_LIMIT];
    *log.last_mut().unwrap() = 1;
    let start = std::time::Instant::now();
    assert_eq!(EventLog::parse(&log).unwrap_err(), EventLogError::TooManyEvents);
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}
