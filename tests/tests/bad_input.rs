//! What people are told when something is wrong: one table, with the words.
//!
//! Every case runs the command as a user would. The words below are everything it prints about the error, with the
//! folder of the test as `[DIR]`, ports as `[PORT]` and durations as `[TIME]`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;

use aicert_swtpm_testing::{KeyAlgorithm, SimulatedTpm, SimulationOptions};
use aicert_tests::scene::{Ended, Scene};
use aicert_tests::tools;

const AICERT: &str = env!("CARGO_BIN_EXE_aicert-under-test");
const RUN: [&str; 6] = [
    "run",
    "--quiet",
    "--output-bom",
    "proof.json",
    "--outputs",
    "model",
];

/// Serves one kind of answer until the test ends; returns its address.
fn serve(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let _ = write!(
                stream,
                "HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
    });
    format!("http://{address}")
}

fn normalized(scene: &Scene, text: &str) -> String {
    let text = text.replace(scene.path().to_str().expect("a UTF-8 path"), "[DIR]");
    let mut words = String::new();
    for line in text.lines() {
        let mut rest = line.trim_end();
        while let Some(at) = rest.find("127.0.0.1:") {
            let (before, after) = rest.split_at(at + "127.0.0.1:".len());
            words.push_str(before);
            words.push_str("[PORT]");
            rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
        }
        let (before, after) = rest.split_once(" after ").unwrap_or((rest, ""));
        words.push_str(before);
        if !after.is_empty() {
            let seconds = after.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
            words.push_str(" after [TIME]");
            words.push_str(seconds);
        }
        words.push('\n');
    }
    words
}

/// Runs, and asserts on exit status and words. Nothing may be left of a run that did not succeed.
#[track_caller]
fn says(scene: &Scene, ended: Ended, code: i32, expected: &str) {
    let expected: String = expected
        .trim()
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect();
    let found = normalized(scene, &ended.all());
    assert_eq!(found.trim(), expected.trim(), "--- found:\n{found}");
    assert_eq!(ended.code, Some(code));
    let machines = std::fs::read_dir(scene.path().join("state/machines")).map_or(0, Iterator::count);
    assert_eq!(machines, 0, "a machine is left");
}

fn ready() -> bool {
    tools::have("swtpm") && tools::have_docker() && tools::have("git")
}

const WRITES: &str = "open('/workspace/outputs/model', 'w').write('x')\n";

#[test]
fn configuration() {
    let scene = Scene::new(AICERT);
    says(
        &scene,
        scene.run(&RUN),
        2,
        "error: could not read the configuration aicert.yaml
  because: No such file or directory (os error 2)
help: `aicert init` writes one to start from; `-f FILE` names another",
    );
    scene.write("aicert.yaml", "kind: python\nsource: {type: git\n");
    says(
        &scene,
        scene.run(&RUN),
        2,
        "error: aicert.yaml cannot be used: 1 problem

aicert.yaml:2:9: this is not readable as YAML: unclosed bracket '{'
  |
2 | source: {type: git
  |         ^",
    );
    scene.write(
        "aicert.yaml",
        "kind: python\npythonVerison: 11\nsource: {type: directory, path: ./src}\nmachine: {provider: local, tpm: swtpm}\n",
    );
    says(
        &scene,
        scene.run(&RUN),
        2,
        "error: aicert.yaml cannot be used: 1 problem

aicert.yaml:2:1: unknown key `pythonVerison` in the configuration
  |
2 | pythonVerison: 11
  | ^^^^^^^^^^^^^
  = help: did you mean `pythonVersion`?",
    );
}

#[test]
fn a_repository_or_a_tag_that_is_not_there() {
    if !ready() {
        return;
    }
    let scene = Scene::new(AICERT);
    scene.configure("source: {type: git, gitRepo: ./nowhere, tag: v1}\n");
    says(
        &scene,
        scene.run(&RUN),
        1,
        "error: input \"nowhere\": could not fetch file://[DIR]/nowhere: there is no such folder
help: check the path of the repository",
    );
    scene.write("code/main.py", WRITES);
    scene.git("code");
    scene.configure("source: {type: git, gitRepo: ./code, tag: v2}\n");
    says(
        &scene,
        scene.run(&RUN),
        1,
        "error: input \"code\": could not fetch file://[DIR]/code: there is no tag \"v2\"
help: the repository has 1 tag name(s), for example \"v1\"",
    );
    // Names are names, never options or commands.
    scene.configure("source: {type: git, gitRepo: ./code, tag: \"--upload-pack=touch [DIR]/pwned;$(id)\"}\n");
    let refused = scene.run(&RUN);
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("upload-pack"), "{}", refused.stderr);
}

