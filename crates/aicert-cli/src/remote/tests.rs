//! What becomes of jobs when something goes wrong on the way, with a server that really runs them.

mod scene;

use std::fs;
use std::time::Duration;

use aicert_client::Settings;
use aicert_core::api::{JobState, JobStatus};
use aicert_core::digest::ConfigDigest;
use aicert_core::pipeline::LOG_FILE;
use aicert_core::progress::ProgressEvent;

use self::scene::{Scene, errand};
use super::record::{Phase, RESULT};
use super::stop::{self, Fate};
use super::{job, leave, phases, receive, traces};
use crate::error::Exit;
use crate::progress::Renderer;
use crate::report::Kept;
use crate::signals::Signals;

/// Says something, is silent for a while, and leaves something.
const QUIET: &str = "
import time
print('begun', flush=True)
time.sleep(10)
open('/workspace/outputs/weights', 'w').write('1 2 3')
";

const SHORT: &str = "open('/workspace/outputs/weights', 'w').write('1 2 3')";

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_job_is_reached_again_before_it_says_anything() {
    let Some(mut scene) = Scene::attested(QUIET).await else {
        return;
    };
    let cut = scene.cutter();
    let (mut said, mut connected) = (Vec::new(), 0);
    let published = {
        let mut driven = std::pin::pin!(phases::drive(&mut scene.run, &scene.errand));
        loop {
            tokio::select! {
                published = &mut driven => break published.unwrap(),
                Some(event) = scene.events.recv() => match event {
                    ProgressEvent::JobOutput { line, .. } if line == "begun" => cut(),
                    ProgressEvent::Warning { message } if message == "connected again" => {
                        connected += 1;
                        assert!(connected < 4, "{said:?}");
                        // The job has said nothing since: one short interruption has nothing to do with the next.
                        if connected < 3 {
                            cut();
                        }
                    }
                    ProgressEvent::Warning { message } => said.push(message),
                    _ => {}
                }
            }
        }
    };
    assert_eq!((connected, said.len()), (3, 3), "{said:?}");
    let attach = format!("`aicert attach {}`", scene.run.job());
    assert!(said.iter().all(|said| said.contains(&attach)), "{said:?}");
    assert_eq!(published.exit(), Exit::Holds);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_are_here_are_found_whenever_the_command_was_killed() {
    let Some(mut scene) = Scene::attested(SHORT).await else {
        return;
    };
    let published = phases::drive(&mut scene.run, &scene.errand).await.unwrap();
    assert_eq!((published.exit(), scene.warnings()), (Exit::Holds, Vec::new()));
    assert_eq!(scene.run.record().phase, Phase::Delivered);
    let kept: Kept = serde_json::from_slice(&scene.run.read(RESULT).unwrap()).unwrap();
    assert_eq!(kept.report(scene.run.job(), scene.errand.terminal), Exit::Holds);

    // The proof must be of what was sent.
    let client = job::connect(&scene.run, &scene.errand, Settings::default()).unwrap();
    let proof = fs::read(scene.at("proof.json")).unwrap();
    receive::verify(&scene.run, &scene.errand, &client, &proof).unwrap();
    let config = scene.run.record().config;
    let other = ConfigDigest::of(b"something else");
    scene.run.update(|record| record.config = other).unwrap();
    let failure = receive::verify(&scene.run, &scene.errand, &client, &proof).unwrap_err();
    assert!(failure.message.contains("another configuration"), "{failure:?}");
    assert!(failure.causes[0].contains(&config.to_string()), "{failure:?}");
    scene.run.update(|record| record.config = config).unwrap();

    // Killed after the last result had its name: the machine is not asked again, and may have ended.
    scene.end_machine().await;
    let finished = |scene: &mut Scene| {
        scene.run.update(|record| record.phase = Phase::Finished).unwrap();
    };
    finished(&mut scene);
    let published = phases::without_machine(&mut scene.run, &scene.errand)
        .await
        .unwrap();
    assert_eq!(published.exit(), Exit::Holds);
    assert_eq!(scene.run.record().phase, Phase::Delivered);

    // Killed between two of them, and just before the first.
    let hide = |scene: &Scene, name: &str| fs::rename(scene.at(name), scene.hidden(name)).unwrap();
    let all = ["proof.json", "proof.ca.pem", "proof.log", "model"];
    for names in [&all[..1], &all[..2], &all[..3], &all[..]] {
        for name in names {
            hide(&scene, name);
        }
        finished(&mut scene);
        let published = phases::drive(&mut scene.run, &scene.errand).await.unwrap();
        assert_eq!(published.exit(), Exit::Holds, "{names:?}");
        assert!(published.outputs && published.instead.is_none());
        let left: Vec<_> = fs::read_dir(scene.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with('.') || name.contains(scene.run.job().as_str()))
            .collect();
        assert_eq!(left, Vec::<String>::new(), "{names:?}");
        assert!(all.iter().all(|name| scene.at(name).exists()));
    }
    // Between a file's two names.
    hide(&scene, "proof.json");
    fs::hard_link(scene.at("proof.ca.pem"), scene.hidden("proof.ca.pem")).unwrap();
    finished(&mut scene);
    let published = phases::without_machine(&mut scene.run, &scene.errand)
        .await
        .unwrap();
    assert_eq!(published.exit(), Exit::Holds);
    assert!(!scene.hidden("proof.ca.pem").exists());

    // What is not what was measured is not taken for it.
    hide(&scene, "proof.json");
    fs::write(scene.at("model/weights"), "1 2 4").unwrap();
    finished(&mut scene);
    let stop = phases::without_machine(&mut scene.run, &scene.errand)
        .await
        .err()
        .unwrap();
    assert!(stop.failure.message.contains("they are lost"), "{stop:?}");
    assert_eq!(stop.fate, Fate::Destroy);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_arrive_without_the_log() {
    let Some(mut scene) = Scene::attested(SHORT).await else {
        return;
    };
    // No file can be written there.
    fs::create_dir(scene.hidden("proof.log")).unwrap();
    let published = phases::drive(&mut scene.run, &scene.errand).await.unwrap();
    assert_eq!(published.exit(), Exit::Holds);
    assert!(scene.at("model/weights").exists() && !scene.at("proof.log").exists());
    let warnings = scene.warnings();
    assert!(
        warnings.len() == 1 && warnings[0].contains("what the job printed cannot be brought back"),
        "{warnings:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_certified_is_saved_before_the_machine_is_gone() {
    // Names of one file: what is measured would not be what is delivered.
    let script = "import os\nprint('so far')\nout = '/workspace/outputs/'\n\
        open(out + 'model', 'w').write('1 2 3')\nos.link(out + 'model', out + 'same')";
    let Some(mut scene) = Scene::attested(script).await else {
        return;
    };
    // Nothing can be written there, as on a disk that is full.
    let rescue = scene.errand.delivery.rescue().to_owned();
    let archive = rescue.join("outputs.tar");
    fs::create_dir_all(&archive).unwrap();
    let stop = phases::drive(&mut scene.run, &scene.errand).await.err().unwrap();
    let help = stop.failure.help.clone().unwrap();
    assert_eq!(stop.fate, Fate::Keep, "{stop:?}");
    assert!(
        help.contains("is still on the machine") && help.contains("aicert attach"),
        "{help}"
    );
    // The rest is saved all the same.
    assert_eq!(fs::read_to_string(rescue.join(LOG_FILE)).unwrap(), "so far\n");

    fs::remove_dir(&archive).unwrap();
    let stop = phases::drive(&mut scene.run, &scene.errand).await.err().unwrap();
    let help = stop.failure.help.clone().unwrap();
    assert_eq!(stop.fate, Fate::Destroy, "{stop:?}");
    let said = format!("what the job left is kept, uncertified, in {}", archive.display());
    assert!(help.contains(&said), "{help}");
    let bytes = fs::read(&archive).unwrap();
    assert!(bytes.windows(13).any(|part| part == b"outputs/model"));
    assert!(bytes.windows(5).any(|part| part == b"1 2 3"));

    // Nobody can bring what is left on a machine that has ended.
    scene.end_machine().await;
    fs::remove_file(&archive).unwrap();
    let client = job::connect(&scene.run, &scene.errand, impatient()).unwrap();
    let status = JobStatus {
        id: scene.run.job().to_string(),
        state: JobState::Failed,
        awaited: Vec::new(),
        result: None,
        problem: None,
        next_event: 0,
    };
    let stop = traces::without_certificate(&scene.run, &scene.errand, &client, status).await;
    assert_eq!(stop.fate, Fate::Destroy, "{stop:?}");
    let help = stop.failure.help.unwrap();
    assert!(help.contains("is lost with the machine"), "{help}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_job_left_nothing_nothing_is_said_of_it() {
    let Some(mut scene) = Scene::attested("raise SystemExit(3)").await else {
        return;
    };
    // A job that fails has a proof that says so; this is what one looks like that was stopped.
    phases::drive(&mut scene.run, &scene.errand).await.unwrap();
    let client = job::connect(&scene.run, &scene.errand, impatient()).unwrap();
    let status = JobStatus {
        state: JobState::Cancelled,
        ..client.status(scene.run.job()).await.unwrap()
    };
    let stop = traces::without_certificate(&scene.run, &scene.errand, &client, status).await;
    assert_eq!(stop.fate, Fate::Destroy);
    let help = stop.failure.help.unwrap_or_default();
    assert!(!help.contains("left") && !help.contains("lost"), "{help}");
    assert!(!scene.errand.delivery.rescue().join("outputs.tar").exists());
}

fn impatient() -> Settings {
    let mut settings = Settings::default();
    settings.retries = 0;
    settings
}

#[tokio::test]
async fn what_is_missing_in_this_shell_leaves_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    let configuration = "kind: python\npythonVersion: 11\n\
        source: {type: git, gitRepo: 'https://example.org/x', tokenEnv: AICERT_TEST_NOT_SET}\n\
        machine: {provider: local, tpm: swtpm}\n";
    let (mut run, errand, _events) = errand(&folder, configuration);
    let stop = job::submit(&mut run, &errand).await.unwrap_err();
    assert_eq!(stop.fate, Fate::Keep);
    assert!(
        stop.failure.message.contains("AICERT_TEST_NOT_SET is not set"),
        "{}",
        stop.failure.message
    );
    assert!(stop.failure.help.unwrap().contains("aicert attach"));
    assert_eq!(run.record().phase, Phase::Attested);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_interrupts_again_does_not_wait_for_what_is_being_checked() {
    let folder = tempfile::tempdir().unwrap();
    let (mut run, errand, _events) = errand(&folder, "");
    run.update(|record| record.phase = Phase::Finished).unwrap();
    let stop = stop::interrupted(2, run.record());
    assert_eq!(stop.fate, Fate::Keep);
    // A thread that hashes, for longer than anybody would wait.
    let busy = errand.delivery.busy();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (begun, is_begun) = std::sync::mpsc::channel();
    let hashing = std::thread::spawn(move || {
        let _busy = busy.lock().unwrap();
        begun.send(()).unwrap();
        let _ = released.recv();
    });
    is_begun.recv().unwrap();
    let mut signals = Signals::listen().unwrap();
    let (_, renderer) = Renderer::start(errand.terminal, tokio::runtime::Handle::current());
    let leaving = leave(run, errand, renderer, &mut signals, Err(stop));
    let own = rustix::process::getpid();
    rustix::process::kill_process(own, rustix::process::Signal::HUP).unwrap();
    let left = tokio::time::timeout(Duration::from_secs(20), leaving).await;
    release.send(()).unwrap();
    hashing.join().unwrap();
    let failure = left.expect("it does not wait").unwrap_err();
    assert_eq!(failure.exit, Exit::Signal(2));
}
