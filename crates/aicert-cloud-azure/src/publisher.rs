//! Putting images where machines are made from.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aicert_cloud_common::{SparseImage, Tags};
use aicert_core::cloud::{CloudError, ImagePublisher, ImageRequest, PublishedImage};
use aicert_core::progress::Step;
use aicert_verify::image::MeasureOptions;
use async_trait::async_trait;
use azure_mgmt_compute::models::TargetRegion;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::arm::Arm;
use crate::blob::{PIECE, PageBlob, covers};
use crate::config::AzurePublisherConfig;
use crate::error::Failure;
use crate::gallery::{Shelf, State, Thing, is_same_region, with_regions};
use crate::remove;
use crate::vhd::Vhd;

/// The tag with the SHA-256 of the image's file.
const CONTENT: &str = "aicert-sha256";
/// The tag of a disk that holds all of it.
const COMPLETE: &str = "aicert-complete";

/// Publishes images to a gallery of a subscription.
#[derive(Debug)]
pub struct AzurePublisher {
    config: AzurePublisherConfig,
    arm: Arm,
}

/// An image, read and measured.
#[derive(Debug)]
struct Content {
    vhd: Arc<Vhd>,
    sha256: [u8; 32],
    /// What Secure Boot knows it by.
    authenticode: Vec<u8>,
}

impl AzurePublisher {
    /// Asks nobody for anything yet.
    ///
    /// # Errors
    ///
    /// When the subscription or the endpoint is none, or HTTPS cannot be set up.
    pub fn new(config: AzurePublisherConfig) -> Result<Self, CloudError> {
        Ok(Self {
            arm: Arm::new(&config.cloud)?,
            config,
        })
    }

    fn shelf<'a>(&'a self, arm: &'a Arm, name: &'a str, tags: &'a serde_json::Value) -> Shelf<'a> {
        Shelf {
            arm,
            group: &self.config.group,
            gallery: &self.config.gallery,
            region: &self.config.region,
            name,
            tags,
        }
    }