#[test]
fn files_that_are_not_there_or_not_the_expected_ones() {
    if !ready() {
        return;
    }
    let scene = Scene::new(AICERT);
    scene.write("src/main.py", WRITES);
    let data = scene.write("data.bin", "data\n");
    let with = |url: &str, more: &str| {
        scene.configure(&format!(
            "source: {{type: directory, path: ./src}}\nresources: [{{type: file, url: \"{url}\", destinationPath: d{more}}}]\n"
        ));
        scene.run(&RUN)
    };
    says(
        &scene,
        with(&format!("file://{}", data.display()), &format!(", sha256: \"{}\"", "0".repeat(64))),
        1,
        "error: input \"data.bin\": file://[DIR]/data.bin is not the expected file: expected sha256:0000000000000000000000000000000000000000000000000000000000000000, found sha256:6667b2d1aab6a00caa5aee5af8ad9f1465e567abf1c209d15727d57b3e8f6e5f (5 bytes)
help: if the file was meant to change, put the found value into `sha256`; if not, do not trust its source",
    );
    says(
        &scene,
        with(&format!("{}/missing", serve("404 Not Found")), ""),
        1,
        "error: input \"missing\": could not download http://127.0.0.1:[PORT]/missing: the server answered 404 Not Found
help: check the URL; some servers also answer this to those who may not see the file",
    );
    says(
        &scene,
        with(&format!("{}/loop", serve("302 Found\r\nLocation: /loop")), ""),
        1,
        "error: input \"loop\": could not download http://127.0.0.1:[PORT]/loop: redirect loop at http://127.0.0.1:[PORT]/loop
help: check the URL, or ask whoever runs the server",
    );
}

#[test]
fn jobs_that_fail() {
    if !ready() {
        return;
    }
    let scene = Scene::new(AICERT);
    scene.python_job(WRITES);
    scene.configure("source: {type: directory, path: ./src}\npythonEntryPoint: train.py\n");
    says(
        &scene,
        scene.run(&RUN),
        1,
        "error: the entry point `train.py` is not in the source \"src\"
help: set `pythonEntryPoint` to a file of the source, for example `main.py`",
    );
    scene.configure("source: {type: directory, path: ./src}\nrequirements: requirments.txt\n");
    says(
        &scene,
        scene.run(&RUN),
        1,
        "error: the requirements `requirments.txt` are not a file of the source
help: set `requirements` to the file of the source that lists the packages, or remove the key",
    );
    let link = scene.path().join("src/requirements.txt");
    std::os::unix::fs::symlink("main.py", &link).expect("a link");
    scene.configure("source: {type: directory, path: ./src}\n");
    says(
        &scene,
        scene.run(&RUN),
        1,
        "error: the requirements `requirements.txt` are a symbolic link, and not a file of the source
help: replace the link with the file, or name the file that it points to as `requirements`",
    );
    std::fs::remove_file(link).expect("the link");
    scene.python_job("import os\nos.symlink('/etc/passwd', '/workspace/outputs/model')\n");
    let refused = scene.run(&RUN).expect(1).stderr;
    let kept = std::fs::read_dir(scene.path().join("state/rescued")).expect("the folder of what was kept");
    let kept = kept.flatten().next().expect("the outputs that were kept").path();
    assert_eq!(
        refused.replace(kept.to_str().expect("a UTF-8 path"), "[KEPT]").trim(),
        "error: the outputs cannot be measured: symbolic link \"model\" -> \"/etc/passwd\" is refused: its target is an absolute path
help: let the job write plain files below its output folder, and nothing else; what the job left is kept, uncertified, in [KEPT]",
    );
    assert!(!scene.path().join("proof.json").exists());
    scene.python_job("print('boo')\nraise SystemExit(3)\n");
    says(
        &scene,
        scene.run(&RUN),
        1,
        "error: the job failed: exit status 3 after [TIME] s, and it left no outputs
help: what it printed is in proof.log; the proof says that it failed, and certifies no model",
    );
    let scene = Scene::new(AICERT);
    scene.python_job("pass\n");
    says(
        &scene,
        scene.run(&RUN),
        1,
        "error: the job failed: exit status 0 after [TIME] s, and it left no outputs
help: what it printed is in proof.log; the proof says that it failed, and certifies no model",
    );
}

