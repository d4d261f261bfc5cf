//! Attestation keys that platforms have put into the TPM: a persistent key, or the template of a primary key, with the
//! certificate in another index of the TPM's memory.

use aicert_core::attestation::KeyLocation;
use tss_esapi::Context;
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::Public;
use tss_esapi::traits::{Marshall as _, UnMarshall as _};

use crate::config::ProvisionedKey;
use crate::error::Failure;
use crate::worker::{Patience, Repeat};
use crate::{certificate, key, nv};

/// Finds the key, and the index that its certificate was in.
pub(crate) fn find(
    context: &mut Context,
    location: KeyLocation,
    issuers: Vec<Vec<u8>>,
    patience: Patience,
) -> Result<(ProvisionedKey, u32), Failure> {
    let (handle, index) = match location {
        KeyLocation::Template {
            template,
            certificate,
        } => (create_from(context, template, patience)?, certificate),
        KeyLocation::Persistent { handle, certificate } => {
            (key::find_persistent(context, handle)?, certificate)
        }
        other => {
            return Err(Failure::Unsupported {
                what: format!("the attestation key cannot be looked for at {other:?}"),
                advice: "use a release of aicert that knows this place",
            });
        }
    };
    let content = "the certificate of the attestation key (X.509, DER)";
    let mut leaf = nv::read(context, index, content, patience)?;
    let length = certificate::length(&leaf).map_err(|why| Failure::Unsupported {
        what: format!("NV index {index:#010x} of this TPM has no certificate of the attestation key: {why}"),
        advice: "name the NV index where the platform keeps the certificate",
    })?;
    // Azure's index is larger than the certificate.
    leaf.truncate(length);
    let certificate_chain = [leaf].into_iter().chain(issuers).collect();
    let key = ProvisionedKey {
        handle,
        certificate_chain,
    };
    Ok((key, index))
}

/// Makes the primary key of the endorsement hierarchy that belongs to the template in an index: the same each time, as
/// long as the hierarchy's seed is the same (TPM 2.0 Library, part 1, section 14.4).
fn create_from(context: &mut Context, index: u32, patience: Patience) -> Result<KeyHandle, Failure> {
    const OPERATION: &str = "TPM2_CreatePrimary of the attestation key";
    let template = nv::read(
        context,
        index,
        "the template of the attestation key (TPMT_PUBLIC)",
        patience,
    )?;
    let wrong = |why: String| Failure::Unsupported {
        what: format!("NV index {index:#010x} of this TPM has no template of an attestation key: {why}"),
        advice: "name the NV index where the platform keeps the template, a TPMT_PUBLIC",
    };
    let public = Public::unmarshall(&template).map_err(|error| wrong(error.to_string()))?;
    let read = public.marshall().map_err(|error| wrong(error.to_string()))?;
    // Another template would make another key.
    if !template.starts_with(&read) {
        return Err(wrong("the TSS does not read it as it was written".to_owned()));
    }
    let created = patience.insist(OPERATION, Repeat::Harmless, || {
        context.execute_with_session(Some(AuthSession::Password), |context| {
            context.create_primary(Hierarchy::Endorsement, public.clone(), None, None, None, None)
        })
    })?;
    Ok(created.key_handle)
}

/// Requires that a certificate is that of a key.
pub(crate) fn require_certified(public: &Public, certificate: &[u8], index: u32) -> Result<(), Failure> {
    certificate::require_key(certificate, public).map_err(|why| Failure::Unsupported {
        what: format!("the certificate in NV index {index:#010x} of this TPM is not that of its attestation key: {why}"),
        advice: "use another machine: this one's TPM was cleared, or its key replaced, after the platform had \
                 certified the key",
    })
}
