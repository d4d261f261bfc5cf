//! A machine of Google Compute Engine.

use std::time::Duration;

use super::cloud::{self, Shapes, Wrong};
use crate::config::section::Section;
use crate::runtime::Limits;
use crate::spec::GcpMachine;

pub(super) const KEYS: &[&str] = &[
    "project",
    "zone",
    "image",
    "referenceValues",
    "instanceType",
    "disk",
    "confidential",
    "spot",
    "network",
    "access",
    "lifetime",
    "bootLimit",
    "issuers",
];

const SHAPES: Shapes = Shapes {
    image,
    instance_type,
    // Compute Engine documentation, "Limit the run time of a VM": 30 seconds to 120 days.
    longest: Some(Duration::from_secs(120 * 86_400)),
};

pub(super) fn gcp(section: &Section<'_>, limits: &Limits) -> Option<GcpMachine> {
    let project = cloud::from_environment(
        section,
        "project",
        &["GOOGLE_CLOUD_PROJECT"],
        project,
        "add the id of the project that pays; `gcloud config get project` prints it",
    );
    let zone = cloud::required(
        section,
        "zone",
        "`zone` is missing: where shall the machine be?",
        "add `zone`, such as europe-west4-a",
        zone,
    );
    let network = cloud::optional(section, "network", network);
    // Compute Engine documents certificates of attestation keys for confidential machines alone ("Confidential VM vTPM
    // non-volatile storage contents").
    let confidential = cloud::boolean_or(section, "confidential", true);
    let machine = cloud::machine(section, limits, &SHAPES);
    Some(GcpMachine {
        project: project?,
        zone: zone?,
        network: network?,
        confidential: confidential?,
        machine: machine?,
    })
}

/// A name as resources of Compute Engine have it (RFC 1035): lowercase letters, digits and `-`, a letter first, no `-` last.
fn is_name(text: &str, longest: usize) -> bool {
    text.len() <= longest
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The id of a project, which older ones have behind the domain of an organization.
fn is_project(text: &str) -> bool {
    let (domain, id) = text
        .split_once(':')
        .map_or((None, text), |(domain, id)| (Some(domain), id));
    is_name(id, 30)
        && id.len() >= 6
        && domain.is_none_or(|domain| {
            !domain.is_empty()
                && domain
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
        })
}

fn project(text: &str) -> Result<(), Wrong> {
    if is_project(text) {
        return Ok(());
    }
    let number = text.bytes().all(|b| b.is_ascii_digit());
    Err(Wrong::new(
        if number {
            "`project` is a project's number"
        } else {
            "`project` is no id of a project"
        },
        "`gcloud projects list` shows ids: 6 to 30 lowercase letters, digits and `-`, a letter first",
    ))
}

/// `europe-west4`.
fn is_region(text: &str) -> bool {
    let Some((continent, rest)) = text.split_once('-') else {
        return false;
    };
    let place = rest.trim_end_matches(|c: char| c.is_ascii_digit());
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
    text.len() <= 40 && is_word(continent) && is_word(place) && place.len() < rest.len()
}

fn zone(text: &str) -> Result<(), Wrong> {
    // A letter; zones for training alone have `ai`, a number and a letter.
    let is_letter = |letter: &str| {
        let letter = letter.strip_prefix("ai").map_or(letter, |rest| {
            rest.trim_start_matches(|c: char| c.is_ascii_digit())
        });
        letter.len() == 1 && letter.bytes().all(|b| b.is_ascii_lowercase())
    };
    let parts = text.rsplit_once('-');
    if parts.is_some_and(|(region, letter)| is_region(region) && is_letter(letter)) {
        return Ok(());
    }
    Err(if is_region(text) {
        Wrong::new(
            "`zone` names a region",
            format!("a zone has a letter behind it: `{text}-a`; `gcloud compute zones list` shows them"),
        )
    } else {
        Wrong::new(
            "`zone` is no zone of Compute Engine",
            "zones are called like europe-west4-a; `gcloud compute zones list` shows them",
        )
    })
}

fn network(text: &str) -> Result<(), Wrong> {
    if is_name(text, 63) {
        return Ok(());
    }
    Err(Wrong::new(
        "`network` is no name of a network",
        "`gcloud compute networks list` shows those of the project; without the key it is `default`",
    ))
}

fn image(text: &str) -> Result<(), Wrong> {
    let parts: Vec<_> = text.split('/').collect();
    let valid = match parts[..] {
        ["projects", project, "global", "images", name] => is_project(project) && is_name(name, 63),
        _ => false,
    };
    if valid {
        return Ok(());
    }
    Err(Wrong::new(
        "`image` is no name of an image",
        "it is projects/PROJECT/global/images/NAME, as `aicert image publish` prints it",
    ))
}

fn instance_type(text: &str) -> Result<(), Wrong> {
    let mut parts = text.split('-');
    let valid =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if text.len() <= 63 && text.contains('-') && parts.all(valid) {
        return Ok(());
    }
    Err(Wrong::new(
        "`instanceType` is no machine type",
        "machine types are called like n2d-standard-4; `gcloud compute machine-types list --zones ZONE` shows them",
    ))
}
