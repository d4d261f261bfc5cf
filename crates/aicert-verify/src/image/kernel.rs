//! The kernel in a UKI: which it is, and what it measures.
//!
//! From `drivers/firmware/efi/libstub/efi-stub-helper.c` of Linux 6.1 and 6.12, and from boots of these and of 7.2:
//! `efi_convert_cmdline` measures the load options if there are any, `efi_load_initrd` then what it got through
//! `LINUX_EFI_INITRD_MEDIA_GUID` if that is not empty, unless `noinitrd` is in the command line. With `initrd=` in it,
//! and nothing to get, it would read a file from the disk.

use super::ImageError;
use super::bytes::{slice, u16_at, u32_at};
use super::pe::Pe;

/// The oldest version that it is known for.
const OLDEST: (u32, u32) = (6, 1);

/// A kernel whose measurements are known.
#[derive(Debug)]
pub(super) struct Kernel<'a> {
    pub(super) release: String,
    pub(super) pe: Pe<'a>,
}

impl<'a> Kernel<'a> {
    /// Reads the section `.linux`; `uname` is the section `.uname`, where there is one.
    pub(super) fn parse(linux: &'a [u8], uname: Option<&[u8]>) -> Result<Self, ImageError> {
        let pe = Pe::parse("the kernel in .linux", linux)?;
        let (release, found) = match (release(linux), uname.and_then(first_word)) {
            (Some(release), Some(uname)) if release != uname => {
                let reason = format!(
                    "the section `.uname` says that it is {uname:?}: build the image with the right release"
                );
                return Err(ImageError::Kernel {
                    found: release,
                    reason,
                });
            }
            (Some(release), _) => (release.clone(), release),
            (None, _) => {
                return Err(ImageError::Kernel {
                    found: String::new(),
                    reason: "it has no setup header with its release (`HdrS` at byte 514): expected a bzImage of Linux".into(),
                });
            }
        };
        let mut numbers = found.split(|c: char| !c.is_ascii_digit());
        let mut number = || numbers.next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let version: (u32, u32) = (number(), number());
        if version < OLDEST {
            return Err(ImageError::Kernel {
                found,
                reason: "it is known what Linux 6.1 and later measure: build the image with a newer kernel"
                    .into(),
            });
        }
        if pe.image_version() < 1 {
            return Err(ImageError::Kernel {
                found,
                reason: "its headers say that it cannot be handed an initial file system (image version below 1.0), so systemd-stub starts it in another way".into(),
            });
        }
        Ok(Self { release, pe })
    }

    /// Checks that the command line does not keep the kernel from taking what systemd-stub hands it.
    pub(super) fn check_command_line(&self, command_line: &str) -> Result<(), ImageError> {
        let word = command_line
            .split(' ')
            .map(|word| word.trim_matches('"'))
            .find(|word| *word == "noinitrd" || word.starts_with("initrd="));
        match word {
            Some(word) => Err(ImageError::Kernel {
                found: self.release.clone(),
                reason: format!(
                    "with {word:?} in its command line it takes its initial file system from elsewhere than the image: leave that out"
                ),
            }),
            None => Ok(()),
        }
    }
}

/// The release that a bzImage says it is: the first word of what its setup header points to (Linux,
/// `Documentation/arch/x86/boot.rst`, `kernel_version`).
fn release(linux: &[u8]) -> Option<String> {
    const HDRS: u32 = u32::from_le_bytes(*b"HdrS");
    if u32_at(linux, 0x202)? != HDRS {
        return None;
    }
    let offset = u64::from(u16_at(linux, 0x20e)?).checked_add(0x200)?;
    let text = slice(linux, offset, (linux.len() as u64).checked_sub(offset)?)?;
    first_word(text)
}

fn first_word(text: &[u8]) -> Option<String> {
    let text = text.get(..200).unwrap_or(text);
    let end = text.iter().position(|byte| !byte.is_ascii_graphic());
    let word = str::from_utf8(&text[..end.unwrap_or(text.len())]).ok()?;
    (!word.is_empty()).then(|| word.to_owned())
}
