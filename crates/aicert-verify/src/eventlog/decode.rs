//! From the bytes of an event to what they say.

use super::data::{EventData, Partition};
use super::device_path::DevicePath;
use super::event_type::EventType;
use super::read::{Fields, Guid, Reason, likely_text, narrow, narrow_text, utf16, utf16_string};
use super::{tagged, variable};

/// Decodes the data of an event. `pcr` helps where a type alone does not say what the data is.
pub(super) fn decode(event_type: EventType, pcr: u32, raw: &[u8]) -> EventData {
    let decoded = match event_type {
        EventType::NO_ACTION => no_action(raw),
        EventType::SEPARATOR => separator(raw),
        EventType::IPL => Ok(ipl(pcr, raw)),
        EventType::EVENT_TAG => tagged::decode(raw),
        EventType::EFI_VARIABLE_DRIVER_CONFIG
        | EventType::EFI_VARIABLE_BOOT
        | EventType::EFI_VARIABLE_BOOT2
        | EventType::EFI_VARIABLE_AUTHORITY
        | EventType::EFI_SPDM_DEVICE_POLICY
        | EventType::EFI_SPDM_DEVICE_AUTHORITY => variable::decode(event_type, raw),
        EventType::EFI_BOOT_SERVICES_APPLICATION
        | EventType::EFI_BOOT_SERVICES_DRIVER
        | EventType::EFI_RUNTIME_SERVICES_DRIVER => image(raw),
        EventType::EFI_GPT_EVENT | EventType::EFI_GPT_EVENT2 => gpt(raw),
        // What these describe is in no way theirs: firmware writes structures, names or nothing.
        EventType::EFI_PLATFORM_FIRMWARE_BLOB | EventType::S_CRTM_CONTENTS | EventType::POST_CODE => {
            Ok(firmware_blob(raw).unwrap_or_else(|_| text(raw)))
        }
        EventType::EFI_PLATFORM_FIRMWARE_BLOB2 | EventType::POST_CODE2 => {
            Ok(firmware_blob2(raw).unwrap_or_else(|_| text(raw)))
        }
        EventType::EFI_HANDOFF_TABLES | EventType::TABLE_OF_DEVICES => {
            Ok(handoff_tables(None, raw).unwrap_or_else(|_| text(raw)))
        }
        EventType::EFI_HANDOFF_TABLES2 => Ok(handoff_tables2(raw).unwrap_or_else(|_| text(raw))),
        EventType::EFI_SPDM_FIRMWARE_BLOB | EventType::EFI_SPDM_FIRMWARE_CONFIG => {
            Ok(device(raw).unwrap_or_else(|_| text(raw)))
        }
        EventType::NONHOST_INFO => Ok(gce(raw).unwrap_or_else(|| text(raw))),
        EventType::S_CRTM_VERSION => Ok(version(raw)),
        _ => Ok(text(raw)),
    };
    decoded.unwrap_or_else(|reason| EventData::Malformed { reason })
}

fn text(raw: &[u8]) -> EventData {
    likely_text(raw).map_or(EventData::Undecoded, |text| EventData::Text { text })
}

/// UTF-16, ASCII, or a GUID (PFP 1.06, section 10.4.1, EV_S_CRTM_VERSION).
fn version(raw: &[u8]) -> EventData {
    match (likely_text(raw), <[u8; 16]>::try_from(raw)) {
        (None, Ok(guid)) => EventData::Text {
            text: Guid(guid).to_string(),
        },
        _ => text(raw),
    }
}

