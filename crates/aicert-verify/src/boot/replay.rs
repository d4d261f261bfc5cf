//! Comparing the replayed log with the PCRs, and telling how they could differ.

use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues};

use super::{BOOT_PCRS, BootFault, describe};
use crate::eventlog::{Event, EventLog};

/// For more events in one PCR, the search for what was added or moved is not made: it takes the square of their number.
const SEARCH_LIMIT: usize = 64;

/// Where the kernel's Integrity Measurement Architecture measures.
const IMA: u8 = 10;

pub(super) fn inspect(log: &EventLog<'_>, bank: PcrBank, pcrs: &PcrValues) -> Vec<BootFault> {
    // That the log has no such bank is reported by its own inspection.
    let Ok(replayed) = log.replay(bank) else {
        return Vec::new();
    };
    let zero = vec![0; bank.digest_len()];
    let mut faults = Vec::new();
    for pcr in BOOT_PCRS.filter_map(PcrIndex::new) {
        let expected = replayed.0.get(&pcr).unwrap_or(&zero);
        let found = pcrs.0.get(&pcr).unwrap_or(&zero);
        if expected != found
            && !(pcr.as_u8() == IMA
                && !replayed.0.contains_key(&pcr)
                && is_boot_aggregate(bank, pcrs, Some(log)))
        {
            faults.push(BootFault::Replay {
                pcr: pcr.as_u8(),
                expected: hex::encode(expected),
                found: hex::encode(found),
                hint: hint(log, bank, pcr, found),
            });
        }
    }
    for event in log.events().iter().filter(|event| event.extends()) {
        if let Some(pcr) = [14, 15].into_iter().find(|pcr| u32::from(*pcr) == event.pcr) {
            faults.push(BootFault::JobPcr {
                pcr,
                number: event.number,
                event: describe(event),
            });
        }
    }
    faults
}

/// Whether PCR 10 holds the one measurement that a kernel with IMA makes without being asked to: the hash of PCRs 0 to 9
/// when it started, which says nothing that these do not (Linux 5.8 and later, `ima_calc_boot_aggregate`; the templates
/// `ima-ng` and `ima-sig` of Documentation/security/IMA-templates.rst). It is in no boot log.
///
/// The aggregate is of the SHA-256 bank, whatever bank it is extended into. Evidence over another bank does not show those
/// values; the log says them, and if it said anything else, the hash would not match what was extended.
pub(super) fn is_boot_aggregate(bank: PcrBank, pcrs: &PcrValues, log: Option<&EventLog<'_>>) -> bool {
    let Some(found) = PcrIndex::new(IMA).and_then(|pcr| pcrs.0.get(&pcr)) else {
        return false;
    };
    let replayed = match (bank, log) {
        (PcrBank::Sha256, _) => None,
        (_, Some(log)) => log.replay(PcrBank::Sha256).ok(),
        _ => return false,
    };
    let sha256 = replayed.as_ref().unwrap_or(pcrs);
    let zero = vec![0; PcrBank::Sha256.digest_len()];
    let values: Vec<_> = (0..IMA)
        .filter_map(PcrIndex::new)
        .map(|pcr| &**sha256.0.get(&pcr).unwrap_or(&zero))
        .collect();
    let aggregate = PcrBank::Sha256.hash(&values);
    let digest = [&b"sha256:\0"[..], &aggregate].concat();
    let (name, no_signature) = (b"boot_aggregate\0", [0; 4]);
    let fields = [
        &40_u32.to_le_bytes()[..],
        &digest,
        &15_u32.to_le_bytes(),
        name,
        &no_signature,
    ];
    let zero = vec![0; bank.digest_len()];
    [&fields[..4], &fields].iter().any(|fields| {
        let digest = bank.hash(fields);
        // Where the kernel has the bank's hash in a module, it is not loaded yet, and SHA-1 with zeros behind it is extended
        // (`ima_calc_field_array_hash`).
        let mut padded = PcrBank::Sha1.hash(fields);
        padded.resize(bank.digest_len(), 0);
        *found == bank.extend(&zero, &digest)
            || (bank != PcrBank::Sha256 && *found == bank.extend(&zero, &padded))
    })
}

/// What would make the log agree with the quote: people look there first.
fn hint(log: &EventLog<'_>, bank: PcrBank, pcr: PcrIndex, found: &[u8]) -> String {
    let events: Vec<_> = log
        .events()
        .iter()
        .filter(|event| event.extends() && event.pcr == u32::from(pcr.as_u8()))
        .collect();
    let start = log.start(pcr, bank);
    let extend = |value: Vec<u8>, event: &Event<'_>| match event.digest(bank) {
        Some(digest) => bank.extend(&value, digest),
        None => value,
    };
    // What the PCR holds before each event.
    let mut before = Vec::with_capacity(events.len());
    let mut value = start;
    for (index, event) in events.iter().enumerate() {
        if value == found {
            let (more, first) = (events.len() - index, event.number);
            return format!(
                ": the quote agrees with the log up to event {first}; {more} event(s) of this PCR from there on were not extended"
            );
        }
        before.push(value.clone());
        value = extend(value, event);
    }
    if events.is_empty() {
        return ": the log has no event for this PCR".into();
    }
    if events.len() > SEARCH_LIMIT {
        return String::new();
    }
    for (index, (event, value)) in events.iter().zip(&before).enumerate() {
        let others = events.iter().skip(index + 1);
        if others.fold(value.clone(), |value, event| extend(value, event)) == found {
            return format!(
                ": without event {} ({}) they would agree, so that it was added or doubled",
                event.number,
                describe(event)
            );
        }
        let Some(next) = events.get(index + 1) else {
            continue;
        };
        let others = events.iter().skip(index + 2);
        let swapped = extend(extend(value.clone(), next), event);
        if others.fold(swapped, |value, event| extend(value, event)) == found {
            return format!(": events {} and {} were swapped", event.number, next.number);
        }
    }
    ": an event was taken out or altered, or something was extended that the log does not say".into()
}
