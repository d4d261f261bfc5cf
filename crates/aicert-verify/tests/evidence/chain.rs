//! Chains put together from certificates in any order, in the shapes of the clouds.

use aicert_verify::TrustAnchors;
use aicert_verify::chain::{self, ChainFault, POOL_LIMIT, PoolError};
use base64::Engine as _;

use crate::support::*;

const ROOT: &str = "Azure Virtual TPM Root Certificate Authority 2023";

fn root() -> Cert {
    Cert::ca(ROOT, ROOT)
}

fn azure_leaf(issuer: &str) -> Cert {
    Cert {
        purposes: &[MICROSOFT, AIK],
        url: Some("http://example.org/certs/issuer.crt"),
        ..Cert::leaf("0123.TrustedVM.Azure.Microsoft", issuer)
    }
}

/// The hierarchy of 2023: one intermediate, below which there is no other.
fn flat() -> Vec<Cert> {
    vec![
        azure_leaf("Global Virtual TPM CA - 03"),
        Cert {
            path_length: Some(0),
            purposes: &[EK, AIK],
            ..Cert::ca("Global Virtual TPM CA - 03", ROOT)
        },
        root(),
    ]
}

/// The hierarchy of 2025: two.
fn deep() -> Vec<Cert> {
    vec![
        azure_leaf("Azure Cloud Virtual TPM CA - 24"),
        Cert {
            path_length: Some(0),
            purposes: &[EK, AIK],
            ..Cert::ca(
                "Azure Cloud Virtual TPM CA - 24",
                "Azure Cloud Virtual TPM CA 2025",
            )
        },
        Cert {
            path_length: Some(1),
            ..Cert::ca("Azure Cloud Virtual TPM CA 2025", ROOT)
        },
        root(),
    ]
}

fn ders(chain: &[Cert]) -> Vec<Vec<u8>> {
    chain.iter().map(Cert::der).collect()
}

fn assembled(certificates: &[Cert]) -> Result<Vec<Vec<u8>>, Vec<ChainFault>> {
    pool(ders(certificates))
        .unwrap()
        .assemble(&anchors(&root()), now())
}

fn verified(chain: &[Vec<u8>]) -> Result<usize, Vec<ChainFault>> {
    chain::verify(chain, &anchors(&root()), now()).map(|proof| proof.subjects().len())
}

#[test]
fn both_hierarchies_are_put_together_from_any_order() {
    for chain in [flat(), deep()] {
        let honest = ders(&chain);
        assert_eq!(verified(&honest), Ok(chain.len()));
        for turn in 0..chain.len() {
            let mut turned = chain.clone();
            turned.rotate_left(turn);
            assert_eq!(assembled(&turned), Ok(honest.clone()));
            turned.reverse();
            assert_eq!(assembled(&turned), Ok(honest.clone()));
        }
    }
    // The intermediates of the other hierarchy beside it are left out.
    let both: Vec<_> = flat().into_iter().chain(deep()[1..].to_vec()).collect();
    assert_eq!(assembled(&both), Ok(ders(&flat())));
}

#[test]
fn a_missing_intermediate_is_named_with_where_to_get_it() {
    for (chain, missing, position) in [(flat(), 1, 0), (deep(), 1, 0), (deep(), 2, 1), (deep(), 3, 2)] {
        let mut incomplete = chain.clone();
        let gone = incomplete.remove(missing);
        let faults = assembled(&incomplete).unwrap_err();
        let [
            fault @ ChainFault::IssuerMissing {
                position: p, issuer, ..
            },
        ] = &faults[..]
        else {
            panic!("{faults:?}")
        };
        assert_eq!((*p, issuer), (position, &format!("CN={}", gone.subject)));
        let where_from = if position == 0 {
            "can be fetched from \"http://example.org/certs/issuer.crt\""
        } else {
            "does not say where it can be fetched"
        };
        assert!(fault.to_string().contains(where_from), "{fault}");
        // The verifier has it at hand: whatever stood in the proof stays, and all of it is judged.
        let proof = ders(&incomplete);
        let complete = pool([gone.der()])
            .unwrap()
            .complete(&proof, &anchors(&root()), now());
        assert_eq!(verified(&complete), Ok(chain.len()));
        assert!(proof.iter().all(|der| complete.contains(der)));
    }
    // A leaf alone, as it comes out of the TPM.
    let faults = verified(&ders(&deep()[..1])).unwrap_err();
    assert!(
        matches!(&faults[..], [ChainFault::IssuerMissing { position: 0, url, .. }] if url.0.is_some()),
        "{faults:?}"
    );
    let complete = pool(ders(&deep()[1..]))
        .unwrap()
        .complete(&ders(&deep()[..1]), &anchors(&root()), now());
    assert_eq!(verified(&complete), Ok(4));
}

