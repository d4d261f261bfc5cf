//! Reading the little-endian structures inside events.

use std::fmt;

use serde::{Serialize, Serializer};

/// A sentence that says why data is not what its type says.
pub(super) type Reason = String;

/// A cursor over an event's data: never reads past the end, never allocates.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(super) fn take(&mut self, field: &'static str, length: usize) -> Result<&'a [u8], Reason> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(|| {
            format!(
                "it ends inside its {field}: {length} bytes are needed where {} are left",
                self.0.len()
            )
        })?;
        self.0 = rest;
        Ok(taken)
    }

    /// Takes as many bytes as a field of 8 bytes has said.
    pub(super) fn take_u64(&mut self, field: &'static str, length: u64) -> Result<&'a [u8], Reason> {
        self.take(field, usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Reason> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(field, N)?);
        Ok(bytes)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, Reason> {
        Ok(u8::from_le_bytes(self.array(field)?))
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, Reason> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, Reason> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, Reason> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    pub(super) fn guid(&mut self, field: &'static str) -> Result<Guid, Reason> {
        Ok(Guid(self.array(field)?))
    }

    pub(super) fn finish(&self) -> Result<(), Reason> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(format!("{left} bytes follow its end")),
        }
    }
}

/// A GUID as it is in memory: the first three fields little-endian (UEFI 2.10, appendix A).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// Of the variables that UEFI itself defines, `SecureBoot` and `BootOrder` among them (UEFI 2.10, section 3.3).
    pub const GLOBAL_VARIABLE: Self = Self::from_fields(0x8be4_df61, 0x93ca, 0x11d2, 0xaa0d_00e0_9803_2b8c);
    /// Of the lists of what may run: `db`, `dbx`, `dbt`, `dbr` (UEFI 2.10, section 32.6.1).
    pub const IMAGE_SECURITY_DATABASE: Self =
        Self::from_fields(0xd719_b2cb, 0x3d3a, 0x4596, 0xa3bc_dad0_0e67_656f);
    /// Of shim's variables.
    pub const SHIM_LOCK: Self = Self::from_fields(0x605d_ab50, 0xe046, 0x4300, 0xabb6_3dd8_10dd_8b23);

    /// From the fields of its text form, the last two read as one number.
    pub const fn from_fields(first: u32, second: u16, third: u16, last: u64) -> Self {
        let (a, b, c, d) = (
            first.to_le_bytes(),
            second.to_le_bytes(),
            third.to_le_bytes(),
            last.to_be_bytes(),
        );
        Self([
            a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7],
        ])
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g, h, i, last @ ..] = self.0;
        let [j, k, node @ ..] = last;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{j:02x}{k:02x}-",
            u32::from_le_bytes([a, b, c, d]),
            u16::from_le_bytes([e, g]),
            u16::from_le_bytes([h, i]),
        )?;
        node.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for Guid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// UTF-16 up to the first NUL or the end; what is none is replaced. An odd last byte is left out.
pub(super) fn utf16(bytes: &[u8]) -> String {
    char::decode_utf16(units(bytes).take_while(|unit| *unit != 0))
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

fn units(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
}

/// The text that bytes most likely are: UTF-8, or UTF-16 that is mostly ASCII; NULs at the end do not count. Nothing for
/// binary data.
pub(super) fn likely_text(bytes: &[u8]) -> Option<String> {
    // Many zeros are no text that happens to be empty.
    if bytes.len() > 2 && bytes.iter().all(|byte| *byte == 0) {
        return None;
    }
    if let Some(text) = narrow_text(bytes) {
        return Some(text.to_owned());
    }
    let text = utf16_string(bytes)?.0;
    let ascii = text.chars().filter(char::is_ascii).count();
    (2 * ascii >= text.chars().count()).then_some(text)
}

/// The text that bytes are if they are UTF-8, with or without NULs at the end.
pub(super) fn narrow_text(bytes: &[u8]) -> Option<&str> {
    let length = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    std::str::from_utf8(&bytes[..length])
        .ok()
        .filter(|text| is_plain(text))
}

/// The text of a string in UTF-16, and its bytes without the NUL at its end, which may be there, halfway there or not.
pub(super) fn utf16_string(bytes: &[u8]) -> Option<(String, &[u8])> {
    let length = units(bytes).position(|unit| unit == 0).unwrap_or(bytes.len() / 2);
    let (string, end) = bytes.split_at_checked(2 * length)?;
    if !matches!(end, [] | [0] | [0, 0]) {
        return None;
    }
    let text = char::decode_utf16(units(string))
        .collect::<Result<String, _>>()
        .ok()?;
    is_plain(&text).then_some((text, string))
}

fn is_plain(text: &str) -> bool {
    !text
        .chars()
        .any(|character| character.is_control() && !matches!(character, '\t' | '\n' | '\r'))
}

/// ASCII or UTF-8 up to the first NUL; what is none is replaced.
pub(super) fn narrow(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_are_written_as_the_specification_writes_them() {
        assert_eq!(
            Guid::GLOBAL_VARIABLE.to_string(),
            "8be4df61-93ca-11d2-aa0d-00e098032b8c"
        );
        assert_eq!(
            Guid([
                0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0, 0xe0, 0x98, 3, 0x2b, 0x8c
            ]),
            Guid::GLOBAL_VARIABLE
        );
    }

    #[test]
    fn text_is_told_from_bytes() {
        assert_eq!(likely_text(b"quiet\0").as_deref(), Some("quiet"));
        assert_eq!(likely_text(b"q\0u\0\0\0").as_deref(), Some("qu"));
        assert_eq!(likely_text(&[0, 0]).as_deref(), Some(""));
        assert_eq!(likely_text(&[]).as_deref(), Some(""));
        assert_eq!(likely_text(&[0xde, 0xfb, 0x6b, 0x54]), None);
        assert_eq!(likely_text(&[1, 2, 3]), None);
        assert_eq!(likely_text(&[0, 0xd8]), None);
        for end in [&[][..], &[0], &[0, 0]] {
            let bytes = [b"q\0u\0", end].concat();
            assert_eq!(utf16_string(&bytes), Some(("qu".to_owned(), &b"q\0u\0"[..])));
        }
        assert_eq!(utf16_string(b"q\0u\0\0\0x"), None);
        assert_eq!(utf16_string(b"q\0u\0x"), None);
    }
}
