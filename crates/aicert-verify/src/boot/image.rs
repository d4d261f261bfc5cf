//! Which image a machine booted, and in what it differs from the nearest that is known.

use std::collections::BTreeSet;

use aicert_core::tpm::PcrBank;

use super::{BootFault, SEPARATORS, describe, hashes_its_data};
use crate::eventlog::{Event, EventLog, EventType};
use crate::reference::{ExpectedEvent, IMAGE_PCRS, ImageReference, ReferenceValues};

/// More differences than these are counted, not described.
pub(super) const DESCRIBED: usize = 16;

/// What firmware says that it does while it starts images (TCG PC Client Platform Firmware Profile 1.06, section 10.4.4).
/// These say what happened; nothing can be run by extending them.
const ACTIONS: [(u32, &str); 5] = [
    (4, "Calling EFI Application from Boot Option"),
    (4, "Returning from EFI Application from Boot Option"),
    (5, "Exit Boot Services Invocation"),
    (5, "Exit Boot Services Returned with Success"),
    (5, "Exit Boot Services Returned with Failure"),
];

/// The image of the reference values all of whose events were measured, and no others.
pub(super) fn recognise<'r>(
    log: &EventLog<'_>,
    bank: PcrBank,
    references: &'r ReferenceValues,
) -> Result<&'r ImageReference, Vec<BootFault>> {
    let measured = [false, true].map(|has_table| Measured::new(log, bank, has_table));
    let measured = |image: &ImageReference| {
        let has_table = image.events.iter().any(|event| event.pcr.as_u8() == 5);
        &measured[usize::from(has_table)]
    };
    let mut nearest: Option<(&ImageReference, usize)> = None;
    // Reference values that were not read from a file were not checked: an entry that would recognise any image is none.
    let images = references
        .images
        .iter()
        .filter(|image| image.undetermined().is_none());
    for image in images {
        let differences = measured(image).differences(image);
        if differences == 0 {
            return Ok(image);
        }
        if nearest.is_none_or(|(_, fewest)| differences < fewest) {
            nearest = Some((image, differences));
        }
    }
    let Some((image, differences)) = nearest else {
        return Err(vec![BootFault::NoReferenceValues {}]);
    };
    let mut faults = vec![BootFault::UnknownImage {
        nearest: image.name.clone(),
        differences,
    }];
    faults.extend(measured(image).describe(image));
    Err(faults)
}

/// The events of a log in the PCRs that an image determines, without those that firmware leaves whatever it boots.
struct Measured<'l> {
    bank: PcrBank,
    /// For each of [`IMAGE_PCRS`] its events, in their order, and their digests.
    pcrs: [(Vec<&'l Event<'l>>, BTreeSet<&'l [u8]>); IMAGE_PCRS.len()],
}

/// What an image and a log have in common in one PCR: so many events from the first on, and so many up to the last.
struct Common<'i> {
    expected: Vec<&'i ExpectedEvent>,
    head: usize,
    tail: usize,
}

impl<'l> Measured<'l> {
    fn new(log: &'l EventLog<'l>, bank: PcrBank, has_table: bool) -> Self {
        let pcrs = IMAGE_PCRS.map(|pcr| {
            let events: Vec<_> = log
                .events()
                .iter()
                .filter(|event| {
                    event.extends() && event.pcr == u32::from(pcr) && !is_firmwares(event, bank, has_table)
                })
                .collect();
            let digests = events.iter().filter_map(|event| event.digest(bank)).collect();
            (events, digests)
        });
        Self { bank, pcrs }
    }

    fn is(&self, expected: &ExpectedEvent, measured: &Event<'_>) -> bool {
        measured
            .digest(self.bank)
            .is_some_and(|digest| expected.digests.in_bank(self.bank) == Some(digest))
    }

    /// Takes as long as the image has events, however many the log has.
    fn common<'i>(&self, image: &'i ImageReference, index: usize) -> Common<'i> {
        let (measured, digests) = &self.pcrs[index];
        let is_measured = |event: &ExpectedEvent| {
            event
                .digests
                .in_bank(self.bank)
                .is_some_and(|digest| digests.contains(digest))
        };
        let expected: Vec<_> = image
            .events
            .iter()
            .filter(|event| event.pcr.as_u8() == IMAGE_PCRS[index] && (!event.optional || is_measured(event)))
            .collect();
        let same = |(expected, measured): &(&&ExpectedEvent, &&Event<'_>)| self.is(expected, measured);
        let head = expected.iter().zip(measured).take_while(same).count();
        let left = expected.len().min(measured.len()) - head;
        let tail = expected
            .iter()
            .rev()
            .zip(measured.iter().rev())
            .take(left)
            .take_while(same)
            .count();
        Common { expected, head, tail }
    }

    /// In how many events an image differs.
    fn differences(&self, image: &ImageReference) -> usize {
        let of_pcr = |index: usize| {
            let common = self.common(image, index);
            let measured = &self.pcrs[index].0;
            let left = common.expected.len().max(measured.len()) - common.head - common.tail;
            left + common.relabelled(measured).count()
        };
        (0..IMAGE_PCRS.len()).map(of_pcr).sum()
    }

    /// The first of these differences in each PCR, in words.
    fn describe(&self, image: &ImageReference) -> Vec<BootFault> {
        (0..IMAGE_PCRS.len())
            .flat_map(|index| self.describe_pcr(image, index))
            .take(DESCRIBED)
            .collect()
    }

    fn describe_pcr(&self, image: &ImageReference, index: usize) -> Vec<BootFault> {
        let (pcr, bank, measured) = (IMAGE_PCRS[index], self.bank, &self.pcrs[index].0);
        let common = self.common(image, index);
        let mut faults: Vec<_> = common
            .relabelled(measured)
            .map(|(expected, measured)| BootFault::Relabelled {
                pcr,
                number: measured.number,
                what: expected.what.clone(),
                expected: expected.event_type.clone(),
                found: measured.event_type.to_string(),
            })
            .collect();
        let expected = &common.expected[common.head..common.expected.len() - common.tail];
        let measured = &measured[common.head..measured.len() - common.tail];
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
        for measured in measured.iter().skip(expected.len()).take(DESCRIBED) {
            let reason = format!("which is not a part of {:?}", image.name);
            faults.push(unexpected(pcr, bank, measured, reason));
        }
        faults
    }
}

impl<'i> Common<'i> {
    /// Events that are there, and have another type than they should.
    fn relabelled<'m>(
        &self,
        measured: &'m [&'m Event<'m>],
    ) -> impl Iterator<Item = (&'i ExpectedEvent, &'m Event<'m>)> {
        let head = self.expected.iter().zip(measured).take(self.head);
        let tail = self
            .expected
            .iter()
            .rev()
            .zip(measured.iter().rev())
            .take(self.tail);
        head.chain(tail)
            .map(|(expected, measured)| (*expected, *measured))
            .filter(|(expected, measured)| measured.event_type.to_string() != expected.event_type)
    }
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

pub(super) fn unexpected(pcr: u8, bank: PcrBank, event: &Event<'_>, reason: String) -> BootFault {
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
    let is_hashed = || hashes_its_data(event, bank);
    match event.event_type {
        EventType::SEPARATOR => SEPARATORS.iter().any(|value| event.raw == value) && is_hashed(),
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
