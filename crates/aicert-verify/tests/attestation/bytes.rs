//! No byte of an answer can be changed.
//!
//! Two things in an answer are covered by no signature: what the server says its version is, and those parts of the boot log
//! that no digest covers. The connection covers them, whose key is attested; nothing that is decided depends on them; and a
//! proof with another boot log than the one that was attested is refused.

use aicert_core::attestation::Attestation;
use aicert_verify::attestation::{self, VerifiedAttestation};
use aicert_verify::{Options, verify_attestation};
use proptest::prelude::*;

use crate::answer::*;
use crate::machine::machine_options;
use crate::support::*;

fn accepts(bytes: &[u8], options: &Options) -> Option<(Attestation, VerifiedAttestation)> {
    let answer = attestation::read(bytes).ok()?;
    let verified = verify_attestation(&answer, &TLS_KEY, &NONCE, options).ok()?;
    Some((answer, verified))
}

/// Asserts that what was accepted says what the honest answer says.
fn is_harmless(
    honest: &(Attestation, VerifiedAttestation),
    found: &(Attestation, VerifiedAttestation),
) -> Result<(), String> {
    let mut same = found.0.clone();
    same.server_version.clone_from(&honest.0.server_version);
    same.boot_event_log.clone_from(&honest.0.boot_event_log);
    if same != honest.0 {
        return Err("something that is signed was changed".into());
    }
    if found.1.boot() != honest.1.boot() || found.1.image() != honest.1.image() {
        return Err("it is about another boot".into());
    }
    let is_same_log = found.0.boot_event_log == honest.0.boot_event_log;
    let is_same_digest = found.1.attested_boot().boot_event_log == honest.1.attested_boot().boot_event_log;
    if is_same_log != is_same_digest {
        return Err("another boot log has the same digest".into());
    }
    Ok(())
}

#[test]
fn no_byte_can_be_changed() {
    let text = serde_json::to_vec(&answer(&unused())).unwrap();
    let options = machine_options();
    let honest = accepts(&text, &options).unwrap();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    // In the log, where no digest covers much, one change of each byte says as much as four.
    let log = serde_json::to_string(&honest.0.boot_event_log).unwrap();
    let start = String::from_utf8_lossy(&text).find(&log).unwrap();
    let log = start..start + log.len();
    let (text, options, honest, log) = (&text, &options, &honest, &log);
    std::thread::scope(|scope| {
        for worker in 0..workers {
            scope.spawn(move || {
                let mut forged = text.clone();
                for at in (worker..text.len()).step_by(workers) {
                    let original = text[at];
                    for (number, byte) in [original ^ 1, original ^ 0x20, b'0', b' ']
                        .into_iter()
                        .enumerate()
                    {
                        if byte == original || (number > 0 && log.contains(&at)) {
                            continue;
                        }
                        forged[at] = byte;
                        if let Some(found) = accepts(&forged, options)
                            && let Err(why) = is_harmless(honest, &found)
                        {
                            let place = String::from_utf8_lossy(&text[at.saturating_sub(30)..at]);
                            panic!("byte {at} after {place:?}: {original} as {byte}: {why}");
                        }
                    }
                    forged[at] = original;
                }
            });
        }
    });
}

/// Every field of an honest machine's answer, put into that of another honest machine, or of the same at another time.
#[test]
fn no_field_can_be_taken_from_another_answer() {
    let mut chain = honest_chain();
    chain[0] = Cert::leaf("other-ak", "Test CA").der();
    let other_machine = Recipe {
        signer: "other-ak".into(),
        chain,
        ..unused()
    };
    let later = Recipe {
        clock: aicert_core::tpm::TpmClock {
            clock: 9_999,
            ..unused().clock
        },
        ..unused()
    };
    let other_nonce = Recipe {
        nonce: OTHER_NONCE,
        ..unused()
    };
    type Take = fn(&mut Attestation, &Attestation);
    let fields: [(&str, Take); 7] = [
        ("quote", |to, from| to.quote.clone_from(&from.quote)),
        ("attest", |to, from| {
            to.quote.attest.clone_from(&from.quote.attest)
        }),
        ("nonce", |to, from| to.quote.nonce = from.quote.nonce),
        ("pcrs", |to, from| to.quote.pcrs.clone_from(&from.quote.pcrs)),
        ("signature", |to, from| to.signature.clone_from(&from.signature)),
        ("key", |to, from| {
            to.attestation_key.clone_from(&from.attestation_key)
        }),
        ("boot log", |to, from| {
            to.boot_event_log.clone_from(&from.boot_event_log)
        }),
    ];
    let honest = answer(&unused());
    for other in [other_machine, later, other_nonce] {
        let other = answer(&other);
        for (name, take) in fields {
            let mut mixed = honest.clone();
            take(&mut mixed, &other);
            // ECDSA is deterministic here, so equal fields are equal answers.
            if mixed != honest && mixed != other {
                assert!(attest(&mixed).is_err(), "{name}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_can_be_removed_doubled_or_inserted(
        at in any::<prop::sample::Index>(),
        length in 1usize..60,
        inserted in proptest::collection::vec(any::<u8>(), 0..4),
        double in any::<bool>(),
    ) {
        let honest = answer(&unused());
        let mut text = serde_json::to_vec(&honest).unwrap();
        let options = machine_options();
        let honest = accepts(&text, &options).unwrap();
        let start = at.index(text.len());
        let end = (start + length).min(text.len());
        let piece = if double { [&text[start..end], &text[start..end], &inserted].concat() } else { inserted };
        text.splice(start..end, piece);
        if let Some(found) = accepts(&text, &options) {
            prop_assert_eq!(is_harmless(&honest, &found), Ok(()));
        }
    }

    /// Evidence that is any bytes at all is refused without a panic.
    #[test]
    fn evidence_of_any_bytes_is_refused(
        which in 0usize..5,
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        prefix in any::<prop::sample::Index>(),
    ) {
        let mut forged = answer(&unused());
        let field = match which {
            0 => &mut forged.quote.attest.0,
            1 => &mut forged.signature.0,
            2 => &mut forged.attestation_key.public.0,
            3 => &mut forged.attestation_key.certificate_chain[1].0,
            _ => &mut forged.boot_event_log.0,
        };
        let honest = field.clone();
        field.truncate(prefix.index(honest.len()));
        field.extend(bytes);
        if *field != honest {
            prop_assert!(attest(&forged).is_err());
        }
    }
}
