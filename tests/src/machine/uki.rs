//! The image: a UKI (UAPI.5), put together with the distribution's stub as its documentation says.

use std::fs;
use std::path::Path;

use super::command::{command, run};
use super::kernel::Kernel;

/// systemd's stub (package `systemd-boot-efi`).
pub(super) const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

const OS_RELEASE: &str = "ID=aicert-test\nPRETTY_NAME=\"aicert test machine 1\"\n";

/// Builds the image in a folder of scratch files.
pub(super) fn build(kernel: &Kernel, initrd: &[u8], command_line: &str, scratch: &Path) -> Vec<u8> {
    let kernel_image = fs::read(&kernel.image).expect("the kernel can be read");
    let sections: [(&str, &[u8]); 5] = [
        ("osrel", OS_RELEASE.as_bytes()),
        ("uname", kernel.release.as_bytes()),
        ("cmdline", command_line.as_bytes()),
        ("linux", &kernel_image),
        ("initrd", initrd),
    ];
    let uki = scratch.join("uki.efi");
    let mut objcopy = command("objcopy");
    // Keeps the time in the header, which would else be the present one: the same parts make the same image.
    objcopy.arg("--preserve-dates");
    let mut address = end_of_stub();
    for (name, contents) in sections {
        address = address.next_multiple_of(0x1000);
        let file = scratch.join(name);
        fs::write(&file, contents).expect("a file can be written");
        objcopy
            .arg("--add-section")
            .arg(format!(".{name}={}", file.display()))
            .arg("--change-section-vma")
            .arg(format!(".{name}={address:#x}"));
        address += contents.len() as u64;
    }
    run(objcopy.arg(STUB).arg(&uki)).expect("a UKI can be built");
    fs::read(&uki).expect("the UKI can be read")
}

/// The address after the stub's last section.
fn end_of_stub() -> u64 {
    let answer = run(command("objdump").args(["--section-headers", STUB])).expect("objdump reads the stub");
    // Lines are: number, name, size, address, ...
    String::from_utf8_lossy(&answer)
        .lines()
        .filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let [number, _, size, address, ..] = fields[..] else {
                return None;
            };
            number.parse::<u32>().ok()?;
            let hex = |text| u64::from_str_radix(text, 16).ok();
            Some(hex(address)? + hex(size)?)
        })
        .max()
        .expect("the stub has sections")
}
