//! Images made for tests, byte by byte.

use aicert_verify::image::{ImageError, MeasureOptions, measure_uki};
use aicert_verify::reference::ImageReference;

const HEADER: usize = 0x240;
const OPTIONAL: usize = HEADER + 24;
const HEADERS: usize = 0x1000;

/// One section; what is not given follows from the others.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    pub(crate) name: Vec<u8>,
    pub(crate) content: Vec<u8>,
    pub(crate) virtual_size: Option<u32>,
    pub(crate) virtual_address: Option<u32>,
    pub(crate) raw_size: Option<u32>,
    pub(crate) raw_offset: Option<u32>,
}

pub(crate) fn section(name: &str, content: impl Into<Vec<u8>>) -> Section {
    Section {
        name: name.into(),
        content: content.into(),
        virtual_size: None,
        virtual_address: None,
        raw_size: None,
        raw_offset: None,
    }
}

/// A PE file with these sections, one behind the other, in pages of 4 KiB.
pub(crate) fn pe(sections: &[Section]) -> Vec<u8> {
    let mut out = vec![0; HEADERS];
    out[..2].copy_from_slice(b"MZ");
    put(&mut out, 0x3c, &(HEADER as u32).to_le_bytes());
    put(&mut out, HEADER, b"PE\0\0");
    put(&mut out, HEADER + 4, &0x8664u16.to_le_bytes());
    put(&mut out, HEADER + 6, &(sections.len() as u16).to_le_bytes());
    put(&mut out, HEADER + 20, &240u16.to_le_bytes());
    put(&mut out, OPTIONAL, &0x020bu16.to_le_bytes());
    put(&mut out, OPTIONAL + 44, &1u16.to_le_bytes());
    put(&mut out, OPTIONAL + 60, &(HEADERS as u32).to_le_bytes());
    put(&mut out, OPTIONAL + 64, b"sum!");
    put(&mut out, OPTIONAL + 68, &10u16.to_le_bytes());
    put(&mut out, OPTIONAL + 108, &16u32.to_le_bytes());
    let mut address = HEADERS as u32;
    for (index, section) in sections.iter().enumerate() {
        let header = OPTIONAL + 240 + index * 40;
        let raw_size = section.content.len().next_multiple_of(512);
        put(&mut out, header, &section.name);
        let fields = [
            section.virtual_size.unwrap_or(section.content.len() as u32),
            section.virtual_address.unwrap_or(address),
            section.raw_size.unwrap_or(raw_size as u32),
            section.raw_offset.unwrap_or(out.len() as u32),
        ];
        for (place, field) in fields.into_iter().enumerate() {
            put(&mut out, header + 8 + place * 4, &field.to_le_bytes());
        }
        out.extend(&section.content);
        out.resize(out.len().next_multiple_of(512), 0);
        address = (address + raw_size as u32).next_multiple_of(0x1000);
    }
    out
}

pub(crate) fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    bytes[offset..offset + value.len()].copy_from_slice(value);
}

/// The offset of a data directory's entry.
pub(crate) fn directory(index: usize) -> usize {
    OPTIONAL + 112 + index * 8
}

/// The offset of a field of the optional header.
pub(crate) fn optional(offset: usize) -> usize {
    OPTIONAL + offset
}

/// The offset of the file header.
pub(crate) const FILE_HEADER: usize = HEADER + 4;

/// A PE file that says it is a bzImage of this release.
pub(crate) fn kernel(release: &str) -> Vec<u8> {
    let mut out = pe(&[section(".text", format!("{release} (builder@tests) #1\0code"))]);
    put(&mut out, 0x202, b"HdrS");
    put(&mut out, 0x20e, &(HEADERS as u16 - 0x200).to_le_bytes());
    out
}

pub(crate) const RELEASE: &str = "6.1.0-tests";

/// The sections of an ordinary image, made with this version of the stub.
pub(crate) fn sections(stub: &str) -> Vec<Section> {
    vec![
        section(".sdmagic", format!("#### LoaderInfo: systemd-stub {stub} ####\0")),
        section(".sbat", "sbat,1\n"),
        section(".osrel", "NAME=x\nPRETTY_NAME=\"Image of tests\"\n"),
        section(".uname", RELEASE),
        section(".cmdline", "console=ttyS0 quiet\n"),
        section(".linux", kernel(RELEASE)),
        section(".initrd", "a file system of 30 bytes, +2!"),
    ]
}

/// Those sections with one more, or with another content.
pub(crate) fn with(stub: &str, name: &str, content: impl Into<Vec<u8>>) -> Vec<Section> {
    let mut sections = sections(stub);
    match sections
        .iter_mut()
        .find(|section| section.name == name.as_bytes())
    {
        Some(section) => section.content = content.into(),
        None => sections.push(section(name, content)),
    }
    sections
}

pub(crate) fn without(stub: &str, name: &str) -> Vec<Section> {
    let mut sections = sections(stub);
    sections.retain(|section| section.name != name.as_bytes());
    sections
}

pub(crate) fn measured(sections: &[Section]) -> Result<ImageReference, ImageError> {
    measure_uki(&pe(sections), &MeasureOptions::default())
}

