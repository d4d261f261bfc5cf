//! Making an endorsement key and an attestation key in a TPM, and proving to the CA that they belong together.

use tss_esapi::Context;
use tss_esapi::abstraction::{AsymmetricAlgorithmSelection, ek};
use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::constants::SessionType;
use tss_esapi::handles::{AuthHandle, KeyHandle, PersistentTpmHandle, SessionHandle};
use tss_esapi::interface_types::algorithm::{
    EccSchemeAlgorithm, HashingAlgorithm, PublicAlgorithm, RsaSchemeAlgorithm,
};
use tss_esapi::interface_types::dynamic_handles::Persistent;
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::interface_types::resource_handles::{Hierarchy, Provision};
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{
    EccPoint, EccScheme, EncryptedSecret, IdObject, KeyDerivationFunctionScheme, Public, PublicBuilder,
    PublicEccParametersBuilder, PublicKeyRsa, PublicRsaParametersBuilder, RsaExponent, RsaScheme,
    SymmetricDefinition, SymmetricDefinitionObject,
};
use tss_esapi::traits::Marshall as _;

use crate::activation::Credential;
use crate::config::{KeyAlgorithm, KeyHierarchy, KeyTemplate};
use crate::error::Failure;

/// Where the attestation key is made persistent, so that it survives a reset.
pub(crate) const ATTESTATION_KEY_HANDLE: u32 = 0x8100_0003;

/// The keys of a TPM that wants a certificate.
pub(crate) struct Applicant {
    endorsement_key: KeyHandle,
    attestation_key: KeyHandle,
    /// `TPMT_PUBLIC` of the endorsement key.
    pub(crate) endorsement_public: Vec<u8>,
    /// `TPMT_PUBLIC` of the attestation key.
    pub(crate) attestation_public: Vec<u8>,
}

impl Applicant {
    /// Creates both keys.
    pub(crate) fn create(context: &mut Context, template: &KeyTemplate) -> Result<Self, Failure> {
        let endorsement_key = ek::create_ek_object_2(context, selection(template.algorithm), None)
            .map_err(Failure::of("creating an endorsement key"))?;
        let attestation_key =
            create_key(context, template).map_err(Failure::of("creating an attestation key"))?;
        let mut public = |key| {
            let (public, _, _) = context.read_public(key)?;
            public.marshall()
        };
        Ok(Self {
            endorsement_public: public(endorsement_key).map_err(Failure::of("reading a public area"))?,
            attestation_public: public(attestation_key).map_err(Failure::of("reading a public area"))?,
            endorsement_key,
            attestation_key,
        })
    }

    /// Gets the secret out of a credential (`TPM2_ActivateCredential`).
    pub(crate) fn activate(&self, context: &mut Context, credential: Credential) -> Result<Vec<u8>, Failure> {
        let activate = |context: &mut Context| {
            let blob = IdObject::try_from(credential.id_object)?;
            let secret = EncryptedSecret::try_from(credential.encrypted_secret)?;
            with_endorsement(context, |context, policy| {
                let sessions = (Some(AuthSession::Password), Some(policy), None);
                context.execute_with_sessions(sessions, |context| {
                    context.activate_credential(self.attestation_key, self.endorsement_key, blob, secret)
                })
            })
        };
        let digest = activate(context).map_err(Failure::of("TPM2_ActivateCredential"))?;
        Ok(digest.value().to_vec())
    }

    /// What makes the attestation key again, in this TPM and in this hierarchy: its template, a `TPMT_PUBLIC`.
    pub(crate) fn template(template: &KeyTemplate) -> Result<Vec<u8>, Failure> {
        public_template(template)
            .and_then(|public| public.marshall())
            .map_err(Failure::of("writing the template of the attestation key"))
    }

    /// Unloads the endorsement key alone.
    pub(crate) fn keep_loaded(self, context: &mut Context) -> Result<KeyHandle, Failure> {
        context
            .flush_context(self.endorsement_key.into())
            .map_err(Failure::of("TPM2_FlushContext"))?;
        Ok(self.attestation_key)
    }

