//! Reference values: what a machine that runs a released image measures (RFC 9334, section 2.1, "reference values").
//!
//! A file of reference values is JSON, described in `docs/reference-values.md`. It says two things, each under a name
//! that people can read:
//!
//! * for an image, the events that booting it must leave in PCRs 4, 5, 9 and 11, in order, computed from the image
//!   file alone (see [`crate::image`]);
//! * for firmware, the values that PCRs 0 to 3 and 6 end with.
//!
//! Whoever believes such a file believes that the images in it are what their names say: get it from where the images
//! come from.

use std::collections::BTreeMap;
use std::fmt;

use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues};
use serde::{Deserialize, Serialize};

/// The largest file of reference values that is read, in bytes.
pub const SIZE_LIMIT: usize = 4 << 20;

/// The PCRs that firmware determines, whatever it boots (TCG PC Client Platform Firmware Profile 1.06, section 3.3.4).
pub const FIRMWARE_PCRS: [u8; 6] = [0, 1, 2, 3, 6, 7];

/// Those of them that firmware is recognised by at least: what drivers are measured into is among them, or firmware would
/// be recognised with any.
pub(crate) const RECOGNISED_BY: [u8; 3] = [0, 2, 3];

/// The PCRs that an image determines event by event.
pub const IMAGE_PCRS: [u8; 4] = [4, 5, 9, 11];

/// Everything that is known by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceValues {
    /// Which format this is.
    pub version: Version,
    /// The images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageReference>,
    /// The firmware.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub firmware: Vec<FirmwareReference>,
}

/// The format of a file of reference values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// The first, and only one.
    #[default]
    #[serde(rename = "aicert/reference-values/v1")]
    V1,
}

/// What booting one image measures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageReference {
    /// The name that policies and people use, such as `aicert-base 0.2.0`; unique within a file.
    pub name: String,
    /// The SHA-256 of the file that the values were computed from.
    pub sha256: Hex,
    /// What it was built from, as its `.osrel` says (`BUILD_ID`): for aicert's images, the commit of the source. It is
    /// for people who build it again; `sha256` says whether that gave the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// The version of systemd-stub in it, as its `.sdmagic` says, such as `252.39-1~deb12u1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stub: Option<String>,
    /// The release of the kernel in it, as the header of the kernel's own file says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The kernel command line in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_line: Option<String>,
    /// What it measures, in the order of measuring; only PCRs 4, 5, 9 and 11.
    pub events: Vec<ExpectedEvent>,
    /// The values that these PCRs, and those that must stay zero, have after a boot by firmware that derives from EDK II,
    /// for people who compare by hand and for evidence without a log. Checking a log goes by `events`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pcrs: BTreeMap<PcrBank, PcrValues>,
}

/// One event that booting an image leaves in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedEvent {
    /// The PCR.
    pub pcr: PcrIndex,
    /// The type's name in the TCG's specification, such as `EV_IPL`.
    pub event_type: String,
    /// What is measured, in words: `UKI`, `section .cmdline: name`, `initrd`, `partition table`.
    pub what: String,
    /// The digest in each bank.
    pub digests: Digests,
    /// Whether it may be absent, because that depends on the machine and not on the image: the kernel inside a UKI
    /// is measured by firmware only when Secure Boot is off. Never true for what only the image determines.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// The digests of one thing, by bank; SHA-1 is not among them, because it is never trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digests {
    /// SHA-256.
    pub sha256: Hex,
    /// SHA-384.
    pub sha384: Hex,
    /// SHA-512.
    pub sha512: Hex,
}

impl Digests {
    /// Hashes `data` for every bank.
    pub fn of(data: &[u8]) -> Self {
        Self::with(|bank| bank.hash(&[data]))
    }

    /// Takes each bank's digest from a function.
    pub fn with(mut digest: impl FnMut(PcrBank) -> Vec<u8>) -> Self {
        Self {
            sha256: Hex(digest(PcrBank::Sha256)),
            sha384: Hex(digest(PcrBank::Sha384)),
            sha512: Hex(digest(PcrBank::Sha512)),
        }
    }

    /// The digest in a bank; none in that of SHA-1.
    pub fn in_bank(&self, bank: PcrBank) -> Option<&[u8]> {
        match bank {
            PcrBank::Sha256 => Some(&self.sha256.0),
            PcrBank::Sha384 => Some(&self.sha384.0),
            PcrBank::Sha512 => Some(&self.sha512.0),
            _ => None,
        }
    }
}

/// Firmware that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirmwareReference {
    /// The name that people know it by, such as `OVMF 2022.11-6 (Debian 12), QEMU 7.2 q35`; unique within a file.
    pub name: String,
    /// The values that its PCRs end with, by bank: 0, 2 and 3 at least, of 0, 1, 2, 3, 6 and 7.
    pub pcrs: BTreeMap<PcrBank, PcrValues>,
}

/// Bytes; in text lowercase hexadecimal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex(pub Vec<u8>);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hex({self})")
    }
}

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        hex::decode(text.as_bytes())
            .ok()
            .filter(|_| !text.bytes().any(|byte| byte.is_ascii_uppercase()))
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom(format_args!("{text:?} is not lowercase hexadecimal")))
    }
}