/// What is wrong with an image.
pub(crate) fn fault(sections: &[Section]) -> String {
    measured(sections)
        .expect_err("this image must be refused")
        .to_string()
}

/// A disk with 512-byte sectors and a FAT12 system partition that has these files (`/`-separated, short names).
pub(crate) fn disk(files: &[(&str, &[u8])]) -> Vec<u8> {
    const SECTORS: usize = 2048;
    let mut disk = vec![0; (64 + SECTORS + 64) * 512];
    put(&mut disk, 446 + 4, &[0xee]);
    put(&mut disk, 446 + 8, &1u32.to_le_bytes());
    put(&mut disk, 510, &[0x55, 0xaa]);
    let entry = 1024 + 128; // the second entry: the first is empty
    let esp = hex::decode("28732ac11ff8d211ba4b00a0c93ec93b").unwrap();
    put(&mut disk, entry, &esp);
    put(&mut disk, entry + 16, &[7; 16]);
    put(&mut disk, entry + 32, &64u64.to_le_bytes());
    put(&mut disk, entry + 40, &(64 + SECTORS as u64 - 1).to_le_bytes());
    put(&mut disk, 512, b"EFI PART\0\0\x01\0");
    for (offset, value) in [(12, 92u64), (24, 1), (72, 2), (80, 128), (84, 128)] {
        put(&mut disk, 512 + offset, &value.to_le_bytes()[..4]);
    }
    seal(&mut disk);
    let partition = file_system(files, SECTORS);
    put(&mut disk, 64 * 512, &partition);
    disk
}

/// Computes the checksums of a disk's partition table again.
pub(crate) fn seal(disk: &mut [u8]) {
    let entries = crc32(&disk[1024..1024 + 128 * 128]);
    put(disk, 512 + 88, &entries.to_le_bytes());
    put(disk, 512 + 16, &[0; 4]);
    let header = crc32(&disk[512..512 + 92]);
    put(disk, 512 + 16, &header.to_le_bytes());
}

fn crc32(bytes: &[u8]) -> u32 {
    let table: Vec<u32> = (0..256u32)
        .map(|byte| {
            (0..8).fold(byte, |crc, _| {
                if crc & 1 == 1 {
                    crc >> 1 ^ 0xedb8_8320
                } else {
                    crc >> 1
                }
            })
        })
        .collect();
    !bytes
        .iter()
        .fold(!0u32, |crc, byte| table[(crc as u8 ^ byte) as usize] ^ crc >> 8)
}

/// Where the parts of the forged file system are on the disk.
pub(crate) const FAT: usize = 65 * 512;
pub(crate) const ROOT: usize = FAT + 6 * 512;
pub(crate) const DATA: usize = ROOT + 512;

fn file_system(files: &[(&str, &[u8])], sectors: usize) -> Vec<u8> {
    let mut out = vec![0; sectors * 512];
    for (offset, value) in [
        (11, 512u16),
        (13, 1),
        (14, 1),
        (17, 16),
        (19, sectors as u16),
        (22, 6),
        (510, 0xaa55),
    ] {
        put(&mut out, offset, &value.to_le_bytes());
    }
    out[13] = 1;
    out[16] = 1;
    let (fat, root, data) = (512, 7 * 512, 8 * 512);
    let mut next = 2;
    let mut folders: Vec<(String, usize)> = vec![(String::new(), root)];
    let mut chain = |out: &mut Vec<u8>, count: usize| {
        let first = next;
        for cluster in first..first + count {
            let value = if cluster + 1 == first + count {
                0xfff
            } else {
                cluster + 1
            };
            let place = fat + cluster * 3 / 2;
            let pair = u16::from_le_bytes([out[place], out[place + 1]]);
            let pair = if cluster % 2 == 0 {
                pair & 0xf000 | value as u16
            } else {
                pair & 0x000f | (value as u16) << 4
            };
            put(out, place, &pair.to_le_bytes());
        }
        next += count;
        first
    };
    let add = |out: &mut Vec<u8>, folder: usize, name: &str, attributes: u8, cluster: usize, size: usize| {
        let place = (folder..).step_by(32).find(|place| out[*place] == 0).unwrap();
        let (name, extension) = name.split_once('.').unwrap_or((name, ""));
        put(
            out,
            place,
            format!("{name:<8}{extension:<3}").to_uppercase().as_bytes(),
        );
        out[place + 11] = attributes;
        put(out, place + 26, &(cluster as u16).to_le_bytes());
        put(out, place + 28, &(size as u32).to_le_bytes());
    };
    for (path, content) in files {
        let mut parent = String::new();
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            let here = format!("{parent}/{part}");
            if !folders.iter().any(|(known, _)| *known == here) {
                let place = folders.iter().find(|(known, _)| *known == parent).unwrap().1;
                let cluster = chain(&mut out, 1);
                add(&mut out, place, part, 0x10, cluster, 0);
                folders.push((here.clone(), data + (cluster - 2) * 512));
            }
            parent = here;
        }
        let place = folders.iter().find(|(known, _)| *known == parent).unwrap().1;
        let cluster = chain(&mut out, content.len().div_ceil(512));
        add(&mut out, place, name, 0x20, cluster, content.len());
        put(&mut out, data + (cluster - 2) * 512, content);
    }
    out
}
