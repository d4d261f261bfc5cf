//! Putting a certified attestation key into a software TPM as the clouds do: for TPMs that are then given to a virtual
//! machine.

use aicert_core::attestation::KeyLocation;
use aicert_core::tpm::{TpmBackend as _, TpmError};
use aicert_tpm::{KeySource, ProvisionedKey, Tpm};
use tss_esapi::Context;
use tss_esapi::attributes::NvIndexAttributesBuilder;
use tss_esapi::constants::PropertyTag;
use tss_esapi::handles::NvIndexTpmHandle;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{MaxNvBuffer, NvPublicBuilder};

use crate::ca::{CertificateProfile, TestCa};
use crate::config::{KeyAlgorithm, KeyTemplate, SUBJECT};
use crate::error::Failure;
use crate::instance::SwtpmInstance;
use crate::keys::Applicant;

/// Where the key is put, and what it is like.
#[derive(Debug, Clone)]
pub struct PlatformKey {
    location: KeyLocation,
    algorithm: KeyAlgorithm,
    profile: CertificateProfile,
    certificate_index_size: usize,
    owner_read: bool,
}

impl PlatformKey {
    /// As Google Compute Engine has it: P-256, template in NV index `0x01c10003`, certificate in `0x01c10002`.
    pub fn like_gce() -> Self {
        let location = KeyLocation::Template {
            template: 0x01c1_0003,
            certificate: 0x01c1_0002,
        };
        Self::new(KeyAlgorithm::EccP256, location)
    }

    /// As Azure has it: RSA-2048, persistent handle `0x81000003`, certificate in NV index `0x01c101d0`, which is larger
    /// than the certificate.
    pub fn like_azure() -> Self {
        let location = KeyLocation::Persistent {
            handle: crate::keys::ATTESTATION_KEY_HANDLE,
            certificate: 0x01c1_01d0,
        };
        Self {
            certificate_index_size: 2048,
            ..Self::new(KeyAlgorithm::Rsa2048, location)
        }
    }

    /// An honest key at some other place.
    pub fn new(algorithm: KeyAlgorithm, location: KeyLocation) -> Self {
        Self {
            location,
            algorithm,
            profile: CertificateProfile::attestation_key(SUBJECT),
            certificate_index_size: 0,
            owner_read: true,
        }
    }

    /// Has the key's certificate made like this.
    #[must_use]
    pub fn with_profile(mut self, profile: CertificateProfile) -> Self {
        self.profile = profile;
        self
    }

    /// Lets the indices be read with their own password alone, and not with the owner's.
    #[must_use]
    pub fn without_owner_read(mut self) -> Self {
        self.owner_read = false;
        self
    }

    /// Where the key is put.
    pub fn location(&self) -> KeyLocation {
        self.location
    }
}

/// A key that was put into a TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledKey {
    /// Its public area, `TPMT_PUBLIC`.
    pub public: Vec<u8>,
    /// The certificates that follow the key's own, in DER, the root last.
    pub issuers: Vec<Vec<u8>>,
}

impl SwtpmInstance {
    /// Makes an attestation key, has it certified after credential activation, and writes what whoever uses this TPM
    /// later needs: the certificate, and the template of the key unless the key is made persistent. Returns the
    /// certificates that follow the key's own: the intermediate's and the root's.
    ///
    /// The indices are defined by the platform, so whoever owns the TPM can read them, and neither change nor remove them.
    ///
    /// # Errors
    ///
    /// When the TPM refuses, or has something at these places.
    pub async fn provision(&self, ca: &TestCa, key: PlatformKey) -> Result<Vec<Vec<u8>>, TpmError> {
        Ok(self.install(ca, key).await?.issuers)
    }

    /// As [`SwtpmInstance::provision`], for who wants to recognise the key later.
    ///
    /// # Errors
    ///
    /// When the TPM refuses, or has something at these places.
    pub async fn install(&self, ca: &TestCa, key: PlatformKey) -> Result<InstalledKey, TpmError> {
        let issuers = vec![
            ca.intermediate().certificate().to_vec(),
            ca.root().certificate().to_vec(),
        ];
        let ca = ca.clone();
        let source = KeySource::Provisioned(Box::new(move |context| install(context, &ca, &key)));
        let tpm = Tpm::open(self.config(source)).await?;
        let public = tpm
            .attestation_key()
            .await?
            .map(|key| key.public)
            .unwrap_or_default();
        tpm.close().await?;
        Ok(InstalledKey { public, issuers })
    }
}

fn install(context: &mut Context, ca: &TestCa, key: &PlatformKey) -> Result<ProvisionedKey, TpmError> {
    let template = KeyTemplate::attestation(key.algorithm);
    let applicant = Applicant::create(context, &template)?;
    let (challenge, credential) =
        ca.challenge(&applicant.endorsement_public, &applicant.attestation_public, true)?;
    let answer = applicant.activate(context, credential)?;
    let certificate_chain = ca.conclude(challenge, &answer, &key.profile)?;
    let mut leaf = certificate_chain.first().cloned().unwrap_or_default();
    leaf.resize(leaf.len().max(key.certificate_index_size), 0);
    let (certificate, handle) = match key.location {
        KeyLocation::Template {
            template: index,
            certificate,
        } => {
            let template = Applicant::template(&template)?;
            define_and_write(context, index, &template, key.owner_read)?;
            (certificate, applicant.keep_loaded(context)?)
        }
        KeyLocation::Persistent { handle, certificate } => (certificate, applicant.persist(context, handle)?),
        other => {
            let reason = format!("no key can be put at {other:?}");
            return Err(Failure::NotCertified { reason }.into());
        }
    };
    define_and_write(context, certificate, &leaf, key.owner_read)?;
    Ok(ProvisionedKey {
        handle,
        certificate_chain,
    })
}

fn define_and_write(context: &mut Context, index: u32, data: &[u8], owner_read: bool) -> Result<(), Failure> {
    let write = |context: &mut Context| {
        let attributes = NvIndexAttributesBuilder::new()
            .with_platform_create(true)
            .with_pp_write(true)
            .with_pp_read(true)
            .with_owner_read(owner_read)
            .with_auth_read(true)
            .with_no_da(true)
            .build()?;
        let public = NvPublicBuilder::new()
            .with_nv_index(NvIndexTpmHandle::new(index)?)
            .with_index_name_algorithm(HashingAlgorithm::Sha256)
            .with_index_attributes(attributes)
            .with_data_area_size(data.len())
            .build()?;
        let largest = context
            .get_tpm_property(PropertyTag::NvBufferMax)?
            .and_then(|largest| usize::try_from(largest).ok())
            .map_or(MaxNvBuffer::MAX_SIZE, |largest| {
                largest.clamp(1, MaxNvBuffer::MAX_SIZE)
            });
        context.execute_with_session(Some(AuthSession::Password), |context| {
            let handle = context.nv_define_space(Provision::Platform, None, public)?;
            let mut offset = 0;
            for piece in data.chunks(largest) {
                let buffer = MaxNvBuffer::try_from(piece)?;
                context.nv_write(NvAuth::Platform, handle, buffer, offset)?;
                // The size of an index is a 16-bit number (TPM 2.0 Library, part 2, `TPMS_NV_PUBLIC`).
                offset += piece.len() as u16;
            }
            Ok(())
        })
    };
    write(context).map_err(Failure::of("writing to the TPM's memory"))
}
