//! Logs as honest machines write them, in each format, and what is told of them.

use aicert_core::tpm::{PcrBank, PcrIndex};
use aicert_verify::eventlog::{DataCheck, EventData, EventLog, EventType, Format};

use crate::builder::{self, Log};

#[test]
fn an_honest_log_has_no_faults_in_any_bank_or_format() {
    let logs = [
        Log::honest(),
        Log::boot(Log::sha1_only()),
        Log::boot(Log::new(&PcrBank::ALL)),
    ];
    for log in logs {
        let bytes = log.bytes();
        let parsed = EventLog::parse(&bytes).unwrap();
        let (format, banks) = match &log.banks {
            Some(banks) => (Format::CryptoAgile, banks.clone()),
            None => (Format::Sha1Only, vec![PcrBank::Sha1]),
        };
        assert_eq!((parsed.format(), parsed.banks()), (format, banks.clone()));
        for bank in banks {
            assert_eq!(parsed.inspect(bank), []);
            let pcrs = parsed.replay(bank).unwrap();
            let found: Vec<_> = pcrs.0.keys().map(|pcr| pcr.as_u8()).collect();
            assert_eq!(found, [0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 12]);
            let two = PcrIndex::new(2).unwrap();
            let separator = bank.hash(&[&[0; 4]]);
            assert_eq!(pcrs.0[&two], bank.extend(&vec![0; bank.digest_len()], &separator));
        }
    }
}

#[test]
fn an_old_log_may_begin_with_a_header_of_its_own() {
    let mut data = b"Spec ID Event02\0".to_vec();
    data.extend([0, 0, 0, 0, 2, 1, 2, 2, 3, 1, 2, 3]);
    let events = Log::boot(Log::sha1_only()).bytes();
    let bytes = [builder::header(&data), events].concat();
    let log = EventLog::parse(&bytes).unwrap();
    assert_eq!(log.format(), Format::Sha1Only);
    let header = log.header().unwrap();
    assert_eq!(
        (header.specification, header.vendor_info.as_str()),
        ([1, 2, 2], "010203")
    );
    assert_eq!(log.inspect(PcrBank::Sha1), []);
}

#[test]
fn digests_of_unknown_algorithms_are_skipped_by_the_length_in_the_header() {
    let mut data = b"Spec ID Event03\0".to_vec();
    data.extend([0, 0, 0, 0, 0, 2, 0, 2, 2, 0, 0, 0]);
    data.extend([0x12, 0, 32, 0, 0x0b, 0, 32, 0, 0]);
    let mut log = Log::boot(Log::new(&[PcrBank::Sha256]));
    for event in &mut log.events {
        event.digests.insert(0, (0x12, vec![7; 32]));
    }
    let plain = Log::new(&[PcrBank::Sha256]).bytes();
    let bytes = [builder::header(&data), log.bytes()[plain.len()..].to_vec()].concat();
    let parsed = EventLog::parse(&bytes).unwrap();
    assert_eq!(parsed.banks(), [PcrBank::Sha256]);
    assert_eq!(parsed.inspect(PcrBank::Sha256), []);
}

#[test]
fn the_tpm_starts_where_the_locality_says() {
    for locality in [0, 3, 4] {
        let mut log = Log::new(&[PcrBank::Sha256]);
        log.events.push(log.locality(locality));
        log.hash(0, EventType::EFI_HCRTM_EVENT, b"HCRTM");
        let bytes = log.bytes();
        let parsed = EventLog::parse(&bytes).unwrap();
        assert_eq!(parsed.startup_locality(), Some(locality));
        let mut start = vec![0; 32];
        start[31] = locality;
        let expected = PcrBank::Sha256.extend(&start, &PcrBank::Sha256.hash(&[b"HCRTM"]));
        assert_eq!(
            parsed.replay(PcrBank::Sha256).unwrap().0[&PcrIndex::new(0).unwrap()],
            expected
        );
    }
}

