//! A software TPM with a certified attestation key, as a backend.

use std::collections::BTreeMap;

use aicert_core::tpm::{
    AttestationKey, PcrBank, PcrIndex, PcrValues, Quote, TpmBackend, TpmCapabilities, TpmClock, TpmError,
    TpmErrorKind,
};
use aicert_tpm::{KeySource, ProvisionedKey, Tpm};
use async_trait::async_trait;
use tss_esapi::Context;
use tss_esapi::constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK};
use tss_esapi::handles::{KeyHandle, PcrHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    Attest, Data, Digest, DigestValues, HashcheckTicket, PcrSelectionList, PcrSlot, Signature,
    SignatureScheme,
};
use tss_esapi::traits::Marshall as _;
use tss_esapi::tss2_esys::TPMT_TK_HASHCHECK;

use crate::ca::{CertificateProfile, TestCa};
use crate::config::{KeyAlgorithm, KeyTemplate, SUBJECT, SimulationOptions};
use crate::error::Failure;
use crate::instance::SwtpmInstance;
use crate::keys::{ATTESTATION_KEY_HANDLE, Applicant};

/// Anything that the attestation key signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedAttestation {
    /// `TPMS_ATTEST`.
    pub attest: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub signature: Vec<u8>,
}

/// A software TPM with an attestation key that a CA of its own has certified after credential activation.
///
/// As a [`TpmBackend`] it is honest. Its other methods do what somebody with full power over the machine could do.
#[derive(Debug)]
pub struct SimulatedTpm {
    tpm: Tpm,
    ca: TestCa,
    // After `tpm`: the connection is closed before the process is ended.
    instance: SwtpmInstance,
}

impl SimulatedTpm {
    /// Starts a software TPM, makes its keys, and has the attestation key certified.
    ///
    /// # Errors
    ///
    /// When swtpm is not installed, or something of this does not succeed.
    pub async fn start(options: SimulationOptions) -> Result<Self, TpmError> {
        let SimulationOptions {
            swtpm,
            key,
            ca,
            profile,
            check_key,
            boot_event_log,
        } = options;
        let ca = match ca {
            Some(ca) => ca,
            None => TestCa::new()?,
        };
        let instance = tokio::task::spawn_blocking(|| SwtpmInstance::start(swtpm))
            .await
            .map_err(|error| {
                TpmError::new(TpmErrorKind::Failed, "starting swtpm was cut off").with_source(error)
            })??;
        let mut config = instance.config(enrolled_key(ca.clone(), key, profile, check_key));
        if let Some(path) = boot_event_log {
            config = config.with_boot_event_log(path);
        }
        let tpm = Tpm::open(config).await?;
        Ok(Self { tpm, ca, instance })
    }

    /// The CA that certified the attestation key.
    pub fn ca(&self) -> &TestCa {
        &self.ca
    }

    /// The trust anchor that a verifier must be given.
    pub fn root_pem(&self) -> String {
        self.ca.root_pem()
    }

    /// The software TPM itself.
    pub fn instance(&self) -> &SwtpmInstance {
        &self.instance
    }

    /// Switches the TPM off and on; the attestation key stays.
    ///
    /// # Errors
    ///
    /// When it does not come up again.
    pub fn reset(&mut self) -> Result<(), TpmError> {
        self.instance.reset()
    }

    /// Like [`reset`](Self::reset), but as after hibernation: the restart count grows instead of the reset count.
    ///
    /// # Errors
    ///
    /// When it does not come up again.
    pub fn restart(&mut self) -> Result<(), TpmError> {
        self.instance.restart()
    }

