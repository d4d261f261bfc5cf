//! The base image in machines that look like those of each cloud: it learns there whom it serves, is attested, and runs a job.

use std::fs;
use std::time::{Duration, Instant};

use aicert_client::{AttestedClient, Client, ClientError, Identity, PreparedJob, Settings};
use aicert_core::api::JobState;
use aicert_core::digest::Nonce;
use aicert_core::progress::Progress;
use aicert_core::runtime::JobId;
use aicert_tests::base::BaseImage;
use aicert_tests::vm::cloud::{Cloud, CloudMachine};
use aicert_tests::vm::{BOOT_LIMIT, Desk, trust, wait_for};
use aicert_verify::{Options, Unverified, verify};

use crate::WORKSHOP;

const METADATA: &str = env!("CARGO_BIN_EXE_metadata");

const PROGRAM: &str = "open('/workspace/outputs/model.bin', 'w').write('weights')\n";

/// A machine, and its owner.
struct Owner {
    // Before the folder that it is in.
    machine: CloudMachine,
    desk: Desk,
    identity: Identity,
    options: Options,
}

impl Owner {
    async fn of(image: &BaseImage, cloud: Cloud) -> Self {
        let desk = Desk::new(WORKSHOP.aicert);
        let identity = Identity::generate().unwrap();
        let machine = CloudMachine::boot(&desk, image, METADATA, cloud, identity.digest()).await;
        Self {
            options: trust::options(image, &machine.root_pem()),
            desk,
            machine,
            identity,
        }
    }

    /// Attests the machine as soon as it is up.
    async fn attest(&mut self) -> AttestedClient {
        let begun = Instant::now();
        loop {
            let mut settings = Settings::default();
            settings.retries = 0;
            settings.connect_limit = Duration::from_secs(5);
            let client = Client::new(self.machine.endpoint(), self.identity.clone()).with_settings(settings);
            assert!(self.machine.is_running(), "the machine has ended");
            match client.attest(&self.options).await {
                Err(ClientError::NotYet { .. }) if begun.elapsed() < BOOT_LIMIT => {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                attested => {
                    let attested = attested.unwrap();
                    eprintln!("attested after {:.1} s", begun.elapsed().as_secs_f64());
                    return attested;
                }
            }
        }
    }

    /// Has the machine run a small job, and verifies its proof.
    async fn run_a_job(&self, image: &BaseImage, client: &AttestedClient) {
        let job: JobId = "cloud".parse().unwrap();
        self.desk.python_job(image, 6144, PROGRAM, "");
        let text = fs::read_to_string(self.desk.at("aicert.yaml")).unwrap();
        let nonce = Nonce::from_bytes([9; 32]);
        let prepared =
            PreparedJob::from_yaml(&job, &text, self.desk.scene().path(), nonce, &|_| None).unwrap();
        client.submit(prepared.submission()).await.unwrap();
        let status = client.status(&job).await.unwrap();
        client
            .send_inputs(
                &job,
                prepared.uploads(),
                &status.awaited,
                &Progress::ignored(),
                |_| Ok(()),
            )
            .await
            .unwrap();
        let end = Instant::now() + BOOT_LIMIT;
        loop {
            let status = client.status(&job).await.unwrap();
            match status.state {
                JobState::Receiving | JobState::Running => {
                    assert!(Instant::now() < end, "the job still runs");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                JobState::Finished => break,
                _ => panic!("{status:?}"),
            }
        }
        let proof = Unverified::from_slice(&client.certificate(&job).await.unwrap()).unwrap();
        let proof = verify(proof, &self.options.clone().with_expected_nonce(nonce)).unwrap();
        assert!(proof.is_of_a_model());
        client.check_proof(&proof).unwrap();
        client.delete(&job).await.unwrap();
    }

    /// Waits until the machine has turned itself off.
    fn ends(&mut self) {
        wait_for("the machine ends", Duration::from_secs(60), || {
            (!self.machine.is_running()).then_some(())
        });
        let console = self.machine.console();
        assert!(
            console.contains("aicert-server ended: it had finished"),
            "{console}"
        );
    }

    #[track_caller]
    fn said(&self, words: &str) {
        let console = self.machine.console();
        assert!(console.contains(words), "it did not say {words:?}:\n{console}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn azure() {
    let Some(image) = BaseImage::released(&WORKSHOP) else {
        return;
    };
    let mut owner = Owner::of(&image, Cloud::Azure).await;
    let client = owner.attest().await;
    owner.said("bytes from user data of Azure's instance metadata service");
    let line = "GET /metadata/instance/compute/userData?api-version=2021-01-01&format=text HTTP/1.1";
    assert_eq!(
        owner.machine.asked(),
        [format!("{line}: 503"), format!("{line}: 200")]
    );
    // The disk with the image, and not the one that is lent, in whatever order the kernel finds them.
    let console = owner.machine.console();
    let (_, root) = console.split_once("root file system on ").unwrap();
    let disk = root.get(..3).unwrap();
    owner.said(&format!("root file system on {disk}2, under dm-verity"));
    owner.said(&format!(
        "6000 MiB of {disk}, encrypted with a key that is nowhere else"
    ));
    owner.said("aicert-init: lifetime: the machine is turned off after 14700 s");
    owner.run_a_job(&image, &client).await;
    owner.ends();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compute_engine() {
    let Some(image) = BaseImage::released(&WORKSHOP) else {
        return;
    };
    let mut owner = Owner::of(&image, Cloud::ComputeEngine).await;
    owner.attest().await;
    owner.said("bytes from attribute aicert-provisioning of Compute Engine's metadata server");
    let line = "GET /computeMetadata/v1/instance/attributes/aicert-provisioning HTTP/1.1";
    assert_eq!(
        owner.machine.asked(),
        [format!("{line}: 503"), format!("{line}: 200")]
    );
    owner.said("root file system on sda2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ec2() {
    let Some(image) = BaseImage::released(&WORKSHOP) else {
        return;
    };
    let mut owner = Owner::of(&image, Cloud::Ec2).await;
    owner.attest().await;
    owner.said("bytes from user data of EC2's instance metadata service");
    let (token, data) = ("PUT /latest/api/token HTTP/1.1", "GET /latest/user-data HTTP/1.1");
    assert_eq!(
        owner.machine.asked(),
        [
            format!("{token}: 503"),
            format!("{token}: 200"),
            format!("{data}: 200")
        ]
    );
    owner.said("root file system on nvme0n1p2");
}
