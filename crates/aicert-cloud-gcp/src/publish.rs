//! Publishing images: an archive of the disk in a bucket, and an image from that.

mod checksum;
mod groups;
mod storage;
mod tarball;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aicert_cloud_common::{ImageError, SparseImage, Tags};
use aicert_core::cloud::{CloudError, CloudErrorKind, ImagePublisher, ImageRequest, PublishedImage};
use aicert_core::progress::Step;
use async_trait::async_trait;
use flate2::Crc;
use futures_util::{StreamExt as _, TryStreamExt as _};
use google_cloud_compute_v1::model::guest_os_feature::Type as Feature;
use google_cloud_compute_v1::model::image::raw_disk::ContainerType;
use google_cloud_compute_v1::model::image::{Architecture, RawDisk, Status};
use google_cloud_compute_v1::model::{GuestOsFeature, Image};

use crate::PROVIDER;
use crate::api::Api;
use crate::config::GcpConfig;
use crate::error::Fault;
use crate::image::ImageName;
use crate::marks::{is_name, request_id};
use crate::operation::{Scope, Watch};
use checksum::Crc32c;
use groups::Groups;
use storage::Bucket;
use tarball::{Piece, Tarball};

/// How many pieces are compressed and sent at a time.
const AT_A_TIME: usize = 3;
/// The image that an object or an image is of.
const IMAGE: &str = "aicert-image";
/// Labels hold at most 63 characters: the SHA-256 of the disk, in halves.
const SHA256: [&str; 2] = ["aicert-sha256-1", "aicert-sha256-2"];
/// What the base image can do ("Guest operating system features", Compute Engine's documentation): it boots by UEFI, and its
/// kernel has drivers for Google's network, for many queues, and for memory that AMD's processors encrypt. It has none for Intel's
/// (`INTEL_TDX_GUEST`).
const FEATURES: [Feature; 4] = [
    Feature::UefiCompatible,
    Feature::Gvnic,
    Feature::VirtioScsiMultiqueue,
    Feature::SevCapable,
];

/// Puts images into a project of Google Cloud, by way of a bucket of Cloud Storage.
#[derive(Debug)]
pub struct GcpPublisher {
    api: Api,
    bucket: String,
}

/// An image that is being published.
struct Work {
    request: ImageRequest,
    tarball: Arc<Tarball>,
    sha256: String,
    /// For people.
    subject: String,
}

/// What the archive in the bucket is.
struct Archive {
    object: String,
}

impl GcpPublisher {
    /// Uses a bucket that there is, in which nothing stays.
    pub fn new(config: GcpConfig, bucket: impl Into<String>) -> Self {
        Self {
            api: Api::new(config),
            bucket: bucket.into(),
        }
    }

    async fn publish_now(&self, request: ImageRequest) -> Result<PublishedImage, CloudError> {
        let name = request.name.clone();
        require_name(&name)?;
        let subject = format!("{PROVIDER}: {name} in {}", self.api.project());
        request.progress.started(Step::Publish, subject.clone());
        let path = request.image.clone();
        let (sha256, tarball) = blocking(move || {
            let image = SparseImage::open(&path)?;
            Ok::<_, ImageError>((hex::encode(image.sha256()?), Tarball::new(image)))
        })
        .await?
        .map_err(Fault::from)?;
        let work = Work {
            request,
            tarball: Arc::new(tarball),
            sha256,
            subject,
        };
        let existed = self.settled(&name, &work.sha256).await?.is_some();
        if !existed {
            let archive = self.send(&work).await?;
            self.import(&work, &archive).await?;
            if self.settled(&name, &work.sha256).await?.is_none() {
                return Err(CloudError::new(
                    CloudErrorKind::Failed,
                    format!("Compute Engine could not make the image {name} from what was sent"),
                )
                .with_advice("try again: that goes on with what is in the bucket"));
            }
        }
        self.clear(&name).await?;
        let id = self.id(&name).path();
        work.request
            .progress
            .finished(Step::Publish, work.subject, id.clone());
        Ok(PublishedImage { id, existed })
    }

