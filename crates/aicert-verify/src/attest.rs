//! `TPMS_ATTEST` of a quote and `TPMT_SIGNATURE`, read to the last byte.

use std::collections::BTreeSet;

use aicert_core::tpm::PcrIndex;

use crate::key::algorithm;
use crate::marshal::{MarshalError, Reader};
use crate::signature::{Hash, Signature};

/// `TPM_GENERATED_VALUE` (TPM 2.0 Library, part 2, section 6.2).
pub(crate) const MAGIC: u32 = 0xff54_4347;
/// `TPM_ST_ATTEST_QUOTE` (TPM 2.0 Library, part 2, section 6.9).
pub(crate) const QUOTE_TYPE: u16 = 0x8018;

/// More selections than there are hash algorithms are refused.
const SELECTION_LIMIT: usize = 16;

/// Says why bytes are no quote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AttestError {
    Magic(u32),
    Type(u16),
    Malformed(MarshalError),
}

impl From<MarshalError> for AttestError {
    fn from(error: MarshalError) -> Self {
        Self::Malformed(error)
    }
}

/// What a TPM signs when it is asked for a quote (TPM 2.0 Library, part 2, sections 10.12.8 and 10.12.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attest {
    pub(crate) qualified_signer: Vec<u8>,
    pub(crate) extra_data: Vec<u8>,
    pub(crate) clock: u64,
    pub(crate) reset_count: u32,
    pub(crate) restart_count: u32,
    /// Whether the clock has certainly never shown this value before.
    pub(crate) safe: bool,
    pub(crate) firmware_version: u64,
    /// Each selection: the bank's `TPM_ALG_ID` and its PCRs.
    pub(crate) selections: Vec<(u16, BTreeSet<PcrIndex>)>,
    pub(crate) pcr_digest: Vec<u8>,
}

impl Attest {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, AttestError> {
        let mut reader = Reader::new(bytes);
        let magic = reader.u32("magic")?;
        if magic != MAGIC {
            return Err(AttestError::Magic(magic));
        }
        let kind = reader.u16("type")?;
        if kind != QUOTE_TYPE {
            return Err(AttestError::Type(kind));
        }
        // TPM2B_NAME holds at most a TPMT_HA (2 + 64 bytes); TPM2B_DATA as well.
        let qualified_signer = reader.sized("qualifiedSigner", 66)?.to_vec();
        let extra_data = reader.sized("extraData", 66)?.to_vec();
        let clock = reader.u64("clockInfo.clock")?;
        let reset_count = reader.u32("clockInfo.resetCount")?;
        let restart_count = reader.u32("clockInfo.restartCount")?;
        // `safe` is NO after a power loss, until the clock has passed its last saved value: honest, and harmless here,
        // where the clock is only compared within one boot.
        let safe = reader.u8("clockInfo.safe")?;
        if safe > 1 {
            let error = MarshalError::Value {
                field: "clockInfo.safe",
                found: safe.into(),
                expected: "0 or 1",
            };
            return Err(error.into());
        }
        let firmware_version = reader.u64("firmwareVersion")?;
        let selections = read_selections(&mut reader)?;
        let pcr_digest = reader.sized("pcrDigest", 64)?.to_vec();
        reader.finish()?;
        Ok(Self {
            qualified_signer,
            extra_data,
            clock,
            reset_count,
            restart_count,
            safe: safe == 1,
            firmware_version,
            selections,
            pcr_digest,
        })
    }
}

/// `TPML_PCR_SELECTION` (TPM 2.0 Library, part 2, sections 10.9.7 and 10.6.2).
fn read_selections(reader: &mut Reader<'_>) -> Result<Vec<(u16, BTreeSet<PcrIndex>)>, MarshalError> {
    let found = reader.u32("pcrSelect.count")? as usize;
    if found > SELECTION_LIMIT {
        return Err(MarshalError::TooLarge {
            field: "pcrSelect.count",
            found,
            limit: SELECTION_LIMIT,
        });
    }
    (0..found)
        .map(|_| {
            let bank = reader.u16("pcrSelect.hash")?;
            let size = usize::from(reader.u8("pcrSelect.sizeofSelect")?);
            if size > 4 {
                return Err(MarshalError::TooLarge {
                    field: "pcrSelect.sizeofSelect",
                    found: size,
                    limit: 4,
                });
            }
            let mut pcrs = BTreeSet::new();
            for (octet, bits) in reader.take("pcrSelect.pcrSelect", size)?.iter().enumerate() {
                for bit in (0..8).filter(|bit| bits >> bit & 1 == 1) {
                    let number = octet * 8 + bit;
                    let pcr =
                        u8::try_from(number)
                            .ok()
                            .and_then(PcrIndex::new)
                            .ok_or(MarshalError::Value {
                                field: "pcrSelect.pcrSelect",
                                found: number as u64,
                                expected: "PCRs 0 to 23",
                            })?;
                    pcrs.insert(pcr);
                }
            }
            Ok((bank, pcrs))
        })
        .collect()
}