/// PFP 1.06, section 10.4.5.
fn no_action(raw: &[u8]) -> Result<EventData, Reason> {
    let mut fields = Fields::new(raw);
    let Ok(signature) = fields.take("signature", 16) else {
        return Ok(text(raw));
    };
    match signature {
        b"StartupLocality\0" => {
            let locality = fields.u8("locality")?;
            fields.finish()?;
            match locality {
                0 | 3 | 4 => Ok(EventData::StartupLocality { locality }),
                other => Err(format!("the locality is {other}, expected 0, 3 or 4")),
            }
        }
        b"SP800-155 Event\0" => reference_manifest(1, fields),
        b"SP800-155 Event2" => reference_manifest(2, fields),
        b"SP800-155 Event3" => reference_manifest(3, fields),
        b"NvIndexInstance\0" => Ok(EventData::NvIndex {
            instance: true,
            version: fields.u16("version")?,
            description: None,
        }),
        b"NvIndexDynamic\0\0" | b"NvIndexDynamic \0" => {
            let version = fields.u16("version")?;
            fields.take("reserved bytes", 6)?;
            fields.u64("identifier")?;
            let length = fields.u16("length of the description")?;
            let description = fields.take("description", usize::from(length))?;
            Ok(EventData::NvIndex {
                instance: false,
                version,
                description: Some(narrow(description)),
            })
        }
        signature => match likely_text(raw) {
            Some(text) => Ok(EventData::Text { text }),
            None if signature.first().is_some_and(u8::is_ascii_graphic) => Ok(EventData::Note {
                signature: narrow(signature),
            }),
            None => Ok(EventData::Undecoded),
        },
    }
}

/// `TCG_Sp800_155_PlatformId_Event` and its successors (PFP 1.06, section 10.4.5.2).
fn reference_manifest(version: u8, mut fields: Fields<'_>) -> Result<EventData, Reason> {
    let vendor = fields.u32("manufacturer's number")?;
    let manifest = fields.guid("manifest's GUID")?;
    let mut platform = Vec::new();
    let mut locator = None;
    if version >= 2 {
        let names = [
            "manufacturer of the platform",
            "model of the platform",
            "version of the platform",
            "manufacturer of the firmware",
        ];
        for name in names {
            platform.push(short_text(&mut fields, name)?);
        }
        fields.u32("number of the firmware's manufacturer")?;
        platform.push(short_text(&mut fields, "version of the firmware")?);
    }
    if version >= 3 {
        let kind = fields.u32("locator's type")?;
        let length = fields.u32("locator's length")?;
        let data = fields.take_u64("locator", length.into())?;
        locator = Some(match kind {
            0 => format!("embedded, {length} bytes"),
            1 => narrow(data),
            2 => DevicePath::read(data)?.text,
            3 => {
                let (guid, name) = data.split_at_checked(16).ok_or("the locator is no variable")?;
                let guid: [u8; 16] = guid.try_into().map_err(|_| "the locator is no variable")?;
                format!("variable {}-{}", utf16(name), Guid(guid))
            }
            other => format!("locator of type {other}"),
        });
    }
    Ok(EventData::ReferenceManifest {
        version,
        vendor,
        manifest,
        platform,
        locator,
    })
}

fn short_text(fields: &mut Fields<'_>, name: &'static str) -> Result<String, Reason> {
    let length = fields.u8(name)?;
    Ok(narrow(fields.take(name, usize::from(length))?))
}

fn separator(raw: &[u8]) -> Result<EventData, Reason> {
    let bytes =
        <[u8; 4]>::try_from(raw).map_err(|_| format!("a separator has {} bytes, expected 4", raw.len()))?;
    match u32::from_le_bytes(bytes) {
        value @ (0 | 1 | u32::MAX) => Ok(EventData::Separator { value }),
        value => Err(format!(
            "the separator is {value:#010x}, expected 0, 1 or 0xffffffff"
        )),
    }
}

/// What systemd-stub calls the archives that it makes (systemd 257, `src/boot/stub.c`), in PCRs 12 and 13.
const COMPANIONS: [&str; 6] = [
    "Credentials initrd",
    "Global credentials initrd",
    "System extension initrd",
    "Global system extension initrd",
    "Configuration extension initrd",
    "Global configuration extension initrd",
];

/// What GRUB writes before the strings that it measures (GRUB 2.12, `grub-core/commands/tpm.c`).
const GRUB_COMMAND: &[u8] = b"grub_cmd: ";
const GRUB_KERNEL: &[u8] = b"kernel_cmdline: ";
const GRUB_MODULE: &[u8] = b"module_cmdline: ";

