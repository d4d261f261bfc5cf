//! The image that machines are made from.

use aicert_core::cloud::CloudErrorKind;
use aws_sdk_ec2::types::{ArchitectureValues, BootModeValues, Image, ImageState, TpmSupportValues};

use crate::GIB;
use crate::account::Account;
use crate::error::Failure;

/// What machines need to know of their image.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) id: String,
    /// What EC2 calls the disk that is booted from.
    pub(crate) root: String,
}

/// Looks an image up, and whether machines made from it could be attested.
pub(crate) async fn require(account: &Account, id: &str, disk: u64) -> Result<Found, Failure> {
    let answer = account
        .call("DescribeImages", |clients| {
            clients.ec2.describe_images().image_ids(id).send()
        })
        .await?;
    let image = answer.images().first().ok_or_else(|| {
        Failure::told(
            CloudErrorKind::NotFound,
            format!("{} has no image {id:?}", account.config.region),
            "name in `image` what `aicert image publish --provider aws` printed, for this very region",
        )
    })?;
    check(id, image)?;
    let root = image
        .root_device_name()
        .ok_or_else(|| none_of_ours(id, "has no root device"))?;
    let holds = image
        .block_device_mappings()
        .iter()
        .find(|mapping| mapping.device_name() == Some(root))
        .and_then(|mapping| mapping.ebs()?.volume_size())
        .unwrap_or(0);
    let holds = u64::try_from(holds).unwrap_or(0);
    if disk.div_ceil(GIB) < holds {
        return Err(Failure::unsupported(
            format!(
                "the image {id:?} has {holds} GiB, and `disk` only {} GiB",
                disk.div_ceil(GIB)
            ),
            "make `disk` larger than the image: the job writes to what is left",
        ));
    }
    Ok(Found {
        id: id.into(),
        root: root.into(),
    })
}

fn check(id: &str, image: &Image) -> Result<(), Failure> {
    match image.state() {
        Some(ImageState::Available) | None => {}
        Some(state) => {
            return Err(Failure::told(
                CloudErrorKind::NotFound,
                format!("the image {id:?} is {state}"),
                "publish it with `aicert image publish --provider aws`, which waits until it is available",
            ));
        }
    }
    if image.architecture() != Some(&ArchitectureValues::X8664) {
        return Err(none_of_ours(id, "is not x86-64"));
    }
    if image.boot_mode() != Some(&BootModeValues::Uefi) {
        return Err(none_of_ours(id, "does not boot with UEFI alone"));
    }
    if image.tpm_support() != Some(&TpmSupportValues::V20) {
        return Err(none_of_ours(id, "gives its machines no NitroTPM"));
    }
    Ok(())
}

fn none_of_ours(id: &str, what: &str) -> Failure {
    Failure::unsupported(
        format!("the image {id:?} {what}: it is none that aicert has published"),
        "name in `image` what `aicert image publish --provider aws` printed",
    )
}