    /// Opens the same TPM a second time, with the same key.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub async fn second_client(&self) -> Result<Tpm, TpmError> {
        Tpm::open(self.instance.config(self.key_source().await?)).await
    }

    /// The attestation key and its certificates, for opening this TPM in other ways.
    ///
    /// # Errors
    ///
    /// None at present.
    pub async fn key_source(&self) -> Result<KeySource, TpmError> {
        Ok(KeySource::Persistent {
            handle: ATTESTATION_KEY_HANDLE,
            certificate_chain: self
                .tpm
                .attestation_key()
                .await?
                .map(|key| key.certificate_chain)
                .unwrap_or_default(),
        })
    }

    /// Runs TPM commands with the TSS's context and the attestation key.
    ///
    /// # Errors
    ///
    /// When the TPM does not answer.
    pub async fn with_context<R: Send + 'static>(
        &self,
        commands: impl FnOnce(&mut Context, KeyHandle) -> R + Send + 'static,
    ) -> Result<R, TpmError> {
        self.tpm.with_context(commands).await
    }

    /// Extends a PCR of one bank alone.
    ///
    /// # Errors
    ///
    /// When the TPM refuses.
    pub async fn extend_one_bank(&self, bank: PcrBank, pcr: PcrIndex, digest: &[u8]) -> Result<(), TpmError> {
        let digest = Digest::try_from(digest).map_err(Failure::of("extending one bank"))?;
        self.authorized("extending one bank", move |context, _| {
            let mut digests = DigestValues::new();
            digests.set(algorithm(bank)?, digest);
            context.pcr_extend(PcrHandle::try_from(u32::from(pcr.as_u8()))?, digests)
        })
        .await
    }

    /// Sets a PCR back to zero; TPMs allow it for PCR 16 and 23.
    ///
    /// # Errors
    ///
    /// When the TPM refuses.
    pub async fn reset_pcr(&self, pcr: PcrIndex) -> Result<(), TpmError> {
        self.authorized("resetting a PCR", move |context, _| {
            context.pcr_reset(PcrHandle::try_from(u32::from(pcr.as_u8()))?)
        })
        .await
    }

    /// Has any selection of PCRs signed, of any banks, with any qualifying data.
    ///
    /// # Errors
    ///
    /// When the TPM refuses.
    pub async fn quote_any(
        &self,
        selection: &[(PcrBank, Vec<PcrIndex>)],
        qualifying_data: &[u8],
    ) -> Result<SignedAttestation, TpmError> {
        let mut builder = PcrSelectionList::builder();
        for (bank, pcrs) in selection {
            let slots: Result<Vec<PcrSlot>, _> = pcrs
                .iter()
                .map(|pcr| PcrSlot::try_from(1u32 << pcr.as_u8()))
                .collect();
            let slots = slots.map_err(Failure::of("selecting PCRs"))?;
            builder =
                builder.with_selection(algorithm(*bank).map_err(Failure::of("selecting PCRs"))?, &slots);
        }
        let selection = builder.build().map_err(Failure::of("selecting PCRs"))?;
        let data = data(qualifying_data)?;
        self.authorized("quoting", move |context, key| {
            context
                .quote(key, data, SignatureScheme::Null, selection)
                .and_then(signed)
        })
        .await
    }

    /// Has the attestation key certify itself (`TPM2_Certify`): signed by the right key, and no quote.
    ///
    /// # Errors
    ///
    /// When the TPM refuses.
    pub async fn certify_itself(&self, qualifying_data: &[u8]) -> Result<SignedAttestation, TpmError> {
        let data = data(qualifying_data)?;
        self.doubly_authorized("certifying", move |context, key| {
            context
                .certify(key.into(), key, data, SignatureScheme::Null)
                .and_then(signed)
        })
        .await
    }

    /// Has the time signed (`TPM2_GetTime`): signed by the right key, and no quote.
    ///
    /// # Errors
    ///
    /// When the TPM refuses.
    pub async fn sign_time(&self, qualifying_data: &[u8]) -> Result<SignedAttestation, TpmError> {
        let data = data(qualifying_data)?;
        self.doubly_authorized("signing the time", move |context, key| {
            context
                .get_time(key, data, SignatureScheme::Null)
                .and_then(signed)
        })
        .await
    }

    /// Has any bytes signed by the attestation key, which only one that is not restricted does.
    ///
    /// # Errors
    ///
    /// When the TPM refuses: the key is restricted, and the bytes are not the TPM's.
    pub async fn sign_anything(&self, message: &[u8]) -> Result<Vec<u8>, TpmError> {
        let digest = Digest::try_from(PcrBank::Sha256.hash(&[message])).map_err(Failure::of("signing"))?;
        self.authorized("signing", move |context, key| {
            // The ticket that says nothing about where the digest comes from.
            let ticket = HashcheckTicket::try_from(TPMT_TK_HASHCHECK {
                tag: TPM2_ST_HASHCHECK,
                hierarchy: TPM2_RH_NULL,
                digest: Default::default(),
            })?;
            context
                .sign(key, digest, SignatureScheme::Null, ticket)?
                .marshall()
        })
        .await
    }

    async fn authorized<R: Send + 'static>(
        &self,
        operation: &'static str,
        command: impl FnOnce(&mut Context, KeyHandle) -> tss_esapi::Result<R> + Send + 'static,
    ) -> Result<R, TpmError> {
        self.sessions(operation, None, command).await
    }

    async fn doubly_authorized<R: Send + 'static>(
        &self,
        operation: &'static str,
        command: impl FnOnce(&mut Context, KeyHandle) -> tss_esapi::Result<R> + Send + 'static,
    ) -> Result<R, TpmError> {
        self.sessions(operation, Some(AuthSession::Password), command)
            .await
    }

    async fn sessions<R: Send + 'static>(
        &self,
        operation: &'static str,
        second: Option<AuthSession>,
        command: impl FnOnce(&mut Context, KeyHandle) -> tss_esapi::Result<R> + Send + 'static,
    ) -> Result<R, TpmError> {
        let answer = self
            .tpm
            .with_context(move |context, key| {
                let sessions = (Some(AuthSession::Password), second, None);
                context.execute_with_sessions(sessions, |context| command(context, key))
            })
            .await?;
        Ok(answer.map_err(Failure::of(operation))?)
    }
}

