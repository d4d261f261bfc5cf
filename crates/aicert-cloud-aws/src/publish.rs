//! Images: the blocks of a disk image become a snapshot, and the snapshot an image that machines boot from.
//!
//! There is no record of it here: the snapshot carries the SHA-256 of the image and how many blocks are surely written, as tags,
//! so that whoever publishes the same image again, from wherever, goes on. Blocks behind that count are written again, which EBS
//! allows as long as a snapshot is pending; it lists the blocks of snapshots that are complete alone.

mod blocks;
mod find;
mod snapshot;

use std::sync::Mutex;
use std::time::Instant;

use aicert_core::cloud::{CloudError, CloudErrorKind, ImagePublisher, ImageRequest, PublishedImage};
use aicert_core::progress::Step;
use async_trait::async_trait;
use aws_sdk_ec2::types::{
    ArchitectureValues, BlockDeviceMapping, BootModeValues, EbsBlockDevice, ImageState, ImdsSupportValues,
    ResourceType, SnapshotState, TpmSupportValues, VolumeType,
};

use self::blocks::Blocks;
use self::find::{Mark, Published, Stored};
use crate::account::Account;
use crate::config::AwsConfig;
use crate::error::Failure;
use crate::instance::lock;

/// What the disk is called that machines boot from.
const ROOT: &str = "/dev/xvda";

/// Puts images where machines of EC2 are made from: in one region, of one owner.
#[derive(Debug)]
pub struct AwsPublisher {
    account: Account,
}

impl AwsPublisher {
    /// Of one owner, in one region. Nothing is asked of Amazon, and no credentials are looked for, until something is called.
    pub fn new(config: AwsConfig) -> Self {
        Self {
            account: Account::new(config),
        }
    }
}

#[async_trait]
impl ImagePublisher for AwsPublisher {
    async fn publish(&self, request: ImageRequest) -> Result<PublishedImage, CloudError> {
        Ok(publish(&self.account, &request).await?)
    }

    async fn discard(&self, name: &str) -> Result<(), CloudError> {
        require_name(name)?;
        Ok(discard(&self.account, name).await?)
    }
}

async fn publish(account: &Account, request: &ImageRequest) -> Result<PublishedImage, Failure> {
    let account = &account.telling(&request.progress);
    require_name(&request.name)?;
    let subject = format!("{} in {} (Amazon EC2)", request.name, account.config.region);
    request.progress.started(Step::Publish, &subject);
    let blocks = Blocks::read(&request.image).await?;
    let mark = Mark::new(&account.config.owner, &request.name, &blocks.sha256);
    if let Some(image) = find::image(account, &request.name).await? {
        mark.require_same("image", &image.id, &image.mark)?;
        available(account, &request.name).await?;
        // What a process that was interrupted after the last step has left.
        remove_others(account, &mark, image.snapshot.as_deref()).await?;
        request.progress.finished(Step::Publish, &subject, &image.id);
        return Ok(PublishedImage {
            id: image.id,
            existed: true,
        });
    }
    let snapshot = complete_snapshot(account, &blocks, &mark, request, &subject).await?;
    let id = register(account, &mark, &snapshot).await?;
    available(account, &request.name).await?;
    remove_others(account, &mark, Some(&snapshot)).await?;
    request.progress.finished(Step::Publish, &subject, &id);
    Ok(PublishedImage { id, existed: false })
}

/// A snapshot with all blocks of the image: the one that there is, as far as it is, or a new one.
async fn complete_snapshot(
    account: &Account,
    blocks: &Blocks,
    mark: &Mark,
    request: &ImageRequest,
    subject: &str,
) -> Result<String, Failure> {
    let stored = find::snapshots(account, &mark.name).await?;
    for snapshot in &stored {
        mark.require_same("snapshot", &snapshot.id, &snapshot.mark)?;
    }
    if let Some(complete) = stored
        .iter()
        .find(|snapshot| snapshot.state == SnapshotState::Completed)
    {
        return Ok(complete.id.clone());
    }
    // One that was left alone for too long cannot be written to any more.
    for failed in stored
        .iter()
        .filter(|snapshot| snapshot.state == SnapshotState::Error)
    {
        delete(account, &failed.id).await?;
    }
    let pending = stored
        .iter()
        .filter(|snapshot| snapshot.state == SnapshotState::Pending)
        .max_by_key(|snapshot| snapshot.written);
    let (id, written) = match pending {
        Some(Stored { id, written, .. }) => (id.clone(), *written),
        None => (snapshot::start(account, blocks, mark).await?, 0),
    };
    snapshot::write(account, blocks, &id, written, &request.progress, subject).await?;
    snapshot::complete(account, blocks, &id).await?;
    Ok(id)
}

