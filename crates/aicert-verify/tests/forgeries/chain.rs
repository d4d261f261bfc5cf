//! The certificates of the attestation key.

use aicert_core::certificate::{Certificate, PlatformKind};
use aicert_core::time::Timestamp;
use aicert_verify::anchors::AnchorError;
use aicert_verify::chain::{self, ChainFault};
use aicert_verify::{Cause, Options, TrustAnchors, platform_of_root};
use base64::Engine as _;

use crate::support::*;

fn ca() -> Cert {
    Cert::ca("Test CA", "Test Root")
}

fn leaf() -> Cert {
    Cert::leaf("ak", "Test CA")
}

fn proof(chain: &[Cert]) -> Certificate {
    Recipe {
        chain: chain.iter().map(Cert::der).collect(),
        ..Recipe::default()
    }
    .build()
}

fn chain_faults(chain: &[Cert]) -> Result<aicert_verify::Verified<Certificate>, aicert_verify::Rejection> {
    check(&proof(chain))
}

#[test]
fn a_chain_that_does_not_reach_a_pinned_root_is_refused() {
    // All names are those of the vendor; the keys are not.
    let vendor = "Azure Virtual TPM Root Certificate Authority 2023";
    let chain = [
        Cert::leaf("ak", "Global Virtual TPM CA"),
        Cert::ca("Global Virtual TPM CA", vendor),
        Cert::ca(vendor, vendor),
    ];
    let certificate = Recipe {
        chain: chain.iter().map(Cert::der).collect(),
        kind: PlatformKind::AzureTrustedLaunch,
        ..Recipe::default()
    }
    .build();
    let pinned = Options::new(TrustAnchors::pinned(), now());
    refused_also!(
        check_with(&certificate, &pinned),
        Cause::Chain(ChainFault::UnknownRoot { subject, .. }) if subject.contains(vendor),
        "neither a pinned vendor root nor a trust anchor that was given"
    );
}

#[test]
fn a_proof_that_claims_a_vendors_platform_under_a_local_root_is_refused() {
    let certificate = Recipe {
        kind: PlatformKind::GceShieldedVm,
        ..Recipe::default()
    }
    .build();
    let rejection = check(&certificate).unwrap_err().to_string();
    for field in ["platform.kind", "platform.simulated", "platform_hash"] {
        assert!(rejection.contains(&format!("`{field}` is")), "{rejection}");
    }
}

#[test]
fn a_chain_with_a_broken_link_is_refused() {
    let stranger = Cert {
        signer: "stranger".into(),
        ..ca()
    };
    refused!(
        chain_faults(&[leaf(), stranger, root()]),
        Cause::Chain(ChainFault::BadSignature { position: 1, .. }),
        "is not signed by the key of \"CN=Test Root\""
    );
    let stranger = Cert {
        signer: "stranger".into(),
        ..leaf()
    };
    refused!(
        chain_faults(&[stranger, ca(), root()]),
        Cause::Chain(ChainFault::BadSignature { position: 0, .. }),
        "is not signed by the key of \"CN=Test CA\""
    );
}

#[test]
fn a_chain_without_its_intermediate_or_alone_is_refused() {
    refused!(
        chain_faults(&[leaf(), root()]),
        Cause::Chain(ChainFault::IssuerMissing { position: 0, .. }),
        "issued by \"CN=Test CA\", which is not in the chain"
    );
    refused!(
        chain_faults(&[leaf()]),
        Cause::Chain(ChainFault::IssuerMissing { position: 0, .. }),
        "the certificate does not say where it can be fetched"
    );
    refused_also!(
        chain_faults(&[root()]),
        Cause::Chain(ChainFault::Length { found: 1 }),
        "2 to 8"
    );
    for chain in [vec![], vec![leaf(); 9]] {
        refused!(
            chain_faults(&chain),
            Cause::Chain(ChainFault::Length { .. }),
            "2 to 8"
        );
    }
}

#[test]
fn a_certificate_that_is_pem_or_holds_pem_is_refused() {
    let honest = Recipe::default().build();
    let mut pem = honest.clone();
    let base64 = base64::engine::general_purpose::STANDARD.encode(ca().der());
    pem.attestation_key.certificate_chain[1].0 =
        format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n").into_bytes();
    refused!(
        check(&pem),
        Cause::Chain(ChainFault::PemInDer { position: 1 }),
        "two parsers could read two different certificates"
    );
    let polyglot = Cert {
        note: b"\n-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        ..ca()
    };
    refused!(
        chain_faults(&[leaf(), polyglot, root()]),
        Cause::Chain(ChainFault::PemInDer { position: 1 }),
        "only DER is accepted"
    );
}

