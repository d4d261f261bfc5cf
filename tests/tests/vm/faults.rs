//! What can go wrong on the way: the command is killed in every phase, the machine loses its power, its disk is full. There is never
//! a false proof, never a machine left, and the user is told what happened.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use aicert_tests::base::BaseImage;
use aicert_tests::vm::relay::Relay;
use aicert_tests::vm::{Desk, Running};
use serde_json::Value;

use crate::WORKSHOP;

const STEPS: &str = include_str!("../../jobs/steps.py");
const FILL: &str = include_str!("../../jobs/fill.py");

const LIMIT: Duration = Duration::from_secs(900);

/// What the record of a job says, in order.
const PHASES: [&str; 6] = [
    "prepared",
    "booting",
    "attested",
    "submitted",
    "finished",
    "delivered",
];

/// The outputs of [`STEPS`].
const OUTPUTS: u64 = 32 << 20;

/// Waits until the command is so far, and kills it; the results must not be there.
fn kill_when(desk: &Desk, mut running: Running, what: &str, is_there: impl Fn(&Running) -> bool) -> String {
    let begun = Instant::now();
    running.until(what, LIMIT, |running| is_there(running).then_some(()));
    let printed = running.kill();
    eprintln!(
        "killed after {:.1} s: {what}; phase {:?}",
        begun.elapsed().as_secs_f64(),
        desk.phase()
    );
    for result in ["proof.json", "model"] {
        assert!(!desk.at(result).exists(), "{result} is there: {what}\n{printed}");
    }
    printed
}

/// How far a job is in this phase.
fn at(phase: &str) -> Option<usize> {
    PHASES.iter().position(|known| *known == phase)
}

/// The only machine or job that is listed.
#[track_caller]
fn listed(desk: &Desk) -> Value {
    let mut machines = desk.machines();
    assert_eq!(machines.len(), 1, "{machines:?}");
    machines.remove(0)
}

#[test]
fn the_command_is_killed_in_every_phase() {
    let Some(image) = BaseImage::released(&WORKSHOP) else {
        return;
    };
    let desk = Desk::new(WORKSHOP.aicert);
    desk.python_job(&image, 6144, STEPS, "environment: {STEPS: \"20\"}\n");
    // A phase may be over in milliseconds: then the next one is as good.
    let is_in = |phase: &str| desk.phase().is_some_and(|found| at(&found) >= at(phase));

    // It is recorded, and there is no machine: nothing is lost, and the user is told so.
    kill_when(&desk, desk.start_run(), "it is recorded", |_| {
        desk.phase().is_some()
    });
    let entry = listed(&desk);
    assert_eq!(
        (&entry["phase"], &entry["in_use"]),
        (&"prepared".into(), &false.into()),
        "{entry}"
    );
    let ended = desk.start_attach().wait(LIMIT);
    if entry["state"] == "absent" {
        assert_eq!(ended.code, Some(1), "{}", ended.all());
        assert!(
            ended.stderr.contains("interrupted before there was a machine"),
            "{}",
            ended.stderr
        );
    }
    desk.scene().run(&["machines", "destroy", "--all"]).expect(0);
    desk.assert_nothing_is_left();

    // There is a machine, of which the record does not know yet.
    let begun = |_: &Running| {
        desk.machine_folder()
            .is_some_and(|folder| folder.qemu().is_some())
    };
    kill_when(&desk, desk.start_run(), "a machine was started", begun);
    let job = desk.job().unwrap();
    let ended = desk.scene().run(&["machines", "destroy", &job]).expect(0);
    assert!(ended.stdout.contains(&job), "{}", ended.stdout);
    desk.assert_nothing_is_left();

    // The same, and the user wants to go on: from here it is one job, whatever happens to the command.
    kill_when(&desk, desk.start_run(), "a machine was started", begun);
    let job = desk.job().unwrap();
    for phase in ["booting", "attested", "submitted"] {
        kill_when(&desk, desk.start_attach(), phase, |_| is_in(phase));
        assert_eq!(desk.job().as_ref(), Some(&job));
        assert_eq!(listed(&desk)["job"], job.as_str());
    }
    let printed = kill_when(&desk, desk.start_attach(), "the job runs", |running| {
        running.printed().contains("step 5")
    });
    // What was printed while nobody was there is there as well.
    assert!(printed.contains("step 0"), "{printed}");
    // Another command says that there is a job, and touches nothing.
    let other = desk.start(&[
        "run",
        "--policy",
        "policy.yaml",
        "--output-bom",
        "other.json",
        "--outputs",
        "other",
    ]);
    kill_when(&desk, other, "another run mentions the first", |running| {
        running.printed().contains(&format!("aicert attach {job}"))
    });
    for machine in desk.machines() {
        if machine["job"] != job.as_str() {
            let other = machine["job"].as_str().unwrap();
            desk.scene().run(&["machines", "destroy", other]).expect(0);
        }
    }
    let arriving = desk.at(&format!(".model.{job}.arriving"));
    kill_when(&desk, desk.start_attach(), "outputs arrive", |_| {
        size(&arriving) > OUTPUTS / 8
    });
    assert_eq!(listed(&desk)["phase"], "finished");

    // The way to the machine breaks in the middle of what is left.
    let left = OUTPUTS - size(&arriving);
    let relay = put_between(&desk, &job, left / 2);
    let ended = desk.start_attach().wait(LIMIT).expect(0);
    eprintln!("milestones: {}\n{}", desk.consoles().milestones(), ended.stdout);
    assert!(relay.has_cut(), "{relay:?}");
    assert!(
        relay.received() < left + left / 4,
        "what was there came again: {left} {relay:?}"
    );
    assert_eq!(fs::metadata(desk.at("model/model.bin")).unwrap().len(), OUTPUTS);
    desk.verify(&image.reference_values).expect(0);
    desk.assert_nothing_is_left();
    let nothing = desk.start_attach().wait(LIMIT).expect(2);
    assert!(
        nothing.stderr.contains("no job on another machine"),
        "{}",
        nothing.stderr
    );
}

