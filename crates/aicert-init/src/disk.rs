//! Disks and partitions, as the kernel shows them in `/sys`.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::failure::{Failure, OrFail as _, Outcome};
use crate::gpt;

/// Where the kernel shows disks and partitions.
pub(crate) const SYSFS: &str = "/sys/class/block";

/// The unit of every size and place here, whatever the blocks of the disk are.
pub(crate) const SECTOR: u64 = 512;

/// The smallest and largest block that a disk may have.
const BLOCKS: std::ops::RangeInclusive<u64> = 512..=65536;

/// How often to look for a partition.
const INTERVAL: Duration = Duration::from_millis(10);

/// A block device's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceNumber {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl FromStr for DeviceNumber {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (major, minor) = text.split_once(':').ok_or("not a device's number")?;
        let number = |text: &str| text.parse().map_err(|_| "not a device's number");
        Ok(Self {
            major: number(major)?,
            minor: number(minor)?,
        })
    }
}

/// A partition, and the disk that it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Partition {
    /// The kernel's name for it.
    pub(crate) name: String,
    /// Its first sector.
    pub(crate) start: u64,
    /// Its size in sectors.
    pub(crate) sectors: u64,
    /// Its disk.
    pub(crate) disk: Disk,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disk {
    /// The kernel's name for it.
    pub(crate) name: String,
    /// Its number.
    pub(crate) number: DeviceNumber,
    /// Its size in sectors.
    pub(crate) sectors: u64,
    /// The size of its blocks in bytes.
    pub(crate) block: u64,
    /// The sector after its last partition.
    pub(crate) partitions_end: u64,
}

/// Waits until there is a partition with this name.
///
/// There must be one alone: the name says which disk the machine was booted from, and it only does so as long as no other
/// disk bears it. Who reads a disk from another machine while this one writes to it could change what a job reads; the
/// disks that clouds boot from cannot be shared like that, others can.
pub(crate) fn wait_for(sysfs: &Path, name: &str, patience: Duration) -> Outcome<Partition> {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = find(sysfs, name)? {
            return Ok(found);
        }
        if Instant::now() >= end {
            return Err(Failure::new(
                format!(
                    "no partition named {name} after {} s; the kernel knows these disks and partitions: {}",
                    patience.as_secs(),
                    names(sysfs).join(" ")
                ),
                "the machine has no disk with aicert's image that this image's drivers can use",
            ));
        }
        std::thread::sleep(INTERVAL);
    }
}

/// The one partition with this name, if there is one.
fn find(sysfs: &Path, name: &str) -> Outcome<Option<Partition>> {
    let mut found: Vec<_> = names(sysfs)
        .into_iter()
        .filter(|device| partition_name(&sysfs.join(device)).as_deref() == Some(name))
        .collect();
    if found.len() > 1 {
        return Err(Failure::new(
            format!("more than one partition is named {name}: {}", found.join(" ")),
            "it cannot be told which disk was booted; remove the other ones",
        ));
    }
    match found.pop() {
        Some(device) => Partition::read(&sysfs.join(device)).map(Some),
        None => Ok(None),
    }
}