#[test]
fn completing_a_chain_hides_nothing_that_is_wrong_with_it() {
    // A certificate that has no part in the chain is still refused.
    let stranger = Cert::ca("Stranger", ROOT);
    let proof = ders(&[flat()[0].clone(), stranger, root()]);
    let extra = pool([flat()[1].der()]).unwrap();
    let faults = verified(&extra.complete(&proof, &anchors(&root()), now())).unwrap_err();
    assert!(matches!(faults[..], [ChainFault::Unused { .. }]), "{faults:?}");
    // A link that does not hold is not replaced by one that does.
    let forged = Cert {
        signer: Key::P256(p256_key("stranger")),
        ..flat()[0].clone()
    };
    let proof = ders(&[forged, root()]);
    let complete = extra.complete(&proof, &anchors(&root()), now());
    assert_eq!(complete, proof);
    assert!(verified(&complete).is_err());
    // A chain that is no chain comes back as it was.
    assert_eq!(
        extra.complete(&[b"no certificate"], &anchors(&root()), now()),
        [b"no certificate"]
    );
}

#[test]
fn among_namesakes_the_one_that_signed_and_is_valid_is_chosen() {
    let chain = flat();
    let renewed = Cert {
        until: NOW + 100 * DAY,
        ..chain[1].clone()
    };
    let expired = Cert {
        until: NOW - 1,
        from: NOW - 100 * DAY,
        ..chain[1].clone()
    };
    let other_key = Cert {
        key: Key::P256(p256_key("another key")),
        ..chain[1].clone()
    };
    for order in [
        [&expired, &other_key, &renewed],
        [&renewed, &expired, &other_key],
        [&other_key, &renewed, &expired],
    ] {
        let mut certificates = vec![chain[0].clone(), chain[2].clone()];
        certificates.extend(order.map(Clone::clone));
        let path = assembled(&certificates).unwrap();
        assert_eq!(path[1], renewed.der());
        assert_eq!(verified(&path), Ok(3));
    }
    // Where only the expired one is there, it is said that it expired, not that it is missing.
    let path = assembled(&[chain[0].clone(), expired, chain[2].clone()]).unwrap();
    let faults = verified(&path).unwrap_err();
    assert!(
        matches!(faults[..], [ChainFault::Expired { position: 1, .. }]),
        "{faults:?}"
    );
}

#[test]
fn a_chain_to_another_root_is_put_together_and_refused() {
    let other = Cert {
        key: Key::P256(p256_key("another root")),
        signer: Key::P256(p256_key("another root")),
        ..root()
    };
    let mut chain = flat();
    chain[1].signer = Key::P256(p256_key("another root"));
    chain[2] = other;
    let path = assembled(&chain).unwrap();
    let faults = verified(&path).unwrap_err();
    assert!(
        matches!(faults[..], [ChainFault::UnknownRoot { .. }]),
        "{faults:?}"
    );
}

#[test]
fn what_is_not_one_chain_is_refused() {
    let chain = flat();
    let stranger = Cert {
        signer: Key::P256(p256_key("stranger")),
        ..chain[0].clone()
    };
    let faults = assembled(&[stranger, chain[1].clone(), chain[2].clone()]).unwrap_err();
    assert!(
        matches!(faults[..], [ChainFault::BadSignature { position: 0, .. }]),
        "{faults:?}"
    );
    let faults = assembled(&chain[1..]).unwrap_err();
    assert!(
        matches!(faults[..], [ChainFault::LeafUnclear { found: 0 }]),
        "{faults:?}"
    );
    let second = Cert {
        key: Key::P256(p256_key("second")),
        ..chain[0].clone()
    };
    let faults = assembled(&[chain[0].clone(), second, chain[1].clone(), chain[2].clone()]).unwrap_err();
    assert!(
        matches!(faults[..], [ChainFault::LeafUnclear { found: 2 }]),
        "{faults:?}"
    );
}

#[test]
fn authorities_that_certify_each_other_end_the_search() {
    // Twelve certificates of two names and one key each: every path through them goes on.
    let mut certificates = vec![Cert::leaf("ak", "A")];
    for days in 1..=12 {
        for (name, issuer) in [("A", "B"), ("B", "A")] {
            certificates.push(Cert {
                until: NOW + days * DAY,
                ..Cert::ca(name, issuer)
            });
        }
    }
    let faults = assembled(&certificates).unwrap_err();
    assert!(
        matches!(faults[..], [ChainFault::NoChain { limit: 8 }]),
        "{faults:?}"
    );
}

