//! What the machine and the proof of a run are verified against.

use std::path::PathBuf;

use aicert_core::time::Timestamp;
use aicert_verify::policy::Policy;
use aicert_verify::reference::ReferenceValues;
use aicert_verify::{Options, TrustAnchors};

use crate::error::{Exit, Failure};
use crate::verify;

/// What is believed, and what is demanded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust {
    /// The root (PEM) that no verifier knows by itself; it is handed out with the proof.
    pub(crate) root_pem: Option<String>,
    pub(crate) reference_values: ReferenceValues,
    pub(crate) policy: Option<Policy>,
    /// The policy as it was written.
    pub(crate) policy_text: Option<String>,
    /// The files that these came from, for the advice how to verify.
    pub(crate) reference_files: Vec<PathBuf>,
    pub(crate) policy_file: Option<PathBuf>,
}

impl Trust {
    /// Reads the files that the user names.
    pub(crate) fn read(reference_files: Vec<PathBuf>, policy_file: Option<PathBuf>) -> Result<Self, Failure> {
        let policy_text = policy_file.as_deref().map(verify::read_policy).transpose()?;
        let policy = match (&policy_text, &policy_file) {
            (Some(text), Some(file)) => Some(verify::parse_policy(text, file)?),
            _ => None,
        };
        Ok(Self {
            root_pem: None,
            reference_values: verify::reference_values(&reference_files)?,
            policy,
            policy_text,
            reference_files,
            policy_file,
        })
    }

    /// For what is verified now.
    pub(crate) fn options(&self) -> Result<Options, Failure> {
        let mut anchors = TrustAnchors::pinned();
        if let Some(pem) = &self.root_pem {
            anchors = anchors.with_root(pem.as_bytes()).map_err(|error| {
                Failure::new(
                    Exit::DoesNotHold,
                    "the root of the simulated TPM is no trust anchor",
                )
                .because(&error)
            })?;
        }
        let mut options =
            Options::new(anchors, Timestamp::now()).with_reference_values(self.reference_values.clone());
        if let Some(policy) = &self.policy {
            options = options.with_policy(policy.clone());
        }
        Ok(options)
    }
}
