//! Galleries, their images, and the disks that images are made of.

use aicert_core::secret::Secret;
use azure_mgmt_compute::models::{
    self, Architecture, CreationData, Disk, DiskProperties, DiskSku, DiskUpdate, Gallery,
    GalleryArtifactPublishingProfileBase, GalleryArtifactVersionSource, GalleryDiskImage,
    GalleryDiskImageSource, GalleryImage, GalleryImageFeature, GalleryImageIdentifier,
    GalleryImageProperties, GalleryImageVersion, GalleryImageVersionProperties,
    GalleryImageVersionPublishingProfile, GalleryImageVersionStorageProfile, GalleryImageVersionUefiSettings,
    GalleryOsDiskImage, GrantAccessData, ImageVersionSecurityProfile, Resource, TargetRegion, UefiKey,
    UefiKeySignatures, UefiSignatureTemplateName, creation_data, disk_properties, disk_sku,
    gallery_image_properties, grant_access_data, target_region, uefi_key,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize as _;
use serde_json::Value;

use crate::arm::{Arm, AsyncAgain, read};
use crate::error::Failure;
use crate::transport::Reply;

/// How long the address of a disk may be written to.
const ACCESS_SECONDS: i32 = 24 * 60 * 60;

/// The only version that an image has: another image has another name.
pub(crate) const IMAGE_VERSION: &str = "1.0.0";

/// Where an image is, and is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shelf<'a> {
    pub(crate) arm: &'a Arm,
    pub(crate) group: &'a str,
    pub(crate) gallery: &'a str,
    pub(crate) region: &'a str,
    /// The image's name.
    pub(crate) name: &'a str,
    /// What everything of the image is marked with.
    pub(crate) tags: &'a Value,
}

/// Something that is there.
#[derive(Debug)]
pub(crate) struct Thing {
    body: Value,
}

impl Thing {
    pub(crate) fn tag(&self, key: &str) -> Option<&str> {
        self.body.get("tags")?.get(key)?.as_str()
    }

    pub(crate) fn property(&self, name: &str) -> Option<&str> {
        self.body.get("properties")?.get(name)?.as_str()
    }

    pub(crate) fn location(&self) -> Option<&str> {
        self.body.get("location")?.as_str()
    }

    /// How far a version, and everything else that takes long, is.
    pub(crate) fn state(&self) -> State {
        match self
            .property("provisioningState")
            .map(str::to_ascii_lowercase)
            .as_deref()
        {
            Some("succeeded") => State::Done,
            Some("failed" | "canceled") => State::Failed,
            _ => State::Going,
        }
    }

    /// Where a version is, or is to be.
    pub(crate) fn regions(&self) -> Vec<TargetRegion> {
        let regions = self.body.pointer("/properties/publishingProfile/targetRegions");
        regions
            .and_then(|regions| Vec::deserialize(regions).ok())
            .unwrap_or_default()
    }

    /// Whether somebody was given the address of a disk.
    fn is_open(&self) -> bool {
        matches!(
            self.property("diskState"),
            Some("ActiveUpload" | "ActiveSAS" | "ActiveSASFrozen")
        )
    }
}

/// How far something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Going,
    Done,
    Failed,
}

/// Whether two names are of one region: Azure shows `West Europe` for `westeurope`.
pub(crate) fn is_same_region(one: &str, other: &str) -> bool {
    let plain = |name: &str| name.replace(' ', "").to_ascii_lowercase();
    plain(one) == plain(other)
}

/// Adds regions to those of a version.
pub(crate) fn with_regions(mut regions: Vec<TargetRegion>, more: &[String]) -> Vec<TargetRegion> {
    for name in more {
        if !regions.iter().any(|region| is_same_region(&region.name, name)) {
            let mut region = TargetRegion::new(name.clone());
            region.regional_replica_count = Some(1);
            region.storage_account_type = Some(target_region::StorageAccountType::StandardLrs);
            regions.push(region);
        }
    }
    regions
}

