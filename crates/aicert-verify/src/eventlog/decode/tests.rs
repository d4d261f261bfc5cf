use super::*;

fn le(fields: &[u64]) -> Vec<u8> {
    fields.iter().flat_map(|field| field.to_le_bytes()).collect()
}

fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16()
        .chain([0])
        .flat_map(u16::to_le_bytes)
        .collect()
}

fn described(event_type: EventType, pcr: u32, raw: &[u8]) -> String {
    decode(event_type, pcr, raw).describe()
}

#[test]
fn separators_have_three_values() {
    let separator = |raw: &[u8]| decode(EventType::SEPARATOR, 0, raw);
    assert_eq!(separator(&[0; 4]), EventData::Separator { value: 0 });
    assert_eq!(separator(&[0xff; 4]), EventData::Separator { value: u32::MAX });
    assert_eq!(separator(&[1, 0, 0, 0]), EventData::Separator { value: 1 });
    for raw in [&[][..], &[0; 3], &[0; 5], &[2, 0, 0, 0]] {
        assert!(matches!(separator(raw), EventData::Malformed { .. }), "{raw:?}");
    }
}

#[test]
fn boot_loaders_are_told_apart_by_what_they_write_and_where() {
    for (pcr, raw, expected) in [
        (8, b"grub_cmd: set x=1\0".to_vec(), "grub: set x=1"),
        (
            8,
            b"kernel_cmdline: /vmlinuz quiet\0".to_vec(),
            "kernel command line: /vmlinuz quiet",
        ),
        (8, b"module_cmdline: x\0".to_vec(), "grub module: x"),
        (
            9,
            b"(hd0,gpt1)/boot/grub/grub.cfg\0".to_vec(),
            "file (hd0,gpt1)/boot/grub/grub.cfg",
        ),
        (14, b"MokList\0\xaf".to_vec(), "shim's variable MokList"),
        (11, wide(".linux"), "section .linux of the kernel image"),
        (
            12,
            wide("root=/dev/sda quiet"),
            "kernel command line: root=/dev/sda quiet",
        ),
        (8, wide("quiet"), "kernel command line: quiet"),
        (12, wide("Credentials initrd"), "Credentials initrd"),
        (13, wide("System extension initrd"), "System extension initrd"),
        (12, wide("привет"), "kernel command line: привет"),
    ] {
        assert_eq!(described(EventType::IPL, pcr, &raw), expected, "PCR {pcr}");
    }
    assert_eq!(decode(EventType::IPL, 8, &[]), EventData::Undecoded);
    let half = &wide("quiet")[..11];
    assert_eq!(described(EventType::IPL, 8, half), "kernel command line: quiet");
}

#[test]
fn statements_are_known_by_their_signature() {
    let locality = |value: &[u8]| decode(EventType::NO_ACTION, 0, &[b"StartupLocality\0", value].concat());
    assert_eq!(locality(&[3]), EventData::StartupLocality { locality: 3 });
    for value in [&[][..], &[1], &[3, 0]] {
        assert!(
            matches!(locality(value), EventData::Malformed { .. }),
            "{value:?}"
        );
    }
    let name = |text: &str| [&[u8::try_from(text.len() + 1).unwrap()], text.as_bytes(), &[0]].concat();
    let manifest = [
        b"SP800-155 Event3".to_vec(),
        11129_u32.to_le_bytes().to_vec(),
        Guid::SHIM_LOCK.0.to_vec(),
        name("Google, Inc."),
        name("Google Compute Engine"),
        name(""),
        name("Google, Inc."),
        11129_u32.to_le_bytes().to_vec(),
        name("2.7"),
        1_u32.to_le_bytes().to_vec(),
        9_u32.to_le_bytes().to_vec(),
        b"https://x".to_vec(),
        vec![0; 8],
    ]
    .concat();
    match decode(EventType::NO_ACTION, 0, &manifest) {
        EventData::ReferenceManifest {
            version: 3,
            vendor: 11129,
            platform,
            locator,
            ..
        } => {
            assert_eq!(platform[1], "Google Compute Engine");
            assert_eq!(locator.as_deref(), Some("https://x"));
        }
        other => panic!("{other:?}"),
    }
    let dynamic = [
        &b"NvIndexDynamic\0\0"[..],
        &[1, 0],
        &[0; 14],
        &[4, 0],
        b"SPDM",
        &[0, 0],
    ]
    .concat();
    assert_eq!(
        described(EventType::NO_ACTION, 0, &dynamic),
        "measured into an NV index (dynamic): SPDM"
    );
    assert_eq!(
        decode(EventType::NO_ACTION, 0, b"H-CRTM CompMeas\0\x01\x02\xff"),
        EventData::Note {
            signature: "H-CRTM CompMeas".to_owned()
        }
    );
}

