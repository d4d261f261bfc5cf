//! What a bootable image measures, computed from its bytes alone.
//!
//! An image is a UKI (a unified kernel image: a PE file made of systemd-stub, a kernel, its command line and its
//! initial file system), or a raw disk with a partition table and such a file on its EFI system partition.
//! [`measure`] tells them apart.
//!
//! # Which images
//!
//! UKIs for x86-64 with systemd-stub 252 to 257 and Linux 6.1 or later (known up to 7.2), that firmware starts by
//! itself. Older versions of the stub leave PCR 11 alone; newer ones load the kernel themselves. Where versions,
//! loaders or machines could differ in what they make of an image, it is refused and the error says why: what is
//! computed is what is measured, or nothing is.
//!
//! # How each value comes about
//!
//! *H* is the hash of the bank. Each event extends its PCR: `PCR = H(PCR || digest)`, from zeros.
//!
//! | PCR | event | digest |
//! |---|---|---|
//! | 4 | *`Calling EFI Application from Boot Option`* | H of these 40 bytes |
//! | 4 | *separator* | H of four zero bytes |
//! | 4 | UKI | the Authenticode digest of the file |
//! | 4 | kernel (only where Secure Boot is off) | the Authenticode digest of `.linux`, `VirtualSize` bytes of it |
//! | 5 | *separator* | H of four zero bytes |
//! | 5 | partition table (only of disks) | H of `UEFI_GPT_DATA`: the first 92 bytes of the header in sector 1, the number of entries whose type is not zero in 8 bytes, and these entries |
//! | 5 | *`Exit Boot Services Invocation`* | H of these 29 bytes |
//! | 5 | *`Exit Boot Services Returned with Success`* | H of these 40 bytes |
//! | 9 | load options (only with `.cmdline`) | H of the command line in UTF-16, with a final NUL |
//! | 9 | initrd (only if there is anything) | H of what the stub hands to the kernel |
//! | 11 | section: name | H of the name with a final NUL, such as `.linux\0` |
//! | 11 | section: content | H of the section's first `VirtualSize` bytes |
//! | 12, 13 | none | they stay zero |
//!
//! What is in *italics* is what firmware derived from EDK II adds, whatever it boots; it is in
//! [`ImageReference::pcrs`] and not in [`ImageReference::events`]. Numbers are little-endian.
//!
//! **Authenticode digest** (Microsoft, Windows Authenticode Portable Executable Signature Format, "Calculating the PE
//! Image Hash"; EDK II, `MeasurePeImageAndExtend`): H of the headers, `SizeOfHeaders` bytes without the checksum (4
//! bytes at 64 of the optional header) and without the entry of the certificate table (8 bytes at 144); of the
//! sections with raw data, `SizeOfRawData` bytes each, in their order in the file; and of as many bytes as are then
//! left in the file without its signatures, counted from the sum of what was hashed, which is behind the last section
//! where the file has no gaps. So signing an image changes none of its values.
//!
//! **Sections** (systemd-stub(7)) are measured in the order `.linux`, `.osrel`, `.cmdline`, `.initrd`, `.ucode` (from
//! 256), `.splash`, `.dtb`, `.uname` and `.sbat` (both from 254), `.pcrpkey`, `.hwids` (from 257), for each that is
//! there and not empty: the name, then the content. The type is `EV_IPL`, the event's data the name in UTF-16.
//! `.pcrsig`, which signs these values, is not measured.
//!
//! **Command line**: `.cmdline` up to its first NUL, control characters as spaces, without spaces at the end. The
//! kernel measures it as `EV_EVENT_TAG` with the data `LOADED_IMAGE::LoadOptions`.
//!
//! **Initrd**: of `.ucode`, `.initrd`, and one archive each for `.pcrsig` (`tpm2-pcr-signature.json`), `.pcrpkey`
//! (`tpm2-pcr-public-key.pem`) and from 257 `.osrel` (`os-release`), what is there; if it is more than one, each
//! padded with zeros to a multiple of 4 bytes. An archive is a cpio in the format `newc`: the directory `.extra`
//! (inode 1, mode 040555), the file in it (inode 2, mode 100444), and the trailer, all other fields zero but for the
//! number of links, 1, and the sizes, all in lowercase but that of the trailer's name, `0000000B`. The kernel measures
//! it as `EV_EVENT_TAG` with the data `Linux initrd`, after the load options.
//!
//! # What is left to the machine
//!
//! With Secure Boot, systemd-stub has the firmware skip its checks for the kernel inside the UKI, and measuring is
//! one of them. So that event is [optional](crate::reference::ExpectedEvent::optional), and [`ImageReference::pcrs`]
//! has the values without Secure Boot. A boot entry with arguments, or a host that adds to the command line (SMBIOS),
//! shows in PCR 12; files beside the image on the EFI system partition show in 12 or 13, and a disk that has such
//! files is refused.

