//! Which firmware a machine runs, and whether it checks signatures.

use aicert_core::tpm::{PcrBank, PcrValues};

use super::{Firmware, SecureBoot, separators};
use crate::eventlog::EventLog;
use crate::reference::{RECOGNISED_BY, ReferenceValues};

/// The firmware all of whose values are those of the PCRs; the first, if several are.
pub(super) fn recognise(bank: PcrBank, pcrs: &PcrValues, references: &ReferenceValues) -> Firmware {
    let known = references.firmware.iter().find(|firmware| {
        firmware.pcrs.get(&bank).is_some_and(|values| {
            let has = |pcr: &u8| values.0.keys().any(|index| index.as_u8() == *pcr);
            RECOGNISED_BY.iter().all(has)
                && values.0.iter().all(|(pcr, value)| pcrs.0.get(pcr) == Some(value))
        })
    });
    known.map_or(Firmware::Unrecognised, |firmware| {
        Firmware::Known(firmware.name.clone())
    })
}

/// What the variable `SecureBoot` was when firmware measured it into PCR 7 (TCG PC Client Platform Firmware Profile 1.06,
/// section 3.3.4.8).
///
/// It is found by digests alone, whatever the log says beside them. What is there twice, or behind the separator with which
/// firmware leaves PCR 7 to everybody, says nothing.
pub(super) fn secure_boot(log: &EventLog<'_>, bank: PcrBank) -> SecureBoot {
    let states = [
        (&[1][..], SecureBoot::On),
        (&[0], SecureBoot::Off),
        (&[], SecureBoot::Off),
    ];
    let states = states.map(|(content, state)| (bank.hash(&[&variable(content)]), state));
    let separators = separators(bank);
    let (mut found, mut is_closed) = (None, false);
    let measured = log
        .events()
        .iter()
        .filter(|event| event.pcr == 7 && event.extends());
    for digest in measured.filter_map(|event| event.digest(bank)) {
        is_closed |= separators.iter().any(|separator| separator == digest);
        let Some((_, state)) = states.iter().find(|(known, _)| known == digest) else {
            continue;
        };
        if is_closed || found.is_some() {
            return SecureBoot::Unknown;
        }
        found = Some(*state);
    }
    found.unwrap_or(SecureBoot::Unknown)
}

/// `UEFI_VARIABLE_DATA` of `SecureBoot` (section 10.2.6) with this content.
fn variable(content: &[u8]) -> Vec<u8> {
    /// `EFI_GLOBAL_VARIABLE`, 8be4df61-93ca-11d2-aa0d-00e098032b8c (UEFI 2.10, section 3.3).
    const GLOBAL: [u8; 16] = [
        0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c,
    ];
    const NAME: &str = "SecureBoot";
    let mut data = GLOBAL.to_vec();
    data.extend((NAME.len() as u64).to_le_bytes());
    data.extend((content.len() as u64).to_le_bytes());
    data.extend(NAME.encode_utf16().flat_map(u16::to_le_bytes));
    data.extend(content);
    data
}
