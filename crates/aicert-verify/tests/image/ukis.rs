//! What the parts of a UKI measure, and UKIs that nothing is computed for.

use aicert_core::tpm::PcrBank;
use aicert_verify::image::{MeasureOptions, measure_uki};
use aicert_verify::reference::{Digests, ImageReference, ReferenceValues, Version};

use crate::forge::*;

fn what(image: &ImageReference, pcr: u8) -> Vec<&str> {
    let events = image.events.iter().filter(|event| event.pcr.as_u8() == pcr);
    events.map(|event| &*event.what).collect()
}

fn digest<'i>(image: &'i ImageReference, what: &str) -> &'i Digests {
    &image
        .events
        .iter()
        .find(|event| event.what == what)
        .unwrap()
        .digests
}

fn load_options(text: &str) -> Digests {
    let units: Vec<u8> = text
        .encode_utf16()
        .chain([0])
        .flat_map(u16::to_le_bytes)
        .collect();
    Digests::of(&units)
}

/// The contents of all of these sections are measured by one version or another.
fn everything(stub: &str) -> Vec<Section> {
    let mut sections = sections(stub);
    for name in [".hwids", ".pcrpkey", ".pcrsig", ".dtb", ".splash", ".ucode"] {
        sections.push(section(name, format!("content of {name}")));
    }
    sections
}

#[test]
fn sections_are_measured_in_the_order_of_each_version() {
    for (stub, expected) in [
        (
            "252.39-1~deb12u1",
            ".linux .osrel .cmdline .initrd .splash .dtb .pcrpkey",
        ),
        ("v253", ".linux .osrel .cmdline .initrd .splash .dtb .pcrpkey"),
        (
            "254.26",
            ".linux .osrel .cmdline .initrd .splash .dtb .uname .sbat .pcrpkey",
        ),
        (
            "255.4-1ubuntu8",
            ".linux .osrel .cmdline .initrd .splash .dtb .uname .sbat .pcrpkey",
        ),
        (
            "256~rc1",
            ".linux .osrel .cmdline .initrd .ucode .splash .dtb .uname .sbat .pcrpkey",
        ),
        (
            "257.13-1",
            ".linux .osrel .cmdline .initrd .ucode .splash .dtb .uname .sbat .pcrpkey .hwids",
        ),
    ] {
        let image = measured(&everything(stub)).unwrap();
        let expected: Vec<_> = expected
            .split(' ')
            .flat_map(|name| {
                [
                    format!("section {name}: name"),
                    format!("section {name}: content"),
                ]
            })
            .collect();
        assert_eq!(what(&image, 11), expected, "{stub}");
        assert_eq!(image.stub.as_deref(), Some(stub));
        assert_eq!(*digest(&image, "section .dtb: name"), Digests::of(b".dtb\0"));
        assert_eq!(
            *digest(&image, "section .dtb: content"),
            Digests::of(b"content of .dtb")
        );
    }
}

#[test]
fn an_image_says_what_it_is() {
    let image = measured(&sections("252.1")).unwrap();
    assert_eq!(image.name, "Image of tests");
    assert_eq!(image.kernel.as_deref(), Some(RELEASE));
    assert_eq!(image.command_line.as_deref(), Some("console=ttyS0 quiet"));
    assert_eq!(what(&image, 4), ["UKI", "kernel"]);
    assert_eq!(what(&image, 9), ["load options", "initrd"]);
    let optional: Vec<_> = image.events.iter().filter(|event| event.optional).collect();
    assert_eq!(optional.len(), 1);
    assert_eq!(optional[0].what, "kernel");

    assert_eq!(image.build, None);

    let osrel = "PRETTY_NAME=x\nIMAGE_ID=aicert-base\nIMAGE_VERSION='0.2.0'\nBUILD_ID=0123abcd\n";
    let image = measured(&with("252", ".osrel", osrel)).unwrap();
    assert_eq!(image.name, "aicert-base 0.2.0");
    assert_eq!(image.build.as_deref(), Some("0123abcd"));
    let deceptive = measured(&with("252", ".osrel", "BUILD_ID=\u{202e}0123")).unwrap();
    assert_eq!(deceptive.build, None);
    for osrel in ["PRETTY_NAME=\"\u{202e}x\"", "NAME=x", "PRETTY_NAME="] {
        let image = measured(&with("252", ".osrel", osrel)).unwrap();
        assert_eq!(image.name, image.sha256.to_string(), "{osrel}");
    }
    let named = |name: &str| {
        let mut options = MeasureOptions::default();
        options.name = Some(name.into());
        measure_uki(&pe(&sections("252")), &options)
    };
    assert_eq!(named("mine").unwrap().name, "mine");
    assert!(
        named("mi\u{7}ne")
            .unwrap_err()
            .to_string()
            .contains("visible text")
    );
}