    fn tags(&self, content: Option<&str>) -> BTreeMap<&'static str, String> {
        let mut tags = BTreeMap::from([(Tags::OWNER, self.config.cloud.owner.to_string())]);
        tags.extend(content.map(|content| (CONTENT, content.to_owned())));
        tags
    }

    /// Whether something of that name is this owner's.
    fn require_ours(&self, what: &str, thing: &Thing) -> Result<(), Failure> {
        if thing.tag(Tags::OWNER) == Some(self.config.cloud.owner.as_str()) {
            Ok(())
        } else {
            Err(Failure::Foreign { what: what.into() })
        }
    }

    async fn carry_out(&self, request: &ImageRequest) -> Result<PublishedImage, Failure> {
        require_name(&request.name)?;
        let path = request.image.clone();
        request.progress.started(Step::Publish, &request.name);
        let content = blocking(move || read_image(&path)).await?;
        let hash = hex::encode(content.sha256);
        let tags = self.tags(Some(&hash));
        let tag_values = remove::tags_object(tags.clone());
        let arm = self.arm.telling(&request.progress);
        let shelf = self.shelf(&arm, &request.name, &tag_values);
        self.require_group(&arm).await?;
        shelf.require_gallery().await?;
        let what = format!("the image {}", request.name);
        match shelf.image().await? {
            None => {
                let confidential = self
                    .config
                    .cloud
                    .machine
                    .as_ref()
                    .is_none_or(|machine| machine.confidential);
                let offer = self.config.cloud.owner.as_str();
                shelf.make_image(offer, confidential).await?;
            }
            Some(image) => {
                self.require_ours(&what, &image)?;
                require_same(&what, &image, &hash)?;
            }
        }
        let mut version = shelf.version().await?;
        if let Some(found) = &version {
            require_same(&what, found, &hash)?;
            if found.state() == State::Going {
                version = Some(shelf.await_version().await?);
            }
        }
        let there = version.as_ref().map(Thing::regions).unwrap_or_default();
        let regions = with_regions(there.clone(), &self.regions());
        // One that came to nothing is made again.
        let existed = match version {
            Some(found) if found.state() == State::Failed => {
                shelf.remove_version().await?;
                false
            }
            Some(found) => {
                if regions.len() > there.len() {
                    let location = found.location().unwrap_or(&self.config.region);
                    shelf
                        .make_version(location, &regions, &content.authenticode)
                        .await?;
                }
                true
            }
            None => false,
        };
        if !existed {
            self.fill(shelf, &content, tags, &regions, request).await?;
        }
        if shelf.disk().await?.is_some() {
            shelf.close_disk().await?;
            shelf.remove_disk().await?;
        }
        let id = shelf.version_id();
        request.progress.finished(Step::Publish, &request.name, &id);
        Ok(PublishedImage { id, existed })
    }

    /// Where images are to be.
    fn regions(&self) -> Vec<String> {
        let mut regions = vec![self.config.region.clone()];
        regions.extend(self.config.more_regions.iter().cloned());
        regions
    }

    /// The group may be shared with others: it is made where there is none, and never changed.
    async fn require_group(&self, arm: &Arm) -> Result<(), Failure> {
        let (group, region) = (&self.config.group, &self.config.region);
        if remove::find(arm, group).await?.is_none() {
            let tags = remove::tags_object(self.tags(None));
            remove::make(arm, group, region, &tags).await?;
        }
        Ok(())
    }

    async fn fill(
        &self,
        shelf: Shelf<'_>,
        content: &Content,
        tags: BTreeMap<&'static str, String>,
        regions: &[TargetRegion],
        request: &ImageRequest,
    ) -> Result<(), Failure> {
        let what = format!("the disk {}", shelf.disk_name());
        let mut disk = shelf.disk().await?;
        if let Some(found) = &disk {
            self.require_ours(&what, found)?;
            require_same(&what, found, tags.get(CONTENT).map_or("", String::as_str))?;
            let takes_uploads = matches!(
                found.property("diskState"),
                Some("ReadyToUpload" | "ActiveUpload")
            );
            // Versions are made in the region of their disk.
            let is_here = found
                .location()
                .is_some_and(|location| is_same_region(location, &self.config.region));
            if !is_here || (!takes_uploads && found.tag(COMPLETE).is_none()) {
                // It was closed before it was known that all of it is there.
                shelf.close_disk().await?;
                shelf.remove_disk().await?;
                disk = None;
            }
        }
        let disk = match disk {
            Some(disk) => disk,
            None => shelf.make_disk(content.vhd.length()).await?,
        };
        if disk.tag(COMPLETE).is_none() {
            self.upload(shelf, content, request).await?;
            // Disks that are written to take no changes.
            shelf.close_disk().await?;
            let mut tags = tags;
            tags.insert(COMPLETE, "true".into());
            shelf.tag_disk(&remove::tags_object(tags)).await?;
        }
        shelf
            .make_version(&self.config.region, regions, &content.authenticode)
            .await
    }

    /// Sends what is not there yet, several pieces at a time.
    async fn upload(
        &self,
        shelf: Shelf<'_>,
        content: &Content,
        request: &ImageRequest,
    ) -> Result<(), Failure> {
        let address = shelf.open_disk().await?;
        let blob = PageBlob::new(shelf.arm.clone(), address);
        let there = blob.ranges().await?;
        let total = content.vhd.length();
        let done = AtomicU64::new(0);
        let sent: Vec<Option<(u64, u64)>> = stream::iter(content.vhd.pieces(PIECE))
            .map(|(start, end)| {
                let (blob, there, done, vhd) = (&blob, &there, &done, Arc::clone(&content.vhd));
                async move {
                    let bytes = blocking(move || Ok(vhd.piece(start, end, PIECE)?)).await?;
                    let holds = !SparseImage::is_zero(&bytes);
                    if holds && !covers(there, (start, end)) {
                        blob.put(start, bytes.into()).await?;
                    }
                    let done = done.fetch_add(end - start, Ordering::Relaxed) + (end - start);
                    request
                        .progress
                        .advanced(Step::Publish, &request.name, done.min(total), Some(total));
                    Ok::<_, Failure>(holds.then_some((start, end)))
                }
            })
            .buffer_unordered(self.config.uploads)
            .try_collect()
            .await?;
        // All of it, and of the file that was measured.
        let there = blob.ranges().await?;
        if let Some(missing) = sent.into_iter().flatten().find(|piece| !covers(&there, *piece)) {
            return Err(Failure::Unexpected {
                request: "GET pagelist".into(),
                why: format!(
                    "bytes {} to {} are not there, and were taken",
                    missing.0, missing.1
                ),
            });
        }
        let vhd = Arc::clone(&content.vhd);
        let again = blocking(move || Ok(vhd.sha256()?)).await?;
        if again != content.sha256 {
            return Err(Failure::Exists {
                what: format!("{} was changed while it was published", request.image.display()),
                advice: "publish it again under another name, or discard this one first".into(),
            });
        }
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), Failure> {
        require_name(name)?;
        let tags = serde_json::Value::Null;
        let shelf = self.shelf(&self.arm, name, &tags);
        // Everything is looked at before anything is removed.
        let (image, disk) = (shelf.image().await?, shelf.disk().await?);
        if let Some(image) = &image {
            self.require_ours(&format!("the image {name}"), image)?;
        }
        if let Some(disk) = &disk {
            self.require_ours(&format!("the disk {}", shelf.disk_name()), disk)?;
            shelf.close_disk().await?;
            shelf.remove_disk().await?;
        }
        if image.is_some() {
            shelf.remove_version().await?;
            shelf.remove_image().await?;
        }
        Ok(())
    }
}

