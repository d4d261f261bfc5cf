//! Reading and extending PCRs.

use std::collections::{BTreeMap, BTreeSet};

use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues};
use tss_esapi::Context;
use tss_esapi::constants::CapabilityType;
use tss_esapi::handles::PcrHandle;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    CapabilityData, Digest, DigestValues, PcrSelectSize, PcrSelection, PcrSelectionList, PcrSlot,
};

use crate::error::Failure;
use crate::worker::{Patience, Repeat, Session};

/// How often PCRs are read again because they changed in between.
pub(crate) const ATTEMPTS: u32 = 16;

/// The banks that this TPM has PCRs in.
pub(crate) fn active_banks(context: &mut Context, patience: Patience) -> Result<Vec<PcrBank>, Failure> {
    const OPERATION: &str = "TPM2_GetCapability(TPM_CAP_PCRS)";
    let (capability, more) = patience.insist(OPERATION, Repeat::Harmless, || {
        context.get_capability(CapabilityType::AssignedPcr, 0, 1)
    })?;
    let CapabilityData::AssignedPcr(selections) = capability else {
        return Err(Failure::nonsense(OPERATION, "another capability"));
    };
    if more {
        return Err(Failure::nonsense(OPERATION, "a list of banks that does not end"));
    }
    judge_banks(selections.get_selections())
}

fn judge_banks(selections: &[PcrSelection]) -> Result<Vec<PcrBank>, Failure> {
    const ADVICE: &str =
        "activate the SHA-256 bank alone, in the firmware's settings or with `tpm2_pcrallocate`";
    let mut banks = BTreeSet::new();
    for selection in selections.iter().filter(|selection| !selection.is_empty()) {
        let algorithm = selection.hashing_algorithm();
        let Some(bank) = PcrBank::ALL
            .into_iter()
            .find(|bank| self::algorithm(*bank) == Some(algorithm))
        else {
            return Err(Failure::Unsupported {
                what: format!(
                    "the PCR bank {algorithm:?} is active, which cannot be extended here; a bank that is not extended \
                     can be forged"
                ),
                advice: ADVICE,
            });
        };
        let missing = (0..24)
            .filter_map(slot)
            .filter(|slot| !selection.is_selected(*slot))
            .count();
        if missing > 0 {
            return Err(Failure::Unsupported {
                what: format!("the PCR bank {bank} lacks {missing} of the 24 PCRs"),
                advice: ADVICE,
            });
        }
        banks.insert(bank);
    }
    if banks.is_empty() {
        return Err(Failure::Unsupported {
            what: "this TPM has no active PCR bank".into(),
            advice: ADVICE,
        });
    }
    // The order of the enumeration is that of the algorithm ids.
    Ok(banks.into_iter().collect())
}

/// Reads PCRs until all are read in one state of the TPM.
pub(crate) fn read(
    session: &mut Session,
    patience: Patience,
    bank: PcrBank,
    pcrs: &BTreeSet<PcrIndex>,
) -> Result<PcrValues, Failure> {
    require_active(session, bank)?;
    for _ in 0..ATTEMPTS {
        if let Some(values) = read_once(session, patience, bank, pcrs)? {
            return Ok(PcrValues(values));
        }
    }
    Err(Failure::Unstable { attempts: ATTEMPTS })
}

/// Reads PCRs in as many commands as it takes; nothing when some PCR changed meanwhile.
fn read_once(
    session: &mut Session,
    patience: Patience,
    bank: PcrBank,
    pcrs: &BTreeSet<PcrIndex>,
) -> Result<Option<BTreeMap<PcrIndex, Vec<u8>>>, Failure> {
    const OPERATION: &str = "TPM2_PCR_Read";
    let context = &mut session.context;
    let mut values = BTreeMap::new();
    let mut state = None;
    let mut missing = pcrs.clone();
    while !missing.is_empty() {
        let wanted = selection(bank, &missing)?;
        let (counter, answered, digests) =
            patience.insist(OPERATION, Repeat::Harmless, || context.pcr_read(wanted.clone()))?;
        if *state.get_or_insert(counter) != counter {
            return Ok(None);
        }
        let answered: Vec<PcrIndex> = selected(&answered, bank);
        if answered.is_empty() || answered.len() != digests.len() {
            return Err(Failure::nonsense(
                OPERATION,
                format!(
                    "{} values for {} PCRs of bank {bank}",
                    digests.len(),
                    answered.len()
                ),
            ));
        }
        for (pcr, digest) in answered.into_iter().zip(digests.value()) {
            if !missing.remove(&pcr) || digest.value().len() != bank.digest_len() {
                return Err(Failure::nonsense(
                    OPERATION,
                    format!("{} bytes for PCR {pcr} of bank {bank}", digest.value().len()),
                ));
            }
            values.insert(pcr, digest.value().to_vec());
        }
    }
    Ok(Some(values))
}