async fn register(account: &Account, mark: &Mark, snapshot: &str) -> Result<String, Failure> {
    let root = EbsBlockDevice::builder()
        .snapshot_id(snapshot)
        .volume_type(VolumeType::Gp3)
        .delete_on_termination(true)
        .build();
    let root = BlockDeviceMapping::builder().device_name(ROOT).ebs(root).build();
    let registered = account
        .call("RegisterImage", |clients| {
            clients
                .ec2
                .register_image()
                .name(&mark.name)
                .description(mark.description())
                .architecture(ArchitectureValues::X8664)
                .virtualization_type("hvm")
                .boot_mode(BootModeValues::Uefi)
                .tpm_support(TpmSupportValues::V20)
                .imds_support(ImdsSupportValues::V20)
                .ena_support(true)
                .root_device_name(ROOT)
                .block_device_mappings(root.clone())
                .tag_specifications(mark.specification(ResourceType::Image))
                .send()
        })
        .await;
    match registered {
        Ok(registered) => Ok(registered.image_id().unwrap_or_default().to_owned()),
        // By a request whose answer was lost, or by somebody else.
        Err(failure) if failure.code() == "InvalidAMIName.Duplicate" => {
            let image = available(account, &mark.name).await?;
            mark.require_same("image", &image.id, &image.mark)?;
            Ok(image.id)
        }
        Err(failure) => Err(failure),
    }
}

/// Waits until the image of that name can be used.
async fn available(account: &Account, name: &str) -> Result<Published, Failure> {
    let waited = account
        .config
        .patience
        .publish
        .until(|| async {
            let Some(image) = find::image(account, name).await? else {
                return Ok(None);
            };
            match image.state {
                ImageState::Available => Ok(Some(image)),
                ImageState::Pending | ImageState::Transient => Ok(None),
                state => Err(Failure::told(
                    CloudErrorKind::Failed,
                    format!("the image {} ({name:?}) is {state}", image.id),
                    format!(
                        "`aicert image discard --provider aws --region {} {name}`, and publish it again",
                        account.config.region
                    ),
                )),
            }
        })
        .await;
    waited.map_err(|error| snapshot::too_long(error, &format!("the image {name:?} is not available")))
}

/// Removes snapshots of the same image that were begun twice.
async fn remove_others(account: &Account, mark: &Mark, keep: Option<&str>) -> Result<(), Failure> {
    // Where it is not said what the image is made of, nothing is surplus.
    let Some(keep) = keep else {
        return Ok(());
    };
    for snapshot in find::snapshots(account, &mark.name).await? {
        if snapshot.id != keep
            && mark
                .require_same("snapshot", &snapshot.id, &snapshot.mark)
                .is_ok()
        {
            delete(account, &snapshot.id).await?;
        }
    }
    Ok(())
}

/// Removes an image and its snapshots; what was made a moment ago may not be listed yet, and is waited for.
async fn discard(account: &Account, name: &str) -> Result<(), Failure> {
    let patience = account.config.patience;
    let owner = &account.config.owner;
    let quiet: Mutex<Option<Instant>> = Mutex::new(None);
    let gone = patience
        .end
        .until(|| async {
            let image = find::image(account, name).await?;
            let snapshots = find::snapshots(account, name).await?;
            if let Some(image) = &image {
                if image
                    .mark
                    .as_ref()
                    .is_none_or(|mark| mark.owner != owner.as_str())
                {
                    return Err(Failure::told(
                        CloudErrorKind::PermissionDenied,
                        format!("the image {} ({name:?}) does not belong to {owner}", image.id),
                        "whoever has made it removes it: `aws ec2 deregister-image`",
                    ));
                }
                let deregistered = account
                    .call("DeregisterImage", |clients| {
                        clients.ec2.deregister_image().image_id(&image.id).send()
                    })
                    .await;
                match deregistered {
                    Err(failure) if !is_gone(&failure) => return Err(failure),
                    _ => {}
                }
            }
            for snapshot in &snapshots {
                delete(account, &snapshot.id).await?;
            }
            if image.is_some() || !snapshots.is_empty() {
                *lock(&quiet) = None;
                return Ok(None);
            }
            let since = *lock(&quiet).get_or_insert_with(Instant::now);
            Ok((since.elapsed() >= patience.settle).then_some(()))
        })
        .await;
    gone.map_err(|error| snapshot::too_long(error, &format!("the image {name:?} is not gone")))
}

/// Deletes a snapshot, unless an image is made of it still.
async fn delete(account: &Account, id: &str) -> Result<(), Failure> {
    let deleted = account
        .call("DeleteSnapshot", |clients| {
            clients.ec2.delete_snapshot().snapshot_id(id).send()
        })
        .await;
    match deleted {
        // In use by an image that is just being removed: tried again with the next look.
        Err(failure) if !is_gone(&failure) && failure.code() != "InvalidSnapshot.InUse" => Err(failure),
        _ => Ok(()),
    }
}

fn is_gone(failure: &Failure) -> bool {
    matches!(
        failure.code(),
        "InvalidSnapshot.NotFound" | "InvalidAMIID.NotFound" | "InvalidAMIID.Unavailable"
    )
}

/// Names of images (EC2 API, `RegisterImage`), less what filters take for patterns, and spaces.
fn require_name(name: &str) -> Result<(), Failure> {
    let valid = matches!(name.len(), 3..=128)
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'));
    if valid {
        return Ok(());
    }
    let shown: String = name.chars().take(140).collect();
    Err(Failure::unsupported(
        format!("{shown:?} is no name of an image"),
        "take 3 to 128 letters, digits and `-`, `_`, `.`, `/`",
    ))
}
