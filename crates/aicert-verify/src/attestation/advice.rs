//! What to do when a machine is refused. The faults of the common steps speak of proofs, which are published and passed on;
//! a machine is there, or somebody in its place, and the one decision is to send nothing.

use crate::boot::BootFault;
use crate::chain::ChainFault;
use crate::error::{Cause, Step};
use crate::policy::PolicyFault;
use crate::quote::QuoteFault;

/// What to do about something that is wrong with a machine that was to be attested.
pub(crate) fn advice(cause: &Cause) -> String {
    let own = cause.advice();
    match cause {
        Cause::Attestation(_) => return own,
        Cause::Chain(fault) => chain(fault),
        Cause::Quote(QuoteFault::Sha1Bank {} | QuoteFault::PcrsMissing { .. }) => {
            "send nothing; start a machine whose TPM has an active bank of SHA-256 (a NitroTPM: of SHA-384), with a server that quotes all PCRs"
        }
        Cause::Boot(BootFault::NoReferenceValues {}) => return own,
        Cause::Boot(BootFault::UnknownImage { .. }) => {
            "send nothing; boot the image that the reference values are of, or get those of the image that was booted, if you trust it"
        }
        Cause::Policy(fault) => policy(fault),
        cause => match cause.step() {
            Step::AttestationKey => {
                "send nothing: a quote counts only when a restricted key that never leaves its TPM signed it, and the key's certificate is for that key"
            }
            Step::Document => "send nothing: AWS made no such document of this machine",
            Step::Quote => "send nothing: the answer was altered on its way, or no TPM made it",
            Step::BootLog => {
                "send nothing: this machine runs something else than the image that the reference values are of, or its boot log was altered"
            }
            _ => return own,
        },
    }
    .to_owned()
}

fn chain(fault: &ChainFault) -> &'static str {
    match fault {
        ChainFault::UnknownRoot { .. } | ChainFault::UnknownSimulatedRoot { .. } => {
            "send nothing, unless you know that root yourself and trust it: then give its certificate as a trust anchor"
        }
        ChainFault::NotYetValid { .. } | ChainFault::Expired { .. } | ChainFault::DocumentExpired { .. } => {
            "send nothing; check the clock of this computer, or start another machine"
        }
        ChainFault::CertifiedBeforeFix { .. } => {
            "send nothing; start another machine, whose key is certified anew"
        }
        ChainFault::IssuerMissing { .. } => {
            "send nothing; name a file with the missing certificate, in PEM or DER, in `issuers` of the configuration's machine, and start another: \
             the console of this one says where it looked for it"
        }
        _ => "send nothing: nobody whom you trust vouches for the TPM of this machine",
    }
}

fn policy(fault: &PolicyFault) -> &'static str {
    match fault {
        PolicyFault::Platform { .. } => "start a machine of a platform that the policy allows",
        PolicyFault::Simulated { .. } => {
            "start a machine whose TPM somebody vouches for; to try things out, let the policy accept simulated platforms"
        }
        PolicyFault::Image { .. } | PolicyFault::ImageUnknown { .. } => {
            "start a machine with an image that the policy allows"
        }
        PolicyFault::Firmware { .. } => {
            "get newer reference values, that know this firmware; `firmware: any` in a policy accepts firmware that nobody vouches for"
        }
        _ => "start a machine that the policy allows",
    }
}