fn found(what: &str, reply: Result<Reply, Failure>) -> Result<Option<Thing>, Failure> {
    match reply {
        Ok(reply) => Ok(Some(Thing {
            body: read(what, &reply)?,
        })),
        Err(failure) if failure.is_not_found() => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn gone(reply: Result<Reply, Failure>) -> Result<(), Failure> {
    match reply {
        Err(failure) if failure.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}

/// What is made, and asked for again until it is there.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Gallery,
    Image,
    Version,
    Disk,
}

struct Again<'a>(Shelf<'a>, Kind);

#[async_trait::async_trait]
impl AsyncAgain for Again<'_> {
    async fn ask(&self) -> Result<Reply, Failure> {
        self.0.get(self.1).await
    }
}

impl<'a> Shelf<'a> {
    /// The id of the image's version.
    pub(crate) fn version_id(&self) -> String {
        let gallery = self
            .arm
            .id(self.group, "Microsoft.Compute/galleries", self.gallery);
        format!("{gallery}/images/{}/versions/{IMAGE_VERSION}", self.name)
    }

    /// What the disk is called that the image is made of, while it is made.
    pub(crate) fn disk_name(&self) -> String {
        format!("aicert-upload-{}", self.name)
    }

    fn resource(&self) -> Resource {
        let mut resource = Resource::new(self.region.into());
        resource.tags = Some(self.tags.clone());
        resource
    }

    async fn get(&self, kind: Kind) -> Result<Reply, Failure> {
        let Self {
            arm,
            group,
            gallery,
            name,
            ..
        } = *self;
        let (compute, subscription) = (&arm.compute, &arm.subscription);
        match kind {
            Kind::Gallery => {
                arm.generated("GET the gallery", || {
                    compute
                        .galleries_client()
                        .get(subscription, group, gallery)
                        .send()
                })
                .await
            }
            Kind::Image => {
                arm.generated("GET the image", || {
                    compute
                        .gallery_images_client()
                        .get(subscription, group, gallery, name)
                        .send()
                })
                .await
            }
            Kind::Version => {
                arm.generated("GET the version of the image", || {
                    compute
                        .gallery_image_versions_client()
                        .get(subscription, group, gallery, name, IMAGE_VERSION)
                        .send()
                })
                .await
            }
            Kind::Disk => {
                arm.generated("GET the disk", || {
                    compute
                        .disks_client()
                        .get(subscription, group, self.disk_name())
                        .send()
                })
                .await
            }
        }
    }

    async fn finish(&self, what: &str, reply: Reply, kind: Kind) -> Result<Thing, Failure> {
        let reply = self.arm.finish(what, reply, Some(&Again(*self, kind))).await?;
        Ok(Thing {
            body: read(what, &reply)?,
        })
    }

    /// Makes the gallery where there is none.
    pub(crate) async fn require_gallery(&self) -> Result<(), Failure> {
        if found("GET the gallery", self.get(Kind::Gallery).await)?.is_some() {
            return Ok(());
        }
        let what = "the gallery";
        let reply = self
            .arm
            .generated(what, || {
                self.arm
                    .compute
                    .galleries_client()
                    .create_or_update(
                        &self.arm.subscription,
                        self.group,
                        self.gallery,
                        Gallery::new(self.resource()),
                    )
                    .send()
            })
            .await?;
        self.finish(what, reply, Kind::Gallery).await.map(drop)
    }

    pub(crate) async fn image(&self) -> Result<Option<Thing>, Failure> {
        found("GET the image", self.get(Kind::Image).await)
    }

    /// Makes the image, which has no version yet: the durable trace of what is published.
    pub(crate) async fn make_image(&self, offer: &str, confidential: bool) -> Result<(), Failure> {
        use gallery_image_properties::{HyperVGeneration, OsState, OsType};
        let identifier = GalleryImageIdentifier::new("aicert".into(), offer.into(), self.name.into());
        let mut properties = GalleryImageProperties::new(OsType::Linux, OsState::Specialized, identifier);
        properties.hyper_v_generation = Some(HyperVGeneration::V2);
        properties.architecture = Some(Architecture::X64);
        let feature = |name: &str, value: &str| GalleryImageFeature {
            name: Some(name.into()),
            value: Some(value.into()),
        };
        properties.features = vec![
            feature(
                "SecurityType",
                if confidential {
                    "TrustedLaunchAndConfidentialVmSupported"
                } else {
                    "TrustedLaunchSupported"
                },
            ),
            // The base image finds its disk behind both. What is not said here, machines cannot have.
            feature("DiskControllerTypes", "SCSI, NVMe"),
        ];
        let mut image = GalleryImage::new(self.resource());
        image.properties = Some(properties);
        let what = "the image";
        let reply = self
            .arm
            .generated(what, || {
                self.arm
                    .compute
                    .gallery_images_client()
                    .create_or_update(
                        &self.arm.subscription,
                        self.group,
                        self.gallery,
                        self.name,
                        image.clone(),
                    )
                    .send()
            })
            .await?;
        self.finish(what, reply, Kind::Image).await.map(drop)
    }