    /// Makes the attestation key persistent at `handle`, and unloads both keys.
    pub(crate) fn persist(self, context: &mut Context, handle: u32) -> Result<KeyHandle, Failure> {
        let persist = |context: &mut Context| {
            let handle = Persistent::Persistent(PersistentTpmHandle::new(handle)?);
            let persistent = context.execute_with_session(Some(AuthSession::Password), |context| {
                context.evict_control(Provision::Owner, self.attestation_key.into(), handle)
            })?;
            context.flush_context(self.attestation_key.into())?;
            context.flush_context(self.endorsement_key.into())?;
            Ok(persistent.into())
        };
        persist(context).map_err(Failure::of("making the attestation key persistent"))
    }
}

fn selection(algorithm: KeyAlgorithm) -> AsymmetricAlgorithmSelection {
    match algorithm {
        KeyAlgorithm::EccP256 => AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP256),
        KeyAlgorithm::Rsa2048 => AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048),
    }
}

/// As a primary key, so that its qualified name follows from its public area and the hierarchy alone.
fn create_key(context: &mut Context, template: &KeyTemplate) -> tss_esapi::Result<KeyHandle> {
    let public = public_template(template)?;
    let hierarchy = match template.hierarchy {
        KeyHierarchy::Owner => Hierarchy::Owner,
        KeyHierarchy::Endorsement => Hierarchy::Endorsement,
    };
    context
        .execute_with_session(Some(AuthSession::Password), |context| {
            context.create_primary(hierarchy, public, None, None, None, None)
        })
        .map(|created| created.key_handle)
}

/// Does something with a policy session that the endorsement key accepts: its policy is that the endorsement
/// hierarchy's password is known (TCG EK Credential Profile 2.5, annex B, PolicyA).
fn with_endorsement<R>(
    context: &mut Context,
    commands: impl FnOnce(&mut Context, AuthSession) -> tss_esapi::Result<R>,
) -> tss_esapi::Result<R> {
    let session = context
        .start_auth_session(
            None,
            None,
            None,
            SessionType::Policy,
            SymmetricDefinition::AES_128_CFB,
            HashingAlgorithm::Sha256,
        )?
        .ok_or(tss_esapi::Error::WrapperError(
            tss_esapi::WrapperErrorKind::WrongValueFromTpm,
        ))?;
    let run = |context: &mut Context| {
        let policy = PolicySession::try_from(session)?;
        context.execute_with_session(Some(AuthSession::Password), |context| {
            context.policy_secret(
                policy,
                AuthHandle::Endorsement,
                Default::default(),
                Default::default(),
                Default::default(),
                None,
            )
        })?;
        commands(context, session)
    };
    let result = run(context);
    context.flush_context(SessionHandle::from(session).into())?;
    result
}

fn public_template(template: &KeyTemplate) -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_restricted(template.restricted)
        .with_fixed_tpm(template.fixed)
        .with_fixed_parent(template.fixed)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_sign_encrypt(true)
        // A TPM that is switched off often must not lock itself.
        .with_no_da(true)
        .build()?;
    let builder = PublicBuilder::new()
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes);
    match template.algorithm {
        KeyAlgorithm::EccP256 => builder
            .with_public_algorithm(PublicAlgorithm::Ecc)
            .with_ecc_parameters(
                PublicEccParametersBuilder::new()
                    .with_symmetric(SymmetricDefinitionObject::Null)
                    .with_ecc_scheme(EccScheme::create(
                        EccSchemeAlgorithm::EcDsa,
                        Some(HashingAlgorithm::Sha256),
                        None,
                    )?)
                    .with_curve(EccCurve::NistP256)
                    .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
                    .with_is_signing_key(true)
                    .with_restricted(template.restricted)
                    .build()?,
            )
            .with_ecc_unique_identifier(EccPoint::default()),
        KeyAlgorithm::Rsa2048 => builder
            .with_public_algorithm(PublicAlgorithm::Rsa)
            .with_rsa_parameters(
                PublicRsaParametersBuilder::new()
                    .with_scheme(RsaScheme::create(
                        RsaSchemeAlgorithm::RsaSsa,
                        Some(HashingAlgorithm::Sha256),
                    )?)
                    .with_key_bits(RsaKeyBits::Rsa2048)
                    .with_exponent(RsaExponent::default())
                    .with_is_signing_key(true)
                    .with_restricted(template.restricted)
                    .build()?,
            )
            .with_rsa_unique_identifier(PublicKeyRsa::default()),
    }
    .build()
}
