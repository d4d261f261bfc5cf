//! The archives that systemd-stub makes of sections that user space is to have.

/// An archive in the format `newc` (Linux, `Documentation/driver-api/early-userspace/buffer-format.rst`) with the
/// directory `.extra` and one file in it, as `pack_cpio_literal` of systemd-stub writes it in all versions from 252
/// to 257.
pub(super) fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    const DIRECTORY: u32 = 0o040_555;
    const FILE: u32 = 0o100_444;
    let mut out = Vec::new();
    entry(&mut out, 1, DIRECTORY, ".extra", &[]);
    entry(&mut out, 2, FILE, &format!(".extra/{name}"), content);
    // It is a constant in the stub, with a capital letter in the only field where that shows: the name's length.
    out.extend(b"070701");
    for index in 0..13 {
        out.extend(match index {
            4 => b"00000001",
            11 => b"0000000B",
            _ => b"00000000",
        });
    }
    out.extend(b"TRAILER!!!\0\0\0\0");
    out
}

/// An entry has its length, and all of its fields, below 2^32: a section of a PE file cannot be larger.
fn entry(out: &mut Vec<u8>, inode: u32, mode: u32, name: &str, content: &[u8]) {
    let (size, name_size) = (content.len(), name.len() + 1);
    out.extend(
        format!(
            "070701{inode:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{size:08x}{:08x}{:08x}{:08x}{:08x}{name_size:08x}{:08x}",
            0, 0, 1, 0, 0, 0, 0, 0, 0
        )
        .as_bytes(),
    );
    out.extend(name.as_bytes());
    out.push(0);
    pad(out);
    out.extend(content);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}