#[async_trait]
impl TpmBackend for SimulatedTpm {
    fn capabilities(&self) -> &TpmCapabilities {
        self.tpm.capabilities()
    }

    async fn clock(&self) -> Result<TpmClock, TpmError> {
        self.tpm.clock().await
    }

    async fn read_pcrs(&self, bank: PcrBank, pcrs: &[PcrIndex]) -> Result<PcrValues, TpmError> {
        self.tpm.read_pcrs(bank, pcrs).await
    }

    async fn extend(&self, pcr: PcrIndex, digests: &BTreeMap<PcrBank, Vec<u8>>) -> Result<(), TpmError> {
        self.tpm.extend(pcr, digests).await
    }

    async fn quote(
        &self,
        bank: PcrBank,
        pcrs: &[PcrIndex],
        qualifying_data: &[u8],
    ) -> Result<Quote, TpmError> {
        self.tpm.quote(bank, pcrs, qualifying_data).await
    }

    async fn attestation_key(&self) -> Result<Option<AttestationKey>, TpmError> {
        self.tpm.attestation_key().await
    }

    async fn boot_event_log(&self) -> Result<Vec<u8>, TpmError> {
        self.tpm.boot_event_log().await
    }
}

/// An honest attestation key that is made, and certified by this CA after credential activation, in whatever TPM is
/// opened with it: for TPMs that something else than [`SimulatedTpm`] runs, such as those of virtual machines.
///
/// The TPM must have no key at the persistent handle `0x81000003` yet.
pub fn certified_key(ca: TestCa, algorithm: KeyAlgorithm) -> KeySource {
    let profile = CertificateProfile::attestation_key(SUBJECT);
    enrolled_key(ca, KeyTemplate::attestation(algorithm), profile, true)
}

fn enrolled_key(ca: TestCa, key: KeyTemplate, profile: CertificateProfile, check_key: bool) -> KeySource {
    KeySource::Provisioned(Box::new(move |context| {
        enroll(context, &ca, &key, &profile, check_key)
    }))
}

/// Makes the keys and has the attestation key certified, as a cloud does when it makes a machine.
fn enroll(
    context: &mut Context,
    ca: &TestCa,
    template: &KeyTemplate,
    profile: &CertificateProfile,
    check_key: bool,
) -> Result<ProvisionedKey, TpmError> {
    let applicant = Applicant::create(context, template)?;
    let (challenge, credential) = ca.challenge(
        &applicant.endorsement_public,
        &applicant.attestation_public,
        check_key,
    )?;
    let answer = applicant.activate(context, credential)?;
    let certificate_chain = ca.conclude(challenge, &answer, profile)?;
    Ok(ProvisionedKey {
        handle: applicant.persist(context, ATTESTATION_KEY_HANDLE)?,
        certificate_chain,
    })
}

fn algorithm(bank: PcrBank) -> tss_esapi::Result<HashingAlgorithm> {
    HashingAlgorithm::try_from(bank.algorithm_id())
}

fn data(qualifying_data: &[u8]) -> Result<Data, Failure> {
    Data::try_from(qualifying_data).map_err(Failure::of("reading qualifying data"))
}

fn signed((attest, signature): (Attest, Signature)) -> tss_esapi::Result<SignedAttestation> {
    Ok(SignedAttestation {
        attest: attest.marshall()?,
        signature: signature.marshall()?,
    })
}