/// Extends a PCR in all banks with one command.
pub(crate) fn extend(
    session: &mut Session,
    patience: Patience,
    pcr: PcrIndex,
    digests: &BTreeMap<PcrBank, Vec<u8>>,
) -> Result<(), Failure> {
    const OPERATION: &str = "TPM2_PCR_Extend";
    let values = check_digests(&session.banks, digests)?;
    // ESYS numbers its handles of PCRs like the PCRs themselves.
    let handle = PcrHandle::try_from(u32::from(pcr.as_u8())).map_err(Failure::of(OPERATION))?;
    patience.insist(OPERATION, Repeat::Never, || {
        // A password session (the password is empty) costs nothing; an HMAC session would be two commands more, for
        // integrity on a bus whose other end is trusted.
        session
            .context
            .execute_with_session(Some(AuthSession::Password), |context| {
                context.pcr_extend(handle, values.clone())
            })
    })
}

/// Requires one digest of the right length for each active bank, and no other.
fn check_digests(banks: &[PcrBank], digests: &BTreeMap<PcrBank, Vec<u8>>) -> Result<DigestValues, Failure> {
    let refuse = |what| Failure::WrongDigests { what };
    if let Some(bank) = digests.keys().find(|bank| !banks.contains(bank)) {
        return Err(refuse(format!(
            "there is a digest for bank {bank}, which is not active"
        )));
    }
    let mut values = DigestValues::new();
    for &bank in banks {
        let digest = digests
            .get(&bank)
            .ok_or_else(|| refuse(format!("the digest for the active bank {bank} is missing")))?;
        if digest.len() != bank.digest_len() {
            return Err(refuse(format!(
                "the digest for bank {bank} has {} bytes: expected {}",
                digest.len(),
                bank.digest_len()
            )));
        }
        let digest = Digest::try_from(digest.as_slice()).map_err(Failure::of("TPM2_PCR_Extend"))?;
        values.set(known(bank)?, digest);
    }
    Ok(values)
}

/// The TSS's selection of some PCRs of one bank.
pub(crate) fn selection(bank: PcrBank, pcrs: &BTreeSet<PcrIndex>) -> Result<PcrSelectionList, Failure> {
    let slots: Vec<PcrSlot> = pcrs.iter().filter_map(|pcr| slot(pcr.as_u8())).collect();
    PcrSelectionList::builder()
        .with_size_of_select(PcrSelectSize::ThreeOctets)
        .with_selection(known(bank)?, &slots)
        .build()
        .map_err(Failure::of("selecting PCRs"))
}

/// The PCRs of a selection that is of `bank` alone, ascending; none when there is another bank in it.
pub(crate) fn selected(selections: &PcrSelectionList, bank: PcrBank) -> Vec<PcrIndex> {
    match selections.get_selections() {
        [selection] if Some(selection.hashing_algorithm()) == algorithm(bank) => (0..24)
            .filter(|index| slot(*index).is_some_and(|slot| selection.is_selected(slot)))
            .filter_map(PcrIndex::new)
            .collect(),
        _ => Vec::new(),
    }
}

pub(crate) fn require_active(session: &Session, bank: PcrBank) -> Result<(), Failure> {
    if session.banks.contains(&bank) {
        return Ok(());
    }
    let active: Vec<_> = session.banks.iter().map(ToString::to_string).collect();
    Err(Failure::InactiveBank {
        bank,
        active: active.join(", "),
    })
}

fn known(bank: PcrBank) -> Result<HashingAlgorithm, Failure> {
    algorithm(bank).ok_or_else(|| Failure::Unsupported {
        what: format!("the PCR bank {bank} is not supported with this TSS"),
        advice: "activate the SHA-256 bank alone",
    })
}

fn algorithm(bank: PcrBank) -> Option<HashingAlgorithm> {
    match bank {
        PcrBank::Sha1 => Some(HashingAlgorithm::Sha1),
        PcrBank::Sha256 => Some(HashingAlgorithm::Sha256),
        PcrBank::Sha384 => Some(HashingAlgorithm::Sha384),
        PcrBank::Sha512 => Some(HashingAlgorithm::Sha512),
        _ => None,
    }
}

fn slot(index: u8) -> Option<PcrSlot> {
    PcrSlot::try_from(1u32.checked_shl(index.into())?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bank(algorithm: HashingAlgorithm, slots: std::ops::Range<u8>) -> PcrSelection {
        let slots: Vec<_> = slots.filter_map(slot).collect();
        PcrSelection::create(algorithm, PcrSelectSize::ThreeOctets, &slots).unwrap()
    }

    #[test]
    fn a_bank_that_would_be_left_out_of_extends_is_refused() {
        let sha256 = bank(HashingAlgorithm::Sha256, 0..24);
        let sha384 = bank(HashingAlgorithm::Sha384, 0..0);
        assert_eq!(judge_banks(&[sha384, sha256]).unwrap(), [PcrBank::Sha256]);
        let sm3 = bank(HashingAlgorithm::Sm3_256, 0..24);
        let error = judge_banks(&[sha256, sm3]).unwrap_err();
        assert!(error.to_string().contains("Sm3_256"), "{error}");
        let partial = bank(HashingAlgorithm::Sha1, 0..16);
        let error = judge_banks(&[sha256, partial]).unwrap_err();
        assert!(error.to_string().contains("sha1 lacks 8"), "{error}");
        assert!(judge_banks(&[sha384]).is_err());
    }
}
