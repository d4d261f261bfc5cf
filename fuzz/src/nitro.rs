//! An attestation document of NitroTPM, of a test authority.

use aicert_core::certificate::{Base64, Certificate, KeyEvidence, qualifying_data};
use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues};
use aicert_verify::Options;
use aicert_verify::nitro::Expected;
use p384::ecdsa::signature::Signer as _;

use crate::evidence::{Cert, Key, NOW, anchors, now, p384_key};
use crate::support::{self, Recipe, head_of};

fn authority(name: &str, issuer: &str) -> Cert {
    Cert {
        key: Key::P384(p384_key(name)),
        signer: Key::P384(p384_key(issuer)),
        ..Cert::ca(name, issuer)
    }
}

/// What accepts [`document`].
pub fn expected() -> Expected {
    Expected::new(anchors(&authority("root", "root")), now())
}

/// A document that holds.
pub fn document() -> Vec<u8> {
    let pcrs = (0..24).filter_map(PcrIndex::new);
    let pcrs = pcrs.map(|pcr| (pcr, vec![pcr.as_u8(); 48])).collect();
    document_of(&PcrValues(pcrs), &[7; 32], bytes(b"data"))
}

/// A proof that verifies with [`options`], with a document in the place of its quote.
pub fn proof() -> Certificate {
    let recipe = Recipe {
        bank: PcrBank::Sha384,
        ..Recipe::default()
    };
    let mut proof = recipe.build();
    let quote = &mut proof.low_level_quote;
    let nonce = qualifying_data(&head_of(&proof.measurement_log), &quote.nonce);
    quote.attest = Base64(document_of(&quote.pcrs, &nonce, vec![0xf6]));
    proof.signature = Base64::default();
    proof.attestation_key = KeyEvidence::default();
    proof
}

/// What accepts all honest proofs: those of keys, and that of a document.
pub fn options() -> Options {
    let anchors = expected().trust_anchors.with_root(&support::root().der());
    Options::new(anchors.expect("the root of keys is a root"), now())
}

fn document_of(pcrs: &PcrValues, nonce: &[u8], user_data: Vec<u8>) -> Vec<u8> {
    let leaf = Cert {
        ca: false,
        from: NOW - 3,
        until: NOW + 3 * 3_600,
        ..authority("leaf", "zonal")
    };
    let bundle = [authority("root", "root").der(), authority("zonal", "root").der()];
    let count = pcrs.0.len() as u64;
    let pcrs = pcrs.0.iter();
    let pcrs = pcrs.flat_map(|(pcr, value)| [item(0, pcr.as_u8().into()), bytes(value)].concat());
    let fields = [
        ("module_id", text("i-0123-tpm0000")),
        ("digest", text("SHA384")),
        ("timestamp", item(0, NOW as u64 * 1_000)),
        ("nitrotpm_pcrs", [item(5, count), pcrs.collect()].concat()),
        ("certificate", bytes(&leaf.der())),
        (
            "cabundle",
            [item(4, 2), bytes(&bundle[0]), bytes(&bundle[1])].concat(),
        ),
        ("public_key", vec![0xf6]),
        ("user_data", user_data),
        ("nonce", bytes(nonce)),
    ];
    let fields = fields
        .into_iter()
        .flat_map(|(name, value)| [text(name), value].concat());
    let payload = bytes(&[vec![0xbf], fields.collect(), vec![0xff]].concat());
    let protected = bytes(&[0xa1, 0x01, 0x38, 0x22]);
    let signed = [
        item(4, 4),
        text("Signature1"),
        protected.clone(),
        bytes(&[]),
        payload.clone(),
    ]
    .concat();
    let signature: p384::ecdsa::Signature = p384_key("leaf").sign(&signed);
    [
        item(4, 4),
        protected,
        item(5, 0),
        payload,
        bytes(&signature.to_bytes()),
    ]
    .concat()
}

fn text(text: &str) -> Vec<u8> {
    [item(3, text.len() as u64), text.as_bytes().to_vec()].concat()
}

fn bytes(bytes: &[u8]) -> Vec<u8> {
    [item(2, bytes.len() as u64), bytes.to_vec()].concat()
}

/// The head of an item in CBOR, or a number (RFC 8949, section 3).
fn item(major: u8, value: u64) -> Vec<u8> {
    let major = major << 5;
    match value {
        0..24 => vec![major | value as u8],
        24..0x100 => vec![major | 24, value as u8],
        0x100..0x1_0000 => [&[major | 25][..], &(value as u16).to_be_bytes()].concat(),
        0x1_0000..0x1_0000_0000 => [&[major | 26][..], &(value as u32).to_be_bytes()].concat(),
        _ => [&[major | 27][..], &value.to_be_bytes()].concat(),
    }
}