/// The part of an `EV_IPL` event of GRUB that its digest is of: the string without what is before it, and without its NUL.
pub(super) fn grub_string(raw: &[u8]) -> Option<&[u8]> {
    let string = [GRUB_COMMAND, GRUB_KERNEL, GRUB_MODULE]
        .iter()
        .find_map(|prefix| raw.strip_prefix(*prefix))?;
    Some(string.strip_suffix(&[0]).unwrap_or(string))
}

/// Whatever boot loaders measure: which PCR it is tells who did.
fn ipl(pcr: u32, raw: &[u8]) -> EventData {
    if let Some(string) = grub_string(raw) {
        let string = String::from_utf8_lossy(string).into_owned();
        return if raw.starts_with(GRUB_COMMAND) {
            EventData::GrubCommand { command: string }
        } else if raw.starts_with(GRUB_KERNEL) {
            EventData::KernelCommandLine { command_line: string }
        } else {
            EventData::GrubModule { command_line: string }
        };
    }
    // systemd writes UTF-16, everybody else ASCII. shim's events have a byte too many, which can be anything.
    let (name, is_wide) = match (narrow_text(raw), utf16_string(raw)) {
        (Some(text), _) => (text.to_owned(), false),
        (None, Some((text, _))) => (text, true),
        (None, None) => (narrow(raw), false),
    };
    match pcr {
        _ if name.is_empty() => EventData::Undecoded,
        _ if is_wide && COMPANIONS.contains(&name.as_str()) => EventData::Companion { what: name },
        // PCR 8 was systemd's before version 251.
        8 | 12 if is_wide => EventData::KernelCommandLine { command_line: name },
        11 if name.starts_with('.') => EventData::UkiSection { name },
        9 if !is_wide => EventData::File { path: name },
        14 => EventData::Shim {
            variable: narrow(raw),
        },
        _ => EventData::Text { text: name },
    }
}

/// `UEFI_IMAGE_LOAD_EVENT` (PFP 1.06, section 10.2.3).
fn image(raw: &[u8]) -> Result<EventData, Reason> {
    let mut fields = Fields::new(raw);
    let address = fields.u64("address")?;
    let length = fields.u64("length")?;
    let link_time_address = fields.u64("link time address")?;
    let path_length = fields.u64("length of the device path")?;
    let path = fields.take_u64("device path", path_length)?;
    // shim leaves up to 9 bytes: it counts the path's first byte, padded to 8, and one byte too many.
    if fields.rest().len() > 9 {
        return Err(format!("{} bytes follow the device path", fields.rest().len()));
    }
    let device_path = DevicePath::read(path)?;
    Ok(EventData::Image {
        address,
        length,
        link_time_address,
        device_path,
    })
}

/// `UEFI_GPT_DATA` (PFP 1.06, section 10.2): the table's header, then the entries that are in use.
fn gpt(raw: &[u8]) -> Result<EventData, Reason> {
    const ENTRY: usize = 128;
    let mut fields = Fields::new(raw);
    if fields.take("signature", 8)? != b"EFI PART" {
        return Err("it does not begin with `EFI PART`".to_owned());
    }
    fields.take("revision, header size, checksum and reserved bytes", 16)?;
    fields.take("block numbers", 32)?;
    let disk = fields.guid("disk's GUID")?;
    fields.u64("block of the entries")?;
    fields.u32("number of entries on disk")?;
    let size = fields.u32("size of an entry")?;
    fields.u32("entries' checksum")?;
    let count = fields.u64("number of partitions")?;
    let size = usize::try_from(size).ok().filter(|size| *size >= ENTRY);
    let size = size.ok_or_else(|| format!("an entry has fewer than {ENTRY} bytes"))?;
    let entries = fields.rest();
    if usize::try_from(count)
        .ok()
        .and_then(|count| count.checked_mul(size))
        != Some(entries.len())
    {
        return Err(format!(
            "it says that {count} partitions follow, of {size} bytes each, and {} bytes do",
            entries.len()
        ));
    }
    let partitions = entries
        .chunks_exact(size)
        .map(partition)
        .collect::<Result<_, _>>()?;
    Ok(EventData::Gpt { disk, partitions })
}

