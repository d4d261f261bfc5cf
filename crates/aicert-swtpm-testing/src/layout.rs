//! TPMs with everything in the places where clouds have it.

use aicert_core::attestation::KeyLocation;
use aicert_core::tpm::TpmError;

use crate::ca::{CertificateProfile, TestCa};
use crate::config::KeyAlgorithm;
use crate::instance::SwtpmInstance;
use crate::provision::PlatformKey;

/// A cloud whose TPMs have certified attestation keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloudTpm {
    /// One RSA key, persistent, with its certificate in an index that is larger.
    Azure,
    /// Two keys, each by its template: P-256 and RSA.
    ComputeEngine,
}

impl CloudTpm {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Azure, Self::ComputeEngine];

    /// The keys, the one that aicert uses first.
    pub fn keys(self) -> Vec<PlatformKey> {
        match self {
            Self::Azure => vec![PlatformKey::like_azure()],
            Self::ComputeEngine => vec![PlatformKey::like_gce(), PlatformKey::like_gce_rsa()],
        }
    }
}

impl PlatformKey {
    /// The other one that Google Compute Engine has: RSA-2048, template in NV index `0x01c10001`, certificate in `0x01c10000`.
    pub fn like_gce_rsa() -> Self {
        let location = KeyLocation::Template {
            template: 0x01c1_0001,
            certificate: 0x01c1_0000,
        };
        Self::new(KeyAlgorithm::Rsa2048, location)
    }
}

impl SwtpmInstance {
    /// Lays a new TPM out as a cloud does, with certificates made like `profile`. Returns where the keys are, the one that aicert uses
    /// first. As in the clouds, nothing in the TPM says what is above the certificates.
    ///
    /// # Errors
    ///
    /// When the TPM refuses, or has something at these places.
    pub async fn lay_out(
        &self,
        cloud: CloudTpm,
        ca: &TestCa,
        profile: &CertificateProfile,
    ) -> Result<Vec<KeyLocation>, TpmError> {
        let mut locations = Vec::new();
        for key in cloud.keys() {
            locations.push(key.location());
            self.provision(ca, key.with_profile(profile.clone())).await?;
        }
        Ok(locations)
    }
}
