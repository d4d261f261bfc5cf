//! The quote.

use aicert_core::tpm::{PcrBank, PcrIndex, TpmClock};
use aicert_verify::log::LogFault;
use aicert_verify::quote::QuoteFault;
use aicert_verify::{Cause, MarshalError};

use crate::support::*;

#[test]
fn a_structure_that_no_tpm_made_is_refused() {
    let certificate = Recipe {
        magic: 0xff54_4348,
        ..Recipe::default()
    }
    .build();
    refused!(
        check(&certificate),
        Cause::Quote(QuoteFault::Magic {
            found: 0xff54_4348,
            expected: 0xff54_4347
        }),
        "begins with 0xff544348"
    );
}

#[test]
fn another_attestation_than_a_quote_is_refused() {
    for attest_type in [0x8014, 0x8017, 0x8019, 0x801a] {
        let certificate = Recipe {
            attest_type,
            ..Recipe::default()
        }
        .build();
        refused!(check(&certificate), Cause::Quote(QuoteFault::Type { found, .. }) if *found == attest_type, "a quote has 0x8018");
    }
}

#[test]
fn values_of_resettable_pcrs_shown_as_others_are_refused() {
    for (instead_of, resettable) in [(14, 16), (4, 23), (15, 16)] {
        let selected: Vec<u8> = (0..16)
            .map(|pcr| if pcr == instead_of { resettable } else { pcr })
            .collect();
        let certificate = Recipe {
            selection: Some((0x000b, selected)),
            ..Recipe::default()
        }
        .build();
        refused!(
            check(&certificate),
            Cause::Quote(QuoteFault::Selection { .. }),
            "values of some PCRs are shown as those of others"
        );
    }
}

#[test]
fn a_quote_over_fewer_or_more_pcrs_than_shown_is_refused() {
    for selected in [
        (0..15).collect::<Vec<u8>>(),
        (0..17).collect(),
        vec![14, 15],
        vec![],
    ] {
        let certificate = Recipe {
            selection: Some((0x000b, selected)),
            ..Recipe::default()
        }
        .build();
        refused!(
            check(&certificate),
            Cause::Quote(QuoteFault::Selection { .. }),
            "is shown as one over PCRs 0,1,2,3"
        );
    }
    // Honest about it, but too few all the same.
    let certificate = Recipe {
        quoted: |pcrs| pcrs.0.retain(|pcr, _| pcr.as_u8() >= 14),
        ..Recipe::default()
    }
    .build();
    refused_also!(
        check(&certificate),
        Cause::Quote(QuoteFault::PcrsMissing { .. }),
        "it leaves out 0,1,2,3,4,5,6,7,8,9,10,11,12,13"
    );
    let more = |pcrs: &mut aicert_core::tpm::PcrValues| {
        pcrs.0.insert(PcrIndex::new(23).unwrap(), vec![7; 32]);
    };
    check(
        &Recipe {
            quoted: more,
            ..Recipe::default()
        }
        .build(),
    )
    .unwrap();
}

#[test]
fn a_quote_of_another_bank_or_of_the_sha1_bank_is_refused() {
    let all = || (0..16).collect::<Vec<u8>>();
    let certificate = Recipe {
        selection: Some((0x000c, all())),
        ..Recipe::default()
    }
    .build();
    refused!(
        check(&certificate),
        Cause::Quote(QuoteFault::Bank {
            expected: PcrBank::Sha256,
            ..
        }),
        "covers PCRs of the banks 0x000c"
    );
    let certificate = Recipe {
        bank: PcrBank::Sha1,
        ..Recipe::default()
    }
    .build();
    refused!(
        check(&certificate),
        Cause::Quote(QuoteFault::Sha1Bank {}),
        "can be made to collide"
    );
}

#[test]
fn a_quote_over_several_banks_is_refused() {
    // A second selection, of the SHA-1 bank, is slipped in before the digest.
    let two = |attest: &mut Vec<u8>| {
        let digest = attest.len() - 34;
        attest.splice(digest..digest, [0, 4, 3, 0xff, 0xff, 0]);
        let count = digest - 7;
        attest[count] = 2;
    };
    let certificate = Recipe {
        attest: two,
        ..Recipe::default()
    }
    .build();
    refused!(
        check(&certificate),
        Cause::Quote(QuoteFault::Bank { .. }),
        "the banks 0x000b, 0x0004"
    );
}

