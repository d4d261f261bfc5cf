//! Files on an EFI system partition (Microsoft, FAT32 File System Specification 1.03; UEFI 2.10, section 13.3).

use std::io::{Read, Seek};
use std::ops::Range;

use super::ImageError;
use super::bytes::{u16_at, u32_at};
use super::disk::Disk;

/// The most bytes that a directory may have: 65,536 entries.
const DIRECTORY_LIMIT: u64 = 2 << 20;
/// How much of the allocation table is read at once.
const WINDOW: u64 = 64 << 10;
const ENTRY: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fat12,
    Fat16,
    Fat32,
}

/// A FAT file system that is only read.
pub(super) struct FileSystem<'d, R> {
    disk: &'d mut Disk<R>,
    start: u64,
    kind: Kind,
    /// Where the first allocation table is, on the disk.
    table: Range<u64>,
    root: Root,
    /// Where the first cluster is, on the disk; it has the number 2.
    data: u64,
    cluster_size: u64,
    /// The highest cluster number, and one more.
    cluster_end: u32,
    /// A part of the allocation table, and where it is on the disk.
    window: (u64, Vec<u8>),
}

/// Where the root directory is.
#[derive(Debug, Clone, Copy)]
enum Root {
    /// In a place of its own, on the disk.
    Fixed { offset: u64, length: u64 },
    /// In a chain of clusters.
    Chain(u32),
}

/// An entry of a directory.
#[derive(Debug, Clone)]
struct Entry {
    /// The names that it goes by: the long one, if there is one, and the short one.
    names: Vec<String>,
    is_directory: bool,
    cluster: u32,
    size: u32,
}

impl<'d, R: Read + Seek> FileSystem<'d, R> {
    /// Opens the file system in a part of the disk.
    pub(super) fn open(disk: &'d mut Disk<R>, partition: Range<u64>) -> Result<Self, ImageError> {
        let start = partition.start;
        let fault = |offset: u64, reason: String| ImageError::FileSystem {
            offset: start.saturating_add(offset),
            reason,
        };
        let boot = disk.read("EFI system partition", start, 512)?;
        // 512 bytes were read, and each of these fields ends before byte 48.
        let short = |offset| u64::from(u16_at(&boot, offset).unwrap_or(0));
        let long = |offset| u64::from(u32_at(&boot, offset).unwrap_or(0));
        let (sector, per_cluster, tables) = (short(11), u64::from(boot[13]), u64::from(boot[16]));
        if short(510) != 0xaa55
            || ![512, 1024, 2048, 4096].contains(&sector)
            || !per_cluster.is_power_of_two()
            || short(14) == 0
            || tables == 0
        {
            let reason = format!(
                "it does not begin as FAT does: sectors of {sector} bytes, {per_cluster} per cluster, {} reserved, {tables} allocation tables",
                short(14)
            );
            return Err(fault(0, reason));
        }
        let table_sectors = if short(22) == 0 { long(36) } else { short(22) };
        let root_entries = short(17);
        let root_sectors = (root_entries * ENTRY as u64).div_ceil(sector);
        let total = if short(19) == 0 { long(32) } else { short(19) };
        // No overflow: each of the factors has at most 32 bits, and there are few of them.
        let data_sector = short(14) + tables * table_sectors + root_sectors;
        let clusters = total
            .checked_sub(data_sector)
            .map_or(0, |sectors| sectors / per_cluster);
        let length = partition.end.saturating_sub(start);
        if clusters == 0 || total * sector > length {
            let reason = format!(
                "it is said to have {total} sectors of {sector} bytes, {data_sector} of them before its data, in a partition of {length} bytes"
            );
            return Err(fault(0, reason));
        }
        // Firmware and Linux know FAT32 by this; the specification by the number of clusters, to which few keep.
        let kind = match (short(22), clusters) {
            (0, _) => Kind::Fat32,
            (_, ..4085) => Kind::Fat12,
            (_, 4085..65525) => Kind::Fat16,
            _ => {
                return Err(fault(
                    22,
                    format!("it has {clusters} clusters, which is too many for FAT16, and is no FAT32"),
                ));
            }
        };
        if kind == Kind::Fat32 && (root_entries != 0 || boot[40] & 0x80 != 0) {
            let reason = "it has the root directory of another kind, or allocation tables that differ";
            return Err(fault(17, reason.into()));
        }
        let table = start + short(14) * sector;
        let root_offset = table + tables * table_sectors * sector;
        let root = match kind {
            // A cluster number has 28 bits.
            Kind::Fat32 => Root::Chain(u32_at(&boot, 44).unwrap_or(0) & 0x0fff_ffff),
            _ => Root::Fixed {
                offset: root_offset,
                length: root_sectors * sector,
            },
        };
        Ok(Self {
            disk,
            start,
            kind,
            table: table..table + table_sectors * sector,
            root,
            data: root_offset + root_sectors * sector,
            cluster_size: per_cluster * sector,
            cluster_end: u32::try_from(clusters + 2).unwrap_or(u32::MAX).min(0x0fff_fff7),
            window: (0, Vec::new()),
        })
    }

