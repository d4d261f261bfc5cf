//! The initrd: one program and the libraries that it needs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::command::{command, run};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive with `program` as `/init`.
pub(super) fn archive(program: &Path, scratch: &Path) -> Vec<u8> {
    let stripped = scratch.join("init");
    run(command("objcopy").arg("--strip-all").arg(program).arg(&stripped))
        .expect("the guest can be stripped");
    let mut archive = Archive::default();
    for folder in ["dev", "sys"] {
        archive.folder(Path::new(folder));
    }
    // The kernel opens it for init before init can mount anything.
    archive.entry("dev/console", CHARACTER_DEVICE, (5, 1), &[]);
    archive.file(Path::new("init"), &stripped);
    for library in libraries(program) {
        archive.file(
            library.strip_prefix("/").expect("ldd names whole paths"),
            &library,
        );
    }
    archive.finish()
}

/// The shared libraries of a program, and their loader.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let answer = run(command("ldd").arg(program)).expect("ldd knows the guest");
    // Lines are `name => /path (address)`, or `/path (address)`; what the kernel brings has no path.
    String::from_utf8_lossy(&answer)
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

/// A cpio archive in the format "newc" (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: BTreeSet<PathBuf>,
}

impl Archive {
    /// Adds a folder, and those above it.
    fn folder(&mut self, path: &Path) {
        let above: Vec<_> = path.ancestors().filter(|path| *path != Path::new("")).collect();
        for folder in above.into_iter().rev() {
            if self.folders.insert(folder.to_owned()) {
                self.entry(text(folder), DIRECTORY, (0, 0), &[]);
            }
        }
    }

    /// Adds a program or library, and the folders that it is in.
    fn file(&mut self, path: &Path, source: &Path) {
        if let Some(parent) = path.parent() {
            self.folder(parent);
        }
        let contents = fs::read(source).expect("what the guest needs can be read");
        self.entry(text(path), PROGRAM, (0, 0), &contents);
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        let size = u32::try_from(contents.len()).expect("files of a guest are small");
        let name_size = u32::try_from(name.len() + 1).expect("names are short");
        self.entries += 1;
        let fields = [
            self.entries, // inode
            mode,
            0, // user
            0, // group
            1, // links
            0, // time
            size,
            0, // device of the file, major
            0, // minor
            device.0,
            device.1,
            name_size,
            0, // checksum, not in this format
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("libraries have plain names")
}
