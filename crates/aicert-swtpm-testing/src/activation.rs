//! The CA's side of credential activation: a secret that only a TPM with both keys can give back
//! (TPM 2.0 Library, part 1, section 24, and annexes B and C).

use aes::cipher::{AsyncStreamCipher as _, KeyIvInit as _};
use hmac::{Hmac, Mac as _};
use p256::elliptic_curve::rand_core::{OsRng, RngCore as _};
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use sha2::{Digest as _, Sha256};
use tss_esapi::structures::Public;
use tss_esapi::traits::UnMarshall as _;

use crate::error::Failure;
use crate::public::{p256_key, rsa_key};

/// What goes to the TPM: `TPM2B_ID_OBJECT` and `TPM2B_ENCRYPTED_SECRET`, both without their outer size.
pub(crate) struct Credential {
    pub(crate) id_object: Vec<u8>,
    pub(crate) encrypted_secret: Vec<u8>,
}

/// Encrypts `secret` so that only the TPM that has the endorsement key gives it out, and only if it also has the object
/// of that name. The endorsement key must have been made from a TCG template with SHA-256 and AES-128.
pub(crate) fn make_credential(
    endorsement_key: &[u8],
    object_name: &[u8],
    secret: &[u8; 32],
) -> Result<Credential, Failure> {
    let (seed, encrypted_secret) = share_seed(endorsement_key)?;
    let mut identity = sized(secret);
    let key = kdfa(&seed, b"STORAGE", object_name, 128);
    cfb_mode::Encryptor::<aes::Aes128>::new_from_slices(&key, &[0; 16])
        .map_err(Failure::certificate)?
        .encrypt(&mut identity);
    let integrity = hmac_sha256(&kdfa(&seed, b"INTEGRITY", b"", 256), &[&identity, object_name]);
    Ok(Credential {
        id_object: [sized(&integrity), identity].concat(),
        encrypted_secret,
    })
}

/// Agrees on a seed with the endorsement key's owner.
fn share_seed(endorsement_key: &[u8]) -> Result<([u8; 32], Vec<u8>), Failure> {
    match Public::unmarshall(endorsement_key).map_err(Failure::of("reading the endorsement key"))? {
        Public::Rsa {
            unique, parameters, ..
        } => {
            let mut seed = [0; 32];
            OsRng.fill_bytes(&mut seed);
            let padding = rsa::Oaep::new_with_label::<Sha256, _>("IDENTITY\0");
            let encrypted = rsa_key(unique.value(), parameters.exponent().value())?
                .encrypt(&mut OsRng, padding, &seed)
                .map_err(Failure::certificate)?;
            Ok((seed, encrypted))
        }
        Public::Ecc { unique, .. } => {
            let theirs = p256_key(unique.x().value(), unique.y().value())?;
            let ours = p256::ecdh::EphemeralSecret::random(&mut OsRng);
            let shared = ours.diffie_hellman(&theirs);
            let (ours, theirs) = (
                ours.public_key().to_encoded_point(false),
                theirs.to_encoded_point(false),
            );
            let (Some(x), Some(y), Some(their_x)) = (ours.x(), ours.y(), theirs.x()) else {
                return Err(Failure::certificate("the endorsement key is no point of P-256"));
            };
            // KDFe (part 1, section 11.4.10.3), of which one block is enough.
            let seed = Sha256::new()
                .chain_update(1u32.to_be_bytes())
                .chain_update(shared.raw_secret_bytes())
                .chain_update(b"IDENTITY\0")
                .chain_update(x)
                .chain_update(their_x)
                .finalize();
            Ok((seed.into(), [sized(x), sized(y)].concat()))
        }
        _ => Err(Failure::certificate(
            "the endorsement key is neither P-256 nor RSA",
        )),
    }
}

/// KDFa with SHA-256 (part 1, section 11.4.10.2), for up to one block.
fn kdfa(key: &[u8], label: &[u8], context: &[u8], bits: u32) -> Vec<u8> {
    let counter = 1u32.to_be_bytes();
    let mut block = hmac_sha256(key, &[&counter, label, &[0], context, &bits.to_be_bytes()]);
    block.truncate(bits as usize / 8);
    block
}

fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    // HMAC takes keys of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length is accepted");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

/// A `TPM2B`: the size and the bytes.
fn sized(bytes: &[u8]) -> Vec<u8> {
    // Digests and coordinates have at most 64 bytes.
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}
