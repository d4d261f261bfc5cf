//! Disks made byte by byte: where firmware finds the image, and disks that are read in more than one way.

use std::io::Cursor;

use aicert_core::tpm::PcrBank;
use aicert_verify::image::{ImageError, MeasureOptions, measure, measure_disk, measure_uki};
use aicert_verify::reference::{Digests, ImageReference};

use crate::forge::*;

const PATH: &str = "EFI/BOOT/BOOTX64.EFI";

fn uki() -> Vec<u8> {
    pe(&sections("252.1"))
}

fn bootable() -> Vec<u8> {
    disk(&[("README.TXT", b"x"), (PATH, &uki())])
}

fn measured(disk: &[u8]) -> Result<ImageReference, ImageError> {
    measure(Cursor::new(disk), &MeasureOptions::default())
}

fn fault(disk: &[u8]) -> String {
    measured(disk).expect_err("this disk must be refused").to_string()
}

/// The fault after a change to the partition table, which leaves its checksums right.
fn table_fault(change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut disk = bootable();
    change(&mut disk);
    seal(&mut disk);
    fault(&disk)
}

#[test]
fn a_disk_measures_what_its_uki_does_and_the_partition_table() {
    let disk = bootable();
    let image = measured(&disk).unwrap();
    let alone = measure_uki(&uki(), &MeasureOptions::default()).unwrap();
    assert_eq!(image.events[1..], alone.events);
    assert_eq!(image.sha256.0, PcrBank::Sha256.hash(&[&disk]));
    let table = [
        &disk[512..512 + 92],
        &1u64.to_le_bytes(),
        &disk[1024 + 128..1024 + 256],
    ];
    assert_eq!(image.events[0].digests, Digests::with(|bank| bank.hash(&table)));
    assert_eq!(image.events[0].event_type, "EV_EFI_GPT_EVENT");
    let pcr_5 = [
        [0; 4].as_slice(),
        &table.concat(),
        b"Exit Boot Services Invocation",
        b"Exit Boot Services Returned with Success",
    ];
    let pcr_5 = pcr_5.iter().fold(vec![0; 32], |value, data| {
        PcrBank::Sha256.hash(&[&value, &PcrBank::Sha256.hash(&[data])])
    });
    let found = image.pcrs[&PcrBank::Sha256]
        .0
        .iter()
        .find(|(pcr, _)| pcr.as_u8() == 5);
    assert_eq!(*found.unwrap().1, pcr_5);
}

#[test]
fn names_are_found_whatever_their_case_and_elsewhere_if_asked() {
    let disk = disk(&[("LINUX/OTHER.EFI", &uki())]);
    let mut options = MeasureOptions::default();
    options.path = "\\linux\\Other.efi".into();
    measure(Cursor::new(&disk), &options).unwrap();
    assert!(fault(&disk).contains("no \"\\\\EFI\\\\BOOT\\\\BOOTX64.EFI\": there is [\"LINUX\"]"));
    options.path = "\\LINUX".into();
    let fault = measure(Cursor::new(&disk), &options).unwrap_err().to_string();
    assert!(fault.contains("a folder of that name"), "{fault}");
    options.path = "\\LINUX\\OTHER.EFI\\x".into();
    let fault = measure(Cursor::new(&disk), &options).unwrap_err().to_string();
    assert!(fault.contains("a file where a folder should be"), "{fault}");
}

#[test]
fn files_that_the_stub_would_add_are_refused() {
    for folder in ["LOADER/ADDONS", "loader/credenti"] {
        let disk = disk(&[(PATH, &uki()), (&format!("{folder}/X.EFI"), b"x")]);
        let found = measured(&disk);
        if folder.ends_with("ADDONS") {
            let fault = found.unwrap_err().to_string();
            assert!(
                fault.contains("\"X.EFI\" in \"\\\\loader\\\\addons\"") && fault.contains("PCR 12 or 13"),
                "{fault}"
            );
        } else {
            found.unwrap();
        }
    }
}

#[test]
fn files_that_are_neither_or_both_are_refused() {
    assert!(fault(b"QFI\xfb and so on").contains("\"QFI\\\\xfb and\"; expected `MZ`"));
    assert!(fault(b"").contains("expected `MZ`"));
    let mut both = bootable();
    put(&mut both, 0, b"MZ");
    assert!(fault(&both).contains("at the same time"));
    // As a disk, its first bytes are of no interest.
    measure_disk(Cursor::new(&both), &MeasureOptions::default()).unwrap();
    let mut twice = bootable();
    put(&mut twice, 4096, b"EFI PART");
    assert!(fault(&twice).contains("there is another one at byte 4096"));
}