#[test]
fn the_values_are_ones_that_a_file_of_reference_values_takes() {
    let file = ReferenceValues {
        version: Version::V1,
        images: vec![measured(&sections("257")).unwrap()],
        firmware: vec![],
    };
    let text = serde_json::to_vec(&file).unwrap();
    assert_eq!(ReferenceValues::from_slice(&text).unwrap(), file);
}

#[test]
fn the_kernel_is_hashed_as_the_stub_hands_it_over() {
    let image = measured(&sections("252")).unwrap();
    let kernel = kernel(RELEASE);
    // No signatures: all but checksum and entry of the certificate table.
    let parts: [&[u8]; 3] = [
        &kernel[..optional(64)],
        &kernel[optional(68)..directory(4)],
        &kernel[directory(5)..],
    ];
    assert_eq!(*digest(&image, "kernel"), Digests::with(|bank| bank.hash(&parts)));
}

#[test]
fn what_the_kernel_gets_depends_on_sections_and_version() {
    let initrd = b"a file system of 30 bytes, +2!".as_slice();
    let alone = measured(&sections("252")).unwrap();
    assert_eq!(*digest(&alone, "initrd"), Digests::of(initrd));

    // From 257 on, there is an archive with `os-release` behind it, and padding between the two.
    let newer = measured(&with("257", ".osrel", "ID=x\n")).unwrap();
    let entry = |inode: u32, mode: u32, name: &str, content: &str| {
        let fields = [
            inode,
            mode,
            0,
            0,
            1,
            0,
            content.len() as u32,
            0,
            0,
            0,
            0,
            name.len() as u32 + 1,
            0,
        ];
        let mut entry = fields
            .iter()
            .fold("070701".to_owned(), |entry, field| format!("{entry}{field:08x}"));
        for text in [name, content] {
            entry.push_str(text);
            if text == name {
                entry.push('\0');
            }
            while entry.len() % 4 != 0 {
                entry.push('\0');
            }
        }
        entry
    };
    let archive = entry(1, 0o40555, ".extra", "")
        + &entry(2, 0o100444, ".extra/os-release", "ID=x\n")
        + &entry(0, 0, "TRAILER!!!", "").replace("0000000b", "0000000B");
    let expected = Digests::with(|bank| bank.hash(&[initrd, b"\0\0", archive.as_bytes()]));
    assert_eq!(*digest(&newer, "initrd"), expected);

    // Nothing to hand over, nothing measured.
    let none = measured(&without("252", ".initrd")).unwrap();
    assert_eq!(what(&none, 9), ["load options"]);
    assert_eq!(
        what(&measured(&without("257", ".initrd")).unwrap(), 9),
        ["load options", "initrd"]
    );
}

#[test]
fn the_command_line_is_hashed_as_the_stub_hands_it_over() {
    for (section, line) in [
        ("quiet", "quiet"),
        ("quiet \n\0\0", "quiet"),
        ("a\tb\nc\n", "a b c"),
        ("grüße €", "grüße €"),
        (" \n", ""),
        ("\0", ""),
    ] {
        let image = measured(&with("257", ".cmdline", section)).unwrap();
        assert_eq!(image.command_line.as_deref(), Some(line));
        assert_eq!(*digest(&image, "load options"), load_options(line), "{section:?}");
    }
    let none = measured(&without("252", ".cmdline")).unwrap();
    assert_eq!(
        (none.command_line.as_deref(), what(&none, 9)),
        (None, vec!["initrd"])
    );
    // To the stub, an empty section is none.
    let empty = measured(&with("252", ".cmdline", "")).unwrap();
    assert_eq!(what(&empty, 11), what(&none, 11));
    assert_eq!(what(&empty, 9), ["initrd"]);
}

#[test]
fn command_lines_that_are_read_in_several_ways_are_refused() {
    for (section, reason) in [
        (
            b"quiet\0init=/bin/sh".as_slice(),
            "at byte 6: there is something behind a NUL",
        ),
        (b"quiet \xff", "at byte 6: it is not UTF-8"),
        (b" quiet", "space before the first word"),
        (b"\nquiet", "space before the first word"),
        (
            b"a\x7fb",
            "at byte 1: versions of systemd-stub differ in what they do with U+007F",
        ),
        ("a\u{1f600}".as_bytes(), "U+1F600"),
        (b"quiet noinitrd", "\"noinitrd\" in its command line"),
        (b"\"initrd=\\x\"", "initrd="),
    ] {
        let fault = fault(&with("252", ".cmdline", section));
        assert!(fault.contains(reason), "{fault}");
    }
}

