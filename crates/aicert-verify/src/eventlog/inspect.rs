//! What no honest log has.
//!
//! No digest covers the types of events, so nothing here believes them alone: separators, and statements that weaken the
//! machine, are known by their digests.

use aicert_core::tpm::PcrBank;

use super::data::{EventData, shown};
use super::read::Guid;
use super::{Event, EventLog, EventLogFault, EventType, check};

/// The PCRs that firmware closes with a separator (PFP 1.06, section 10.4.1, EV_SEPARATOR).
const CLOSED: std::ops::RangeInclusive<u32> = 0..=7;

/// What firmware measures when it lets attackers in (PFP 1.06, section 3.3.4.8).
const WEAKENING: [&str; 2] = ["UEFI Debug Mode", "DMA Protection Disabled"];

/// More faults than these are counted, not described.
const DESCRIBED: usize = 32;

impl EventLog<'_> {
    /// Finds what no honest log has, as far as a log alone can show it; for the bank of a quote.
    ///
    /// What it does not find, comparing the [replay](Self::replay) with the quote does: events that were left out, added,
    /// doubled, swapped or changed in their digests.
    pub fn inspect(&self, bank: PcrBank) -> Vec<EventLogFault> {
        let banks = self.banks();
        if !banks.contains(&bank) {
            let found: Vec<_> = banks.iter().map(PcrBank::to_string).collect();
            let found = if found.is_empty() {
                "none that is known".to_owned()
            } else {
                found.join(", ")
            };
            return vec![EventLogFault::NoSuchBank { bank, found }];
        }
        let known = Known::new(bank);
        let mut faults = Vec::new();
        for event in &self.events {
            faults.extend(inspect_event(event, bank, &known));
        }
        let separators = self.separators(bank, &known, &mut faults);
        self.inspect_locality(&mut faults);
        self.inspect_secure_boot(separators[7], &mut faults);
        if let Some(separator) = separators[4] {
            let early = self
                .events
                .iter()
                .take_while(|event| event.number < separator)
                .filter(|event| {
                    event.pcr == 4 && event.event_type == EventType::EFI_BOOT_SERVICES_APPLICATION
                });
            faults.extend(early.map(|event| EventLogFault::ImageBeforeSeparator {
                event: event.number,
                separator,
            }));
        }
        if faults.len() > DESCRIBED {
            let found = faults.len() - DESCRIBED;
            faults.truncate(DESCRIBED);
            faults.push(EventLogFault::More { found });
        }
        faults
    }

    /// The first separator of each PCR of firmware.
    fn separators(
        &self,
        bank: PcrBank,
        known: &Known,
        faults: &mut Vec<EventLogFault>,
    ) -> [Option<usize>; 8] {
        let mut found: [Vec<usize>; 8] = Default::default();
        for event in self.events.iter().filter(|event| event.extends()) {
            let Some(digest) = event.digest(bank) else {
                continue;
            };
            let Some(events) = usize::try_from(event.pcr).ok().and_then(|pcr| found.get_mut(pcr)) else {
                continue;
            };
            let Some(index) = known.separators.iter().position(|separator| separator == digest) else {
                continue;
            };
            events.push(event.number);
            if event.event_type != EventType::SEPARATOR {
                faults.push(EventLogFault::SeparatorDisguised {
                    event: event.number,
                    pcr: event.pcr,
                    event_type: event.event_type,
                });
            }
            if SEPARATORS[index] == 1 {
                faults.push(EventLogFault::FirmwareError {
                    event: event.number,
                    pcr: event.pcr,
                });
            }
        }
        let missing: Vec<_> = CLOSED
            .zip(&found)
            .filter(|(_, events)| events.is_empty())
            .collect();
        if !missing.is_empty() {
            let pcrs: Vec<_> = missing.iter().map(|(pcr, _)| pcr.to_string()).collect();
            faults.push(EventLogFault::SeparatorMissing {
                pcrs: pcrs.join(", "),
            });
        }
        for (pcr, events) in CLOSED.zip(&found).filter(|(_, events)| events.len() > 1) {
            faults.push(EventLogFault::SeparatorRepeated {
                pcr,
                events: numbers(events),
            });
        }
        found.map(|events| events.first().copied())
    }

    /// PFP 1.06, section 10.4.5.3: once, and before anything is extended into PCR 0.
    fn inspect_locality(&self, faults: &mut Vec<EventLogFault>) {
        let first = self
            .events
            .iter()
            .find(|event| event.extends() && event.pcr == 0)
            .map(|event| event.number);
        let mut seen = false;
        for event in &self.events {
            if event.extends() || !matches!(event.data, EventData::StartupLocality { .. }) {
                continue;
            }
            let number = event.number;
            if event.pcr != 0 {
                faults.push(EventLogFault::LocalityElsewhere {
                    event: number,
                    pcr: event.pcr,
                });
            }
            if seen {
                faults.push(EventLogFault::LocalityRepeated { event: number });
            }
            if let Some(first) = first.filter(|first| *first < number) {
                faults.push(EventLogFault::LocalityLate { event: number, first });
            }
            seen = true;
        }
    }

    /// Everybody can extend PCR 7 with the digest of a variable that says that Secure Boot is on; only firmware can do so
    /// before the separator.
    fn inspect_secure_boot(&self, separator: Option<usize>, faults: &mut Vec<EventLogFault>) {
        let mut stated = Vec::new();
        for event in &self.events {
            if event.pcr != 7 || event.event_type != EventType::EFI_VARIABLE_DRIVER_CONFIG {
                continue;
            }
            let EventData::Variable { guid, name, .. } = &event.data else {
                continue;
            };
            if separator.is_some_and(|separator| separator < event.number) {
                faults.push(EventLogFault::SecureBootLate {
                    event: event.number,
                    variable: shown(name),
                });
            }
            if *guid == Guid::GLOBAL_VARIABLE && name == "SecureBoot" {
                stated.push(event.number);
            }
        }
        if stated.len() > 1 {
            faults.push(EventLogFault::SecureBootRepeated {
                events: numbers(&stated),
            });
        }
    }
}

