//! What kind of software TPM is wanted.

use std::path::PathBuf;

use aicert_core::tpm::PcrBank;

use crate::ca::{CertificateProfile, TestCa};

/// Whom certificates of attestation keys are for, unless a test says otherwise.
pub(crate) const SUBJECT: &str = "Simulated attestation key";

/// Options of a bare software TPM.
#[derive(Debug, Clone, Default)]
pub struct SwtpmOptions {
    pub(crate) directory: Option<PathBuf>,
    pub(crate) banks: Option<Vec<PcrBank>>,
}

impl SwtpmOptions {
    /// A directory of its own among the temporary files, and every bank that swtpm has.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps everything in `directory`, which must not exist yet and is removed with the software TPM.
    #[must_use]
    pub fn with_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Activates these banks and no others.
    #[must_use]
    pub fn with_banks(mut self, banks: impl Into<Vec<PcrBank>>) -> Self {
        self.banks = Some(banks.into());
        self
    }
}

/// The algorithm of a key; its certificate's and its activation's follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// ECC P-256, ECDSA with SHA-256.
    EccP256,
    /// RSA-2048, RSASSA with SHA-256.
    Rsa2048,
}

/// Where a key is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyHierarchy {
    /// As a primary key of the endorsement hierarchy.
    Endorsement,
    /// As a primary key of the owner. The boot counters in what it signs are obfuscated.
    Owner,
}

/// What the attestation key is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTemplate {
    /// Its algorithm.
    pub algorithm: KeyAlgorithm,
    /// Where it is created.
    pub hierarchy: KeyHierarchy,
    /// Whether it signs nothing but what the TPM made.
    pub restricted: bool,
    /// Whether it can never leave the TPM; what is not fixed to the TPM is not fixed to its parent either.
    pub fixed: bool,
}

impl KeyTemplate {
    /// An honest attestation key.
    pub fn attestation(algorithm: KeyAlgorithm) -> Self {
        Self {
            algorithm,
            hierarchy: KeyHierarchy::Endorsement,
            restricted: true,
            fixed: true,
        }
    }
}

/// Options of a software TPM with a certified attestation key.
#[derive(Debug, Clone)]
pub struct SimulationOptions {
    pub(crate) swtpm: SwtpmOptions,
    pub(crate) key: KeyTemplate,
    pub(crate) ca: Option<TestCa>,
    pub(crate) profile: CertificateProfile,
    pub(crate) check_key: bool,
    pub(crate) boot_event_log: Option<PathBuf>,
}

impl SimulationOptions {
    /// An honest attestation key, certified by a CA made for the occasion.
    pub fn new(algorithm: KeyAlgorithm) -> Self {
        Self {
            swtpm: SwtpmOptions::new(),
            key: KeyTemplate::attestation(algorithm),
            ca: None,
            profile: CertificateProfile::attestation_key(SUBJECT),
            check_key: true,
            boot_event_log: None,
        }
    }

    /// Configures the software TPM itself.
    #[must_use]
    pub fn with_swtpm(mut self, swtpm: SwtpmOptions) -> Self {
        self.swtpm = swtpm;
        self
    }

    /// Has the key certified by this CA.
    #[must_use]
    pub fn with_ca(mut self, ca: TestCa) -> Self {
        self.ca = Some(ca);
        self
    }

    /// Has the key's certificate made like this.
    #[must_use]
    pub fn with_profile(mut self, profile: CertificateProfile) -> Self {
        self.profile = profile;
        self
    }

    /// Shows this file as the boot event log.
    #[must_use]
    pub fn with_boot_event_log(mut self, path: impl Into<PathBuf>) -> Self {
        self.boot_event_log = Some(path.into());
        self
    }

    /// Creates the key from another template, and has the CA certify it whatever it is.
    #[must_use]
    pub fn dangerous_with_key(mut self, key: KeyTemplate) -> Self {
        self.key = key;
        self.check_key = false;
        self
    }
}
