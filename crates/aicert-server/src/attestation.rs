//! Evidence of what has booted, and of who holds the key of this connection.

use aicert_core::api::{Attestation, ProblemCode, attestation_qualifying_data};
use aicert_core::certificate::{Base64, LowLevelQuote};
use aicert_core::digest::{Nonce, TlsKeyDigest};
use aicert_core::tpm::{PcrIndex, Quote, TpmBackend, TpmError};

use crate::VERSION;
use crate::problem::Refusal;

/// Has the TPM sign. A job that runs is not disturbed: the TPM serves one after the other, and nothing is extended.
pub(crate) async fn attest(
    tpm: &dyn TpmBackend,
    tls_key: TlsKeyDigest,
    nonce: Nonce,
) -> Result<Attestation, Refusal> {
    let Some(bank) = tpm.capabilities().quoted_bank() else {
        return Err(Refusal::new(
            ProblemCode::Failed,
            "the TPM of this machine has no active bank that could be quoted",
        )
        .advice(
            "enable that of SHA-256 in the firmware's TPM settings; a NitroTPM must have that of SHA-384",
        ));
    };
    let pcrs: Vec<_> = PcrIndex::quoted().collect();
    let data = attestation_qualifying_data(&tls_key, &nonce);
    let Quote {
        bank,
        pcrs,
        attest,
        signature,
    } = tpm.quote(bank, &pcrs, &data).await.map_err(tpm_refusal)?;
    let key = tpm.attestation_key().await.map_err(tpm_refusal)?;
    let boot_event_log = tpm.boot_event_log().await.map_err(tpm_refusal)?;
    Ok(Attestation {
        tls_key,
        quote: LowLevelQuote {
            bank,
            pcrs,
            attest: Base64(attest),
            nonce,
        },
        signature: Base64(signature),
        attestation_key: key.map(Into::into).unwrap_or_default(),
        boot_event_log: Base64(boot_event_log),
        server_version: VERSION.into(),
    })
}

/// Refuses when something was measured since the machine started that only a job measures.
pub(crate) async fn require_fresh(tpm: &dyn TpmBackend) -> Result<(), Refusal> {
    for bank in &tpm.capabilities().banks {
        let values = tpm
            .read_pcrs(*bank, &[PcrIndex::INPUTS, PcrIndex::OUTPUTS])
            .await
            .map_err(tpm_refusal)?;
        if let Some((pcr, _)) = values
            .0
            .iter()
            .find(|(_, value)| value.iter().any(|byte| *byte != 0))
        {
            return Err(Refusal::new(
                ProblemCode::Occupied,
                format!(
                    "PCR {pcr} of the {bank} bank is not zero: something was measured into it since the machine started, so that no job can be certified"
                ),
            )
            .advice("use a fresh machine: one job can be certified per boot"));
        }
    }
    Ok(())
}

fn tpm_refusal(error: TpmError) -> Refusal {
    Refusal::new(ProblemCode::Failed, error.message())
        .maybe_advice(error.advice())
        .internal(chain(&error))
}

/// An error with its causes, for the log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