    /// Reads the file at a path, if it is not too large.
    pub(super) fn read(&mut self, path: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
        let entry = match self.find(path)? {
            Ok(entry) if !entry.is_directory => entry,
            Ok(_) => {
                return Err(ImageError::NoFile {
                    path: path.into(),
                    found: "a folder of that name".into(),
                });
            }
            Err(found) => {
                return Err(ImageError::NoFile {
                    path: path.into(),
                    found,
                });
            }
        };
        let size = u64::from(entry.size);
        if size > limit {
            return Err(ImageError::TooLarge {
                what: format!("file {path:?}"),
                limit,
            });
        }
        // A chain that goes in a circle would else be read until it has the size that its entry claims.
        if size > self.disk.length() {
            let reason = format!(
                "the file {path:?} is said to have {size} bytes, and the whole disk has {}",
                self.disk.length()
            );
            return Err(self.fault(self.start, reason));
        }
        let mut content = self.chain(entry.cluster, size.div_ceil(self.cluster_size), true)?;
        content.truncate(usize::try_from(size).unwrap_or(usize::MAX));
        Ok(content)
    }

    /// The names of what is in a folder; none, if there is no such folder.
    pub(super) fn list(&mut self, path: &str) -> Result<Vec<String>, ImageError> {
        let Ok(folder) = self.find(path)? else {
            return Ok(Vec::new());
        };
        let entries = self.entries(&folder)?;
        let names = entries
            .into_iter()
            .filter_map(|entry| entry.names.into_iter().next());
        Ok(names.filter(|name| name != "." && name != "..").collect())
    }

    /// Follows a path; says what there is instead where it ends.
    fn find(&mut self, path: &str) -> Result<Result<Entry, String>, ImageError> {
        let mut here = Entry {
            names: Vec::new(),
            is_directory: true,
            cluster: 0,
            size: 0,
        };
        for name in path.split(['\\', '/']).filter(|name| !name.is_empty()) {
            if !here.is_directory {
                return Ok(Err("a file where a folder should be".into()));
            }
            let entries = self.entries(&here)?;
            let mut found = entries.iter().filter(|entry| entry.is_called(name));
            here = match (found.next(), found.next()) {
                (Some(entry), None) => entry.clone(),
                (Some(_), Some(_)) => {
                    return Err(self.fault(self.start, format!("there are two files with the name {name:?}")));
                }
                (None, _) => {
                    let names: Vec<_> = entries
                        .iter()
                        .filter_map(|entry| entry.names.first())
                        .take(8)
                        .collect();
                    return Ok(Err(format!("{names:?}")));
                }
            };
        }
        Ok(Ok(here))
    }

    fn entries(&mut self, folder: &Entry) -> Result<Vec<Entry>, ImageError> {
        let clusters = DIRECTORY_LIMIT.div_ceil(self.cluster_size);
        let bytes = match (folder.cluster, self.root) {
            // The parent of a folder in the root directory says 0, whatever the root's number is.
            (0, Root::Fixed { offset, length }) => {
                self.disk.read("root directory", offset, length as usize)?
            }
            (0, Root::Chain(cluster)) => self.chain(cluster, clusters, false)?,
            (cluster, _) => self.chain(cluster, clusters, false)?,
        };
        Ok(parse_directory(&bytes, self.kind))
    }

