//! Logs of real machines. They lie outside the repository, in the folder that `AICERT_TEST_VECTORS` names; without it these
//! tests say so and are skipped.

use std::collections::BTreeMap;
use std::path::Path;

use aicert_core::tpm::{PcrBank, PcrValues};
use aicert_verify::eventlog::{DataCheck, EventData, EventLog, EventType, Format, VariableValue};

const NAMES: [&str; 5] = [
    "arch-linux",
    "bootorder",
    "gce-ubuntu-2104-log",
    "sd-boot-fedora37",
    "uefi-sha1-log",
];

fn read(name: &str) -> Option<Vec<u8>> {
    let Ok(root) = std::env::var("AICERT_TEST_VECTORS") else {
        println!("skipped: AICERT_TEST_VECTORS is not set");
        return None;
    };
    let path = Path::new(&root).join("eventlogs").join(name);
    Some(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

#[test]
fn replay_gives_every_pcr_of_every_bank() {
    for name in NAMES {
        let Some(bytes) = read(&format!("{name}.bin")) else {
            return;
        };
        let expected = read(&format!("{name}.pcrs.json")).unwrap();
        let expected: BTreeMap<PcrBank, PcrValues> = serde_json::from_slice(&expected).unwrap();
        let log = EventLog::parse(&bytes).unwrap();
        let found: BTreeMap<_, _> = log
            .banks()
            .into_iter()
            .map(|bank| (bank, log.replay(bank).unwrap()))
            .collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn honest_machines_have_no_faults() {
    for name in NAMES {
        let Some(bytes) = read(&format!("{name}.bin")) else {
            return;
        };
        let log = EventLog::parse(&bytes).unwrap();
        for bank in log.banks() {
            assert_eq!(log.inspect(bank), [], "{name} {bank}");
        }
        assert_eq!(log.padding(), None);
        assert_eq!(log.format() == Format::Sha1Only, name == "uefi-sha1-log");
    }
}

/// Every digest is checked that can be: what is left are images, firmware, files, shim's lists and initrds.
#[test]
fn no_digest_that_could_be_checked_is_left_out() {
    for name in NAMES {
        let Some(bytes) = read(&format!("{name}.bin")) else {
            return;
        };
        let log = EventLog::parse(&bytes).unwrap();
        for event in log.events() {
            let unchecked = match &event.data {
                EventData::Image { .. }
                | EventData::FirmwareBlob { .. }
                | EventData::File { .. }
                | EventData::Shim { .. }
                | EventData::Tagged { .. } => DataCheck::NotHashOfData,
                _ => DataCheck::Matches,
            };
            for bank in log.banks() {
                assert_eq!(
                    event.data_check(bank),
                    unchecked,
                    "{name} event {}: {}",
                    event.number,
                    event.data.describe()
                );
            }
        }
    }
}

#[test]
fn what_was_booted_is_told_in_words() {
    for (name, number, expected) in [
        ("arch-linux", 0, "546bfb1e-1d0c-4055-a4ad-4ef4bf17b83a".to_owned()),
        (
            "arch-linux",
            18,
            "Boot0000 is Linux Boot Manager: HD(1,GPT,1A504613-19B5-4B44-A83D-D926D40DAA1C,0x800,0x80000)/\
             \\EFI\\SYSTEMD\\SYSTEMD-BOOTX64.EFI"
                .to_owned(),
        ),
        ("bootorder", 1, "firmware of 917504 bytes at 0x820000".to_owned()),
        ("bootorder", 25, "image from memory".to_owned()),
        (
            "bootorder",
            29,
            "grub: source (hd0,gpt15)/boot/grub/grub.cfg".to_owned(),
        ),
        ("gce-ubuntu-2104-log", 0, "GCE Virtual Firmware v1".to_owned()),
        ("gce-ubuntu-2104-log", 1, "memory is not encrypted".to_owned()),
        (
            "gce-ubuntu-2104-log",
            25,
            "SbatLevel is sbat,1,2021030218\\u{a}".to_owned(),
        ),
        (
            "sd-boot-fedora37",
            22,
            "kernel command line:  console=ttyS0 console=tty0 efi=debug ".to_owned(),
        ),
        (
            "sd-boot-fedora37",
            24,
            "initrd given to the kernel: Linux initrd".to_owned(),
        ),
        (
            "uefi-sha1-log",
            14,
            "disk 87a9f0c7-ed2a-47fe-862e-f307c4175841, 2 partitions: EFI System Partition, ".to_owned(),
        ),
    ] {
        let Some(bytes) = read(&format!("{name}.bin")) else {
            return;
        };
        let log = EventLog::parse(&bytes).unwrap();
        assert_eq!(
            log.events()[number].data.describe(),
            expected,
            "{name} event {number}"
        );
    }
}

#[test]
fn the_keys_of_secure_boot_are_named() {
    let Some(bytes) = read("gce-ubuntu-2104-log.bin") else {
        return;
    };
    let log = EventLog::parse(&bytes).unwrap();
    let subjects: Vec<_> = log
        .events()
        .iter()
        .filter(|event| event.event_type == EventType::EFI_VARIABLE_DRIVER_CONFIG)
        .filter_map(|event| match &event.data {
            EventData::Variable {
                name,
                value: VariableValue::Signatures { signatures },
                ..
            } => {
                let subjects: Vec<_> = signatures
                    .iter()
                    .filter_map(|signature| signature.subject())
                    .collect();
                Some((name.clone(), subjects.join("; ")))
            }
            _ => None,
        })
        .collect();
    assert_eq!(subjects.len(), 3);
    assert_eq!(subjects[0].0, "PK");
    assert!(
        subjects[2].1.contains("Microsoft Corporation UEFI CA 2011"),
        "{subjects:?}"
    );
}

#[test]
fn a_changed_byte_in_a_real_log_is_noticed_or_described_nothing_measured() {
    let Some(bytes) = read("sd-boot-fedora37.bin") else {
        return;
    };
    let honest = EventLog::parse(&bytes).unwrap().replay(PcrBank::Sha256).unwrap();
    let silent: Vec<usize> = (0..bytes.len())
        .filter(|index| {
            let mut changed = bytes.clone();
            changed[*index] ^= 1;
            EventLog::parse(&changed).is_ok_and(|log| {
                log.inspect(PcrBank::Sha256).is_empty()
                    && log.replay(PcrBank::Sha256).is_ok_and(|pcrs| pcrs == honest)
            })
        })
        .collect();
    let log = EventLog::parse(&bytes).unwrap();
    for index in silent {
        let event = log.events().iter().rfind(|event| event.offset <= index);
        // The header says nothing that matters but its algorithms. Of the rest, only data that merely describes can be
        // changed, the names of variables that say what to boot, and the type where another fits the data as well.
        let harmless = event.is_none_or(|event| {
            let in_type = (event.offset + 4..event.offset + 8).contains(&index);
            let named = event.event_type == EventType::EFI_VARIABLE_BOOT;
            in_type || named || event.data_check(PcrBank::Sha256) == DataCheck::NotHashOfData
        });
        assert!(
            harmless,
            "byte {index}, event {:?}",
            event.map(|event| event.number)
        );
    }
}
