//! Unified kernel images and disks, as small as they can be.

/// A UKI whose stub says that it is of this version.
pub fn uki(stub: &str) -> Vec<u8> {
    let magic = format!("#### LoaderInfo: systemd-stub {stub} ####\0");
    pe(
        0x300,
        &[
            (".sdmagic", magic.as_bytes()),
            (
                ".osrel",
                b"IMAGE_ID=image\nIMAGE_VERSION=1\nPRETTY_NAME=\"An image\"\n",
            ),
            (".cmdline", b"root=/dev/vda2 ro quiet"),
            (".uname", b"6.1.0-test"),
            (".sbat", b"sbat,1\n"),
            (".initrd", b"initrd"),
            (".pcrpkey", b"key"),
            (".pcrsig", b"{}"),
            (".linux", &kernel()),
        ],
    )
}

/// The headers of a bzImage: a PE file with Linux's setup header in its section.
fn kernel() -> Vec<u8> {
    let mut setup = vec![0; 0x40];
    setup[2..6].copy_from_slice(b"HdrS");
    setup[0x0e..0x10].copy_from_slice(&0x40_u16.to_le_bytes());
    setup.extend(b"6.1.0-test (fuzz) #1\0");
    pe(0x200, &[(".setup", &setup)])
}

/// A PE32+ file for x86-64 (Microsoft PE Format) with headers of this size, and with these sections.
fn pe(size_of_headers: u32, sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = vec![0; size_of_headers as usize];
    let mut put = |offset: usize, bytes: &[u8]| out[offset..][..bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &0x40_u32.to_le_bytes());
    put(0x40, b"PE\0\0");
    put(0x44, &0x8664_u16.to_le_bytes());
    put(0x46, &(sections.len() as u16).to_le_bytes());
    put(0x54, &240_u16.to_le_bytes());
    let optional = 0x58;
    put(optional, &0x020b_u16.to_le_bytes());
    put(optional + 44, &1_u16.to_le_bytes());
    put(optional + 60, &size_of_headers.to_le_bytes());
    put(optional + 68, &10_u16.to_le_bytes());
    put(optional + 108, &16_u32.to_le_bytes());
    let (mut address, mut offset) = (0x1000_u32, size_of_headers);
    for (index, (name, content)) in sections.iter().enumerate() {
        let header = optional + 240 + index * 40;
        let size = content.len() as u32;
        put(header, name.as_bytes());
        for (field, value) in [(8, size), (12, address), (16, size), (20, offset)] {
            put(header + field, &value.to_le_bytes());
        }
        address += size.next_multiple_of(0x1000);
        offset += size;
    }
    out.extend(sections.iter().flat_map(|(_, content)| content.iter()));
    out
}

const SECTOR: usize = 512;

/// A disk with the file where firmware looks for it, on FAT12, or on FAT32.
pub fn disk(file: &[u8], fat32: bool) -> Vec<u8> {
    let clusters = 4 + file.len().div_ceil(SECTOR);
    let system = file_system(file, fat32, clusters);
    let first = 3;
    let last = first + system.len() / SECTOR - 1;
    let mut disk = vec![0; first * SECTOR];
    disk[446 + 4] = 0xee;
    disk[446 + 8] = 1;
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let header = &mut disk[SECTOR..];
    header[..8].copy_from_slice(b"EFI PART");
    for (offset, value) in [(8, 0x0001_0000_u32), (12, 92), (80, 4), (84, 128)] {
        header[offset..][..4].copy_from_slice(&value.to_le_bytes());
    }
    for (offset, value) in [(24, 1), (32, last + 1), (40, first), (48, last), (72, 2)] {
        header[offset..][..8].copy_from_slice(&(value as u64).to_le_bytes());
    }
    let entry = &mut disk[2 * SECTOR..];
    entry[..16].copy_from_slice(&[
        0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
    ]);
    entry[16..32].fill(0x11);
    entry[32..40].copy_from_slice(&(first as u64).to_le_bytes());
    entry[40..48].copy_from_slice(&(last as u64).to_le_bytes());
    disk.extend(system);
    disk.resize(disk.len() + SECTOR, 0);
    repair(&mut disk);
    disk
}