#[test]
fn only_one_of_several_active_banks_was_extended_and_the_other_is_shown() {
    // PCRs 14 and 15 of the SHA-384 bank hold a forged job's events; the log is that of the bank that was not extended.
    let certificate = Recipe {
        bank: PcrBank::Sha384,
        extended: Some(Vec::new()),
        ..Recipe::default()
    }
    .build();
    refused!(
        check(&certificate),
        Cause::Log(LogFault::Replay { .. }),
        "the log is not what the TPM recorded"
    );
    let certificate = Recipe {
        bank: PcrBank::Sha512,
        ..Recipe::default()
    }
    .build();
    refused!(
        check(&certificate),
        Cause::Log(LogFault::BankNotOpened {
            found: PcrBank::Sha512,
            ..
        }),
        "the quote is over the bank sha512; the log was extended into sha1, sha256, sha384"
    );
}

#[test]
fn trailing_truncated_and_wrong_endian_structures_are_refused() {
    let trailing = Recipe {
        attest: |attest| attest.push(0),
        ..Recipe::default()
    }
    .build();
    refused!(
        check(&trailing),
        Cause::Quote(QuoteFault::Malformed {
            error: MarshalError::Trailing { left: 1 }
        }),
        "1 bytes follow the end of the structure"
    );
    let cut = Recipe {
        attest: |attest| attest.truncate(attest.len() - 1),
        ..Recipe::default()
    }
    .build();
    refused!(
        check(&cut),
        Cause::Quote(QuoteFault::Malformed {
            error: MarshalError::Truncated {
                field: "pcrDigest",
                needed: 32,
                left: 31
            }
        }),
        "it ends inside `pcrDigest`"
    );
    let wrong_endian = Recipe {
        attest: |attest| attest[6..8].reverse(),
        ..Recipe::default()
    }
    .build();
    refused!(
        check(&wrong_endian),
        Cause::Quote(QuoteFault::Malformed {
            error: MarshalError::TooLarge {
                field: "qualifiedSigner",
                found: 0x2200,
                ..
            }
        }),
        "`qualifiedSigner` has the size 8704"
    );
    let trailing = Recipe {
        signature: |signature| signature.push(0),
        ..Recipe::default()
    }
    .build();
    refused!(
        check(&trailing),
        Cause::Quote(QuoteFault::SignatureMalformed {
            error: MarshalError::Trailing { .. }
        }),
        "the signature cannot be read"
    );
    let cut = Recipe {
        signature: |signature| signature.truncate(40),
        ..Recipe::default()
    }
    .build();
    refused!(
        check(&cut),
        Cause::Quote(QuoteFault::SignatureMalformed { .. }),
        "the signature cannot be read"
    );
}

#[test]
fn a_signature_by_another_scheme_or_with_sha1_is_refused() {
    let sha1 = Recipe {
        signature: |signature| signature[3] = 4,
        ..Recipe::default()
    }
    .build();
    refused!(
        check(&sha1),
        Cause::Quote(QuoteFault::Scheme { found: 4, .. }),
        "SHA-1 is refused"
    );
    let ecdaa = Recipe {
        signature: |signature| signature[1] = 0x1a,
        ..Recipe::default()
    }
    .build();
    refused!(
        check(&ecdaa),
        Cause::Quote(QuoteFault::Scheme { found: 0x1a, .. }),
        "algorithm 0x001a"
    );
    // The digest over the PCRs follows the signature's hash, so it is wrong as well.
    let other = Recipe {
        signature: |signature| signature[3] = 0x0c,
        ..Recipe::default()
    }
    .build();
    refused!(
        check(&other),
        Cause::Quote(QuoteFault::NotTheKeysScheme {} | QuoteFault::PcrDigest { .. }),
        "another scheme or hash than the attestation key is bound to"
    );
}

