//! `aicert machines` as people meet it.
#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]

mod desk;

use desk::Desk;
use insta::assert_snapshot;

/// What a run on this machine leaves that was killed before it had measured anything.
fn killed_run(desk: &Desk, job: &str) {
    let folder = format!("state/machines/{job}");
    std::fs::create_dir_all(desk.path(&format!("{folder}/workspace"))).unwrap();
    desk.private("state/machines");
    desk.write(&format!("{folder}/owner.lock"), "").write(
        &format!("{folder}/record.json"),
        format!(
            r#"{{"job": "{job}", "created": "2026-01-31T23:59:59Z", "process": 4000000, "configuration": "/job/aicert.yaml", "targets": []}}"#
        ),
    );
}

#[test]
fn without_machines_there_is_little_to_say() {
    let desk = Desk::new();
    assert_snapshot!(desk.run(&["machines", "list"]), @r#"
    exit code 0
    --- stdout
    There are no machines.
    "#);
    assert_snapshot!(desk.run(&["machines", "list", "--json"]), @r#"
    exit code 0
    --- stdout
    {
      "machines": [],
      "owner": "ada",
      "places": []
    }
    "#);
    assert_snapshot!(desk.run(&["machines", "destroy", "--all"]), @r#"
    exit code 0
    --- stdout
    There are no machines to destroy.
    "#);
    assert_snapshot!(desk.run(&["machines", "destroy", "x"]), @r#"
    exit code 2
    --- stderr
    error: there is no job "x"
    help: `aicert machines list` shows those that there are
    "#);
    assert_snapshot!(desk.run(&["machines", "logs", "x"]), @r#"
    exit code 2
    --- stderr
    error: there is no job "x"
    help: `aicert machines list` shows those that there are
    "#);
    assert_snapshot!(desk.run(&["machines", "destroy"]), @r#"
    exit code 2
    --- stderr
    error: the following required arguments were not provided:
      <JOB|--all>

    Usage: aicert machines destroy <JOB|--all>

    For more information, try '--help'.
    "#);
    assert_snapshot!(desk.run(&["machines", "destroy", "x", "--all"]), @r#"
    exit code 2
    --- stderr
    error: the argument '[JOB]' cannot be used with '--all'

    Usage: aicert machines destroy <JOB|--all>

    For more information, try '--help'.
    "#);
}

#[test]
fn machines_of_runs_that_were_killed_are_listed() {
    let desk = Desk::new();
    killed_run(&desk, "0badcafe-20260131t235959z-00000001");
    killed_run(&desk, "0badcafe-20260131t235959z-00000002");
    assert_snapshot!(desk.run(&["machines", "list"]), @r#"
    exit code 0
    --- stdout
    JOB                                 PROVIDER  STATE                     PHASE       SINCE                 CONFIGURATION
    0badcafe-20260131t235959z-00000001  local     ended, nobody follows it  gets ready  2026-01-31T23:59:59Z  /job/aicert.yaml
    0badcafe-20260131t235959z-00000002  local     ended, nobody follows it  gets ready  2026-01-31T23:59:59Z  /job/aicert.yaml
    "#);
    assert_snapshot!(desk.run(&["machines", "list", "--json"]), @r#"
    exit code 0
    --- stdout
    {
      "machines": [
        {
          "activity": "gets ready",
          "configuration": "/job/aicert.yaml",
          "created": "2026-01-31T23:59:59Z",
          "endpoint": null,
          "expires": null,
          "in_use": false,
          "job": "0badcafe-20260131t235959z-00000001",
          "machine": "0badcafe-20260131t235959z-00000001",
          "owner": null,
          "phase": null,
          "place": null,
          "problem": null,
          "process": 4000000,
          "provider": "local",
          "state": "ended"
        },
        {
          "activity": "gets ready",
          "configuration": "/job/aicert.yaml",
          "created": "2026-01-31T23:59:59Z",
          "endpoint": null,
          "expires": null,
          "in_use": false,
          "job": "0badcafe-20260131t235959z-00000002",
          "machine": "0badcafe-20260131t235959z-00000002",
          "owner": null,
          "phase": null,
          "place": null,
          "problem": null,
          "process": 4000000,
          "provider": "local",
          "state": "ended"
        }
      ],
      "owner": "ada",
      "places": []
    }
    "#);
    assert_snapshot!(desk.run(&["machines", "logs", "0001"]), @r#"
    exit code 2
    --- stderr
    error: the job 0badcafe-20260131t235959z-00000001 is on this machine: there is no console to show
    help: `aicert run` shows what its job prints
    "#);
    assert_snapshot!(desk.run(&["machines", "logs", "0000"]), @r#"
    exit code 2
    --- stderr
    error: there is more than one job with "0000" in its name
    help: `aicert machines list` shows them
    "#);
}

/// What a run on another machine leaves that was killed.
fn killed_remote_run(desk: &Desk, job: &str, provider: &str, phase: &str) {
    let folder = format!("state/runs/{job}");
    std::fs::create_dir_all(desk.path(&folder)).unwrap();
    desk.private("state/runs");
    let record = serde_json::json!({
        "job": job,
        "created": "2026-01-31T23:59:59Z",
        "process": 4_000_000,
        "configuration": "/job/aicert.yaml",
        "config": format!("sha256:{}", "0".repeat(64)),
        "targets": {
            "proof": "/job/proof.json",
            "outputs": "/job/model",
            "simulated": true,
            "replace": false,
        },
        "reference_values": [],
        "policy": null,
        "nonce": "0".repeat(64),
        "provider": provider,
        "machine": null,
        "endpoint": null,
        "boot_limit": 300,
        "phase": phase,
    });
    desk.write(&format!("{folder}/owner.lock"), "")
        .write(&format!("{folder}/record.json"), record.to_string());
}

/// What a command leaves that was killed before it had removed the machine of a job whose results are here.
fn delivered_run(desk: &Desk, job: &str, holds: bool) {
    killed_remote_run(desk, job, "qemu", "delivered");
    desk.write(
        &format!("state/runs/{job}/result.json"),
        format!(r#"{{"holds": {holds}, "proof": "/job/proof.json", "json": {{"verified": {holds}}}}}"#),
    );
}

#[test]
fn results_that_are_here_are_told_again() {
    let desk = Desk::new();
    delivered_run(&desk, "job", true);
    assert_snapshot!(desk.run(&["attach"]), @"
    exit code 0
    --- stdout
    The results of the job job were here already, with the proof /job/proof.json; its machine was still to be removed, and is gone now.
    ");
    delivered_run(&desk, "job", false);
    assert_snapshot!(desk.run(&["attach", "--json"]), @r#"
    exit code 1
    --- stdout
    {
      "verified": false
    }
    --- stderr
    {"causes":[],"event":"error","exit_code":1,"help":"`aicert inspect /job/proof.json` shows what the proof says","message":"the job did not succeed, or its results are not where they belong"}
    "#);
    assert!(!desk.path("state/runs/job").exists());
    // It is not known what came of it: that is no success.
    delivered_run(&desk, "job", true);
    std::fs::remove_file(desk.path("state/runs/job/result.json")).unwrap();
    assert_snapshot!(desk.run(&["attach"]), @r#"
    exit code 1
    --- stderr
    error: the results of the job are here, and what came of it is not known any more
      because: could not read "DESK/state/runs/job/result.json": No such file or directory (os error 2)
    help: `aicert inspect /job/proof.json` shows what the proof says
    "#);
    assert!(!desk.path("state/runs/job").exists());
}

fn another_job(desk: &Desk) {
    std::fs::create_dir(desk.path("code")).unwrap();
    desk.write("code/main.py", "").write(
        "local.yaml",
        "kind: python\npythonVersion: 11\nsource: {type: directory, path: code}\nmachine: {provider: local, tpm: swtpm}\n",
    );
}

/// Runs a job on this machine that cannot be run: what it says before that is what it found.
fn run_another(desk: &Desk) -> String {
    if !desk.path("code").exists() {
        another_job(desk);
    }
    let mut command = desk.command(&["run", "-f", "local.yaml"]);
    let engine = format!("unix://{}", desk.path("no.sock").display());
    let shown = desk.show(&command.env("DOCKER_HOST", engine).output().unwrap());
    assert!(shown.contains("cannot reach the Docker engine"), "{shown}");
    let found = shown
        .lines()
        .filter(|line| line.starts_with("warning"))
        .collect::<Vec<_>>();
    found.join("\n")
}

#[test]
fn what_this_build_cannot_see_is_not_forgotten() {
    let desk = Desk::new();
    killed_remote_run(&desk, "a-moon", "moon", "submitted");
    killed_remote_run(&desk, "b-done", "moon", "delivered");
    killed_remote_run(&desk, "c-torn", "qemu", "submitted");
    desk.write("state/runs/c-torn/record.json", "{\"job\": \"c");
    assert_snapshot!(desk.run(&["machines", "list"]), @r#"
    exit code 0
    --- stdout
    JOB     PROVIDER  STATE                       PHASE                             SINCE                 CONFIGURATION
    c-torn  unknown   unknown, nobody follows it  has a record that cannot be read  1970-01-01T00:00:00Z  unknown
    a-moon  moon      unknown, nobody follows it  has the job                       2026-01-31T23:59:59Z  /job/aicert.yaml
    b-done  moon      unknown, nobody follows it  is done                           2026-01-31T23:59:59Z  /job/aicert.yaml
    --- stderr
    warning: c-torn: its record DESK/state/runs/c-torn/record.json cannot be read: EOF while parsing a string at line 1 column 10
    warning: a-moon: this build of aicert knows no provider `moon`
    warning: b-done: this build of aicert knows no provider `moon`
    "#);
    assert_snapshot!(run_another(&desk), @r#"
    warning: the job a-moon (/job/aicert.yaml, 2026-01-31T23:59:59Z) is left as it is: this build of aicert knows no provider `moon`; `aicert machines destroy a-moon` removes what can be removed
    warning: the job b-done (/job/aicert.yaml, 2026-01-31T23:59:59Z) is left as it is: this build of aicert knows no provider `moon`; `aicert machines destroy b-done` removes what can be removed
    warning: the job c-torn is left as it is: its record DESK/state/runs/c-torn/record.json cannot be read: EOF while parsing a string at line 1 column 10; `aicert machines destroy c-torn` removes what can be removed
    "#);
    assert_snapshot!(desk.run(&["attach", "moon"]), @r#"
    exit code 1
    --- stderr
    error: nobody can go on with the job a-moon: this build of aicert knows no provider `moon`
    "#);
    assert_snapshot!(desk.run(&["attach", "torn"]), @r#"
    exit code 1
    --- stderr
    error: nobody can go on with the job c-torn: its record DESK/state/runs/c-torn/record.json cannot be read: EOF while parsing a string at line 1 column 10
    "#);
    assert_snapshot!(desk.run(&["machines", "logs", "moon"]), @r#"
    exit code 1
    --- stderr
    error: it is not known whether there is a machine for the job a-moon: this build of aicert knows no provider `moon`
    "#);
    assert_snapshot!(desk.run(&["machines", "destroy", "--all"]), @r#"
    exit code 1
    --- stderr
    error: it is not known whether there is a machine for the job c-torn: its record DESK/state/runs/c-torn/record.json cannot be read: EOF while parsing a string at line 1 column 10
    help: `aicert machines destroy --force` forgets the job all the same, and leaves a machine that this aicert cannot see
    error: it is not known whether there is a machine for the job a-moon: this build of aicert knows no provider `moon`
    help: `aicert machines destroy --force` forgets the job all the same, and leaves a machine that this aicert cannot see
    error: it is not known whether there is a machine for the job b-done: this build of aicert knows no provider `moon`
    help: `aicert machines destroy --force` forgets the job all the same, and leaves a machine that this aicert cannot see
    "#);
    for job in ["a-moon", "b-done", "c-torn"] {
        assert!(
            desk.path(&format!("state/runs/{job}/record.json")).exists(),
            "{job}"
        );
    }
    assert_snapshot!(desk.run(&["machines", "destroy", "--all", "--force"]), @r#"
    exit code 0
    --- stdout
    Forgot 3 jobs.
    "#);
    assert_eq!(std::fs::read_dir(desk.path("state/runs")).unwrap().count(), 0);
}

#[test]
fn one_provider_that_cannot_be_used_hides_nothing_of_others() {
    let desk = Desk::new();
    killed_run(&desk, "a-local");
    killed_remote_run(&desk, "b-qemu", "qemu", "submitted");
    desk.write("state/qemu", "this is no folder");
    assert_snapshot!(desk.run(&["machines", "list"]), @r#"
    exit code 1
    --- stdout
    JOB      PROVIDER  STATE                       PHASE        SINCE                 CONFIGURATION
    a-local  local     ended, nobody follows it    gets ready   2026-01-31T23:59:59Z  /job/aicert.yaml
    b-qemu   qemu      unknown, nobody follows it  has the job  2026-01-31T23:59:59Z  /job/aicert.yaml
    --- stderr
    warning: b-qemu: could not make the state folder DESK/state/qemu/machines: Not a directory (os error 20)
    error: could not make the state folder DESK/state/qemu/machines: Not a directory (os error 20)
    "#);
    assert_snapshot!(desk.run(&["machines", "destroy", "qemu"]), @r#"
    exit code 1
    --- stderr
    error: it is not known whether there is a machine for the job b-qemu: could not make the state folder DESK/state/qemu/machines: Not a directory (os error 20)
    help: `aicert machines destroy --force` forgets the job all the same, and leaves a machine that this aicert cannot see
    "#);
    assert_snapshot!(run_another(&desk), @r#"
    warning: what earlier commands left cannot be looked at: could not make the state folder DESK/state/qemu/machines: Not a directory (os error 20)
    warning: the job b-qemu (/job/aicert.yaml, 2026-01-31T23:59:59Z) is left as it is: could not make the state folder DESK/state/qemu/machines: Not a directory (os error 20); `aicert machines destroy b-qemu` removes what can be removed
    "#);
    assert!(desk.path("state/runs/b-qemu/record.json").exists());

    // A folder of this machine's jobs that cannot be used stops what is elsewhere no more.
    let desk = Desk::new();
    killed_remote_run(&desk, "b-qemu", "qemu", "submitted");
    desk.write("state/machines", "this is no folder");
    assert_snapshot!(desk.run(&["machines", "list"]), @r#"
    exit code 1
    --- stdout
    JOB     PROVIDER  STATE                          PHASE        SINCE                 CONFIGURATION
    b-qemu  qemu      no machine, nobody follows it  has the job  2026-01-31T23:59:59Z  /job/aicert.yaml
    --- stderr
    error: could not make the state folder "DESK/state/machines": File exists (os error 17)
    "#);
    assert_snapshot!(desk.run(&["machines", "destroy", "qemu"]), @r#"
    exit code 0
    --- stdout
    Forgot the job b-qemu.
    "#);
}

#[test]
fn a_damaged_authority_hides_nothing() {
    let desk = Desk::new();
    killed_remote_run(&desk, "a", "qemu", "booting");
    std::fs::create_dir_all(desk.path("state/qemu/authority")).unwrap();
    desk.private("state/qemu");
    desk.write("state/qemu/authority/root.pem", "damaged");
    assert_snapshot!(desk.run(&["machines", "logs", "a"]), @r#"
    exit code 1
    --- stderr
    error: the job a has no machine: there is no console to show
    "#);
    assert_snapshot!(run_another(&desk), @"warning: the job a (/job/aicert.yaml, 2026-01-31T23:59:59Z): the machine has ended before the job was sent to it. Cleaning up.");
    assert_snapshot!(desk.run(&["machines", "list"]), @r#"
    exit code 0
    --- stdout
    There are no machines.
    "#);
}

#[test]
fn a_removal_that_was_cut_off_is_finished_without_a_word() {
    let desk = Desk::new();
    // The results were here, and the machine was gone.
    killed_remote_run(&desk, "a", "qemu", "delivered");
    // The job had lost its name.
    std::fs::create_dir_all(desk.path("state/runs/.old-b")).unwrap();
    desk.write("state/runs/.old-b/client.pem", "secret");
    assert_eq!(run_another(&desk), "");
    assert_eq!(std::fs::read_dir(desk.path("state/runs")).unwrap().count(), 0);
}

#[test]
fn a_command_that_is_killed_while_it_removes_leaves_nothing_that_is_not_true() {
    let desk = Desk::new();
    killed_remote_run(&desk, "job", "qemu", "delivered");
    // It takes a while to remove all this.
    for number in 0..5_000 {
        desk.write(&format!("state/runs/job/{number}"), "");
    }
    let mut destroy = desk.command(&["machines", "destroy", "--all"]).spawn().unwrap();
    while desk.path("state/runs/job/record.json").exists() {}
    destroy.kill().unwrap();
    destroy.wait().unwrap();
    assert!(!desk.path("state/runs/job").exists());
    assert_eq!(run_another(&desk), "");
    assert_eq!(std::fs::read_dir(desk.path("state/runs")).unwrap().count(), 0);
}

#[test]
fn several_commands_at_once_clean_up_once() {
    let desk = Desk::new();
    let jobs = 30;
    for number in 0..jobs {
        killed_remote_run(&desk, &format!("job-{number}"), "qemu", "booting");
    }
    another_job(&desk);
    let said = std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(|| run_another(&desk))).collect();
        let said: Vec<_> = all.into_iter().map(|one| one.join().unwrap()).collect();
        said.join("\n")
    });
    let lines: Vec<_> = said.lines().filter(|line| !line.is_empty()).collect();
    let cleaned = |line: &&&str| line.ends_with("before the job was sent to it. Cleaning up.");
    assert_eq!(lines.iter().filter(cleaned).count(), jobs, "{said}");
    assert_eq!(lines.len(), jobs, "{said}");
    assert_eq!(std::fs::read_dir(desk.path("state/runs")).unwrap().count(), 0);
}

#[test]
fn what_a_process_holds_is_taken_from_nobody() {
    let desk = Desk::new();
    killed_remote_run(&desk, "a", "qemu", "prepared");
    let lock = std::fs::File::open(desk.path("state/runs/a/owner.lock")).unwrap();
    lock.lock().unwrap();
    assert_snapshot!(desk.run(&["machines", "destroy", "a"]), @r#"
    exit code 1
    --- stderr
    error: another aicert (process 4000000) follows the job a
    help: stop it there with Ctrl-C, or destroy the machine all the same with `--force`
    "#);
    // It may get its machine the next moment: nothing was destroyed.
    assert_snapshot!(desk.run(&["machines", "destroy", "a", "--force"]), @r#"
    exit code 1
    --- stderr
    error: another aicert (process 4000000) follows the job a, which has no machine to destroy and may get one at any moment
    help: stop it there with Ctrl-C, or try again
    "#);
    assert_eq!(run_another(&desk), "");
    // Nor if its record cannot be read.
    desk.write("state/runs/a/record.json", "");
    assert_snapshot!(desk.run(&["machines", "destroy", "a"]), @r#"
    exit code 1
    --- stderr
    error: another aicert follows the job a
    help: stop it there with Ctrl-C, or destroy the machine all the same with `--force`
    "#);
    assert_eq!(run_another(&desk), "");
    assert!(desk.path("state/runs/a/record.json").exists());
    drop(lock);
    assert_snapshot!(desk.run(&["machines", "destroy", "a"]), @r#"
    exit code 1
    --- stderr
    error: it is not known whether there is a machine for the job a: its record DESK/state/runs/a/record.json cannot be read: EOF while parsing a value at line 1 column 0
    help: `aicert machines destroy --force` forgets the job all the same, and leaves a machine that this aicert cannot see
    "#);
    assert_snapshot!(desk.run(&["machines", "destroy", "a", "--force"]), @r#"
    exit code 0
    --- stdout
    Forgot the job a.
    "#);
    assert_eq!(std::fs::read_dir(desk.path("state/runs")).unwrap().count(), 0);
}

#[test]
fn help_is_there() {
    let desk = Desk::new();
    assert_snapshot!(desk.run(&["machines", "-h"]), @r#"
    exit code 0
    --- stdout
    Lists and destroys machines, and shows what they wrote to their console

    Usage: aicert machines [OPTIONS] <COMMAND>

    Commands:
      list     Shows every machine, whoever provides it, and the job that it is for
      destroy  Removes machines, with what their jobs have not brought back yet
      logs     Shows what a machine wrote to its console
      help     Print this message or the help of the given subcommand(s)

    Options:
      -h, --help  Print help

    Output:
      -q, --quiet         Says nothing but errors; the exit code tells the result
          --json          Writes results as JSON to standard output, and progress as JSON lines to
                          standard error
          --color <WHEN>  When to use colours; auto: on a terminal, unless NO_COLOR is set [default:
                          auto] [possible values: auto, always, never]
    "#);
    assert_snapshot!(desk.run(&["machines", "destroy", "-h"]), @r#"
    exit code 0
    --- stdout
    Removes machines, with what their jobs have not brought back yet

    Usage: aicert machines destroy [OPTIONS] <JOB|--all>

    Arguments:
      [JOB]  The job whose machine it is, or a part of its name that no other has

    Options:
          --all            Destroys every machine
          --force          Destroys machines of jobs that another aicert follows, too, but for jobs on
                           this machine; and forgets jobs of which nobody knows whether they have a
                           machine
          --config <FILE>  Also looks where this configuration makes machines: for machines that another
                           computer has begun
      -h, --help           Print help

    Output:
      -q, --quiet         Says nothing but errors; the exit code tells the result
          --json          Writes results as JSON to standard output, and progress as JSON lines to
                          standard error
          --color <WHEN>  When to use colours; auto: on a terminal, unless NO_COLOR is set [default:
                          auto] [possible values: auto, always, never]

    Exit codes:
      0  nothing of what was to be destroyed is left
      1  something is left
      2  misuse
    "#);
}
