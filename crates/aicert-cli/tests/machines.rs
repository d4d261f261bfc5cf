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
      "machines": []
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
          "in_use": false,
          "job": "0badcafe-20260131t235959z-00000001",
          "machine": "0badcafe-20260131t235959z-00000001",
          "phase": null,
          "process": 4000000,
          "provider": "local",
          "state": "ended"
        },
        {
          "activity": "gets ready",
          "configuration": "/job/aicert.yaml",
          "created": "2026-01-31T23:59:59Z",
          "endpoint": null,
          "in_use": false,
          "job": "0badcafe-20260131t235959z-00000002",
          "machine": "0badcafe-20260131t235959z-00000002",
          "phase": null,
          "process": 4000000,
          "provider": "local",
          "state": "ended"
        }
      ]
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

/// What a command leaves that was killed before it had removed the machine of a job whose results are here.
fn delivered_run(desk: &Desk, job: &str, holds: bool) {
    let folder = format!("state/runs/{job}");
    std::fs::create_dir_all(desk.path(&folder)).unwrap();
    desk.private("state/runs");
    let zeros = "00".repeat(32);
    desk.write(&format!("{folder}/owner.lock"), "")
        .write(
            &format!("{folder}/record.json"),
            format!(
                r#"{{"job": "{job}", "created": "2026-01-31T23:59:59Z", "process": 4000000, "configuration": "/job/aicert.yaml",
                "config": "sha256:{zeros}", "targets": {{"proof": "/job/proof.json", "outputs": "/job/model", "simulated": true,
                "replace": false}}, "reference_values": [], "policy": null, "nonce": "{zeros}", "provider": "qemu", "machine": null,
                "endpoint": null, "boot_limit": 300, "phase": "delivered"}}"#
            ),
        )
        .write(
            &format!("{folder}/result.json"),
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
          --all    Destroys every machine
          --force  Destroys machines of jobs that another aicert follows, too
      -h, --help   Print help

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
