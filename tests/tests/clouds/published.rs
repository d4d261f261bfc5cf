//! The base image that machines boot: into a cloud with one command, and out of it with another.

use std::fs;

use aicert_tests::base::{BaseImage, Workshop};

use crate::{AICERT, Desk};

const WORKSHOP: Workshop = Workshop {
    aicert: AICERT,
    folder: env!("CARGO_TARGET_TMPDIR"),
};

pub(crate) async fn there_and_back(cloud: &'static str) {
    let Some(image) = tokio::task::spawn_blocking(|| BaseImage::released(&WORKSHOP))
        .await
        .unwrap()
    else {
        return;
    };
    let Some(desk) = Desk::new(cloud).await else {
        return;
    };
    let file = image.disk.display().to_string();
    let destination = desk.cloud.destination();
    let publish = [&["image", "publish", &file, "--json"], &destination[..]].concat();
    let before = desk.cloud.left().await;

    let published = desk.run(&publish).await.expect(0).json();
    assert_eq!(published["existed"], false, "{published}");
    let id = published["image"].as_str().unwrap();
    let name = published["name"].as_str().unwrap();
    let values = image.reference_values.canonicalize().unwrap();
    assert_eq!(published["reference_values"], values.display().to_string());

    // Again: it is there, and nothing is doubled.
    let there = desk.cloud.left().await;
    let again = desk.run(&publish).await.expect(0).json();
    assert_eq!(
        (&again["existed"], &again["image"]),
        (&true.into(), &id.into()),
        "{again}"
    );
    assert_eq!(desk.cloud.left().await, there);

    // What it says goes into a configuration as it is, and a machine is made from it.
    let configuration = serde_json::json!({
        "kind": "python",
        "pythonVersion": 11,
        "source": { "type": "directory", "path": "./src" },
        "machine": published["machine"],
    });
    let mut configuration = configuration;
    configuration["machine"]["access"] = serde_json::json!(["203.0.113.7"]);
    if cloud == "gcp" {
        configuration["machine"]["zone"] = "europe-west4-a".into();
    }
    fs::write(desk.scene.path().join("aicert.yaml"), configuration.to_string()).unwrap();
    assert!(!desk.killed_at(usize::MAX / 2, &["run"], true).await);
    desk.run(&["machines", "destroy", "--all"]).await.expect(0);

    let discard = [&["image", "discard", name], &destination[..]].concat();
    for _ in 0..2 {
        desk.run(&discard).await.expect(0);
        let mut left = desk.cloud.left().await;
        // An empty gallery costs nothing, and is there for the next image.
        left.retain(|thing| thing != "resource group aicert-images" && !thing.ends_with("/galleries/aicert"));
        assert_eq!(left, before);
    }
    desk.cloud.assert_clean();
}
