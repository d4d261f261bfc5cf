//! Which image a machine booted, and in what it differs from the nearest that is known.

use std::collections::BTreeSet;

use aicert_core::tpm::PcrBank;

use super::{BootFault, describe};
use crate::eventlog::{Event, EventLog, EventType};
use crate::reference::{ExpectedEvent, IMAGE_PCRS, ImageReference, ReferenceValues};

/// More differences than these are counted, not described.
const DESCRIBED: usize = 16;

/// What firmware says that it does while it starts images (TCG PC Client Platform Firmware Profile 1.06, section 10.4.4).
/// These say what happened; nothing can be run by extending them.
const ACTIONS: [(u32, &str); 5] = [
    (4, "Calling EFI Application from Boot Option"),
    (4, "Returning from EFI Application from Boot Option"),
    (5, "Exit Boot Services Invocation"),
    (5, "Exit Boot Services Returned with Success"),
    (5, "Exit Boot Services Returned with Failure"),
];

/// PCRs that an image which firmware starts by itself leaves alone, and who measures there.
const UNTOUCHED: [(u32, &str); 4] = [
    (
        8,
        "which is a boot loader's: none may stand between firmware and image",
    ),
    (
        10,
        "which is the kernel's, and not for what runs before it",
    ),
    (
        12,
        "which is from outside the image: a command line, credentials or add-ons",
    ),
    (13, "which is a system extension from outside the image"),
];

/// The image of the reference values all of whose events were measured, and no others.
pub(super) fn recognise<'r>(
    log: &EventLog<'_>,
    bank: PcrBank,
    references: &'r ReferenceValues,
) -> Result<&'r ImageReference, Vec<BootFault>> {
    let mut nearest: Option<(&ImageReference, Vec<BootFault>)> = None;
    for image in &references.images {
        let differences = compare(log, bank, image);
        if differences.is_empty() {
            return Ok(image);
        }
        if nearest
            .as_ref()
            .is_none_or(|(_, fewest)| differences.len() < fewest.len())
        {
            nearest = Some((image, differences));
        }
    }
    let Some((image, mut differences)) = nearest else {
        return Err(vec![BootFault::NoReferenceValues {}]);
    };
    let mut faults = vec![BootFault::UnknownImage {
        nearest: image.name.clone(),
        differences: differences.len(),
    }];
    differences.truncate(DESCRIBED);
    faults.extend(differences);
    Err(faults)
}

fn compare(log: &EventLog<'_>, bank: PcrBank, image: &ImageReference) -> Vec<BootFault> {
    IMAGE_PCRS
        .into_iter()
        .flat_map(|pcr| compare_pcr(log, bank, image, pcr))
        .collect()
}

fn compare_pcr(log: &EventLog<'_>, bank: PcrBank, image: &ImageReference, pcr: u8) -> Vec<BootFault> {
    let has_table = image.events.iter().any(|event| event.pcr.as_u8() == 5);
    let measured: Vec<_> = log
        .events()
        .iter()
        .filter(|event| {
            event.extends() && event.pcr == u32::from(pcr) && !is_firmwares(event, bank, has_table)
        })
        .collect();
    let digests: BTreeSet<_> = measured.iter().filter_map(|event| event.digest(bank)).collect();
    let is_measured = |event: &ExpectedEvent| {
        event
            .digests
            .in_bank(bank)
            .is_some_and(|digest| digests.contains(digest))
    };
    let expected: Vec<_> = image
        .events
        .iter()
        .filter(|event| event.pcr.as_u8() == pcr && (!event.optional || is_measured(event)))
        .collect();
    let same = |(expected, measured): &(&&ExpectedEvent, &&Event<'_>)| {
        measured
            .digest(bank)
            .is_some_and(|digest| expected.digests.in_bank(bank) == Some(digest))
    };
    let head = expected.iter().zip(&measured).take_while(same).count();
    let left = expected.len().min(measured.len()) - head;
    let tail = expected
        .iter()
        .rev()
        .zip(measured.iter().rev())
        .take(left)
        .take_while(same)
        .count();

    let mut faults = Vec::new();
    let matched = expected[..head].iter().zip(&measured[..head]);
    let matched = matched.chain(
        expected[expected.len() - tail..]
            .iter()
            .zip(&measured[measured.len() - tail..]),
    );
    for (expected, measured) in matched {
        let found = measured.event_type.to_string();
        if found != expected.event_type {
            faults.push(BootFault::Relabelled {
                pcr,
                number: measured.number,
                what: expected.what.clone(),
                expected: expected.event_type.clone(),
                found,
            });
        }
    }
    let expected = &expected[head..expected.len() - tail];
    let measured = &measured[head..measured.len() - tail];
    for (expected, measured) in expected.iter().zip(measured) {
        faults.push(changed(image, bank, expected, measured));
    }
    for expected in expected.iter().skip(measured.len()) {
        faults.push(BootFault::Missing {
            pcr,
            what: expected.what.clone(),
            image: image.name.clone(),
            expected: text(expected.digests.in_bank(bank)),
        });
    }
    for measured in measured.iter().skip(expected.len()) {
        let reason = format!("which is not a part of {:?}", image.name);
        faults.push(unexpected(pcr, bank, measured, reason));
    }
    faults
}

