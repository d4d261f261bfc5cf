//! Device paths in the text form of UEFI (2.10, section 10.6): where an image was loaded from.

use std::fmt::Write as _;

use super::read::{Fields, Guid, Reason, utf16};

/// The most nodes that are read; real paths have three to eight.
const NODE_LIMIT: usize = 256;

/// A device path.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct DevicePath {
    /// Its text form, such as `PciRoot(0x0)/Pci(0x1F,0x2)/Sata(0x0,0xFFFF,0x0)/HD(1,GPT,…)/\EFI\BOOT\BOOTX64.EFI`.
    /// Names in it are as they are in the log: whoever prints them escapes them.
    pub text: String,
    /// The file in it, if it names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

impl DevicePath {
    /// Reads a path to the end of `bytes`, which firmware does not always mark.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Reason> {
        let mut path = Self::default();
        let mut fields = Fields::new(bytes);
        let mut separator = "";
        for _ in 0..NODE_LIMIT {
            if fields.rest().is_empty() {
                return Ok(path);
            }
            let kind = fields.u8("node's type")?;
            let subtype = fields.u8("node's subtype")?;
            let length = usize::from(fields.u16("node's length")?);
            let data = length.checked_sub(4).ok_or_else(|| {
                format!("a node of its device path has the length {length}, expected 4 or more")
            })?;
            let data = fields.take("device path", data)?;
            match (kind, subtype) {
                // Padding may follow; nothing of it is shown, as firmware does not look at it either.
                (0x7f, 0xff) => return Ok(path),
                (0x7f, _) => {
                    path.text.push(',');
                    separator = "";
                    continue;
                }
                _ => {}
            }
            path.text.push_str(separator);
            separator = "/";
            if (kind, subtype) == (4, 4) {
                let name = utf16(data);
                path.text.push_str(&name);
                path.file.get_or_insert_default().push_str(&name);
            } else if node(&mut path.text, kind, subtype, data).is_none() {
                // A node that is not known, or too short for what it says it is (UEFI 2.10, section 10.6.1.2).
                let _ = write!(path.text, "Path({kind},{subtype},{})", hex::encode_upper(data));
            }
        }
        Err(format!("its device path has more than {NODE_LIMIT} nodes"))
    }
}

/// Writes a node as UEFI 2.10, section 10.6.1.6, table 10.67 does.
fn node(text: &mut String, kind: u8, subtype: u8, data: &[u8]) -> Option<()> {
    let before = text.len();
    let written = match kind {
        1 => hardware(text, subtype, data),
        2 => acpi(text, subtype, data),
        3 => messaging(text, subtype, data),
        4 => media(text, subtype, data),
        5 if subtype == 1 => {
            let mut fields = Fields::new(data);
            let device = fields.u16("").ok();
            fields.u16("").ok().zip(device).and_then(|(_, device)| {
                write!(text, "BBS({device:#X},{})", super::read::narrow(fields.rest())).ok()
            })
        }
        _ => None,
    };
    if written.is_none() {
        text.truncate(before);
    }
    written
}

fn hardware(text: &mut String, subtype: u8, data: &[u8]) -> Option<()> {
    let mut fields = Fields::new(data);
    match subtype {
        1 => {
            let (function, device) = (fields.u8("").ok()?, fields.u8("").ok()?);
            write!(text, "Pci(0x{device:X},0x{function:X})").ok()
        }
        2 => write!(text, "PcCard(0x{:X})", fields.u8("").ok()?).ok(),
        3 => {
            let (kind, start, end) = (fields.u32("").ok()?, fields.u64("").ok()?, fields.u64("").ok()?);
            write!(text, "MemoryMapped(0x{kind:X},0x{start:X},0x{end:X})").ok()
        }
        4 => vendor(text, "VenHw", &mut fields),
        5 => write!(text, "Ctrl(0x{:X})", fields.u32("").ok()?).ok(),
        6 => {
            let (kind, address) = (fields.u8("").ok()?, fields.u64("").ok()?);
            write!(text, "BMC(0x{kind:X},0x{address:X})").ok()
        }
        _ => None,
    }
}

