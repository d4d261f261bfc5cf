//! The attestation key.

use aicert_verify::Cause;
use aicert_verify::key::{KeyFault, PublicArea};
use aicert_verify::quote::QuoteFault;

use crate::support::*;

#[test]
fn a_key_that_could_sign_anything_or_leave_its_tpm_is_refused() {
    for (bit, name) in [
        (1, "fixedTPM"),
        (4, "fixedParent"),
        (5, "sensitiveDataOrigin"),
        (16, "restricted"),
        (18, "sign"),
    ] {
        let certificate = Recipe {
            attributes: AK_ATTRIBUTES & !(1 << bit),
            ..Recipe::default()
        }
        .build();
        refused!(
            check(&certificate),
            Cause::Key(KeyFault::Attributes { missing, .. }) if missing == name,
            &format!("the attestation key is not {name}")
        );
    }
    let certificate = Recipe {
        attributes: AK_ATTRIBUTES | 1 << 17,
        ..Recipe::default()
    }
    .build();
    refused!(
        check(&certificate),
        Cause::Key(KeyFault::CanDecrypt { .. }),
        "can decrypt"
    );
}

#[test]
fn a_certificate_for_one_key_and_a_quote_by_another_are_refused() {
    // The public area is the signer's; the leaf certifies "ak".
    let certificate = Recipe {
        signer: "other".into(),
        ..Recipe::default()
    }
    .build();
    refused!(
        check(&certificate),
        Cause::Key(KeyFault::NotTheCertifiedKey {}),
        "is not the key that the first certificate"
    );
    // The public area is the certified one; another key signed.
    let public = ecc_public(&key("ak"), AK_ATTRIBUTES, 0x000b);
    let certificate = Recipe {
        signer: "other".into(),
        public: Some(public),
        ..Recipe::default()
    }
    .build();
    refused!(
        check(&certificate),
        Cause::Quote(QuoteFault::Signature {}),
        "was not made by the attestation key"
    );
}

#[test]
fn a_public_area_that_the_tpm_does_not_know_is_refused() {
    // The TPM's key may decrypt; the file says that it may not. The qualified name in the quote tells.
    let mut certificate = Recipe {
        attributes: AK_ATTRIBUTES | 1 << 17,
        ..Recipe::default()
    }
    .build();
    certificate.attestation_key.public.0 = ecc_public(&key("ak"), AK_ATTRIBUTES, 0x000b);
    refused!(
        check(&certificate),
        Cause::Quote(QuoteFault::QualifiedSigner { .. }),
        "either the public area in the file was altered, or the attestation key is not a primary key of the endorsement hierarchy"
    );
}

#[test]
fn a_key_of_another_hierarchy_is_refused() {
    for hierarchy in [0x4000_0001, 0x4000_000c, 0x4000_0007] {
        let certificate = Recipe {
            hierarchy,
            ..Recipe::default()
        }
        .build();
        refused!(
            check(&certificate),
            Cause::Quote(QuoteFault::QualifiedSigner { .. }),
            "endorsement hierarchy"
        );
    }
}

/// Changes bytes of the honest public area at an offset.
fn public_with(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut public = ecc_public(&key("ak"), AK_ATTRIBUTES, 0x000b);
    public[offset..offset + bytes.len()].copy_from_slice(bytes);
    public
}

#[test]
fn a_key_of_a_kind_that_is_not_accepted_is_refused() {
    for (public, cause) in [
        (public_with(0, &[0, 8]), "the type 0x0008"),
        (public_with(2, &[0, 4]), "the name algorithm 0x0004"),
        (public_with(10, &[0, 6]), "the symmetric algorithm 0x0006"),
        (public_with(12, &[0, 0x10]), "the elliptic-curve scheme 0x0010"),
        (public_with(14, &[0, 4]), "the signature hash 0x0004"),
        (public_with(16, &[0, 0x20]), "the curve 0x0020"),
        (public_with(18, &[0, 0x20]), "the key derivation 0x0020"),
        (public_with(22, &[0; 32]), "not a point of its curve"),
        (rsa_public(1024, 0), "RSA with 1024 bits"),
        (rsa_public(2048, 3), "a public exponent below 65537"),
        (rsa_public_claiming(1024, 2048), "has not the 2048 bits it claims"),
    ] {
        let fault = PublicArea::parse(&public).unwrap_err();
        assert!(
            matches!(fault, KeyFault::Unsupported { .. }) && fault.to_string().contains(cause),
            "{cause}: {fault}"
        );
    }
}

#[test]
fn a_public_area_cut_or_with_trailing_bytes_is_refused() {
    let honest = ecc_public(&key("ak"), AK_ATTRIBUTES, 0x000b);
    let longer = [&honest[..], &[0]].concat();
    let fault = PublicArea::parse(&longer).unwrap_err();
    assert!(fault.to_string().contains("1 bytes follow the end"), "{fault}");
    for end in 0..honest.len() {
        assert!(
            matches!(PublicArea::parse(&honest[..end]), Err(KeyFault::Malformed { .. })),
            "{end}"
        );
    }
    let mut certificate = Recipe::default().build();
    certificate.attestation_key.public.0 = longer;
    refused!(
        check(&certificate),
        Cause::Key(KeyFault::Malformed { .. }),
        "1 bytes follow the end"
    );
}

fn rsa_public(bits: u16, exponent: u32) -> Vec<u8> {
    let mut public = rsa_public_claiming(bits, bits);
    public[18..22].copy_from_slice(&exponent.to_be_bytes());
    public
}

fn rsa_public_claiming(bits: u16, claimed: u16) -> Vec<u8> {
    let mut modulus = vec![0xc3; usize::from(bits / 8)];
    *modulus.last_mut().unwrap() |= 1;
    let attributes = AK_ATTRIBUTES.to_be_bytes();
    let head = [
        0,
        1,
        0,
        0x0b,
        attributes[0],
        attributes[1],
        attributes[2],
        attributes[3],
        0,
        0,
        0,
        0x10,
        0,
        0x14,
        0,
        0x0b,
    ];
    [
        &head[..],
        &claimed.to_be_bytes(),
        &0u32.to_be_bytes(),
        &(bits / 8).to_be_bytes(),
        &modulus,
    ]
    .concat()
}
