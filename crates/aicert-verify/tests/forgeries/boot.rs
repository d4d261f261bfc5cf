//! What the machine booted.

use aicert_core::digest::BootLogDigest;
use aicert_core::event::EventContent;
use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues};
use aicert_verify::Cause;
use aicert_verify::boot::{BootFault, Firmware, SecureBoot};
use aicert_verify::eventlog::{EventLogError, EventLogFault, EventType};
use aicert_verify::log::LogFault;
use aicert_verify::policy::Policy;
use aicert_verify::reference::{Digests, ReferenceValues};

use crate::machine::*;
use crate::support::*;

fn refuse(recipe: &Recipe) -> aicert_verify::Rejection {
    check_with(&recipe.build(), &machine_options()).expect_err("this must be refused")
}

/// A machine that booted one way, and shows the log of another.
fn showing(boot: &Boot, log: Vec<u8>) -> Recipe {
    Recipe {
        boot_event_log: log,
        ..recipe(boot)
    }
}

fn is_launch(event: &BootEvent) -> bool {
    event.event_type == EventType::EFI_BOOT_SERVICES_APPLICATION
}

#[test]
fn a_machine_that_boots_the_released_image_is_accepted() {
    let verified = check_with(&recipe(&honest_boot()).build(), &machine_options()).unwrap();
    assert_eq!(verified.boot().image(), Some("aicert-base 1.0"));
    assert_eq!(
        verified.boot().firmware(),
        &Firmware::Known("firmware 1.0".into())
    );
    assert_eq!(verified.boot().secure_boot(), SecureBoot::Off);
}

#[test]
fn firmware_that_does_not_measure_the_inner_kernel_is_no_other_image() {
    let mut boot = honest_boot();
    let kernel = boot.events.iter().rposition(is_launch).unwrap();
    boot.events.remove(kernel);
    check_with(&recipe(&boot).build(), &machine_options()).unwrap();
}

#[test]
fn without_reference_values_nobody_can_say_what_was_booted() {
    refused!(
        check(&recipe(&honest_boot()).build()),
        Cause::Boot(BootFault::NoReferenceValues {}),
        "--reference-values"
    );
}

#[test]
fn an_empty_boot_log_with_boot_pcrs_that_are_not_zero_is_refused() {
    let quoted = |pcrs: &mut PcrValues| {
        for pcr in [0, 4, 13] {
            pcrs.0.insert(PcrIndex::new(pcr).unwrap(), vec![pcr + 1; 32]);
        }
    };
    refused!(
        check_with(&Recipe { quoted, ..Recipe::default() }.build(), &machine_options()),
        Cause::Boot(BootFault::Unexplained { found }) if found == "0,4,13",
        "the boot PCRs 0,4,13 are not zero"
    );
    refused!(
        check_with(&showing(&honest_boot(), Vec::new()).build(), &machine_options()),
        Cause::Boot(BootFault::Unexplained { .. }),
        "left the boot log out"
    );
}

#[test]
fn an_empty_boot_log_is_accepted_where_reference_values_cover_every_pcr_whole() {
    let boot = honest_boot();
    let mut values = released();
    let measured = boot.pcrs(PcrBank::Sha256).0;
    let of_image = measured.iter().filter(|(pcr, _)| (4..14).contains(&pcr.as_u8()));
    let of_image: PcrValues = PcrValues(of_image.map(|(pcr, value)| (*pcr, value.clone())).collect());
    values.images[0].pcrs.insert(PcrBank::Sha256, of_image);
    let proof = showing(&boot, Vec::new()).build();
    let verified = check_with(&proof, &options().with_reference_values(values.clone())).unwrap();
    assert_eq!(verified.boot().image(), Some("aicert-base 1.0"));

    let pcr7 = PcrIndex::new(7).unwrap();
    values.images[0]
        .pcrs
        .get_mut(&PcrBank::Sha256)
        .unwrap()
        .0
        .remove(&pcr7);
    refused!(
        check_with(&proof, &options().with_reference_values(values)),
        Cause::Boot(BootFault::Unexplained { .. }),
        "no reference values cover all of them"
    );
}

