//! A job on this machine.

use std::path::PathBuf;

use crate::config::section::Section;
use crate::spec::LocalTpm;
use crate::yaml::similar_or;

pub(super) const KEYS: &[&str] = &["tpm", "path", "akHandle", "akCertificates"];

const DEVICE_KEYS: &[&str] = &["path", "akHandle", "akCertificates"];
const TPMS: &[&str] = &["swtpm", "device"];

pub(super) fn local(section: &Section<'_>) -> Option<LocalTpm> {
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
