//! What the machine booted.

use aicert_core::tpm::{PcrIndex, PcrValues};
use aicert_verify::Cause;
use aicert_verify::boot::BootFault;

use crate::support::*;

#[test]
fn an_empty_boot_log_with_boot_pcrs_that_are_not_zero_is_refused() {
    let quoted = |pcrs: &mut PcrValues| {
        for pcr in [0, 4, 13] {
            pcrs.0.insert(PcrIndex::new(pcr).unwrap(), vec![pcr + 1; 32]);
        }
    };
    refused!(
        check(&Recipe { quoted, ..Recipe::default() }.build()),
        Cause::Boot(BootFault::Unexplained { found }) if found == "0,4,13",
        "the boot PCRs 0,4,13 are not zero"
    );
}

#[test]
fn a_boot_log_that_cannot_be_replayed_yet_is_refused() {
    refused!(
        check(
            &Recipe {
                boot_event_log: vec![0; 100],
                ..Recipe::default()
            }
            .build()
        ),
        Cause::Boot(BootFault::LogNotSupported { found: 100 }),
        "a boot log of 100 bytes"
    );
}
