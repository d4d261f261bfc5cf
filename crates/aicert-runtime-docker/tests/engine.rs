//! Engines and images that are not there, or not as they should be.
#![allow(clippy::unwrap_used)] // what helps a test may fail it

mod common;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;

use aicert_core::progress::Progress;
use aicert_core::runtime::{ExecutionRequest, Limits, Mount, Runtime as _, RuntimeErrorKind};
use aicert_core::spec::{GpuRequest, ImageSpec};
use aicert_runtime_docker::{DockerConfig, DockerRuntime};

fn at(host: impl std::fmt::Display) -> DockerRuntime {
    DockerRuntime::new(DockerConfig::new().with_host(host.to_string()))
}

/// Answers like an engine with this API version and information.
fn engine(socket: &Path, api: &'static str, info: &'static str) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = vec![0; 65_536];
            let Ok(read @ 1..) = stream.read(&mut request) else {
                continue;
            };
            let path = String::from_utf8_lossy(&request[..read])
                .split(' ')
                .nth(1)
                .unwrap_or_default()
                .to_owned();
            let body = if path.ends_with("/version") {
                format!(r#"{{"ApiVersion":"{api}"}}"#)
            } else {
                info.to_owned()
            };
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
}

#[tokio::test]
async fn an_engine_that_starts_is_waited_for() {
    const INFO: &str =
        r#"{"OSType":"linux","ServerVersion":"20.10","SecurityOptions":["name=seccomp,profile=default"]}"#;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("late.sock");
    let host = format!("unix://{}", socket.display());
    let patient = DockerConfig::new()
        .with_host(&host)
        .with_start_limit(std::time::Duration::from_secs(60));
    let starting = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(600));
        engine(&socket, "1.41", INFO);
    });
    assert!(
        at(&host).check().await.is_err(),
        "there was an engine from the beginning"
    );
    DockerRuntime::new(patient).check().await.unwrap();
    starting.join().unwrap();
}

#[tokio::test]
async fn an_engine_that_cannot_be_used_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent.sock");
    let error = at(format!("unix://{}", absent.display()))
        .check()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), RuntimeErrorKind::Unavailable);
    assert!(
        error.message().contains("absent.sock") && error.advice().unwrap().contains("service docker start"),
        "{error}"
    );

    let deaf = folder.path().join("deaf.sock");
    drop(UnixListener::bind(&deaf).unwrap());
    let error = at(format!("unix://{}", deaf.display()))
        .check()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), RuntimeErrorKind::Unavailable);
    assert!(error.is_retryable());

    let elsewhere = at("tcp://engine.example.org:2375").check().await.unwrap_err();
    assert_eq!(elsewhere.kind(), RuntimeErrorKind::Unsupported);

    let secure =
        r#"{"OSType":"linux","ServerVersion":"19.03","SecurityOptions":["name=seccomp,profile=default"]}"#;
    let cases = [
        ("old", "1.40", secure, "expected API 1.41 or newer"),
        (
            "open",
            "1.41",
            r#"{"OSType":"linux","SecurityOptions":[]}"#,
            "without a seccomp profile",
        ),
        (
            "mapped",
            "1.41",
            r#"{"OSType":"linux","SecurityOptions":["name=seccomp","name=userns"]}"#,
            "userns-remap",
        ),
        ("windows", "1.41", r#"{"OSType":"windows"}"#, "Linux containers"),
    ];
    for (name, api, info, message) in cases {
        let socket = folder.path().join(name);
        engine(&socket, api, info);
        let error = at(format!("unix://{}", socket.display()))
            .check()
            .await
            .unwrap_err();
        assert_eq!(error.kind(), RuntimeErrorKind::Unsupported, "{error}");
        assert!(error.message().contains(message), "{error}");
        assert!(error.advice().is_some());
    }
    let socket = folder.path().join("fine");
    engine(&socket, "1.41", secure);
    at(format!("unix://{}", socket.display())).check().await.unwrap();
}

#[tokio::test]
async fn images_that_are_not_there_are_told_with_advice() {
    let Some(runtime) = common::runtime().await else {
        return;
    };
    let digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
    for (reference, kind) in [
        (
            "localhost:9/no/such-image:1".to_owned(),
            RuntimeErrorKind::NotFound,
        ),
        (
            format!("localhost:9/no/such-image@{digest}"),
            RuntimeErrorKind::NotFound,
        ),
        (digest.to_owned(), RuntimeErrorKind::NotFound),
        ("not an image".to_owned(), RuntimeErrorKind::NotFound),
        // Whoever owns this name in a public registry could have anything there.
        ("aicert/python:2.7".to_owned(), RuntimeErrorKind::NotFound),
    ] {
        let image = ImageSpec::Reference {
            reference: reference.clone(),
        };
        let error = runtime
            .resolve_image(&image, &Progress::ignored())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(
            error.message().contains(&reference) && error.advice().is_some(),
            "{error}"
        );
    }
    let error = runtime
        .resolve_image(&ImageSpec::Python { minor: 12 }, &Progress::ignored())
        .await
        .unwrap_err();
    assert!(error.advice().unwrap().contains("baseImage"), "{error}");
}

#[tokio::test]
async fn an_image_is_found_by_tag_and_by_id() {
    let Some(runtime) = common::runtime().await else {
        return;
    };
    let python = runtime
        .resolve_image(&ImageSpec::Python { minor: 11 }, &Progress::ignored())
        .await
        .unwrap();
    for reference in [
        "aicert/python:3.11".to_owned(),
        "docker.io/aicert/python:3.11".into(),
        python.digest.to_string(),
    ] {
        let image = ImageSpec::Reference {
            reference: reference.clone(),
        };
        let found = runtime.resolve_image(&image, &Progress::ignored()).await.unwrap();
        assert_eq!((found.requested, found.digest), (reference, python.digest));
    }
}