/// UEFI 2.10, section 5.3.3.
fn partition(entry: &[u8]) -> Result<Partition, Reason> {
    let mut fields = Fields::new(entry);
    Ok(Partition {
        kind: fields.guid("partition's type")?,
        id: fields.guid("partition's GUID")?,
        first_lba: fields.u64("first block")?,
        last_lba: fields.u64("last block")?,
        attributes: fields.u64("attributes")?,
        name: utf16(fields.take("partition's name", 72)?),
    })
}

/// `UEFI_PLATFORM_FIRMWARE_BLOB` (PFP 1.06, section 10.2).
fn firmware_blob(raw: &[u8]) -> Result<EventData, Reason> {
    // Names of 16 characters are likelier than addresses that spell one.
    if raw.is_ascii() && raw.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') {
        return Ok(text(raw));
    }
    let mut fields = Fields::new(raw);
    let base = fields.u64("address")?;
    let length = fields.u64("length")?;
    fields.finish()?;
    Ok(EventData::FirmwareBlob {
        description: None,
        base,
        length,
    })
}

fn firmware_blob2(raw: &[u8]) -> Result<EventData, Reason> {
    let mut fields = Fields::new(raw);
    let description = Some(short_text(&mut fields, "name")?);
    let base = fields.u64("address")?;
    let length = fields.u64("length")?;
    fields.finish()?;
    Ok(EventData::FirmwareBlob {
        description,
        base,
        length,
    })
}

/// `UEFI_HANDOFF_TABLE_POINTERS` (PFP 1.06, section 10.2).
fn handoff_tables(description: Option<String>, raw: &[u8]) -> Result<EventData, Reason> {
    const ENTRY: usize = 24;
    let mut fields = Fields::new(raw);
    let count = fields.u64("number of tables")?;
    let entries = fields.rest();
    if usize::try_from(count)
        .ok()
        .and_then(|count| count.checked_mul(ENTRY))
        != Some(entries.len())
    {
        return Err(format!(
            "it says that {count} tables follow, and {} bytes do",
            entries.len()
        ));
    }
    let tables = entries
        .chunks_exact(ENTRY)
        .map(|entry| Fields::new(entry).guid("table's GUID"))
        .collect::<Result<_, _>>()?;
    Ok(EventData::HandoffTables { description, tables })
}

fn handoff_tables2(raw: &[u8]) -> Result<EventData, Reason> {
    let mut fields = Fields::new(raw);
    let description = short_text(&mut fields, "name")?;
    handoff_tables(Some(description), fields.rest())
}

/// `DEVICE_SECURITY_EVENT_DATA_HEADER` and its successor (PFP 1.06, section 10.2.7).
fn device(raw: &[u8]) -> Result<EventData, Reason> {
    let mut fields = Fields::new(raw);
    let signature = fields.take("signature", 16)?;
    let version = fields.u16("version")?;
    let (device_type, path_length) = match (signature, version) {
        (b"SPDM Device Sec2", _) => {
            fields.take("state and length", 6)?;
            let device_type = fields.u32("type of the device")?;
            fields.take("sub header's type, length and identifier", 16)?;
            (device_type, fields.u64("length of the device path")?)
        }
        (b"SPDM Device Sec\0", _) => {
            fields.u16("length")?;
            fields.u32("hash algorithm")?;
            let device_type = fields.u32("type of the device")?;
            // `SPDM_MEASUREMENT_BLOCK` (DSP0274, section 10.11.1).
            fields.u16("measurement's index and specification")?;
            let size = fields.u16("measurement's size")?;
            fields.take("measurement", usize::from(size))?;
            (device_type, fields.u64("length of the device path")?)
        }
        _ => return Err("its signature is not known".to_owned()),
    };
    let device_path = DevicePath::read(fields.take_u64("device path", path_length)?)?;
    Ok(EventData::Device {
        version,
        device_type,
        device_path,
    })
}

/// What Compute Engine's firmware says of the machine: a signature of 16 bytes, the technology, 15 reserved bytes.
fn gce(raw: &[u8]) -> Option<EventData> {
    let rest = raw.strip_prefix(b"GCE NonHostInfo\0")?;
    match rest {
        [technology, reserved @ ..] if reserved.len() == 15 => Some(EventData::GceMemoryEncryption {
            technology: *technology,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
