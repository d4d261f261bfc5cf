//! What was measured beside the image: where nothing may be measured, and what ran before it.

use std::collections::BTreeSet;

use aicert_core::tpm::PcrBank;

use super::image::{DESCRIBED, unexpected};
use super::{BootFault, Firmware, hashes_its_data, separators};
use crate::eventlog::{Event, EventLog, EventType};
use crate::reference::ReferenceValues;

/// PCRs that an image which firmware starts by itself leaves alone, and who measures there.
const UNTOUCHED: [(u32, &str); 4] = [
    (
        8,
        "which is a boot loader's: none may stand between firmware and image",
    ),
    (10, "which is the kernel's, and not for what runs before it"),
    (
        12,
        "which is from outside the image: a command line, credentials or add-ons",
    ),
    (13, "which is a system extension from outside the image"),
];

/// Why nothing but a separator may be in PCR 2 of firmware that is not recognised.
const DRIVER: &str = "which is a driver from outside the firmware, or of firmware that no reference values recognise: it ran before the image, and could have changed it in memory";

/// Events in PCRs that nothing may measure into; in PCR 7 what is not about Secure Boot; in PCR 2 drivers that nobody
/// knows. The first ones, and how many more there are.
pub(super) fn inspect(
    log: &EventLog<'_>,
    bank: PcrBank,
    firmware: &Firmware,
    references: &ReferenceValues,
) -> Vec<BootFault> {
    let separators = separators(bank);
    let is_separator = |event: &Event<'_>| {
        separators
            .iter()
            .any(|separator| event.digest(bank) == Some(separator))
    };
    let knows_drivers = matches!(firmware, Firmware::Known(_));
    let reason = |event: &Event<'_>| match event.pcr {
        2 if !knows_drivers && !is_separator(event) => Some(DRIVER),
        7 if !is_about_secure_boot(event.event_type) => {
            Some("where firmware measures the state of Secure Boot and nothing else")
        }
        pcr => UNTOUCHED
            .iter()
            .find(|(untouched, _)| *untouched == pcr)
            .map(|(_, reason)| *reason),
    };
    let foreign = log.events().iter().filter(|event| event.extends());
    let mut foreign = foreign.filter_map(|event| {
        let pcr = u8::try_from(event.pcr).ok()?;
        Some((pcr, event, reason(event)?))
    });
    let mut faults: Vec<_> = foreign
        .by_ref()
        .take(DESCRIBED)
        .map(|(pcr, event, reason)| {
            command_line(event, bank).map_or_else(
                || unexpected(pcr, bank, event, reason.into()),
                |found| from_outside(event, found, references),
            )
        })
        .collect();
    let found = foreign.count();
    if found > 0 {
        faults.push(BootFault::More { found });
    }
    faults
}

fn is_about_secure_boot(event_type: EventType) -> bool {
    matches!(
        event_type,
        EventType::SEPARATOR | EventType::EFI_VARIABLE_DRIVER_CONFIG | EventType::EFI_VARIABLE_AUTHORITY
    )
}

fn from_outside(event: &Event<'_>, found: String, references: &ReferenceValues) -> BootFault {
    let released: BTreeSet<_> = references
        .images
        .iter()
        .filter_map(|image| image.command_line.as_deref())
        .collect();
    let known: BTreeSet<_> = released.iter().flat_map(|line| line.split_whitespace()).collect();
    let added: Vec<_> = found
        .split_whitespace()
        .filter(|word| !known.contains(word))
        .collect();
    let shown: Vec<_> = released.into_iter().take(DESCRIBED).collect();
    BootFault::CommandLine {
        number: event.number,
        added: added.join(" "),
        expected: shown.join(" | "),
        found,
    }
}

/// The command line that systemd-stub was given from outside its image, where the log says it: UTF-16 with a final NUL,
/// which is what it hashes.
fn command_line(event: &Event<'_>, bank: PcrBank) -> Option<String> {
    if event.pcr != 12 || event.event_type != EventType::IPL || !hashes_its_data(event, bank) {
        return None;
    }
    let (units, rest) = event.raw.as_chunks::<2>();
    let [units @ .., [0, 0]] = units else { return None };
    let text = char::decode_utf16(units.iter().map(|unit| u16::from_le_bytes(*unit)));
    let text: String = text.collect::<Result<_, _>>().ok()?;
    rest.is_empty().then_some(text)
}
