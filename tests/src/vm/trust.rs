//! What machines and proofs are verified against.

use std::fs;

use aicert_core::time::Timestamp;
use aicert_verify::policy::{FirmwareRule, Policy};
use aicert_verify::reference::ReferenceValues;
use aicert_verify::{Options, TrustAnchors};

use crate::base::BaseImage;

/// What is expected of an image, under an authority of one's own; the firmware is whatever this host has.
///
/// # Panics
///
/// When the image's reference values cannot be read, or the root is none.
pub fn options(image: &BaseImage, root: &str) -> Options {
    let values = fs::read(&image.reference_values).expect("the reference values can be read");
    let values = ReferenceValues::from_slice(&values).expect("they are reference values");
    let anchors = TrustAnchors::pinned()
        .with_root(root.as_bytes())
        .expect("it is a root");
    let mut policy = Policy::for_own_root();
    policy.firmware = FirmwareRule::Any;
    Options::new(anchors, Timestamp::now())
        .with_reference_values(values)
        .with_policy(policy)
}