/// Says why a file holds no reference values. The fault is in what the verifier was given, not in a proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// The file is too large.
    #[error("the file has more than {SIZE_LIMIT} bytes, which is no file of reference values")]
    TooLarge,
    /// It is not the JSON that it should be.
    #[error("{0}")]
    Json(String),
    /// Two entries have one name.
    #[error("there are two entries with the name {0:?}: it must be clear what is meant by a name")]
    TwiceNamed(String),
    /// An entry says something that cannot be.
    #[error("`{name}`: {reason}")]
    Entry {
        /// The entry's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl ReferenceValues {
    /// Reads a file of reference values.
    ///
    /// # Errors
    ///
    /// When it is not one, with the place; when an entry makes no sense, above all when it would recognise too much:
    /// an image without events of its own, firmware without a value for PCR 0, 2 or 3.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, ReferenceError> {
        if bytes.len() > SIZE_LIMIT {
            return Err(ReferenceError::TooLarge);
        }
        let values: Self =
            serde_json::from_slice(bytes).map_err(|error| ReferenceError::Json(error.to_string()))?;
        values.check()?;
        Ok(values)
    }

    /// Adds the entries of another file.
    ///
    /// # Errors
    ///
    /// When both use one name for different things.
    pub fn merge(&mut self, other: Self) -> Result<(), ReferenceError> {
        self.images.extend(
            other
                .images
                .into_iter()
                .filter(|image| !self.images.contains(image))
                .collect::<Vec<_>>(),
        );
        self.firmware.extend(
            other
                .firmware
                .into_iter()
                .filter(|firmware| !self.firmware.contains(firmware))
                .collect::<Vec<_>>(),
        );
        self.check()
    }

    fn check(&self) -> Result<(), ReferenceError> {
        let images = self.images.iter().map(|image| &image.name);
        let mut names: Vec<_> = images
            .chain(self.firmware.iter().map(|firmware| &firmware.name))
            .collect();
        names.sort();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ReferenceError::TwiceNamed(pair[0].clone()));
        }
        for image in &self.images {
            image.check().map_err(|reason| ReferenceError::Entry {
                name: image.name.clone(),
                reason,
            })?;
        }
        for firmware in &self.firmware {
            firmware.check().map_err(|reason| ReferenceError::Entry {
                name: firmware.name.clone(),
                reason,
            })?;
        }
        Ok(())
    }
}

impl ImageReference {
    /// The PCR that should say which image it is, and in which this entry requires no event.
    pub(crate) fn undetermined(&self) -> Option<u8> {
        let required = |pcr| {
            self.events
                .iter()
                .any(|event| event.pcr.as_u8() == pcr && !event.optional)
        };
        [4, 11].into_iter().find(|pcr| !required(*pcr))
    }

    fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        if let Some(pcr) = self.undetermined() {
            return Err(format!(
                "no event in PCR {pcr} is required: this would recognise any image"
            ));
        }
        for event in &self.events {
            let pcr = event.pcr.as_u8();
            if !IMAGE_PCRS.contains(&pcr) {
                return Err(format!(
                    "`{}` is in PCR {pcr}; an image's events are in 4, 5, 9 and 11",
                    event.what
                ));
            }
            for bank in [PcrBank::Sha256, PcrBank::Sha384, PcrBank::Sha512] {
                let found = event.digests.in_bank(bank).map_or(0, <[u8]>::len);
                if found != bank.digest_len() {
                    let expected = bank.digest_len();
                    return Err(format!(
                        "`{}` has a {bank} digest of {found} bytes, not {expected}",
                        event.what
                    ));
                }
            }
        }
        self.pcrs
            .iter()
            .try_for_each(|(bank, values)| check_lengths(*bank, values))
    }
}

impl FirmwareReference {
    fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        if self.pcrs.is_empty() {
            return Err("it has no values: this would recognise any firmware".into());
        }
        for (bank, values) in &self.pcrs {
            let has = |pcr: &u8| values.0.keys().any(|index| index.as_u8() == *pcr);
            if let Some(pcr) = RECOGNISED_BY.iter().find(|pcr| !has(pcr)) {
                return Err(format!(
                    "there is no {bank} value for PCR {pcr}: this would recognise too much"
                ));
            }
            if let Some(pcr) = values.0.keys().find(|pcr| !FIRMWARE_PCRS.contains(&pcr.as_u8())) {
                return Err(format!(
                    "PCR {pcr} is not the firmware's: those are 0, 1, 2, 3, 6 and 7"
                ));
            }
            check_lengths(*bank, values)?;
        }
        Ok(())
    }
}

/// Whether a file of reference values takes this as a name.
pub(crate) fn is_name(name: &str) -> bool {
    !name.trim().is_empty() && name.len() <= 200 && !name.chars().any(aicert_core::text::is_deceptive)
}

fn check_name(name: &str) -> Result<(), String> {
    if !is_name(name) {
        return Err("a name has 1 to 200 bytes of visible text".into());
    }
    Ok(())
}

fn check_lengths(bank: PcrBank, values: &PcrValues) -> Result<(), String> {
    match values
        .0
        .iter()
        .find(|(_, value)| value.len() != bank.digest_len())
    {
        Some((pcr, value)) => Err(format!(
            "the {bank} value of PCR {pcr} has {} bytes, not {}",
            value.len(),
            bank.digest_len()
        )),
        None if bank == PcrBank::Sha1 => Err("there are values for SHA-1, which is never trusted".into()),
        None => Ok(()),
    }
}