/// Says why bytes are no signature that is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SignatureError {
    Malformed(MarshalError),
    Scheme(u16),
    Hash(u16),
}

impl From<MarshalError> for SignatureError {
    fn from(error: MarshalError) -> Self {
        Self::Malformed(error)
    }
}

/// Reads a `TPMT_SIGNATURE` (TPM 2.0 Library, part 2, section 11.3.4); its scheme comes with it.
pub(crate) fn read_signature(bytes: &[u8]) -> Result<(u16, Signature<'_>), SignatureError> {
    let mut reader = Reader::new(bytes);
    let scheme = reader.u16("sigAlg")?;
    if !matches!(scheme, algorithm::RSASSA | algorithm::RSAPSS | algorithm::ECDSA) {
        return Err(SignatureError::Scheme(scheme));
    }
    let hash = reader.u16("hash")?;
    let hash = Hash::from_algorithm_id(hash).ok_or(SignatureError::Hash(hash))?;
    let signature = match scheme {
        algorithm::RSASSA => Signature::Pkcs1 {
            hash,
            bytes: reader.sized("sig", 512)?,
        },
        algorithm::RSAPSS => Signature::Pss {
            hash,
            bytes: reader.sized("sig", 512)?,
        },
        _ => Signature::Ecdsa {
            hash,
            r: reader.sized("signatureR", 48)?,
            s: reader.sized("signatureS", 48)?,
        },
    };
    reader.finish()?;
    Ok((scheme, signature))
}

/// Says why bytes are no signature in one of the two forms in which quotes are handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EitherSignatureError {
    Tpm(SignatureError),
    Form,
    Der(x509_cert::der::Error),
}

/// A signature in one of the two forms, as far as it says what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EitherSignature<'a> {
    /// A `TPMT_SIGNATURE`: its scheme comes with it.
    Tpm(u16, Signature<'a>),
    /// The two numbers of an ECDSA signature in DER (RFC 3279, section 2.2.3), which does not name the hash.
    Der { r: &'a [u8], s: &'a [u8] },
}

impl<'a> EitherSignature<'a> {
    /// Tells the forms apart by their first byte: a SEQUENCE in DER begins with 0x30, and every scheme that is accepted in
    /// a `TPMT_SIGNATURE` with 0x00. What is broken in one form is never tried as the other.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, EitherSignatureError> {
        match bytes.first() {
            Some(0x00) => read_signature(bytes)
                .map(|(scheme, signature)| Self::Tpm(scheme, signature))
                .map_err(EitherSignatureError::Tpm),
            Some(0x30) => read_der(bytes).map_err(EitherSignatureError::Der),
            _ => Err(EitherSignatureError::Form),
        }
    }
}