#[test]
fn a_log_cut_at_its_end_is_refused() {
    let boot = honest_boot();
    let mut shorter = boot.clone();
    shorter.events.truncate(shorter.events.len() - 2);
    refused_also!(
        Err::<(), _>(refuse(&showing(&boot, shorter.log()))),
        Cause::Boot(BootFault::Replay { pcr: 5, .. }),
        "an event was taken out"
    );
    let bytes = boot.log();
    refused!(
        Err::<(), _>(refuse(&showing(&boot, bytes[..bytes.len() - 1].to_vec()))),
        Cause::Boot(BootFault::Unreadable {
            error: EventLogError::Truncated { .. }
        }),
        "cannot be read"
    );
}

#[test]
fn a_log_with_an_event_removed_is_refused() {
    let boot = honest_boot();
    let mut other = boot.clone();
    let launch = position(&other, is_launch);
    other.events.remove(launch);
    let rejection = refuse(&showing(&boot, other.log()));
    refused_also!(
        Err::<(), _>(rejection.clone()),
        Cause::Boot(BootFault::Replay { pcr: 4, .. }),
        "an event was taken out or altered"
    );
    // The log, if it were true, would be that of another image.
    refused_also!(
        Err::<(), _>(rejection),
        Cause::Boot(BootFault::Missing { pcr: 4, what, .. }) if what == "UKI",
        "was not measured"
    );
}

#[test]
fn a_log_with_an_event_doubled_is_refused() {
    let boot = honest_boot();
    let mut other = boot.clone();
    let launch = position(&other, is_launch);
    other.events.insert(launch, other.events[launch].clone());
    refused_also!(
        Err::<(), _>(refuse(&showing(&boot, other.log()))),
        Cause::Boot(BootFault::Replay { pcr: 4, .. }),
        "so that it was added or doubled"
    );
}

#[test]
fn a_log_with_events_swapped_is_refused() {
    let boot = honest_boot();
    let mut other = boot.clone();
    let first = position(&other, |event| event.pcr == 9);
    other.events.swap(first, first + 1);
    refused_also!(
        Err::<(), _>(refuse(&showing(&boot, other.log()))),
        Cause::Boot(BootFault::Replay { pcr: 9, .. }),
        "were swapped"
    );
}

#[test]
fn an_application_under_another_type_is_refused() {
    let mut boot = honest_boot();
    let launch = position(&boot, is_launch);
    boot.events[launch].event_type = EventType::EFI_BOOT_SERVICES_DRIVER;
    refused_also!(
        Err::<(), _>(refuse(&recipe(&boot))),
        Cause::Boot(BootFault::Relabelled { pcr: 4, what, .. }) if what == "UKI",
        "the log calls `UKI` EV_EFI_BOOT_SERVICES_DRIVER; it is EV_EFI_BOOT_SERVICES_APPLICATION"
    );
}

#[test]
fn a_foreign_application_called_a_separator_or_an_action_is_refused() {
    for (event_type, data) in [
        (EventType::SEPARATOR, &[0; 4][..]),
        (EventType::EFI_ACTION, b"Calling EFI Application from Boot Option"),
    ] {
        let mut boot = honest_boot();
        let launch = position(&boot, is_launch);
        boot.events
            .insert(launch, described(4, event_type, data, b"evil"));
        refused_also!(
            Err::<(), _>(refuse(&recipe(&boot))),
            Cause::Boot(BootFault::Unexpected { pcr: 4, .. } | BootFault::Changed { pcr: 4, .. }),
            "4"
        );
    }
}

#[test]
fn an_event_hidden_as_no_action_is_refused() {
    let boot = honest_boot();
    let mut evil = boot.clone();
    let launch = position(&evil, is_launch);
    evil.events.insert(launch, application("\\evil.efi", b"evil"));
    // What was really extended is shown as an event that extends nothing, with and without its digest.
    let mut shown = evil.clone();
    shown.events[launch].event_type = EventType::NO_ACTION;
    let with_digest = showing(&evil, shown.log());
    refused_also!(
        Err::<(), _>(refuse(&with_digest)),
        Cause::Boot(BootFault::Replay { pcr: 4, .. }),
        "PCR 4 is"
    );
    shown.events[launch].hashed = None;
    refused_also!(
        Err::<(), _>(refuse(&showing(&evil, shown.log()))),
        Cause::Boot(BootFault::Replay { pcr: 4, .. }),
        "something was extended that the log does not say"
    );
}

#[test]
fn data_replaced_while_its_digest_is_kept_is_refused() {
    // Secure Boot was off; the log says that it was on.
    let mut boot = honest_boot();
    let place = position(&boot, |event| event.data == variable("SecureBoot", &[0]));
    boot.events[place].data = variable("SecureBoot", &[1]);
    refused!(Err::<(), _>(refuse(&recipe(&boot))), Cause::EventLog(_), "event");
}

