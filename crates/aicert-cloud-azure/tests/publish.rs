//! Publishing an image: whole, interrupted, damaged on the way, and again.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../aicert-verify/tests/image/forge.rs"]
#[allow(dead_code, reason = "made for more tests than these")]
mod forge;
mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use aicert_cloud_azure::{AzurePublisher, AzurePublisherConfig};
use aicert_cloud_testing::azure::{Azure, Effect, Fault, Settings};
use aicert_core::cloud::{ImagePublisher as _, ImageRequest};
use aicert_core::progress::{Progress, ProgressEvent};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use support::config;

const DISK: &str = "aicert-upload-base-1";

/// What travels of the image: the first piece of 4 MiB, the third, which ends with the disk, and the footer.
const SENT: u64 = (5 << 20) + 512;

/// A bootable disk of 9 MiB, most of which is zeros.
fn image(folder: &Path, mark: u8) -> (PathBuf, Vec<u8>) {
    let mut disk = forge::disk(&[("EFI/BOOT/BOOTX64.EFI", &forge::pe(&forge::sections("252.1")))]);
    disk.resize(9 << 20, 0);
    disk[8 << 20..(8 << 20) + 4096].fill(mark);
    let path = folder.join(format!("image-{mark}.raw"));
    std::fs::write(&path, &disk).unwrap();
    (path, disk)
}

fn settings() -> Settings {
    Settings {
        polls: 1,
        ..Settings::default()
    }
}

fn publisher(azure: &Azure) -> AzurePublisher {
    let config =
        AzurePublisherConfig::new(config(azure), "westeurope").with_regions(["northeurope".to_owned()]);
    AzurePublisher::new(config).unwrap()
}

fn request(path: &Path) -> ImageRequest {
    ImageRequest {
        image: path.into(),
        name: "base-1".into(),
        progress: Progress::ignored(),
    }
}