/// What else an output folder must not hold. Files that are read through are regular ones with one name.
#[test]
fn outputs_that_are_no_plain_files() {
    if !ready() {
        return;
    }
    let hostile = [
        (
            "os.symlink('../../etc/passwd', out + '/model')",
            "is refused: its target is outside the folder",
        ),
        (
            "os.mkdir(out + '/d'); os.symlink('..', out + '/d/up'); os.symlink('d/up/../..', out + '/model')",
            "could lead outside the folder",
        ),
        ("os.mkfifo(out + '/model')", "FIFO"),
        (
            "open(out + '/a', 'w').close(); os.link(out + '/a', out + '/model')",
            "hard links",
        ),
        ("open(out.encode() + b'/mod\\xffel', 'w').close()", "UTF-8"),
        ("open(out + '/mod\\nel', 'w').close()", "control character"),
        (
            "import socket; socket.socket(socket.AF_UNIX).bind(out + '/model')",
            "socket",
        ),
        // Deeper than what is measured.
        (
            "os.chdir(out)\nfor _ in range(200): os.mkdir('d'); os.chdir('d')\nopen('model', 'w').close()",
            "levels deep",
        ),
    ];
    for (statement, words) in hostile {
        let scene = Scene::new(AICERT);
        scene.python_job(&format!("import os\nout = '/workspace/outputs'\n{statement}\n"));
        let refused = scene.run(&RUN).expect(1);
        assert!(
            refused.stderr.contains("the outputs cannot be measured") && refused.stderr.contains(words),
            "{statement}: {}",
            refused.stderr
        );
        assert!(
            !scene.path().join("proof.json").exists() && !scene.path().join("model").exists(),
            "{statement}"
        );
        // What took days to compute is not thrown away, and nothing else is left.
        let count = |folder: &str| std::fs::read_dir(scene.path().join(folder)).map_or(0, Iterator::count);
        assert_eq!(
            (count("state/rescued"), count("state/machines")),
            (1, 0),
            "{statement}"
        );
    }
}

#[test]
fn engines_and_images() {
    if !ready() {
        return;
    }
    let scene = Scene::new(AICERT);
    scene.python_job(WRITES);
    let ended = scene
        .command(&RUN)
        .env("DOCKER_HOST", "unix:///nowhere.sock")
        .output()
        .expect("the command starts");
    says(
        &scene,
        ended.into(),
        1,
        "error: cannot reach the Docker engine at /nowhere.sock: No such file or directory (os error 2)
help: Docker is not running or not installed: `sudo service docker start`, or `sudo apt-get install docker.io`; set DOCKER_HOST if its socket is elsewhere",
    );
    scene.write(
        "aicert.yaml",
        "kind: container\nimage: localhost:1/nothing:1\ncommand: [sh]\nsource: {type: directory, path: ./src}\nmachine: {provider: local, tpm: swtpm}\n",
    );
    let ended = scene.run(&RUN).expect(1);
    let found = normalized(&scene, &ended.stderr);
    assert!(found.starts_with("error: the image localhost:1/nothing:1 is not on this machine, and its registry cannot be reached: "), "{found}");
    assert!(found.ends_with("help: check the name and the engine's network and proxy, or bring the image here (`docker load`)\n"), "{found}");
}

