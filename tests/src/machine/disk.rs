//! The disk: a partition table and the EFI system partition, with the image where firmware looks for it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use super::command::{command, run};

const SECTOR: u64 = 512;
const MIB: u64 = 1 << 20;

/// The first sector of the EFI system partition.
pub(super) const PARTITION_START: u64 = MIB / SECTOR;

/// The size of the EFI system partition in sectors.
pub(super) const PARTITION_SIZE: u64 = 96 * MIB / SECTOR;

/// The partition's name for boot entries (its "unique partition GUID").
pub(super) const PARTITION: &str = "6A1CE471-7E57-4B00-8000-0123456789AB";

/// The disk's name, which is measured with the partition table.
const DISK: &str = "6A1CE471-7E57-4B00-8000-0123456789AA";

/// Where the image is in the partition: what firmware starts when nothing says otherwise (UEFI 2.10, section 3.5.1.1).
pub(super) const BOOT_FILE: &str = "/EFI/BOOT/BOOTX64.EFI";

/// Builds a disk with this image on it.
pub(super) fn build(uki: &[u8], disk: &Path, scratch: &Path) {
    let failed = "a disk can be built";
    let image = scratch.join("uki.efi");
    fs::write(&image, uki).expect(failed);
    // Another MiB for the second partition table at the end.
    File::create(disk)
        .and_then(|file| file.set_len((PARTITION_START + PARTITION_SIZE) * SECTOR + MIB))
        .expect(failed);
    partition(disk);
    run(command("mkfs.vfat")
        .args(["-F", "32", "-n", "ESP", "--offset", &PARTITION_START.to_string()])
        .arg(disk)
        .arg((PARTITION_SIZE * SECTOR / 1024).to_string()))
    .expect(failed);
    let file_system = format!("{}@@{}", disk.display(), PARTITION_START * SECTOR);
    run(command("mmd").args(["-i", &file_system, "::/EFI", "::/EFI/BOOT"])).expect(failed);
    run(command("mcopy")
        .args(["-i", &file_system])
        .arg(&image)
        .arg(format!("::{BOOT_FILE}")))
    .expect(failed);
}

fn partition(disk: &Path) {
    let table = format!(
        "label: gpt\nlabel-id: {DISK}\nstart={PARTITION_START}, size={PARTITION_SIZE}, type=U, uuid={PARTITION}\n"
    );
    let mut sfdisk = command("sfdisk")
        .args(["--quiet", "--no-tell-kernel", "--no-reread"])
        .arg(disk)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("sfdisk starts");
    let mut input = sfdisk.stdin.take().expect("standard input is a pipe");
    input.write_all(table.as_bytes()).expect("sfdisk reads its table");
    drop(input);
    assert!(
        sfdisk.wait().expect("sfdisk ends").success(),
        "sfdisk wrote no partition table"
    );
}
