//! The main job, whole, as a user does it: run, verify, inspect, and independent tools that agree.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use aicert_tests::scene::Scene;
use aicert_tests::tools;
use serde_json::Value;

const AICERT: &str = env!("CARGO_BIN_EXE_aicert-under-test");

/// A job that prints, reads its resource, and writes a model in a folder.
const PROGRAM: &str = r#"
import hashlib, os, pathlib
data = pathlib.Path("/workspace/resources/data.bin").read_bytes()
out = pathlib.Path("/workspace/outputs")
(out / "shards").mkdir()
(out / "shards" / "model-1.bin").write_bytes(hashlib.sha256(data).digest() * 1000)
(out / "config.json").write_text('{"ok": true}\n')
print("trained on", len(data), "bytes", flush=True)
"#;

fn prepared() -> Option<(Scene, String)> {
    if !(tools::have("swtpm") && tools::have_docker() && tools::have("git")) {
        return None;
    }
    let scene = Scene::new(AICERT);
    scene.write("code/main.py", PROGRAM);
    let commit = scene.git("code");
    let data = scene.write("data.bin", vec![7; 100_000]);
    scene.configure(&format!(
        "source: {{type: git, name: code, gitRepo: ./code, tag: v1}}\n\
         resources:\n- {{type: file, url: \"file://{}\", destinationPath: data.bin}}\n",
        data.display()
    ));
    Some((scene, commit))
}

fn proof(scene: &Scene) -> Value {
    serde_json::from_slice(&fs::read(scene.path().join("proof.json")).unwrap()).unwrap()
}

fn event<'a>(proof: &'a Value, kind: &str) -> &'a Value {
    let events = proof["measurement_log"].as_array().unwrap();
    &events.iter().find(|event| event["type"] == kind).unwrap()["content"]
}