#[test]
fn two_sections_with_one_name_are_refused() {
    for name in [".linux", ".cmdline", ".initrd", ".pcrsig", ".sdmagic"] {
        let mut sections = with("257", ".pcrsig", "x");
        sections.push(section(name, "#### LoaderInfo: systemd-stub 252 ####"));
        assert!(fault(&sections).contains("several"), "{name}");
    }
    // Older versions of the stub take this for `.cmdline`.
    for name in [".cmdlin2", ".linux.x", ".dtbauto"] {
        let mut sections = sections("252");
        sections.push(section(name, "x"));
        if name == ".cmdlin2" {
            measured(&sections).unwrap();
        } else {
            assert!(fault(&sections).contains(name), "{name}");
        }
    }
}

#[test]
fn images_of_which_the_machine_chooses_a_part_are_refused() {
    for name in [".profile", ".dtbauto", ".efifw"] {
        assert!(fault(&with("257", name, "x")).contains("depends on the machine"));
    }
}

#[test]
fn stubs_that_are_not_known_are_refused() {
    for found in ["251.4", "250", "258~rc1", "262.1-1", "0", "x", "99999999999"] {
        let fault = fault(&sections(found));
        assert!(fault.contains(&format!("{found:?}")), "{fault}");
        assert!(fault.contains("252 to 257"), "{fault}");
    }
    assert!(fault(&without("252", ".sdmagic")).contains("there is no such section"));
    assert!(
        fault(&with("252", ".sdmagic", "#### LoaderInfo: systemd-boot 252 ####"))
            .contains("systemd-boot 252")
    );
    assert!(
        fault(&with(
            "252",
            ".sdmagic",
            "#### LoaderInfo: systemd-stub 2\u{1b}[2J ####"
        ))
        .contains("\\x1b")
    );

    let mut options = MeasureOptions::default();
    options.assume_stub = Some(257);
    let assumed = measure_uki(&pe(&sections("258.1")), &options).unwrap();
    assert_eq!(assumed.stub.as_deref(), Some("258.1"));
    assert_eq!(
        assumed.events[1..],
        measured(&sections("257.1")).unwrap().events[1..]
    );
    options.assume_stub = Some(258);
    measure_uki(&pe(&sections("258.1")), &options).unwrap_err();
}

#[test]
fn kernels_that_are_not_known_are_refused() {
    let of = |kernel: Vec<u8>| {
        let mut sections = without("252", ".uname");
        sections
            .iter_mut()
            .find(|section| section.name == b".linux")
            .unwrap()
            .content = kernel;
        sections
    };
    measured(&of(kernel("7.2.1"))).unwrap();
    for release in ["5.15.0-1", "6.0.19", "x"] {
        let fault = fault(&of(kernel(release)));
        assert!(
            fault.contains(release) && fault.contains("Linux 6.1 and later"),
            "{fault}"
        );
    }
    assert!(fault(&of(pe(&[section(".text", "x")]))).contains("no setup header"));
    assert!(fault(&of(b"ELF".to_vec())).contains("the kernel in .linux, at byte 0"));
    let mut old = kernel("6.1.0");
    put(&mut old, optional(44), &[0]);
    assert!(fault(&of(old)).contains("image version below 1.0"));
    assert!(fault(&with("254", ".uname", "6.1.0-other")).contains("says that it is \"6.1.0-other\""));
    assert!(fault(&without("252", ".linux")).contains("\".linux\""));
}

#[test]
fn the_pcrs_follow_from_the_events() {
    let image = measured(&sections("252")).unwrap();
    let values = &image.pcrs[&PcrBank::Sha256].0;
    let numbers: Vec<_> = values.keys().map(|pcr| pcr.as_u8()).collect();
    // Without a disk there is no partition table, and no telling what PCR 5 will be.
    assert_eq!(numbers, [4, 9, 11, 12, 13]);
    let replay = |first: &[&[u8]], pcr: u8| {
        let first = first.iter().map(|data| PcrBank::Sha256.hash(&[data]));
        let own = image.events.iter().filter(|event| event.pcr.as_u8() == pcr);
        let own = own.map(|event| event.digests.sha256.0.clone());
        first.chain(own).fold(vec![0; 32], |value, digest| {
            PcrBank::Sha256.hash(&[&value, &digest])
        })
    };
    let calling = b"Calling EFI Application from Boot Option".as_slice();
    for (pcr, value) in values {
        let expected = match pcr.as_u8() {
            4 => replay(&[calling, &[0; 4]], 4),
            other => replay(&[], other),
        };
        assert_eq!(*value, expected, "PCR {pcr}");
    }
}