fn acpi(text: &mut String, subtype: u8, data: &[u8]) -> Option<()> {
    let mut fields = Fields::new(data);
    match subtype {
        1 => {
            let (id, unique) = (fields.u32("").ok()?, fields.u32("").ok()?);
            // The compressed form of `PNP` in the low half (ACPI 6.5, section 19.3.4).
            let name = match id {
                0x0a03_41d0 => "PciRoot",
                0x0a08_41d0 => "PcieRoot",
                0x0604_41d0 => "Floppy",
                0x0301_41d0 => "Keyboard",
                0x0501_41d0 => "Serial",
                0x0401_41d0 => "ParallelPort",
                _ => return write!(text, "Acpi({},0x{unique:X})", eisa(id)).ok(),
            };
            write!(text, "{name}(0x{unique:X})").ok()
        }
        2 => {
            let (id, unique, compatible) = (fields.u32("").ok()?, fields.u32("").ok()?, fields.u32("").ok()?);
            let mut names = fields.rest().split(|byte| *byte == 0).map(super::read::narrow);
            let (id_text, unique_text) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
            let compatible_text = names.next().unwrap_or_default();
            write!(
                text,
                "AcpiEx({},{},0x{unique:X},{id_text},{compatible_text},{unique_text})",
                eisa(id),
                eisa(compatible)
            )
            .ok()
        }
        3 => {
            let mut prefix = "AcpiAdr(";
            for _ in 0..data.len() / 4 {
                write!(text, "{prefix}0x{:X}", fields.u32("").ok()?).ok()?;
                prefix = ",";
            }
            (prefix == ",").then(|| text.push(')'))
        }
        _ => None,
    }
}

fn messaging(text: &mut String, subtype: u8, data: &[u8]) -> Option<()> {
    let mut fields = Fields::new(data);
    match subtype {
        1 => {
            let (channel, device, unit) = (fields.u8("").ok()?, fields.u8("").ok()?, fields.u16("").ok()?);
            let channel = if channel == 0 { "Primary" } else { "Secondary" };
            let device = if device == 0 { "Master" } else { "Slave" };
            write!(text, "Ata({channel},{device},0x{unit:X})").ok()
        }
        2 => write!(
            text,
            "Scsi(0x{:X},0x{:X})",
            fields.u16("").ok()?,
            fields.u16("").ok()?
        )
        .ok(),
        3 => {
            fields.u32("").ok()?;
            write!(
                text,
                "Fibre(0x{:X},0x{:X})",
                fields.u64("").ok()?,
                fields.u64("").ok()?
            )
            .ok()
        }
        5 => write!(
            text,
            "USB(0x{:X},0x{:X})",
            fields.u8("").ok()?,
            fields.u8("").ok()?
        )
        .ok(),
        10 => vendor(text, "VenMsg", &mut fields),
        11 => {
            let address = fields.take("", 32).ok()?;
            let kind = fields.u8("").ok()?;
            // Ethernet, by the numbers of RFC 3232.
            let length = if kind <= 1 { 6 } else { 32 };
            write!(text, "MAC({},0x{kind:X})", hex::encode_upper(&address[..length])).ok()
        }
        12 => {
            let local = ipv4(&mut fields)?;
            let remote = ipv4(&mut fields)?;
            fields.u32("").ok()?;
            let protocol = protocol(fields.u16("").ok()?);
            let origin = if fields.u8("").ok()? == 0 {
                "DHCP"
            } else {
                "Static"
            };
            write!(text, "IPv4({remote},{protocol},{origin},{local}").ok()?;
            if let (Some(gateway), Some(mask)) = (ipv4(&mut fields), ipv4(&mut fields)) {
                write!(text, ",{gateway},{mask}").ok()?;
            }
            text.push(')');
            Some(())
        }
        13 => {
            let local = ipv6(&mut fields)?;
            let remote = ipv6(&mut fields)?;
            fields.u32("").ok()?;
            let protocol = protocol(fields.u16("").ok()?);
            let origin = match fields.u8("").ok()? {
                0 => "Static",
                1 => "StatelessAutoConfigure",
                _ => "StatefulAutoConfigure",
            };
            write!(text, "IPv6({remote},{protocol},{origin},{local})").ok()
        }
        17 => write!(text, "Unit(0x{:X})", fields.u8("").ok()?).ok(),
        18 => {
            let (port, multiplier, unit) = (fields.u16("").ok()?, fields.u16("").ok()?, fields.u16("").ok()?);
            write!(text, "Sata(0x{port:X},0x{multiplier:X},0x{unit:X})").ok()
        }
        20 => write!(text, "Vlan({})", fields.u16("").ok()?).ok(),
        23 => {
            let namespace = fields.u32("").ok()?;
            let id = fields.take("", 8).ok()?;
            write!(text, "NVMe(0x{namespace:X},").ok()?;
            for (index, byte) in id.iter().rev().enumerate() {
                write!(text, "{}{byte:02X}", if index == 0 { "" } else { "-" }).ok()?;
            }
            text.push(')');
            Some(())
        }
        24 => write!(text, "Uri({})", String::from_utf8_lossy(data)).ok(),
        25 => write!(
            text,
            "UFS(0x{:X},0x{:X})",
            fields.u8("").ok()?,
            fields.u8("").ok()?
        )
        .ok(),
        26 => write!(text, "SD(0x{:X})", fields.u8("").ok()?).ok(),
        29 => write!(text, "eMMC(0x{:X})", fields.u8("").ok()?).ok(),
        31 => {
            fields.u8("").ok()?;
            write!(text, "Dns({})", hex::encode_upper(fields.rest())).ok()
        }
        _ => None,
    }
}

