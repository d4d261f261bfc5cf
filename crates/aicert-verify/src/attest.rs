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

    proptest! {
        #[test]
        fn reading_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Attest::parse(&bytes);
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
