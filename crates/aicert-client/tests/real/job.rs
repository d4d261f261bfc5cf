//! A whole job on a real server.

use std::path::Path;
use std::sync::atomic::Ordering;

use aicert_client::{AttestedClient, ClientError, PreparedJob, Sent, Session, outputs_tree};
use aicert_core::api::{JobState, StreamEvent};
use aicert_core::certificate::Certificate;
use aicert_core::digest::Nonce;
use aicert_core::manifest::Manifest;
use aicert_core::measure::{self, HardLinks, Options as MeasureOptions};
use aicert_core::progress::{Progress, ProgressEvent};
use aicert_core::runtime::JobId;
use aicert_server::Ended;
use aicert_verify::attestation::AttestedSigner;
use aicert_verify::{Unverified, Verified, verify};
use futures_util::{StreamExt as _, pin_mut};

use crate::middle::Middle;
use crate::scene::{Scene, job_id, no_docker};

/// Copies what it was given, and writes more files than a proof lists where it is told to.
const SCRIPT: &str = "
import os, shutil, sys
out = '/workspace/outputs'
shutil.copytree('/workspace/src', out + '/src', symlinks=True)
shutil.copy('/workspace/resources/data.bin', out + '/data.bin')
with open(out + '/large.bin', 'wb') as f:
    for number in range(24): f.write(bytes([number, 255 - number]) * (1 << 19))
for number in range(int(sys.argv[1])):
    with open(out + '/many-%04d' % number, 'w') as f: f.write(str(number))
for number in range(400): print('line', number, flush=True)
";

