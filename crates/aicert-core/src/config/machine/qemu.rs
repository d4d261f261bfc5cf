//! A machine in QEMU.

use std::time::Duration;

use super::{GIB, LEAST_DISK, size, span};
use crate::config::section::Section;
use crate::spec::{Accelerator, QemuMachine};
use crate::yaml::similar_or;

pub(super) const KEYS: &[&str] = &[
    "image",
    "referenceValues",
    "accelerator",
    "cpus",
    "memory",
    "disk",
    "bootLimit",
];

const ACCELERATORS: &[&str] = &["tcg", "kvm"];
/// What a machine has where the file does not say.
const CPUS: u32 = 2;
const MEMORY: u64 = 4 * GIB;
const DISK: u64 = 20 * GIB;
const BOOT_LIMIT: Duration = Duration::from_secs(300);
/// More processors than QEMU's `q35` machine takes.
const CPUS_LIMIT: u32 = 255;
/// With less memory, the container engine and the base image's own programs have no room beside a job.
const LEAST_MEMORY: u64 = GIB;

pub(super) fn qemu(section: &Section<'_>) -> Option<QemuMachine> {
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
    let boot_limit = span(section, "bootLimit", BOOT_LIMIT);
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