fn assert_uploaded(azure: &Azure, disk: &[u8]) {
    let uploaded = azure.uploaded(DISK).unwrap();
    assert_eq!(uploaded.len(), (20 << 20) + 512);
    assert!(uploaded[..disk.len()] == *disk, "the disk must arrive as it is");
    assert!(uploaded[disk.len()..20 << 20].iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn an_image_is_published_once() {
    let Some(azure) = Azure::start(settings()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (path, disk) = image(folder.path(), 1);
    let (progress, mut events) = Progress::channel(100);
    let mut asked = request(&path);
    asked.progress = progress;
    let published = publisher(&azure).publish(asked).await.unwrap();
    assert!(!published.existed);
    assert!(
        published
            .id
            .ends_with("/galleries/aicert/images/base-1/versions/1.0.0"),
        "{}",
        published.id
    );
    assert_uploaded(&azure, &disk);
    assert_eq!(azure.bytes_received(), SENT);
    let mut last = None;
    while let Ok(event) = events.try_recv() {
        if let ProgressEvent::StepAdvanced { done, total, .. } = event {
            last = Some((done, total));
        }
    }
    assert_eq!(last.unwrap().1, Some((20 << 20) + 512));

    let seen = azure.seen();
    let body = |operation: &str| {
        seen.iter()
            .find(|seen| seen.operation == operation)
            .unwrap()
            .body
            .clone()
    };
    let upload = &body("Disks_CreateOrUpdate")["properties"];
    assert_eq!(upload["hyperVGeneration"], "V2");
    assert_eq!(
        upload["creationData"],
        json!({ "createOption": "Upload", "uploadSizeBytes": (20 << 20) + 512 })
    );
    let definition = &body("GalleryImages_CreateOrUpdate")["properties"];
    assert_eq!(
        (&definition["osState"], &definition["hyperVGeneration"]),
        (&json!("Specialized"), &json!("V2"))
    );
    assert_eq!(
        definition["features"],
        json!([
            { "name": "SecurityType", "value": "TrustedLaunchSupported" },
            { "name": "DiskControllerTypes", "value": "SCSI, NVMe" },
        ])
    );
    let version = &body("GalleryImageVersions_CreateOrUpdate")["properties"];
    let regions: Vec<_> = version["publishingProfile"]["targetRegions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["name"].clone())
        .collect();
    assert_eq!(regions, [json!("westeurope"), json!("northeurope")]);
    let db = &version["securityProfile"]["uefiSettings"]["additionalSignatures"]["db"][0];
    let reference = forge::measured(&forge::sections("252.1")).unwrap();
    let uki = reference.events.iter().find(|event| event.what == "UKI").unwrap();
    let allowed = BASE64.decode(db["value"][0].as_str().unwrap()).unwrap();
    assert_eq!(
        (db["type"].clone(), hex::encode(allowed)),
        (json!("sha256"), uki.digests.sha256.to_string())
    );
    // The disk was a means to an end.
    assert!(
        azure.left().iter().all(|id| !id.contains("/disks/")),
        "{:?}",
        azure.left()
    );

    // Again: nothing is sent. Another file under that name: refused.
    let again = publisher(&azure).publish(request(&path)).await.unwrap();
    assert!(again.existed && again.id == published.id);
    let (other, _) = image(folder.path(), 2);
    let error = publisher(&azure).publish(request(&other)).await.unwrap_err();
    assert!(
        error.message().contains("SHA-256") && error.advice().unwrap().contains("discard"),
        "{error}"
    );
    assert_eq!(azure.bytes_received(), SENT);

    publisher(&azure).discard("base-1").await.unwrap();
    publisher(&azure).discard("base-1").await.unwrap();
    assert!(
        azure.left().iter().all(|id| !id.contains("base-1")),
        "{:?}",
        azure.left()
    );
    assert!(!publisher(&azure).publish(request(&other)).await.unwrap().existed);
    azure.assert_clean();
}

/// After an error at each request there is, the same call goes on; what had arrived is not sent again.
#[tokio::test]
async fn an_interrupted_upload_goes_on() {
    let Some(azure) = Azure::start(settings()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (path, disk) = image(folder.path(), 1);
    publisher(&azure).publish(request(&path)).await.unwrap();
    let requests = azure.seen().len();
    for number in 1..=requests {
        let azure = Azure::start(settings()).unwrap();
        azure.fault(Fault {
            operation: None,
            number,
            effect: Effect::Refuse {
                status: 403,
                code: "AuthorizationFailed",
                retry_after: None,
            },
        });
        publisher(&azure).publish(request(&path)).await.unwrap_err();
        let published = publisher(&azure)
            .publish(request(&path))
            .await
            .unwrap_or_else(|error| panic!("{number}: {error}"));
        assert!(published.id.contains("base-1"));
        assert_uploaded(&azure, &disk);
        // At most the pieces that were refused once, or were on their way, are sent again.
        assert!(azure.bytes_received() <= 2 * SENT, "{number}");
        assert!(
            azure.left().iter().all(|id| !id.contains("/disks/")),
            "{number}: {:?}",
            azure.left()
        );
        azure.assert_clean();
    }
    // And what was interrupted is discarded whole.
    for number in (1..=requests).step_by(3) {
        let azure = Azure::start(settings()).unwrap();
        azure.fault(Fault {
            operation: None,
            number,
            effect: Effect::Refuse {
                status: 403,
                code: "AuthorizationFailed",
                retry_after: None,
            },
        });
        publisher(&azure).publish(request(&path)).await.unwrap_err();
        publisher(&azure)
            .discard("base-1")
            .await
            .unwrap_or_else(|error| panic!("{number}: {error}"));
        assert!(
            azure.left().iter().all(|id| !id.contains("base-1")),
            "{number}: {:?}",
            azure.left()
        );
        azure.assert_clean();
    }
}

#[tokio::test]
async fn what_passes_does_not_end_a_publication() {
    let folder = tempfile::tempdir().unwrap();
    let (path, disk) = image(folder.path(), 1);
    let effects = [
        (None, 12, Effect::Expire),
        (Some("page"), 1, Effect::Corrupt),
        (Some("page"), 2, Effect::Cut),
        (Some("pagelist"), 1, Effect::Cut),
        (Some("GalleryImageVersions_CreateOrUpdate"), 1, Effect::Cut),
        (Some("Disks_CreateOrUpdate"), 1, Effect::Cut),
        (
            Some("Disks_GrantAccess"),
            1,
            Effect::Refuse {
                status: 429,
                code: "TooManyRequests",
                retry_after: Some(0),
            },
        ),
    ];
    for (operation, number, effect) in effects {
        let Some(azure) = Azure::start(settings()) else {
            return;
        };
        azure.fault(Fault {
            operation,
            number,
            effect: effect.clone(),
        });
        publisher(&azure)
            .publish(request(&path))
            .await
            .unwrap_or_else(|error| panic!("{effect:?}: {error}"));
        assert_uploaded(&azure, &disk);
        azure.assert_clean();
    }
}

#[tokio::test]
async fn a_version_that_came_to_nothing_is_made_again() {
    let Some(azure) = Azure::start(settings()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (path, disk) = image(folder.path(), 1);
    azure.fault(Fault {
        operation: Some("GalleryImageVersions_CreateOrUpdate"),
        number: 1,
        effect: Effect::FailLater("ReplicationJobsNotCompleted", "it was not replicated"),
    });
    let error = publisher(&azure).publish(request(&path)).await.unwrap_err();
    assert!(error.message().contains("ReplicationJobsNotCompleted"), "{error}");
    assert!(!publisher(&azure).publish(request(&path)).await.unwrap().existed);
    assert_uploaded(&azure, &disk);
    // Sent once.
    assert_eq!(azure.bytes_received(), SENT);
    azure.assert_clean();
}

/// Published again for another region, it comes there too, and stays where it was; nothing is sent again.
#[tokio::test]
async fn an_image_comes_to_another_region() {
    let Some(azure) = Azure::start(settings()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = image(folder.path(), 1);
    let publisher =
        |region: &str| AzurePublisher::new(AzurePublisherConfig::new(config(&azure), region)).unwrap();
    let regions = || -> Vec<String> {
        let seen = azure.seen();
        let put = seen
            .iter()
            .rfind(|seen| seen.operation == "GalleryImageVersions_CreateOrUpdate");
        let profile = &put.unwrap().body["properties"]["publishingProfile"];
        let regions = profile["targetRegions"].as_array().unwrap().iter();
        regions
            .map(|region| region["name"].as_str().unwrap().to_owned())
            .collect()
    };
    publisher("westeurope").publish(request(&path)).await.unwrap();
    assert_eq!(regions(), ["westeurope"]);
    // Names may be as Azure shows them.
    for region in ["northeurope", "northeurope", "westeurope", "North Europe"] {
        let published = publisher(region).publish(request(&path)).await.unwrap();
        assert!(published.existed);
        assert_eq!(regions(), ["westeurope", "northeurope"], "{region}");
    }
    let puts = azure
        .seen()
        .iter()
        .filter(|seen| seen.operation == "GalleryImageVersions_CreateOrUpdate")
        .count();
    assert_eq!((puts, azure.bytes_received()), (2, SENT));
    azure.assert_clean();
}

/// For some seconds after its version is gone, an image is said to have it still.
#[tokio::test]
async fn an_image_is_discarded_when_its_version_is_gone() {
    let Some(azure) = Azure::start(Settings {
        nested: 3,
        ..settings()
    }) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = image(folder.path(), 1);
    publisher(&azure).publish(request(&path)).await.unwrap();
    publisher(&azure).discard("base-1").await.unwrap();
    assert!(azure.left().iter().all(|id| !id.contains("base-1")));
    azure.assert_clean();
}

/// What was closed by a request whose answer was lost is not closed again.
#[tokio::test]
async fn a_disk_is_closed_once() {
    let Some(azure) = Azure::start(Settings::default()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (path, disk) = image(folder.path(), 1);
    azure.fault(Fault {
        operation: Some("Disks_RevokeAccess"),
        number: 1,
        effect: Effect::Cut,
    });
    publisher(&azure).publish(request(&path)).await.unwrap();
    assert_uploaded(&azure, &disk);
    assert_eq!(azure.bytes_received(), SENT);
    azure.assert_clean();
}

#[tokio::test]
async fn what_is_no_image_is_told() {
    let Some(azure) = Azure::start(settings()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.raw");
    std::fs::write(&path, vec![0; 4096]).unwrap();
    assert!(publisher(&azure).publish(request(&path)).await.is_err());
    assert!(
        publisher(&azure)
            .publish(request(&folder.path().join("nowhere")))
            .await
            .is_err()
    );
    let (path, _) = image(folder.path(), 1);
    let mut named = request(&path);
    named.name = "../x".into();
    assert!(publisher(&azure).publish(named).await.is_err());
    assert!(publisher(&azure).discard("a/b").await.is_err());
    assert!(azure.seen().is_empty());
}

/// The role's actions are those that the publisher's requests need, all of them and no other.
#[tokio::test]
async fn the_role_is_what_is_called() {
    let Some(azure) = Azure::start(settings()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = image(folder.path(), 1);
    publisher(&azure).publish(request(&path)).await.unwrap();
    publisher(&azure).discard("base-1").await.unwrap();
    let used: BTreeSet<String> = azure.seen().into_iter().flat_map(|seen| seen.actions).collect();
    let role: Value = serde_json::from_str(include_str!("../roles/publisher.json")).unwrap();
    let allowed: BTreeSet<String> = serde_json::from_value(role["Actions"].clone()).unwrap();
    assert_eq!(used, allowed);
}
