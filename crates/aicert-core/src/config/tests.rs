//! One table: a configuration, and what is said about it.

mod clouds;

use std::path::Path;

use insta::assert_snapshot;
use proptest::prelude::*;

use crate::spec::{Accelerator, GpuRequest, ImageSpec, JobSpec, Location, MachineSpec, QemuMachine};

fn environment(name: &str) -> Option<String> {
    match name {
        "GIT_TOKEN" => Some("hunter2-hunter2".into()),
        "HOME" => Some("/home/me".into()),
        "EMPTY" => Some(String::new()),
        "PIP_INDEX_URL" => Some("https://me:hunter2@index.example/simple".into()),
        "HTTPS_PROXY" => Some("http://me:hunter2@proxy.example:3128".into()),
        "SSL_CERT_FILE" => Some("/etc/company.pem".into()),
        _ => None,
    }
}

fn read(text: &str) -> Result<JobSpec, super::ConfigError> {
    JobSpec::from_yaml(text, Path::new("/base"), &environment)
}

fn job(text: &str) -> JobSpec {
    read(text).unwrap_or_else(|error| panic!("{error}"))
}

/// What is said about a wrong configuration; secrets of the test must never be in it.
fn say(text: &str) -> String {
    let error = read(text).expect_err("an error");
    let said = format!("{error}");
    for text in [said.clone(), format!("{error:?}")] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    said
}

/// A good configuration with a line replaced or added.
fn with(line: &str) -> String {
    let key = line.split(':').next().unwrap();
    let mut lines: Vec<String> = GOOD.lines().map(str::to_owned).collect();
    lines.retain(|old| old.split(':').next() != Some(key));
    lines.push(line.to_owned());
    lines.join("\n")
}

