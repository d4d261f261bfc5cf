//! Publishing images.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use aicert_cloud_testing::aws::{Fault, Slow, When};
use aicert_core::cloud::{CloudErrorKind, CloudProvider as _, ImagePublisher as _, ImageRequest};
use aicert_core::progress::{Progress, ProgressEvent};
use sha2::{Digest as _, Sha256};

use crate::scene::{Scene, config, request, until_ended};

const BLOCK: usize = 512 << 10;
const NAME: &str = "aicert-0.1.0";

/// A disk image with a number in every second block, and a short last one.
pub(crate) fn disk(folder: &Path, blocks: u64) -> PathBuf {
    let path = folder.join(format!("{blocks}.raw"));
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(blocks * 2 * BLOCK as u64 + 512).unwrap();
    for block in 0..blocks {
        file.write_all_at(&[block as u8 + 1; 100], block * 2 * BLOCK as u64 + 7)
            .unwrap();
    }
    file.write_all_at(&[255; 512], blocks * 2 * BLOCK as u64).unwrap();
    path
}

pub(crate) fn order(image: &Path) -> ImageRequest {
    ImageRequest {
        image: image.into(),
        name: NAME.into(),
        progress: Progress::ignored(),
    }
}

/// The snapshot has the image's blocks that hold anything, all of them and no others.
fn assert_stored(scene: &Scene, image: &Path) {
    let bytes = std::fs::read(image).unwrap();
    let blocks = scene.cloud.blocks();
    for (number, block) in bytes.chunks(BLOCK).enumerate() {
        let mut block = block.to_vec();
        block.resize(BLOCK, 0);
        let stored = blocks.get(&(number as i32));
        match block.iter().all(|byte| *byte == 0) {
            true => assert!(stored.is_none(), "block {number}"),
            false => assert_eq!(stored, Some(&Sha256::digest(&block).into()), "block {number}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_published_once_and_makes_machines() {
    let Some(scene) = Scene::new().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let image = disk(folder.path(), 5);
    scene.cloud.slow(Slow {
        listing: 2,
        snapshot: 3,
        image: 2,
        ..Slow::default()
    });
    let (progress, mut events) = Progress::channel(1000);
    let publisher = scene.publisher();
    let published = publisher
        .publish(ImageRequest {
            progress,
            ..order(&image)
        })
        .await
        .unwrap();
    assert!(!published.existed);
    assert_stored(&scene, &image);
    let length = std::fs::metadata(&image).unwrap().len();
    let mut reached = 0;
    while let Ok(event) = events.try_recv() {
        if let ProgressEvent::StepAdvanced { done, total, .. } = event {
            assert_eq!(total, Some(length));
            assert!(done >= reached && done <= length);
            reached = done;
        }
    }
    assert_eq!(reached, length);
    let registered = scene.cloud.requests_for("RegisterImage").remove(0);
    for (key, value) in [
        ("Name", NAME),
        ("Architecture", "x86_64"),
        ("BootMode", "uefi"),
        ("TpmSupport", "v2.0"),
        ("ImdsSupport", "v2.0"),
        ("EnaSupport", "true"),
        ("VirtualizationType", "hvm"),
        ("RootDeviceName", "/dev/xvda"),
        ("BlockDeviceMapping.1.DeviceName", "/dev/xvda"),
        ("BlockDeviceMapping.1.Ebs.VolumeType", "gp3"),
    ] {
        assert_eq!(registered.get(key), value, "{key}");
    }

    let before = scene.cloud.requests().len();
    let again = publisher.publish(order(&image)).await.unwrap();
    assert_eq!((again.id.as_str(), again.existed), (published.id.as_str(), true));
    assert!(
        scene.cloud.requests()[before..]
            .iter()
            .all(|seen| seen.operation.starts_with("Describe"))
    );

    let provider = aicert_cloud_aws::AwsProvider::new(scene.connected(config("ada", &published.id)));
    let machine = provider.provision(request("published")).await.unwrap();
    provider.destroy(&machine.id).await.unwrap();

    publisher.discard(NAME).await.unwrap();
    publisher.discard(NAME).await.unwrap();
    scene.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_interrupted_goes_on() {
    // At every request; blocks travel at the same time, and in any order.
    until_ended(12, async |number| {
        let scene = Scene::new().await?;
        let folder = tempfile::tempdir().unwrap();
        let image = disk(folder.path(), 6);
        let carried_out = number % 2 == 0;
        scene.cloud.slow(Slow {
            snapshot: 1,
            listing: 1,
            ..Slow::default()
        });
        scene
            .cloud
            .inject(When::Request(number), Fault::Pause { carried_out });
        let publisher = scene.publisher();
        let finished = tokio::select! {
            published = publisher.publish(order(&image)) => { published.unwrap(); true }
            () = scene.cloud.paused() => false,
        };
        scene.cloud.forgive();
        let published = scene.publisher().publish(order(&image)).await.unwrap();
        assert_eq!(
            published.existed,
            finished || scene.cloud.requests_for("RegisterImage").len() == 1 && published.existed
        );
        assert_stored(&scene, &image);
        scene.publisher().discard(NAME).await.unwrap();
        scene.assert_nothing_left().await;
        Some(finished)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_are_there_do_not_travel_again() {
    let Some(scene) = Scene::new().await else { return };
    let folder = tempfile::tempdir().unwrap();
    // 131 blocks: two whole steps, and some.
    let image = disk(folder.path(), 130);
    // The second step is written down, the third begins.
    scene
        .cloud
        .inject(When::Operation("CreateTags", 1), Fault::THROTTLED);
    scene.cloud.inject(
        When::Operation("CompleteSnapshot", 1),
        Fault::Pause { carried_out: false },
    );
    let publisher = scene.publisher();
    tokio::select! {
        _ = publisher.publish(order(&image)) => panic!("it was paused"),
        () = scene.cloud.paused() => {}
    }
    assert_eq!(scene.cloud.requests_for("PutSnapshotBlock").len(), 131);
    scene.publisher().publish(order(&image)).await.unwrap();
    assert_eq!(scene.cloud.requests_for("PutSnapshotBlock").len(), 131);
    assert_eq!(scene.cloud.requests_for("StartSnapshot").len(), 1);
    assert_stored(&scene, &image);
    scene.publisher().discard(NAME).await.unwrap();
    scene.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_that_pass_are_waited_for() {
    for fault in [
        Fault::BROKEN,
        Fault::LOST,
        Fault::Truncate,
        Fault::Refuse {
            status: 400,
            code: "RequestThrottledException",
            retry_after: None,
        },
    ] {
        let Some(scene) = Scene::new().await else { return };
        let folder = tempfile::tempdir().unwrap();
        let image = disk(folder.path(), 3);
        for operation in [
            "DescribeImages",
            "DescribeSnapshots",
            "StartSnapshot",
            "PutSnapshotBlock",
            "CreateTags",
            "CompleteSnapshot",
            "RegisterImage",
            "DeregisterImage",
            "DeleteSnapshot",
        ] {
            // EC2 and EBS have words of their own for it, and only blocks are large enough to be cut.
            let fault = match fault {
                Fault::Truncate if operation != "PutSnapshotBlock" => continue,
                Fault::Refuse { status: 400, .. } if !operation.contains("SnapshotBlock") => Fault::THROTTLED,
                fault => fault,
            };
            scene.cloud.inject(When::Operation(operation, 2), fault);
        }
        let publisher = scene.publisher();
        publisher
            .publish(order(&image))
            .await
            .unwrap_or_else(|error| panic!("{fault:?}: {error:?}"));
        assert_stored(&scene, &image);
        publisher.discard(NAME).await.unwrap();
        scene.assert_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_changed_is_not_taken() {
    let Some(scene) = Scene::new().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let image = disk(folder.path(), 3);
    scene
        .cloud
        .inject(When::Operation("PutSnapshotBlock", 1), Fault::Corrupt);
    let publisher = scene.publisher();
    let error = publisher.publish(order(&image)).await.unwrap_err();
    assert!(error.message().contains("checksum"), "{error}");
    publisher.publish(order(&image)).await.unwrap();
    assert_stored(&scene, &image);
    publisher.discard(NAME).await.unwrap();
    scene.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_that_were_given_up_are_begun_anew() {
    let Some(scene) = Scene::new().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let image = disk(folder.path(), 3);
    scene.cloud.inject(
        When::Operation("CompleteSnapshot", 1),
        Fault::Pause { carried_out: false },
    );
    let publisher = scene.publisher();
    tokio::select! {
        _ = publisher.publish(order(&image)) => panic!("it was paused"),
        () = scene.cloud.paused() => {}
    }
    scene.cloud.give_snapshots_up();
    publisher.publish(order(&image)).await.unwrap();
    assert_stored(&scene, &image);
    publisher.discard(NAME).await.unwrap();
    scene.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_not_taken_from_others() {
    let Some(scene) = Scene::new().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let (image, other) = (disk(folder.path(), 3), disk(folder.path(), 4));
    let publisher = scene.publisher();
    // Begun, and not complete.
    scene.cloud.inject(
        When::Operation("CompleteSnapshot", 1),
        Fault::Pause { carried_out: false },
    );
    tokio::select! {
        _ = publisher.publish(order(&image)) => panic!("it was paused"),
        () = scene.cloud.paused() => {}
    }
    let error = publisher.publish(order(&other)).await.unwrap_err();
    assert!(error.message().contains("is of another file"), "{error}");
    publisher.publish(order(&image)).await.unwrap();
    let error = publisher.publish(order(&other)).await.unwrap_err();
    assert!(error.message().contains("is of another file"), "{error}");
    assert!(error.advice().unwrap().contains("discard"));
    // Of somebody else.
    let theirs = aicert_cloud_aws::AwsPublisher::new(scene.connected(config("grace", "ami-0")));
    let error = theirs.publish(order(&image)).await.unwrap_err();
    assert!(error.message().contains("belongs to ada"), "{error}");
    let error = theirs.discard(NAME).await.unwrap_err();
    assert_eq!(error.kind(), CloudErrorKind::PermissionDenied);
    publisher.discard(NAME).await.unwrap();
    for name in ["", "ab", "a*b", "a b", "ü-image"] {
        let error = publisher.discard(name).await.unwrap_err();
        assert_eq!(error.kind(), CloudErrorKind::Unsupported, "{name}");
    }
    scene.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn permissions_name_the_role_of_publishers() {
    let Some(scene) = Scene::new().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let image = disk(folder.path(), 1);
    let denied = Fault::Refuse {
        status: 403,
        code: "AccessDeniedException",
        retry_after: None,
    };
    scene.cloud.inject(When::Operation("StartSnapshot", 1), denied);
    let error = scene.publisher().publish(order(&image)).await.unwrap_err();
    assert_eq!(error.kind(), CloudErrorKind::PermissionDenied);
    assert!(error.advice().unwrap().contains("publisher.json"), "{error:?}");
    scene.assert_nothing_left().await;
}
