//! Step 5, as far as it goes: boot PCRs that nothing was measured into need no explanation; all others have none yet.
//!
//! This version neither replays boot logs nor knows reference values, so it can tell nothing about what a machine
//! booted. It therefore accepts only what is not meant to show that: a simulated TPM whose boot PCRs are zero. Proofs
//! from real clouds are refused here, however good the rest of them is.

use aicert_core::certificate::PlatformKind;
use aicert_core::tpm::PcrValues;

use crate::error::faults;
use crate::quote::BoundQuote;

/// The PCRs that firmware, boot loader and kernel measure into.
const BOOT_PCRS: std::ops::RangeInclusive<u8> = 0..=13;

faults! {
    /// Says what cannot be explained about how the machine booted.
    enum BootFault {
        /// There is a boot log.
        LogNotSupported {
            /// Its size in bytes.
            found: usize,
        } => Verifier, "the proof has a boot log of {found} bytes, which this version cannot replay; it accepts an empty one only", "verify with a version that reads boot logs";
        /// Something was measured at boot, and there is no log that says what.
        Unexplained {
            /// The PCRs that are not zero.
            found: String,
        } => Builder, "the boot log is empty, but the boot PCRs {found} are not zero: what was measured into them is unknown", "do not believe this proof: whoever made it left the boot log out";
        /// The root vouches for a real platform, and it is not known what that may boot.
        NoReferenceValues {
            /// The platform.
            platform: &'static str,
        } => Verifier, "the chain ends in the root of {platform}, and this version has no reference values for what such a machine may boot: its owner could have booted anything", "verify with a version that has reference values for this platform";
    }
}

/// A quote from a machine about whose boot nothing is unexplained. Only [`verify`] makes it.
#[derive(Debug, Clone)]
pub struct ExplainedBoot {
    quote: BoundQuote,
}

impl ExplainedBoot {
    /// The quote.
    pub fn quote(&self) -> &BoundQuote {
        &self.quote
    }
}

/// Verifies that nothing about the machine's boot is unexplained.
///
/// # Errors
///
/// Everything that is.
pub fn verify(quote: BoundQuote, boot_event_log: &[u8]) -> Result<ExplainedBoot, Vec<BootFault>> {
    let platform = quote.quote().key().chain().platform();
    let faults = inspect(quote.quote().pcrs(), boot_event_log, platform);
    if faults.is_empty() {
        Ok(ExplainedBoot { quote })
    } else {
        Err(faults)
    }
}

pub(crate) fn inspect(pcrs: &PcrValues, boot_event_log: &[u8], platform: PlatformKind) -> Vec<BootFault> {
    let mut faults = Vec::new();
    if !boot_event_log.is_empty() {
        faults.push(BootFault::LogNotSupported {
            found: boot_event_log.len(),
        });
    }
    let nonzero: Vec<_> = pcrs
        .0
        .iter()
        .filter(|(pcr, value)| BOOT_PCRS.contains(&pcr.as_u8()) && value.iter().any(|byte| *byte != 0))
        .map(|(pcr, _)| pcr.to_string())
        .collect();
    if boot_event_log.is_empty() && !nonzero.is_empty() {
        faults.push(BootFault::Unexplained {
            found: nonzero.join(","),
        });
    }
    let name = match platform {
        PlatformKind::LocalCa => return faults,
        PlatformKind::AzureTrustedLaunch => "Azure's virtual TPMs",
        PlatformKind::GceShieldedVm => "Google's shielded VMs",
        _ => "a platform that is not known",
    };
    faults.push(BootFault::NoReferenceValues { platform: name });
    faults
}
