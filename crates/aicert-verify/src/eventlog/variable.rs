//! Variables of UEFI: Secure Boot's keys, what is booted, what allowed it.

use super::data::{EventData, VariableValue};
use super::device_path::DevicePath;
use super::event_type::EventType;
use super::read::{Fields, Guid, Reason, likely_text, utf16};
use super::signature::Signature;
use crate::reference::Hex;

/// `UEFI_VARIABLE_DATA` (PFP 1.06, section 10.2.6).
pub(super) struct Envelope<'a> {
    pub(super) guid: Guid,
    pub(super) name: &'a [u8],
    pub(super) data: &'a [u8],
    /// All of it, without the byte that shim leaves after it: shim's `tpm.c` counts one byte too many into the size
    /// of its events, and leaves it out of the hash.
    pub(super) whole: &'a [u8],
}

impl<'a> Envelope<'a> {
    pub(super) fn read(raw: &'a [u8]) -> Result<Self, Reason> {
        let mut fields = Fields::new(raw);
        let guid = fields.guid("variable's GUID")?;
        let name_length = fields.u64("length of its name")?;
        let data_length = fields.u64("length of its data")?;
        // In characters of two bytes.
        let name = fields.take_u64("variable's name", name_length.saturating_mul(2))?;
        let data = fields.take_u64("variable's data", data_length)?;
        let left = fields.rest().len();
        if left > 1 {
            return Err(format!("{left} bytes follow the variable"));
        }
        Ok(Self {
            guid,
            name,
            data,
            whole: &raw[..raw.len() - left],
        })
    }
}

pub(super) fn decode(event_type: EventType, raw: &[u8]) -> Result<EventData, Reason> {
    let envelope = Envelope::read(raw)?;
    let name = utf16(envelope.name);
    let value = if event_type == EventType::EFI_VARIABLE_AUTHORITY {
        authority(envelope.data)
    } else {
        value(envelope.guid, &name, envelope.data)
    };
    Ok(EventData::Variable {
        guid: envelope.guid,
        name,
        value: value.unwrap_or_else(|| bytes(envelope.data)),
    })
}

fn bytes(data: &[u8]) -> VariableValue {
    if data.is_empty() {
        VariableValue::Empty {}
    } else {
        VariableValue::Bytes {
            data: Hex(data.to_vec()),
        }
    }
}

/// What shim logs like this is not always an entry of a list: `SbatLevel` is text, `MokSBState` a switch.
fn authority(data: &[u8]) -> Option<VariableValue> {
    Signature::authority(data)
        .map(|signature| VariableValue::Authority { signature })
        .or_else(|| likely_text(data).map(|text| VariableValue::Text { text }))
}

/// The value of a variable that is known; nothing for others, and for what is not as it should be: a variable holds what was
/// written into it.
fn value(guid: Guid, name: &str, data: &[u8]) -> Option<VariableValue> {
    if data.is_empty() {
        return None;
    }
    let switch = || match data {
        [0] => Some(VariableValue::Switch { on: false }),
        [1] => Some(VariableValue::Switch { on: true }),
        _ => None,
    };
    let signatures = || {
        let signatures = Signature::lists(data).ok()?;
        Some(VariableValue::Signatures { signatures })
    };
    match (guid, name) {
        (Guid::GLOBAL_VARIABLE, "SecureBoot" | "SetupMode" | "AuditMode" | "DeployedMode" | "VendorKeys") => {
            switch()
        }
        (Guid::GLOBAL_VARIABLE, "PK" | "KEK")
        | (Guid::IMAGE_SECURITY_DATABASE, "db" | "dbx" | "dbt" | "dbr")
        | (Guid::SHIM_LOCK, "MokList" | "MokListX" | "MokListRT" | "MokListXRT") => signatures(),
        (
            Guid::GLOBAL_VARIABLE,
            "BootOrder" | "DriverOrder" | "SysPrepOrder" | "BootNext" | "BootCurrent",
        ) if data.len().is_multiple_of(2) => {
            let options = data
                .chunks_exact(2)
                .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
                .collect();
            Some(VariableValue::Order { options })
        }
        (Guid::GLOBAL_VARIABLE, _) if is_load_option(name) => load_option(data).ok(),
        _ => likely_text(data).map(|text| VariableValue::Text { text }),
    }
}