#[test]
fn partition_tables_that_firmware_would_not_take_are_refused() {
    assert!(table_fault(|disk| disk[450] = 0x83).contains("protective master boot record"));
    assert!(table_fault(|disk| disk[510] = 0).contains("protective master boot record"));
    assert!(table_fault(|disk| disk[512 + 24] = 2).contains("it says that it is in sector 2"));
    assert!(table_fault(|disk| disk[512 + 10] = 2).contains("0x00020000"));
    assert!(
        table_fault(|disk| put(disk, 512 + 80, &u32::MAX.to_le_bytes()))
            .contains("4294967295 entries of 128")
    );
    assert!(
        table_fault(|disk| put(disk, 512 + 84, &u32::MAX.to_le_bytes()))
            .contains("entries of 4294967295 bytes")
    );
    assert!(
        table_fault(|disk| put(disk, 512 + 84, &96u32.to_le_bytes())).contains("128 entries of 96 bytes")
    );
    assert!(table_fault(|disk| disk[512 + 72] = 1).contains("begin in sector 1"));
    let out_of_range = table_fault(|disk| put(disk, 512 + 72, &u64::MAX.to_le_bytes()));
    assert!(
        out_of_range.contains("begin in sector 18446744073709551615"),
        "{out_of_range}"
    );

    for (place, what) in [(512 + 56, "header"), (1024 + 150, "entries")] {
        let mut disk = bootable();
        disk[place] ^= 1;
        assert!(fault(&disk).contains(&format!("the CRC-32 of its {what}")));
    }
}

#[test]
fn there_must_be_one_system_partition_inside_the_disk() {
    assert!(table_fault(|disk| disk[1024 + 128] = 1).contains("no EFI system partition"));
    let second = table_fault(|disk| disk.copy_within(1024 + 128..1024 + 256, 1024 + 512));
    assert!(
        second.contains("at byte 1536: this is the second EFI system partition"),
        "{second}"
    );
    let beyond = table_fault(|disk| {
        put(disk, 1024 + 128 + 32, &(1u64 << 40).to_le_bytes());
        put(disk, 1024 + 128 + 40, &(1u64 << 41).to_le_bytes());
    });
    assert!(
        beyond.contains("cannot be read at byte 562949953421312"),
        "{beyond}"
    );
    let empty = table_fault(|disk| put(disk, 1024 + 128 + 40, &[0; 8]));
    assert!(empty.contains("the sectors 64 to 0"), "{empty}");
}

#[test]
fn chains_of_clusters_that_go_in_a_circle_or_elsewhere_are_refused() {
    // Cluster 3 is the folder `EFI`; in FAT12, entry 3 is the high 12 bits of bytes 4 and 5.
    let folder = |value: u16| {
        let mut disk = bootable();
        let pair = u16::from_le_bytes([disk[FAT + 4], disk[FAT + 5]]) & 0xf | value << 4;
        put(&mut disk, FAT + 4, &pair.to_le_bytes());
        fault(&disk)
    };
    assert!(folder(3).contains("goes in a circle"));
    assert!(folder(0).contains("leads to 0"));
    assert!(folder(0xff0).contains("leads to 4080"));

    // Cluster 5 is the file's first.
    let file = |value: u16| {
        let mut disk = bootable();
        let place = FAT + 5 * 3 / 2;
        let pair = u16::from_le_bytes([disk[place], disk[place + 1]]) & 0xf | value << 4;
        put(&mut disk, place, &pair.to_le_bytes());
        fault(&disk)
    };
    assert!(file(5).contains("goes in a circle"));
    assert!(file(0xfff).contains("ends after 1 of"));
    assert!(file(1).contains("leads to 1"));
}

#[test]
fn sizes_that_a_file_system_claims_are_not_believed() {
    let mut large = bootable();
    // The file's size, in the folder `BOOT`, which is cluster 4.
    put(&mut large, DATA + 2 * 512 + 28, &u32::MAX.to_le_bytes());
    assert!(fault(&large).contains("more than 1073741824 bytes"));
    put(&mut large, DATA + 2 * 512 + 28, &(1u32 << 30).to_le_bytes());
    assert!(fault(&large).contains("is said to have 1073741824 bytes, and the whole disk has"));
    put(&mut large, DATA + 2 * 512 + 28, &(1u32 << 20).to_le_bytes());
    assert!(fault(&large).contains("ends after"));

    let boot = 64 * 512;
    for (offset, value, reason) in [
        (11, &[0, 0][..], "sectors of 0 bytes"),
        (13, &[0], "0 per cluster"),
        (13, &[3], "3 per cluster"),
        (16, &[0], "0 allocation tables"),
        (19, &[0xff, 0xff], "65535 sectors"),
        (22, &[0xff, 0xff], "before its data"),
        (510, &[0], "does not begin as FAT does"),
    ] {
        let mut disk = bootable();
        put(&mut disk, boot + offset, value);
        let fault = fault(&disk);
        assert!(fault.contains(reason), "{fault}");
    }
}

#[test]
fn two_files_with_one_name_are_refused() {
    let mut disk = bootable();
    // `README.TXT` becomes a second `EFI`.
    put(&mut disk, ROOT, b"EFI        ");
    assert!(fault(&disk).contains("two files with the name \"EFI\""));
}