#[tokio::test]
async fn gpus_that_are_not_there_are_not_given() {
    let Some(runtime) = common::runtime().await else {
        return;
    };
    // No machine has this one.
    let request = GpuRequest::Uuids(vec!["GPU-00000000-0000-0000-0000-000000000000".into()]);
    let error = runtime.gpus(&request).await.unwrap_err();
    assert!(
        matches!(
            error.kind(),
            RuntimeErrorKind::NotFound | RuntimeErrorKind::Unsupported
        ),
        "{error}"
    );
    assert!(error.advice().is_some());
}

#[tokio::test]
async fn an_image_whose_volumes_would_hide_measured_files_is_refused() {
    let Some(runtime) = common::runtime().await else {
        return;
    };
    let docker = |arguments: &[&str]| {
        let output = std::process::Command::new("docker").args(arguments).output();
        String::from_utf8_lossy(&output.expect("the command docker").stdout)
            .trim()
            .to_owned()
    };
    let folder = tempfile::tempdir().unwrap();
    let (layer, source) = (folder.path().join("layer"), folder.path().join("src"));
    std::fs::create_dir_all(source.join("lib")).unwrap();
    std::fs::create_dir_all(layer.join("workspace/src/lib")).unwrap();
    std::fs::write(source.join("lib/a"), "measured").unwrap();
    std::fs::write(layer.join("workspace/src/lib/a"), "of the image").unwrap();
    std::os::unix::fs::symlink("workspace/src", layer.join("link")).unwrap();

    for volume in ["/workspace/src/lib", "/link/lib"] {
        let container = docker(&["create", "aicert/python:3.11", "true"]);
        docker(&["cp", &format!("{}/.", layer.display()), &format!("{container}:/")]);
        let change = format!("VOLUME [\"{volume}\"]");
        let image = docker(&["commit", "--change", &change, &container]);
        docker(&["rm", &container]);
        let job: aicert_core::runtime::JobId = common::prefix().parse().unwrap();
        let request = ExecutionRequest {
            job: job.clone(),
            image: image.parse().unwrap(),
            command: ["cat", "/workspace/src/lib/a"].map(str::to_owned).into(),
            working_directory: "/".into(),
            environment: Vec::new(),
            mounts: vec![Mount {
                host: source.clone(),
                container: "/workspace/src".into(),
                writable: false,
            }],
            gpus: Vec::new(),
            limits: Limits::default(),
            log_file: folder.path().join("log"),
            progress: Progress::ignored(),
        };
        let result = runtime.run(request).await;
        let left = docker(&["ps", "-aq", "--filter", &format!("label=aicert.job={job}")]);
        docker(&["image", "rm", &image]);

        let error = result.unwrap_err();
        assert_eq!(error.kind(), RuntimeErrorKind::Unsupported, "{error}");
        assert!(
            error.message().contains(volume) && error.advice().is_some(),
            "{error}"
        );
        assert_eq!(left, "");
    }
}

#[tokio::test]
async fn what_a_dead_process_left_is_found_and_removed() {
    let Some(runtime) = common::runtime().await else {
        return;
    };
    let docker = |arguments: &[&str]| {
        let output = std::process::Command::new("docker")
            .args(arguments)
            .output()
            .expect("the command docker");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let job: aicert_core::runtime::JobId = common::prefix().parse().unwrap();
    let label = format!("aicert.job={job}");
    // A process of an earlier boot.
    let owner = "aicert.owner=00000000-0000-0000-0000-000000000000:1:1:1";
    let container = docker(&[
        "run",
        "--detach",
        "--label",
        &label,
        "--label",
        owner,
        "aicert/python:3.11",
        "sleep",
        "600",
    ]);
    let image = docker(&["commit", "--pause=false", &container]);
    assert!(!container.is_empty() && !image.is_empty());

    assert!(runtime.leftovers().await.unwrap().contains(&job));
    runtime.clean_up(&job).await.unwrap();
    assert!(!runtime.leftovers().await.unwrap().contains(&job));
    assert_eq!(
        docker(&[
            "ps",
            "--all",
            "--quiet",
            "--no-trunc",
            "--filter",
            &format!("label={label}")
        ]),
        ""
    );
    assert_eq!(
        docker(&[
            "images",
            "--quiet",
            "--no-trunc",
            "--filter",
            &format!("label={label}")
        ]),
        ""
    );
}

#[tokio::test]
#[ignore = "takes half a minute, and the image away from other tests"]
async fn the_other_python_is_built_when_it_is_not_there() {
    let Some(runtime) = common::runtime().await else {
        return;
    };
    std::process::Command::new("docker")
        .args(["image", "rm", "--force", "aicert/python:3.13"])
        .output()
        .unwrap();
    let (progress, mut events) = Progress::channel(1_000);
    let image = runtime
        .resolve_image(&ImageSpec::Python { minor: 13 }, &progress)
        .await
        .unwrap();
    assert_eq!(image.requested, "aicert/python:3.13");
    assert!(
        std::iter::from_fn(|| events.try_recv().ok()).count() > 10,
        "the build shows how far it is"
    );
    assert_eq!(runtime.default_command(image.digest).await.unwrap(), ["python3"]);
    assert_eq!(
        runtime
            .resolve_image(&ImageSpec::Python { minor: 13 }, &progress)
            .await
            .unwrap(),
        image
    );
}
