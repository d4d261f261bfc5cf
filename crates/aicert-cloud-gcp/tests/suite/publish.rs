//! Publishing an image: what Compute Engine gets is what the file holds, whatever happens on the way.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use aicert_cloud_gcp::{GcpConfig, GcpPublisher};
use aicert_cloud_testing::gcp::{BUCKET, Fault, Google, PROJECT};
use aicert_core::cloud::{CloudErrorKind, ImagePublisher as _, ImageRequest};
use aicert_core::progress::{Progress, ProgressEvent};
use serde_json::json;
use tempfile::NamedTempFile;

use crate::support::{config, credentials, machine, paces};

/// A disk image of a little less than a GiB, with text in a few places.
fn image(texts: &[(u64, &str)]) -> NamedTempFile {
    image_of((1 << 30) - (1 << 20), texts)
}

/// One that is much smaller; what is imported is a whole GiB all the same, in as many pieces.
pub(crate) fn small_image(texts: &[(u64, &str)]) -> NamedTempFile {
    image_of(70 << 20, texts)
}

fn image_of(length: u64, texts: &[(u64, &str)]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.as_file().set_len(length).unwrap();
    for (at, text) in texts {
        file.seek(SeekFrom::Start(*at)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
    file
}

pub(crate) fn publication(image: &Path, name: &str) -> ImageRequest {
    ImageRequest {
        image: image.to_owned(),
        name: name.into(),
        progress: Progress::ignored(),
    }
}

fn publisher(google: &Google) -> GcpPublisher {
    GcpPublisher::new(config(google.url(), machine()), BUCKET)
}

/// Unpacks what Compute Engine was given, with tar, and compares it with the file.
fn assert_same_disk(archive: &[u8], image: &Path) {
    let mut packed = NamedTempFile::new().unwrap();
    packed.write_all(archive).unwrap();
    let mut tar = Command::new("tar")
        .args(["-xOzf", packed.path().to_str().unwrap(), "disk.raw"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut unpacked = tar.stdout.take().unwrap();
    let mut original = std::fs::File::open(image).unwrap();
    let length = original.metadata().unwrap().len();
    let (mut theirs, mut ours) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for at in (0..1_u64 << 30).step_by(1 << 20) {
        unpacked.read_exact(&mut theirs).unwrap();
        ours.fill(0);
        if at < length {
            original.read_exact(&mut ours).unwrap();
        }
        assert!(theirs == ours, "the disk differs in the MiB at {at}");
    }
    assert_eq!(
        unpacked.read(&mut theirs).unwrap(),
        0,
        "the disk is longer than a GiB"
    );
    assert!(tar.wait().unwrap().success());
}

#[tokio::test]
async fn what_is_published_is_what_the_file_holds() {
    let Some(google) = Google::start().await else {
        return;
    };
    let file = image(&[(0, "begin"), ((33 << 20) - 2, "across"), ((900 << 20) + 5, "far")]);
    let (progress, mut events) = Progress::channel(200);
    let published = publisher(&google)
        .publish(ImageRequest {
            progress,
            ..publication(file.path(), "base-1")
        })
        .await
        .unwrap();
    assert_eq!(published.id, "projects/my-project/global/images/base-1");
    assert!(!published.existed);
    assert_same_disk(&google.imported("base-1").unwrap(), file.path());
    assert_eq!(
        google.resources(),
        ["image projects/my-project/global/images/base-1"],
        "the bucket is empty"
    );
    let calls = google.calls();
    let insert = calls
        .iter()
        .find(|call| call.method == "compute.images.insert")
        .unwrap();
    let body = insert.body.as_ref().unwrap();
    let features = json!([
        {"type": "UEFI_COMPATIBLE"}, {"type": "GVNIC"}, {"type": "VIRTIO_SCSI_MULTIQUEUE"}, {"type": "SEV_CAPABLE"},
    ]);
    assert_eq!(body["guestOsFeatures"], features);
    assert_eq!(body["labels"]["aicert-owner"], "ada");
    let halves =
        ["aicert-sha256-1", "aicert-sha256-2"].map(|key| body["labels"][key].as_str().unwrap().len());
    assert_eq!(halves, [32, 32]);
    let mut done = 0;
    while let Ok(event) = events.try_recv() {
        if let ProgressEvent::StepAdvanced {
            done: now,
            total: Some(total),
            ..
        } = event
            && total == 1 << 30
        {
            assert!(now >= done);
            done = now;
        }
    }
    assert_eq!(done, 1 << 30);

    // Again: it is there. Another file under that name is refused, and nothing is sent.
    let before = google.count();
    let again = publisher(&google)
        .publish(publication(file.path(), "base-1"))
        .await
        .unwrap();
    assert!(again.existed);
    assert_eq!(again.id, published.id);
    let other = small_image(&[(0, "other")]);
    let error = publisher(&google)
        .publish(publication(other.path(), "base-1"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), CloudErrorKind::Failed);
    assert!(error.message().contains("not of this file"), "{error}");
    let methods = google.methods();
    assert!(
        !methods[before..].iter().any(|method| method.contains("insert")),
        "{methods:?}"
    );

    publisher(&google).discard("base-1").await.unwrap();
    publisher(&google).discard("base-1").await.unwrap();
    assert_eq!(google.resources(), [""; 0]);
    google.assert_clean();
}

#[tokio::test]
async fn what_was_interrupted_is_gone_on_with() {
    let Some(google) = Google::start().await else {
        return;
    };
    let file = small_image(&[(5, "x"), (50 << 20, "y")]);
    let uploads = |google: &Google| {
        let methods = google.methods();
        methods
            .iter()
            .filter(|method| *method == "storage.objects.insert")
            .count()
    };
    let other = Google::start().await.unwrap();
    let undisturbed = publication(file.path(), "base");
    publisher(&other).publish(undisturbed).await.unwrap();
    let (all, archive) = (uploads(&other), other.imported("base").unwrap());
    // The archive has more pieces than one object is composed of.
    assert!(all > 32, "{all}");
    // Interrupted where it sends, puts together, imports, waits, and cleans up.
    for method in [
        "storage.objects.insert",
        "storage.objects.compose",
        "compute.images.insert",
        "compute.globalOperations.get",
        "storage.objects.list",
        "storage.objects.delete",
    ] {
        google.plan(
            method,
            if method.starts_with("storage.objects.i") {
                17
            } else {
                1
            },
            Fault::Refused(403, None),
        );
        let error = publisher(&google)
            .publish(publication(file.path(), "base"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), CloudErrorKind::PermissionDenied, "{method}");
        assert_eq!(google.outstanding(), 0, "{method}");
        assert!(!google.resources().is_empty());
    }
    let published = publisher(&google)
        .publish(publication(file.path(), "base"))
        .await
        .unwrap();
    assert!(published.existed);
    // A piece that was under way may have been sent twice.
    assert!(uploads(&google) <= all + 4, "{} {all}", uploads(&google));
    assert_eq!(
        google.resources(),
        ["image projects/my-project/global/images/base"]
    );
    assert!(
        google.imported("base").unwrap() == archive,
        "it is the same to the last byte"
    );
    google.assert_clean();
}

#[tokio::test]
async fn owners_do_not_disturb_each_other() {
    let Some(google) = Google::start().await else {
        return;
    };
    let of = |owner: &str| {
        let config = GcpConfig::new(PROJECT, owner.parse().unwrap())
            .with_endpoint(google.url())
            .with_credentials(credentials())
            .with_paces(paces());
        GcpPublisher::new(config, BUCKET)
    };
    let file = small_image(&[(5, "x")]);
    // Interrupted before it is imported, so that all is in the bucket.
    google.plan("compute.images.insert", 1, Fault::Refused(403, None));
    let asked = || publication(file.path(), "base");
    of("ada").publish(asked()).await.unwrap_err();
    let there = google.resources();
    assert!(
        there.len() > 32
            && there
                .iter()
                .all(|object| object.starts_with("object aicert/ada/base/"))
    );
    // Another publishes the same under the same name, and throws it away again.
    let published = of("ben").publish(asked()).await.unwrap();
    assert!(!published.existed);
    of("ben").discard("base").await.unwrap();
    assert_eq!(
        google.resources(),
        there,
        "what the first has sent is there still"
    );
    let sent = google.count();
    of("ada").publish(asked()).await.unwrap();
    let methods = google.methods();
    assert!(
        !methods[sent..]
            .iter()
            .any(|method| method == "storage.objects.insert")
    );
    assert_eq!(
        google.resources(),
        ["image projects/my-project/global/images/base"]
    );
    google.assert_clean();
}

#[tokio::test]
async fn what_passes_is_got_over_and_what_is_changed_on_the_way_is_sent_again() {
    let Some(google) = Google::start().await else {
        return;
    };
    let file = small_image(&[(5, "x")]);
    let other = Google::start().await.unwrap();
    publisher(&other)
        .publish(publication(file.path(), "base"))
        .await
        .unwrap();
    google.plan("storage.objects.insert", 3, Fault::Corrupt);
    google.plan("storage.objects.insert", 7, Fault::Cut);
    google.plan("storage.objects.insert", 9, Fault::Expired);
    google.plan("storage.objects.get", 5, Fault::Refused(503, None));
    google.plan("storage.objects.compose", 1, Fault::Cut);
    google.plan("compute.images.insert", 1, Fault::Cut);
    google.plan("storage.objects.delete", 1, Fault::Cut);
    publisher(&google)
        .publish(publication(file.path(), "base"))
        .await
        .unwrap();
    assert_eq!(google.outstanding(), 0);
    assert!(
        google.imported("base") == other.imported("base"),
        "it is what was sent undisturbed, to the last byte"
    );
    assert_eq!(
        google.resources(),
        ["image projects/my-project/global/images/base"]
    );
    google.assert_clean();
}

#[tokio::test]
async fn what_is_no_image_of_ours_is_refused() {
    let Some(google) = Google::start().await else {
        return;
    };
    let publisher = publisher(&google);
    let error = publisher.discard("aicert-base").await.unwrap_err();
    assert!(error.message().contains("not published by aicert"), "{error}");
    let file = small_image(&[]);
    for name in ["", "Base", "../x", "-a"] {
        let error = publisher
            .publish(publication(file.path(), name))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), CloudErrorKind::Unsupported, "{name}");
        assert!(publisher.discard(name).await.is_err());
    }
    let text = NamedTempFile::new().unwrap();
    let error = publisher
        .publish(publication(text.path(), "a"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), CloudErrorKind::Unsupported);
    assert_eq!(google.resources(), [""; 0]);
}
