//! Values of real machines: each folder in the one that `AICERT_TEST_BOOTS` names has `uki.efi`, the `disk.img` that it was
//! booted from, and what the TPM said, `pcrs.json` (by bank, then by PCR) and `binary_bios_measurements`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use aicert_core::tpm::{PcrBank, PcrValues};
use aicert_verify::eventlog::EventLog;
use aicert_verify::image::{MeasureOptions, measure, measure_uki};
use aicert_verify::reference::ImageReference;

fn folders() -> Vec<PathBuf> {
    let Some(root) = std::env::var_os("AICERT_TEST_BOOTS") else {
        println!("skipped: AICERT_TEST_BOOTS is not set");
        return Vec::new();
    };
    let entries = fs::read_dir(&root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
    let folders: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    assert!(!folders.is_empty(), "{} has no folders", root.display());
    folders
}

fn options(folder: &Path) -> MeasureOptions {
    let mut options = MeasureOptions::default();
    let found = fs::read_to_string(folder.join("assume_stub")).ok();
    options.assume_stub = found.map(|text| text.trim().parse().unwrap());
    options
}

fn measured(folder: &Path) -> BTreeMap<PcrBank, PcrValues> {
    serde_json::from_slice(&fs::read(folder.join("pcrs.json")).unwrap()).unwrap()
}

/// Whether something besides the image took part: then PCR 12 says so.
fn is_plain(pcrs: &BTreeMap<PcrBank, PcrValues>) -> bool {
    let pcr_12 = pcrs[&PcrBank::Sha256].0.iter().find(|(pcr, _)| pcr.as_u8() == 12);
    pcr_12.unwrap().1.iter().all(|byte| *byte == 0)
}

#[test]
fn the_pcrs_of_a_booted_disk_are_those_computed_from_its_bytes() {
    for folder in folders() {
        let image = measure(File::open(folder.join("disk.img")).unwrap(), &options(&folder)).unwrap();
        let measured = measured(&folder);
        if !is_plain(&measured) {
            continue;
        }
        let log = fs::read(folder.join("binary_bios_measurements")).unwrap();
        let log = EventLog::parse(&log).unwrap();
        // With Secure Boot, and by newer stubs, the kernel is not measured; the values are those without.
        let is_kernel_measured = image.events.iter().filter(|event| event.optional).all(|event| {
            let expected = event.digests.in_bank(PcrBank::Sha256);
            log.events()
                .iter()
                .any(|event| event.digest(PcrBank::Sha256) == expected)
        });
        for (bank, values) in &image.pcrs {
            let values = values
                .0
                .iter()
                .filter(|(pcr, _)| pcr.as_u8() != 4 || is_kernel_measured);
            for (pcr, value) in values {
                let found = hex::encode(&measured[bank].0[pcr]);
                assert_eq!(
                    hex::encode(value),
                    found,
                    "{}: PCR {pcr}, {bank}",
                    folder.display()
                );
            }
        }
        assert_eq!(image.pcrs.len(), 3);
    }
}

#[test]
fn the_log_of_a_booted_disk_has_the_events_computed_from_its_bytes() {
    for folder in folders() {
        let bytes = fs::read(folder.join("binary_bios_measurements")).unwrap();
        let log = EventLog::parse(&bytes).unwrap();
        let image = measure(File::open(folder.join("disk.img")).unwrap(), &options(&folder)).unwrap();
        if !is_plain(&measured(&folder)) {
            continue;
        }
        for bank in [PcrBank::Sha256, PcrBank::Sha384, PcrBank::Sha512] {
            for pcr in [4, 5, 9, 11] {
                let found: Vec<_> = log
                    .events()
                    .iter()
                    .filter(|event| event.pcr == pcr)
                    .filter(|event| {
                        !["EV_SEPARATOR", "EV_EFI_ACTION"].contains(&&*event.event_type.to_string())
                    })
                    .map(|event| {
                        (
                            event.event_type.to_string(),
                            hex::encode(event.digest(bank).unwrap()),
                        )
                    })
                    .collect();
                let expected: Vec<_> = of_pcr(&image, pcr, bank)
                    .into_iter()
                    .filter(|(_, digest, optional)| {
                        !optional || found.iter().any(|(_, found)| found == digest)
                    })
                    .map(|(event_type, digest, _)| (event_type, digest))
                    .collect();
                assert_eq!(expected, found, "{}: PCR {pcr}, {bank}", folder.display());
            }
        }
    }
}

fn of_pcr(image: &ImageReference, pcr: u32, bank: PcrBank) -> Vec<(String, String, bool)> {
    let events = image
        .events
        .iter()
        .filter(|event| u32::from(event.pcr.as_u8()) == pcr);
    events
        .map(|event| {
            let digest = hex::encode(event.digests.in_bank(bank).unwrap());
            (event.event_type.clone(), digest, event.optional)
        })
        .collect()
}

#[test]
fn a_uki_measures_by_itself_what_it_measures_on_its_disk_but_for_the_partition_table() {
    for folder in folders() {
        let options = options(&folder);
        let uki = measure_uki(&fs::read(folder.join("uki.efi")).unwrap(), &options).unwrap();
        let disk = measure(File::open(folder.join("disk.img")).unwrap(), &options).unwrap();
        assert_eq!(uki.events, disk.events[1..]);
        assert_eq!(disk.events[0].what, "partition table");
        let has_pcr_5 = |image: &ImageReference| {
            image
                .pcrs
                .values()
                .all(|values| values.0.keys().any(|pcr| pcr.as_u8() == 5))
        };
        assert!(!has_pcr_5(&uki) && has_pcr_5(&disk));
    }
}