/// How much is in a folder.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Has the job's machine be reached over something that breaks.
fn put_between(desk: &Desk, job: &str, after: u64) -> Relay {
    let path = desk.at("state/runs").join(job).join("session.json");
    let mut session: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let endpoint: SocketAddr = session["endpoint"].as_str().unwrap().parse().unwrap();
    let relay = Relay::that_breaks_once(endpoint, after);
    session["endpoint"] = relay.address().to_string().into();
    fs::write(path, session.to_string()).unwrap();
    relay
}

#[test]
fn the_machine_loses_its_power_in_mid_training() {
    let Some(image) = BaseImage::released(&WORKSHOP) else {
        return;
    };
    let desk = Desk::new(WORKSHOP.aicert);
    desk.python_job(&image, 4096, STEPS, "environment: {STEPS: \"3600\"}\n");
    let mut running = desk.start_run();
    running.until("the job runs", LIMIT, |running| {
        running.printed().contains("step 3").then_some(())
    });
    desk.machine_folder().unwrap().cut_power();
    let cut = Instant::now();
    let ended = running.wait(LIMIT).expect(1);
    eprintln!(
        "it took {:.1} s to notice\n{}",
        cut.elapsed().as_secs_f64(),
        ended.stderr
    );
    for words in [
        "the machine has ended while it had the job: what it computed is lost",
        "run the job again",
    ] {
        assert!(ended.stderr.contains(words), "no {words:?} in\n{}", ended.stderr);
    }
    desk.assert_no_results();
    desk.assert_nothing_is_left();
}

#[test]
fn the_machines_disk_is_full() {
    let Some(image) = BaseImage::released(&WORKSHOP) else {
        return;
    };
    let desk = Desk::new(WORKSHOP.aicert);
    desk.python_job(&image, 2048, FILL, "");
    let ended = desk.start_run().wait(LIMIT).expect(1);
    eprintln!("{}", ended.stderr);
    for words in [
        "the disk is full",
        "the machine's disk is full",
        "ask for a machine with a larger disk",
        "uncertified",
    ] {
        assert!(ended.stderr.contains(words), "no {words:?} in\n{}", ended.stderr);
    }
    // What it had until then is not lost.
    let (_, rest) = ended.stderr.split_once("uncertified, in ").unwrap();
    let place = rest
        .split_whitespace()
        .next()
        .unwrap()
        .trim_end_matches([';', ',']);
    let archive = fs::read(place).unwrap_or_else(|error| panic!("{place}: {error}"));
    let text = b"what it had until then";
    assert!(archive.windows(text.len()).any(|window| window == text));
    desk.assert_no_results();
    desk.assert_nothing_is_left();
}
