//! A machine of Amazon EC2.

use super::cloud::{self, Shapes, Wrong};
use crate::config::section::Section;
use crate::runtime::Limits;
use crate::spec::AwsMachine;

pub(super) const KEYS: &[&str] = &[
    "region",
    "image",
    "referenceValues",
    "instanceType",
    "disk",
    "spot",
    "subnet",
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

pub(super) fn aws(section: &Section<'_>, limits: &Limits) -> Option<AwsMachine> {
    let region = cloud::from_environment(
        section,
        "region",
        &["AWS_REGION", "AWS_DEFAULT_REGION"],
        region,
        "add `region`, such as eu-west-1; the image must be there too",
    );
    let subnet = cloud::optional(section, "subnet", subnet);
    let machine = cloud::machine(section, limits, &SHAPES);
    Some(AwsMachine {
        region: region?,
        subnet: subnet?,
        machine: machine?,
    })
}

/// `eu-west-1`, `us-gov-west-1`, `eusc-de-east-1`.
fn is_region(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    let [words @ .., number] = &parts[..] else {
        return false;
    };
    let is_word = |word: &&str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
    text.len() <= 40
        && words.len() >= 2
        && words.iter().all(is_word)
        && matches!(number.len(), 1 | 2)
        && number.bytes().all(|b| b.is_ascii_digit())
}

fn region(text: &str) -> Result<(), Wrong> {
    if is_region(text) {
        return Ok(());
    }
    let without_letter = text.strip_suffix(|last: char| last.is_ascii_lowercase());
    Err(match without_letter.filter(|rest| is_region(rest)) {
        Some(region) => Wrong::new(
            "`region` names an availability zone",
            format!("its region is `{region}`; `subnet` chooses a zone in it"),
        ),
        None => Wrong::new(
            "`region` is no region of AWS",
            "regions of AWS are called like eu-west-1; `aws ec2 describe-regions --output table` shows them",
        ),
    })
}

/// An id: a prefix, and 8 or 17 hexadecimal digits.
fn is_id(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|digits| {
        matches!(digits.len(), 8 | 17)
            && digits
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

fn subnet(text: &str) -> Result<(), Wrong> {
    if is_id(text, "subnet-") {
        return Ok(());
    }
    Err(Wrong::new(
        "`subnet` is no id of a subnet",
        "it begins with subnet-; without the key, one of the default VPC is used",
    ))
}

fn image(text: &str) -> Result<(), Wrong> {
    if is_id(text, "ami-") {
        return Ok(());
    }
    Err(Wrong::new(
        "`image` is no id of an image",
        "it begins with ami-, as `aicert image publish` prints it, and is another one in each region",
    ))
}

fn instance_type(text: &str) -> Result<(), Wrong> {
    let valid = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let parts = text.split_once('.');
    if text.len() <= 60 && parts.is_some_and(|(family, size)| valid(family) && valid(size)) {
        return Ok(());
    }
    Err(Wrong::new(
        "`instanceType` is no type of instances",
        "types are called like m7i.xlarge; `aws ec2 describe-instance-types` shows them",
    ))
}