/// Numbers with leading zeros, long forms of short lengths and trailing bytes are refused, by the decoder.
fn read_der(bytes: &[u8]) -> x509_cert::der::Result<EitherSignature<'_>> {
    use x509_cert::der::{Decode as _, Reader as _, SliceReader, asn1::UintRef};
    let mut reader = SliceReader::new(bytes)?;
    let signature = reader.sequence(|reader| {
        let (r, s) = (UintRef::decode(reader)?, UintRef::decode(reader)?);
        Ok(EitherSignature::Der {
            r: r.as_bytes(),
            s: s.as_bytes(),
        })
    })?;
    reader.finish(signature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A quote over PCRs 0 to 15 of the SHA-256 bank, written out by hand from part 2 of the specification.
    fn quote() -> Vec<u8> {
        let mut bytes = hex::decode("ff5443478018").unwrap();
        bytes.extend([0, 34, 0, 0x0b].iter().chain(&[0x11; 32]));
        bytes.extend([0, 4, 1, 2, 3, 4]);
        bytes.extend(hex::decode("00000000000003e8000000020000000100").unwrap()); // clock 1000, reset 2, restart 1, not safe
        bytes.extend([0; 8]);
        bytes.extend(hex::decode("00000001000b03ffff00").unwrap());
        bytes.extend([0, 32].iter().chain(&[0x22; 32]));
        bytes
    }

    #[test]
    fn a_quote_is_read_to_its_last_byte() {
        let attest = Attest::parse(&quote()).unwrap();
        assert_eq!(
            (attest.clock, attest.reset_count, attest.restart_count),
            (1000, 2, 1)
        );
        assert_eq!(attest.extra_data, [1, 2, 3, 4]);
        assert_eq!(attest.selections, [(0x000b, PcrIndex::quoted().collect())]);
        assert_eq!(attest.pcr_digest, [0x22; 32]);
        for end in 0..quote().len() {
            assert!(Attest::parse(&quote()[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn counts_and_sizes_are_bounded_before_anything_is_read() {
        let count = quote().len() - 34 - 10;
        for (offset, value, field) in [
            (count, &[0xff, 0xff, 0xff, 0xff][..], "pcrSelect.count"),
            (count + 6, &[5], "pcrSelect.sizeofSelect"),
            (6, &[0xff, 0xff], "qualifiedSigner"),
        ] {
            let mut bytes = quote();
            bytes[offset..offset + value.len()].copy_from_slice(value);
            let error = Attest::parse(&bytes).unwrap_err();
            assert!(
                matches!(error, AttestError::Malformed(MarshalError::TooLarge { field: f, .. }) if f == field),
                "{error:?}"
            );
        }
        let mut bytes = quote();
        let safe = count - 9;
        bytes[safe] = 2;
        assert!(matches!(
            Attest::parse(&bytes),
            Err(AttestError::Malformed(MarshalError::Value { .. }))
        ));
    }

    #[test]
    fn a_selection_of_a_pcr_above_23_is_refused() {
        let mut bytes = quote();
        let size = bytes.len() - 34 - 4;
        bytes[size] = 4;
        bytes.insert(size + 4, 1);
        let error = Attest::parse(&bytes).unwrap_err();
        assert!(
            matches!(
                error,
                AttestError::Malformed(MarshalError::Value { found: 24, .. })
            ),
            "{error:?}"
        );
    }

    #[test]
    fn a_signature_in_der_has_one_spelling() {
        let honest = hex::decode("30080202008102020080").unwrap();
        assert_eq!(
            EitherSignature::read(&honest),
            Ok(EitherSignature::Der {
                r: &[0x81],
                s: &[0x80]
            })
        );
        for (wrong, why) in [
            ("3009020300008102020080", "a leading zero more"),
            ("3006020181020180", "negative numbers"),
            ("3081080202008102020080", "a long form of a short length"),
            ("3008020200810202008000", "a trailing byte"),
            ("300a02020081020200800500", "a third element"),
            ("3080020200810202008000", "an indefinite length"),
            ("30040202008100", "a missing number"),
            ("30", "nothing"),
        ] {
            let wrong = hex::decode(wrong).unwrap();
            assert!(
                matches!(EitherSignature::read(&wrong), Err(EitherSignatureError::Der(_))),
                "{why}"
            );
        }
        // What is neither is never tried as either.
        assert_eq!(EitherSignature::read(&[0x31, 0]), Err(EitherSignatureError::Form));
        assert_eq!(EitherSignature::read(&[]), Err(EitherSignatureError::Form));
    }

    proptest! {
        #[test]
        fn reading_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Attest::parse(&bytes);
            let _ = EitherSignature::read(&bytes);
            let _ = EitherSignature::read(&[&[0x30, 0x46], &bytes[..]].concat());
            let _ = read_signature(&bytes);
            let _ = crate::key::PublicArea::parse(&bytes);
        }

        #[test]
        fn reading_a_quote_with_changes_never_panics(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut bytes = quote();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = Attest::parse(&bytes);
        }
    }
}
