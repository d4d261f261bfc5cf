//! The Python base image from an archive, against the Docker engine of this machine.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // what helps a test may fail it; a skipped one says so

use std::process::Command;

use aicert_core::digest::ImageDigest;
use aicert_core::progress::{Progress, ProgressEvent};
use aicert_core::runtime::Runtime as _;
use aicert_core::spec::ImageSpec;
use aicert_runtime_docker::{DockerConfig, DockerRuntime};

const TAG: &str = "aicert/python:3.13";

fn docker(arguments: &[&str]) -> Option<String> {
    let output = Command::new("docker").args(arguments).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    output.status.success().then(|| said.trim().to_owned())
}

/// Removes the image that the test loaded, and gives the name back to the one that had it.
struct Restore {
    loaded: String,
    before: Option<String>,
}

impl Drop for Restore {
    fn drop(&mut self) {
        docker(&["image", "rm", "--force", &self.loaded]);
        if let Some(before) = &self.before {
            docker(&["tag", before, TAG]).unwrap();
        }
    }
}

fn archive_of(label: &str) -> (tempfile::NamedTempFile, ImageDigest) {
    let mut layer = tar::Builder::new(Vec::new());
    let add = |builder: &mut tar::Builder<Vec<u8>>, name: &str, contents: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, contents).unwrap();
    };
    add(&mut layer, "file", b"contents");
    let layer = layer.into_inner().unwrap();
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": {"test": label}},
        "rootfs": {"type": "layers", "diff_ids": [ImageDigest::of(&layer).to_string()]},
    });
    let config = config.to_string();
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [TAG], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    add(&mut archive, "layer.tar", &layer);
    add(&mut archive, "config.json", config.as_bytes());
    add(&mut archive, "manifest.json", manifest.to_string().as_bytes());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), archive.into_inner().unwrap()).unwrap();
    (file, ImageDigest::of(config.as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_archives_image_is_the_one_that_is_used() {
    if let Err(error) = DockerRuntime::new(DockerConfig::new()).check().await {
        assert!(std::env::var_os("CI").is_none(), "no usable Docker: {error}");
        println!("skipped: no usable Docker: {error}");
        return;
    }
    let (archive, id) = archive_of(&format!("{}", std::process::id()));
    let _restore = Restore {
        loaded: id.to_string(),
        before: docker(&["image", "inspect", "--format", "{{.Id}}", TAG]),
    };
    let runtime = DockerRuntime::new(DockerConfig::new().with_python_image(13, archive.path()));
    for is_first in [true, false] {
        let (progress, mut events) = Progress::channel(100);
        let image = runtime
            .resolve_image(&ImageSpec::Python { minor: 13 }, &progress)
            .await
            .unwrap();
        assert_eq!((image.requested.as_str(), image.digest), (TAG, id));
        let events: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
        let loaded = events.iter().any(
            |event| matches!(event, ProgressEvent::StepAdvanced { done, total, .. } if *total == Some(*done)),
        );
        assert_eq!(loaded, is_first, "{events:?}");
    }
    // Whatever has the name in the engine: the archive says which image it is.
    let (other, other_id) = archive_of(&format!("other-{}", std::process::id()));
    let _restore_other = Restore {
        loaded: other_id.to_string(),
        before: None,
    };
    let runtime = DockerRuntime::new(DockerConfig::new().with_python_image(13, other.path()));
    let image = runtime
        .resolve_image(&ImageSpec::Python { minor: 13 }, &Progress::ignored())
        .await
        .unwrap();
    assert_eq!(image.digest, other_id);
    let missing = DockerRuntime::new(DockerConfig::new().with_python_image(13, "/nonexistent.tar"));
    let error = missing
        .resolve_image(&ImageSpec::Python { minor: 13 }, &Progress::ignored())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("/nonexistent.tar"), "{error}");
}
