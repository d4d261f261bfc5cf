//! No byte of a proof is without protection.

use aicert_core::certificate::Certificate;
use aicert_verify::chain::{self, ChainFault};
use aicert_verify::{Options, TrustAnchors, Unverified, Verified, verify};
use proptest::prelude::*;

use crate::support::*;

fn accepts(bytes: &[u8], options: &Options) -> Option<Verified<Certificate>> {
    verify(Unverified::from_slice(bytes).ok()?, options).ok()
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Every byte of a valid proof is changed, one at a time, to several values: a neighbour, the other case, a digit,
/// white space. Only white space changed to white space is ever accepted.
#[test]
fn no_byte_of_a_proof_can_be_changed() {
    let certificate = Recipe::default().build();
    let text = certificate.to_json().into_bytes();
    let options = options();
    assert!(accepts(&text, &options).is_some());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let (text, options, honest) = (&text, &options, &certificate);
    std::thread::scope(|scope| {
        for worker in 0..workers {
            scope.spawn(move || {
                let mut forged = text.clone();
                for at in (worker..text.len()).step_by(workers) {
                    let original = text[at];
                    for byte in [original ^ 1, original ^ 0x20, b'0', b' '] {
                        if byte == original {
                            continue;
                        }
                        forged[at] = byte;
                        if let Some(verified) = accepts(&forged, options) {
                            let place =
                                String::from_utf8_lossy(&text[at.saturating_sub(30)..at]).into_owned();
                            assert!(
                                is_space(original) && is_space(byte),
                                "byte {at} after {place:?}: {original} as {byte}"
                            );
                            assert_eq!(verified.certificate(), honest);
                        }
                    }
                    forged[at] = original;
                }
            });
        }
    });
}

/// The same inside the certificates, where one byte of the file is not one byte of what is meant.
#[test]
fn no_bit_of_a_chain_can_be_changed() {
    let honest = honest_chain();
    let anchors = TrustAnchors::pinned().with_root(&root().der()).unwrap();
    for position in 0..honest.len() {
        let mut chain = honest.clone();
        for at in 0..chain[position].len() {
            for bit in [0, 3, 7] {
                chain[position][at] ^= 1 << bit;
                let faults =
                    chain::verify(&chain, &anchors, now()).expect_err("a bit of a certificate was changed");
                assert!(
                    !faults
                        .iter()
                        .any(|fault| matches!(fault, ChainFault::SecondOpinion { .. })),
                    "{faults:?}"
                );
                chain[position][at] ^= 1 << bit;
            }
        }
    }
}

/// Small files that would become large in memory, or whose checks would take time that grows with the square of them.
#[test]
fn lists_without_end_are_refused_when_they_are_read() {
    let honest = Recipe::default().build();
    let text = serde_json::to_string(&honest).unwrap();
    let event = serde_json::to_string(&honest.measurement_log[3]).unwrap();
    let entry = serde_json::to_string(&file("a", b"")).unwrap();
    let many = |item: &str| vec![item; 60_000].join(",");
    for (from, to) in [
        (
            "\"measurement_log\":[",
            format!("\"measurement_log\":[{},", many(&event)),
        ),
        (
            "\"gpus\":[",
            format!("\"gpus\":[{}", many(r#"{"model":"","uuid":"","driver":""}"#)),
        ),
        ("\"command\":[", format!("\"command\":[{},", many("\"\""))),
        (
            "\"environment\":[",
            format!("\"environment\":[{}", many(r#"{"name":"","value":""}"#)),
        ),
        (
            "\"requested\":[",
            format!("\"requested\":[{},", many(r#"{"kind":"tag","value":""}"#)),
        ),
        ("\"banks\":[", format!("\"banks\":[{},", many("\"sha1\""))),
        ("\"listing\":[", format!("\"listing\":[{entry},{},", many(&entry))),
        (
            "\"certificate_chain\":[",
            format!("\"certificate_chain\":[{},", many("\"MAAA\"")),
        ),
        (
            "\"outputs\":[",
            format!(
                "\"outputs\":[{},",
                many(&serde_json::to_string(&honest.outputs[0]).unwrap())
            ),
        ),
        (
            "\"inputs\":[",
            format!(
                "\"inputs\":[{},",
                many(&serde_json::to_string(&honest.inputs[0]).unwrap())
            ),
        ),
    ] {
        assert!(text.contains(from), "{from}");
        let rejection = Unverified::from_slice(text.replacen(from, &to, 1).as_bytes()).unwrap_err();
        assert!(
            rejection.to_string().contains("an array has more than"),
            "{from}: {rejection}"
        );
    }
    let value = "00".repeat(32);
    assert!(text.contains(&value));
    let rejection =
        Unverified::from_slice(text.replacen(&value, &"00".repeat(65), 1).as_bytes()).unwrap_err();
    assert!(rejection.to_string().contains("too long"), "{rejection}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Bytes removed, doubled or inserted: refused, or only white space.
    #[test]
    fn nothing_can_be_removed_doubled_or_inserted(
        at in any::<prop::sample::Index>(),
        length in 1usize..40,
        inserted in proptest::collection::vec(any::<u8>(), 0..4),
        double in any::<bool>(),
    ) {
        let certificate = Recipe::default().build();
        let mut text = certificate.to_json().into_bytes();
        let start = at.index(text.len());
        let end = (start + length).min(text.len());
        let piece = if double { [&text[start..end], &text[start..end], &inserted].concat() } else { inserted };
        text.splice(start..end, piece);
        if let Some(verified) = accepts(&text, &options()) {
            prop_assert_eq!(verified.certificate(), &certificate);
            let compact = |bytes: &[u8]| bytes.iter().copied().filter(|byte| !is_space(*byte)).collect::<Vec<_>>();
            prop_assert_eq!(compact(&text), compact(certificate.to_json().as_bytes()));
        }
    }

    /// Evidence that is any bytes at all is refused without a panic.
    #[test]
    fn evidence_of_any_bytes_is_refused(
        which in 0usize..4,
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        prefix in any::<prop::sample::Index>(),
    ) {
        let mut certificate = Recipe::default().build();
        let field = match which {
            0 => &mut certificate.low_level_quote.attest.0,
            1 => &mut certificate.signature.0,
            2 => &mut certificate.attestation_key.public.0,
            _ => &mut certificate.attestation_key.certificate_chain[1].0,
        };
        let honest = field.clone();
        field.truncate(prefix.index(honest.len()));
        field.extend(bytes);
        if *field != honest {
            prop_assert!(check(&certificate).is_err());
        }
    }
}
