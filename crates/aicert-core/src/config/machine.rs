//! Where the job runs: one module for each provider.

mod aws;
mod azure;
mod cloud;
mod gcp;
mod local;
mod qemu;

use std::time::Duration;

use super::section::{Reader, Section};
use super::values;
use crate::runtime::Limits;
use crate::spec::MachineSpec;
use crate::yaml::{Node, similar_or};

/// The keys of all providers.
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
    "subscription",
    "project",
    "region",
    "zone",
    "instanceType",
    "disk",
    "confidential",
    "spot",
    "subnet",
    "network",
    "access",
    "lifetime",
    "bootLimit",
    "issuers",
];

/// Each provider with its keys.
const PROVIDERS: &[(&str, &[&str])] = &[
    ("local", local::KEYS),
    ("azure", azure::KEYS),
    ("aws", aws::KEYS),
    ("gcp", gcp::KEYS),
    ("qemu", qemu::KEYS),
];

const GIB: u64 = 1 << 30;
/// The base image alone takes some hundreds of megabytes.
const LEAST_DISK: u64 = GIB;

/// Reads the section `machine`.
pub(super) fn machine(reader: &Reader<'_>, node: &Node, limits: &Limits) -> Option<MachineSpec> {
    let section = Section::of(reader, node, "`machine`", KEYS)?;
    let Some(provider) = section.text("provider") else {
        if section.lacks("provider") {
            section.missing(
                "`provider` is missing",
                "`provider: local` runs the job on this machine; `qemu` boots aicert's own image for it, and so do `azure`, `aws` \
                 and `gcp` in a cloud",
            );
        }
        return None;
    };
    refuse_others(&section, provider.text);
    match provider.text {
        "local" => local::local(&section).map(MachineSpec::Local),
        "qemu" => qemu::qemu(&section).map(MachineSpec::Qemu),
        "azure" => azure::azure(&section, limits).map(MachineSpec::Azure),
        "aws" => aws::aws(&section, limits).map(MachineSpec::Aws),
        "gcp" => gcp::gcp(&section, limits).map(MachineSpec::Gcp),
        other => {
            let names: Vec<_> = PROVIDERS.iter().map(|(name, _)| *name).collect();
            reader.problem_with_help(
                provider.place,
                "unknown `provider`",
                similar_or(other, &names, || format!("it is one of {}", names.join(", "))),
            );
            None
        }
    }
}

/// Refuses the keys of other providers, and says whose they are.
fn refuse_others(section: &Section<'_>, provider: &str) {
    let Some((_, own)) = PROVIDERS.iter().find(|(name, _)| *name == provider) else {
        return;
    };
    for key in KEYS {
        if *key == "provider" || own.contains(key) {
            continue;
        }
        let owners: Vec<_> = PROVIDERS
            .iter()
            .filter(|(_, keys)| keys.contains(key))
            .map(|(name, _)| format!("`provider: {name}`"))
            .collect();
        let because = format!("belongs to {}", alternatives(&owners));
        let help = instead(provider, key).map_or_else(
            || match &owners[..] {
                [owner] => format!("remove it, or use {owner}"),
                _ => "remove it, or use another provider".to_owned(),
            },
            str::to_owned,
        );
        section.refuse(&[key], &because, &help);
    }
}

/// `a`, `a or b`, `a, b or c`.
fn alternatives(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [name] => name.clone(),
        [names @ .., last] => format!("{} or {last}", names.join(", ")),
    }
}

/// What to write instead of a key that another provider has.
fn instead(provider: &str, key: &str) -> Option<&'static str> {
    Some(match (provider, key) {
        ("qemu", "tpm" | "path" | "akHandle" | "akCertificates") => {
            "remove it: a machine in QEMU has a software TPM of its own"
        }
        ("azure" | "aws" | "gcp", "tpm" | "path" | "akHandle" | "akCertificates") => {
            "remove it: the machine has a TPM of its own, which the cloud vouches for"
        }
        ("azure" | "aws" | "gcp", "cpus" | "memory") => {
            "the kind of machine decides that: `instanceType` names one"
        }
        ("qemu", "instanceType") => "in QEMU, `cpus` and `memory` say what the machine has",
        ("azure" | "aws", "zone") => "use `region`",
        ("gcp", "region") => "Compute Engine makes a machine in one zone of a region: `zone: europe-west4-a`",
        ("azure", "project") => "use `subscription`",
        ("gcp", "subscription") => "use `project`",
        ("aws", "subscription" | "project") => "remove it: credentials of AWS are those of one account",
        ("aws", "network") => "use `subnet`",
        ("gcp", "subnet") => "use `network`",
        ("azure", "subnet" | "network") => "remove it: every machine gets a network of its own",
        _ => return None,
    })
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

/// A time span; `default` where the file does not say.
fn span(section: &Section<'_>, key: &'static str, default: Duration) -> Option<Duration> {
    if section.entry(key).is_none() {
        return Some(default);
    }
    let text = section.scalar(key)?;
    let span = values::duration(text.text);
    if span.is_none() {
        section.reader.problem_with_help(
            text.place,
            format!("`{key}` is no time span"),
            "write it with units: 90s, 5m, 1h, 1d",
        );
    }
    span
}