#[test]
fn a_log_without_digests_of_the_quoted_bank_is_refused() {
    let boot = honest_boot();
    for banks in [&[PcrBank::Sha1][..], &[PcrBank::Sha384, PcrBank::Sha1]] {
        refused_also!(
            Err::<(), _>(refuse(&showing(&boot, boot.log_of(banks)))),
            Cause::EventLog(EventLogFault::NoSuchBank {
                bank: PcrBank::Sha256,
                ..
            }),
            "no digests of the bank sha256"
        );
    }
}

#[test]
fn sizes_and_counts_that_cannot_be_are_refused_without_being_believed() {
    let boot = honest_boot();
    let good = boot.log();
    // The number of algorithms in the header; the size of its data; the size of the first event's data.
    let header = 32;
    let first = header + 16 + 8 + 4 + 2 * 4 + 1;
    for offset in [28, header + 24, first + 8] {
        for value in [u32::MAX, u32::MAX - 3, 0x8000_0000, 1 << 20] {
            let mut log = good.clone();
            log[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
            refused!(
                Err::<(), _>(refuse(&showing(&boot, log))),
                Cause::Boot(BootFault::Unreadable { .. }),
                "the boot log cannot be read"
            );
        }
    }
}

#[test]
fn a_startup_locality_that_is_there_twice_or_comes_late_is_refused() {
    for position in [0, 2] {
        let mut boot = honest_boot();
        let statement = described(0, EventType::NO_ACTION, b"StartupLocality\0\x04", b"");
        boot.events.insert(position, statement);
        refused!(
            Err::<(), _>(refuse(&recipe(&boot))),
            Cause::EventLog(_),
            "from which locality the TPM was started"
        );
    }
    // Another locality than that from which the TPM was started gives another PCR 0.
    let boot = honest_boot();
    let other = Boot {
        locality: 0,
        ..boot.clone()
    };
    refused!(
        Err::<(), _>(refuse(&showing(&boot, other.log()))),
        Cause::Boot(BootFault::Replay { pcr: 0, .. }),
        "PCR 0 is"
    );
}

#[test]
fn separators_that_are_missing_or_doubled_are_refused() {
    let mut missing = honest_boot();
    let place = position(&missing, |event| {
        event.pcr == 4 && event.event_type == EventType::SEPARATOR
    });
    missing.events.remove(place);
    let mut doubled = honest_boot();
    doubled.events.insert(place, separator(4));
    for boot in [missing, doubled] {
        refused_also!(
            Err::<(), _>(refuse(&recipe(&boot))),
            Cause::EventLog(_),
            "separator"
        );
    }
}

#[test]
fn an_unknown_event_type_is_refused() {
    let mut boot = honest_boot();
    boot.events.push(event(1, EventType(0x4242), b"?"));
    refused_also!(
        Err::<(), _>(refuse(&recipe(&boot))),
        Cause::EventLog(_),
        "0x00004242"
    );
}

#[test]
fn a_command_line_from_outside_the_image_is_refused_with_its_words() {
    let mut boot = honest_boot();
    let line = format!("{COMMAND_LINE} init=/bin/sh");
    boot.events.push(event(12, EventType::IPL, &utf16(&line)));
    let rejection = refuse(&recipe(&boot));
    refused!(
        Err::<(), _>(rejection),
        Cause::Boot(BootFault::CommandLine { added, .. }) if added == "init=/bin/sh",
        "added: \"init=/bin/sh\""
    );
}

#[test]
fn extensions_add_ons_and_boot_loaders_are_refused() {
    for (pcr, reason) in [(8, "boot loader"), (12, "add-ons"), (13, "system extension")] {
        let mut boot = honest_boot();
        boot.events
            .push(described(pcr, EventType::IPL, &utf16("sysext"), b"extension"));
        refused_also!(
            Err::<(), _>(refuse(&recipe(&boot))),
            Cause::Boot(BootFault::Unexpected { .. }),
            reason
        );
    }
}

#[test]
fn pcrs_that_are_not_zero_and_that_no_event_explains_are_refused() {
    for pcr in [8, 10, 12, 13] {
        let mut recipe = recipe(&honest_boot());
        recipe
            .boot_pcrs
            .0
            .insert(PcrIndex::new(pcr).unwrap(), vec![7; 32]);
        let found = refuse(&recipe);
        refused!(
            Err::<(), _>(found),
            Cause::Boot(BootFault::Replay { pcr: found, .. }) if *found == pcr,
            "the log has no event for this PCR"
        );
    }
}

/// What a kernel with IMA extends into PCR 10 when it starts: a template with the hash of PCRs 0 to 9.
fn boot_aggregate(pcrs: &PcrValues, with_signature: bool) -> Vec<u8> {
    let values: Vec<u8> = pcrs.0.values().take(10).flatten().copied().collect();
    let mut template = vec![40, 0, 0, 0];
    template.extend(b"sha256:\0");
    template.extend(PcrBank::Sha256.hash(&[&values]));
    template.extend([15, 0, 0, 0]);
    template.extend(b"boot_aggregate\0");
    if with_signature {
        template.extend([0; 4]);
    }
    PcrBank::Sha256.extend(&[0; 32], &PcrBank::Sha256.hash(&[&template]))
}

#[test]
fn the_kernels_hash_of_the_other_pcrs_says_nothing_new_and_any_other_value_is_refused() {
    let pcr10 = PcrIndex::new(10).unwrap();
    for with_signature in [false, true] {
        let mut recipe = recipe(&honest_boot());
        let value = boot_aggregate(&recipe.boot_pcrs, with_signature);
        recipe.boot_pcrs.0.insert(pcr10, value.clone());
        check_with(&recipe.build(), &machine_options()).unwrap();
        // One measurement more: a file, a policy.
        let more = PcrBank::Sha256.extend(&value, &[1; 32]);
        recipe.boot_pcrs.0.insert(pcr10, more);
        refused!(
            Err::<(), _>(refuse(&recipe)),
            Cause::Boot(BootFault::Replay { pcr: 10, .. }),
            "PCR 10"
        );
    }
}

#[test]
fn another_image_whose_log_is_honest_is_refused_with_the_difference_in_words() {
    let mut boot = honest_boot();
    let line = format!("{COMMAND_LINE} rd.break");
    for event in &mut boot.events {
        let hashed = event.hashed.as_mut().unwrap();
        if hashed == COMMAND_LINE.as_bytes() {
            *hashed = line.as_bytes().to_vec();
        } else if *hashed == utf16(COMMAND_LINE) {
            *hashed = utf16(&line);
        } else if hashed == b"uki" {
            *hashed = b"another uki".to_vec();
        }
    }
    let text = refuse(&recipe(&boot)).to_string();
    for part in [
        "none of the images that the reference values know; the nearest is \"aicert-base 1.0\", from which it differs in 3",
        "`UKI` was measured as",
        "`section .cmdline: content` was measured as",
        &format!("the released command line is {COMMAND_LINE:?}"),
    ] {
        assert!(text.contains(part), "{part}\n\n{text}");
    }
}

#[test]
fn an_image_with_less_or_more_than_the_released_one_is_refused() {
    let mut less = honest_boot();
    let initrd = position(&less, |event| event.hashed.as_deref() == Some(b"initrd"));
    less.events.remove(initrd);
    refused_also!(
        Err::<(), _>(refuse(&recipe(&less))),
        Cause::Boot(BootFault::Missing { pcr: 9, what, .. }) if what == "initrd",
        "was not measured"
    );
    let mut more = honest_boot();
    more.events.extend(section(".dtb", b"tree"));
    refused_also!(
        Err::<(), _>(refuse(&recipe(&more))),
        Cause::Boot(BootFault::Unexpected { pcr: 11, .. }),
        "not a part of \"aicert-base 1.0\""
    );
}

#[test]
fn events_of_the_image_in_another_order_are_refused() {
    let mut boot = honest_boot();
    let first = position(&boot, |event| event.pcr == 9);
    boot.events.swap(first, first + 1);
    refused_also!(
        Err::<(), _>(refuse(&recipe(&boot))),
        Cause::Boot(BootFault::Changed { pcr: 9, .. }),
        "load options"
    );
}

#[test]
fn boot_measurements_in_the_pcrs_of_the_job_are_refused() {
    let mut boot = honest_boot();
    boot.events.push(event(14, EventType::IPL, b"MokList\0"));
    refused_also!(
        Err::<(), _>(refuse(&recipe(&boot))),
        Cause::Boot(BootFault::JobPcr { pcr: 14, .. }),
        "must be zero when it opens"
    );
}

#[test]
fn another_boot_log_than_the_job_recorded_is_refused() {
    let boot = honest_boot();
    let mut recipe = recipe(&boot);
    let EventContent::JobOpened(opened) = &mut recipe.contents[0] else {
        panic!()
    };
    opened.boot_event_log = BootLogDigest::of(b"another");
    refused!(
        Err::<(), _>(refuse(&recipe)),
        Cause::Log(LogFault::AnotherBootLog { .. }),
        "when the job was opened"
    );
}

#[test]
fn the_type_of_an_event_that_no_digest_covers_cannot_be_changed_afterwards() {
    let certificate = recipe(&honest_boot()).build();
    let good = certificate.boot_event_log.0.clone();
    let mut accepted = Vec::new();
    for position in (0..good.len()).step_by(3) {
        let mut other = certificate.clone();
        other.boot_event_log.0[position] ^= 1;
        if check_with(&other, &machine_options()).is_ok() {
            accepted.push(position);
        }
    }
    assert_eq!(accepted, [] as [usize; 0]);
}

#[test]
fn secure_boot_is_what_was_measured_and_not_what_the_log_calls_it() {
    let mut boot = honest_boot();
    let place = position(&boot, |event| event.data == variable("SecureBoot", &[0]));
    boot.events[place] = event(
        7,
        EventType::EFI_VARIABLE_DRIVER_CONFIG,
        &variable("SecureBoot", &[1]),
    );
    let verified = check_with(&recipe(&boot).build(), &machine_options()).unwrap();
    assert_eq!(verified.boot().secure_boot(), SecureBoot::On);
    // Two statements say nothing.
    boot.events.insert(
        place,
        event(
            7,
            EventType::EFI_VARIABLE_AUTHORITY,
            &variable("SecureBoot", &[0]),
        ),
    );
    let verified = check_with(&recipe(&boot).build(), &machine_options()).unwrap();
    assert_eq!(verified.boot().secure_boot(), SecureBoot::Unknown);
}

#[test]
fn reference_values_that_would_recognise_too_much_are_refused() {
    let text = serde_json::to_string(&released()).unwrap();
    assert_eq!(ReferenceValues::from_slice(text.as_bytes()).unwrap(), released());
    let broken = |change: fn(&mut ReferenceValues)| {
        let mut values = released();
        change(&mut values);
        let text = serde_json::to_string(&values).unwrap();
        ReferenceValues::from_slice(text.as_bytes())
            .unwrap_err()
            .to_string()
    };
    for (found, part) in [
        (
            broken(|values| values.images[0].events.retain(|event| event.pcr.as_u8() != 4)),
            "PCR 4 is required",
        ),
        (
            broken(|values| {
                values.images[0]
                    .events
                    .iter_mut()
                    .for_each(|event| event.optional = true)
            }),
            "PCR 4 is required",
        ),
        (
            broken(|values| values.images.push(values.images[0].clone())),
            "two entries with the name",
        ),
        (
            broken(|values| values.images[0].name = " ".into()),
            "visible text",
        ),
        (
            broken(|values| values.images[0].events[0].digests.sha384.0.truncate(32)),
            "digest of 32 bytes, not 48",
        ),
        (
            broken(|values| values.firmware[0].pcrs.clear()),
            "would recognise any firmware",
        ),
        (
            broken(|values| {
                values.firmware[0]
                    .pcrs
                    .values_mut()
                    .for_each(|pcrs| drop(pcrs.0.remove(&PcrIndex::new(2).unwrap())))
            }),
            "no sha256 value for PCR 2",
        ),
    ] {
        assert!(found.contains(part), "{part}: {found}");
    }
    assert!(ReferenceValues::from_slice(text.replace("\"images\"", "\"image\"").as_bytes()).is_err());
    assert!(ReferenceValues::from_slice(text.replace("/v1\"", "/v2\"").as_bytes()).is_err());
}

#[test]
fn that_secure_boot_was_on_cannot_be_measured_afterwards() {
    let on = event(
        7,
        EventType::EFI_VARIABLE_AUTHORITY,
        &variable("SecureBoot", &[1]),
    );
    // What firmware measured is shown with a byte more, which is not hashed: as shim's events are.
    let mut boot = honest_boot();
    let place = position(&boot, |event| event.data == variable("SecureBoot", &[0]));
    boot.events[place].data.push(0);
    let verified = check_with(&recipe(&boot).build(), &machine_options()).unwrap();
    assert_eq!(verified.boot().secure_boot(), SecureBoot::Off);
    boot.events.push(on.clone());
    let verified = check_with(&recipe(&boot).build(), &machine_options()).unwrap();
    assert_eq!(verified.boot().secure_boot(), SecureBoot::Unknown);
    // Firmware that measures nothing of the kind leaves it to nobody else.
    boot.events.remove(place);
    let verified = check_with(&recipe(&boot).build(), &machine_options()).unwrap();
    assert_eq!(verified.boot().secure_boot(), SecureBoot::Unknown);
}

/// A driver that `Driver####` names: EDK II measures it into PCR 2 before the separators, starts it, and then measures the
/// image as ever. Other firmware might load one behind the separators.
#[test]
fn a_driver_that_runs_before_the_released_image_is_refused() {
    let launch = |boot: &Boot| position(boot, is_launch);
    let closed = |boot: &Boot| {
        position(boot, |event| {
            event.pcr == 2 && event.event_type == EventType::SEPARATOR
        })
    };
    let any = machine_options().with_policy(Policy::for_own_root().accepting_any_firmware());
    for place in [launch(&honest_boot()), closed(&honest_boot())] {
        for event_type in [
            EventType::EFI_BOOT_SERVICES_DRIVER,
            EventType::EFI_PLATFORM_FIRMWARE_BLOB,
        ] {
            let mut boot = honest_boot();
            let path = application("\\evil.efi", b"").data;
            boot.events
                .insert(place, described(2, event_type, &path, b"evil"));
            let proof = recipe(&boot).build();
            refused!(
                check_with(&proof, &any),
                Cause::Boot(BootFault::Unexpected { pcr: 2, .. }),
                "it ran before the image"
            );
            // Whoever knows that firmware knows its drivers.
            let mut known = any.clone();
            let of_firmware = boot.pcrs(PcrBank::Sha256).0.into_iter();
            let of_firmware = of_firmware.filter(|(pcr, _)| pcr.as_u8() < 4).collect();
            known.reference_values.firmware[0]
                .pcrs
                .insert(PcrBank::Sha256, PcrValues(of_firmware));
            check_with(&proof, &known).unwrap();
            // But nobody does who does not know PCR 2.
            let values = known.reference_values.firmware[0].pcrs.get_mut(&PcrBank::Sha256);
            values.unwrap().0.remove(&PcrIndex::new(2).unwrap());
            check_with(&proof, &known).unwrap_err();
        }
    }
}

#[test]
fn many_events_and_many_images_are_judged_in_little_time_and_few_words() {
    let mut references = released();
    for number in 0..200u8 {
        let mut image = references.images[0].clone();
        image.name = format!("image {number}");
        image.command_line = Some(format!("{COMMAND_LINE} {number} {}", "x".repeat(200)));
        image.events[0].digests = Digests::of(&[number]);
        references.images.push(image);
    }
    for filler in [
        event(12, EventType::IPL, &utf16("a b c")),
        application("\\evil.efi", b"evil"),
    ] {
        let mut boot = honest_boot();
        boot.events.extend(std::iter::repeat_n(filler, 16_000));
        let start = std::time::Instant::now();
        let rejection = aicert_verify::boot::explain(
            PcrBank::Sha256,
            &boot.pcrs(PcrBank::Sha256),
            &boot.log(),
            &references,
        );
        let text = rejection.unwrap_err().to_string();
        assert!(
            text.contains("16000") || text.contains("15984 more events"),
            "{text}"
        );
        assert!(text.len() < 1 << 20, "{} bytes", text.len());
        // A tenth of that on a machine that does nothing else; with a comparison of everything it was a minute.
        assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    }
}

#[test]
fn reference_values_made_in_rust_that_would_recognise_any_image_recognise_none() {
    let mut values = released();
    values.images[0]
        .events
        .iter_mut()
        .for_each(|event| event.optional = true);
    refused!(
        check_with(
            &recipe(&honest_boot()).build(),
            &options().with_reference_values(values)
        ),
        Cause::Boot(BootFault::NoReferenceValues {}),
        "no reference values for images"
    );
}

#[test]
fn a_log_with_faults_without_end_is_refused_in_a_few_words() {
    let mut boot = honest_boot();
    for number in 0..10_000_u32 {
        boot.events.push(event(1, EventType(0x4242_0000 + number), b"?"));
    }
    let rejection = refuse(&recipe(&boot));
    assert!(rejection.failures().len() < 50, "{}", rejection.failures().len());
    assert!(rejection.to_string().contains("9968 more faults"), "{rejection}");
}
