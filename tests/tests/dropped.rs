//! The pipeline as embedders use it: its future is dropped at any moment, and `clean_up` leaves nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aicert_core::certificate::PlatformKind;
use aicert_core::digest::Nonce;
use aicert_core::event::Tool;
use aicert_core::pipeline::{self, Backends, Job, Outcome, PipelineError};
use aicert_core::progress::{Progress, ProgressEvent, Step};
use aicert_core::runtime::JobId;
use aicert_core::spec::JobSpec;
use aicert_core::tpm::PcrIndex;
use aicert_runtime_docker::{DockerConfig, DockerRuntime};
use aicert_swtpm_testing::{KeyAlgorithm, SimulatedTpm, SimulationOptions};
use aicert_tests::tools;
use tempfile::TempDir;

const PROGRAM: &str = "import time\nopen('/workspace/outputs/model', 'w').write('x')\ntime.sleep(0.3)\nprint('done', flush=True)\n";

struct Bench {
    folder: TempDir,
    backends: Backends,
    job: Job,
}

async fn bench(name: &str) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("source")).unwrap();
    std::fs::write(folder.path().join("source/main.py"), PROGRAM).unwrap();
    let workspace = folder.path().join("workspace");
    std::fs::create_dir(&workspace).unwrap();
    let configuration = "kind: python\npythonVersion: 11\nsource: {type: directory, path: source}\nmachine: {provider: local, tpm: swtpm}\n";
    let tpm = SimulatedTpm::start(SimulationOptions::new(KeyAlgorithm::EccP256))
        .await
        .unwrap();
    Bench {
        backends: Backends {
            tpm: Arc::new(tpm),
            runtime: Arc::new(DockerRuntime::new(DockerConfig::new())),
            inputs: aicert_inputs::all(),
        },
        job: Job {
            spec: JobSpec::from_yaml(configuration, folder.path(), &|_| None).unwrap(),
            tool: Tool {
                name: "aicert".into(),
                version: "0.0.0-test".into(),
            },
            id: format!("dropped-{name}-{}", std::process::id()).parse().unwrap(),
            workspace,
            nonce: Nonce::from_bytes([1; 32]),
            platform_kind: PlatformKind::LocalCa,
            provider: "local".into(),
            instance_type: "test".into(),
            region: "local".into(),
        },
        folder,
    }
}

/// The containers and images that carry a job's label.
fn left_of(job: &JobId) -> String {
    let label = format!("label=aicert.job={job}");
    let list = |arguments: &[&str]| {
        let output = Command::new("docker")
            .args(arguments)
            .args(["--quiet", "--filter", &label])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    list(&["ps", "--all"]) + &list(&["images"])
}

#[tokio::test]
async fn dropping_at_any_moment_leaves_nothing() {
    if !(tools::have("swtpm") && tools::have_docker()) {
        return;
    }
    // The first run may have to build the base image; the second says how long a run takes.
    let warm = bench("warm").await;
    pipeline::run(&warm.job, &warm.backends, &Progress::ignored())
        .await
        .unwrap();
    let whole = bench("whole").await;
    let start = Instant::now();
    let outcome: Result<Outcome, PipelineError> =
        pipeline::run(&whole.job, &whole.backends, &Progress::ignored()).await;
    let duration = start.elapsed();
    assert!(outcome.is_ok(), "{:?}", outcome.err());
    whole.backends.runtime.clean_up(&whole.job.id).await.unwrap();

    let mut cut_short = 0;
    for part in 0..16 {
        let bench = bench(&part.to_string()).await;
        let limit = duration.mul_f64(f64::from(part) / 16.0);
        let cut = tokio::time::timeout(
            limit,
            pipeline::run(&bench.job, &bench.backends, &Progress::ignored()),
        )
        .await;
        cut_short += usize::from(cut.is_err());
        bench.backends.runtime.clean_up(&bench.job.id).await.unwrap();
        assert_eq!(
            left_of(&bench.job.id),
            "",
            "something is left of a job that was dropped after {limit:?}"
        );
        bench
            .backends
            .runtime
            .clean_up(&bench.job.id)
            .await
            .expect("cleaning up again must succeed");
        bench.folder.close().expect("the workspace can be removed");
    }
    assert!(
        cut_short >= 8,
        "only {cut_short} of 16 runs were cut short: this test tests nothing"
    );
}

/// A TPM that was used before, or is used by somebody else meanwhile, certifies nothing.
#[tokio::test]
async fn a_tpm_that_others_extend_certifies_nothing() {
    if !(tools::have("swtpm") && tools::have_docker()) {
        return;
    }
    for (pcr, words) in [(PcrIndex::INPUTS, "PCR 14"), (PcrIndex::OUTPUTS, "PCR 15")] {
        let before = bench("before").await;
        let tpm = &before.backends.tpm;
        let digests = tpm
            .capabilities()
            .banks
            .iter()
            .map(|bank| (*bank, bank.hash(&[b"before"])))
            .collect();
        tpm.extend(pcr, &digests).await.unwrap();
        let error = pipeline::run(&before.job, &before.backends, &Progress::ignored())
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains(words) && error.to_string().contains("not zero"),
            "{error}"
        );

        let meanwhile = bench("meanwhile").await;
        let tpm = Arc::clone(&meanwhile.backends.tpm);
        let (progress, mut events) = Progress::channel(100);
        let meddler = tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if matches!(event, ProgressEvent::StepStarted { step: Step::Run, .. }) {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    let digests = tpm
                        .capabilities()
                        .banks
                        .iter()
                        .map(|bank| (*bank, bank.hash(&[b"meanwhile"])))
                        .collect();
                    tpm.extend(pcr, &digests).await.unwrap();
                }
            }
        });
        let error = pipeline::run(&meanwhile.job, &meanwhile.backends, &progress)
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("another process extended it"),
            "{error}"
        );
        assert!(error.advice().is_some());
        drop(progress);
        meddler.await.unwrap();
        for bench in [before, meanwhile] {
            bench.backends.runtime.clean_up(&bench.job.id).await.unwrap();
        }
    }
}