    pub(crate) async fn version(&self) -> Result<Option<Thing>, Failure> {
        found("GET the version of the image", self.get(Kind::Version).await)
    }

    /// Makes the version from the disk, and waits until it is in all regions; of one that is there, only the regions can be others.
    /// Secure Boot lets it start the image whose Authenticode digest this is, unsigned as that is.
    pub(crate) async fn make_version(
        &self,
        location: &str,
        regions: &[TargetRegion],
        authenticode: &[u8],
    ) -> Result<(), Failure> {
        let mut storage = GalleryImageVersionStorageProfile::new();
        storage.os_disk_image = Some(GalleryOsDiskImage {
            gallery_disk_image: GalleryDiskImage {
                source: Some(GalleryDiskImageSource {
                    gallery_artifact_version_source: GalleryArtifactVersionSource {
                        id: Some(self.disk_id()),
                    },
                    ..GalleryDiskImageSource::default()
                }),
                ..GalleryDiskImage::default()
            },
        });
        let mut properties = GalleryImageVersionProperties::new(storage);
        properties.publishing_profile = Some(GalleryImageVersionPublishingProfile {
            gallery_artifact_publishing_profile_base: GalleryArtifactPublishingProfileBase {
                target_regions: regions.to_vec(),
                ..GalleryArtifactPublishingProfileBase::default()
            },
        });
        properties.security_profile = Some(ImageVersionSecurityProfile {
            uefi_settings: Some(GalleryImageVersionUefiSettings {
                signature_template_names: vec![
                    UefiSignatureTemplateName::MicrosoftUefiCertificateAuthorityTemplate,
                ],
                additional_signatures: Some(UefiKeySignatures {
                    db: vec![UefiKey {
                        type_: Some(uefi_key::Type::Sha256),
                        value: vec![BASE64.encode(authenticode)],
                    }],
                    ..UefiKeySignatures::default()
                }),
            }),
        });
        let mut resource = self.resource();
        resource.location = location.into();
        let mut version = GalleryImageVersion::new(resource);
        version.properties = Some(properties);
        let what = "the version of the image";
        let reply = self
            .arm
            .generated(what, || {
                self.arm
                    .compute
                    .gallery_image_versions_client()
                    .create_or_update(
                        &self.arm.subscription,
                        self.group,
                        self.gallery,
                        self.name,
                        IMAGE_VERSION,
                        version.clone(),
                    )
                    .send()
            })
            .await?;
        self.finish(what, reply, Kind::Version).await.map(drop)
    }

    /// Waits until a version is there that is being made.
    pub(crate) async fn await_version(&self) -> Result<Thing, Failure> {
        let reply = self.get(Kind::Version).await?;
        self.finish("the version of the image", reply, Kind::Version)
            .await
    }

    pub(crate) async fn remove_version(&self) -> Result<(), Failure> {
        let what = "deleting the version of the image";
        let reply = self
            .arm
            .generated(what, || {
                self.arm
                    .compute
                    .gallery_image_versions_client()
                    .delete(
                        &self.arm.subscription,
                        self.group,
                        self.gallery,
                        self.name,
                        IMAGE_VERSION,
                    )
                    .send()
            })
            .await;
        self.removed(what, reply).await
    }

    pub(crate) async fn remove_image(&self) -> Result<(), Failure> {
        let what = "deleting the image";
        let reply = self
            .arm
            .generated(what, || {
                self.arm
                    .compute
                    .gallery_images_client()
                    .delete(&self.arm.subscription, self.group, self.gallery, self.name)
                    .send()
            })
            .await;
        self.removed(what, reply).await
    }

    async fn removed(&self, what: &str, reply: Result<Reply, Failure>) -> Result<(), Failure> {
        match reply {
            Ok(reply) => gone(self.arm.finish(what, reply, None).await),
            Err(failure) => gone(Err(failure)),
        }
    }

