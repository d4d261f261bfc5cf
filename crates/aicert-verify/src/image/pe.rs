//! PE files as firmware reads them: sections, and the digest that is measured.
//!
//! What is refused here is what EDK II's loader refuses (`BasePeCoffLib`), and besides what its measuring and other
//! implementations treat differently: overlaps, above all.

use aicert_core::tpm::PcrBank;

use super::ImageError;
use super::bytes::{slice, u16_at, u32_at};
use crate::reference::Digests;

const SECTION_HEADER: usize = 40;
/// `IMAGE_FILE_MACHINE_AMD64` (Microsoft PE Format, "Machine Types").
const AMD64: u16 = 0x8664;
/// The optional header of PE32+ ("Optional Header Standard Fields").
const PE32_PLUS: u16 = 0x020b;
/// `IMAGE_SUBSYSTEM_EFI_APPLICATION` ("Windows Subsystem").
const EFI_APPLICATION: u16 = 10;
/// Where the fields of the optional header are in PE32+ ("Optional Header Windows-Specific Fields").
const SIZE_OF_HEADERS: usize = 60;
const CHECKSUM: usize = 64;
const SUBSYSTEM: usize = 68;
const DIRECTORY_COUNT: usize = 108;
const DIRECTORIES: usize = 112;
/// The indices of two data directories ("Optional Header Data Directories").
const CERTIFICATES: usize = 4;
const RELOCATIONS: usize = 5;

/// A PE file for x86-64 that firmware starts as an application.
#[derive(Debug)]
pub(super) struct Pe<'a> {
    file: &'static str,
    bytes: &'a [u8],
    /// Where the optional header begins.
    optional: usize,
    directories: usize,
    size_of_headers: usize,
    pub(super) sections: Vec<Section<'a>>,
}

/// One section, in the order of the section table.
#[derive(Debug, Clone)]
pub(super) struct Section<'a> {
    /// Its name up to the first NUL.
    pub(super) name: &'a [u8],
    /// Where its header is in the file.
    header: usize,
    virtual_size: u32,
    pub(super) virtual_address: u32,
    raw_size: u32,
    raw_offset: u32,
}

impl Section<'_> {
    pub(super) fn display_name(&self) -> String {
        self.name.escape_ascii().to_string()
    }

    /// Where it ends in memory.
    fn end(&self) -> u64 {
        let size = if self.virtual_size == 0 {
            self.raw_size
        } else {
            self.virtual_size
        };
        u64::from(self.virtual_address) + u64::from(size)
    }
}

impl<'a> Pe<'a> {
    /// Reads the headers of `bytes`, which errors call `file`.
    pub(super) fn parse(file: &'static str, bytes: &'a [u8]) -> Result<Self, ImageError> {
        let fault = |offset: usize, reason: String| ImageError::Pe {
            file,
            offset: offset as u64,
            reason,
        };
        let cut = |offset: usize, what: &str| fault(offset, format!("it ends inside its {what}"));
        if bytes.get(..2) != Some(b"MZ") {
            return Err(fault(0, "it does not begin with `MZ`".into()));
        }
        let header = u32_at(bytes, 0x3c).ok_or_else(|| cut(0x3c, "DOS header"))? as usize;
        if slice(bytes, header as u64, 4) != Some(b"PE\0\0") {
            return Err(fault(
                header,
                "there is no `PE\\0\\0`, where byte 0x3c points to".into(),
            ));
        }
        // No overflow here and below: `header` is inside the file, and what is added is below 2^17.
        let coff = header + 4;
        let field = |offset| u16_at(bytes, coff + offset).ok_or_else(|| cut(coff, "file header"));
        let (machine, count, optional_size) = (field(0)?, usize::from(field(2)?), usize::from(field(16)?));
        if machine != AMD64 {
            let reason = format!(
                "the machine type is {machine:#06x}; expected 0x8664: this computes for x86-64 alone"
            );
            return Err(fault(coff, reason));
        }
        let optional = coff + 20;
        let magic = u16_at(bytes, optional).ok_or_else(|| cut(optional, "optional header"))?;
        if magic != PE32_PLUS {
            return Err(fault(
                optional,
                format!("the optional header's magic is {magic:#06x}; expected 0x020b (PE32+)"),
            ));
        }
        let number =
            |offset| u32_at(bytes, optional + offset).ok_or_else(|| cut(optional, "optional header"));
        let directories = number(DIRECTORY_COUNT)? as usize;
        if directories > 16 || optional_size != DIRECTORIES + directories * 8 {
            let reason = format!(
                "the optional header has {optional_size} bytes, and {directories} data directories, which do not fit together"
            );
            return Err(fault(optional, reason));
        }
        let subsystem =
            u16_at(bytes, optional + SUBSYSTEM).ok_or_else(|| cut(optional, "optional header"))?;
        if subsystem != EFI_APPLICATION {
            let reason = format!(
                "the subsystem is {subsystem}; expected 10 (EFI application): others are measured elsewhere than in PCR 4"
            );
            return Err(fault(optional + SUBSYSTEM, reason));
        }
        let size_of_headers = number(SIZE_OF_HEADERS)? as usize;
        let table = optional + optional_size;
        if size_of_headers > bytes.len() || table + count * SECTION_HEADER > size_of_headers {
            let reason = format!(
                "the headers are said to have {size_of_headers} bytes, of {} in the file; {count} section headers begin at {table}",
                bytes.len()
            );
            return Err(fault(optional + SIZE_OF_HEADERS, reason));
        }
        let sections = (0..count)
            .filter_map(|index| Section::parse(bytes, table + index * SECTION_HEADER))
            .collect();
        let pe = Self {
            file,
            bytes,
            optional,
            directories,
            size_of_headers,
            sections,
        };
        pe.check_file_extents()?;
        Ok(pe)
    }