#[test]
fn images_may_lack_a_path_and_have_shims_bytes() {
    let raw = le(&[0x1000, 0x2000, 0, 0]);
    assert_eq!(
        described(EventType::EFI_BOOT_SERVICES_APPLICATION, 4, &raw),
        "image from memory"
    );
    let with_byte = [&raw[..], &[0x5a]].concat();
    assert_eq!(
        described(EventType::EFI_BOOT_SERVICES_APPLICATION, 4, &with_byte),
        "image from memory"
    );
    for wrong in [
        &[&raw[..], &[0; 10]].concat()[..],
        &le(&[1, 2, 3, u64::MAX]),
        &raw[..31],
    ] {
        assert!(matches!(
            decode(EventType::EFI_BOOT_SERVICES_APPLICATION, 4, wrong),
            EventData::Malformed { .. }
        ));
    }
}

#[test]
fn partition_tables_must_hold_what_they_count() {
    let mut header = b"EFI PART".to_vec();
    header.extend([0; 48]);
    header.extend(Guid::SHIM_LOCK.0);
    header.extend([0; 12]);
    header.extend(128_u32.to_le_bytes());
    header.extend([0; 4]);
    let mut entry = [Guid::GLOBAL_VARIABLE.0, Guid::SHIM_LOCK.0].concat();
    entry.extend(le(&[2048, 4095, 0]));
    entry.extend(wide("root"));
    entry.resize(128, 0);
    let raw = [&header[..], &le(&[1]), &entry].concat();
    assert_eq!(
        described(EventType::EFI_GPT_EVENT, 5, &raw),
        "disk 605dab50-e046-4300-abb6-3dd810dd8b23, 1 partitions: root"
    );
    for count in [0, 2, u64::MAX, u64::MAX / 128 + 2] {
        let raw = [&header[..], &le(&[count]), &entry].concat();
        assert!(
            matches!(
                decode(EventType::EFI_GPT_EVENT, 5, &raw),
                EventData::Malformed { .. }
            ),
            "{count}"
        );
    }
    let mut small = raw.clone();
    small[84..88].copy_from_slice(&[0; 4]);
    assert!(matches!(
        decode(EventType::EFI_GPT_EVENT, 5, &small),
        EventData::Malformed { .. }
    ));
}

#[test]
fn what_firmware_calls_its_parts_is_read_in_each_form() {
    assert_eq!(described(EventType::POST_CODE, 0, b"ACPI DATA"), "ACPI DATA");
    assert_eq!(
        described(EventType::POST_CODE, 0, b"Embedded UEFI Dr"),
        "Embedded UEFI Dr"
    );
    assert_eq!(
        described(
            EventType::EFI_PLATFORM_FIRMWARE_BLOB,
            0,
            &le(&[0x82_0000, 0xe0_0000])
        ),
        "firmware of 14680064 bytes at 0x820000"
    );
    let blob = [&[4][..], b"PEI\0", &le(&[1, 2])].concat();
    assert_eq!(
        described(EventType::EFI_PLATFORM_FIRMWARE_BLOB2, 0, &blob),
        "PEI of 2 bytes at 0x1"
    );
    let tables = [&le(&[1])[..], &Guid::SHIM_LOCK.0, &[0; 8]].concat();
    assert_eq!(
        described(EventType::EFI_HANDOFF_TABLES, 1, &tables),
        format!("tables {}", Guid::SHIM_LOCK)
    );
    let named = [&[7][..], b"SMBIOS\0", &tables].concat();
    assert_eq!(
        described(EventType::EFI_HANDOFF_TABLES2, 1, &named),
        format!("SMBIOS {}", Guid::SHIM_LOCK)
    );
    assert_eq!(
        described(EventType::S_CRTM_VERSION, 0, &wide("GCE Virtual Firmware v1")),
        "GCE Virtual Firmware v1"
    );
    assert_eq!(
        described(EventType::S_CRTM_VERSION, 0, &Guid::SHIM_LOCK.0),
        Guid::SHIM_LOCK.to_string()
    );
    let gce = [&b"GCE NonHostInfo\0"[..], &[4], &[0; 15]].concat();
    assert_eq!(
        described(EventType::NONHOST_INFO, 0, &gce),
        "memory is encrypted by AMD SEV-SNP"
    );
}

#[test]
fn devices_are_shown_by_their_path() {
    let path = [1, 1, 6, 0, 0, 3, 0x7f, 0xff, 4, 0];
    let mut raw = b"SPDM Device Sec2".to_vec();
    raw.extend([2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    raw.extend([0; 16]);
    raw.extend(le(&[path.len() as u64]));
    raw.extend(path);
    assert_eq!(
        described(EventType::EFI_SPDM_FIRMWARE_BLOB, 2, &raw),
        "device Pci(0x3,0x0)"
    );
    assert_eq!(
        decode(EventType::EFI_SPDM_FIRMWARE_BLOB, 2, &[0; 8]),
        EventData::Undecoded
    );
}
