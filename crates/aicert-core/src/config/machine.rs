//! Where the job runs.

use std::path::PathBuf;
use std::time::Duration;

use super::section::{Reader, Section};
use super::values;
use crate::spec::{Accelerator, LocalTpm, MachineSpec, QemuMachine};
use crate::yaml::{Node, similar_or};

pub(super) const KEYS: &[&str] = &[
    "provider",
    "tpm",
    "path",
    "akHandle",
    "akCertificates",
    "image",
    "referenceValues",
    "accelerator",
    "cpus",
    "memory",
    "disk",
    "bootLimit",
];

const LOCAL_KEYS: &[&str] = &["tpm", "path", "akHandle", "akCertificates"];
const DEVICE_KEYS: &[&str] = &["path", "akHandle", "akCertificates"];
const QEMU_KEYS: &[&str] = &[
    "image",
    "referenceValues",
    "accelerator",
    "cpus",
    "memory",
    "disk",
    "bootLimit",
];
const PROVIDERS: &[&str] = &["local", "azure", "aws", "gcp", "qemu"];
const TPMS: &[&str] = &["swtpm", "device"];
const ACCELERATORS: &[&str] = &["tcg", "kvm"];

const GIB: u64 = 1 << 30;
/// What a machine has where the file does not say.
const CPUS: u32 = 2;
const MEMORY: u64 = 4 * GIB;
const DISK: u64 = 20 * GIB;
const BOOT_LIMIT: Duration = Duration::from_secs(300);
/// More processors than QEMU's `q35` machine takes.
const CPUS_LIMIT: u32 = 255;
/// With less memory, the container engine and the base image's own programs have no room beside a job.
const LEAST_MEMORY: u64 = GIB;
/// The base image alone takes some hundreds of megabytes.
const LEAST_DISK: u64 = GIB;

/// Reads the section `machine`.
pub(super) fn machine(reader: &Reader<'_>, node: &Node) -> Option<MachineSpec> {
    let section = Section::of(reader, node, "`machine`", KEYS)?;
    let Some(provider) = section.text("provider") else {
        if section.lacks("provider") {
            section.missing(
                "`provider` is missing",
                "`provider: local` runs the job on this machine; `provider: qemu` boots aicert's own image for it",
            );
        }
        return None;
    };
    match provider.text {
        "local" => {
            section.refuse(
                QEMU_KEYS,
                "belongs to `provider: qemu`",
                "remove it, or use `provider: qemu`",
            );
            local(&section).map(MachineSpec::Local)
        }
        "qemu" => {
            section.refuse(
                LOCAL_KEYS,
                "belongs to `provider: local`",
                "remove it: a machine in QEMU has a software TPM of its own",
            );
            qemu(&section).map(MachineSpec::Qemu)
        }
        cloud if PROVIDERS.contains(&cloud) => {
            reader.problem_with_help(
                provider.place,
                format!("`provider: {cloud}` is not available in this build"),
                "`provider: local` runs the job on this machine, `provider: qemu` on one that is booted for it",
            );
            None
        }
        other => {
            reader.problem_with_help(
                provider.place,
                "unknown `provider`",
                similar_or(other, PROVIDERS, || {
                    format!("it is one of {}", PROVIDERS.join(", "))
                }),
            );
            None
        }
    }
}

fn local(section: &Section<'_>) -> Option<LocalTpm> {
    let reader = section.reader;
    let Some(tpm) = section.text("tpm") else {
        if section.lacks("tpm") {
            section.missing(
                "`tpm` is missing: which TPM shall sign?",
                "`tpm: device` is the TPM of this machine; `tpm: swtpm` simulates one, for trying things out",
            );
        }
        return None;
    };
    match tpm.text {
        "swtpm" => {
            section.refuse(
                DEVICE_KEYS,
                "belongs to `tpm: device`",
                "remove it, or use `tpm: device`",
            );
            Some(LocalTpm::Swtpm)
        }
        "device" => device(section),
        other => {
            reader.problem_with_help(
                tpm.place,
                "unknown `tpm`",
                similar_or(other, TPMS, || {
                    "it is `device`, the TPM of this machine, or `swtpm`, a simulated one".into()
                }),
            );
            None
        }
    }
}