#[test]
fn a_pool_takes_certificates_in_one_reading_and_not_without_end() {
    let chain = ders(&flat());
    let pem = |der: &[u8]| {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<_> = text.as_bytes().chunks(64).collect();
        let text = String::from_utf8(lines.join(&b'\n')).unwrap();
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    };
    let bundle: String = chain.iter().map(|der| pem(der)).collect();
    let from_pem = pool([&bundle, &format!("\n{bundle}\n\n{bundle}")]).unwrap();
    assert_eq!(from_pem.len(), 3);
    assert_eq!(from_pem.assemble(&anchors(&root()), now()), Ok(chain.clone()));
    let (first, second) = (pem(&chain[0]), pem(&chain[1]));
    for (wrong, cause) in [
        (format!("{first}and\n{second}"), "begin and end with the lines"),
        (
            format!("subject=CN = leaf\n{first}"),
            "begin and end with the lines",
        ),
        (
            first.replace("END CERTIFICATE", "END KEY"),
            "begin and end with the lines",
        ),
        (
            first.replace("-----END CERTIFICATE-----\n", "") + &second,
            "neither one certificate in DER",
        ),
        (
            first.replace("CERTIFICATE", "PRIVATE KEY"),
            "begin and end with the lines",
        ),
        (String::new(), "begin and end with the lines"),
    ] {
        let error = pool([&wrong]).unwrap_err();
        assert!(error.to_string().contains(cause), "{error}");
    }
    // As the certificate lies in a TPM's memory: with bytes after it.
    assert!(pool([[&chain[0][..], &[0; 8]].concat()]).is_err());

    let many = (0..=POOL_LIMIT).map(|index| Cert::ca(&format!("CA {index}"), ROOT).der());
    assert_eq!(pool(many).unwrap_err(), PoolError::TooMany);
}

/// The extension as Compute Engine writes it; values as the parts of a test.
fn instance(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

fn parts() -> Vec<Vec<u8>> {
    let flag = |number: u8, value: u8| tlv(0xa0 | number, &[1, 1, value]);
    let security = [tlv(0xa0, &[2, 1, 3]), flag(1, 0xff), flag(2, 0)].concat();
    vec![
        tlv(0x0c, b"europe-west4-a"),
        tlv(2, &[1, 0, 0, 0, 0]),
        tlv(0x0c, b"project"),
        tlv(2, &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]),
        tlv(0x0c, b"machine\x1b[2J"),
        tlv(0xa0, &tlv(0x30, &security)),
    ]
}

fn with_instance(value: Vec<u8>) -> Result<chain::ChainProof, Vec<ChainFault>> {
    let leaf = Cert {
        extensions: vec![("1.3.6.1.4.1.11129.2.1.21", value)],
        ..flat()[0].clone()
    };
    let chain = ders(&[leaf, flat()[1].clone(), root()]);
    chain::verify(&chain, &anchors(&root()), now())
}

#[test]
fn instance_information_is_read_to_its_last_byte_or_refused() {
    let proof = with_instance(instance(&parts())).unwrap();
    let info = proof.instance().unwrap();
    assert_eq!(info.zone, "europe-west4-a");
    assert_eq!((info.project_number, info.instance_id), (1 << 32, u64::MAX - 1));
    assert_eq!(info.instance_name, "machine\x1b[2J");
    let security = info.security.unwrap();
    assert_eq!((security.security_version, security.is_production), (3, true));
    assert_eq!(
        with_instance(instance(&parts()[..5]))
            .unwrap()
            .instance()
            .unwrap()
            .security,
        None
    );

    let changed = |index: usize, part: Vec<u8>| {
        let mut parts = parts();
        parts[index] = part;
        instance(&parts)
    };
    for (what, wrong) in [
        ("empty", Vec::new()),
        ("an empty sequence", vec![0x30, 0]),
        ("trailing bytes", [instance(&parts()), vec![0]].concat()),
        (
            "a trailing element",
            instance(&[parts(), vec![tlv(2, &[1])]].concat()),
        ),
        ("a missing name", instance(&parts()[..4])),
        ("a negative number", changed(1, tlv(2, &[0x80]))),
        ("a number in a longer form", changed(1, tlv(2, &[0, 1]))),
        (
            "a number of 65 bits",
            changed(3, tlv(2, &[1, 0, 0, 0, 0, 0, 0, 0, 0])),
        ),
        ("no UTF-8", changed(0, tlv(0x0c, &[0xff]))),
        ("another kind of text", changed(0, tlv(0x13, b"zone"))),
        ("an empty zone", changed(0, tlv(0x0c, b""))),
        (
            "security properties cut",
            changed(5, tlv(0xa0, &tlv(0x30, &tlv(0xa0, &[2, 1, 3])))),
        ),
        (
            "a false that is no false",
            changed(
                5,
                tlv(
                    0xa0,
                    &tlv(0x30, &[tlv(0xa0, &[2, 1, 3]), tlv(0xa1, &[1, 1, 1])].concat()),
                ),
            ),
        ),
    ] {
        let faults = with_instance(wrong).unwrap_err();
        assert!(
            matches!(faults[..], [ChainFault::Instance { .. }]),
            "{what}: {faults:?}"
        );
    }
}

#[test]
fn a_proof_of_a_chain_says_since_when_it_can_be_believed() {
    let mut chain = flat();
    chain[0].from = NOW - 3_600;
    chain[1].from = NOW - 60;
    chain[2].until = NOW + 60;
    let proof = chain::verify(&ders(&chain), &anchors(&chain[2]), now()).unwrap();
    assert_eq!(proof.leaf_issued().as_unix(), NOW - 3_600);
    assert_eq!(proof.valid_from().as_unix(), NOW - 60);
    assert_eq!(proof.valid_until().as_unix(), NOW + 60);
    assert!(chain::verify(&ders(&chain), &TrustAnchors::pinned(), now()).is_err());
}
