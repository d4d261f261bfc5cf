//! Quotes, and what is checked of them before they are believed.

use std::collections::BTreeSet;

use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues, Quote, TpmClock};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Attest, AttestInfo, Data, Digest, Signature, SignatureScheme};
use tss_esapi::traits::Marshall as _;

use crate::error::Failure;
use crate::key::SigningKey;
use crate::pcr;
use crate::worker::{Patience, Repeat, Session, Signer};

const OPERATION: &str = "TPM2_Quote";

/// What is signed to learn the clock; no qualifying data of a job has this length.
const CLOCK_PURPOSE: &[u8] = b"aicert clock";

/// Reads PCRs and has their values signed, until both agree.
pub(crate) fn quote(
    session: &mut Session,
    patience: Patience,
    bank: PcrBank,
    pcrs: &BTreeSet<PcrIndex>,
    qualifying_data: &[u8],
) -> Result<Quote, Failure> {
    if let Signer::Nitro(nitro) = &session.signer {
        return nitro.quote(&mut session.context, patience, bank, pcrs, qualifying_data);
    }
    if pcrs.is_empty() {
        return Err(Failure::Unsupported {
            what: "a quote of no PCRs was asked for".into(),
            advice: "name at least one PCR",
        });
    }
    for _ in 0..pcr::ATTEMPTS {
        let values = pcr::read(session, patience, bank, pcrs)?;
        let (attest, signature) = sign(session, patience, bank, pcrs, qualifying_data)?;
        if covers(&attest, &values, session.key()?.hash)? {
            let (attest, signature) = authentic(session, patience, &attest, signature)?;
            return Ok(Quote {
                bank,
                pcrs: values,
                attest,
                signature,
            });
        }
    }
    Err(Failure::Unstable {
        attempts: pcr::ATTEMPTS,
    })
}

/// Reads the clock and the boot counters as the attestation key's signatures show them.
///
/// `TPM2_ReadClock` would not do: in what a key outside the endorsement and platform hierarchies signs, the counters
/// are obfuscated with a value of that key's own (TPM 2.0 Library, part 2, `TPMS_ATTEST`), so they could not be compared
/// with those in a quote.
pub(crate) fn clock(session: &mut Session, patience: Patience) -> Result<TpmClock, Failure> {
    if let Signer::Nitro(nitro) = &session.signer {
        return nitro.clock(patience);
    }
    let bank = *session
        .banks
        .first()
        .ok_or_else(|| Failure::nonsense(OPERATION, "no bank"))?;
    let pcrs = PcrIndex::new(0).into_iter().collect();
    let (attest, _) = sign(session, patience, bank, &pcrs, CLOCK_PURPOSE)?;
    let info = attest.clock_info();
    Ok(TpmClock {
        clock: info.clock(),
        reset_count: info.reset_count().into(),
        restart_count: info.restart_count().into(),
    })
}

/// Has the TPM sign, and checks that it signed what it was asked to.
fn sign(
    session: &mut Session,
    patience: Patience,
    bank: PcrBank,
    pcrs: &BTreeSet<PcrIndex>,
    qualifying_data: &[u8],
) -> Result<(Attest, Signature), Failure> {
    let selection = pcr::selection(bank, pcrs)?;
    let data = Data::try_from(qualifying_data).map_err(Failure::of(OPERATION))?;
    let key = session.key()?.handle;
    let (attest, signature) = patience.insist(OPERATION, Repeat::Harmless, || {
        session
            .context
            .execute_with_session(Some(AuthSession::Password), |context| {
                // Null: the key's own scheme.
                context.quote(key, data.clone(), SignatureScheme::Null, selection.clone())
            })
    })?;
    let AttestInfo::Quote { info } = attest.attested() else {
        return Err(Failure::nonsense(OPERATION, "an attestation that is no quote"));
    };
    if pcr::selected(info.pcr_selection(), bank) != pcrs.iter().copied().collect::<Vec<_>>() {
        return Err(Failure::nonsense(OPERATION, "other PCRs than were asked for"));
    }
    if attest.extra_data().value() != qualifying_data {
        return Err(Failure::nonsense(
            OPERATION,
            "other qualifying data than was given",
        ));
    }
    Ok((attest, signature))
}

/// Whether what was signed are these values.
fn covers(attest: &Attest, values: &PcrValues, hash: PcrBank) -> Result<bool, Failure> {
    let AttestInfo::Quote { info } = attest.attested() else {
        return Err(Failure::nonsense(OPERATION, "an attestation that is no quote"));
    };
    // The digest is over the values in ascending order (TPM 2.0 Library, part 3, `TPM2_Quote`), which is the map's.
    let values: Vec<&[u8]> = values.0.values().map(Vec::as_slice).collect();
    Ok(info.pcr_digest().value() == hash.hash(&values))
}

/// Writes both structures as bytes, and has the TPM verify that the signature is over exactly these bytes.
///
/// The TSS gives us its own parsed form; that writing it again yields what the TPM signed must not be taken on trust.
fn authentic(
    session: &mut Session,
    patience: Patience,
    attest: &Attest,
    signature: Signature,
) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let attest = attest.marshall().map_err(Failure::of(OPERATION))?;
    let SigningKey { hash, handle, .. } = *session.key()?;
    let digest = Digest::try_from(hash.hash(&[&attest])).map_err(Failure::of(OPERATION))?;
    let (context, key) = (&mut session.context, handle);
    patience.insist("TPM2_VerifySignature of a quote", Repeat::Harmless, || {
        context.verify_signature(key, digest.clone(), signature.clone())
    })?;
    let signature = signature.marshall().map_err(Failure::of(OPERATION))?;
    Ok((attest, signature))
}