#[async_trait]
impl ImagePublisher for AzurePublisher {
    async fn publish(&self, request: ImageRequest) -> Result<PublishedImage, CloudError> {
        Ok(self.carry_out(&request).await?)
    }

    async fn discard(&self, name: &str) -> Result<(), CloudError> {
        Ok(self.remove(name).await?)
    }
}

/// What galleries and disks take.
fn require_name(name: &str) -> Result<(), Failure> {
    let valid = matches!(name.len(), 1..=60)
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric());
    if valid {
        Ok(())
    } else {
        Err(Failure::Unsupported {
            what: format!(
                "{:?} is no name of an image in Azure",
                name.chars().take(80).collect::<String>()
            ),
            advice: "expected 1 to 60 letters, digits, `-`, `_` and `.`, a letter or digit at both ends"
                .into(),
        })
    }
}

fn require_same(what: &str, thing: &Thing, hash: &str) -> Result<(), Failure> {
    match thing.tag(CONTENT) {
        Some(found) if found == hash => Ok(()),
        Some(found) => Err(Failure::Exists {
            what: format!("{what} is there already, of a file with the SHA-256 {found:.64}, and not {hash}"),
            advice: "publish this one under another name, or discard that one first".into(),
        }),
        None => Err(Failure::Foreign { what: what.into() }),
    }
}

fn read_image(path: &std::path::Path) -> Result<Content, Failure> {
    let (vhd, sha256) = Vhd::open(path)?;
    let file = File::open(path).map_err(|error| Failure::Local {
        what: format!("could not open {}", path.display()),
        why: error.to_string(),
    })?;
    let reference = aicert_verify::image::measure(file, &MeasureOptions::default())?;
    let authenticode = reference
        .events
        .iter()
        .find(|event| event.what == "UKI")
        .and_then(|event| hex::decode(event.digests.sha256.to_string()).ok())
        .ok_or_else(|| Failure::Local {
            what: format!("{} cannot be published", path.display()),
            why: "firmware would measure no image of it".into(),
        })?;
    Ok(Content {
        vhd: Arc::new(vhd),
        sha256,
        authenticode,
    })
}

/// Runs something that reads files where that disturbs nobody.
async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, Failure> + Send + 'static,
) -> Result<R, Failure> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Failure::Local {
            what: "work on the image was cut off".into(),
            why: error.to_string(),
        })
    })
}
