//! PCR values as other tools write them.

use std::collections::BTreeMap;
use std::fmt;

use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

/// A larger file is refused: 24 values in each of four banks are 12 KiB.
const SIZE_LIMIT: usize = 64 << 10;

/// PCR values of one or more banks, as somebody claims them.
///
/// In JSON an object from the bank's name to an object from the PCR's number to its value in hexadecimal:
/// `{"sha256": {"0": "e15c…", "1": "d8e9…"}}`. Nothing may stand twice, and every value has the length of its bank's digests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PcrBanks(BTreeMap<PcrBank, PcrValues>);

/// Says why bytes are no PCR values. The fault is in what the verifier was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PcrsError {
    /// There are too many bytes.
    #[error("the PCR values have {found} bytes; at most {limit} are accepted")]
    TooLarge {
        /// How many.
        found: usize,
        /// The most that are accepted.
        limit: usize,
    },
    /// They are not of the form that is expected.
    #[error("the PCR values are not JSON of the form {{\"sha256\": {{\"0\": \"<hexadecimal>\", …}}}}: {0}")]
    Malformed(String),
}

impl PcrBanks {
    /// Reads JSON.
    ///
    /// # Errors
    ///
    /// When it is of another form, or says something twice.
    pub fn from_json(bytes: &[u8]) -> Result<Self, PcrsError> {
        if bytes.len() > SIZE_LIMIT {
            return Err(PcrsError::TooLarge {
                found: bytes.len(),
                limit: SIZE_LIMIT,
            });
        }
        serde_json::from_slice(bytes).map_err(|error| PcrsError::Malformed(error.to_string()))
    }

    /// The values of one bank alone.
    pub fn of(bank: PcrBank, values: PcrValues) -> Self {
        Self(BTreeMap::from([(bank, values)]))
    }

    /// The values of a bank, if they were given.
    pub fn bank(&self, bank: PcrBank) -> Option<&PcrValues> {
        self.0.get(&bank)
    }

    /// The banks whose values were given.
    pub fn banks(&self) -> impl Iterator<Item = PcrBank> {
        self.0.keys().copied()
    }
}

impl<'de> Deserialize<'de> for PcrBanks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Banks;
        impl<'de> Visitor<'de> for Banks {
            type Value = PcrBanks;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object from banks to their values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PcrBanks, A::Error> {
                let mut banks = BTreeMap::new();
                while let Some(bank) = map.next_key::<PcrBank>()? {
                    let Values(values) = map.next_value()?;
                    let expected = bank.digest_len();
                    if let Some((pcr, value)) = values.0.iter().find(|(_, value)| value.len() != expected) {
                        return Err(A::Error::custom(format_args!(
                            "the value of PCR {pcr} of the bank {bank} has {} bytes, expected {expected}",
                            value.len()
                        )));
                    }
                    if banks.insert(bank, values).is_some() {
                        return Err(A::Error::custom(format_args!("the bank {bank} stands twice")));
                    }
                }
                Ok(PcrBanks(banks))
            }
        }
        deserializer.deserialize_map(Banks)
    }
}

/// As [`PcrValues`], but nothing twice, and in hexadecimal of either case.
struct Values(PcrValues);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pcrs;
        impl<'de> Visitor<'de> for Pcrs {
            type Value = Values;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object from PCRs to their values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Values, A::Error> {
                let mut values = BTreeMap::new();
                while let Some(pcr) = map.next_key::<PcrIndex>()? {
                    let text: String = map.next_value()?;
                    let value = hex::decode(&text).map_err(|_| {
                        A::Error::custom(format_args!("the value of PCR {pcr} is not hexadecimal"))
                    })?;
                    if values.insert(pcr, value).is_some() {
                        return Err(A::Error::custom(format_args!("PCR {pcr} stands twice")));
                    }
                }
                Ok(Values(PcrValues(values)))
            }
        }
        deserializer.deserialize_map(Pcrs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_read_in_one_reading() {
        let zero = "00".repeat(32);
        let banks = PcrBanks::from_json(
            format!(r#"{{"sha256": {{"0": "{zero}", "23": "{}"}}}}"#, "aB".repeat(32)).as_bytes(),
        )
        .unwrap();
        assert_eq!(banks.banks().collect::<Vec<_>>(), [PcrBank::Sha256]);
        assert_eq!(
            banks.bank(PcrBank::Sha256).unwrap().0[&PcrIndex::new(23).unwrap()],
            [0xab; 32]
        );
        for (wrong, cause) in [
            (
                format!(r#"{{"sha256": {{"0": "{zero}", "0": "{zero}"}}}}"#),
                "PCR 0 stands twice",
            ),
            (
                format!(r#"{{"sha256": {{}}, "sha256": {{"0": "{zero}"}}}}"#),
                "the bank sha256 stands twice",
            ),
            (format!(r#"{{"sha256": {{"00": "{zero}"}}}}"#), "00"),
            (format!(r#"{{"sha256": {{"24": "{zero}"}}}}"#), "no PCR 24"),
            (
                format!(r#"{{"sha384": {{"0": "{zero}"}}}}"#),
                "has 32 bytes, expected 48",
            ),
            (r#"{"sha256": {"0": "xx"}}"#.into(), "not hexadecimal"),
            (r#"{"sha257": {}}"#.into(), "sha257"),
            (r#"{"sha256": {}} {}"#.into(), "trailing"),
            ("[]".into(), "an object from banks"),
            (" ".repeat(SIZE_LIMIT + 1), "at most 65536"),
        ] {
            let error = PcrBanks::from_json(wrong.as_bytes()).unwrap_err().to_string();
            assert!(cause == "00" || error.contains(cause), "{error}");
        }
    }

    proptest! {
        #[test]
        fn reading_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = PcrBanks::from_json(&bytes);
        }
    }
}