#[test]
fn a_certificate_with_trailing_bytes_or_oversized_is_refused() {
    for position in 0..3 {
        let mut certificate = Recipe::default().build();
        certificate.attestation_key.certificate_chain[position].0.push(0);
        refused!(
            check(&certificate),
            Cause::Chain(ChainFault::NotACertificate { position: p, .. }) if *p == position,
            "not an X.509 certificate in exact DER"
        );
        certificate.attestation_key.certificate_chain[position]
            .0
            .resize(20_000, 0);
        refused!(
            check(&certificate),
            Cause::Chain(ChainFault::TooLarge {
                found: 20_000,
                limit: 16_384,
                ..
            }),
            "20000 bytes"
        );
    }
}

#[test]
fn a_leaf_that_is_an_authority_and_an_authority_used_as_leaf_are_refused() {
    for wrong in [
        Cert { ca: true, ..leaf() },
        Cert {
            usage: Some(CERT_SIGN),
            ..leaf()
        },
        Cert {
            purposes: &[AIK],
            ..Cert::ca("ak", "Test CA")
        },
    ] {
        refused_also!(
            chain_faults(&[wrong, ca(), root()]),
            Cause::Chain(ChainFault::LeafIsAuthority { .. }),
            "is one of a certificate authority"
        );
    }
}

#[test]
fn an_issuer_that_is_no_authority_is_refused() {
    let below_leaf = [
        Cert::leaf("ak", "other"),
        Cert {
            subject: "other".into(),
            ..leaf()
        },
        ca(),
        root(),
    ];
    let below_leaf = [
        below_leaf[0].clone(),
        Cert {
            key: "other".into(),
            ..below_leaf[1].clone()
        },
        below_leaf[2].clone(),
        below_leaf[3].clone(),
    ];
    refused_also!(
        chain_faults(&below_leaf),
        Cause::Chain(ChainFault::NotAnAuthority { position: 1, .. }),
        "not marked as a certificate authority"
    );
    let no_signing = Cert {
        usage: Some(DIGITAL_SIGNATURE),
        ..ca()
    };
    refused!(
        chain_faults(&[leaf(), no_signing, root()]),
        Cause::Chain(ChainFault::KeyUsage {
            position: 1,
            expected: "keyCertSign",
            ..
        }),
        "the usage keyCertSign"
    );
}

#[test]
fn a_path_longer_than_an_authority_allows_is_refused() {
    let (upper, lower) = (
        Cert {
            path_length: Some(0),
            ..ca()
        },
        Cert::ca("Lower CA", "Test CA"),
    );
    refused!(
        chain_faults(&[Cert::leaf("ak", "Lower CA"), lower.clone(), upper, root()]),
        Cause::Chain(ChainFault::PathLength {
            position: 2,
            expected: 0,
            found: 1,
            ..
        }),
        "allows 0 intermediates below it, the chain has 1"
    );
    let exact = Cert {
        path_length: Some(1),
        ..ca()
    };
    chain_faults(&[Cert::leaf("ak", "Lower CA"), lower, exact, root()]).unwrap();
}

#[test]
fn the_path_length_of_the_root_counts() {
    let root = Cert {
        path_length: Some(0),
        ..root()
    };
    let options = Options::new(TrustAnchors::pinned().with_root(&root.der()).unwrap(), now());
    refused!(
        check_with(&proof(&[leaf(), ca(), root.clone()]), &options),
        Cause::Chain(ChainFault::PathLength { position: 2, .. }),
        "allows 0 intermediates"
    );
    check_with(&proof(&[Cert::leaf("ak", "Test Root"), root]), &options).unwrap();
}