fn media(text: &mut String, subtype: u8, data: &[u8]) -> Option<()> {
    let mut fields = Fields::new(data);
    match subtype {
        1 => {
            let number = fields.u32("").ok()?;
            let (start, size) = (fields.u64("").ok()?, fields.u64("").ok()?);
            let signature = fields.guid("").ok()?;
            let (_format, kind) = (fields.u8("").ok()?, fields.u8("").ok()?);
            match kind {
                1 => {
                    let [a, b, c, d, ..] = signature.0;
                    let signature = u32::from_le_bytes([a, b, c, d]);
                    write!(text, "HD({number},MBR,0x{signature:08X},0x{start:X},0x{size:X})").ok()
                }
                2 => {
                    let signature = signature.to_string().to_uppercase();
                    write!(text, "HD({number},GPT,{signature},0x{start:X},0x{size:X})").ok()
                }
                _ => write!(text, "HD({number},{kind},0,0x{start:X},0x{size:X})").ok(),
            }
        }
        2 => {
            let (entry, start, size) = (fields.u32("").ok()?, fields.u64("").ok()?, fields.u64("").ok()?);
            write!(text, "CDROM(0x{entry:X},0x{start:X},0x{size:X})").ok()
        }
        3 => vendor(text, "VenMedia", &mut fields),
        5 => guid(text, "Media", &mut fields),
        6 => guid(text, "FvFile", &mut fields),
        7 => guid(text, "Fv", &mut fields),
        8 => {
            fields.u32("").ok()?;
            write!(
                text,
                "Offset(0x{:X},0x{:X})",
                fields.u64("").ok()?,
                fields.u64("").ok()?
            )
            .ok()
        }
        9 => {
            let (start, end) = (fields.u64("").ok()?, fields.u64("").ok()?);
            let (kind, instance) = (fields.guid("").ok()?, fields.u16("").ok()?);
            let kind = kind.to_string().to_uppercase();
            write!(text, "RamDisk(0x{start:X},0x{end:X},{instance},{kind})").ok()
        }
        _ => None,
    }
}

fn guid(text: &mut String, name: &str, fields: &mut Fields<'_>) -> Option<()> {
    let guid = fields.guid("").ok()?;
    write!(text, "{name}({})", guid.to_string().to_uppercase()).ok()
}

fn vendor(text: &mut String, name: &str, fields: &mut Fields<'_>) -> Option<()> {
    let vendor: Guid = fields.guid("").ok()?;
    write!(text, "{name}({}", vendor.to_string().to_uppercase()).ok()?;
    if !fields.rest().is_empty() {
        write!(text, ",{}", hex::encode_upper(fields.rest())).ok()?;
    }
    text.push(')');
    Some(())
}

/// A compressed EISA identifier as text, such as `PNP0A03` (ACPI 6.5, section 19.3.4).
fn eisa(id: u32) -> String {
    let letters = id & 0xffff;
    let letter = |shift: u32| char::from(b'@' + ((letters >> shift) & 0x1f) as u8);
    format!("{}{}{}{:04X}", letter(10), letter(5), letter(0), id >> 16)
}

fn ipv4(fields: &mut Fields<'_>) -> Option<std::net::Ipv4Addr> {
    let bytes: [u8; 4] = fields.take("", 4).ok()?.try_into().ok()?;
    Some(bytes.into())
}

fn ipv6(fields: &mut Fields<'_>) -> Option<std::net::Ipv6Addr> {
    let bytes: [u8; 16] = fields.take("", 16).ok()?.try_into().ok()?;
    Some(bytes.into())
}

