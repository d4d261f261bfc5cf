//! Measurements, for people: `cargo test -p aicert-runtime-docker --release --test overhead -- --ignored --nocapture`.
#![allow(clippy::unwrap_used)] // what helps a test may fail it

mod common;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aicert_core::progress::Progress;
use aicert_core::runtime::{BuildRequest, DependencyRequest, ExecutionRequest, Limits, Runtime};
use aicert_core::spec::{ImageSpec, PackageIndex};
use aicert_runtime_docker::DockerConfig;

const ROUNDS: usize = 15;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[tokio::test]
#[ignore = "a measurement, which means something only on an idle machine"]
async fn run_against_docker_run() {
    let Some(runtime) = common::runtime().await else {
        return;
    };
    let image = runtime
        .resolve_image(&ImageSpec::Python { minor: 11 }, &Progress::ignored())
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    for program in ["pass", "for n in range(100000): print(n, flush=True)"] {
        let (mut ours, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let began = Instant::now();
            let request = ExecutionRequest {
                job: common::prefix().parse().unwrap(),
                image: image.digest,
                command: ["python3", "-c", program].map(str::to_owned).to_vec(),
                working_directory: "/".into(),
                environment: vec![],
                mounts: vec![],
                gpus: vec![],
                limits: Limits::default(),
                log_file: folder.path().join("log"),
                progress: Progress::ignored(),
            };
            assert_eq!(runtime.run(request).await.unwrap().exit_code, 0);
            ours.push(began.elapsed());

            let began = Instant::now();
            let log = std::fs::File::create(folder.path().join("plain")).unwrap();
            let status = Command::new("docker")
                .args([
                    "run",
                    "--rm",
                    "--network",
                    "none",
                    "aicert/python:3.11",
                    "python3",
                    "-c",
                    program,
                ])
                .stdin(Stdio::null())
                .stdout(log)
                .status();
            assert!(status.unwrap().success());
            plain.push(began.elapsed());
        }
        let (ours, plain) = (median(ours), median(plain));
        println!(
            "{program:?}: aicert {ours:.3?}, docker run {plain:.3?}, ratio {:.3}",
            ours.as_secs_f64() / plain.as_secs_f64()
        );
    }
}

#[tokio::test]
#[ignore = "a measurement, and it needs a package index"]
async fn dependencies_of_a_real_job() {
    let folder = tempfile::tempdir().unwrap();
    let config = DockerConfig::new().with_cache_dir(folder.path().join("cache"));
    let Some(runtime) = common::configured(config).await else {
        return;
    };
    let image = runtime
        .resolve_image(&ImageSpec::Python { minor: 11 }, &Progress::ignored())
        .await
        .unwrap();
    let requirements = folder.path().join("requirements.txt");
    std::fs::write(
        &requirements,
        "numpy==2.1.3\npandas==2.2.3\nscikit-learn==1.5.2\n",
    )
    .unwrap();
    let mut images = std::collections::BTreeSet::new();
    for round in ["first", "again"] {
        let workspace = tempfile::tempdir().unwrap();
        let into = workspace.path().join("packages");
        std::fs::create_dir(&into).unwrap();
        let job: aicert_core::runtime::JobId = common::prefix().parse().unwrap();
        let index = PackageIndex {
            ca_bundle: std::env::var_os("SSL_CERT_FILE").map(Into::into),
            ..PackageIndex::default()
        };
        let began = Instant::now();
        let request = DependencyRequest {
            job: job.clone(),
            image: image.clone(),
            requirements: requirements.clone(),
            index,
            into: into.clone(),
            progress: Progress::ignored(),
        };
        let packages = runtime
            .resolve_dependencies(request)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        println!(
            "{round}: {} packages resolved in {:.3?}",
            packages.len(),
            began.elapsed()
        );
        let began = Instant::now();
        let request = BuildRequest {
            job,
            image: image.clone(),
            packages,
            packages_dir: into,
            progress: Progress::ignored(),
        };
        let built = runtime
            .build(request)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        println!("{round}: {built} built in {:.3?}", began.elapsed());
        let began = Instant::now();
        let program = "import numpy, pandas, sklearn.linear_model; print(numpy.__version__)";
        let request = ExecutionRequest {
            job: common::prefix().parse().unwrap(),
            image: built,
            command: ["python3", "-c", program].map(str::to_owned).to_vec(),
            working_directory: "/".into(),
            environment: vec![],
            mounts: vec![],
            gpus: vec![],
            limits: Limits::default(),
            log_file: folder.path().join("log"),
            progress: Progress::ignored(),
        };
        assert_eq!(runtime.run(request).await.unwrap().exit_code, 0);
        images.insert(built);
        println!("{round}: imports in {:.3?}", began.elapsed());
    }
    for image in images {
        Command::new("docker")
            .args(["image", "rm", "--force", &image.to_string()])
            .output()
            .unwrap();
    }
}