    fn fault(&self, offset: u64, reason: String) -> ImageError {
        ImageError::Pe {
            file: self.file,
            offset,
            reason,
        }
    }

    /// Checks that the sections are in the file, behind its headers, and none within another.
    fn check_file_extents(&self) -> Result<(), ImageError> {
        let mut end = (self.size_of_headers as u64, "the headers".to_owned());
        for section in self.in_file_order() {
            let name = section.display_name();
            let start = u64::from(section.raw_offset);
            if start < end.0 {
                let reason = format!(
                    "section {name:?} begins at byte {start} of the file, inside of {}",
                    end.1
                );
                return Err(self.fault(section.header as u64, reason));
            }
            if (section.virtual_address as usize) < self.size_of_headers {
                let reason = format!(
                    "section {name:?} begins at address {:#x} of the memory, inside of the headers",
                    section.virtual_address
                );
                return Err(self.fault(section.header as u64, reason));
            }
            end = (start + u64::from(section.raw_size), format!("{name:?}"));
            if end.0 > self.bytes.len() as u64 {
                let reason = format!("section {name:?} ends at byte {} of {}", end.0, self.bytes.len());
                return Err(self.fault(section.header as u64, reason));
            }
        }
        Ok(())
    }

    /// Checks what the loader makes of the file: no section covers another, and nothing that is measured is changed by
    /// the addresses that the loader puts into it.
    pub(super) fn check_memory(&self, measured: &[&Section<'_>]) -> Result<(), ImageError> {
        let mut sections: Vec<_> = self
            .sections
            .iter()
            .filter(|section| section.end() > u64::from(section.virtual_address))
            .collect();
        sections.sort_by_key(|section| section.virtual_address);
        for pair in sections.windows(2) {
            if let [one, other] = pair
                && one.end() > u64::from(other.virtual_address)
            {
                let reason = format!(
                    "section {:?} begins at address {:#x}, inside of {:?}, which ends at {:#x}",
                    other.display_name(),
                    other.virtual_address,
                    one.display_name(),
                    one.end()
                );
                return Err(self.fault(other.header as u64, reason));
            }
        }
        self.check_relocations(measured)
    }

    /// Reads the base relocations ("The .reloc Section"); each changes up to 8 bytes.
    fn check_relocations(&self, measured: &[&Section<'_>]) -> Result<(), ImageError> {
        let Some((address, size)) = self.directory(RELOCATIONS).filter(|(_, size)| *size > 0) else {
            return Ok(());
        };
        let outside = || {
            self.fault(
                self.optional as u64,
                format!("{size} bytes of base relocations at address {address:#x} are in no section"),
            )
        };
        let section = self
            .sections
            .iter()
            .find(|section| (u64::from(section.virtual_address)..section.end()).contains(&u64::from(address)))
            .ok_or_else(outside)?;
        let mut offset = u64::from(section.raw_offset) + u64::from(address - section.virtual_address);
        let raw_end = u64::from(section.raw_offset) + u64::from(section.raw_size);
        let end = offset + u64::from(size);
        if end > raw_end {
            return Err(outside());
        }
        while end - offset >= 8 {
            let block = slice(self.bytes, offset, end - offset).ok_or_else(outside)?;
            let (page, length) = (u32_at(block, 0), u32_at(block, 4).map(u64::from));
            let (Some(page), Some(length)) = (page, length) else {
                return Err(outside());
            };
            if length < 8 || length > end - offset {
                let reason = format!("a block of base relocations is said to have {length} bytes");
                return Err(self.fault(offset, reason));
            }
            let entries = slice(block, 8, length - 8).ok_or_else(outside)?;
            for entry in entries.as_chunks::<2>().0 {
                let entry = u16::from_le_bytes(*entry);
                let changed = u64::from(page) + u64::from(entry & 0x0fff);
                let hit = measured.iter().find(|section| {
                    entry >> 12 != 0
                        && changed + 8 > u64::from(section.virtual_address)
                        && changed < section.end()
                });
                if let Some(hit) = hit {
                    let reason = format!(
                        "a base relocation changes section {:?} at address {changed:#x}, so that it depends on the machine what is measured",
                        hit.display_name()
                    );
                    return Err(self.fault(offset, reason));
                }
            }
            offset += length;
        }
        Ok(())
    }

    /// What a section has in memory, all of which must be in the file.
    pub(super) fn content(&self, section: &Section<'_>) -> Result<&'a [u8], ImageError> {
        if section.virtual_size > section.raw_size {
            return Err(ImageError::Section {
                name: section.display_name(),
                reason: format!(
                    "it has {} bytes in memory, and {} in the file: build the image again with all of it",
                    section.virtual_size, section.raw_size
                ),
            });
        }
        slice(
            self.bytes,
            u64::from(section.raw_offset),
            u64::from(section.virtual_size),
        )
        .ok_or_else(|| self.fault(section.header as u64, "it is not in the file".into()))
    }

    /// The major version that its headers give it, which a kernel uses to say what it can do.
    pub(super) fn image_version(&self) -> u16 {
        u16_at(self.bytes, self.optional + 44).unwrap_or(0)
    }

    /// The digest that firmware measures, in each bank: that of Authenticode.
    ///
    /// # Errors
    ///
    /// When the signatures are not at the file's end, because then it is not clear what is hashed.
    pub(super) fn digests(&self) -> Result<Digests, ImageError> {
        let parts = self.hashed_parts()?;
        Ok(Digests::with(|bank: PcrBank| bank.hash(&parts)))
    }

    /// What is hashed (Windows Authenticode Portable Executable Signature Format, "Calculating the PE Image Hash"; the
    /// numbers are those of its steps and of EDK II's `MeasurePeImageAndExtend`).
    fn hashed_parts(&self) -> Result<Vec<&'a [u8]>, ImageError> {
        let bytes = self.bytes;
        let part = |from: usize, to: usize| bytes.get(from..to).unwrap_or_default();
        let checksum = self.optional + CHECKSUM;
        // 3 and 4: up to the checksum; 5 to 7: behind it, up to the entry of the certificate table.
        let mut parts = vec![part(0, checksum)];
        let mut signatures = 0;
        match self.directory(CERTIFICATES) {
            Some((offset, size)) => {
                let entry = self.optional + DIRECTORIES + CERTIFICATES * 8;
                parts.push(part(checksum + 4, entry));
                // 8 and 9: behind that entry, up to the end of the headers.
                parts.push(part(entry + 8, self.size_of_headers));
                signatures = u64::from(size);
                if size > 0 && u64::from(offset) + signatures != bytes.len() as u64 {
                    let reason = format!(
                        "{size} bytes of signatures begin at byte {offset} and do not end where the file ends, at byte {}",
                        bytes.len()
                    );
                    return Err(self.fault(entry as u64, reason));
                }
            }
            None => parts.push(part(checksum + 4, self.size_of_headers)),
        }
        // 10 to 15: the sections.
        let mut hashed = self.size_of_headers as u64;
        for section in self.in_file_order() {
            let content = slice(bytes, u64::from(section.raw_offset), u64::from(section.raw_size));
            parts.push(content.unwrap_or_default());
            hashed += u64::from(section.raw_size);
        }
        // 16: what is left, counted by bytes and not by place.
        let end = (bytes.len() as u64).checked_sub(signatures);
        match end.and_then(|end| end.checked_sub(hashed)) {
            Some(length) => parts.push(slice(bytes, hashed, length).unwrap_or_default()),
            None => {
                let reason = format!("{signatures} bytes of signatures reach into the sections");
                return Err(self.fault(self.optional as u64, reason));
            }
        }
        Ok(parts)
    }

    fn in_file_order(&self) -> Vec<&Section<'a>> {
        let mut sections: Vec<_> = self
            .sections
            .iter()
            .filter(|section| section.raw_size > 0)
            .collect();
        sections.sort_by_key(|section| section.raw_offset);
        sections
    }

    /// The address and size that a data directory gives, if there is such a directory.
    fn directory(&self, index: usize) -> Option<(u32, u32)> {
        let entry = self.optional + DIRECTORIES + index * 8;
        (index < self.directories)
            .then(|| Some((u32_at(self.bytes, entry)?, u32_at(self.bytes, entry + 4)?)))
            .flatten()
    }
}

impl<'a> Section<'a> {
    fn parse(bytes: &'a [u8], header: usize) -> Option<Self> {
        let name = bytes.get(header..header.checked_add(8)?)?;
        let length = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        Some(Self {
            name: &name[..length],
            header,
            virtual_size: u32_at(bytes, header + 8)?,
            virtual_address: u32_at(bytes, header + 12)?,
            raw_size: u32_at(bytes, header + 16)?,
            raw_offset: u32_at(bytes, header + 20)?,
        })
    }
}