fn protocol(number: u16) -> String {
    match number {
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        _ => format!("0x{number:X}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(kind: u8, subtype: u8, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(data.len() + 4).unwrap().to_le_bytes();
        [&[kind, subtype, length[0], length[1]], data].concat()
    }

    fn file(name: &str) -> Vec<u8> {
        let text: Vec<u8> = name
            .encode_utf16()
            .chain([0])
            .flat_map(u16::to_le_bytes)
            .collect();
        node(4, 4, &text)
    }

    fn text(nodes: &[Vec<u8>]) -> String {
        DevicePath::read(&nodes.concat()).unwrap().text
    }

    #[test]
    fn a_disk_with_a_file_reads_as_people_know_it() {
        let partition = [
            &1_u32.to_le_bytes()[..],
            &2048_u64.to_le_bytes(),
            &0x1000_u64.to_le_bytes(),
            &Guid::GLOBAL_VARIABLE.0,
            &[2, 2],
        ]
        .concat();
        let path = DevicePath::read(
            &[
                node(2, 1, &[0xd0, 0x41, 3, 0x0a, 0, 0, 0, 0]),
                node(1, 1, &[2, 0x1f]),
                node(3, 18, &[0, 0, 0xff, 0xff, 0, 0]),
                node(4, 1, &partition),
                file("\\EFI\\BOOT"),
                file("\\BOOTX64.EFI"),
                node(0x7f, 0xff, &[]),
            ]
            .concat(),
        )
        .unwrap();
        assert_eq!(
            path.text,
            "PciRoot(0x0)/Pci(0x1F,0x2)/Sata(0x0,0xFFFF,0x0)/\
             HD(1,GPT,8BE4DF61-93CA-11D2-AA0D-00E098032B8C,0x800,0x1000)/\\EFI\\BOOT/\\BOOTX64.EFI"
        );
        assert_eq!(path.file.as_deref(), Some("\\EFI\\BOOT\\BOOTX64.EFI"));
    }

    #[test]
    fn other_devices_read_as_the_specification_writes_them() {
        let memory = [
            &11_u32.to_le_bytes()[..],
            &0x100_u64.to_le_bytes(),
            &0x1ff_u64.to_le_bytes(),
        ]
        .concat();
        assert_eq!(text(&[node(1, 3, &memory)]), "MemoryMapped(0xB,0x100,0x1FF)");
        let mac = [&[0x52, 0x54, 0, 0x12, 0x34, 0x56][..], &[0; 26], &[1]].concat();
        let address = [
            &[10, 0, 2, 15, 10, 0, 2, 2, 0, 0, 0, 0, 6, 0, 0][..],
            &[10, 0, 2, 1, 255, 255, 255, 0],
        ]
        .concat();
        assert_eq!(
            text(&[
                node(3, 11, &mac),
                node(3, 12, &address),
                node(3, 24, b"http://x/y")
            ]),
            "MAC(525400123456,0x1)/IPv4(10.0.2.2,TCP,DHCP,10.0.2.15,10.0.2.1,255.255.255.0)/Uri(http://x/y)"
        );
        assert_eq!(
            text(&[node(3, 23, &[1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8])]),
            "NVMe(0x1,08-07-06-05-04-03-02-01)"
        );
        assert_eq!(text(&[node(3, 2, &[1, 0, 2, 0])]), "Scsi(0x1,0x2)");
        let guid = "605DAB50-E046-4300-ABB6-3DD810DD8B23";
        assert_eq!(text(&[node(4, 6, &Guid::SHIM_LOCK.0)]), format!("FvFile({guid})"));
        let vendor = [&Guid::SHIM_LOCK.0[..], &[1, 2]].concat();
        assert_eq!(text(&[node(1, 4, &vendor)]), format!("VenHw({guid},0102)"));
        assert_eq!(
            text(&[node(2, 1, &[0x22, 0xf0, 2, 0, 1, 0, 0, 0])]),
            "Acpi(<A@0002,0x1)".replace("<A@", &eisa(0xf022)[..3])
        );
        assert_eq!(eisa(0x0a03_41d0), "PNP0A03");
    }

    #[test]
    fn what_is_unknown_or_too_short_is_shown_in_hexadecimal() {
        assert_eq!(text(&[node(1, 1, &[2])]), "Path(1,1,02)");
        assert_eq!(text(&[node(9, 9, &[0xab])]), "Path(9,9,AB)");
        assert!(DevicePath::read(&[1, 1, 3, 0]).unwrap_err().contains("length 3"));
        assert!(
            DevicePath::read(&[1, 1, 9, 0, 0])
                .unwrap_err()
                .contains("ends inside")
        );
        assert!(
            DevicePath::read(&node(0x7f, 1, &[]).repeat(1000))
                .unwrap_err()
                .contains("256 nodes")
        );
    }
}
