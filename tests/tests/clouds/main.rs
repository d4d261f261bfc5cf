//! The command with a cloud: interrupted, or killed at every request that it makes; what is left is found and removed by the next
//! one. And the base image, on its way there and back.
//!
//! The clouds are stand-ins on this computer, and so there is nothing behind the machines that they make: each run ends at the
//! latest when there is one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod published;
mod stand_in;

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aicert_tests::scene::{Ended, Scene};
use rustix::process::{Pid, Signal, kill_process};
use stand_in::StandIn;

const AICERT: &str = env!("CARGO_BIN_EXE_aicert-under-test");
/// A command that takes longer than that has lost its way.
const PATIENCE: Duration = Duration::from_secs(180);

/// What the last command said that did not have to come to its end.
const SAID: &str = "said.txt";

/// A user's computer, and a cloud.
struct Desk {
    scene: Scene,
    cloud: StandIn,
}

impl Desk {
    async fn new(cloud: &'static str) -> Option<Self> {
        let scene = Scene::new(AICERT);
        let cloud = StandIn::start(cloud, scene.path()).await?;
        scene.write("src/main.py", "pass\n");
        scene.write(
            "base.json",
            r#"{"version": "aicert/reference-values/v1", "images": []}"#,
        );
        scene.write(
            "aicert.yaml",
            format!(
                "kind: python\npythonVersion: 11\nsource: {{type: directory, path: ./src}}\nmachine: \
                 {{{}, referenceValues: base.json, access: [203.0.113.7]}}\n",
                cloud.machine()
            ),
        );
        Some(Self { scene, cloud })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.scene.command(arguments);
        command.env("AICERT_OWNER", "ada");
        for name in stand_in::CREDENTIALS {
            command.env_remove(name);
        }
        command.envs(self.cloud.environment(self.scene.path()));
        command
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let said = fs::File::create(self.scene.path().join(SAID)).unwrap();
        self.command(arguments)
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .unwrap()
    }

    /// Runs a command to its end, without holding up what the stand-in does meanwhile.
    async fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = self.command(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        Ended::from(tokio::time::timeout(PATIENCE, output).await.unwrap().unwrap())
    }

    /// Whether there is a machine, as the record of the job says.
    fn is_made(&self) -> bool {
        let runs = fs::read_dir(self.scene.path().join("state/runs"));
        let records = runs.into_iter().flatten().filter_map(Result::ok);
        records
            .filter_map(|run| fs::read_to_string(run.path().join("record.json")).ok())
            .any(|record| !record.contains("\"phase\": \"prepared\""))
    }

    /// Kills a command at its `number`th request from here on, which is carried out and never answered. False when it got
    /// through: it has ended, or there is a machine.
    async fn killed_at(&self, number: usize, arguments: &[&str], until_made: bool) -> bool {
        let (paused, mut child) = self.paused_at(number, arguments, until_made).await;
        child.kill().unwrap();
        child.wait().unwrap();
        self.cloud.go_on();
        paused
    }

