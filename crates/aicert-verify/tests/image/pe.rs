//! PE files: the digest that firmware measures, and files that are read in more than one way.

use aicert_core::tpm::PcrBank;
use aicert_verify::image::{MeasureOptions, measure_uki};

use crate::forge::*;

fn uki_digest(bytes: &[u8]) -> String {
    let image = measure_uki(bytes, &MeasureOptions::default()).unwrap();
    image.events[0].digests.sha256.to_string()
}

fn refused(bytes: &[u8]) -> String {
    measure_uki(bytes, &MeasureOptions::default())
        .expect_err("this file must be refused")
        .to_string()
}

#[test]
fn checksum_and_signatures_are_not_hashed_and_everything_else_is() {
    let image = pe(&sections("252.1"));
    let digest = uki_digest(&image);

    let mut signed = image.clone();
    put(&mut signed, optional(64), b"else");
    put(&mut signed, directory(4), &(image.len() as u32).to_le_bytes());
    put(&mut signed, directory(4) + 4, &16u32.to_le_bytes());
    signed.extend(b"16 of signature!");
    assert_eq!(uki_digest(&signed), digest);

    let mut appended = image.clone();
    appended.extend(b"more");
    assert_ne!(uki_digest(&appended), digest);
    for place in [
        2,
        FILE_HEADER + 4,
        directory(3),
        directory(5) + 7,
        HEADERS_END,
        image.len() - 1,
    ] {
        let mut changed = image.clone();
        changed[place] ^= 1;
        if place == directory(5) + 7 {
            // A directory of relocations that lead nowhere is refused, whatever is hashed.
            refused(&changed);
        } else {
            assert_ne!(uki_digest(&changed), digest, "byte {place}");
        }
    }
}

/// The last byte of the headers.
const HEADERS_END: usize = 0xfff;

#[test]
fn the_digest_is_the_one_of_another_implementation() {
    // `pe_authenticode_hash` of virt-firmware 26.10 (`virt.peutils.pesign`), of the very file that this makes.
    let image = pe(&sections("252.1"));
    const FILE: &str = "2a45c0bf3d7fe3eae586060ad1378b8c22b46ad8a0a4946d10d3b3170f0717fa";
    const DIGEST: &str = "f51fbb2251a2b32e4da9e7e8adf7716a06845c063d7ba0de3fe4797b27736e49";
    assert_eq!(hex::encode(PcrBank::Sha256.hash(&[&image])), FILE);
    assert_eq!(uki_digest(&image), DIGEST);
}

#[test]
fn sections_are_hashed_in_the_order_of_the_file() {
    // Two sections change places in the table, and nowhere else.
    let image = pe(&sections("252.1"));
    let table = optional(240);
    let mut swapped = image.clone();
    swapped.copy_within(table + 80..table + 120, table + 120);
    swapped[table + 80..table + 120].copy_from_slice(&image[table + 120..table + 160]);
    let parts: [&[u8]; 4] = [
        &swapped[..optional(64)],
        &swapped[optional(68)..directory(4)],
        &swapped[directory(5)..0x1000],
        &swapped[0x1000..],
    ];
    assert_eq!(uki_digest(&swapped), hex::encode(PcrBank::Sha256.hash(&parts)));
}

#[test]
fn overlapping_sections_are_refused() {
    let mut sections = sections("252.1");
    sections[3].raw_offset = Some(0x1000);
    assert!(refused(&pe(&sections)).contains("begins at byte 4096 of the file, inside of \".sdmagic\""));

    let mut sections = self::sections("252.1");
    sections[6].virtual_address = Some(0x1000);
    assert!(refused(&pe(&sections)).contains("section \".initrd\" begins at address 0x1000"));

    let mut sections = self::sections("252.1");
    sections[4].raw_offset = Some(0x800);
    assert!(refused(&pe(&sections)).contains("inside of the headers"));
    sections[4].raw_offset = None;
    sections[4].virtual_address = Some(0x800);
    assert!(refused(&pe(&sections)).contains("of the memory, inside of the headers"));
}

#[test]
fn sections_outside_the_file_and_sizes_near_the_limit_are_refused() {
    for (size, offset) in [
        (u32::MAX, None),
        (u32::MAX, Some(u32::MAX)),
        (512, Some(1 << 30)),
        (1 << 20, None),
    ] {
        let mut sections = sections("252.1");
        sections[6].raw_size = Some(size);
        sections[6].raw_offset = offset;
        assert!(
            refused(&pe(&sections)).contains("\".initrd\" ends at byte"),
            "{size} {offset:?}"
        );
    }
    let mut sections = sections("252.1");
    sections[6].virtual_size = Some(u32::MAX);
    assert!(refused(&pe(&sections)).contains("4294967295 bytes in memory, and 512 in the file"));
}

#[test]
fn a_relocation_into_what_is_measured_is_refused() {
    let relocation = |address: u32| {
        let block: Vec<u8> = [address & !0xfff, 12]
            .into_iter()
            .flat_map(u32::to_le_bytes)
            .chain((0xa000 | (address & 0xfff) as u16).to_le_bytes())
            .chain([0, 0])
            .collect();
        let mut sections = sections("252.1");
        sections.push(Section {
            virtual_address: Some(0x10_0000),
            ..section(".reloc", block)
        });
        let mut image = pe(&sections);
        put(&mut image, directory(5), &0x10_0000u32.to_le_bytes());
        put(&mut image, directory(5) + 4, &12u32.to_le_bytes());
        image
    };
    // The stub's own data may be relocated; `.cmdline` is in the fifth page behind the headers.
    uki_digest(&relocation(0x1008));
    assert!(refused(&relocation(0x5003)).contains("changes section \".cmdline\" at address 0x5003"));
    let mut endless = relocation(0x1008);
    let block = endless.len() - 512;
    put(&mut endless, block + 4, &[0; 4]);
    assert!(refused(&endless).contains("a block of base relocations is said to have 0 bytes"));
}

#[test]
fn other_kinds_of_programs_are_refused() {
    let image = pe(&sections("252.1"));
    let changed = |place: usize, value: &[u8]| {
        let mut changed = image.clone();
        put(&mut changed, place, value);
        refused(&changed)
    };
    assert!(changed(0, b"ZM").contains("does not begin with `MZ`"));
    assert!(changed(0x3c, &[0xff; 4]).contains("no `PE"));
    assert!(changed(FILE_HEADER, &[0x64, 0xaa]).contains("0xaa64; expected 0x8664"));
    assert!(changed(FILE_HEADER + 2, &[0xff, 0xff]).contains("65535 section headers"));
    assert!(changed(FILE_HEADER + 16, &[0, 0]).contains("do not fit together"));
    assert!(changed(optional(0), &[0x0b, 1]).contains("0x010b; expected 0x020b"));
    assert!(changed(optional(60), &[0xff; 4]).contains("4294967295 bytes"));
    assert!(changed(optional(68), &[11]).contains("subsystem is 11"));
    assert!(changed(directory(4), &[1, 0, 0, 0, 16, 0, 0, 0]).contains("do not end where the file ends"));
}
