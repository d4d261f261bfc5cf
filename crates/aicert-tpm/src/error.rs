//! What can fail inside, and how it is told outside.

use std::io::{self, ErrorKind};
use std::time::Duration;

use aicert_core::tpm::{PcrBank, TpmError, TpmErrorKind};
use tss_esapi::constants::response_code::{Tss2ResponseCode, Tss2ResponseCodeKind};

/// A failure of one command, or of what was made of its answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The TPM, or the library on the way to it, answered with an error.
    #[error("{operation} failed: {}", explain(.source))]
    Tss {
        operation: &'static str,
        source: tss_esapi::Error,
    },
    /// The TPM asked to try again for longer than we are willing to.
    #[error("the TPM asked to try {operation} again for {} s", .waited.as_secs())]
    Busy {
        operation: &'static str,
        waited: Duration,
        source: tss_esapi::Error,
    },
    /// A command that the TSS has no part in did not reach the TPM, or its answer did not come back.
    #[error("{operation} failed: {way} could not be used: {source}")]
    Wire {
        operation: &'static str,
        way: String,
        source: io::Error,
    },
    /// The platform behind the TPM refused, and named its reason.
    #[error("{operation} was refused by the Nitro Secure Module: {code:?}")]
    Refused { operation: &'static str, code: String },
    /// The answer contradicts the question, or itself.
    #[error("{operation} returned something that makes no sense: {what}")]
    Nonsense { operation: &'static str, what: String },
    /// PCRs changed each time between two looks at them.
    #[error("PCRs changed {attempts} times while they were read: something else extends them all the time")]
    Unstable { attempts: u32 },
    /// The TPM, the key or this crate cannot do it.
    #[error("{what}")]
    Unsupported { what: String, advice: &'static str },
    /// A bank was named that is not active.
    #[error("the PCR bank {bank} is not active in this TPM; active are: {active}")]
    InactiveBank { bank: PcrBank, active: String },
    /// The digests of an extend are not those that it needs.
    #[error("refused to extend: {what}")]
    WrongDigests { what: String },
}

impl Failure {
    /// For `map_err`: names the operation that the error belongs to.
    pub(crate) fn of(operation: &'static str) -> impl Fn(tss_esapi::Error) -> Self {
        move |source| Self::Tss { operation, source }
    }

    pub(crate) fn nonsense(operation: &'static str, what: impl Into<String>) -> Self {
        Self::Nonsense {
            operation,
            what: what.into(),
        }
    }
}

impl From<Failure> for TpmError {
    fn from(failure: Failure) -> Self {
        let message = failure.to_string();
        match failure {
            Failure::Tss { operation, source } if connection_broke(&source) => {
                let message = format!("{operation} failed: the connection to the TPM broke");
                Self::new(TpmErrorKind::Failed, message)
                    .with_advice(
                        "look whether the TPM, or the process that simulates it, was stopped, then run again",
                    )
                    .with_source(source)
            }
            Failure::Tss { source, .. } => Self::new(TpmErrorKind::Failed, message).with_source(source),
            Failure::Busy { source, .. } => Self::new(TpmErrorKind::Busy, message)
                .with_advice("wait until what else uses the TPM is done, then run again")
                .with_source(source)
                .retryable(),
            Failure::Wire { source, .. } => match source.kind() {
                ErrorKind::PermissionDenied => Self::new(TpmErrorKind::PermissionDenied, message).with_advice(
                    "let this user open the device: kernels before Linux 6.3 pass the command on to it alone",
                ),
                ErrorKind::ResourceBusy => Self::new(TpmErrorKind::InUse, message)
                    .with_advice("stop what else uses the TPM directly; use /dev/tpmrm0 there")
                    .retryable(),
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::new(TpmErrorKind::Busy, message)
                    .with_advice("look for what else uses the TPM; a bare software TPM serves one client, and makes no documents")
                    .retryable(),
                _ => Self::new(TpmErrorKind::Failed, message)
                    .with_advice("look whether the TPM, or the process that simulates it, was stopped, then run again"),
            }
            .with_source(source),
            Failure::Refused { .. } => Self::new(TpmErrorKind::Failed, message)
                .with_advice("try again a little later; if it is refused again, start another instance"),
            Failure::Nonsense { .. } => Self::new(TpmErrorKind::Failed, message),
            Failure::Unstable { .. } => Self::new(TpmErrorKind::Failed, message)
                .with_advice("find and stop the program that extends PCRs, for example an IMA policy")
                .retryable(),
            Failure::Unsupported { advice, .. } => {
                Self::new(TpmErrorKind::Unsupported, message).with_advice(advice)
            }
            Failure::InactiveBank { .. } | Failure::WrongDigests { .. } => {
                Self::new(TpmErrorKind::Unsupported, message)
            }
        }
    }
}

/// The library's text, with the number for what it has no text for.
fn explain(error: &tss_esapi::Error) -> String {
    match error {
        tss_esapi::Error::Tss2Error(Tss2ResponseCode::FormatZero(code)) => format!("{error} ({code})"),
        tss_esapi::Error::Tss2Error(Tss2ResponseCode::FormatOne(code)) => format!("{error} ({code})"),
        _ => error.to_string(),
    }
}

/// Whether the error comes from the way to the TPM and not from the TPM (TSS 2.0 Overview and Common Structures,
/// `TSS2_TCTI_RC_LAYER`).
fn connection_broke(error: &tss_esapi::Error) -> bool {
    const TCTI_LAYER: u32 = 10;
    let tss_esapi::Error::Tss2Error(Tss2ResponseCode::FormatZero(code)) = error else {
        return false;
    };
    // The wrapper shows its number and does not give it.
    let code = code.to_string();
    let digits = code.rsplit_once("0x").map_or("", |(_, digits)| digits);
    u32::from_str_radix(digits, 16).is_ok_and(|code| code >> 16 == TCTI_LAYER)
}

/// What an answer says about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hint {
    /// The command was not started (TPM 2.0 Library, part 2, section 6.6.3: `TPM_RC_RETRY`, `TPM_RC_TESTING`).
    NotStarted,
    /// The command was suspended with part of its work done (`TPM_RC_YIELDED`).
    Suspended,
    /// There is no use in trying again.
    Final,
}

impl Hint {
    pub(crate) fn of(error: &tss_esapi::Error) -> Self {
        let tss_esapi::Error::Tss2Error(code) = error else {
            return Self::Final;
        };
        match code.kind() {
            Some(Tss2ResponseCodeKind::Retry | Tss2ResponseCodeKind::Testing) => Self::NotStarted,
            Some(Tss2ResponseCodeKind::Yielded) => Self::Suspended,
            _ => Self::Final,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_connection_is_told_as_one() {
        let told = |code: u32| {
            let source = tss_esapi::Error::Tss2Error(code.into());
            TpmError::from(Failure::Tss {
                operation: "quoting",
                source,
            })
        };
        let error = told(0x000a_000a);
        assert_eq!(error.message(), "quoting failed: the connection to the TPM broke");
        assert!(error.advice().is_some());
        assert!(!told(0x0000_0101).message().contains("broke"), "TPM_RC_FAILURE");
    }

    #[test]
    fn only_what_was_not_started_may_be_extended_again() {
        let hint = |code: u32| Hint::of(&tss_esapi::Error::Tss2Error(code.into()));
        assert_eq!(hint(0x922), Hint::NotStarted, "TPM_RC_RETRY");
        assert_eq!(hint(0x90a), Hint::NotStarted, "TPM_RC_TESTING");
        assert_eq!(hint(0x908), Hint::Suspended, "TPM_RC_YIELDED");
        for code in [0x101, 0x921, 0x923, 0x000a_000a, 0x000a_0009] {
            assert_eq!(hint(code), Hint::Final, "{code:#x}");
        }
    }
}