mod bytes;
mod command_line;
mod cpio;
mod disk;
mod error;
mod fat;
mod firmware;
mod gpt;
mod kernel;
mod pe;
mod stub;
mod uki;

use std::io::{Read, Seek};

use aicert_core::tpm::{PcrBank, PcrIndex};

use self::disk::Disk;
use self::uki::Uki;
use crate::reference::{ExpectedEvent, Hex, ImageReference, is_name};

pub use error::ImageError;

/// The largest UKI that is read, in bytes.
pub const UKI_LIMIT: u64 = 1 << 30;

/// What firmware starts from a disk that it has no boot entry for (UEFI 2.10, section 3.5.1.1).
pub const DEFAULT_PATH: &str = "\\EFI\\BOOT\\BOOTX64.EFI";

/// How an image is measured.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MeasureOptions {
    /// The image's name; without it, the one that its `.osrel` has (`IMAGE_ID` and `IMAGE_VERSION`, else
    /// `PRETTY_NAME`), else the SHA-256 of the file.
    pub name: Option<String>,
    /// Where the UKI is on a disk's EFI system partition.
    pub path: String,
    /// The version of systemd-stub, 252 to 257, as which one that is not known is to be treated. Whether that is
    /// right, only a comparison with a machine shows.
    pub assume_stub: Option<u16>,
}

impl Default for MeasureOptions {
    fn default() -> Self {
        Self {
            name: None,
            path: DEFAULT_PATH.into(),
            assume_stub: None,
        }
    }
}

/// Computes what booting a UKI or a disk image measures, whichever the file is.
///
/// # Errors
///
/// When the file is neither, or is one that nothing is computed for; see [`ImageError`].
pub fn measure<R: Read + Seek>(file: R, options: &MeasureOptions) -> Result<ImageReference, ImageError> {
    let mut disk = Disk::new(file)?;
    let head = disk.read("beginning", 0, usize::try_from(disk.length().min(8)).unwrap_or(8))?;
    let is_uki = head.starts_with(b"MZ");
    match (is_uki, gpt::is_there(&mut disk)) {
        (true, false) => measure_uki(&disk.read_all("UKI", UKI_LIMIT)?, options),
        (false, true) => measure_open_disk(disk, options),
        (is_both, _) => Err(ImageError::Unknown {
            found: if is_both {
                "`MZ`, and is a disk with a partition table at the same time".into()
            } else {
                format!("{:?}", head.escape_ascii().to_string())
            },
        }),
    }
}

/// Computes what booting a UKI measures; the disk that it lies on shows in PCR 5, which is left open.
///
/// # Errors
///
/// When it is none, or one that nothing is computed for; see [`ImageError`].
pub fn measure_uki(bytes: &[u8], options: &MeasureOptions) -> Result<ImageReference, ImageError> {
    if bytes.len() as u64 > UKI_LIMIT {
        return Err(ImageError::TooLarge {
            what: "UKI".into(),
            limit: UKI_LIMIT,
        });
    }
    let uki = Uki::measure(bytes, options)?;
    let sha256 = Hex(PcrBank::Sha256.hash(&[bytes]));
    reference(uki, sha256, None, options)
}

/// Computes what booting a raw disk image measures.
///
/// # Errors
///
/// When it has no UKI where one is looked for, or one that nothing is computed for; see [`ImageError`].
pub fn measure_disk<R: Read + Seek>(disk: R, options: &MeasureOptions) -> Result<ImageReference, ImageError> {
    measure_open_disk(Disk::new(disk)?, options)
}

fn measure_open_disk<R: Read + Seek>(
    mut disk: Disk<R>,
    options: &MeasureOptions,
) -> Result<ImageReference, ImageError> {
    let bootable = disk::open(&mut disk, &options.path)?;
    let uki = Uki::measure(&bootable.uki, options)?;
    let sha256 = disk.sha256()?;
    reference(uki, sha256, Some(bootable.table), options)
}

fn reference(
    uki: Uki,
    sha256: Hex,
    table: Option<ExpectedEvent>,
    options: &MeasureOptions,
) -> Result<ImageReference, ImageError> {
    let name = match &options.name {
        Some(name) if is_name(name) => name.clone(),
        Some(name) => return Err(ImageError::Name(name.clone())),
        None => uki
            .name
            .filter(|name| is_name(name))
            .unwrap_or_else(|| sha256.to_string()),
    };
    let events: Vec<_> = table.into_iter().chain(uki.events).collect();
    Ok(ImageReference {
        name,
        sha256,
        build: uki.build.filter(|build| is_name(build)),
        stub: Some(uki.stub),
        kernel: Some(uki.kernel),
        command_line: uki.command_line,
        pcrs: firmware::pcrs(&events),
        events,
    })
}

/// The number of a PCR that this module names.
fn pcr(index: u8) -> PcrIndex {
    PcrIndex::new(index).expect("every number in this module is below 24")
}
