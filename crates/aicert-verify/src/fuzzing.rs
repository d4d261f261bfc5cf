//! Private parsers for the fuzzers of `fuzz/`, each with a writer: what is read and written again must be what was read.

use x509_cert::der::asn1::{AnyRef, UintRef};
use x509_cert::der::{Encode as _, Tag};

use crate::attest::{self, Attest, EitherSignature};
use crate::key::algorithm;
use crate::signature::{Hash, Signature};

/// Reads a `TPMS_ATTEST` and writes it again, its selections with three octets each; nothing if it is refused.
pub fn attest(bytes: &[u8]) -> Option<Vec<u8>> {
    let read = Attest::parse(bytes).ok()?;
    let mut out = Vec::new();
    out.extend(attest::MAGIC.to_be_bytes());
    out.extend(attest::QUOTE_TYPE.to_be_bytes());
    sized(&mut out, &read.qualified_signer);
    sized(&mut out, &read.extra_data);
    out.extend(read.clock.to_be_bytes());
    out.extend(read.reset_count.to_be_bytes());
    out.extend(read.restart_count.to_be_bytes());
    out.push(u8::from(read.safe));
    out.extend(read.firmware_version.to_be_bytes());
    out.extend(u32::try_from(read.selections.len()).ok()?.to_be_bytes());
    for (bank, pcrs) in &read.selections {
        out.extend(bank.to_be_bytes());
        out.push(3);
        let bits = pcrs.iter().fold(0_u32, |bits, pcr| bits | 1 << pcr.as_u8());
        out.extend(&bits.to_le_bytes()[..3]);
    }
    sized(&mut out, &read.pcr_digest);
    Some(out)
}

/// Reads a signature of either form and writes it again in that form; nothing if it is refused.
pub fn signature(bytes: &[u8]) -> Option<Vec<u8>> {
    match EitherSignature::read(bytes).ok()? {
        EitherSignature::Tpm(scheme, signature) => {
            let hash: u16 = match signature.hash() {
                Hash::Sha256 => 0x000b,
                Hash::Sha384 => 0x000c,
                Hash::Sha512 => 0x000d,
            };
            let mut out = [scheme.to_be_bytes(), hash.to_be_bytes()].concat();
            let expected = match signature {
                Signature::Pkcs1 { bytes, .. } => {
                    sized(&mut out, bytes);
                    algorithm::RSASSA
                }
                Signature::Pss { bytes, .. } => {
                    sized(&mut out, bytes);
                    algorithm::RSAPSS
                }
                Signature::Ecdsa { r, s, .. } => {
                    sized(&mut out, r);
                    sized(&mut out, s);
                    algorithm::ECDSA
                }
            };
            assert_eq!(scheme, expected, "the scheme is that of the signature");
            Some(out)
        }
        EitherSignature::Der { r, s } => {
            let numbers = [
                UintRef::new(r).ok()?.to_der().ok()?,
                UintRef::new(s).ok()?.to_der().ok()?,
            ]
            .concat();
            AnyRef::new(Tag::Sequence, &numbers).ok()?.to_der().ok()
        }
    }
}

fn sized(out: &mut Vec<u8>, bytes: &[u8]) {
    // The parsers hold every field below 2^16 bytes.
    out.extend((bytes.len() as u16).to_be_bytes());
    out.extend(bytes);
}