fn inspect_event(event: &Event<'_>, bank: PcrBank, known: &Known) -> Vec<EventLogFault> {
    let mut faults = Vec::new();
    let &Event {
        number,
        pcr,
        event_type,
        ..
    } = event;
    let digest = event.digest(bank).unwrap_or_default();
    if !event_type.known() {
        faults.push(EventLogFault::UnknownType {
            event: number,
            pcr,
            event_type,
        });
    }
    if let EventData::Malformed { reason } = &event.data {
        let reason = reason.clone();
        faults.push(EventLogFault::Malformed {
            event: number,
            pcr,
            event_type,
            reason,
        });
    }
    if !event.extends() {
        if digest.iter().any(|byte| *byte != 0) {
            let found = hex::encode(digest);
            faults.push(EventLogFault::HiddenExtend {
                event: number,
                pcr,
                found,
            });
        }
        return faults;
    }
    if pcr > 23 {
        faults.push(EventLogFault::NoSuchPcr { event: number, pcr });
    }
    if event_type.known() && !belongs(event_type, pcr) {
        faults.push(EventLogFault::Misplaced {
            event: number,
            pcr,
            event_type,
        });
    }
    if let Some((what, _)) = known.weakening.iter().find(|(_, weakening)| weakening == digest) {
        faults.push(EventLogFault::Weakened {
            event: number,
            pcr,
            what,
        });
    }
    // Separators are known by their digests; that the data says the same must be checked all the same.
    if let Some(expected) = check::difference(event, bank) {
        faults.push(EventLogFault::DataDiffers {
            event: number,
            pcr,
            event_type,
            expected: hex::encode(expected),
            found: hex::encode(digest),
        });
    }
    faults
}

/// Whether events of a type are found in a PCR. Only asked for those PCRs that decide what runs: in them, a type whose
/// data only describes would hide what was measured (PFP 1.06, sections 3.3.4.5 and 3.3.4.8).
fn belongs(event_type: EventType, pcr: u32) -> bool {
    match pcr {
        4 => matches!(
            event_type,
            EventType::SEPARATOR
                | EventType::ACTION
                | EventType::EFI_ACTION
                | EventType::OMIT_BOOT_DEVICE_EVENTS
                | EventType::EFI_BOOT_SERVICES_APPLICATION
                | EventType::EFI_BOOT_SERVICES_DRIVER
                | EventType::EFI_RUNTIME_SERVICES_DRIVER
                | EventType::EFI_VARIABLE_BOOT
                | EventType::EFI_VARIABLE_BOOT2
        ),
        7 => matches!(
            event_type,
            EventType::SEPARATOR
                | EventType::ACTION
                | EventType::EFI_ACTION
                | EventType::EFI_VARIABLE_DRIVER_CONFIG
                | EventType::EFI_VARIABLE_AUTHORITY
                | EventType::EFI_SPDM_DEVICE_POLICY
                | EventType::EFI_SPDM_DEVICE_AUTHORITY
        ),
        _ => true,
    }
}

/// What separators can be.
const SEPARATORS: [u32; 3] = [0, u32::MAX, 1];

/// Digests that are known beforehand, in one bank.
struct Known {
    separators: [Vec<u8>; 3],
    /// With and without the NUL at the end.
    weakening: Vec<(&'static str, Vec<u8>)>,
}

impl Known {
    fn new(bank: PcrBank) -> Self {
        let weakening = WEAKENING.iter().flat_map(|text| {
            let text = *text;
            [&[][..], &[0]].map(|end| (text, bank.hash(&[text.as_bytes(), end])))
        });
        Self {
            separators: SEPARATORS.map(|value| bank.hash(&[&value.to_le_bytes()])),
            weakening: weakening.collect(),
        }
    }
}

fn numbers(events: &[usize]) -> String {
    let events: Vec<_> = events.iter().map(usize::to_string).collect();
    events.join(", ")
}
