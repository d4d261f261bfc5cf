//! The PCRs that the events of an image lead to, with what firmware adds to them.

use std::collections::BTreeMap;

use aicert_core::tpm::{PcrBank, PcrValues};

use super::pcr;
use crate::reference::ExpectedEvent;

const SEPARATOR: &[u8] = &[0; 4];

/// What EDK II measures into a PCR before and after the image's events (`OnReadyToBoot` and `OnExitBootServices` of
/// `SecurityPkg/Tcg/Tcg2Dxe`), as `EV_EFI_ACTION` and `EV_SEPARATOR`: the digest is that of the data.
fn around(index: u8) -> (&'static [&'static [u8]], &'static [&'static [u8]]) {
    match index {
        4 => (&[b"Calling EFI Application from Boot Option", SEPARATOR], &[]),
        5 => (
            &[SEPARATOR],
            &[
                b"Exit Boot Services Invocation",
                b"Exit Boot Services Returned with Success",
            ],
        ),
        _ => (&[], &[]),
    }
}

/// The values of PCRs 4, 5, 9, 11, 12 and 13 after a boot at the first attempt, without Secure Boot; without that of
/// PCR 5 where the events have no partition table, because it is not known then.
pub(super) fn pcrs(events: &[ExpectedEvent]) -> BTreeMap<PcrBank, PcrValues> {
    let has_table = events.iter().any(|event| event.pcr == pcr(5));
    let value = |bank: PcrBank, index: u8| {
        let (before, after) = around(index);
        let own = events.iter().filter(|event| event.pcr == pcr(index));
        let digests = before
            .iter()
            .map(|data| bank.hash(&[data]))
            .chain(own.filter_map(|event| event.digests.in_bank(bank).map(<[u8]>::to_vec)))
            .chain(after.iter().map(|data| bank.hash(&[data])));
        digests.fold(vec![0; bank.digest_len()], |value, digest| {
            bank.extend(&value, &digest)
        })
    };
    [PcrBank::Sha256, PcrBank::Sha384, PcrBank::Sha512]
        .into_iter()
        .map(|bank| {
            let indices = [4, 5, 9, 11, 12, 13]
                .into_iter()
                .filter(|index| *index != 5 || has_table);
            let values = indices.map(|index| (pcr(index), value(bank, index)));
            (bank, PcrValues(values.collect()))
        })
        .collect()
}
