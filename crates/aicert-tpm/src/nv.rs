//! Reading the TPM's non-volatile memory.

use tss_esapi::Context;
use tss_esapi::attributes::NvIndexAttributes;
use tss_esapi::constants::PropertyTag;
use tss_esapi::constants::response_code::Tss2ResponseCodeKind;
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle, ObjectHandle, TpmHandle};
use tss_esapi::interface_types::resource_handles::NvAuth;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::MaxNvBuffer;

use crate::error::Failure;
use crate::worker::{Patience, Repeat};

const OPERATION: &str = "TPM2_NV_Read";

/// The largest index that is read; certificates of attestation keys have some 1,500 bytes.
const LIMIT: usize = 16 << 10;

const ADVICE: &str = "use a machine whose platform certifies an attestation key (a cloud's with a virtual TPM, or \
                      aicert's own in QEMU), and name the NV indices where it keeps key and certificate";

/// The same for the indices that Compute Engine uses ("Confidential VM vTPM non-volatile storage contents", Confidential
/// VM's documentation, and go-tpm-tools, `client/handles.go`).
const ADVICE_GCE: &str = "on Compute Engine, set `confidential: true`, as its documentation knows of certified keys on \
                          confidential machines alone; elsewhere, use a machine whose platform certifies an attestation \
                          key, and name the NV indices where it keeps key and certificate";
const GCE: std::ops::RangeInclusive<u32> = 0x01c1_0000..=0x01c1_0003;

/// Reads a whole index; `content` says in words what is expected there.
///
/// It is read with the empty password of the owner where the index allows that, which is how clouds define theirs, and
/// with its own empty password otherwise.
pub(crate) fn read(
    context: &mut Context,
    index: u32,
    content: &str,
    patience: Patience,
) -> Result<Vec<u8>, Failure> {
    let expected = |what: String| Failure::Unsupported {
        what: format!("{what}: expected {content} there"),
        advice: if GCE.contains(&index) { ADVICE_GCE } else { ADVICE },
    };
    let named = NvIndexTpmHandle::new(index).map_err(|_| {
        expected(format!(
            "{index:#010x} is no NV index, which go from 0x01000000 to 0x01ffffff"
        ))
    })?;
    let handle = patience
        .insist("TPM2_NV_ReadPublic", Repeat::Harmless, || {
            context.tr_from_tpm_public(TpmHandle::NvIndex(named))
        })
        .map_err(|failure| match failure {
            Failure::Tss { source, .. } if is_missing(&source) => {
                expected(format!("this TPM has no NV index {index:#010x}"))
            }
            other => other,
        })?;
    let (public, _) = patience.insist("TPM2_NV_ReadPublic", Repeat::Harmless, || {
        context.nv_read_public(NvIndexHandle::from(handle))
    })?;
    let size = public.data_size();
    if !public.attributes().written() || size == 0 {
        return Err(expected(format!(
            "NV index {index:#010x} of this TPM has never been written"
        )));
    }
    if size > LIMIT {
        return Err(expected(format!(
            "NV index {index:#010x} of this TPM has {size} bytes, more than {LIMIT}"
        )));
    }
    let authorization = authorization(public.attributes(), handle)
        .ok_or_else(|| expected(format!("NV index {index:#010x} of this TPM can be read neither by the owner nor with a password of its own")))?;
    read_pieces(context, authorization, handle, size, patience)
}

fn authorization(attributes: NvIndexAttributes, handle: ObjectHandle) -> Option<NvAuth> {
    if attributes.owner_read() {
        Some(NvAuth::Owner)
    } else if attributes.auth_read() {
        Some(NvAuth::NvIndex(handle.into()))
    } else {
        None
    }
}

pub(crate) fn read_pieces(
    context: &mut Context,
    authorization: NvAuth,
    handle: ObjectHandle,
    size: usize,
    patience: Patience,
) -> Result<Vec<u8>, Failure> {
    let largest = context
        .get_tpm_property(PropertyTag::NvBufferMax)
        .map_err(Failure::of("TPM2_GetCapability(TPM_PT_NV_BUFFER_MAX)"))?
        .and_then(|largest| usize::try_from(largest).ok())
        .filter(|largest| *largest > 0)
        .unwrap_or(MaxNvBuffer::MAX_SIZE)
        .min(MaxNvBuffer::MAX_SIZE);
    let mut data = Vec::with_capacity(size);
    while data.len() < size {
        // Both are at most some KiB, which fits.
        let (offset, length) = (data.len() as u16, largest.min(size - data.len()) as u16);
        let piece = patience.insist(OPERATION, Repeat::Harmless, || {
            context.execute_with_session(Some(AuthSession::Password), |context| {
                context.nv_read(authorization, handle.into(), length, offset)
            })
        })?;
        if piece.value().len() != usize::from(length) {
            return Err(Failure::nonsense(
                OPERATION,
                format!("{} bytes where {length} were asked for", piece.value().len()),
            ));
        }
        data.extend_from_slice(piece.value());
    }
    Ok(data)
}

/// `TPM_RC_HANDLE`: the handle is not correct for the use (TPM 2.0 Library, part 2, section 6.6.3), which for
/// `TPM2_NV_ReadPublic` means that the index is not defined.
pub(crate) fn is_missing(error: &tss_esapi::Error) -> bool {
    matches!(error, tss_esapi::Error::Tss2Error(code) if code.kind() == Some(Tss2ResponseCodeKind::Handle))
}
