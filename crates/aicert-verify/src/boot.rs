//! Steps 5 and 6: the boot log explains the boot PCRs, and what it says was booted is an image that is known.
//!
//! The log is replayed for the quoted bank. When that gives PCRs 0 to 13, its digests are what was extended, in this order;
//! the types of its events and their descriptions are still claims. So whatever decides something is decided by digests:
//!
//! * what firmware itself measures beside an image (separators, actions) is accepted only where its digest is that of
//!   bytes that are known;
//! * everything else in PCRs 4, 5, 9 and 11 must be the events of one image of the reference values, in their order;
//! * PCRs 8, 12 and 13 must be untouched: a boot loader, a command line from outside the image, extensions;
//! * PCR 10 is the kernel's, and not in the log: it is zero, or holds IMA's hash of PCRs 0 to 9, which says nothing new;
//! * PCRs 0, 1, 2, 3 and 6 are the firmware's: it is recognised from the reference values, or is not, as [`BootFacts`]
//!   says; whether that suffices is for the policy to say. PCR 7 holds the state of Secure Boot;
//! * PCR 2 is where firmware measures drivers, those of devices and those that whoever configures the machine has it load
//!   (`Driver####`): these run before the image and can change it in memory. So in PCR 2 there is nothing but the separator,
//!   unless the firmware is recognised, of whose values PCR 2 is one.

mod fault;
mod firmware;
mod foreign;
mod image;
mod replay;

use aicert_core::certificate::PlatformKind;
use aicert_core::digest::{BootLogDigest, LogHead};
use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues};

pub use fault::BootFault;

use crate::error::{Failure, Rejection};
use crate::eventlog::{Event, EventLog};
use crate::quote::BoundQuote;
use crate::reference::ReferenceValues;

/// The PCRs that firmware, boot loader and kernel measure into.
pub(crate) const BOOT_PCRS: std::ops::RangeInclusive<u8> = 0..=13;

/// What separators hash.
const SEPARATORS: [[u8; 4]; 2] = [[0; 4], [0xff; 4]];

/// What is known about how a machine booted. Only [`verify`] and [`explain`] make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFacts {
    image: Option<String>,
    firmware: Firmware,
    secure_boot: SecureBoot,
}

/// Which firmware a machine runs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Firmware {
    /// That of the reference values with this name.
    Known(String),
    /// None of the reference values.
    Unrecognised,
    /// None that measures anything: a software TPM without a machine.
    NotMeasured,
}

/// Whether firmware checks signatures of what it starts (UEFI 2.10, section 32).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecureBoot {
    /// It does.
    On,
    /// It does not.
    Off,
    /// The evidence does not say.
    Unknown,
}

impl BootFacts {
    /// The name of the image that was booted, as the reference values have it; none where nothing was measured.
    pub fn image(&self) -> Option<&str> {
        self.image.as_deref()
    }

    /// The firmware.
    pub fn firmware(&self) -> &Firmware {
        &self.firmware
    }

    /// The state of Secure Boot.
    pub fn secure_boot(&self) -> SecureBoot {
        self.secure_boot
    }

    /// Nothing was measured at boot.
    const NOT_MEASURED: Self = Self {
        image: None,
        firmware: Firmware::NotMeasured,
        secure_boot: SecureBoot::Unknown,
    };
}

/// A quote from a machine about whose boot nothing is unexplained. Only [`verify`] makes it.
#[derive(Debug, Clone)]
pub struct ExplainedBoot<To = LogHead> {
    quote: BoundQuote<To>,
    facts: BootFacts,
    pub(crate) log: BootLogDigest,
}

impl<To> ExplainedBoot<To> {
    /// The quote.
    pub fn quote(&self) -> &BoundQuote<To> {
        &self.quote
    }

    /// What was booted.
    pub fn facts(&self) -> &BootFacts {
        &self.facts
    }
}

/// Verifies that nothing about the machine's boot is unexplained.
///
/// # Errors
///
/// Everything that is, event by event.
pub fn verify<To>(
    quote: BoundQuote<To>,
    boot_event_log: &[u8],
    references: &ReferenceValues,
) -> Result<ExplainedBoot<To>, Vec<Failure>> {
    let signed = quote.quote();
    let platform = signed.platform();
    let (facts, failures) = examine(signed.bank(), signed.pcrs(), boot_event_log, platform, references);
    match facts {
        Some(facts) if failures.is_empty() => Ok(ExplainedBoot {
            quote,
            facts,
            log: BootLogDigest::of(boot_event_log),
        }),
        _ => Err(failures),
    }
}

/// Explains the boot PCRs of evidence that was verified in another way, such as the document of an AWS NitroTPM.
///
/// `pcrs` must come from evidence that was verified: this function cannot know.
///
/// # Errors
///
/// Everything that is not explained, event by event.
pub fn explain(
    bank: PcrBank,
    pcrs: &PcrValues,
    boot_event_log: &[u8],
    references: &ReferenceValues,
) -> Result<BootFacts, Rejection> {
    // A machine that a vendor vouches for has booted something.
    let platform = PlatformKind::AzureTrustedLaunch;
    let (facts, mut failures) = examine(bank, pcrs, boot_event_log, platform, references);
    if bank == PcrBank::Sha1 {
        failures.push(BootFault::Sha1Bank {}.into());
    }
    Rejection::unless_empty(failures)?;
    facts.ok_or_else(|| Failure::from(BootFault::NoReferenceValues {}).into())
}

