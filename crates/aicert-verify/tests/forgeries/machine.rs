//! A machine that boots: what it measures, the log that says so, and the reference values of what it boots.

use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues};
use aicert_verify::Options;
use aicert_verify::eventlog::EventType;
use aicert_verify::reference::{Digests, ExpectedEvent, FirmwareReference, ImageReference, ReferenceValues};
pub use aicert_verify::testing::*;

use crate::support::*;

/// The command line of the released image.
pub const COMMAND_LINE: &str = "root=/dev/mapper/root ro quiet";

/// A boot of the released image, as EDK II and systemd-stub log it.
pub fn honest_boot() -> Boot {
    let mut events = vec![
        event(0, EventType::S_CRTM_VERSION, &utf16("1.0")),
        described(
            0,
            EventType::EFI_PLATFORM_FIRMWARE_BLOB,
            &[0, 0, 0x82, 0, 0, 0, 0, 0, 0, 0, 0xe0, 0, 0, 0, 0, 0],
            b"firmware",
        ),
    ];
    for (name, content) in [
        ("SecureBoot", &[0][..]),
        ("PK", &[]),
        ("KEK", &[]),
        ("db", &[]),
        ("dbx", &[]),
    ] {
        events.push(event(
            7,
            EventType::EFI_VARIABLE_DRIVER_CONFIG,
            &variable(name, content),
        ));
    }
    events.push(separator(7));
    events.push(event(
        1,
        EventType::EFI_VARIABLE_BOOT,
        &variable("BootOrder", &[0, 0]),
    ));
    events.push(event(
        4,
        EventType::EFI_ACTION,
        b"Calling EFI Application from Boot Option",
    ));
    events.extend((0..7).map(separator));
    events.push(application("\\EFI\\BOOT\\BOOTX64.EFI", b"uki"));
    events.extend(section(".linux", b"kernel"));
    events.extend(section(".cmdline", COMMAND_LINE.as_bytes()));
    events.push(application("", b"kernel"));
    events.push(tagged(
        9,
        0x8f3b_22ed,
        "LOADED_IMAGE::LoadOptions",
        &utf16(COMMAND_LINE),
    ));
    events.push(tagged(9, 0x8f3b_22ec, "Linux initrd", b"initrd"));
    events.push(event(5, EventType::EFI_ACTION, b"Exit Boot Services Invocation"));
    events.push(event(
        5,
        EventType::EFI_ACTION,
        b"Exit Boot Services Returned with Success",
    ));
    Boot { locality: 3, events }
}

/// The position of the first event that holds.
pub fn position(boot: &Boot, holds: impl Fn(&BootEvent) -> bool) -> usize {
    boot.events.iter().position(holds).unwrap()
}

/// A proof from a machine that booted this way.
pub fn recipe(boot: &Boot) -> Recipe {
    Recipe {
        boot_event_log: boot.log(),
        boot_pcrs: boot.pcrs(PcrBank::Sha256),
        ..Recipe::default()
    }
}

fn expected(pcr: u8, event_type: EventType, what: &str, hashed: &[u8]) -> ExpectedEvent {
    ExpectedEvent {
        pcr: PcrIndex::new(pcr).unwrap(),
        event_type: event_type.to_string(),
        what: what.into(),
        digests: Digests::of(hashed),
        optional: false,
    }
}

/// The reference values of the released image and of the firmware that boots it.
pub fn released() -> ReferenceValues {
    let application = EventType::EFI_BOOT_SERVICES_APPLICATION;
    let image = ImageReference {
        name: "aicert-base 1.0".into(),
        sha256: Digests::of(b"file").sha256,
        build: None,
        stub: None,
        kernel: None,
        command_line: Some(COMMAND_LINE.into()),
        events: vec![
            expected(4, application, "UKI", b"uki"),
            expected(11, EventType::IPL, "section .linux: name", b".linux\0"),
            expected(11, EventType::IPL, "section .linux: content", b"kernel"),
            expected(11, EventType::IPL, "section .cmdline: name", b".cmdline\0"),
            expected(
                11,
                EventType::IPL,
                "section .cmdline: content",
                COMMAND_LINE.as_bytes(),
            ),
            ExpectedEvent {
                optional: true,
                ..expected(4, application, "kernel", b"kernel")
            },
            expected(9, EventType::EVENT_TAG, "load options", &utf16(COMMAND_LINE)),
            expected(9, EventType::EVENT_TAG, "initrd", b"initrd"),
        ],
        pcrs: Default::default(),
    };
    let measured = honest_boot().pcrs(PcrBank::Sha256);
    let of_firmware = measured
        .0
        .into_iter()
        .filter(|(pcr, _)| pcr.as_u8() < 4)
        .collect();
    ReferenceValues {
        images: vec![image],
        firmware: vec![FirmwareReference {
            name: "firmware 1.0".into(),
            pcrs: [(PcrBank::Sha256, PcrValues(of_firmware))].into(),
        }],
        ..ReferenceValues::default()
    }
}

/// The usual options, with the reference values.
pub fn machine_options() -> Options {
    options().with_reference_values(released())
}