fn project(folder: &Path, files: usize) -> String {
    let code = folder.join("code");
    std::fs::create_dir_all(code.join("deep/er")).unwrap();
    std::fs::write(code.join("main.py"), "print('x')\n").unwrap();
    std::fs::write(code.join("deep/er/data"), vec![9; 400_000]).unwrap();
    std::os::unix::fs::symlink("deep/er/data", code.join("link")).unwrap();
    let data: Vec<u8> = (0..900_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    std::fs::write(folder.join("data file.bin"), data).unwrap();
    let script = serde_json::to_string(SCRIPT).unwrap();
    let url = format!("file://{}/data%20file.bin", folder.to_str().unwrap());
    format!(
        "kind: container\nimage: aicert/python:3.11\ncommand: [python3, -c, {script}, '{files}']\n\
         source: {{type: directory, path: ./code}}\n\
         resources:\n- {{type: file, url: '{url}', destinationPath: data.bin}}\n\
         machine: {{provider: local, tpm: swtpm}}\n"
    )
}

/// The numbers of all events, and what the job printed.
async fn follow(machine: &AttestedClient, job: &JobId) -> (Vec<u64>, Vec<String>, JobState) {
    let events = machine.events(job, None);
    pin_mut!(events);
    let (mut ids, mut lines, mut end) = (Vec::new(), Vec::new(), None);
    while let Some(event) = events.next().await {
        let (id, event) = event.unwrap();
        ids.push(id);
        match event {
            StreamEvent::Progress {
                event: ProgressEvent::JobOutput { line, .. },
            } => lines.push(line),
            StreamEvent::End { state } => end = Some(state),
            _ => {}
        }
    }
    (ids, lines, end.unwrap())
}

async fn proof(scene: &Scene, machine: &AttestedClient, job: &JobId, nonce: Nonce) -> Verified<Certificate> {
    let bytes = machine.certificate(job).await.unwrap();
    let options = scene.options().with_expected_nonce(nonce);
    verify(Unverified::from_slice(&bytes).unwrap(), &options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_there_and_its_outputs_come_back() {
    if no_docker().await {
        return;
    }
    let Some(scene) = Scene::start().await else {
        return;
    };
    let (folder, job, nonce) = (tempfile::tempdir().unwrap(), job_id(), Nonce::from_bytes([8; 32]));
    let text = project(folder.path(), 1200);
    let prepared = PreparedJob::from_yaml(&job, &text, folder.path(), nonce, &|_| None).unwrap();
    let machine = scene.client().attest(&scene.options()).await.unwrap();
    let status = machine.submit(prepared.submission()).await.unwrap();
    assert_eq!(status.awaited.len(), 2);
    let progress = Progress::ignored();
    let mut sent = Vec::new();
    let note = |input: &Sent| {
        sent.push(input.clone());
        Ok(())
    };
    machine
        .send_inputs(&job, prepared.uploads(), &status.awaited, &progress, note)
        .await
        .unwrap();

    // This program ends, and another goes on with what was written down.
    let record = serde_json::to_string(machine.session()).unwrap();
    drop(machine);
    let session: Session = serde_json::from_str(&record).unwrap();
    let machine = scene.client().resume(session).unwrap();
    assert!(machine.attestation().is_none());
    let (ids, lines, end) = follow(&machine, &job).await;
    assert_eq!(ids, (0..ids.len() as u64).collect::<Vec<_>>());
    assert_eq!(lines.len(), 400);
    assert_eq!(end, JobState::Finished);

    let proof = proof(&scene, &machine, &job, nonce).await;
    machine.check_proof(&proof).unwrap();
    for input in &sent {
        input.check(&proof).unwrap();
    }
    let mut other = sent[0].clone();
    other.content = sent[1].content;
    assert!(
        other
            .check(&proof)
            .unwrap_err()
            .to_string()
            .contains("which was sent")
    );

    // The listing is too long for the proof.
    let error = outputs_tree(&proof, None).unwrap_err();
    assert!(matches!(error, ClientError::Usage { .. }), "{error}");
    let path = folder.path().join("manifest");
    assert!(machine.manifest(&job, &path).await.unwrap() > 0);
    let bytes = std::fs::read(&path).unwrap();
    let manifest = Manifest::read(&bytes[..]).unwrap();
    assert!(outputs_tree(&proof, Some(&Manifest::default())).is_err());
    let tree = outputs_tree(&proof, Some(&manifest)).unwrap();
    let into = folder.path().join("outputs");
    machine
        .download_outputs(&job, &tree, &into, &progress)
        .await
        .unwrap();
    let options = MeasureOptions::quiet(HardLinks::Refuse);
    assert_eq!(measure::measure(&into, &options).unwrap(), tree);
    let code = measure::measure(&folder.path().join("code"), &options).unwrap();
    assert_eq!(measure::measure(&into.join("src"), &options).unwrap(), code);
    let log = folder.path().join("log");
    assert!(machine.log(&job, &log).await.unwrap() > 3_000);
    assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 400);

    // The machine has had its job: nobody trusts it any more, and it takes no other.
    let error = scene.client().attest(&scene.options()).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("this machine has already been used: PCR 14 holds"),
        "{text}"
    );
    assert!(
        text.contains("this machine has already been used: PCR 15 holds"),
        "{text}"
    );
    let mut another = prepared.submission().clone();
    another.id = job_id().as_str().to_owned();
    let error = machine.submit(&another).await.unwrap_err();
    assert!(
        matches!(error, ClientError::Problem { status: 409, .. }),
        "{error}"
    );

    // A machine with another TPM, or another boot of this one, has other proofs.
    let mut elsewhere = machine.session().clone();
    let AttestedSigner::Key { clock, .. } = &mut elsewhere.boot.signer else {
        panic!("a software TPM signs with a key");
    };
    clock.reset_count += 1;
    let error = scene
        .client()
        .resume(elsewhere)
        .unwrap()
        .check_proof(&proof)
        .unwrap_err();
    assert!(
        error.to_string().contains("it was restarted in between"),
        "{error}"
    );

    machine.delete(&job).await.unwrap();
    assert_eq!(scene.ended().await, Ended::Removed);
}

/// Over a network that breaks now and then: what has no proof comes back all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_certified_comes_back_as_an_archive() {
    if no_docker().await {
        return;
    }
    let Some(scene) = Scene::start().await else {
        return;
    };
    let (folder, job) = (tempfile::tempdir().unwrap(), job_id());
    let script = "import os\nout = '/workspace/outputs/'\nopen(out + 'model', 'wb').write(bytes(range(256)) * 20000)\n\
        os.link(out + 'model', out + 'same')";
    let text = project(folder.path(), 0).replace(
        &serde_json::to_string(SCRIPT).unwrap(),
        &serde_json::to_string(script).unwrap(),
    );
    let nonce = Nonce::from_bytes([8; 32]);
    let prepared = PreparedJob::from_yaml(&job, &text, folder.path(), nonce, &|_| None).unwrap();
    let machine = scene.client().attest(&scene.options()).await.unwrap();
    let status = machine.submit(prepared.submission()).await.unwrap();
    let archive = folder.path().join("leftovers.tar");
    let error = machine.leftovers(&job, &archive).await.unwrap_err();
    assert!(error.to_string().contains("has not ended"), "{error}");
    assert!(!archive.exists());
    machine
        .send_inputs(
            &job,
            prepared.uploads(),
            &status.awaited,
            &Progress::ignored(),
            |_| Ok(()),
        )
        .await
        .unwrap();
    let (_, _, end) = follow(&machine, &job).await;
    assert_eq!(end, JobState::Failed);

    let network = Middle::cutting(scene.address, 3_000_000, 0).await;
    let mut session = machine.session().clone();
    session.endpoint = network.address;
    let machine = scene.client().resume(session).unwrap();
    let length = machine.leftovers(&job, &archive).await.unwrap();
    assert!(network.connections.load(Ordering::Relaxed) >= 3);
    let bytes = std::fs::read(&archive).unwrap();
    assert_eq!(bytes.len() as u64, length);
    let mut found = 0;
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        if matches!(path.as_str(), "outputs/model" | "outputs/same") {
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            assert!(content == (0..=255).collect::<Vec<u8>>().repeat(20_000), "{path}");
            found += 1;
        }
    }
    assert_eq!(found, 2);
    // It is all there.
    assert_eq!(machine.leftovers(&job, &archive).await.unwrap(), length);
    scene.stop().await;
}