#[test]
fn both_halves_of_a_section_are_told_apart() {
    let bytes = Log::honest().bytes();
    let log = EventLog::parse(&bytes).unwrap();
    let found: Vec<_> = log
        .events()
        .iter()
        .filter(|event| event.pcr == 11)
        .map(|event| (event.data.describe(), event.data_check(PcrBank::Sha384)))
        .collect();
    let name = |text: &str| format!("section {text} of the kernel image");
    assert_eq!(
        found,
        [
            (name(".linux"), DataCheck::Matches),
            (name(".linux"), DataCheck::NotHashOfData),
            (name(".cmdline"), DataCheck::Matches),
            (name(".cmdline"), DataCheck::NotHashOfData),
        ]
    );
}

#[test]
fn variables_may_be_hashed_as_each_kind_of_firmware_does() {
    let mut log = Log::new(&[PcrBank::Sha256]);
    let variable = builder::variable("Boot0001", &[1, 2, 3]);
    log.describe(1, EventType::EFI_VARIABLE_BOOT, &variable, &[1, 2, 3]);
    log.hash(1, EventType::EFI_VARIABLE_BOOT, &variable);
    log.hash(1, EventType::EFI_VARIABLE_BOOT2, &variable);
    // shim's byte too many is logged, and not hashed.
    let with_byte = [&variable[..], &[0xaf]].concat();
    log.describe(7, EventType::EFI_VARIABLE_AUTHORITY, &with_byte, &variable);
    let accepted = log.events.len();
    log.describe(1, EventType::EFI_VARIABLE_BOOT2, &variable, &[1, 2, 3]);
    log.describe(7, EventType::EFI_VARIABLE_DRIVER_CONFIG, &variable, &[1, 2, 3]);
    let bytes = log.bytes();
    for event in EventLog::parse(&bytes).unwrap().events() {
        let matches = event.data_check(PcrBank::Sha256) == DataCheck::Matches;
        assert_eq!(matches, event.number < accepted, "event {}", event.number);
    }
}

#[test]
fn a_log_in_json_says_all_that_is_known() {
    let mut log = Log::honest();
    log.hash(13, EventType(0xffff_0000), &[1, 2, 3]);
    let bytes = log.bytes();
    let parsed = EventLog::parse(&bytes).unwrap();
    let json = serde_json::to_value(&parsed).unwrap();
    assert_eq!(json["format"], "crypto-agile");
    assert_eq!(json["header"]["algorithms"][1]["id"], 12);
    assert_eq!(json["banks"], serde_json::json!(["sha256", "sha384"]));
    let pcrs = serde_json::to_value(parsed.replay(PcrBank::Sha256).unwrap()).unwrap();
    assert_eq!(json["pcrs"]["sha256"], pcrs);
    let event = &json["events"][2];
    assert_eq!(
        *event,
        serde_json::json!({
            "number": 2,
            "offset": parsed.events()[2].offset,
            "pcr": 7,
            "type": "EV_EFI_VARIABLE_DRIVER_CONFIG",
            "digests": {
                "sha256": hex::encode(PcrBank::Sha256.hash(&[&builder::variable("SecureBoot", &[0])])),
                "sha384": hex::encode(PcrBank::Sha384.hash(&[&builder::variable("SecureBoot", &[0])])),
            },
            "size": 53,
            "data": {
                "kind": "variable",
                "guid": "8be4df61-93ca-11d2-aa0d-00e098032b8c",
                "name": "SecureBoot",
                "value": { "form": "switch", "on": false },
            },
            "data_check": { "sha256": "matches", "sha384": "matches" },
        })
    );
    let last = json["events"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["type"], &last["raw"]),
        (&"0xffff0000".into(), &"010203".into())
    );
    assert!(matches!(
        parsed.events().last().unwrap().data,
        EventData::Undecoded
    ));
}