    /// A command that is at that request, or beyond it.
    async fn paused_at(&self, number: usize, arguments: &[&str], until_made: bool) -> (bool, Child) {
        self.cloud.pause_at(number);
        let mut child = self.start(arguments);
        let begun = Instant::now();
        let through = async {
            loop {
                assert!(begun.elapsed() < PATIENCE, "{arguments:?} at request {number}");
                if (until_made && self.is_made()) || child.try_wait().unwrap().is_some() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        (self.cloud.paused(through).await, child)
    }

    /// Presses Ctrl-C when a command is at that request, or has made a machine.
    async fn interrupted_at(&self, number: usize, arguments: &[&str]) -> bool {
        let (paused, mut child) = self.paused_at(number, arguments, true).await;
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        // As a cloud does: it answers in the end, whether or not anybody listens.
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.cloud.go_on();
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "{arguments:?} at request {number}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        // Nobody answers in these machines, and a run that has noticed is removing its machine already.
        let code = status.code();
        assert!(
            matches!(code, Some(130)) || (!paused && matches!(code, Some(1))),
            "{arguments:?} at request {number}: {code:?}"
        );
        paused
    }

    /// What is left is shown, and removed, and then there is nothing anywhere.
    async fn clean_up(&self, context: &str) {
        let left = self.cloud.left().await;
        let listed = self.run(&["machines", "list"]).await.expect(0);
        let job = listed.stdout.lines().nth(1).unwrap_or_default();
        assert!(
            left.is_empty() || job.contains(self.cloud.name()),
            "{context}: left {left:?}, listed {listed:?}"
        );
        let destroyed = self.run(&["machines", "destroy", "--all"]).await;
        assert_eq!(destroyed.code, Some(0), "{context}: {destroyed:?}");
        let left = self.cloud.left().await;
        assert!(left.is_empty(), "{context}: {left:?}");
        let listed = self.run(&["machines", "list"]).await.expect(0);
        assert_eq!(listed.stdout.trim(), "There are no machines.", "{context}");
        self.cloud.assert_clean();
    }
}

/// The numbers of requests at which a command is killed: all of them with `AICERT_TEST_EVERY`, else some.
fn moments() -> impl Iterator<Item = usize> {
    let every = std::env::var_os("AICERT_TEST_EVERY").is_some();
    (1..).step_by(if every { 1 } else { 3 })
}

async fn killed_while_it_makes_a_machine(cloud: &'static str) {
    let mut kills = 0;
    for number in moments() {
        let Some(desk) = Desk::new(cloud).await else {
            return;
        };
        let killed = desk.killed_at(number, &["run"], true).await;
        desk.clean_up(&format!("{cloud}: killed at request {number} of `run`"))
            .await;
        if !killed {
            break;
        }
        kills += 1;
    }
    assert!(kills >= 2, "{cloud}: {kills} kills");
}

/// Whatever Ctrl-C meets: nothing is left, and nobody has to clean up.
async fn interrupted_while_it_makes_a_machine(cloud: &'static str) {
    let mut interruptions = 0;
    for number in moments() {
        let Some(desk) = Desk::new(cloud).await else {
            return;
        };
        let paused = desk.interrupted_at(number, &["run"]).await;
        let left = desk.cloud.left().await;
        let said = fs::read_to_string(desk.scene.path().join(SAID)).unwrap();
        assert!(left.is_empty(), "{cloud}: request {number}: {left:?}\n{said}");
        let listed = desk.run(&["machines", "list"]).await.expect(0);
        assert_eq!(listed.stdout.trim(), "There are no machines.", "{number}");
        desk.cloud.assert_clean();
        if !paused {
            break;
        }
        interruptions += 1;
    }
    assert!(interruptions >= 2, "{cloud}: {interruptions} interruptions");
}

async fn killed_while_it_removes_a_machine(cloud: &'static str) {
    const DESTROY: [&str; 3] = ["machines", "destroy", "--all"];
    let mut kills = 0;
    for number in moments() {
        let Some(desk) = Desk::new(cloud).await else {
            return;
        };
        // As soon as there is a machine.
        assert!(!desk.killed_at(usize::MAX / 2, &["run"], true).await);
        assert!(!desk.cloud.left().await.is_empty());
        let killed = desk.killed_at(number, &DESTROY, false).await;
        desk.clean_up(&format!("{cloud}: killed at request {number} of `destroy`"))
            .await;
        if !killed {
            break;
        }
        kills += 1;
    }
    assert!(kills >= 1, "{cloud}: {kills} kills");
}

/// Whoever has lost the state folder, or sits at another computer, has the configuration.
async fn found_from_another_computer(cloud: &'static str) {
    let Some(desk) = Desk::new(cloud).await else {
        return;
    };
    assert!(!desk.killed_at(usize::MAX / 2, &["run"], true).await);
    fs::remove_dir_all(desk.scene.path().join("state")).unwrap();
    let listed = desk.run(&["machines", "list"]).await.expect(0);
    assert_eq!(listed.stdout.trim(), "There are no machines.");
    let configured = ["machines", "list", "--config", "aicert.yaml"];
    let listed = desk.run(&configured).await.expect(0);
    assert!(listed.stdout.contains("has no record"), "{listed:?}");
    // Not this owner's.
    let mut command = desk.command(&configured);
    command.env("AICERT_OWNER", "bob");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let others = Ended::from(output.await.unwrap()).expect(0);
    assert_eq!(others.stdout.trim(), "There are no machines.");
    // Another run tells of it, and leaves it alone: another computer may be using it.
    let run = desk.killed_at(usize::MAX / 2, &["run"], true).await;
    assert!(!run);
    let jobs = desk.run(&["machines", "list"]).await.expect(0);
    assert_eq!(jobs.stdout.lines().count(), 3, "{jobs:?}");
    let destroyed = desk.run(&["machines", "destroy", "--all"]).await.expect(0);
    assert!(
        destroyed.stdout.contains("Destroyed 2 machines."),
        "{destroyed:?}"
    );
    assert!(desk.cloud.left().await.is_empty());
    desk.cloud.assert_clean();
}

/// A cloud that cannot be asked is named, and hides nothing of another.
#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_that_cannot_be_asked_hides_nothing_of_another() {
    let Some(desk) = Desk::new("gcp").await else {
        return;
    };
    assert!(!desk.killed_at(usize::MAX / 2, &["run"], true).await);
    desk.scene.write("state/places/aws_eu-west-1_ada", "");
    let run = |arguments: &'static [&'static str]| {
        let mut command = desk.command(arguments);
        command
            .env("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
            .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "secret");
        async {
            let output = tokio::task::spawn_blocking(move || command.output().unwrap());
            Ended::from(output.await.unwrap())
        }
    };
    let listed = run(&["machines", "list"]).await.expect(1);
    assert!(listed.stdout.contains("gcp my-project"), "{listed:?}");
    assert!(
        listed
            .stderr
            .contains("machines at aws eu-west-1 cannot be looked at"),
        "{listed:?}"
    );
    let destroyed = run(&["machines", "destroy", "--all"]).await.expect(1);
    assert!(
        destroyed.stdout.contains("Destroyed the machine"),
        "{destroyed:?}"
    );
    assert!(desk.cloud.left().await.is_empty());
}

macro_rules! for_each_cloud {
    ($($name:ident = $cloud:literal),+) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread")]
            async fn killed_while_it_makes_a_machine() {
                super::killed_while_it_makes_a_machine($cloud).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn interrupted_while_it_makes_a_machine() {
                super::interrupted_while_it_makes_a_machine($cloud).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn killed_while_it_removes_a_machine() {
                super::killed_while_it_removes_a_machine($cloud).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn found_from_another_computer() {
                super::found_from_another_computer($cloud).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn the_base_image_is_published_and_discarded() {
                super::published::there_and_back($cloud).await;
            }
        }
    )+};
}

for_each_cloud!(azure = "azure", aws = "aws", gcp = "gcp");