/// Every connection breaks, each a little later than the one before: and the job is done all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_survives_a_network_that_keeps_breaking() {
    if no_docker().await {
        return;
    }
    let Some(scene) = Scene::start().await else {
        return;
    };
    let (folder, job, nonce) = (tempfile::tempdir().unwrap(), job_id(), Nonce::from_bytes([9; 32]));
    let text = project(folder.path(), 0);
    let prepared = PreparedJob::from_yaml(&job, &text, folder.path(), nonce, &|_| None).unwrap();
    let network = Middle::cutting(scene.address, 300, 50_000).await;
    let client = scene.client_at(network.address);
    let machine = loop {
        match client.attest(&scene.options()).await {
            Err(ClientError::NotYet { .. }) => {}
            result => break result.unwrap(),
        }
    };
    let status = machine.submit(prepared.submission()).await.unwrap();
    let progress = Progress::ignored();
    machine
        .send_inputs(&job, prepared.uploads(), &status.awaited, &progress, |_| Ok(()))
        .await
        .unwrap();
    let (ids, lines, end) = follow(&machine, &job).await;
    assert_eq!(ids, (0..ids.len() as u64).collect::<Vec<_>>());
    assert_eq!((lines.len(), end), (400, JobState::Finished));
    let proof = proof(&scene, &machine, &job, nonce).await;
    machine.check_proof(&proof).unwrap();
    let broken = network.connections.load(Ordering::Relaxed);
    // How often exactly depends on how much goes through a connection at a time.
    assert!(broken >= 10, "{broken}");
    let tree = outputs_tree(&proof, None).unwrap();
    assert!(tree.bytes() > 24 << 20);

    // From here on, every connection breaks after 3 MB.
    let network_for_outputs = Middle::cutting(scene.address, 3_000_000, 0).await;
    let mut session = machine.session().clone();
    session.endpoint = network_for_outputs.address;
    let machine = scene.client().resume(session).unwrap();
    let into = folder.path().join("outputs");
    machine
        .download_outputs(&job, &tree, &into, &progress)
        .await
        .unwrap();
    let found = measure::measure(&into, &MeasureOptions::quiet(HardLinks::Refuse)).unwrap();
    assert_eq!(found, tree);
    let connections = network_for_outputs.connections.load(Ordering::Relaxed);
    assert!((8..=12).contains(&connections), "{connections}");
    scene.stop().await;
}
