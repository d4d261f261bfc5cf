//! Changing an image as somebody can who has only the file: the parts that are not under dm-verity are taken out, changed and put
//! back; a byte that is, is flipped.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

const SECTOR: u64 = 512;

/// Where the EFI system partition begins, and its only file (docs/images.md).
const BOOT_PARTITION: u64 = 1 << 20;
const BOOT_FILE: &str = "::/EFI/BOOT/BOOTX64.EFI";

const ROOT_PARTITION: &str = "aicert-root";

/// Where squashfs has the time at which it was made (squashfs 4.0, the superblock): nothing depends on it, so that a machine
/// that does not verify what it reads would boot as ever.
const TIME: u64 = 8;

/// What is changed.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Alteration<'a> {
    /// One more word on the kernel command line.
    CommandLine(&'a str),
    /// One more file in the initrd, which nothing looks at.
    Initrd(&'a str),
    /// One bit of the root file system, which nothing looks at.
    RootFileSystem,
}

/// Makes an altered copy of an image.
pub(super) fn alter(image: &Path, alteration: &Alteration<'_>, target: &Path) {
    run(Command::new("cp").arg("--sparse=always").args([image, target]));
    match alteration {
        Alteration::CommandLine(word) => section(target, ".cmdline", |content| {
            // The string may end with a zero.
            while content.last() == Some(&0) {
                content.pop();
            }
            content.extend(format!(" {word}").bytes());
        }),
        Alteration::Initrd(name) => section(target, ".initrd", |content| {
            // The kernel unpacks one archive after the other.
            content.resize(content.len().next_multiple_of(4), 0);
            content.extend(archive(name));
        }),
        Alteration::RootFileSystem => flip(target),
    }
}

/// Changes a section of the unified kernel image.
fn section(disk: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let uki = scratch.path().join("uki.efi");
    let file_system = format!("{}@@{BOOT_PARTITION}", disk.display());
    let mcopy = |option| {
        let mut command = Command::new("mcopy");
        command.args([option, "-i", &file_system]);
        command
    };
    run(mcopy("-n").arg(BOOT_FILE).arg(&uki));
    let mut program = Program(fs::read(&uki).expect("the image can be read"));
    let section = program.section(name);
    let mut content = program.content(section).to_vec();
    change(&mut content);
    program.replace(section, &content);
    fs::write(&uki, program.0).expect("the image can be written");
    run(mcopy("-o").arg(&uki).arg(BOOT_FILE));
}

/// A program for firmware (Microsoft, "PE Format"): only what is needed to make one section of it longer.
struct Program(Vec<u8>);

impl Program {
    /// Where the entries of sections are.
    fn sections(&self) -> impl Iterator<Item = usize> {
        let header = self.header();
        let count = self.number(header + 4) >> 16;
        let table = header + 24 + (self.number(header + 20) & 0xffff);
        (0..count).map(move |index| table + 40 * index)
    }

    /// Where the entry of this section is.
    fn section(&self, name: &str) -> usize {
        let mut padded = [0; 8];
        padded[..name.len()].copy_from_slice(name.as_bytes());
        let mut sections = self.sections();
        sections
            .find(|at| self.0[*at..].starts_with(&padded))
            .expect("the image has that section")
    }

    fn end_of_sections(&self) -> usize {
        let ends = self
            .sections()
            .map(|section| self.number(section + 16) + self.number(section + 20));
        ends.max().unwrap_or_default()
    }

    fn content(&self, section: usize) -> &[u8] {
        let (size, at) = (self.number(section + 8), self.number(section + 20));
        &self.0[at..at + size]
    }

    /// Writes a section into the room that there is, or makes room if it is the last one in the file.
    fn replace(&mut self, section: usize, content: &[u8]) {
        let (room, at) = (self.number(section + 16), self.number(section + 20));
        let header = self.header();
        if content.len() > room {
            // Behind the last section there are only symbols, for nobody.
            assert_eq!(at + room, self.end_of_sections(), "it is not the last section");
            self.set(header + 12, 0);
            self.set(header + 16, 0);
            let room = content.len().next_multiple_of(self.number(header + 60));
            self.0.truncate(at);
            self.0.resize(at + room, 0);
            self.set(section + 16, room);
            // All of the program, once it is in memory.
            let alignment = self.number(header + 56);
            let end = self.number(section + 12) + content.len();
            self.set(header + 80, end.next_multiple_of(alignment));
        }
        self.set(section + 8, content.len());
        self.0[at..at + content.len()].copy_from_slice(content);
    }

    fn header(&self) -> usize {
        self.number(0x3c)
    }

    fn number(&self, at: usize) -> usize {
        u32::from_le_bytes(self.0[at..at + 4].try_into().expect("four bytes")) as usize
    }

    fn set(&mut self, at: usize, value: usize) {
        let value = u32::try_from(value).expect("images are small");
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
}

/// An archive with one empty file, in the format "newc" (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
fn archive(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, mode) in [(name, 0o100_644), ("TRAILER!!!", 0)] {
        // Inode, mode, user, group, links, time, size, device (2), device that it is (2), size of the name, checksum.
        let fields = [1, mode, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        bytes.extend(b"070701");
        for field in fields {
            bytes.extend(format!("{field:08x}").bytes());
        }
        bytes.extend(name.bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// Flips one bit of the root file system.
fn flip(disk: &Path) {
    let disk = File::options()
        .read(true)
        .write(true)
        .open(disk)
        .expect("the disk can be opened");
    let at = root_partition(&disk) + TIME;
    let mut byte = [0];
    disk.read_exact_at(&mut byte, at).expect("the disk can be read");
    byte[0] ^= 1;
    disk.write_all_at(&byte, at).expect("the disk can be written");
}

/// Where the root file system begins (UEFI 2.10, section 5.3.3: entries of 128 bytes from the third sector on, with the first
/// sector at 32, and the name in UTF-16 at 56).
fn root_partition(disk: &File) -> u64 {
    let mut table = [0; 8 * 128];
    disk.read_exact_at(&mut table, 2 * SECTOR)
        .expect("the disk can be read");
    let name: Vec<u8> = ROOT_PARTITION.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let entry = table
        .chunks(128)
        .find(|entry| entry[56..].starts_with(&name))
        .expect("the image has a root partition");
    SECTOR * u64::from_le_bytes(entry[32..40].try_into().expect("eight bytes"))
}

fn run(command: &mut Command) {
    let output = command.env("LC_ALL", "C").output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
