//! What was published before, by its tags.

use aicert_cloud_common::{Owner, Tags};
use aicert_core::cloud::CloudErrorKind;
use aws_sdk_ec2::types::{ImageState, ResourceType, SnapshotState, Tag, TagSpecification};

use crate::account::Account;
use crate::error::Failure;
use crate::group;
use crate::network::filter;

/// The tag with the name of the image.
const NAME: &str = "aicert-image";
/// The tag with the SHA-256 of the disk image.
const SHA256: &str = "aicert-sha256";
/// The tag with the number of blocks, of those that hold anything, which are surely written.
pub(crate) const WRITTEN: &str = "aicert-written";

/// What images and their snapshots are marked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) owner: String,
    pub(crate) name: String,
    sha256: String,
}

/// An image that there is.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) id: String,
    /// Nothing when somebody else has made it.
    pub(crate) mark: Option<Mark>,
    pub(crate) state: ImageState,
    pub(crate) snapshot: Option<String>,
}

/// A snapshot that there is.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) id: String,
    pub(crate) mark: Option<Mark>,
    pub(crate) state: SnapshotState,
    pub(crate) written: usize,
}

impl Mark {
    pub(crate) fn new(owner: &Owner, name: &str, sha256: &str) -> Self {
        Self {
            owner: owner.to_string(),
            name: name.into(),
            sha256: sha256.into(),
        }
    }

    fn read(tags: &[Tag]) -> Option<Self> {
        Some(Self {
            owner: value(tags, Tags::OWNER)?.into(),
            name: value(tags, NAME)?.into(),
            sha256: value(tags, SHA256)?.into(),
        })
    }

    pub(crate) fn pairs(&self) -> [(&'static str, &str); 4] {
        [
            (Tags::OWNER, &self.owner),
            (NAME, &self.name),
            (SHA256, &self.sha256),
            ("Name", &self.name),
        ]
    }

    pub(crate) fn specification(&self, kind: ResourceType) -> TagSpecification {
        let tags = self.pairs();
        TagSpecification::builder()
            .resource_type(kind)
            .set_tags(Some(
                tags.map(|(key, value)| Tag::builder().key(key).value(value).build())
                    .into(),
            ))
            .build()
    }

    pub(crate) fn description(&self) -> String {
        format!("aicert base image, SHA-256 {}", self.sha256)
    }

    /// What has the same name must be of the same file, and of the same owner.
    pub(crate) fn require_same(&self, what: &str, id: &str, found: &Option<Self>) -> Result<(), Failure> {
        let why = match found {
            Some(found) if found == self => return Ok(()),
            Some(found) if found.owner != self.owner => format!("belongs to {}", found.owner),
            Some(found) => format!(
                "is of another file (SHA-256 {}, and not {})",
                found.sha256, self.sha256
            ),
            None => "was not made by aicert".into(),
        };
        Err(Failure::told(
            CloudErrorKind::Failed,
            format!("there is {what} {id} with the name {:?}, and it {why}", self.name),
            format!(
                "publish under another name; or, if nobody needs it any more, remove it: `aicert image discard --provider aws \
                 --region … {}`",
                self.name
            ),
        ))
    }
}

/// The image of that name in this account, whoever has made it: there is one at most.
pub(crate) async fn image(account: &Account, name: &str) -> Result<Option<Published>, Failure> {
    let answer = account
        .call("DescribeImages", |clients| {
            let request = clients.ec2.describe_images().owners("self");
            request.filters(filter("name", [name])).send()
        })
        .await?;
    Ok(answer.images().iter().find_map(|image| {
        Some(Published {
            id: image.image_id()?.into(),
            mark: Mark::read(image.tags()),
            state: image.state().cloned().unwrap_or(ImageState::Pending),
            snapshot: image
                .block_device_mappings()
                .iter()
                .find_map(|mapping| Some(mapping.ebs()?.snapshot_id()?.to_owned())),
        })
    }))
}

/// The snapshots for an image of that name, of this owner.
pub(crate) async fn snapshots(account: &Account, name: &str) -> Result<Vec<Stored>, Failure> {
    let mut filters = group::of(&account.config.owner, None);
    filters.push(filter(&format!("tag:{NAME}"), [name]));
    let mut found = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let answer = account
            .call("DescribeSnapshots", |clients| {
                let request = clients.ec2.describe_snapshots().owner_ids("self");
                request
                    .set_filters(Some(filters.clone()))
                    .set_next_token(next.clone())
                    .max_results(200)
                    .send()
            })
            .await?;
        found.extend(answer.snapshots().iter().filter_map(|snapshot| {
            Some(Stored {
                id: snapshot.snapshot_id()?.into(),
                mark: Mark::read(snapshot.tags()),
                state: snapshot.state()?.clone(),
                written: value(snapshot.tags(), WRITTEN)
                    .and_then(|count| count.parse().ok())
                    .unwrap_or(0),
            })
        }));
        next = answer
            .next_token()
            .filter(|token| !token.is_empty())
            .map(str::to_owned);
        if next.is_none() {
            return Ok(found);
        }
    }
}

fn value<'a>(tags: &'a [Tag], key: &str) -> Option<&'a str> {
    tags.iter().find(|tag| tag.key() == Some(key))?.value()
}