#[test]
fn no_tpm() {
    if !ready() {
        return;
    }
    let scene = Scene::new(AICERT);
    scene.write("src/main.py", WRITES);
    let certificate = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "/dev/null",
            "-subj",
            "/CN=x",
            "-out",
            "ak.pem",
        ])
        .current_dir(scene.path())
        .output();
    assert!(
        certificate.is_ok_and(|output| output.status.success()),
        "openssl makes a certificate"
    );
    scene.write(
        "aicert.yaml",
        "kind: python\npythonVersion: 11\nsource: {type: directory, path: ./src}\nmachine: {provider: local, tpm: device, path: /dev/tpm-absent, akHandle: \"0x81000003\", akCertificates: [ak.pem]}\n",
    );
    says(&scene, scene.run(&RUN), 1, "error: there is no usable TPM at /dev/tpm-absent
  because: No such file or directory (os error 2)
help: enable the TPM (or vTPM) of this machine and look for /dev/tpmrm0; for a trial without a TPM, ask for a simulated one");
}

/// A TPM that another process uses is named, with that process.
#[tokio::test]
async fn a_tpm_in_use() {
    if !tools::have("swtpm") {
        return;
    }
    let tpm = SimulatedTpm::start(SimulationOptions::new(KeyAlgorithm::EccP256))
        .await
        .expect("a software TPM starts");
    let holder = tpm.instance().occupy().expect("a connection");
    let error = tpm.second_client().await.expect_err("the TPM is in use");
    let me = std::process::id().to_string();
    assert!(
        error.message().contains("in use") && error.message().contains(&me),
        "{error}"
    );
    assert!(error.advice().is_some());
    drop(holder);
}

#[test]
fn a_full_disk() {
    if !ready() {
        return;
    }
    let scene = Scene::new(AICERT);
    scene.write("src/main.py", WRITES);
    let big = scene.write("big", vec![0; 5_000_000]);
    scene.configure(&format!(
        "source: {{type: directory, path: ./src}}\nresources: [{{type: file, url: \"file://{}\", destinationPath: d}}]\n",
        big.display()
    ));
    std::fs::create_dir(scene.path().join("state")).expect("a folder");
    let run = format!(
        "mount -t tmpfs -o size=2m tmpfs state && exec {AICERT} {}",
        RUN.join(" ")
    );
    let ended: Ended = scene_command(
        &scene,
        "unshare",
        &["--map-root-user", "--mount", "sh", "-c", &run],
    );
    if ended.stderr.contains("unshare") || ended.stderr.contains("mount:") {
        assert!(
            std::env::var_os("CI").is_none(),
            "a small file system is needed: {}",
            ended.stderr
        );
        return;
    }
    let found = normalized(&scene, &ended.stderr);
    assert!(
        found.starts_with("error: input \"big\": could not write \"[DIR]/state/machines/"),
        "{found}"
    );
    assert!(
        found.contains("/workspace/resources/d\": the disk is full\n"),
        "{found}"
    );
    assert!(
        found.ends_with("help: free some space, or choose a place on a larger disk\n"),
        "{found}"
    );
}

/// As a user who may not use the engine.
#[test]
fn no_permission() {
    if !ready() || !rustix::process::geteuid().is_root() {
        return;
    }
    let scene = Scene::new(AICERT);
    scene.python_job(WRITES);
    // The command itself must be where anybody may read it.
    let command = scene.path().join("aicert");
    std::fs::copy(AICERT, &command).expect("the command can be copied");
    let own = scene.path().join("own");
    std::fs::create_dir(&own).expect("a folder");
    for (path, mode) in [(scene.path(), 0o755), (&own, 0o777)] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
            .expect("permissions");
    }
    let command = command.to_str().expect("a UTF-8 path");
    let arguments = [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "env",
        "AICERT_STATE_DIR=own/state",
        "AICERT_CACHE_DIR=own/cache",
        command,
        "run",
        "--quiet",
        "--output-bom",
        "own/proof.json",
        "--outputs",
        "own/model",
    ];
    let ended = scene_command(&scene, "setpriv", &arguments);
    let docker = "error: cannot reach the Docker engine at /var/run/docker.sock: Permission denied (os error 13)
help: you may not use the Docker engine: `sudo usermod -aG docker $USER`, then log in again (members of the group docker can become root on this machine), or run aicert with sudo";
    says(&scene, ended, 1, docker);
}

fn scene_command(scene: &Scene, program: &str, arguments: &[&str]) -> Ended {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(scene.path())
        .env("AICERT_STATE_DIR", scene.path().join("state"));
    command.output().expect("the program starts").into()
}