    fn bucket(&self, image: &str) -> Bucket<'_> {
        Bucket {
            api: &self.api,
            name: &self.bucket,
            marks: BTreeMap::from([
                (Tags::OWNER, self.api.config.owner.to_string()),
                (IMAGE, image.to_owned()),
            ]),
        }
    }

    /// Where in the bucket everything for an image is: what others publish under the same name is elsewhere.
    fn folder(&self, image: &str) -> String {
        format!("aicert/{}/{image}/", self.api.config.owner)
    }

    fn id(&self, name: &str) -> ImageName {
        ImageName {
            project: self.api.config.project.clone(),
            name: name.to_owned(),
        }
    }

    async fn find(&self, doing: &str, name: &str) -> Result<Option<Image>, Fault> {
        self.api
            .find(doing, |clients| {
                let request = clients.images.get();
                request.set_project(self.api.project()).set_image(name).send()
            })
            .await
    }

    /// Sends all pieces that are not there, puts them together, and sees that they are what they should be.
    async fn send(&self, work: &Work) -> Result<Archive, CloudError> {
        let bucket = self.bucket(&work.request.name);
        let folder = format!("{}{}/", self.folder(&work.request.name), &work.sha256[..16]);
        let name = |number: u64| format!("{folder}piece-{number:04}");
        let total = work.tarball.disk();
        let mut sent = futures_util::stream::iter(0..work.tarball.pieces())
            .map(|number| {
                let (bucket, tarball, name) = (&bucket, Arc::clone(&work.tarball), name(number));
                async move {
                    let piece = blocking(move || tarball.piece(number))
                        .await?
                        .map_err(Fault::from)?;
                    send_piece(bucket, &name, &piece.bytes).await?;
                    Ok::<_, CloudError>(piece)
                }
            })
            .buffered(AT_A_TIME);
        let (mut crc, mut done) = (Crc::new(), 0);
        let mut groups = Groups::new(&folder);
        while let Some(Piece {
            bytes,
            crc: of_piece,
            length,
        }) = sent.try_next().await?
        {
            crc.combine(&of_piece);
            done += length;
            groups.add(name(groups.pieces), &bytes);
            let progress = &work.request.progress;
            progress.advanced(Step::Publish, &work.subject, done.min(total), Some(total));
        }
        drop(sent);
        let end = work.tarball.end(&crc);
        let last = name(groups.pieces);
        send_piece(&bucket, &last, &end).await?;
        groups.add(last, &end);
        let object = format!("{folder}disk.tar.gz");
        let mut whole = Vec::new();
        for group in &groups.groups {
            bucket
                .compose(&group.name, &group.pieces, group.length, group.crc)
                .await?;
            whole.push(group.name.clone());
        }
        bucket.compose(&object, &whole, groups.length, groups.crc).await?;
        Ok(Archive { object })
    }

    async fn import(&self, work: &Work, archive: &Archive) -> Result<(), Fault> {
        let name = &work.request.name;
        let doing = format!("make the image {name}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let attempt = format!("{} {}", std::process::id(), now.as_nanos());
        let id = request_id(&["image", self.api.project(), name, &attempt]);
        let source = format!(
            "https://storage.googleapis.com/{}/{}",
            self.bucket, archive.object
        );
        let body = Image::new()
            .set_name(name)
            .set_description("Made by aicert from its base image; see its labels.")
            .set_labels(self.labels(work))
            .set_architecture(Architecture::X8664)
            .set_guest_os_features(FEATURES.map(|feature| GuestOsFeature::new().set_type(feature)))
            .set_raw_disk(
                RawDisk::new()
                    .set_source(source)
                    .set_container_type(ContainerType::Tar),
            );
        let inserted = self
            .api
            .ask(&doing, |clients| {
                let request = clients.images.insert();
                request
                    .set_project(self.api.project())
                    .set_request_id(&id)
                    .set_body(body.clone())
                    .send()
            })
            .await;
        let watch = Watch {
            progress: &work.request.progress,
            step: Step::Publish,
            subject: &work.subject,
        };
        match inserted {
            Ok(operation) => self.api.wait(&doing, operation, Scope::Global, Some(watch)).await,
            // Somebody was faster; whether with the same, shows.
            Err(fault) if fault.is_conflict() => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    fn labels(&self, work: &Work) -> HashMap<String, String> {
        let (first, second) = work.sha256.split_at(32);
        HashMap::from([
            (Tags::OWNER.to_owned(), self.api.config.owner.to_string()),
            (SHA256[0].to_owned(), first.to_owned()),
            (SHA256[1].to_owned(), second.to_owned()),
        ])
    }

    /// Waits for an image that is being made, if it is of the same file; nothing when there is none, or one that has failed and
    /// was removed.
    async fn settled(&self, name: &str, sha256: &str) -> Result<Option<()>, CloudError> {
        let doing = format!("look at the image {name}");
        let Some(found) = self.find(&doing, name).await? else {
            return Ok(None);
        };
        let label = |key: &str| found.labels.get(key).map(String::as_str).unwrap_or_default();
        if format!("{}{}", label(SHA256[0]), label(SHA256[1])) != sha256 {
            return Err(CloudError::new(
                CloudErrorKind::Failed,
                format!("there is an image {name} already, and it is not of this file"),
            )
            .with_advice("publish under another name: proofs name what a machine has booted, and the old image may be in use"));
        }
        let ended = self
            .api
            .config
            .paces
            .operation
            .until(|| async {
                Ok::<_, Fault>(match self.find(&doing, name).await? {
                    Some(image) => match image.status {
                        Some(Status::Ready) => Some(Some(true)),
                        Some(Status::Failed) => Some(Some(false)),
                        _ => None,
                    },
                    None => Some(None),
                })
            })
            .await
            .map_err(|error| Fault::waited(&doing, error))?;
        match ended {
            Some(true) => Ok(Some(())),
            Some(false) => {
                self.delete(name).await?;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    async fn delete(&self, name: &str) -> Result<(), Fault> {
        let doing = format!("delete the image {name}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let attempt = format!("{} {}", std::process::id(), now.as_nanos());
        let id = request_id(&["image-delete", self.api.project(), name, &attempt]);
        let deleted = self
            .api
            .find(&doing, |clients| {
                let request = clients.images.delete();
                request
                    .set_project(self.api.project())
                    .set_image(name)
                    .set_request_id(&id)
                    .send()
            })
            .await?;
        match deleted {
            None => Ok(()),
            Some(operation) => self.api.wait(&doing, operation, Scope::Global, None).await,
        }
    }

    /// Deletes what is in the bucket for an image, as far as it is this owner's.
    async fn clear(&self, name: &str) -> Result<(), Fault> {
        let bucket = self.bucket(name);
        let objects = bucket.list(&self.folder(name)).await?;
        let own = objects.into_iter().filter(|object| {
            bucket
                .marks
                .iter()
                .all(|(key, value)| object.metadata.get(*key) == Some(value))
        });
        for object in own {
            bucket.delete(&object.name).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl ImagePublisher for GcpPublisher {
    async fn publish(&self, request: ImageRequest) -> Result<PublishedImage, CloudError> {
        let telling = Self {
            api: self.api.telling(&request.progress),
            bucket: self.bucket.clone(),
        };
        telling.publish_now(request).await
    }

    async fn discard(&self, name: &str) -> Result<(), CloudError> {
        require_name(name)?;
        let doing = format!("look at the image {name}");
        if let Some(found) = self.find(&doing, name).await? {
            let own = found.labels.get(Tags::OWNER).map(String::as_str)
                == Some(self.api.config.owner.as_str())
                && SHA256.iter().all(|key| found.labels.contains_key(*key));
            if !own {
                return Err(CloudError::new(
                    CloudErrorKind::Failed,
                    format!(
                        "the image {name} was not published by aicert for {}",
                        self.api.config.owner
                    ),
                )
                .with_advice("delete it yourself, if it is yours: `gcloud compute images delete`"));
            }
            self.delete(name).await?;
        }
        Ok(self.clear(name).await?)
    }
}

/// Sends a piece, unless it is there.
async fn send_piece(bucket: &Bucket<'_>, name: &str, bytes: &[u8]) -> Result<(), Fault> {
    let mut crc = Crc32c::default();
    crc.update(bytes);
    let there = bucket.get(name).await?;
    if !there.is_some_and(|object| object.holds(bytes.len() as u64, crc)) {
        bucket.put(name, bytes, crc).await?;
    }
    Ok(())
}

fn require_name(name: &str) -> Result<(), CloudError> {
    if is_name(name) {
        return Ok(());
    }
    Err(CloudError::new(
        CloudErrorKind::Unsupported,
        format!(
            "{:?} is no name of an image",
            name.chars().take(80).collect::<String>()
        ),
    )
    .with_advice("expected 1 to 63 lowercase letters, digits and `-`, a letter first"))
}

/// Runs something that reads and computes for long where that disturbs nobody.
async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> Result<R, CloudError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        CloudError::new(CloudErrorKind::Failed, "work on an image was cut off").with_source(error)
    })
}