fn device(section: &Section<'_>) -> Option<LocalTpm> {
    let reader = section.reader;
    let path = section
        .text("path")
        .map_or_else(|| PathBuf::from("/dev/tpmrm0"), |path| PathBuf::from(path.text));
    if !path.is_absolute() {
        reader.problem(section.place(), "`path` of the TPM is absolute: /dev/tpmrm0");
    }
    for (key, help) in [
        (
            "akHandle",
            "add the persistent handle of the attestation key, such as 0x81000003",
        ),
        (
            "akCertificates",
            "add the files of the attestation key's certificate chain, its own first",
        ),
    ] {
        if section.lacks(key) {
            section.missing(format!("`{key}` is missing"), help);
        }
    }
    let handle = section.scalar("akHandle").and_then(|text| {
        let parsed = match text.text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => text.text.parse().ok(),
        };
        // TPM 2.0 Library, part 2, section 7.4: persistent handles begin with 0x81.
        let parsed = parsed.filter(|handle| handle >> 24 == 0x81);
        if parsed.is_none() {
            reader.problem(
                text.place,
                "`akHandle` is a persistent handle: 0x81000000 to 0x81ffffff",
            );
        }
        parsed
    });
    let certificates = section.list("akCertificates", "files").map(|items| {
        if items.is_empty() {
            reader.problem(section.place(), "`akCertificates` is empty");
        }
        items
            .iter()
            .filter_map(|item| section.scalar_of(item, "akCertificates", false))
            .map(|file| reader.path(file.text))
            .collect()
    });
    Some(LocalTpm::Device {
        path,
        ak_handle: handle?,
        ak_certificates: certificates?,
    })
}

fn qemu(section: &Section<'_>) -> Option<QemuMachine> {
    let reader = section.reader;
    if section.lacks("image") {
        section.missing(
            "`image` is missing: what shall the machine boot?",
            "`image` names the disk image of aicert's base image; `aicert image build` makes it",
        );
    }
    let path = |key| section.text(key).map(|text| reader.path(text.text));
    let image = path("image");
    let reference_values = path("referenceValues");
    // Each is read before anything is given up, so that all problems are reported together.
    let accelerator = accelerator(section);
    let cpus = cpus(section);
    let memory = size(section, "memory", MEMORY, LEAST_MEMORY);
    let disk = size(section, "disk", DISK, LEAST_DISK);
    let boot_limit = boot_limit(section);
    Some(QemuMachine {
        image: image?,
        reference_values,
        accelerator: accelerator?,
        cpus: cpus?,
        memory: memory?,
        disk: disk?,
        boot_limit: boot_limit?,
    })
}

fn accelerator(section: &Section<'_>) -> Option<Accelerator> {
    if section.entry("accelerator").is_none() {
        return Some(Accelerator::Tcg);
    }
    let accelerator = section.text("accelerator")?;
    match accelerator.text {
        "tcg" => Some(Accelerator::Tcg),
        "kvm" => Some(Accelerator::Kvm),
        other => {
            section.reader.problem_with_help(
                accelerator.place,
                "unknown `accelerator`",
                similar_or(other, ACCELERATORS, || {
                    "it is `tcg`, which works everywhere, or `kvm`, which needs /dev/kvm".into()
                }),
            );
            None
        }
    }
}

fn cpus(section: &Section<'_>) -> Option<u32> {
    if section.entry("cpus").is_none() {
        return Some(CPUS);
    }
    let cpus = section.scalar("cpus")?;
    let number = cpus.text.parse().ok().filter(|n| (1..=CPUS_LIMIT).contains(n));
    if number.is_none() {
        section.reader.problem(
            cpus.place,
            format!("`cpus` is a number of processors, 1 to {CPUS_LIMIT}"),
        );
    }
    number
}

/// A size that is at least `least`; `default` where the file does not say.
fn size(section: &Section<'_>, key: &'static str, default: u64, least: u64) -> Option<u64> {
    if section.entry(key).is_none() {
        return Some(default);
    }
    let text = section.scalar(key)?;
    let size = values::size(text.text);
    match size {
        None => section.reader.problem_with_help(
            text.place,
            format!("`{key}` is no size"),
            "write a whole number with its unit: 8GiB, 500MiB",
        ),
        Some(bytes) if bytes < least => section.reader.problem_with_help(
            text.place,
            format!("`{key}` is too small for a machine"),
            format!("it takes {}GiB at least", least / GIB),
        ),
        Some(_) => {}
    }
    size
}

fn boot_limit(section: &Section<'_>) -> Option<Duration> {
    if section.entry("bootLimit").is_none() {
        return Some(BOOT_LIMIT);
    }
    let text = section.scalar("bootLimit")?;
    let limit = values::duration(text.text);
    if limit.is_none() {
        section.reader.problem_with_help(
            text.place,
            "`bootLimit` is no time span",
            "write it with units: 90s, 5m, 1h",
        );
    }
    limit
}
