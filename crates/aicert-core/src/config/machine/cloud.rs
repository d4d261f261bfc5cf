//! What machines of all clouds have.

use std::path::PathBuf;
use std::time::Duration;

use super::{GIB, LEAST_DISK, size, span};
use crate::cloud::Network;
use crate::config::section::{Section, Text};
use crate::runtime::Limits;
use crate::spec::CloudMachine;

const DISK: u64 = 64 * GIB;
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// What a machine needs beside its job: to boot, to fetch inputs, and until its results are here.
const BESIDE_JOB: Duration = Duration::from_secs(4 * 3600);
const BOOT_LIMIT: Duration = Duration::from_secs(600);

/// What one cloud's names look like.
pub(super) struct Shapes {
    /// What is wrong with the name of an image, and what to do.
    pub(super) image: fn(&str) -> Result<(), Wrong>,
    /// The same for the name of a kind of machine.
    pub(super) instance_type: fn(&str) -> Result<(), Wrong>,
    /// The longest time that machines may be given.
    pub(super) longest: Option<Duration>,
}

/// What is wrong with a value, and what to do about it.
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) help: String,
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: help.into(),
        }
    }
}

/// Reads what the keys of all clouds say; nothing only when a problem was noted.
pub(super) fn machine(section: &Section<'_>, limits: &Limits, shapes: &Shapes) -> Option<CloudMachine> {
    let reader = section.reader;
    for (key, message, help) in [
        (
            "image",
            "`image` is missing: what shall the machine boot?",
            "`image` is the cloud's name of a published base image; `aicert image publish` makes one, and prints its name",
        ),
        (
            "referenceValues",
            "`referenceValues` is missing: what must the image measure?",
            "`referenceValues` names a file; `aicert image measure IMAGE --json` writes it",
        ),
    ] {
        if section.lacks(key) {
            section.missing(message, help);
        }
    }
    // Each is read before anything is given up, so that all problems are reported together.
    let image = checked(section, "image", shapes.image);
    let reference_values = section.text("referenceValues").map(|text| reader.path(text.text));
    let instance_type = optional(section, "instanceType", shapes.instance_type);
    let disk = size(section, "disk", DISK, LEAST_DISK);
    let spot = boolean(section, "spot");
    let access = access(section);
    let boot_limit = span(section, "bootLimit", BOOT_LIMIT);
    let lifetime = lifetime(section, limits, boot_limit, shapes.longest);
    let issuers = issuers(section);
    Some(CloudMachine {
        image: image?,
        reference_values: reference_values?,
        instance_type: instance_type?,
        disk: disk?,
        spot: spot?,
        access: access?,
        lifetime: lifetime?,
        boot_limit: boot_limit?,
        issuers: issuers?,
    })
}

/// `true` or `false`; `false` where the file does not say.
pub(super) fn boolean(section: &Section<'_>, key: &'static str) -> Option<bool> {
    boolean_or(section, key, false)
}

/// The same, with another default.
pub(super) fn boolean_or(section: &Section<'_>, key: &'static str, default: bool) -> Option<bool> {
    match section.entry(key) {
        None => Some(default),
        Some(_) => section.boolean(key),
    }
}

/// A text that is held to its shape.
pub(super) fn checked(
    section: &Section<'_>,
    key: &'static str,
    shape: fn(&str) -> Result<(), Wrong>,
) -> Option<String> {
    let text = section.text(key)?;
    match shape(text.text) {
        Ok(()) => Some(text.text.to_owned()),
        Err(wrong) => {
            section
                .reader
                .problem_with_help(text.place, wrong.message, wrong.help);
            None
        }
    }
}

/// The same for a key that must be there.
pub(super) fn required(
    section: &Section<'_>,
    key: &'static str,
    message: &str,
    help: &str,
    shape: fn(&str) -> Result<(), Wrong>,
) -> Option<String> {
    if section.lacks(key) {
        section.missing(message, help);
    }
    checked(section, key, shape)
}

