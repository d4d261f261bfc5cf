//! The writable area, `/var`: the disk's free sectors, encrypted with a key that only this kernel ever has; or memory.

use std::ffi::CStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::mount::{MountFlags, mount};
use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::Zeroizing;

use crate::console::say;
use crate::device_mapper::{self, Table};
use crate::disk::{self, DeviceNumber, Disk, SECTOR};
use crate::failure::{Failure, OrFail as _, Outcome};
use crate::{initrd, system};

/// Where it is mounted.
const PLACE: &str = "/var";

const DEVICE: &str = "aicert-scratch";

/// Less than this is not worth a file system.
const SMALLEST: u64 = (1 << 30) / SECTOR;

/// Where it may begin and end: multiples of a MiB, which suits every disk.
const ALIGNMENT: u64 = (1 << 20) / SECTOR;

/// AES-256 in XTS mode has two keys of 32 bytes (Linux, Documentation/admin-guide/device-mapper/dm-crypt.rst).
const CIPHER: &str = "aes-xts-plain64";
const KEY: usize = 64;

const MAKE_FILE_SYSTEM: &str = "/usr/sbin/mke2fs";

/// Makes the writable area, on the disk that the root file system is on if there is room.
pub(crate) fn mount_on(booted: DeviceNumber) -> Outcome {
    // Looked for again, and not only taken over from stage 1: had another disk with the same partition come up since, it
    // would not be clear any more which one the machine was booted from.
    let disk = disk::wait_for(Path::new(disk::SYSFS), initrd::PARTITION, Duration::ZERO)?.disk;
    if disk.number != booted {
        return Err(Failure::new(
            format!(
                "the root file system was on disk {booted}, and now is on {}",
                disk.number
            ),
            "disks were exchanged while the machine booted",
        ));
    }
    let first = disk.first_free_sector()?;
    match area(first, disk.sectors) {
        Some((start, sectors)) => on_disk(&disk, start, sectors),
        None => in_memory(&disk),
    }
}

/// Keeps the file system from noticing that its disk goes away: it would take that for an error, and panic.
pub(crate) fn freeze() {
    // There is none if it is in memory, or not made yet.
    let _ = device_mapper::freeze(DEVICE);
}

/// Where a disk has room: the first sector and how many there are, if they are worth it.
fn area(first_free: u64, end: u64) -> Option<(u64, u64)> {
    let start = first_free.checked_next_multiple_of(ALIGNMENT)?;
    let end = end - end % ALIGNMENT;
    let sectors = end.checked_sub(start)?;
    (sectors >= SMALLEST).then_some((start, sectors))
}

fn on_disk(disk: &Disk, start: u64, sectors: u64) -> Outcome {
    let device = device_mapper::create(&Table {
        name: DEVICE,
        target: "crypt",
        sectors,
        parameters: &parameters(&key()?, disk.number, start),
        writable: true,
    })?
    .path();
    make_file_system(&device)?;
    let flags = system::FILES | MountFlags::NOATIME;
    // What cannot be read back as it was written is no base for a job; and whatever writes to the disk from elsewhere
    // shall not find out what else can be done.
    let options = c"errors=panic,noinit_itable";
    mount(device.as_path(), PLACE, "ext4", flags, options).or_fail(
        || format!("cannot mount {} at {PLACE}", device.display()),
        "the disk does not work",
    )?;
    say!(
        "scratch space: {} MiB of {}, encrypted with a key that is nowhere else",
        (sectors * SECTOR) >> 20,
        disk.name
    );
    Ok(())
}

fn in_memory(disk: &Disk) -> Outcome {
    const OPTIONS: &CStr = c"mode=0755,size=75%";
    mount("tmpfs", PLACE, "tmpfs", system::FILES, OPTIONS).or_fail(
        || format!("cannot mount memory at {PLACE}"),
        "the image is incomplete",
    )?;
    say!(
        "scratch space: memory, three quarters of it, because {} has less than {} MiB behind the image",
        disk.name,
        (SMALLEST * SECTOR) >> 20
    );
    Ok(())
}

/// Random bytes in hex: this waits until the kernel has collected enough of what is random.
fn key() -> Outcome<Zeroizing<String>> {
    let mut key = Zeroizing::new([0; KEY]);
    let got = getrandom(key.as_mut_slice(), GetRandomFlags::empty()).or_fail(
        || "cannot get random bytes for a key".into(),
        "the kernel does not work",
    )?;
    if got != KEY {
        return Err(Failure::new(
            "cannot get random bytes for a key",
            "the kernel does not work",
        ));
    }
    Ok(Zeroizing::new(hex::encode(key.as_slice())))
}

fn parameters(key: &str, disk: DeviceNumber, start: u64) -> Zeroizing<String> {
    Zeroizing::new(format!("{CIPHER} {key} 0 {disk} {start} 1 sector_size:4096"))
}

fn make_file_system(device: &Path) -> Outcome {
    let meaning = "there is no scratch space without it";
    let output = Command::new(MAKE_FILE_SYSTEM)
        .args([
            "-q",
            "-F",
            "-t",
            "ext4",
            "-b",
            "4096",
            "-m",
            "0",
            "-L",
            "aicert-scratch",
        ])
        // No journal: the file system does not outlive the kernel that made it.
        .args(["-O", "^has_journal,metadata_csum,64bit"])
        // Nothing is sent to the disk that need not be; the tables are taken for empty until they are used.
        .args(["-E", "nodiscard,lazy_itable_init=1"])
        .arg(device)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .or_fail(
            || format!("cannot run {MAKE_FILE_SYSTEM}"),
            "the image is incomplete",
        )?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::new(
        format!(
            "{MAKE_FILE_SYSTEM} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ),
        meaning,
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn needs_a_gibibyte() {
        assert_eq!(area(100, 2048 + SMALLEST), Some((2048, SMALLEST)));
        assert_eq!(area(100, 2047 + SMALLEST), None);
        assert_eq!(area(u64::MAX, 5000), None);
    }

    #[test]
    fn tells_the_kernel_where_it_is() {
        let disk = DeviceNumber { major: 254, minor: 0 };
        assert_eq!(
            *parameters("00ff", disk, 4096),
            "aes-xts-plain64 00ff 0 254:0 4096 1 sector_size:4096"
        );
    }

    #[test]
    fn makes_another_key_each_time() {
        let (one, two) = (key().unwrap(), key().unwrap());
        assert_eq!(one.len(), 2 * KEY);
        assert_ne!(one, two);
    }

    proptest! {
        #[test]
        fn stays_within_the_free_sectors(first: u64, end: u64) {
            if let Some((start, sectors)) = area(first, end) {
                prop_assert!(start >= first && sectors >= SMALLEST);
                prop_assert!(start.checked_add(sectors).is_some_and(|last| last <= end));
                prop_assert!(start % ALIGNMENT == 0 && sectors % ALIGNMENT == 0);
            }
        }
    }
}