#[test]
fn an_altered_signature_or_quote_is_refused() {
    for at in [6, 37, 40, 71] {
        let mut certificate = Recipe::default().build();
        certificate.signature.0[at] ^= 1;
        refused!(
            check(&certificate),
            Cause::Quote(QuoteFault::Signature {}),
            "was not made by the attestation key over this quote"
        );
    }
    let mut certificate = Recipe::default().build();
    // Inside `firmwareVersion`, which nothing else is compared with.
    let at = certificate.low_level_quote.attest.0.len() - 34 - 10 - 3;
    certificate.low_level_quote.attest.0[at] ^= 1;
    refused!(
        check(&certificate),
        Cause::Quote(QuoteFault::Signature {}),
        "was not made by the attestation key over this quote"
    );
}

#[test]
fn pcr_values_that_were_not_quoted_are_refused() {
    let shown = |pcrs: &mut aicert_core::tpm::PcrValues| {
        pcrs.0.insert(PcrIndex::INPUTS, vec![1; 32]);
    };
    refused!(
        check(
            &Recipe {
                shown,
                ..Recipe::default()
            }
            .build()
        ),
        Cause::Quote(QuoteFault::PcrDigest { .. }) | Cause::Log(LogFault::Replay { .. }),
        "the PCR values shown have the digest"
    );
    // Bytes moved from one value to the next: the concatenation that is hashed stays the same.
    let shown = |pcrs: &mut aicert_core::tpm::PcrValues| {
        let moved = pcrs.0.get_mut(&PcrIndex::new(3).unwrap()).unwrap().pop().unwrap();
        pcrs.0
            .get_mut(&PcrIndex::new(4).unwrap())
            .unwrap()
            .insert(0, moved);
    };
    refused!(
        check(
            &Recipe {
                shown,
                ..Recipe::default()
            }
            .build()
        ),
        Cause::Quote(QuoteFault::ValueLength { expected: 32, .. }),
        "the value of PCR 3 has 31 bytes"
    );
}

#[test]
fn a_quote_without_qualifying_data_is_refused() {
    let certificate = Recipe {
        extra_data: Some(Vec::new()),
        ..Recipe::default()
    }
    .build();
    refused!(
        check(&certificate),
        Cause::Quote(QuoteFault::NothingBound { .. }),
        "nothing binds the quote to this job"
    );
}

#[test]
fn a_quote_of_another_job_is_refused() {
    let other = Recipe {
        contents: with!(Machine, |machine| machine.region = "elsewhere".into()),
        ..Recipe::default()
    };
    let mut certificate = Recipe::default().build();
    let other = other.build();
    certificate.low_level_quote = other.low_level_quote;
    certificate.signature = other.signature;
    refused!(
        check(&certificate),
        Cause::Quote(QuoteFault::QualifyingData { .. }) | Cause::Log(LogFault::Replay { .. }),
        "the quote belongs to another job"
    );
}

#[test]
fn a_quote_replayed_from_earlier_on_the_same_machine_is_refused() {
    // The same log, quoted for another nonce before: the answer to one challenge is shown as that to another.
    let mut certificate = Recipe {
        nonce: aicert_core::digest::Nonce::from_bytes([1; 32]),
        ..Recipe::default()
    }
    .build();
    certificate.low_level_quote.nonce = aicert_core::digest::Nonce::from_bytes([2; 32]);
    refused!(
        check(&certificate),
        Cause::Quote(QuoteFault::QualifyingData { .. }),
        "from the log and the nonce follows"
    );
}

#[test]
fn a_machine_reset_or_suspended_between_log_and_quote_is_refused() {
    for (reset_count, restart_count, cause) in [
        (3, 1, "reset count is 3 in the quote and was 2"),
        (1, 1, "reset count is 1"),
        (2, 0, "restart count is 0 in the quote and was 1"),
        (2, 2, "restart count is 2"),
    ] {
        let clock = TpmClock {
            clock: 5_000,
            reset_count,
            restart_count,
        };
        refused!(
            check(
                &Recipe {
                    clock,
                    ..Recipe::default()
                }
                .build()
            ),
            Cause::Quote(QuoteFault::ResetCount { .. } | QuoteFault::RestartCount { .. }),
            cause
        );
    }
    let clock = TpmClock {
        clock: 999,
        reset_count: 2,
        restart_count: 1,
    };
    refused!(
        check(
            &Recipe {
                clock,
                ..Recipe::default()
            }
            .build()
        ),
        Cause::Quote(QuoteFault::Clock {
            expected: 1_000,
            found: 999
        }),
        "the quote was made before the job"
    );
}