/// `EFI/BOOT/BOOTX64.EFI` (Microsoft, FAT32 File System Specification 1.03).
fn file_system(file: &[u8], fat32: bool, clusters: usize) -> Vec<u8> {
    let (table_sectors, root_sectors) = (1, usize::from(!fat32));
    let data = 1 + table_sectors + root_sectors;
    let total = data + clusters;
    let mut boot = vec![0; SECTOR];
    let mut put = |offset: usize, bytes: &[u8]| boot[offset..][..bytes.len()].copy_from_slice(bytes);
    put(11, &(SECTOR as u16).to_le_bytes());
    put(13, &[1]);
    put(14, &1_u16.to_le_bytes());
    put(16, &[1]);
    put(17, &(16 * root_sectors as u16).to_le_bytes());
    put(19, &(total as u16).to_le_bytes());
    if fat32 {
        put(36, &1_u32.to_le_bytes());
        put(44, &2_u32.to_le_bytes());
    } else {
        put(22, &1_u16.to_le_bytes());
    }
    put(510, &[0x55, 0xaa]);

    // The clusters: 2 the root directory of FAT32, 3 `EFI`, 4 `BOOT`, from 5 on the file.
    let last = 4 + file.len().div_ceil(SECTOR);
    let next = |cluster: usize| {
        if (5..last).contains(&cluster) {
            cluster as u32 + 1
        } else {
            0x0fff_ffff
        }
    };
    let mut table = vec![0; table_sectors * SECTOR];
    for cluster in 0..=last {
        if fat32 {
            table[cluster * 4..][..4].copy_from_slice(&next(cluster).to_le_bytes());
        } else {
            let (place, value) = (cluster + cluster / 2, (next(cluster) & 0xfff) as u16);
            let shifted = if cluster % 2 == 0 { value } else { value << 4 };
            let old = u16::from_le_bytes([table[place], table[place + 1]]);
            table[place..][..2].copy_from_slice(&(old | shifted).to_le_bytes());
        }
    }
    let root = directory(&[entry(b"EFI        ", 0x10, 3, 0)]);
    let mut out = [boot, table].concat();
    if fat32 {
        out.extend(&root);
    } else {
        out.extend(&root);
        out.extend([0; SECTOR]);
    }
    out.extend(directory(&[entry(b"BOOT       ", 0x10, 4, 0)]));
    out.extend(directory(&[entry(b"BOOTX64 EFI", 0x20, 5, file.len() as u32)]));
    out.extend(file);
    out.resize(total * SECTOR, 0);
    out
}

fn directory(entries: &[[u8; 32]]) -> Vec<u8> {
    let mut out = entries.concat();
    out.resize(SECTOR, 0);
    out
}

fn entry(name: &[u8; 11], attributes: u8, cluster: u16, size: u32) -> [u8; 32] {
    let mut out = [0; 32];
    out[..11].copy_from_slice(name);
    out[11] = attributes;
    out[26..28].copy_from_slice(&cluster.to_le_bytes());
    out[28..].copy_from_slice(&size.to_le_bytes());
    out
}

/// Makes the checksums of a partition table right (UEFI 2.10, section 5.3.2), so that changes behind them are looked at.
pub fn repair(disk: &mut [u8]) {
    for sector in [512, 4096] {
        if disk.get(sector..sector + 8) == Some(b"EFI PART") {
            repair_at(disk, sector);
        }
    }
}

fn repair_at(disk: &mut [u8], sector: usize) -> Option<()> {
    let number = |disk: &[u8], offset: usize| {
        let bytes = disk.get(sector + offset..)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*bytes) as usize)
    };
    let length = number(disk, 80)?
        .checked_mul(number(disk, 84)?)
        .filter(|length| *length <= 1 << 16)?;
    let start = number(disk, 72)?.checked_mul(sector)?;
    let entries = crc32(disk.get(start..start.checked_add(length)?)?);
    disk.get_mut(sector + 88..)?
        .first_chunk_mut::<4>()?
        .copy_from_slice(&entries.to_le_bytes());
    let size = number(disk, 12).filter(|size| (92..=512).contains(size))?;
    let place = disk.get_mut(sector + 16..)?.first_chunk_mut::<4>()?;
    place.fill(0);
    let header = crc32(disk.get(sector..sector + size)?);
    disk.get_mut(sector + 16..)?
        .first_chunk_mut::<4>()?
        .copy_from_slice(&header.to_le_bytes());
    Some(())
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}
