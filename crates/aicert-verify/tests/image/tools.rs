//! Images made with the tools that everybody uses: binutils and the distribution's stub, sfdisk, mkfs.vfat, mtools.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use aicert_verify::image::{MeasureOptions, measure, measure_uki};

use crate::forge::{RELEASE, kernel};

/// systemd's stub (package `systemd-boot-efi`).
const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// Whether something is missing; says so, and fails where `CI` is set.
fn skip_without(programs: &[&str], files: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = || std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let is_installed = |program: &&&str| folders().any(|folder| folder.join(program).is_file());
    let missing = programs
        .iter()
        .find(|program| !is_installed(program))
        .or_else(|| files.iter().find(|file| !Path::new(file).is_file()));
    let Some(missing) = missing else { return false };
    assert!(
        std::env::var_os("CI").is_none(),
        "`{missing}` is not installed, and nothing is skipped where CI is set"
    );
    println!("skipped: `{missing}` is not installed");
    true
}

fn run(command: &mut Command, input: &str) -> String {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let mut child = command
        .env("PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A UKI as systemd-stub(7) says that one is made.
fn uki(folder: &Path) -> Vec<u8> {
    let headers = run(Command::new("objdump").args(["-h", STUB]), "");
    let ends = headers.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields.first()?.parse::<u32>().ok()?;
        let number = |index: usize| u64::from_str_radix(fields.get(index)?, 16).ok();
        Some(number(2)? + number(3)?)
    });
    let mut address = ends.max().unwrap();
    let mut objcopy = Command::new("objcopy");
    for (name, content) in [
        (".osrel", b"PRETTY_NAME='Made with tools'\n".to_vec()),
        (".cmdline", b"console=ttyS0\n".to_vec()),
        (".linux", kernel(RELEASE)),
        (".initrd", vec![1; 5000]),
    ] {
        address = address.next_multiple_of(4096);
        let file = folder.join(name);
        fs::write(&file, &content).unwrap();
        objcopy.args(["--add-section", &format!("{name}={}", file.display())]);
        objcopy.args(["--change-section-vma", &format!("{name}={address:#x}")]);
        address += content.len() as u64;
    }
    let file = folder.join("uki.efi");
    run(objcopy.arg(STUB).arg(&file), "");
    fs::read(file).unwrap()
}

#[test]
fn a_real_stub_is_recognised() {
    if skip_without(&["objcopy", "objdump"], &[STUB]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = measure_uki(&uki(folder.path()), &MeasureOptions::default()).unwrap();
    assert_eq!(image.name, "Made with tools");
    assert!(image.stub.unwrap().starts_with("25"));
    assert_eq!(image.command_line.as_deref(), Some("console=ttyS0"));
}

#[test]
fn real_file_systems_are_read() {
    if skip_without(
        &["objcopy", "objdump", "sfdisk", "mkfs.vfat", "mmd", "mcopy"],
        &[STUB],
    ) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let expected = uki(folder.path());
    let file = folder.path().join("uki.efi");
    let expected = measure_uki(&expected, &MeasureOptions::default()).unwrap();
    for (kind, mib) in [("12", 4), ("16", 16), ("32", 48)] {
        let disk = folder.path().join("disk.img");
        let _ = fs::remove_file(&disk);
        File::create(&disk).unwrap().set_len((mib + 2) << 20).unwrap();
        let table = format!("label: gpt\nstart=2048, size={}, type=U\n", mib * 2048);
        run(Command::new("sfdisk").arg("-q").arg(&disk), &table);
        let mut mkfs = Command::new("mkfs.vfat");
        run(
            mkfs.args(["-F", kind, "--offset", "2048"])
                .arg(&disk)
                .arg((mib * 1024).to_string()),
            "",
        );
        let partition = format!("{}@@1M", disk.display());
        run(
            Command::new("mmd").args(["-i", &partition, "::/EFI", "::/EFI/Linux images"]),
            "",
        );
        // A folder of many long names, so that the file is found behind its first cluster.
        for number in 0..40 {
            let name = format!("::/EFI/Linux images/Image number {number} of forty.efi");
            run(
                Command::new("mcopy")
                    .args(["-i", &partition])
                    .arg(&file)
                    .arg(&name),
                "",
            );
            if mib == 4 && number == 10 {
                break;
            }
        }
        let mut options = MeasureOptions::default();
        options.path = "\\EFI\\LINUX IMAGES\\image NUMBER 7 of forty.EFI".into();
        let image = measure(File::open(&disk).unwrap(), &options).unwrap();
        assert_eq!(image.events[1..], expected.events, "FAT{kind}");

        let extra = "::/EFI/Linux images/Image number 7 of forty.efi.extra.d";
        run(Command::new("mmd").args(["-i", &partition, extra]), "");
        measure(File::open(&disk).unwrap(), &options).unwrap();
        let credential = format!("{extra}/a.cred");
        run(
            Command::new("mcopy")
                .args(["-i", &partition])
                .arg(&file)
                .arg(&credential),
            "",
        );
        let fault = measure(File::open(&disk).unwrap(), &options)
            .unwrap_err()
            .to_string();
        assert!(fault.contains("a.cred"), "{fault}");
    }
}