    fn disk_id(&self) -> String {
        self.arm
            .id(self.group, "Microsoft.Compute/disks", &self.disk_name())
    }

    pub(crate) async fn disk(&self) -> Result<Option<Thing>, Failure> {
        found("GET the disk", self.get(Kind::Disk).await)
    }

    /// Makes a disk that is to be uploaded to.
    pub(crate) async fn make_disk(&self, upload: u64) -> Result<Thing, Failure> {
        let mut creation = CreationData::new(creation_data::CreateOption::Upload);
        creation.upload_size_bytes = Some(i64::try_from(upload).map_err(|_| Failure::Unsupported {
            what: "the image is larger than any disk".into(),
            advice: "publish a smaller image".into(),
        })?);
        let mut properties = DiskProperties::new(creation);
        properties.os_type = Some(disk_properties::OsType::Linux);
        properties.hyper_v_generation = Some(disk_properties::HyperVGeneration::V2);
        let mut disk = Disk::new(self.resource());
        disk.sku = Some(DiskSku {
            name: Some(disk_sku::Name::StandardLrs),
            tier: None,
        });
        disk.properties = Some(properties);
        let what = "the disk";
        let reply = self
            .arm
            .generated(what, || {
                self.arm
                    .compute
                    .disks_client()
                    .create_or_update(&self.arm.subscription, self.group, self.disk_name(), disk.clone())
                    .send()
            })
            .await?;
        self.finish(what, reply, Kind::Disk).await
    }

    /// Marks the disk.
    pub(crate) async fn tag_disk(&self, tags: &Value) -> Result<(), Failure> {
        let what = "marking the disk";
        let update = DiskUpdate {
            tags: Some(tags.clone()),
            ..DiskUpdate::default()
        };
        let reply = self
            .arm
            .generated(what, || {
                self.arm
                    .compute
                    .disks_client()
                    .update(
                        &self.arm.subscription,
                        self.group,
                        self.disk_name(),
                        update.clone(),
                    )
                    .send()
            })
            .await?;
        self.finish(what, reply, Kind::Disk).await.map(drop)
    }

    /// The address at which the disk can be written.
    pub(crate) async fn open_disk(&self) -> Result<Secret, Failure> {
        let what = "opening the disk for the upload";
        let access = GrantAccessData::new(grant_access_data::Access::Write, ACCESS_SECONDS);
        let reply = self
            .arm
            .generated(what, || {
                self.arm
                    .compute
                    .disks_client()
                    .grant_access(
                        &self.arm.subscription,
                        self.group,
                        self.disk_name(),
                        access.clone(),
                    )
                    .send()
            })
            .await?;
        let reply = self.arm.finish(what, reply, None).await?;
        let access: models::AccessUri = read(what, &reply)?;
        access
            .access_sas
            .map(Secret::new)
            .ok_or_else(|| Failure::Unexpected {
                request: what.into(),
                why: "there is no address in it".into(),
            })
    }

    async fn is_open(&self) -> Result<bool, Failure> {
        Ok(self.disk().await?.is_some_and(|disk| disk.is_open()))
    }

    /// Takes the address of the disk back, if somebody has it.
    pub(crate) async fn close_disk(&self) -> Result<(), Failure> {
        if !self.is_open().await? {
            return Ok(());
        }
        let what = "closing the disk";
        let reply = self
            .arm
            .generated(what, || {
                self.arm
                    .compute
                    .disks_client()
                    .revoke_access(&self.arm.subscription, self.group, self.disk_name())
                    .send()
            })
            .await;
        match self.removed(what, reply).await {
            // Nobody has it any more: this request was carried out before, and its answer was lost.
            Err(Failure::Refused(refusal)) if refusal.status == 409 && !self.is_open().await? => Ok(()),
            other => other,
        }
    }

    pub(crate) async fn remove_disk(&self) -> Result<(), Failure> {
        let what = "deleting the disk";
        let reply = self
            .arm
            .generated(what, || {
                self.arm
                    .compute
                    .disks_client()
                    .delete(&self.arm.subscription, self.group, self.disk_name())
                    .send()
            })
            .await;
        self.removed(what, reply).await
    }
}