    /// Reads a chain of clusters. A file's has `count`; a folder's at most that many.
    fn chain(&mut self, first: u32, count: u64, exactly: bool) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        let (mut cluster, mut read) = (first, 0);
        if exactly && count == 0 && first == 0 {
            return Ok(bytes);
        }
        loop {
            if self.is_end(cluster) {
                break;
            }
            if read == count {
                let reason = format!(
                    "the chain of clusters that begins with {first} does not end after {count}, or goes in a circle"
                );
                return Err(self.fault(self.table.start, reason));
            }
            if !(2..self.cluster_end).contains(&cluster) {
                let reason = format!(
                    "the chain of clusters that begins with {first} leads to {cluster}; there are 2 to {}",
                    self.cluster_end - 1
                );
                return Err(self.fault(self.table.start, reason));
            }
            let offset = self.data + u64::from(cluster - 2) * self.cluster_size;
            // A cluster has at most 512 KiB.
            bytes.extend(self.disk.read("file", offset, self.cluster_size as usize)?);
            read += 1;
            cluster = self.next(cluster)?;
        }
        if exactly && read < count {
            let reason =
                format!("the chain of clusters that begins with {first} ends after {read} of {count}");
            return Err(self.fault(self.table.start, reason));
        }
        Ok(bytes)
    }

    fn is_end(&self, cluster: u32) -> bool {
        cluster
            >= match self.kind {
                Kind::Fat12 => 0xff8,
                Kind::Fat16 => 0xfff8,
                Kind::Fat32 => 0x0fff_fff8,
            }
    }

    /// What the allocation table says of a cluster.
    fn next(&mut self, cluster: u32) -> Result<u32, ImageError> {
        let index = u64::from(cluster);
        Ok(match self.kind {
            Kind::Fat12 => {
                let pair = self.table_u16(index + index / 2)?;
                u32::from(if cluster.is_multiple_of(2) {
                    pair & 0x0fff
                } else {
                    pair >> 4
                })
            }
            Kind::Fat16 => self.table_u16(index * 2)?.into(),
            Kind::Fat32 => {
                let low = self.table_u16(index * 4)?;
                let high = self.table_u16(index * 4 + 2)?;
                (u32::from(high) << 16 | u32::from(low)) & 0x0fff_ffff
            }
        })
    }

    fn table_u16(&mut self, offset: u64) -> Result<u16, ImageError> {
        let place = self.table.start + offset;
        if place + 2 > self.table.end {
            let reason = format!(
                "the allocation table ends at byte {}, before an entry that is needed",
                self.table.end
            );
            return Err(self.fault(place, reason));
        }
        let (start, window) = &self.window;
        let found = place
            .checked_sub(*start)
            .and_then(|offset| u16_at(window, usize::try_from(offset).ok()?));
        if let Some(found) = found {
            return Ok(found);
        }
        let length = WINDOW.min(self.table.end - place) as usize;
        self.window = (place, self.disk.read("allocation table", place, length)?);
        // At least the two bytes that were asked for are there.
        Ok(u16_at(&self.window.1, 0).unwrap_or(0))
    }

    fn fault(&self, offset: u64, reason: String) -> ImageError {
        ImageError::FileSystem { offset, reason }
    }
}

impl Entry {
    /// Names are compared without regard to case (UEFI 2.10, section 13.5).
    fn is_called(&self, name: &str) -> bool {
        self.names.iter().any(|other| other.eq_ignore_ascii_case(name))
    }
}

/// Reads the entries of a directory up to its end.
fn parse_directory(bytes: &[u8], kind: Kind) -> Vec<Entry> {
    const VOLUME_LABEL: u8 = 0x08;
    const DIRECTORY: u8 = 0x10;
    const LONG_NAME: u8 = 0x0f;
    let mut entries = Vec::new();
    let mut long = LongName::default();
    for entry in bytes.as_chunks::<ENTRY>().0 {
        match (entry[0], entry[11]) {
            (0, _) => break,
            (0xe5, _) => long = LongName::default(),
            (_, attributes) if attributes & 0x3f == LONG_NAME => long.add(entry),
            (_, attributes) if attributes & VOLUME_LABEL != 0 => long = LongName::default(),
            (_, attributes) => {
                let low = u16::from_le_bytes([entry[26], entry[27]]);
                let high = match kind {
                    Kind::Fat32 => u16::from_le_bytes([entry[20], entry[21]]),
                    _ => 0,
                };
                let long = std::mem::take(&mut long).finish(entry);
                entries.push(Entry {
                    names: long.into_iter().chain([short_name(entry)]).collect(),
                    is_directory: attributes & DIRECTORY != 0,
                    cluster: u32::from(high) << 16 | u32::from(low),
                    size: u32::from_le_bytes([entry[28], entry[29], entry[30], entry[31]]),
                });
            }
        }
    }
    entries
}

