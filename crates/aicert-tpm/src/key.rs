//! The attestation key: finding it, and what must be known about it.

use aicert_core::tpm::{AttestationKey, PcrBank, TpmError};
use tss_esapi::Context;
use tss_esapi::handles::{KeyHandle, ObjectHandle, PersistentTpmHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::structures::{EccScheme, Public, RsaScheme};
use tss_esapi::traits::Marshall as _;

use crate::config::{KeySource, ProvisionedKey};
use crate::error::Failure;
use crate::platform;
use crate::worker::{Patience, Repeat};

/// A loaded key that quotes can be signed with.
pub(crate) struct SigningKey {
    pub(crate) handle: KeyHandle,
    /// The hash of its signing scheme, which is also that of the digest over quoted PCRs.
    pub(crate) hash: PcrBank,
    pub(crate) evidence: AttestationKey,
}

/// Finds the key and reads its public area.
pub(crate) fn load(
    context: &mut Context,
    source: KeySource,
    patience: Patience,
) -> Result<SigningKey, TpmError> {
    let (key, certificate_index) = match source {
        KeySource::Persistent {
            handle,
            certificate_chain,
        } => {
            let handle = find_persistent(context, handle)?;
            (
                ProvisionedKey {
                    handle,
                    certificate_chain,
                },
                None,
            )
        }
        KeySource::Platform { location, issuers } => {
            let (key, index) = platform::find(context, location, issuers, patience)?;
            (key, Some(index))
        }
        KeySource::Provisioned(provision) => (provision(context)?, None),
    };
    let ProvisionedKey {
        handle,
        certificate_chain,
    } = key;
    let (public, name, _) = patience.insist("TPM2_ReadPublic", Repeat::Harmless, || {
        context.read_public(handle)
    })?;
    if let (Some(index), Some(certificate)) = (certificate_index, certificate_chain.first()) {
        platform::require_certified(&public, certificate, index)?;
    }
    let hash = signing_hash(&public)?;
    let public = public.marshall().map_err(Failure::of("TPM2_ReadPublic"))?;
    // An object's name is the hash of its public area (TPM 2.0 Library, part 1, section 16): if it is not that of the
    // bytes that we are going to show, they are not the TPM's.
    let expected = [
        &PcrBank::Sha256.algorithm_id().to_be_bytes()[..],
        &PcrBank::Sha256.hash(&[&public]),
    ]
    .concat();
    if name.value() != expected {
        return Err(Failure::nonsense(
            "TPM2_ReadPublic",
            "the key's name is not the hash of its public area",
        )
        .into());
    }
    Ok(SigningKey {
        handle,
        hash,
        evidence: AttestationKey {
            public,
            certificate_chain,
        },
    })
}

pub(crate) fn find_persistent(context: &mut Context, handle: u32) -> Result<KeyHandle, Failure> {
    let missing = |what: String| Failure::Unsupported {
        what,
        advice: "create an attestation key with a certificate and make it persistent, or name the handle where the \
                 platform keeps its own",
    };
    let persistent = PersistentTpmHandle::new(handle).map_err(|_| {
        missing(format!(
            "{handle:#x} is no persistent handle: expected 0x81000000 to 0x81ffffff"
        ))
    })?;
    context
        .tr_from_tpm_public(TpmHandle::Persistent(persistent))
        .map(|object: ObjectHandle| object.into())
        .map_err(|error| {
            missing(format!(
                "there is no attestation key at {handle:#x} in this TPM: {error}"
            ))
        })
}

/// The hash of the key's own signing scheme, if it is a key that quotes can be signed and verified with.
fn signing_hash(public: &Public) -> Result<PcrBank, Failure> {
    let sha256 = |hash| hash == HashingAlgorithm::Sha256;
    let supported = sha256(public.name_hashing_algorithm())
        && match public {
            Public::Rsa { parameters, .. } => {
                parameters.key_bits() == RsaKeyBits::Rsa2048
                    && matches!(parameters.rsa_scheme(), RsaScheme::RsaSsa(scheme) if sha256(scheme.hashing_algorithm()))
            }
            Public::Ecc { parameters, .. } => {
                parameters.ecc_curve() == EccCurve::NistP256
                    && matches!(parameters.ecc_scheme(), EccScheme::EcDsa(scheme) if sha256(scheme.hashing_algorithm()))
            }
            _ => false,
        };
    if supported {
        Ok(PcrBank::Sha256)
    } else {
        Err(Failure::Unsupported {
            what: format!("the attestation key cannot be used: {}", describe(public)),
            advice: "use an ECC P-256 key with ECDSA and SHA-256, or an RSA-2048 key with RSASSA and SHA-256",
        })
    }
}

fn describe(public: &Public) -> String {
    let name = public.name_hashing_algorithm();
    match public {
        Public::Rsa { parameters, .. } => format!(
            "RSA {:?}, scheme {:?}, name hash {name:?}",
            parameters.key_bits(),
            parameters.rsa_scheme()
        ),
        Public::Ecc { parameters, .. } => format!(
            "ECC {:?}, scheme {:?}, name hash {name:?}",
            parameters.ecc_curve(),
            parameters.ecc_scheme()
        ),
        _ => "it is not an asymmetric key".into(),
    }
}