/// `Boot####`, `Driver####`, `SysPrep####` (UEFI 2.10, section 3.3).
fn is_load_option(name: &str) -> bool {
    ["Boot", "Driver", "SysPrep"].iter().any(|prefix| {
        name.strip_prefix(prefix)
            .is_some_and(|number| number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_hexdigit()))
    })
}

/// `EFI_LOAD_OPTION` (UEFI 2.10, section 3.1.3).
fn load_option(data: &[u8]) -> Result<VariableValue, Reason> {
    const ACTIVE: u32 = 1;
    let mut fields = Fields::new(data);
    let attributes = fields.u32("attributes")?;
    let path_length = fields.u16("length of the device path")?;
    let characters = fields
        .rest()
        .chunks_exact(2)
        .position(|pair| pair == [0, 0])
        .ok_or("its description does not end")?;
    let description = utf16(fields.take("description", 2 * (characters + 1))?);
    let device_path = DevicePath::read(fields.take("device path", usize::from(path_length))?)?;
    let optional = fields.rest();
    let text = likely_text(optional);
    let data = (text.is_none() && !optional.is_empty()).then(|| hex::encode(optional));
    Ok(VariableValue::LoadOption {
        description,
        active: attributes & ACTIVE != 0,
        device_path,
        text,
        data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn variable(guid: Guid, name: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = guid.0.to_vec();
        bytes.extend((name.len() as u64).to_le_bytes());
        bytes.extend((data.len() as u64).to_le_bytes());
        bytes.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
        bytes.extend(data);
        bytes
    }

    fn decoded(name: &str, data: &[u8]) -> VariableValue {
        let raw = variable(Guid::GLOBAL_VARIABLE, name, data);
        match decode(EventType::EFI_VARIABLE_BOOT, &raw).unwrap() {
            EventData::Variable { value, .. } => value,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn known_variables_are_understood() {
        assert_eq!(decoded("SecureBoot", &[1]), VariableValue::Switch { on: true });
        assert_eq!(decoded("SecureBoot", &[]), VariableValue::Empty {});
        assert_eq!(
            decoded("SecureBoot", &[2]),
            VariableValue::Bytes { data: Hex(vec![2]) }
        );
        assert_eq!(
            decoded("BootOrder", &[2, 0, 1, 0]),
            VariableValue::Order { options: vec![2, 1] }
        );
        let option = [
            &[1, 0, 0, 0, 4, 0][..],
            b"G\0\0\0",
            &[0x7f, 0xff, 4, 0],
            b"q\0u\0i\0e\0t\0\0\0",
        ]
        .concat();
        match decoded("Boot0001", &option) {
            VariableValue::LoadOption {
                description,
                active: true,
                text,
                ..
            } => {
                assert_eq!((description.as_str(), text.as_deref()), ("G", Some("quiet")));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(
            decoded("Boot0001", &option[..8]),
            VariableValue::Bytes { .. }
        ));
        assert!(matches!(decoded("PK", &[1, 2]), VariableValue::Bytes { .. }));
    }

    #[test]
    fn only_shims_one_byte_may_follow() {
        let raw = variable(Guid::SHIM_LOCK, "SbatLevel", b"sbat,1,2021030218\n");
        for tail in [&[][..], &[0], &[0xaf]] {
            let data = decode(EventType::EFI_VARIABLE_AUTHORITY, &[&raw, tail].concat()).unwrap();
            assert_eq!(data.describe(), "SbatLevel is sbat,1,2021030218\\u{a}");
        }
        assert!(decode(EventType::EFI_VARIABLE_AUTHORITY, &[&raw[..], &[0, 0]].concat()).is_err());
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let mut raw = variable(Guid::GLOBAL_VARIABLE, "PK", &[]);
        raw[16..24].fill(0xff);
        assert!(Envelope::read(&raw).is_err());
        let mut raw = variable(Guid::GLOBAL_VARIABLE, "PK", &[]);
        raw[24..32].fill(0xff);
        assert!(Envelope::read(&raw).is_err());
    }
}