/// The same for a key that may be absent: nothing at all only when a problem was noted.
#[expect(
    clippy::option_option,
    reason = "whether it is right, and whether it is there"
)]
pub(super) fn optional(
    section: &Section<'_>,
    key: &'static str,
    shape: fn(&str) -> Result<(), Wrong>,
) -> Option<Option<String>> {
    match section.entry(key) {
        None => Some(None),
        Some(_) => checked(section, key, shape).map(Some),
    }
}

/// The same for a key that environment variables stand in for, which the vendor's own tools read as well.
pub(super) fn from_environment(
    section: &Section<'_>,
    key: &'static str,
    variables: &[&str],
    shape: fn(&str) -> Result<(), Wrong>,
    help: &str,
) -> Option<String> {
    if !section.lacks(key) {
        return checked(section, key, shape);
    }
    let reader = section.reader;
    let found = variables.iter().find_map(|name| {
        let value = (reader.environment)(name).filter(|value| !value.is_empty())?;
        Some((name, value))
    });
    let Some((name, value)) = found else {
        let variables = match variables {
            [one] => format!("the environment variable {one} is not set"),
            several => format!("neither {} is set", several.join(" nor ")),
        };
        section.missing(format!("`{key}` is missing, and {variables}"), help);
        return None;
    };
    if let Err(wrong) = shape(&value) {
        let message = format!(
            "`{key}` is missing, and the environment variable {name} does not hold it: {}",
            wrong.message
        );
        section.missing(message, help);
        return None;
    }
    Some(value)
}

fn access(section: &Section<'_>) -> Option<Vec<Network>> {
    if section.entry("access").is_none() {
        return Some(Vec::new());
    }
    let items = section.list("access", "networks")?;
    let mut networks = Vec::new();
    let mut wrong = items.is_empty();
    if wrong {
        section.reader.problem_with_help(
            section.place_of("access"),
            "`access` is empty: nobody could reach the machine",
            "name networks, such as 203.0.113.0/24; without the key, only your own address can reach the machine",
        );
    }
    for item in items {
        let parsed = section
            .scalar_of(item, "access", false)
            .and_then(|text| network(section, text));
        wrong |= parsed.is_none();
        networks.extend(parsed);
    }
    (!wrong).then_some(networks)
}

fn network(section: &Section<'_>, text: Text<'_>) -> Option<Network> {
    text.text
        .parse()
        .map_err(|error: crate::cloud::ParseNetworkError| {
            section.reader.problem_with_help(
                text.place,
                error.to_string(),
                "write an address, 203.0.113.7, or a network, 203.0.113.0/24",
            );
        })
        .ok()
}

fn lifetime(
    section: &Section<'_>,
    limits: &Limits,
    boot_limit: Option<Duration>,
    longest: Option<Duration>,
) -> Option<Duration> {
    let needed = limits.time.unwrap_or_default();
    let default = LIFETIME.max(needed.saturating_add(BESIDE_JOB));
    let lifetime = span(section, "lifetime", default)?;
    let reader = section.reader;
    let place = section.place_of("lifetime");
    if section.entry("lifetime").is_some() && lifetime < needed {
        reader.problem_with_help(
            place,
            "`lifetime` is shorter than the time that the job may take",
            "the machine ends when its lifetime does, whatever it has computed: give it more than `time` in `limits`",
        );
        return None;
    }
    if boot_limit.is_some_and(|boot| lifetime <= boot) {
        reader.problem_with_help(
            place,
            "`lifetime` is not longer than `bootLimit`",
            "the machine ends when its lifetime does, whatever it has computed: give it more",
        );
        return None;
    }
    if let Some(longest) = longest.filter(|longest| lifetime > *longest) {
        reader.problem_with_help(
            place,
            "`lifetime` is longer than this cloud lets machines be limited to",
            format!("it takes {}d at most", longest.as_secs() / 86_400),
        );
        return None;
    }
    Some(lifetime)
}

fn issuers(section: &Section<'_>) -> Option<Vec<PathBuf>> {
    if section.entry("issuers").is_none() {
        return Some(Vec::new());
    }
    let items = section.list("issuers", "files")?;
    let files: Vec<_> = items
        .iter()
        .filter_map(|item| section.check_text(section.scalar_of(item, "issuers", false)?))
        .map(|file| section.reader.path(file.text))
        .collect();
    (files.len() == items.len()).then_some(files)
}