const GOOD: &str = "kind: python
pythonVersion: 11
source: {type: git, gitRepo: https://example.org/me/training.git, tag: v1.0}
machine: {provider: local, tpm: swtpm}";

#[test]
fn a_small_configuration_has_sensible_defaults() {
    let job = job(GOOD);
    assert_eq!(job.image, ImageSpec::Python { minor: 11 });
    assert_eq!(
        job.command.as_deref(),
        Some(&["python3".to_owned(), "/workspace/src/main.py".into()][..])
    );
    assert_eq!(job.entry_point.as_deref(), Some("main.py"));
    assert_eq!(job.requirements.as_deref(), Some("requirements.txt"));
    assert_eq!(job.outputs, "/workspace/outputs");
    assert_eq!(job.inputs[0].name, "training");
    assert_eq!(job.inputs[0].destination, "/workspace/src");
    assert_eq!(job.config, crate::digest::ConfigDigest::of(GOOD.as_bytes()));
    // What pip would take from the environment, without the password in the URL.
    let index = &job.package_index;
    assert_eq!(index.url.as_deref(), Some("https://index.example/simple"));
    assert_eq!(index.credentials.as_ref().unwrap().expose(), "me:hunter2");
    assert_eq!(index.ca_bundle.as_deref(), Some(Path::new("/etc/company.pem")));
    assert!(index.proxy.is_some());
    assert!(!format!("{job:?}").contains("hunter2"));
}

#[test]
fn a_large_configuration_is_read_whole() {
    let job = job("
kind: container
image: registry.example:5000/train@sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad
command: [python, train.py, --epochs, 3, --fast, true]
environment: {SEED: 010, RATE: 1.10, DEBUG: true, EMPTY: \"\", LINES: \"a\\nb\"}
resources:
  - type: file
    url: https://example.org/data/weights.bin?download=1
    sha256: BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD
    tokenEnv: GIT_TOKEN
  - {type: git, gitRepo: git@example.org:me/corpus, branch: 1.10, submodules: false, sshKey: ~/keys/id, destinationPath: corpora/a}
  - {type: git, gitRepo: ./local, name: nearby, commit: 0123456789012345678901234567890123456789}
  - {type: directory, path: data/set}
outputs: /workspace/model
gpus: [GPU-1, GPU-2]
limits: {memory: 8GiB, processes: 512, time: 1h30m}
machine:
  provider: local
  tpm: device
  akHandle: 0x81000003
  akCertificates: [ak.der, ca.pem]
");
    assert_eq!(job.command.unwrap()[3..], ["3", "--fast", "true"]);
    let environment: Vec<_> = job.environment.iter().map(|v| (&*v.name, &*v.value)).collect();
    assert_eq!(
        environment,
        [
            ("SEED", "010"),
            ("RATE", "1.10"),
            ("DEBUG", "true"),
            ("EMPTY", ""),
            ("LINES", "a\nb")
        ]
    );
    let inputs: Vec<_> = job
        .inputs
        .iter()
        .map(|input| format!("{} {} {}", input.name, input.destination, input.location.kind()))
        .collect();
    assert_eq!(
        inputs,
        [
            "weights.bin /workspace/resources/weights.bin file",
            "corpus /workspace/resources/corpora/a git",
            "nearby /workspace/resources/local git",
            "set /workspace/resources/set directory",
        ]
    );
    let (Location::Git(corpus), Location::Git(local)) = (&job.inputs[1].location, &job.inputs[2].location)
    else {
        panic!()
    };
    assert_eq!(format!("{:?}", corpus.revision), "Branch(\"1.10\")");
    assert_eq!(
        format!("{:?}", corpus.credentials),
        "Some(SshKey { path: \"/home/me/keys/id\", passphrase: None })"
    );
    assert_eq!(local.repository, "/base/local");
    assert_eq!(
        job.gpus,
        Some(GpuRequest::Uuids(vec!["GPU-1".into(), "GPU-2".into()]))
    );
    assert_snapshot!(format!("{:?} {:?}", job.limits, job.machine), @r#"Limits { memory_bytes: Some(8589934592), processes: Some(512), time: Some(5400s) } Local(Device { path: "/dev/tpmrm0", ak_handle: 2164260867, ak_certificates: ["/base/ak.der", "/base/ca.pem"] })"#);
}

#[test]
fn an_unknown_key_is_answered_with_a_similar_one() {
    assert_snapshot!(say(&GOOD.replace("gitRepo", "gitrepo").replace("tag", "tagg")), @r#"
    aicert.yaml:3:21: unknown key `gitrepo` in `source`
      |
    3 | source: {type: git, gitrepo: https://example.org/me/training.git, tagg: v1.0}
      |                     ^^^^^^^
      = help: did you mean `gitRepo`?

    aicert.yaml:3:67: unknown key `tagg` in `source`
      |
    3 | source: {type: git, gitrepo: https://example.org/me/training.git, tagg: v1.0}
      |                                                                   ^^^^
      = help: did you mean `tag`?
    "#);
    assert_snapshot!(say(&with("pythonversion: 11")), @r#"
    aicert.yaml:5:1: unknown key `pythonversion` in the configuration
      |
    5 | pythonversion: 11
      | ^^^^^^^^^^^^^
      = help: did you mean `pythonVersion`?
    "#);
    assert_snapshot!(say(&with("frobnicate: 11")), @r#"
    aicert.yaml:5:1: unknown key `frobnicate` in the configuration
      |
    5 | frobnicate: 11
      | ^^^^^^^^^^
      = help: the keys here are kind, pythonVersion, baseImage, image, source, pythonEntryPoint, requirements, command, environment, resources, outputs, gpus, limits, packageIndex, machine
    "#);
}

#[test]
fn unreadable_files_are_explained() {
    assert_snapshot!(say(""), @r#"
    aicert.yaml:1:1: the file is empty
      = help: `aicert init` writes a template
    "#);
    assert_snapshot!(say("# nothing\n"), @r#"
    aicert.yaml:2:1: the file is empty
      = help: `aicert init` writes a template
    "#);
    assert_snapshot!(say("kind: [python\nsource: x"), @r#"
    aicert.yaml:2:7: this is not readable as YAML: illegal placement of ':' indicator
      |
    2 | source: x
      |       ^
    "#);
    assert_snapshot!(say("\tkind: python"), @r#"
    aicert.yaml:1:2: `pythonVersion` is missing
      |
    1 |  kind: python
      |  ^
      = help: `pythonVersion: 11` is Python 3.11; `baseImage` names an image that brings its own

    aicert.yaml:1:2: `machine` is missing: where shall the job run?
      |
    1 |  kind: python
      |  ^
      = help: `machine: {provider: local, tpm: device}` is this machine with its TPM; `tpm: swtpm` simulates one

    aicert.yaml:1:2: the job has no input: neither `source` nor `resources`
      |
    1 |  kind: python
      |  ^
      = help: a proof says which code and data a model was made from: add `source`
    "#);
    assert_snapshot!(say("kind: python\nkind: python"), @r#"
    aicert.yaml:2:1: the key `kind` stands twice
      |
    2 | kind: python
      | ^^^^
    "#);
    assert_snapshot!(say("kind: python\n---\nkind: python"), @r#"
    aicert.yaml:3:1: a second document begins here: a configuration is one document
      |
    3 | kind: python
      | ^
    "#);
    assert_snapshot!(say("- kind"), @r#"
    aicert.yaml:1:1: the configuration is a section with keys; this is a list
      |
    1 | - kind
      | ^
      = help: its keys are kind, pythonVersion, baseImage, image, source, pythonEntryPoint, requirements, command, environment, resources, outputs, gpus, limits, packageIndex, machine
    "#);
    assert_snapshot!(say(&with("gpus: &some [GPU-1]")), @r#"
    aicert.yaml:5:13: a configuration has no anchors (`&`) and aliases (`*`)
      |
    5 | gpus: &some [GPU-1]
      |             ^
      = help: write the value where it counts; quote a text that begins with `&` or `*`
    "#);
    assert_snapshot!(say(&with("gpus: !secret x")), @r#"
    aicert.yaml:5:15: this is not readable as YAML: unsupported tag `!secret`
      |
    5 | gpus: !secret x
      |               ^
    "#);
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_file() {
    assert_snapshot!(say("
kind: pyton
outputs: /tmp
resources:
  - type: fil
    url: https://example.org/x
  - type: file
machine: {provider: azur}
"), @r#"
    aicert.yaml:2:7: unknown `kind`
      |
    2 | kind: pyton
      |       ^^^^^
      = help: did you mean `python`?

    aicert.yaml:3:10: `outputs`: it must be below /workspace
      |
    3 | outputs: /tmp
      |          ^^^^
      = help: it is a folder in the container; without the key it is /workspace/outputs

    aicert.yaml:5:11: unknown `type: fil`
      |
    5 |   - type: fil
      |           ^^^
      = help: did you mean `file`?

    aicert.yaml:7:5: `url` is missing
      |
    7 |   - type: file
      |     ^
      = help: add `url`, the address of the file

    aicert.yaml:8:21: unknown `provider`
      |
    8 | machine: {provider: azur}
      |                     ^^^^
      = help: did you mean `azure`?
    "#);
}

#[test]
fn a_machine_in_qemu_has_defaults() {
    let machine = |text: &str| match job(&with(&format!("machine: {text}"))).machine {
        MachineSpec::Qemu(machine) => machine,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        machine("{provider: qemu, image: images/base.raw}"),
        QemuMachine {
            image: "/base/images/base.raw".into(),
            reference_values: None,
            accelerator: Accelerator::Tcg,
            cpus: 2,
            memory: 4 << 30,
            disk: 20 << 30,
            boot_limit: std::time::Duration::from_secs(300),
        }
    );
    assert_eq!(
        machine(
            "{provider: qemu, image: /i, referenceValues: ~/r.json, accelerator: kvm, cpus: 8, memory: 16GiB, disk: 1TiB, bootLimit: 1m30s}"
        ),
        QemuMachine {
            image: "/i".into(),
            reference_values: Some("/home/me/r.json".into()),
            accelerator: Accelerator::Kvm,
            cpus: 8,
            memory: 16 << 30,
            disk: 1 << 40,
            boot_limit: std::time::Duration::from_secs(90),
        }
    );
    assert_snapshot!(say(&with(
        "machine: {provider: qemu, tpm: swtpm, accelerator: kvn, cpus: 0, memory: 512MiB, disk: 20, bootLimit: 5}"
    )), @r#"
    aicert.yaml:4:10: `image` is missing: what shall the machine boot?
      |
    4 | machine: {provider: qemu, tpm: swtpm, accelerator: kvn, cpus: 0, memory: 512MiB, disk: 20, bootLimit: 5}
      |          ^
      = help: `image` names the disk image of aicert's base image; `aicert image build` makes it

    aicert.yaml:4:27: `tpm` belongs to `provider: local`
      |
    4 | machine: {provider: qemu, tpm: swtpm, accelerator: kvn, cpus: 0, memory: 512MiB, disk: 20, bootLimit: 5}
      |                           ^^^
      = help: remove it: a machine in QEMU has a software TPM of its own

    aicert.yaml:4:52: unknown `accelerator`
      |
    4 | machine: {provider: qemu, tpm: swtpm, accelerator: kvn, cpus: 0, memory: 512MiB, disk: 20, bootLimit: 5}
      |                                                    ^^^
      = help: did you mean `kvm`?

    aicert.yaml:4:63: `cpus` is a number of processors, 1 to 255
      |
    4 | machine: {provider: qemu, tpm: swtpm, accelerator: kvn, cpus: 0, memory: 512MiB, disk: 20, bootLimit: 5}
      |                                                               ^

    aicert.yaml:4:74: `memory` is too small for a machine
      |
    4 | machine: {provider: qemu, tpm: swtpm, accelerator: kvn, cpus: 0, memory: 512MiB, disk: 20, bootLimit: 5}
      |                                                                          ^^^^^^
      = help: it takes 1GiB at least

    aicert.yaml:4:88: `disk` is no size
      |
    4 | machine: {provider: qemu, tpm: swtpm, accelerator: kvn, cpus: 0, memory: 512MiB, disk: 20, bootLimit: 5}
      |                                                                                        ^^
      = help: write a whole number with its unit: 8GiB, 500MiB

    aicert.yaml:4:103: `bootLimit` is no time span
      |
    4 | machine: {provider: qemu, tpm: swtpm, accelerator: kvn, cpus: 0, memory: 512MiB, disk: 20, bootLimit: 5}
      |                                                                                                       ^
      = help: write it with units: 90s, 5m, 1h, 1d
    "#);
}

#[test]
fn missing_parts_are_named() {
    assert_snapshot!(say("{}"), @r#"
    aicert.yaml:1:1: `kind` is missing
      |
    1 | {}
      | ^
      = help: `kind: python` runs a Python script, `kind: container` any image

    aicert.yaml:1:1: `machine` is missing: where shall the job run?
      |
    1 | {}
      | ^
      = help: `machine: {provider: local, tpm: device}` is this machine with its TPM; `tpm: swtpm` simulates one

    aicert.yaml:1:1: the job has no input: neither `source` nor `resources`
      |
    1 | {}
      | ^
      = help: a proof says which code and data a model was made from: add `source`
    "#);
    assert_snapshot!(say("kind: python\npythonVersion: 11\nresources: []\nmachine: {provider: local, tpm: swtpm}"), @r#"
    aicert.yaml:1:1: `source` is missing: a Python job runs a script of its source
      |
    1 | kind: python
      | ^
      = help: add `source`, or give a `command`
    "#);
    assert_snapshot!(say("kind: container\nsource: {type: directory, path: .}\nmachine: {provider: local}"), @r#"
    aicert.yaml:1:1: `image` is missing
      |
    1 | kind: container
      | ^
      = help: add `image`, the container image to run

    aicert.yaml:3:10: `tpm` is missing: which TPM shall sign?
      |
    3 | machine: {provider: local}
      |          ^
      = help: `tpm: device` is the TPM of this machine; `tpm: swtpm` simulates one, for trying things out
    "#);
    assert_snapshot!(say(&with("limits:")), @r#"
    aicert.yaml:5:1: `limits` has no value
      |
    5 | limits:
      | ^^^^^^
      = help: give it one, or remove the key
    "#);
}

#[test]
fn python_versions_are_minor_versions() {
    for (good, minor) in [("11", 11), ("\"3.11\"", 11), ("'3.9'", 9), ("\"12\"", 12)] {
        let job = job(&with(&format!("pythonVersion: {good}")));
        assert_eq!(job.image, ImageSpec::Python { minor });
    }
    assert_snapshot!(say(&with("pythonVersion: 3.10")), @r#"
    aicert.yaml:4:16: `pythonVersion` without quotes is a number, in which 3.10 and 3.1 are the same
      |
    4 | pythonVersion: 3.10
      |                ^^^^
      = help: write the minor version alone, `pythonVersion: 11`, or quotes: `pythonVersion: "3.11"`
    "#);
    assert_snapshot!(say(&with("pythonVersion: 3")), @r#"
    aicert.yaml:4:16: `pythonVersion` is no version of Python 3
      |
    4 | pythonVersion: 3
      |                ^
      = help: `pythonVersion: 11` is Python 3.11; patch versions cannot be chosen
    "#);
    for wrong in [
        "\"3.11.4\"",
        "\"2.7\"",
        "-11",
        "0x0b",
        "true",
        "[11]",
        "+11",
        "011",
    ] {
        say(&with(&format!("pythonVersion: {wrong}")));
    }
    assert_snapshot!(say(&format!("{GOOD}\nbaseImage: python:3.11")), @r#"
    aicert.yaml:2:1: `pythonVersion` and `baseImage` both say which Python runs
      |
    2 | pythonVersion: 11
      | ^^^^^^^^^^^^^
      = help: remove `pythonVersion`: the image brings its own Python
    "#);
}

#[test]
fn secrets_are_never_shown() {
    assert_snapshot!(say(&with("source: {type: git, gitRepo: \"https://me:hunter2@example.org/x\"}")), @r#"
    aicert.yaml:4:30: `gitRepo` holds a user name, password or token before the host: everybody who sees the proof would read it
      = help: remove it from the address; `tokenEnv` names an environment variable that holds a token
    "#);
    assert_snapshot!(say(&with("source: {type: git, gitRepo: https://hunter2@example.org/x, colour: red}")), @r#"
    aicert.yaml:4:30: `gitRepo` holds a user name, password or token before the host: everybody who sees the proof would read it
      = help: remove it from the address; `tokenEnv` names an environment variable that holds a token

    aicert.yaml:4:61: unknown key `colour` in `source`
      = help: the keys here are type, name, gitRepo, branch, tag, commit, submodules, tokenEnv, sshKey, sshKeyPassphraseEnv, path
    "#);
    assert_snapshot!(say(&format!("{GOOD}\nresources: [{{type: file, url: 'https://x.org/f?X-Amz-Signature=hunter2'}}]")), @r#"
    aicert.yaml:5:31: `url` holds a token or signature in its query: everybody who sees the proof would read it
      = help: remove it from the address; `tokenEnv` names an environment variable that holds a token
    "#);
    assert_snapshot!(say(&with("environment: {HF: hf_hunter2hunter2hunter2hunter2hunter2}")), @r#"
    aicert.yaml:5:19: this looks like a Hugging Face token, and everybody can read the environment of a job in its proof
      = help: remove it: a job has no network, and what it needs is fetched before, with `tokenEnv`
    "#);
    assert_snapshot!(say(&with("source: {type: git, gitRepo: https://example.org/x, tokenEnv: MISSING}")), @r#"
    aicert.yaml:4:63: the environment variable MISSING is not set
      |
    4 | source: {type: git, gitRepo: https://example.org/x, tokenEnv: MISSING}
      |                                                               ^^^^^^^
      = help: `tokenEnv` names the variable that holds the secret: set it
    "#);
    assert_snapshot!(say(&with("source: {type: git, gitRepo: https://example.org/x, tokenEnv: EMPTY}")), @r#"
    aicert.yaml:4:63: the environment variable EMPTY is not set
      |
    4 | source: {type: git, gitRepo: https://example.org/x, tokenEnv: EMPTY}
      |                                                               ^^^^^
      = help: `tokenEnv` names the variable that holds the secret: set it
    "#);
    // The token itself, where the name of its variable belongs.
    assert_snapshot!(say(&with("source: {type: git, gitRepo: https://example.org/x, tokenEnv: ghp_hunter2hunter2hunter2hunter2hunter2hunter2}")), @r#"
    aicert.yaml:4:63: `tokenEnv` is the name of an environment variable
      = help: write the secret into an environment variable, and the name of that variable here
    "#);
    assert_snapshot!(say(&with("source: {type: git, gitRepo: http://example.org/x, tokenEnv: GIT_TOKEN}")), @r#"
    aicert.yaml:4:62: over http:// the token would be readable on the network
      |
    4 | source: {type: git, gitRepo: http://example.org/x, tokenEnv: GIT_TOKEN}
      |                                                              ^^^^^^^^^
      = help: use an https:// address
    "#);
    assert_snapshot!(say(&with("packageIndex: {url: https://me:hunter2@index.example/}")), @r#"
    aicert.yaml:5:21: `url` holds a user name, password or token before the host
      = help: `credentialsEnv` names an environment variable that holds user:password
    "#);
    assert!(
        read(&with(
            "source: {type: git, gitRepo: http://127.0.0.1:80/x, tokenEnv: GIT_TOKEN}"
        ))
        .is_ok()
    );
}

#[test]
fn inputs_are_checked() {
    let resource = |text: &str| say(&format!("{GOOD}\nresources:\n  - {text}"));
    assert_snapshot!(resource("{type: huggingface, path: x}"), @r#"
    aicert.yaml:6:12: `type: huggingface` is not available yet
      |
    6 |   - {type: huggingface, path: x}
      |            ^^^^^^^^^^^
      = help: this version knows file, git, directory
    "#);
    assert_snapshot!(resource("{type: directory, url: x, path: y}"), @r#"
    aicert.yaml:6:23: `url` belongs to `type: file`; this is `type: directory`
      |
    6 |   - {type: directory, url: x, path: y}
      |                       ^^^
      = help: remove it, or change `type`
    "#);
    assert_snapshot!(resource("{type: file, url: ftp://example.org/x}"), @r#"
    aicert.yaml:6:23: `url` is no address of a file
      |
    6 |   - {type: file, url: ftp://example.org/x}
      |                       ^^^^^^^^^^^^^^^^^^^
      = help: use https://…, http://… or file:///…
    "#);
    assert_snapshot!(resource("{type: file, url: https://example.org/}"), @r#"
    aicert.yaml:6:23: `url` ends without the name of a file
      |
    6 |   - {type: file, url: https://example.org/}
      |                       ^^^^^^^^^^^^^^^^^^^^
      = help: add `destinationPath`
    "#);
    assert_snapshot!(resource("{type: file, url: https://example.org/x, sha256: abc}"), @r#"
    aicert.yaml:6:54: `sha256` is not a SHA-256: 64 hexadecimal digits
      |
    6 |   - {type: file, url: https://example.org/x, sha256: abc}
      |                                                      ^^^
      = help: `sha256sum FILE` prints it
    "#);
    assert_snapshot!(resource("{type: directory, path: x, destinationPath: ../x}"), @r#"
    aicert.yaml:6:49: `destinationPath`: path "../x" cannot be measured: it has a component `.` or `..`
      |
    6 |   - {type: directory, path: x, destinationPath: ../x}
      |                                                 ^^^^
      = help: it is relative to /workspace/resources and stays inside
    "#);
    assert_snapshot!(resource("{type: git, gitRepo: https://example.org/x, tag: v1, commit: 1234}"), @r#"
    aicert.yaml:6:58: only one of branch, tag and commit can be given; here are `tag` and `commit`
      |
    6 |   - {type: git, gitRepo: https://example.org/x, tag: v1, commit: 1234}
      |                                                          ^^^^^^
      = help: `commit` alone says exactly which files are meant
    "#);
    assert_snapshot!(resource("{type: git, gitRepo: https://example.org/x, commit: v1}"), @r#"
    aicert.yaml:6:57: `commit` is not a full commit id: 40 hexadecimal digits
      |
    6 |   - {type: git, gitRepo: https://example.org/x, commit: v1}
      |                                                         ^^
      = help: `git rev-parse HEAD` prints it
    "#);
    assert_snapshot!(resource("{type: git, gitRepo: -oProxyCommand=x}"), @r#"
    aicert.yaml:6:26: `gitRepo` is no address of a repository
      |
    6 |   - {type: git, gitRepo: -oProxyCommand=x}
      |                          ^^^^^^^^^^^^^^^^
      = help: use https://…, ssh://…, user@host:path, file:///… or a path that begins with `/`, `./`, `../` or `~/`
    "#);
    assert_snapshot!(resource("{type: git, gitRepo: https://example.org/x, branch: --upload-pack=x}"), @r#"
    aicert.yaml:6:57: `branch` is not a name that git allows
      |
    6 |   - {type: git, gitRepo: https://example.org/x, branch: --upload-pack=x}
      |                                                         ^^^^^^^^^^^^^^^
    "#);
    assert_snapshot!(resource("{type: git, gitRepo: https://example.org/training}"), @r#"
    aicert.yaml:6:5: two inputs have the name "training"
      |
    6 |   - {type: git, gitRepo: https://example.org/training}
      |     ^
      = help: give one of them another `name`
    "#);
    assert_snapshot!(resource("{type: directory, path: a}\n  - {type: directory, path: b, destinationPath: a/c}"), @r#"
    aicert.yaml:7:5: its place /workspace/resources/a/c and that of "a", /workspace/resources/a, overlap
      |
    7 |   - {type: directory, path: b, destinationPath: a/c}
      |     ^
      = help: give one of them another `destinationPath`
    "#);
    assert_snapshot!(resource("just text"), @r#"
    aicert.yaml:6:5: a resource is a section with keys; this is a text
      |
    6 |   - just text
      |     ^^^^^^^^^
      = help: its keys are type, name, destinationPath, url, sha256, gitRepo, branch, tag, commit, submodules, tokenEnv, sshKey, sshKeyPassphraseEnv, path
    "#);
    assert_snapshot!(say(&with("source: {type: file, url: https://example.org/x}")), @r#"
    aicert.yaml:4:16: a source is a folder: `type: file` is for resources
      |
    4 | source: {type: file, url: https://example.org/x}
      |                ^^^^
      = help: use `type: git` or `type: directory`

    aicert.yaml:4:22: unknown key `url` in `source`
      |
    4 | source: {type: file, url: https://example.org/x}
      |                      ^^^
      = help: the keys here are type, name, gitRepo, branch, tag, commit, submodules, tokenEnv, sshKey, sshKeyPassphraseEnv, path
    "#);
}

#[test]
fn the_rest_is_checked() {
    let mut table = String::new();
    for line in [
        "command: python train.py",
        "pythonEntryPoint: ../main.py",
        "pythonEntryPoint: /etc/passwd",
        "outputs: /workspace/src/out",
        "gpus: 0",
        "gpus: some",
        "gpus: [0]",
        "limits: {memory: 8, processes: 0, time: 2}",
        "environment: {A-B: x}",
        "environment: [A=b]",
        "image: x",
        "packageIndex: {url: index.example}",
        "machine: {provider: local, tpm: device}",
        "machine: {provider: local, tpm: device, akHandle: 0x40000001, akCertificates: []}",
        "machine: {provider: local, tpm: swtpm, akHandle: 0x81000001}",
        "machine: {provider: lokal}",
        "machine: local",
        "machine: {provider: local, tpm: swtpm, image: x, bootLimit: 5m}",
        "machine: {provider: qemu}",
        "machine: {provider: qemu, image: x, tpm: swtpm}",
        "machine: {provider: qemu, image: x, accelerator: hvf}",
        "machine: {provider: qemu, image: x, cpus: many}",
        "machine: {provider: qemu, image: x, cpus: 1000}",
    ] {
        // Only the messages: the snippets were seen above.
        let error = read(&with(line)).err().unwrap_or_else(|| panic!("{line}"));
        let said: Vec<_> = error.problems().iter().map(|p| p.message()).collect();
        table += &format!("{line}\n    {}\n", said.join("\n    "));
    }
    assert_snapshot!(table, @r#"
    command: python train.py
        `command` is a list of the program and its arguments; this is a text
    pythonEntryPoint: ../main.py
        `pythonEntryPoint`: path "../main.py" cannot be measured: it has a component `.` or `..`
    pythonEntryPoint: /etc/passwd
        `pythonEntryPoint`: path "/etc/passwd" cannot be measured: it is absolute or has an empty component
    outputs: /workspace/src/out
        `outputs`: it must be apart from /workspace/src, which holds inputs
    gpus: 0
        `gpus: 0` asks for none
    gpus: some
        `gpus` is no number of GPUs
    gpus: [0]
        this is no UUID of a GPU, or it stands twice
    limits: {memory: 8, processes: 0, time: 2}
        `memory` is no size
        `processes` is a number of processes and threads, 1 or more
        `time` is no time span
    environment: {A-B: x}
        this is no name of an environment variable
    environment: [A=b]
        `environment` maps names to values; this is a list
    image: x
        `image` belongs to `kind: container`
    packageIndex: {url: index.example}
        `url` of a package index begins with https://
    machine: {provider: local, tpm: device}
        `akHandle` is missing
        `akCertificates` is missing
    machine: {provider: local, tpm: device, akHandle: 0x40000001, akCertificates: []}
        `akCertificates` is empty
        `akHandle` is a persistent handle: 0x81000000 to 0x81ffffff
    machine: {provider: local, tpm: swtpm, akHandle: 0x81000001}
        `akHandle` belongs to `tpm: device`
    machine: {provider: lokal}
        unknown `provider`
    machine: local
        `machine` is a section with keys; this is a text
    machine: {provider: local, tpm: swtpm, image: x, bootLimit: 5m}
        `image` belongs to `provider: azure`, `provider: aws`, `provider: gcp` or `provider: qemu`
        `bootLimit` belongs to `provider: azure`, `provider: aws`, `provider: gcp` or `provider: qemu`
    machine: {provider: qemu}
        `image` is missing: what shall the machine boot?
    machine: {provider: qemu, image: x, tpm: swtpm}
        `tpm` belongs to `provider: local`
    machine: {provider: qemu, image: x, accelerator: hvf}
        unknown `accelerator`
    machine: {provider: qemu, image: x, cpus: many}
        `cpus` is a number of processors, 1 to 255
    machine: {provider: qemu, image: x, cpus: 1000}
        `cpus` is a number of processors, 1 to 255
    "#);
    assert!(read(&with("pythonEntryPoint: /workspace/src/a/main.py")).is_ok());
    assert!(read(&with("command: [python3, -c, \"print(1)\"]")).is_ok());
}

/// What the log would refuse is refused before anything is fetched.
#[test]
fn names_that_fool_a_reader_are_refused() {
    let named = |name: &str| {
        let machine = "machine: {provider: local, tpm: swtpm}";
        read(&format!(
            "kind: python\npythonVersion: 11\n{machine}\nsource: {{type: directory, path: ./src, name: \"{name}\"}}\n"
        ))
    };
    assert!(named("data, v2 (größer)").is_ok());
    for name in ["a\\u202eb", "a\\u200bb", "a\\tb"] {
        let error = named(name).unwrap_err().to_string();
        assert!(error.contains("holds a control character"), "{error}");
    }
}

/// Each problem is shown with its line, which takes time to find.
#[test]
fn of_very_many_problems_the_first_hundred_are_shown() {
    let many = "- \n".repeat(50_000);
    let error = read(&format!("{GOOD}\nresources:\n{many}")).unwrap_err();
    assert_eq!(error.problems().len(), 100);
    assert!(error.to_string().len() < 100_000);
}

#[test]
fn lines_are_shown_whatever_ends_them() {
    let text = GOOD.replace('\n', "\r") + "\runknown: 1\r";
    assert!(say(&text).contains("| unknown: 1\n"), "{}", say(&text));
}

#[test]
fn nesting_without_end_is_refused() {
    for text in [
        "- ".repeat(60),
        "[".repeat(60),
        "{a: ".repeat(60),
        "- ".repeat(100_000),
    ] {
        let text = format!("{}\nsource:\n  {text}", GOOD.replace("source:", "other:"));
        assert!(read(&text).is_err());
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _ = read(&text).map_err(|error| error.to_string());
    }

    #[test]
    fn any_value_of_any_key_is_read_or_refused(key in 0..15_usize, value in "[ -~\n]{0,40}") {
        let (_, keys) = super::known_keys()[0];
        let _ = read(&with(&format!("{}: {value}", keys[key]))).map_err(|error| error.to_string());
    }
}
