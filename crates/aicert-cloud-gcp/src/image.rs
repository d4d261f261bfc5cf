//! The image that machines are made from.

use aicert_core::cloud::CloudErrorKind;
use google_cloud_compute_v1::model::guest_os_feature::Type as Feature;
use google_cloud_compute_v1::model::{deprecation_status, image};

use crate::api::Api;
use crate::error::Fault;
use crate::marks::is_name;

const DOING: &str = "look at the image";

/// Names an image: `projects/<project>/global/images/<name>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageName {
    pub(crate) project: String,
    pub(crate) name: String,
}

/// What of an image decides how machines are made from it.
#[derive(Debug, Clone)]
pub(crate) struct KnownImage {
    pub(crate) name: ImageName,
    /// Whether it brings what Secure Boot lets start.
    pub(crate) secure_boot: bool,
    /// In GiB.
    pub(crate) size: u64,
}

impl ImageName {
    /// Reads a name, or Google's address of it. Names of families are refused: what they name changes.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let path = text
            .strip_prefix("https://www.googleapis.com/compute/v1/")
            .or_else(|| text.strip_prefix("https://compute.googleapis.com/compute/v1/"))
            .unwrap_or(text);
        match path.split('/').collect::<Vec<_>>()[..] {
            ["projects", project, "global", "images", name] if is_project(project) && is_name(name) => Ok(Self {
                project: project.into(),
                name: name.into(),
            }),
            _ => Err(Fault::new(
                DOING,
                CloudErrorKind::Unsupported,
                format!("{:?} is no image", text.chars().take(200).collect::<String>()),
            )
            .advise(
                "expected `projects/<project>/global/images/<name>`, as `aicert image publish --provider gcp` prints it",
            )),
        }
    }

    pub(crate) fn path(&self) -> String {
        format!("projects/{}/global/images/{}", self.project, self.name)
    }
}

/// Whether a text is the id of a project, with the domain of old ones before it (`example.com:project`).
pub(crate) fn is_project(text: &str) -> bool {
    matches!(text.len(), 1..=127)
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b':'))
}

impl Api {
    /// Looks at an image, and refuses one that no attested machine can be made from.
    pub(crate) async fn know_image(&self, name: ImageName, confidential: bool) -> Result<KnownImage, Fault> {
        let found = self
            .find(DOING, |clients| {
                let request = clients.images.get();
                request.set_project(&name.project).set_image(&name.name).send()
            })
            .await?;
        let refuse = |kind, why: &str| {
            Err(Fault::new(
                DOING,
                kind,
                format!("the image {} {why}", name.path()),
            ))
        };
        let Some(found) = found else {
            return refuse(CloudErrorKind::NotFound, "is not there, or not for you").map_err(|fault| {
                fault.advise("publish one with `aicert image publish --provider gcp`, or be given `compute.images.get` and \
                     `compute.images.useReadOnly` in its project")
            });
        };
        if found.status != Some(image::Status::Ready) {
            return refuse(
                CloudErrorKind::NotFound,
                "is not ready: it is being made, or that has failed",
            )
            .map_err(|fault| fault.advise("publish it again: that goes on where it was interrupted"));
        }
        let state = found.deprecated.as_ref().and_then(|status| status.state.clone());
        if matches!(
            state,
            Some(deprecation_status::State::Obsolete | deprecation_status::State::Deleted)
        ) {
            return refuse(CloudErrorKind::NotFound, "has been withdrawn")
                .map_err(|fault| fault.advise("take a newer one"));
        }
        if matches!(&found.architecture, Some(other) if *other != image::Architecture::X8664) {
            return refuse(CloudErrorKind::Unsupported, "is not for x86-64");
        }
        let needed = [
            Some((Feature::UefiCompatible, "UEFI_COMPATIBLE")),
            confidential.then_some((Feature::SevCapable, "SEV_CAPABLE")),
        ];
        for (feature, text) in needed.into_iter().flatten() {
            if !found
                .guest_os_features
                .iter()
                .any(|has| has.r#type.as_ref() == Some(&feature))
            {
                return refuse(
                    CloudErrorKind::Unsupported,
                    &format!("lacks the feature {text}, without which no such machine is made from it"),
                )
                .map_err(|fault| fault.advise("publish it with `aicert image publish --provider gcp`"));
            }
        }
        let secure_boot = found
            .shielded_instance_initial_state
            .as_ref()
            .is_some_and(|state| !state.dbs.is_empty());
        Ok(KnownImage {
            name,
            secure_boot,
            size: found
                .disk_size_gb
                .and_then(|size| u64::try_from(size).ok())
                .unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_one_name() {
        let path = "projects/my-project/global/images/aicert-1";
        for text in [
            path.to_owned(),
            format!("https://www.googleapis.com/compute/v1/{path}"),
            format!("https://compute.googleapis.com/compute/v1/{path}"),
        ] {
            assert_eq!(ImageName::parse(&text).unwrap().path(), path);
        }
        for text in [
            "aicert-1",
            "projects/p/global/images/family/f",
            "projects/../global/images/x",
            "projects/p/global/images/X",
            "",
        ] {
            assert!(ImageName::parse(text).is_err(), "{text}");
        }
    }
}
