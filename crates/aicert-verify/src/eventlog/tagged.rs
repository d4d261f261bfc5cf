//! Tagged events and what their tags mean.

use std::fmt;

use serde::{Serialize, Serializer};

use super::data::EventData;
use super::read::{Fields, Reason, likely_text};

/// A tag whose meaning is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tag {
    /// The Linux EFI stub: the initrd.
    LinuxInitrd,
    /// The Linux EFI stub: the command line that it was given.
    LinuxLoadOptions,
    /// systemd-boot: `loader.conf`.
    LoaderConf,
    /// systemd-stub: a device tree beside the image.
    DevicetreeAddon,
    /// systemd-stub: an initrd beside the image.
    InitrdAddon,
    /// systemd-stub: microcode beside the image.
    UcodeAddon,
    /// systemd-stub: the number of the profile that was chosen.
    UkiProfile,
    /// systemd-boot and systemd-stub: what SMBIOS says of the system.
    SmbiosSystem,
    /// systemd-boot and systemd-stub: what SMBIOS says of the board.
    SmbiosBoard,
    /// systemd-boot and systemd-stub: strings in SMBIOS, which may carry credentials.
    SmbiosStrings,
}

/// From Linux, `drivers/firmware/efi/libstub/efistub.h`; systemd, `src/fundamental/tpm2-pcr.h`, and its document "TPM2 PCR
/// Measurements Made by systemd". NvPCRs are initialised after firmware's log ends.
const TAGS: [(u32, Tag, &str); 10] = [
    (0x8f3b_22ec, Tag::LinuxInitrd, "initrd given to the kernel"),
    (0x8f3b_22ed, Tag::LinuxLoadOptions, "options given to the kernel"),
    (0xf5bc_582a, Tag::LoaderConf, "configuration of systemd-boot"),
    (0x6c46_f751, Tag::DevicetreeAddon, "device tree beside the image"),
    (0x49df_fe0f, Tag::InitrdAddon, "initrd beside the image"),
    (0xdac0_8e1a, Tag::UcodeAddon, "microcode beside the image"),
    (0x13ae_d6db, Tag::UkiProfile, "profile of the image"),
    (0xd5cb_7cbc, Tag::SmbiosSystem, "SMBIOS system information"),
    (0xe0d4_7bc8, Tag::SmbiosBoard, "SMBIOS baseboard information"),
    (0xc0b3_bd23, Tag::SmbiosStrings, "SMBIOS OEM strings"),
];

impl Tag {
    /// The tag with a number.
    pub fn from_id(id: u32) -> Option<Self> {
        TAGS.iter()
            .find_map(|(known, tag, _)| (*known == id).then_some(*tag))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = TAGS
            .iter()
            .find_map(|(_, tag, text)| (tag == self).then_some(*text));
        f.write_str(text.unwrap_or_default())
    }
}

impl Serialize for Tag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

pub(super) fn decode(raw: &[u8]) -> Result<EventData, Reason> {
    let (tag, data) = split(raw)?;
    Ok(EventData::Tagged {
        tag,
        meaning: Tag::from_id(tag),
        text: likely_text(data),
    })
}

/// The tag and the data of a tagged event. Other tags may follow, as Windows writes them.
pub(super) fn split(raw: &[u8]) -> Result<(u32, &[u8]), Reason> {
    let mut fields = Fields::new(raw);
    let tag = fields.u32("tag")?;
    let size = fields.u32("size of the tagged data")?;
    Ok((tag, fields.take_u64("tagged data", size.into())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(tag: u32, size: u32, data: &[u8]) -> Vec<u8> {
        [&tag.to_le_bytes()[..], &size.to_le_bytes(), data].concat()
    }

    #[test]
    fn known_tags_have_a_meaning_and_a_text() {
        assert_eq!(
            decode(&tagged(0x8f3b_22ec, 13, b"Linux initrd\0")).unwrap(),
            EventData::Tagged {
                tag: 0x8f3b_22ec,
                meaning: Some(Tag::LinuxInitrd),
                text: Some("Linux initrd".to_owned()),
            }
        );
        let wide: Vec<u8> = "loader.conf\0"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        let data = decode(&tagged(0xf5bc_582a, 24, &wide)).unwrap();
        assert_eq!(data.describe(), "configuration of systemd-boot: loader.conf");
    }

    #[test]
    fn sizes_that_lie_are_refused() {
        assert!(decode(&tagged(1, u32::MAX, b"x")).is_err());
        assert!(decode(&[1, 2, 3]).is_err());
    }
}