#[test]
fn a_run_is_certified_and_verified_and_others_agree() {
    let Some((scene, commit)) = prepared() else { return };
    scene
        .run(&["--output-bom", "proof.json", "--outputs", "model"])
        .expect(0);

    // The proof says what happened.
    let proof = proof(&scene);
    assert_eq!(proof["result"], "succeeded");
    assert_eq!(proof["platform"]["simulated"], true);
    assert_eq!(proof["inputs"][0]["hash"], format!("sha1:{commit}"));
    assert!(
        proof["inputs"][0]["tree"]
            .as_str()
            .unwrap()
            .starts_with("sha256:")
    );
    assert!(
        event(&proof, "container_built")["image"]
            .as_str()
            .unwrap()
            .starts_with("sha256:")
    );
    let quoted: Vec<_> = proof["low_level_quote"]["pcrs"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(quoted.len(), 16);

    // Outputs have the hashes that everybody computes.
    let sums = Command::new("sha256sum")
        .args(["config.json", "shards/model-1.bin"])
        .current_dir(scene.path().join("model"))
        .output()
        .unwrap();
    let sums: BTreeMap<_, _> = String::from_utf8(sums.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            line.split_once("  ")
                .map(|(hash, path)| (path.to_owned(), format!("sha256:{hash}")))
                .unwrap()
        })
        .collect();
    let outputs: BTreeMap<_, _> = proof["outputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|output| {
            (
                output["path"].as_str().unwrap().to_owned(),
                output["hash"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    assert_eq!(sums, outputs);

    // It verifies with its anchor, and not without.
    let trusted = ["verify", "proof.json", "--trust-anchor", "proof.ca.pem"];
    let verified = scene
        .run(
            &[
                &trusted[..],
                &["--outputs", "model", "--input", &format!("code={commit}")],
            ]
            .concat(),
        )
        .expect(0);
    assert!(
        verified.stdout.to_lowercase().contains("simulated"),
        "{}",
        verified.stdout
    );
    let stranger = scene.run(&["verify", "proof.json"]).expect(1);
    assert!(stranger.all().contains("--trust-anchor"), "{}", stranger.all());

    // A changed, a missing and an additional file are each named.
    fs::write(scene.path().join("model/config.json"), "{\"ok\": false}").unwrap();
    fs::write(scene.path().join("model/extra"), "").unwrap();
    fs::remove_file(scene.path().join("model/shards/model-1.bin")).unwrap();
    let forged = scene
        .run(&[&trusted[..], &["--outputs", "model"]].concat())
        .expect(1);
    for path in ["config.json", "extra", "shards/model-1.bin"] {
        assert!(forged.all().contains(path), "{}", forged.all());
    }
    let other = scene
        .run(&[&trusted[..], &["--input", &format!("code={}", "0".repeat(40))]].concat())
        .expect(1);
    assert!(other.all().contains(&commit), "{}", other.all());

    // Independent tools agree.
    let replayed = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/replay_log.py"))
        .arg(scene.path().join("proof.json"))
        .output()
        .unwrap();
    assert!(
        replayed.status.success(),
        "{}",
        String::from_utf8_lossy(&replayed.stdout)
    );
    if tools::have("tpm2_checkquote") {
        scene
            .run(&[
                "inspect",
                "proof.json",
                "--trust-anchor",
                "proof.ca.pem",
                "--export-quote",
                "quote",
            ])
            .expect(0);
        let folder = scene.path().join("quote");
        let qualifying = fs::read_to_string(folder.join("qualifying-data.hex")).unwrap();
        let check = |qualifying: &str| {
            let arguments = [
                "-u",
                "ak.pem",
                "-m",
                "quote.msg",
                "-s",
                "quote.sig",
                "-f",
                "quote.pcrs",
                "-g",
                "sha256",
                "-q",
                qualifying,
            ];
            Command::new("tpm2_checkquote")
                .args(arguments)
                .current_dir(&folder)
                .output()
                .unwrap()
                .status
                .success()
        };
        assert!(check(qualifying.trim()));
        assert!(
            !check(&"00".repeat(32)),
            "tpm2_checkquote must compare the qualifying data"
        );
    }

    // Nothing is left running or lying about.
    assert_eq!(
        fs::read_dir(scene.path().join("state/machines")).unwrap().count(),
        0
    );
}

#[test]
fn one_changed_character_is_found() {
    let Some((scene, _)) = prepared() else { return };
    scene
        .run(&[
            "run",
            "--quiet",
            "--output-bom",
            "proof.json",
            "--outputs",
            "model",
        ])
        .expect(0);
    let text = fs::read_to_string(scene.path().join("proof.json")).unwrap();
    for (from, to) in [
        ("\"exit_code\": 0", "\"exit_code\": 1"),
        ("\"succeeded\"", "\"failed\""),
        ("data.bin", "date.bin"),
        ("\"simulated\": true", "\"simulated\": false"),
    ] {
        assert!(text.contains(from), "{from}");
        fs::write(scene.path().join("proof.json"), text.replacen(from, to, 1)).unwrap();
        let refused = scene
            .run(&["verify", "proof.json", "--trust-anchor", "proof.ca.pem"])
            .expect(1);
        assert!(!refused.all().is_empty());
    }
    // White space between tokens means nothing.
    let compact: Value = serde_json::from_str(&text).unwrap();
    assert!(compact.is_object());
    fs::write(scene.path().join("proof.json"), text.replace("\n", "\n ")).unwrap();
    scene
        .run(&["verify", "proof.json", "--trust-anchor", "proof.ca.pem"])
        .expect(0);
}

#[test]
fn inspect_says_unverified_unless_it_verifies() {
    let Some((scene, commit)) = prepared() else { return };
    scene
        .run(&[
            "run",
            "--quiet",
            "--output-bom",
            "proof.json",
            "--outputs",
            "model",
        ])
        .expect(0);
    let card = scene
        .run(&["inspect", "proof.json", "--trust-anchor", "proof.ca.pem"])
        .expect(0)
        .stdout;
    assert!(card.contains(&commit) && card.contains("model-1.bin"), "{card}");
    assert!(card.to_uppercase().contains("SIMULATED"), "{card}");
    assert!(!card.to_lowercase().contains("unverified"), "{card}");
    let card = scene.run(&["inspect", "proof.json"]);
    assert!(
        card.stdout.to_lowercase().contains("unverified"),
        "{}",
        card.stdout
    );
    assert_ne!(card.code, Some(0));
}

/// A job that fails is certified as failed; `run` and `verify` say so, and nobody gets a certificate of a model.
#[test]
fn a_failing_job_is_no_success() {
    let Some((scene, _)) = prepared() else { return };
    scene.write(
        "code/main.py",
        "import pathlib, sys\npathlib.Path('/workspace/outputs/model').write_text('x')\nsys.exit(3)\n",
    );
    scene.python_job(
        "import pathlib, sys\npathlib.Path('/workspace/outputs/model').write_text('x')\nsys.exit(3)\n",
    );
    let run = scene
        .run(&["run", "--output-bom", "proof.json", "--outputs", "model"])
        .expect(1);
    assert!(run.stderr.contains('3'), "{}", run.stderr);
    if scene.path().join("proof.json").exists() {
        assert_eq!(proof(&scene)["result"], "failed");
        let verify = scene
            .run(&["verify", "proof.json", "--trust-anchor", "proof.ca.pem"])
            .expect(1);
        assert!(verify.all().contains("exited with 3"), "{}", verify.all());
    }
}

/// What a job can see: nothing of the host, no network, no engine, no TPM, none of the caller's environment.
#[test]
fn the_job_is_alone() {
    if !(tools::have("swtpm") && tools::have_docker()) {
        return;
    }
    let scene = Scene::new(AICERT);
    scene.python_job(
        r#"
import json, os, pathlib, socket
found = {}
found["interfaces"] = sorted(name for _, name in socket.if_nameindex())
def refused(address):
    try:
        socket.create_connection(address, timeout=2)
        return False
    except OSError:
        return True
found["refused"] = all(refused(a) for a in [("172.17.0.1", 22), ("1.1.1.1", 53), ("127.0.0.1", 2375)])
found["devices"] = [p for p in ["/dev/tpm0", "/dev/tpmrm0", "/var/run/docker.sock", "/run/docker.sock", "/dev/kvm", "/dev/mem"] if os.path.exists(p)]
status = dict(l.split(":\t") for l in pathlib.Path("/proc/self/status").read_text().splitlines() if ":\t" in l)
found["capabilities"] = [status[k] for k in ["CapInh", "CapPrm", "CapEff", "CapAmb"]]
found["no_new_privileges"] = status["NoNewPrivs"]
found["environment"] = sorted(os.environ)
def read_only(path):
    try:
        open(path, "w").close()
        return False
    except OSError:
        return True
found["read_only"] = all(read_only(p) for p in ["/workspace/src/main.py", "/workspace/src/new", "/workspace/new"][:2])
found["secret"] = any("s3cr3t" in v for v in os.environ.values())
pathlib.Path("/workspace/outputs/found.json").write_text(json.dumps(found))
"#,
    );
    let output = scene
        .command(&["run", "--quiet", "--output-bom", "proof.json", "--outputs", "out"])
        .env("GITHUB_TOKEN", "s3cr3t")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let found: Value =
        serde_json::from_slice(&fs::read(scene.path().join("out/found.json")).unwrap()).unwrap();
    assert_eq!(found["interfaces"], serde_json::json!(["lo"]));
    assert_eq!(found["refused"], true);
    assert_eq!(found["devices"], serde_json::json!([]));
    assert_eq!(
        found["capabilities"],
        serde_json::json!(["0000000000000000"; 4].to_vec())
    );
    assert_eq!(found["no_new_privileges"], "1");
    assert_eq!(found["read_only"], true);
    assert_eq!(found["secret"], false);
    assert!(
        !fs::read_to_string(scene.path().join("proof.json"))
            .unwrap()
            .contains("s3cr3t")
    );
}

/// Whatever shells make of `;`, `$(…)`, backquotes, quotes and leading dashes: here they are letters.
#[test]
fn names_and_values_reach_no_shell() {
    if !(tools::have("swtpm") && tools::have_docker() && tools::have("git")) {
        return;
    }
    let scene = Scene::new(AICERT);
    let evil = "a;$(touch${IFS}pwned)`touch${IFS}pwned`&touch'\"|pwned";
    let program = "import os, sys\nout = '/workspace/outputs/'\n\
                   open(out + os.environ['EVIL'].replace('/', '_'), 'w').write(os.environ['EVIL'])\n\
                   open(out + '--version', 'w').write(repr(sys.argv))\n";
    scene.write(&format!("code/{evil}.py"), program);
    scene.git("code");
    let folder = scene.path().join("code");
    let branched = Command::new("git")
        .args(["branch", "x;$(touch-pwned)"])
        .current_dir(&folder)
        .status()
        .unwrap();
    assert!(branched.success());
    let quoted = serde_json::to_string(&format!("{evil}.py")).unwrap();
    let value = serde_json::to_string(evil).unwrap();
    scene.configure(&format!(
        "source: {{type: git, gitRepo: ./code, branch: \"x;$(touch-pwned)\"}}\n\
         pythonEntryPoint: {quoted}\nenvironment: {{EVIL: {value}}}\n"
    ));
    scene
        .run(&["run", "--quiet", "--output-bom", "proof.json", "--outputs", "out"])
        .expect(0);
    assert_eq!(
        fs::read_to_string(scene.path().join("out").join(evil)).unwrap(),
        evil
    );
    assert!(scene.path().join("out/--version").exists());
    let proof = proof(&scene);
    assert_eq!(
        event(&proof, "execution_started")["environment"][0]["value"],
        evil
    );
    assert_eq!(
        event(&proof, "input_measured")["requested"][0]["value"],
        "x;$(touch-pwned)"
    );
    let left: Vec<_> = walk(scene.path())
        .into_iter()
        .filter(|path| path.ends_with("pwned"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    scene
        .run(&[
            "verify",
            "proof.json",
            "--trust-anchor",
            "proof.ca.pem",
            "--outputs",
            "out",
        ])
        .expect(0);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .flat_map(|entry| {
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path())
            } else {
                vec![entry.path()]
            }
        })
        .filter(|path| path.file_name().is_some_and(|name| name == "pwned"))
        .collect()
}

/// More files than an event lists: the listing rides beside the proof, and the proof holds without it.
#[test]
fn many_outputs_have_a_manifest() {
    if !(tools::have("swtpm") && tools::have_docker()) {
        return;
    }
    let scene = Scene::new(AICERT);
    scene.python_job("for i in range(1500): open(f'/workspace/outputs/{i:04}', 'w').write(str(i))\n");
    scene
        .run(&["run", "--quiet", "--output-bom", "proof.json", "--outputs", "out"])
        .expect(0);
    assert_eq!(event(&proof(&scene), "outputs_measured")["tree"]["files"], 1500);
    let check = [
        "verify",
        "proof.json",
        "--trust-anchor",
        "proof.ca.pem",
        "--outputs",
        "out",
    ];
    scene.run(&check).expect(0);
    fs::write(scene.path().join("out/0777"), "other").unwrap();
    let refused = scene.run(&check).expect(1);
    assert!(refused.all().contains("0777"), "{}", refused.all());
    // Without the manifest the difference cannot be named, but it is found.
    let manifest = scene.path().join("proof.json.manifest");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::remove_file(&manifest).unwrap();
    scene.run(&check).expect(1);
    fs::write(scene.path().join("out/0777"), "777").unwrap();
    scene.run(&check).expect(0);
    // A manifest of somebody else is no help to them.
    fs::write(&manifest, text.replacen("\"size\":3", "\"size\":4", 1)).unwrap();
    assert_ne!(scene.run(&check).code, Some(0));
}

#[test]
fn any_container_image_can_run_a_job_and_time_limits_hold() {
    if !(tools::have("swtpm") && tools::have_docker()) {
        return;
    }
    let scene = Scene::new(AICERT);
    // Makes sure that the image is there.
    scene.python_job("open('/workspace/outputs/model', 'w').write('x')\n");
    scene
        .run(&[
            "run",
            "--quiet",
            "--output-bom",
            "first.json",
            "--outputs",
            "first",
        ])
        .expect(0);
    let run = |command: &str, more: &str| {
        scene.write(
            "aicert.yaml",
            format!(
                "kind: container\nimage: aicert/python:3.11\ncommand: {command}\nsource: {{type: directory, path: ./src}}\n\
                 {more}machine: {{provider: local, tpm: swtpm}}\n"
            ),
        );
        scene.run(&["run", "--force", "--output-bom", "proof.json", "--outputs", "out"])
    };
    run(
        "[python3, -c, \"open('/workspace/outputs/model', 'w').write('y')\"]",
        "",
    )
    .expect(0);
    assert_eq!(
        event(&proof(&scene), "execution_started")["command"][0],
        "python3"
    );
    fs::remove_dir_all(scene.path().join("out")).unwrap();
    let late =
        "[python3, -c, \"import time; open('/workspace/outputs/model', 'w').close(); time.sleep(60)\"]";
    let refused = run(late, "limits: {time: 1s}\n").expect(1);
    assert!(refused.stderr.contains("time limit"), "{}", refused.stderr);
    let proof = proof(&scene);
    assert_eq!(
        (&proof["result"], &event(&proof, "execution_finished")["outcome"]),
        (&"failed".into(), &"timed_out".into())
    );
    scene
        .run(&["verify", "proof.json", "--trust-anchor", "proof.ca.pem"])
        .expect(1);
}