fn short_name(entry: &[u8; ENTRY]) -> String {
    let text = |bytes: &[u8]| {
        let text: String = bytes
            .iter()
            .map(|byte| {
                if byte.is_ascii() {
                    char::from(*byte)
                } else {
                    '\u{fffd}'
                }
            })
            .collect();
        text.trim_end_matches(' ').to_owned()
    };
    let (name, extension) = (text(&entry[..8]), text(&entry[8..11]));
    if extension.is_empty() {
        name
    } else {
        format!("{name}.{extension}")
    }
}

/// A long name, whose parts are before the entry that they belong to, the last first.
#[derive(Debug, Default)]
struct LongName {
    /// UTF-16, from the last part to the first.
    parts: Vec<[u16; 13]>,
    /// The number that the next part must have.
    next: u8,
    checksum: u8,
}

impl LongName {
    fn add(&mut self, entry: &[u8; ENTRY]) {
        let number = entry[0] & 0x1f;
        if entry[0] & 0x40 != 0 {
            *self = Self {
                parts: Vec::new(),
                next: number,
                checksum: entry[13],
            };
        }
        if number == 0 || number != self.next || entry[13] != self.checksum {
            *self = Self::default();
            return;
        }
        let mut units = [0; 13];
        let places = (1..11).chain(14..26).chain(28..32);
        let bytes: Vec<u8> = places.filter_map(|place| entry.get(place).copied()).collect();
        for (unit, pair) in units.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *unit = u16::from_le_bytes(*pair);
        }
        self.parts.push(units);
        self.next = number - 1;
    }

    /// The name, if all of its parts are there and belong to the entry.
    fn finish(self, entry: &[u8; ENTRY]) -> Option<String> {
        let checksum = entry[..11]
            .iter()
            .fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if self.parts.is_empty() || self.next != 0 || checksum != self.checksum {
            return None;
        }
        let units = self.parts.iter().rev().flatten().copied();
        let units = units.take_while(|unit| *unit != 0);
        Some(
            char::decode_utf16(units)
                .map(|unit| unit.unwrap_or('\u{fffd}'))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// A FAT32 file system of four sectors, each a cluster from the third on: the root directory, and a file in one
    /// cluster that leads to itself.
    fn circle(size: u32) -> Vec<u8> {
        let mut bytes = vec![0; 4 * 512];
        let mut put = |offset: usize, field: &[u8]| bytes[offset..][..field.len()].copy_from_slice(field);
        put(11, &512_u16.to_le_bytes());
        put(13, &[1, 1, 0, 1]);
        put(19, &4_u16.to_le_bytes());
        put(36, &1_u32.to_le_bytes());
        put(44, &2_u32.to_le_bytes());
        put(510, &[0x55, 0xaa]);
        put(512 + 2 * 4, &0x0fff_ffff_u32.to_le_bytes());
        put(512 + 3 * 4, &3_u32.to_le_bytes());
        put(1024, b"FILE       ");
        put(1024 + 26, &3_u16.to_le_bytes());
        put(1024 + 28, &size.to_le_bytes());
        bytes
    }

    #[test]
    fn a_circle_of_clusters_is_not_read_on_and_on() {
        for (size, cause) in [
            (
                1 << 30,
                "is said to have 1073741824 bytes, and the whole disk has 2048",
            ),
            (2_049, "is said to have 2049 bytes, and the whole disk has 2048"),
            (1_000, "does not end after 2, or goes in a circle"),
        ] {
            let mut disk = Disk::new(Cursor::new(circle(size))).unwrap();
            let mut files = FileSystem::open(&mut disk, 0..2_048).unwrap();
            let error = files.read("\\FILE", 1 << 30).unwrap_err().to_string();
            assert!(error.contains(cause), "{error}");
        }
    }
}
