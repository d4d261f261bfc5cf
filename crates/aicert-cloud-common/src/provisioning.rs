//! What a machine is told before it boots.

use aicert_core::attestation::{KeyLocation, PROVISIONING_LIMIT, Provisioning};
use aicert_core::certificate::Base64;
use aicert_core::cloud::{CloudError, CloudErrorKind, MachineRequest};

/// The document of a machine, for the cloud's user data or metadata.
///
/// # Errors
///
/// When nobody is named who may use the machine, or when the certificates make the document larger than machines read.
pub fn provisioning_document(
    request: &MachineRequest,
    provider: &str,
    instance_type: &str,
    region: &str,
    attestation_key: KeyLocation,
    issuers: &[Vec<u8>],
) -> Result<String, CloudError> {
    let client = request.client.ok_or_else(|| {
        CloudError::new(
            CloudErrorKind::Unsupported,
            "nobody was named who may use the machine's server",
        )
        .with_advice("give the digest of the client's certificate along")
    })?;
    let document = Provisioning {
        client,
        provider: provider.into(),
        instance_type: instance_type.into(),
        region: region.into(),
        attestation_key,
        issuers: issuers.iter().cloned().map(Base64).collect(),
        idle_seconds: request.idle.as_secs(),
        lifetime_seconds: request.lifetime.map(|lifetime| lifetime.as_secs()),
    };
    let text = serde_json::to_string(&document).map_err(|error| {
        CloudError::new(CloudErrorKind::Failed, "could not write the machine's orders").with_source(error)
    })?;
    if text.len() > PROVISIONING_LIMIT {
        return Err(CloudError::new(
            CloudErrorKind::Unsupported,
            format!(
                "the certificates in `issuers` make {} bytes; a machine reads {PROVISIONING_LIMIT}",
                text.len()
            ),
        )
        .with_advice("name only the certificates between that of the attestation key and the root"));
    }
    Ok(text)
}
