//! What was signed, whoever signed it.

use crate::attest::Attest;
use crate::nitro::Claims;

/// What was signed beside the PCRs; a claim, until who signed is known.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Statement<'a> {
    /// By a key of the TPM.
    Attest(&'a Attest),
    /// By the platform.
    Document(&'a Claims),
}

impl<'a> Statement<'a> {
    /// What whoever asked for it gave to be signed. Empty where nothing was given.
    pub(crate) fn qualifying_data(self) -> &'a [u8] {
        match self {
            Self::Attest(attest) => &attest.extra_data,
            Self::Document(claims) => claims.nonce().unwrap_or_default(),
        }
    }
}