#[test]
fn every_certificate_must_be_valid_at_the_time_of_verification() {
    let honest = [leaf(), ca(), root()];
    for position in 0..3 {
        let mut chain = honest.clone();
        chain[position].until = NOW - 1;
        let options = Options::new(TrustAnchors::pinned().with_root(&chain[2].der()).unwrap(), now());
        refused!(
            check_with(&proof(&chain), &options),
            Cause::Chain(ChainFault::Expired { position: p, .. }) if *p == position,
            "was valid until 2025-12-31T23:59:59Z, and verification is for 2026-01-01T00:00:00Z"
        );
        chain[position].until = NOW;
        let options = Options::new(TrustAnchors::pinned().with_root(&chain[2].der()).unwrap(), now());
        check_with(&proof(&chain), &options).unwrap();

        chain[position].from = NOW + 1;
        chain[position].until = NOW + 2;
        let options = Options::new(TrustAnchors::pinned().with_root(&chain[2].der()).unwrap(), now());
        refused!(
            check_with(&proof(&chain), &options),
            Cause::Chain(ChainFault::NotYetValid { position: p, .. }) if *p == position,
            "is valid from 2026-01-01T00:00:01Z on"
        );
    }
    let before_1970 = Options::new(options().trust_anchors, Timestamp::from_unix(-5));
    refused!(
        check_with(&proof(&honest), &before_1970),
        Cause::Chain(ChainFault::NotYetValid { .. }),
        "1969-12-31T23:59:55Z"
    );
}

#[test]
fn two_intermediates_of_one_name_and_different_keys_pass_in_either_order() {
    // One authority whose new key is certified by its old one: both are needed.
    let old = Cert {
        key: "old".into(),
        ..ca()
    };
    let new = Cert {
        key: "new".into(),
        issuer: "Test CA".into(),
        signer: "old".into(),
        ..ca()
    };
    let leaf_of_new = Cert {
        signer: "new".into(),
        ..leaf()
    };
    // One authority with two keys, and a chain assembled by names: only one is needed.
    let sibling = Cert {
        key: "sibling".into(),
        ..ca()
    };
    for (first, second) in [(&old, &new), (&new, &old)] {
        chain_faults(&[leaf_of_new.clone(), first.clone(), second.clone(), root()]).unwrap();
    }
    for (first, second) in [(ca(), sibling.clone()), (sibling.clone(), ca())] {
        chain_faults(&[leaf(), first, second, root()]).unwrap();
    }
}

#[test]
fn a_certificate_that_nothing_needs_is_refused() {
    let unrelated = Cert::ca("Other CA", "Test Root");
    let foreign = Cert {
        signer: "stranger".into(),
        key: "foreign".into(),
        ..ca()
    };
    for (unneeded, subject) in [
        (unrelated, "Other CA"),
        (foreign, "Test CA"),
        (Cert::ca("Other", "Other"), "Other"),
    ] {
        for order in [[0, 1], [1, 0]] {
            let both = [ca(), unneeded.clone()];
            refused!(
                chain_faults(&[leaf(), both[order[0]].clone(), both[order[1]].clone(), root()]),
                Cause::Chain(ChainFault::Unused { subject: s, .. }) if s.contains(subject),
                "has no part in the chain"
            );
        }
    }
    refused!(
        chain_faults(&[leaf(), ca(), ca(), root()]),
        Cause::Chain(ChainFault::Duplicate { first: 1, again: 2 } | ChainFault::Ambiguous { .. }),
        "certificates 1 and 2 are the same"
    );
    let renewed = Cert {
        until: NOW + 2 * DAY,
        ..ca()
    };
    refused!(
        chain_faults(&[leaf(), ca(), renewed, root()]),
        Cause::Chain(ChainFault::Ambiguous { position: 0, .. }),
        "more than one issuer in the chain with the same name and key"
    );
}

#[test]
fn a_certificate_for_another_purpose_is_refused() {
    for purposes in [&["1.3.6.1.5.5.7.3.1"][..], &["2.23.133.8.1"]] {
        refused!(
            chain_faults(&[Cert { purposes, ..leaf() }, ca(), root()]),
            Cause::Chain(ChainFault::ExtendedKeyUsage { position: 0, .. }),
            "expected 2.23.133.8.3"
        );
    }
    refused!(
        chain_faults(&[
            leaf(),
            Cert {
                purposes: &["1.3.6.1.5.5.7.3.1"],
                ..ca()
            },
            root()
        ]),
        Cause::Chain(ChainFault::ExtendedKeyUsage { position: 1, .. }),
        "is for the purposes 1.3.6.1.5.5.7.3.1"
    );
    refused!(
        chain_faults(&[
            Cert {
                usage: Some(KEY_AGREEMENT),
                ..leaf()
            },
            ca(),
            root()
        ]),
        Cause::Chain(ChainFault::KeyUsage {
            position: 0,
            expected: "digitalSignature",
            ..
        }),
        "digitalSignature"
    );
    chain_faults(&[
        Cert {
            purposes: &[],
            usage: None,
            ..leaf()
        },
        ca(),
        root(),
    ])
    .unwrap();
}

