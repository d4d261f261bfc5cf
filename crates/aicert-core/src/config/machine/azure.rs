//! A machine of Microsoft Azure.

use super::cloud::{self, Shapes, Wrong};
use crate::config::section::Section;
use crate::runtime::Limits;
use crate::spec::AzureMachine;

pub(super) const KEYS: &[&str] = &[
    "subscription",
    "region",
    "image",
    "referenceValues",
    "instanceType",
    "disk",
    "confidential",
    "spot",
    "access",
    "lifetime",
    "bootLimit",
    "issuers",
];

const SHAPES: Shapes = Shapes {
    image,
    instance_type,
    longest: None,
};

pub(super) fn azure(section: &Section<'_>, limits: &Limits) -> Option<AzureMachine> {
    let subscription = cloud::from_environment(
        section,
        "subscription",
        &["AZURE_SUBSCRIPTION_ID"],
        subscription,
        "add the id of the subscription that pays; `az account show --query id` prints it",
    );
    let region = cloud::required(
        section,
        "region",
        "`region` is missing: where shall the machine be?",
        "add `region`, such as westeurope; the image must be there too",
        region,
    );
    let confidential = cloud::boolean(section, "confidential");
    let machine = cloud::machine(section, limits, &SHAPES);
    Some(AzureMachine {
        subscription: subscription?,
        region: region?,
        confidential: confidential?,
        machine: machine?,
    })
}

fn subscription(text: &str) -> Result<(), Wrong> {
    let groups: Vec<_> = text.split('-').collect();
    let is_uuid = groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.concat().bytes().all(|b| b.is_ascii_hexdigit());
    if is_uuid {
        return Ok(());
    }
    Err(Wrong::new(
        "`subscription` is the id of a subscription, a UUID",
        "`az account list --output table` shows names and ids",
    ))
}

fn region(text: &str) -> Result<(), Wrong> {
    let is_plain = |text: &str| {
        text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            && text.len() <= 60
    };
    if is_plain(text) {
        return Ok(());
    }
    // The portal shows `West Europe`.
    let plain = text.replace(' ', "").to_lowercase();
    let help = if is_plain(&plain) {
        format!("did you mean `{plain}`?")
    } else {
        "regions of Azure are called like westeurope; `az account list-locations --output table` shows them"
            .to_owned()
    };
    Err(Wrong::new("`region` is no region of Azure", help))
}

/// A version of an image in a compute gallery: one's own, one that is shared, or of the community.
fn image(text: &str) -> Result<(), Wrong> {
    let lower = text.to_ascii_lowercase();
    let parts: Vec<_> = lower.split('/').collect();
    let version = match parts[..] {
        [
            "",
            "subscriptions",
            _,
            "resourcegroups",
            _,
            "providers",
            "microsoft.compute",
            "galleries",
            _,
            "images",
            _,
            "versions",
            version,
        ]
        | [
            "",
            "sharedgalleries" | "communitygalleries",
            _,
            "images",
            _,
            "versions",
            version,
        ] => Some(version),
        _ => None,
    };
    let whole = parts.iter().skip(1).all(|part| !part.is_empty());
    let numbers = version.filter(|version| {
        let mut numbers = version.split('.');
        numbers.clone().count() == 3 && numbers.all(|number| number.parse::<u32>().is_ok())
    });
    if whole && numbers.is_some() && !text.contains(char::is_whitespace) {
        return Ok(());
    }
    Err(Wrong::new(
        "`image` is no version of an image in a compute gallery",
        "it is /subscriptions/…/resourceGroups/…/providers/Microsoft.Compute/galleries/…/images/…/versions/1.2.3, as `aicert image publish` prints it",
    ))
}

fn instance_type(text: &str) -> Result<(), Wrong> {
    let size = text.strip_prefix("Standard_").unwrap_or_default();
    if !size.is_empty()
        && text.len() <= 80
        && size
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    {
        return Ok(());
    }
    Err(Wrong::new(
        "`instanceType` is no size of Azure",
        "sizes are called like Standard_D4s_v5; `az vm list-sizes --location REGION --output table` shows them",
    ))
}