/// What is known, and what is wrong, whether or not the quote is authentic. There are facts whenever nothing is wrong.
pub(crate) fn examine(
    bank: PcrBank,
    pcrs: &PcrValues,
    boot_event_log: &[u8],
    platform: PlatformKind,
    references: &ReferenceValues,
) -> (Option<BootFacts>, Vec<Failure>) {
    let missing: Vec<_> = BOOT_PCRS
        .filter(|pcr| !pcrs.0.keys().any(|index| index.as_u8() == *pcr))
        .map(|pcr| pcr.to_string())
        .collect();
    if !missing.is_empty() {
        let missing = missing.join(",");
        return (None, vec![BootFault::PcrsMissing { missing }.into()]);
    }
    if boot_event_log.is_empty() {
        let result = without_log(bank, pcrs, platform, references);
        return match result {
            Ok(facts) => (Some(facts), Vec::new()),
            Err(failure) => (None, vec![*failure]),
        };
    }
    let log = match EventLog::parse(boot_event_log) {
        Ok(log) => log,
        Err(error) => return (None, vec![BootFault::Unreadable { error }.into()]),
    };
    let mut failures: Vec<Failure> = log.inspect(bank).into_iter().map(Failure::from).collect();
    failures.extend(replay::inspect(&log, bank, pcrs).into_iter().map(Failure::from));
    let firmware = firmware::recognise(bank, pcrs, references);
    let foreign = foreign::inspect(&log, bank, &firmware, references);
    failures.extend(foreign.into_iter().map(Failure::from));
    match image::recognise(&log, bank, references) {
        Ok(image) => {
            let facts = BootFacts {
                image: Some(image.name.clone()),
                firmware,
                secure_boot: firmware::secure_boot(&log, bank),
            };
            (Some(facts), failures)
        }
        Err(faults) => {
            failures.extend(faults.into_iter().map(Failure::from));
            (None, failures)
        }
    }
}

/// Evidence without a log: nothing was measured, or reference values cover all that was, value by value.
fn without_log(
    bank: PcrBank,
    pcrs: &PcrValues,
    platform: PlatformKind,
    references: &ReferenceValues,
) -> Result<BootFacts, Box<Failure>> {
    let measured: Vec<_> = BOOT_PCRS
        .filter_map(PcrIndex::new)
        .filter(|pcr| {
            pcrs.0
                .get(pcr)
                .is_some_and(|value| value.iter().any(|byte| *byte != 0))
        })
        .collect();
    if measured.is_empty() {
        return if platform.is_simulated() {
            Ok(BootFacts::NOT_MEASURED)
        } else {
            Err(Box::new(BootFault::NothingMeasured {}.into()))
        };
    }
    let firmware = firmware::recognise(bank, pcrs, references);
    let of_firmware = references
        .firmware
        .iter()
        .find(|reference| firmware == Firmware::Known(reference.name.clone()))
        .and_then(|reference| reference.pcrs.get(&bank));
    let needs_none = |pcr: &PcrIndex| {
        !measured.contains(pcr) || (pcr.as_u8() == 10 && replay::is_boot_aggregate(bank, pcrs, None))
    };
    for image in &references.images {
        let Some(of_image) = image.pcrs.get(&bank) else {
            continue;
        };
        let explained = |pcr: &PcrIndex| {
            let expected = of_image.0.get(pcr).or_else(|| of_firmware?.0.get(pcr));
            expected.is_some_and(|value| pcrs.0.get(pcr) == Some(value))
                || (expected.is_none() && needs_none(pcr))
        };
        // What says which image it is must be among the values, or an entry without them would explain anything.
        let says_which = [4, 11]
            .into_iter()
            .filter_map(PcrIndex::new)
            .all(|pcr| of_image.0.contains_key(&pcr));
        if says_which && BOOT_PCRS.filter_map(PcrIndex::new).all(|pcr| explained(&pcr)) {
            return Ok(BootFacts {
                image: Some(image.name.clone()),
                firmware,
                secure_boot: SecureBoot::Unknown,
            });
        }
    }
    let found: Vec<_> = measured.iter().map(ToString::to_string).collect();
    let found = found.join(",");
    Err(Box::new(BootFault::Unexplained { found }.into()))
}

/// The digests of the separators with which firmware hands over (TCG PC Client Platform Firmware Profile 1.06, section
/// 10.4.1): all zeros or all ones.
fn separators(bank: PcrBank) -> [Vec<u8>; 2] {
    SEPARATORS.map(|value| bank.hash(&[&value]))
}

/// Whether an event's data is what was hashed.
fn hashes_its_data(event: &Event<'_>, bank: PcrBank) -> bool {
    event
        .digest(bank)
        .is_some_and(|digest| digest == bank.hash(&[event.raw]))
}

/// What the log says that an event is; a claim, where no digest covers it.
fn describe(event: &Event<'_>) -> String {
    format!("{}: {}", event.event_type, event.data.describe())
}
