//! The firmware's variables, as EDK II keeps them in flash memory: what to boot, and with what options.

use super::disk::{BOOT_FILE, PARTITION, PARTITION_SIZE, PARTITION_START};

/// After the header of the firmware volume (UEFI PI 1.8, volume 3, section 3.2.1) with its two block map entries comes the
/// header of the store, which begins with `gEfiAuthenticatedVariableGuid` (EDK II, MdeModulePkg/Include/Guid/VariableFormat.h).
const STORE: usize = 0x48;
const STORE_HEADER: usize = 28;
const AUTHENTICATED_VARIABLES: &str = "AAF32C78-947B-439A-A180-2E144EC37792";

/// `EFI_GLOBAL_VARIABLE` (UEFI 2.10, section 3.3).
const GLOBAL: &str = "8BE4DF61-93CA-11D2-AA0D-00E098032B8C";

/// Takes a template without variables, and puts a boot entry for the image into it that gives these options to it; does
/// nothing without options: firmware then finds the image by itself.
pub(super) fn with_boot_entry(mut flash: Vec<u8>, options: Option<&str>) -> Vec<u8> {
    let Some(options) = options else { return flash };
    let begin = STORE + STORE_HEADER;
    let empty = flash.get(STORE..STORE + 16) == Some(&guid(AUTHENTICATED_VARIABLES))
        && flash.get(begin..begin + 2) == Some(&[0xff; 2]);
    assert!(empty, "the firmware's variables are not an empty store of EDK II");
    let variables = [
        variable("Boot0000", &load_option(options)),
        variable("BootOrder", &0u16.to_le_bytes()),
    ]
    .concat();
    flash[begin..begin + variables.len()].copy_from_slice(&variables);
    flash
}

/// `AUTHENTICATED_VARIABLE_HEADER`, name and data, up to where the next one begins.
fn variable(name: &str, data: &[u8]) -> Vec<u8> {
    const START: u16 = 0x55aa;
    const ADDED: u8 = 0x3f;
    const NON_VOLATILE_BOOT_RUNTIME: u32 = 7;
    let name = utf16(name);
    let mut bytes = START.to_le_bytes().to_vec();
    bytes.extend([ADDED, 0]);
    bytes.extend(NON_VOLATILE_BOOT_RUNTIME.to_le_bytes());
    bytes.extend([0; 8 + 16 + 4]); // count, time and key, which are for those with signatures
    bytes.extend(length(&name).to_le_bytes());
    bytes.extend(length(data).to_le_bytes());
    bytes.extend(guid(GLOBAL));
    bytes.extend(name);
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(4), 0xff);
    bytes
}

/// `EFI_LOAD_OPTION` (UEFI 2.10, section 3.1.3).
fn load_option(options: &str) -> Vec<u8> {
    const ACTIVE: u32 = 1;
    let path = device_path();
    let mut bytes = ACTIVE.to_le_bytes().to_vec();
    bytes.extend((path.len() as u16).to_le_bytes());
    bytes.extend(utf16("image"));
    bytes.extend(path);
    bytes.extend(utf16(options));
    bytes
}

/// Partition and file (UEFI 2.10, sections 10.3.5.1, 10.3.5.4 and 10.3.1).
fn device_path() -> Vec<u8> {
    const MEDIA: u8 = 4;
    let node = |kind: u8, subtype: u8, data: &[u8]| {
        let size = (data.len() + 4) as u16;
        [&[kind, subtype][..], &size.to_le_bytes(), data].concat()
    };
    let mut drive = 1u32.to_le_bytes().to_vec();
    drive.extend(PARTITION_START.to_le_bytes());
    drive.extend(PARTITION_SIZE.to_le_bytes());
    drive.extend(guid(PARTITION));
    drive.extend([2, 2]); // a GUID partition table, named by GUID
    [
        node(MEDIA, 1, &drive),
        node(MEDIA, 4, &utf16(&BOOT_FILE.replace('/', "\\"))),
        node(0x7f, 0xff, &[]),
    ]
    .concat()
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("variables are short")
}

/// With a terminating zero.
fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16()
        .chain([0])
        .flat_map(u16::to_le_bytes)
        .collect()
}

/// `EFI_GUID`: the first three groups are little-endian numbers (UEFI 2.10, appendix A).
fn guid(text: &str) -> [u8; 16] {
    let mut bytes: [u8; 16] = hex::decode(text.replace('-', ""))
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .expect("GUIDs here are well-formed");
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes
}