fn changed(
    image: &ImageReference,
    bank: PcrBank,
    expected: &ExpectedEvent,
    measured: &Event<'_>,
) -> BootFault {
    let command_line = image.command_line.as_ref().filter(|_| {
        [".cmdline", "load options"]
            .iter()
            .any(|part| expected.what.contains(part))
            && !expected.what.ends_with("name")
    });
    let detail = command_line.map_or(String::new(), |command_line| {
        format!("; the released command line is {command_line:?}")
    });
    BootFault::Changed {
        pcr: expected.pcr.as_u8(),
        number: measured.number,
        what: expected.what.clone(),
        image: image.name.clone(),
        expected: text(expected.digests.in_bank(bank)),
        found: text(measured.digest(bank)),
        detail,
    }
}

fn unexpected(pcr: u8, bank: PcrBank, event: &Event<'_>, reason: String) -> BootFault {
    BootFault::Unexpected {
        pcr,
        number: event.number,
        event: describe(event),
        found: text(event.digest(bank)),
        reason,
    }
}

fn text(digest: Option<&[u8]>) -> String {
    digest.map_or("nothing".into(), hex::encode)
}

/// Whether an event is one that firmware leaves whatever it boots, shown by its digest.
fn is_firmwares(event: &Event<'_>, bank: PcrBank, has_table: bool) -> bool {
    let is_hashed = || {
        event
            .digest(bank)
            .is_some_and(|digest| digest == bank.hash(&[event.raw]))
    };
    match event.event_type {
        EventType::SEPARATOR => [[0; 4], [0xff; 4]].iter().any(|value| event.raw == value) && is_hashed(),
        EventType::EFI_ACTION => {
            let known = |(pcr, action): &(u32, &str)| *pcr == event.pcr && event.raw == action.as_bytes();
            ACTIONS.iter().any(known) && is_hashed()
        }
        // The partition table is a part of some images, and of no interest for others: the root file system is known
        // by its hash in the command line.
        EventType::EFI_GPT_EVENT | EventType::EFI_GPT_EVENT2 => event.pcr == 5 && !has_table && is_hashed(),
        // Some firmware measures what it is configured to boot here, and not in PCR 1.
        EventType::EFI_VARIABLE_BOOT | EventType::EFI_VARIABLE_BOOT2 => event.pcr == 5 && is_hashed(),
        _ => false,
    }
}

/// Events in PCRs that nothing may measure into, and in PCR 7 what is not about Secure Boot.
pub(super) fn foreign_events(
    log: &EventLog<'_>,
    bank: PcrBank,
    references: &ReferenceValues,
) -> Vec<BootFault> {
    let mut faults = Vec::new();
    for event in log.events().iter().filter(|event| event.extends()) {
        let Ok(pcr) = u8::try_from(event.pcr) else {
            continue;
        };
        if let Some(found) = command_line(event, bank) {
            let released: Vec<_> = references
                .images
                .iter()
                .filter_map(|image| image.command_line.as_deref())
                .collect();
            let known: BTreeSet<_> = released.iter().flat_map(|line| line.split_whitespace()).collect();
            let added: Vec<_> = found
                .split_whitespace()
                .filter(|word| !known.contains(word))
                .collect();
            faults.push(BootFault::CommandLine {
                number: event.number,
                added: added.join(" "),
                expected: released.join(" | "),
                found,
            });
        } else if let Some((_, reason)) = UNTOUCHED.iter().find(|(untouched, _)| *untouched == event.pcr) {
            faults.push(unexpected(pcr, bank, event, (*reason).into()));
        } else if pcr == 7
            && !matches!(
                event.event_type,
                EventType::SEPARATOR
                    | EventType::EFI_VARIABLE_DRIVER_CONFIG
                    | EventType::EFI_VARIABLE_AUTHORITY
            )
        {
            let reason = "where firmware measures the state of Secure Boot and nothing else".into();
            faults.push(unexpected(pcr, bank, event, reason));
        }
    }
    faults
}

/// The command line that systemd-stub was given from outside its image, where the log says it: UTF-16 with a final NUL,
/// which is what it hashes.
fn command_line(event: &Event<'_>, bank: PcrBank) -> Option<String> {
    let is_hashed = event
        .digest(bank)
        .is_some_and(|digest| digest == bank.hash(&[event.raw]));
    if event.pcr != 12 || event.event_type != EventType::IPL || !is_hashed {
        return None;
    }
    let (units, rest) = event.raw.as_chunks::<2>();
    let [units @ .., [0, 0]] = units else { return None };
    let text = char::decode_utf16(units.iter().map(|unit| u16::from_le_bytes(*unit)));
    let text: String = text.collect::<Result<_, _>>().ok()?;
    rest.is_empty().then_some(text)
}