/// The names of all disks and partitions.
fn names(sysfs: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(sysfs)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// A partition's name in its table; the kernel replaces all that is not printable ASCII (block/partitions/efi.c).
fn partition_name(device: &Path) -> Option<String> {
    let uevent = fs::read_to_string(device.join("uevent")).ok()?;
    uevent
        .lines()
        .find_map(|line| line.strip_prefix("PARTNAME="))
        .map(str::to_owned)
}

impl Partition {
    fn read(device: &Path) -> Outcome<Self> {
        // The link leads to .../block/DISK/PARTITION.
        let path = device
            .canonicalize()
            .or_fail(|| format!("cannot follow {}", device.display()), KERNEL)?;
        let disk = path
            .parent()
            .ok_or_else(|| Failure::new(format!("{} is on no disk", path.display()), KERNEL))?;
        Ok(Self {
            name: file_name(&path)?,
            start: number(&path.join("start"))?,
            sectors: number(&path.join("size"))?,
            disk: Disk::read(disk)?,
        })
    }
}

impl Disk {
    fn read(path: &Path) -> Outcome<Self> {
        let mut partitions_end = 0;
        for entry in fs::read_dir(path).or_fail(|| format!("cannot list {}", path.display()), KERNEL)? {
            let partition = entry
                .or_fail(|| format!("cannot list {}", path.display()), KERNEL)?
                .path();
            if partition.join("partition").exists() {
                let end = number(&partition.join("start"))?.saturating_add(number(&partition.join("size"))?);
                partitions_end = partitions_end.max(end);
            }
        }
        let block = number(&path.join("queue/logical_block_size"))?;
        if !BLOCKS.contains(&block) || !block.is_power_of_two() {
            return Err(Failure::new(
                format!("{} has blocks of {block} bytes", path.display()),
                KERNEL,
            ));
        }
        Ok(Self {
            name: file_name(path)?,
            number: value(&path.join("dev"))?,
            sectors: number(&path.join("size"))?,
            block,
            partitions_end,
        })
    }

    /// Its node, which the kernel makes.
    fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    /// The first sector behind everything that the partition table speaks of.
    pub(crate) fn first_free_sector(&self) -> Outcome<u64> {
        let path = self.path();
        let size = usize::try_from(self.block).or_fail(|| format!("the blocks of {}", self.name), KERNEL)?;
        let mut header = vec![0; size];
        File::open(&path)
            .and_then(|disk| disk.read_exact_at(&mut header, self.block))
            .or_fail(
                || format!("cannot read the partition table of {}", path.display()),
                "the disk does not work",
            )?;
        Ok(self.sector_after(gpt::last_block(&header)?))
    }

    fn sector_after(&self, block: u64) -> u64 {
        block
            .saturating_add(1)
            .saturating_mul(self.block / SECTOR)
            .max(self.partitions_end)
    }
}

const KERNEL: &str = "the kernel shows the disk in a way that is not expected";

fn file_name(path: &Path) -> Outcome<String> {
    path.file_name()
        .and_then(|name| name.to_str())
        .map(str::to_owned)
        .ok_or_else(|| Failure::new(format!("{} has no name", path.display()), KERNEL))
}

fn number(path: &Path) -> Outcome<u64> {
    value(path)
}

/// What one of the kernel's small files says.
fn value<T: FromStr<Err: fmt::Display>>(path: &Path) -> Outcome<T> {
    fs::read_to_string(path)
        .or_fail(|| format!("cannot read {}", path.display()), KERNEL)?
        .trim()
        .parse()
        .or_fail(|| format!("cannot understand {}", path.display()), KERNEL)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A `/sys` with these partitions on these disks.
    fn sysfs(partitions: &[(&str, &str, u64, u64, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let class = folder.path().join("class");
        fs::create_dir(&class).unwrap();
        for (disk, partition, start, size, name) in partitions {
            let disk_path = folder.path().join("devices/block").join(disk);
            let path = disk_path.join(partition);
            fs::create_dir_all(disk_path.join("queue")).unwrap();
            fs::create_dir_all(&path).unwrap();
            fs::write(disk_path.join("dev"), "254:16\n").unwrap();
            fs::write(disk_path.join("size"), "409600\n").unwrap();
            fs::write(disk_path.join("queue/logical_block_size"), "512\n").unwrap();
            fs::write(disk_path.join("uevent"), "DEVTYPE=disk\n").unwrap();
            fs::write(path.join("partition"), "1\n").unwrap();
            fs::write(path.join("start"), format!("{start}\n")).unwrap();
            fs::write(path.join("size"), format!("{size}\n")).unwrap();
            fs::write(
                path.join("uevent"),
                format!("DEVTYPE=partition\nPARTNAME={name}\n"),
            )
            .unwrap();
            let _ = symlink(&disk_path, class.join(disk));
            symlink(&path, class.join(partition)).unwrap();
        }
        folder
    }

    fn look(folder: &tempfile::TempDir) -> Outcome<Partition> {
        wait_for(&folder.path().join("class"), "aicert-root", Duration::ZERO)
    }

    #[test]
    fn finds_a_partition_by_its_name() {
        let folder = sysfs(&[
            ("vda", "vda1", 2048, 1000, "ESP"),
            ("vda", "vda2", 4096, 200, "aicert-root"),
            ("vdb", "vdb1", 2048, 1000, "aicert-roots"),
        ]);
        let found = look(&folder).unwrap();
        assert_eq!(
            (found.name.as_str(), found.start, found.sectors),
            ("vda2", 4096, 200)
        );
        assert_eq!(found.disk.name, "vda");
        assert_eq!(found.disk.number.to_string(), "254:16");
        assert_eq!(found.disk.sectors, 409_600);
        assert_eq!(found.disk.partitions_end, 4296);
    }

    #[test]
    fn starts_after_table_and_partitions() {
        let folder = sysfs(&[("vda", "vda2", 4096, 200, "aicert-root")]);
        let mut disk = look(&folder).unwrap().disk;
        assert_eq!(disk.sector_after(9999), 10_000);
        // A table cannot claim that it ends before its partitions.
        assert_eq!(disk.sector_after(10), 4296);
        disk.block = 4096;
        assert_eq!(disk.sector_after(9999), 80_000);
        assert_eq!(disk.sector_after(u64::MAX), u64::MAX);
    }

    #[test]
    fn refuses_to_choose() {
        let folder = sysfs(&[
            ("vda", "vda2", 4096, 200, "aicert-root"),
            ("vdb", "vdb2", 4096, 200, "aicert-root"),
        ]);
        let message = look(&folder).unwrap_err().to_string();
        assert!(message.contains("vda2 vdb2"), "{message}");
    }

    #[test]
    fn says_what_there_is_when_it_gives_up() {
        let folder = sysfs(&[("vda", "vda1", 2048, 1000, "ESP")]);
        let message = look(&folder).unwrap_err().to_string();
        assert!(message.contains("vda vda1"), "{message}");
    }
}