#[test]
fn a_critical_extension_that_is_not_understood_is_refused() {
    for (position, wrong) in [
        (
            0,
            [
                Cert {
                    critical: Some("1.2.3.4"),
                    ..leaf()
                },
                ca(),
            ],
        ),
        (
            1,
            [
                leaf(),
                Cert {
                    critical: Some("1.2.3.4"),
                    ..ca()
                },
            ],
        ),
    ] {
        refused!(
            chain_faults(&[wrong[0].clone(), wrong[1].clone(), root()]),
            Cause::Chain(ChainFault::UnknownCriticalExtension { position: p, .. }) if *p == position,
            "critical extension 1.2.3.4"
        );
    }
}

#[test]
fn a_certificate_signed_with_sha1_is_refused() {
    refused!(
        chain_faults(&[
            Cert {
                algorithm: ECDSA_SHA1,
                ..leaf()
            },
            ca(),
            root()
        ]),
        Cause::Chain(ChainFault::Algorithm { position: 0, .. }),
        "SHA-1 is refused"
    );
}

#[test]
fn a_trust_anchor_is_exactly_one_root_in_one_reading() {
    let der = root().der();
    let base64 = |der: &[u8]| {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<_> = text
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        )
    };
    let pem = base64(&der);
    let add = |bytes: &[u8]| TrustAnchors::pinned().with_root(bytes);
    assert_eq!(add(pem.as_bytes()).unwrap(), add(&der).unwrap());
    assert_eq!(
        add(pem.replace('\n', "\r\n").as_bytes()).unwrap(),
        add(&der).unwrap()
    );
    assert_eq!(platform_of_root(&der), PlatformKind::LocalCa);

    let polyglot = Cert {
        note: pem.as_bytes().to_vec().leak(),
        ..root()
    }
    .der();
    for (bytes, cause) in [
        (polyglot, "PEM text, or holds some"),
        (format!("{pem}{pem}").into_bytes(), "more than one block"),
        (
            format!("# my root\n{pem}").into_bytes(),
            "begin and end with the lines",
        ),
        (format!("{pem}more").into_bytes(), "begin and end with the lines"),
        (
            pem.replace("CERTIFICATE", "PUBLIC KEY").into_bytes(),
            "begin and end with the lines",
        ),
        ([&der[..], b"\0"].concat(), "trailing data"),
        (der[..der.len() - 1].to_vec(), "not one certificate"),
        (vec![0xff, 0xfe], "neither text nor DER"),
        (b"".to_vec(), "begin and end"),
    ] {
        let error = add(&bytes).unwrap_err();
        assert!(matches!(error, AnchorError::NotOneCertificate(_)), "{error}");
        assert!(error.to_string().contains(cause), "{error}");
    }
    for (wrong, cause) in [
        (ca(), "another authority issued it"),
        (leaf(), "not marked as a certificate authority"),
        (
            Cert {
                signer: "stranger".into(),
                ..root()
            },
            "its signature is not its own",
        ),
    ] {
        let error = add(&wrong.der()).unwrap_err();
        assert!(
            matches!(error, AnchorError::NotARoot { .. }) && error.to_string().contains(cause),
            "{error}"
        );
    }
}

#[test]
fn the_chain_can_be_verified_alone() {
    let anchors = TrustAnchors::pinned().with_root(&root().der()).unwrap();
    let proof = chain::verify(&honest_chain(), &anchors, now()).unwrap();
    assert_eq!(proof.platform(), PlatformKind::LocalCa);
    assert_eq!(proof.valid_until(), Timestamp::from_unix(NOW + DAY));
    let faults = chain::verify(&honest_chain(), &TrustAnchors::pinned(), now()).unwrap_err();
    assert!(matches!(faults[..], [ChainFault::UnknownRoot { .. }]));
}
