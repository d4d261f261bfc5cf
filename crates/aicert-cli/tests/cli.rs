//! The command as people meet it: what it says, where it says it, and how it ends.
#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]

mod desk;

use std::path::Path;
use std::process::Stdio;

use desk::Desk;
use insta::assert_snapshot;

const CONFIGURATION: &str = "kind: python
pythonVersion: 11
source: {type: directory, path: code}
machine: {provider: local, tpm: swtpm}
";

#[test]
fn help_is_short_and_complete() {
    let desk = Desk::new();
    assert_snapshot!(desk.run(&["-h"]), @r#"
    exit code 0
    --- stdout
    Proves which code, data and software stack produced a model

    Usage: aicert [OPTIONS] [COMMAND]

    Commands:
      init         Writes a commented configuration to start from
      run          Runs the job of a configuration, and writes its proof and outputs (`run` may be left
                   out)
      attach       Goes on with a job that is on another machine
      machines     Lists and destroys machines, and shows what they wrote to their console
      verify       Says whether a proof holds
      inspect      Shows what a proof says, marked as unverified unless it verifies
      eventlog     Shows a boot event log: its events, the PCRs that they lead to, and what no honest
                   log has
      quote        Verifies TPM quotes outside of proofs
      nitro        Verifies attestation documents of AWS NitroTPM
      image        Measures, builds, verifies and publishes images
      completions  Prints completions for a shell
      help         Print this message or the help of the given subcommand(s)

    Options:
      -f, --file <FILE>              The configuration [default: aicert.yaml]
      -b, --output-bom <FILE>        Where to write the proof [default: proof.json]
      -o, --outputs <DIR>            Where to put the outputs of the job: a folder that is empty or not
                                     there [default: outputs]
          --force                    Replaces a proof that is already there
          --reference-values <FILE>  What images and firmware measure, for machines that are attested,
                                     instead of the file that the configuration names or that is beside
                                     the image
          --policy <FILE>            What the machine and the proof must satisfy (YAML)
      -h, --help                     Print help
      -V, --version                  Print version

    Output:
      -q, --quiet         Says nothing but errors; the exit code tells the result
          --json          Writes results as JSON to standard output, and progress as JSON lines to
                          standard error
          --color <WHEN>  When to use colours; auto: on a terminal, unless NO_COLOR is set [default:
                          auto] [possible values: auto, always, never]

    Exit codes:
      0    it holds; the job succeeded and its proof was written
      1    it does not hold; the job failed or could not be completed
      2    misuse, or a file that cannot be read
      130  interrupted (143: terminated)
    "#);
    assert_snapshot!(desk.run(&["verify", "-h"]), @r#"
    exit code 0
    --- stdout
    Says whether a proof holds

    Usage: aicert verify [OPTIONS] <PROOF>

    Arguments:
      <PROOF>  The proof

    Options:
          --trust-anchor <PEM>       A file with root certificates (PEM) to trust besides those that
                                     aicert knows; a proof that needs one is marked as simulated
          --at <TIME>                The time at which certificates must be valid, as
                                     2026-01-31T23:59:59Z [default: now]
          --intermediate <FILE>      Certificates (PEM or DER) for proofs whose chain lacks them; they
                                     are believed only as far as a root vouches for them
          --reference-values <FILE>  What images and firmware measure, as `aicert image measure --json`
                                     writes it; without it nobody can say what a machine booted
          --policy <FILE>            What the proof must satisfy beyond that it is true (YAML)
          --nonce <HEX>              The nonce that the proof must answer: 64 hexadecimal digits
          --outputs <DIR>            The folder with the outputs, to compare with those that were
                                     measured
          --input <NAME=HASH>        An input and the hash that it must have: a commit, a file's
                                     SHA-256, or `tree:sha256:…` for the root of its tree
      -h, --help                     Print help

    Output:
      -q, --quiet         Says nothing but errors; the exit code tells the result
          --json          Writes results as JSON to standard output, and progress as JSON lines to
                          standard error
          --color <WHEN>  When to use colours; auto: on a terminal, unless NO_COLOR is set [default:
                          auto] [possible values: auto, always, never]

    Exit codes:
      0    it holds; the job succeeded and its proof was written
      1    it does not hold; the job failed or could not be completed
      2    misuse, or a file that cannot be read
      130  interrupted (143: terminated)
    "#);
    assert_snapshot!(desk.run(&["inspect", "-h"]), @r#"
    exit code 0
    --- stdout
    Shows what a proof says, marked as unverified unless it verifies

    Usage: aicert inspect [OPTIONS] <PROOF>

    Arguments:
      <PROOF>  The proof

    Options:
          --trust-anchor <PEM>       A file with root certificates (PEM) to trust besides those that
                                     aicert knows; a proof that needs one is marked as simulated
          --at <TIME>                The time at which certificates must be valid, as
                                     2026-01-31T23:59:59Z [default: now]
          --intermediate <FILE>      Certificates (PEM or DER) for proofs whose chain lacks them; they
                                     are believed only as far as a root vouches for them
          --reference-values <FILE>  What images and firmware measure, as `aicert image measure --json`
                                     writes it; without it nobody can say what a machine booted
          --policy <FILE>            What the proof must satisfy beyond that it is true (YAML)
          --nonce <HEX>              The nonce that the proof must answer: 64 hexadecimal digits
          --outputs <DIR>            The folder with the outputs, to compare with those that were
                                     measured
          --input <NAME=HASH>        An input and the hash that it must have: a commit, a file's
                                     SHA-256, or `tree:sha256:…` for the root of its tree
          --export-quote <DIR>       Also writes the quote to a new folder, in the layout that
                                     `tpm2_checkquote` reads
      -h, --help                     Print help

    Output:
      -q, --quiet         Says nothing but errors; the exit code tells the result
          --json          Writes results as JSON to standard output, and progress as JSON lines to
                          standard error
          --color <WHEN>  When to use colours; auto: on a terminal, unless NO_COLOR is set [default:
                          auto] [possible values: auto, always, never]

    Exit codes:
      0    it holds; the job succeeded and its proof was written
      1    it does not hold; the job failed or could not be completed
      2    misuse, or a file that cannot be read
      130  interrupted (143: terminated)
    "#);
    assert_eq!(
        desk.run(&[]).replace("exit code 2", "exit code 0"),
        desk.run(&["-h"])
    );
}

#[test]
fn misuse_is_explained() {
    let desk = Desk::new();
    assert_snapshot!(desk.run(&["verfy", "x"]), @r#"
    exit code 2
    --- stderr
    error: unrecognized subcommand 'verfy'

      tip: a similar subcommand exists: 'verify'

    Usage: aicert [OPTIONS] [COMMAND]

    For more information, try '--help'.
    "#);
    assert_snapshot!(desk.run(&["verify", "proof.json", "--output", "x"]), @r#"
    exit code 2
    --- stderr
    error: unexpected argument '--output' found

      tip: a similar argument exists: '--outputs'

    Usage: aicert verify --outputs <DIR> <PROOF>

    For more information, try '--help'.
    "#);
    assert_snapshot!(desk.run(&["verify", "proof.json", "--at", "yesterday"]), @r#"
    exit code 2
    --- stderr
    error: invalid value 'yesterday' for '--at <TIME>': "yesterday" is not a time: expected UTC in the form 2026-01-31T23:59:59Z

    For more information, try '--help'.
    "#);
    assert_snapshot!(desk.run(&["--output-bom", "x.json", "verify", "proof.json"]), @r#"
    exit code 2
    --- stderr
    error: options of `run` stand before another command
    help: write the command first: `aicert run --output-bom proof.json`
    "#);
    assert_snapshot!(desk.run(&["verify", "proof.json", "--input", "penguins"]), @r#"
    exit code 2
    --- stderr
    error: `--input penguins` is not of the form NAME=HASH
    help: `aicert inspect PROOF` shows the names and hashes of the inputs
    "#);
    assert_snapshot!(desk.run(&["verify", "proof.json", "--outputs", "nowhere"]), @r#"
    exit code 2
    --- stderr
    error: nowhere is not a folder
    help: `--outputs` names the folder with the outputs
    "#);
    assert_snapshot!(desk.run(&["verify", "proof.json"]), @r#"
    exit code 2
    --- stderr
    error: could not read the proof proof.json
      because: No such file or directory (os error 2)
    "#);
    assert_snapshot!(desk.run(&["verify", "proof.json", "--trust-anchor", "ca.pem"]), @r#"
    exit code 2
    --- stderr
    error: could not read the trust anchor ca.pem
      because: No such file or directory (os error 2)
    "#);
    desk.write("ca.pem", "no certificate");
    assert_snapshot!(desk.run(&["verify", "proof.json", "--trust-anchor", "ca.pem"]), @r#"
    exit code 2
    --- stderr
    error: ca.pem is no trust anchor
      because: the trust anchor is not one certificate in PEM or DER: it does not begin and end with the lines of one CERTIFICATE block
    help: give a file with one root certificate, in PEM or DER
    "#);
}

#[test]
fn a_file_that_is_no_proof_is_unreadable() {
    let desk = Desk::new();
    desk.write("proof.json", "{\"version\":\"v1\"}")
        .write("empty", "")
        .write("evil", "\"\x1b[2J\u{202e}\"");
    assert_snapshot!(desk.run(&["verify", "proof.json"]), @r#"
    exit code 2
    --- stdout
    DOES NOT HOLD  proof.json

    reading the file (answerable: the file)
      line 1, column 16: missing field `result`
      help: get the file again from whoever published it; a proof is never edited by hand
    "#);
    assert_snapshot!(desk.run(&["inspect", "empty"]), @r#"
    exit code 2
    --- stdout
    DOES NOT HOLD  empty

    reading the file (answerable: the file)
      line 1, column 0: EOF while parsing a value
      help: get the file again from whoever published it; a proof is never edited by hand
    "#);
    assert_snapshot!(desk.run(&["verify", "evil", "--json"]), @r#"
    exit code 2
    --- stdout
    {
      "failures": [
        {
          "advice": "get the file again from whoever published it; a proof is never edited by hand",
          "cause": "Malformed",
          "message": "line 1, column 2: control character (\\u0000-\\u001F) found while parsing a string",
          "party": "file",
          "step": "parse"
        }
      ],
      "verified": false
    }
    "#);
    assert_eq!(desk.run(&["verify", "proof.json", "--quiet"]), "exit code 2\n");
}

#[test]
fn init_writes_a_template_once() {
    let desk = Desk::new();
    assert_snapshot!(desk.run(&["init"]), @r#"
    exit code 0
    --- stdout
    Wrote aicert.yaml. Edit it, then run `aicert --output-bom proof.json --outputs model`.
    "#);
    assert_eq!(
        std::fs::read_to_string(desk.path("aicert.yaml")).unwrap(),
        aicert_cli::template()
    );
    assert_snapshot!(desk.run(&["init"]), @r#"
    exit code 2
    --- stderr
    error: aicert.yaml is already there
    help: give another name: `aicert init NAME`
    "#);
    assert_snapshot!(desk.run(&["init", "nowhere/x.yaml", "--json"]), @r#"
    exit code 2
    --- stderr
    {"causes":["No such file or directory (os error 2)"],"event":"error","exit_code":2,"help":null,"message":"could not write nowhere/x.yaml"}
    "#);
}

#[test]
fn a_run_checks_everything_before_it_begins() {
    let desk = Desk::new();
    assert_snapshot!(desk.run(&["run"]), @r#"
    exit code 2
    --- stderr
    error: could not read the configuration aicert.yaml
      because: No such file or directory (os error 2)
    help: `aicert init` writes one to start from; `-f FILE` names another
    "#);
    desk.write(
        "aicert.yaml",
        CONFIGURATION.replace("type: directory", "type: directroy"),
    );
    assert_snapshot!(desk.run(&["run"]), @r#"
    exit code 2
    --- stderr
    error: aicert.yaml cannot be used: 1 problem

    aicert.yaml:3:16: unknown `type: directroy`
      |
    3 | source: {type: directroy, path: code}
      |                ^^^^^^^^^
      = help: did you mean `directory`?
    "#);
    desk.write("aicert.yaml", CONFIGURATION)
        .write("proof.json", "an older proof");
    assert_snapshot!(desk.run(&["run"]), @r#"
    exit code 2
    --- stderr
    error: proof.json is already there
    help: `--force` replaces it; `--output-bom` names another proof
    "#);
    assert_snapshot!(desk.run(&["-b", "nowhere/proof.json"]), @r#"
    exit code 2
    --- stderr
    error: there is no folder nowhere
    help: make it, or name another place for the proof with `--output-bom`
    "#);
    std::fs::create_dir(desk.path("model")).unwrap();
    desk.write("model/old", "x");
    assert_snapshot!(desk.run(&["-b", "p.json", "-o", "model"]), @r#"
    exit code 2
    --- stderr
    error: the folder model is not empty
    help: `--outputs` names a folder that is empty or not there: what is in it will be exactly what was measured
    "#);
    assert_snapshot!(desk.run(&["-b", "p.json", "-o", "proof.json"]), @r#"
    exit code 2
    --- stderr
    error: proof.json is no folder
    help: `--outputs` names a folder that is empty or not there
    "#);
    std::fs::create_dir(desk.path("empty")).unwrap();
    assert_snapshot!(desk.run(&["-b", "empty/p.json", "-o", "empty"]), @r#"
    exit code 2
    --- stderr
    error: the proof cannot be inside the folder of the outputs
    help: the outputs are what the proof speaks of: keep it beside them
    "#);
    assert_snapshot!(desk.run(&["-b", "p.json", "-o", ".."]), @r#"
    exit code 2
    --- stderr
    error: `--outputs ..` names no new folder
    help: name a folder that is empty or not there
    "#);
    // Nothing was begun, and nothing that was there was touched.
    assert!(!desk.path("state").exists());
    assert_eq!(
        std::fs::read_to_string(desk.path("proof.json")).unwrap(),
        "an older proof"
    );
}

#[test]
fn an_engine_that_does_not_run_is_named() {
    let desk = Desk::new();
    desk.write("aicert.yaml", CONFIGURATION);
    let output = desk
        .command(&["run"])
        .env(
            "DOCKER_HOST",
            format!("unix://{}", desk.path("no.sock").display()),
        )
        .output()
        .unwrap();
    assert_snapshot!(desk.show(&output), @r#"
    exit code 1
    --- stderr
    error: cannot reach the Docker engine at DESK/no.sock: No such file or directory (os error 2)
    help: Docker is not running or not installed: `sudo service docker start`, or `sudo apt-get install docker.io`; set DOCKER_HOST if its socket is elsewhere
    "#);
    assert_eq!(leftovers(&desk.path("state")), Vec::<String>::new());
}

fn leftovers(state: &Path) -> Vec<String> {
    std::fs::read_dir(state.join("machines"))
        .map(|entries| {
            entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        })
        .unwrap_or_default()
}

#[test]
fn a_closed_pipe_is_no_error() {
    let desk = Desk::new();
    for arguments in [&["completions", "bash"][..], &["--help"], &["verify", "x"]] {
        let mut child = desk
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        drop(child.stderr.take());
        let code = child.wait().unwrap().code();
        assert_eq!(
            code,
            Some(if arguments[0] == "verify" { 2 } else { 0 }),
            "{arguments:?}"
        );
    }
}

#[test]
fn completions_name_every_command() {
    let desk = Desk::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = desk.run(&["completions", shell]);
        for word in ["init", "run", "verify", "inspect", "output-bom", "trust-anchor"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn colours_are_for_terminals_or_on_request() {
    let desk = Desk::new();
    assert!(!desk.run(&["verify", "x"]).contains('\x1b'));
    assert!(
        desk.run(&["verify", "x", "--color", "always"])
            .contains("\x1b[1;31merror: \x1b[0m")
    );
}
