//! The command: killed at any time it leaves no proof; what it logs is no secret; its memory is bounded.
#![allow(clippy::unwrap_used)] // what helps a test may fail it

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use aicert_core::api::JobState;
use aicert_core::event::JobResult;
use aicert_core::time::Timestamp;
use aicert_swtpm_testing::skip_without;
use aicert_testing::no_docker;
use aicert_verify::{Options, TrustAnchors, Unverified};
use common::binary::{Machine, holds};
use common::{config, job_id, submission};
use futures_util::StreamExt as _;

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_any_phase_it_leaves_no_proof() {
    if no_docker().await || skip_without(&["swtpm"]) {
        return;
    }
    for phase in ["receiving", "starting", "running", "measuring", "finished"] {
        let machine = Machine::new().await;
        let server = machine.start().await;
        let id = job_id();
        let script = match phase {
            "running" => "import time\nprint('begun', flush=True)\ntime.sleep(600)",
            "measuring" => "open('/workspace/outputs/x','w').truncate(3 << 30)\nprint('begun', flush=True)",
            _ => "open('/workspace/outputs/x','w').write('x')",
        };
        if phase == "receiving" {
            let (status, body) = server
                .owner
                .post("/v1/jobs", &submission(&id, &config(script, "")))
                .await;
            assert_eq!(status, 201, "{body}");
        } else {
            server.owner.begin(&id, &config(script, "")).await;
        }
        match phase {
            "running" => server.owner.await_event(&id, "\"line\":\"begun\"").await,
            "measuring" => server.owner.await_event(&id, "\"step\":\"outputs\"").await,
            "finished" => assert_eq!(server.owner.end_of(&id).await.state, JobState::Finished),
            _ => {}
        }
        server.kill().await;
        assert!(!holds(&machine.state(), "low_level_quote"), "{phase}");

        let server = machine.start().await;
        common::assert_nothing_is_left(&id).await;
        assert!(common::is_empty(&machine.state().join("jobs")), "{phase}");
        for path in ["", "/certificate", "/outputs", "/events"] {
            assert_eq!(
                server.owner.get(&format!("/v1/jobs/{id}{path}")).await.0,
                404,
                "{phase} {path}"
            );
        }
        let (status, body) = server
            .owner
            .post("/v1/jobs", &submission(&id, &config(script, "")))
            .await;
        if phase == "receiving" {
            // Nothing was measured: the machine is as it was.
            assert_eq!(status, 201, "{body}");
        } else if phase != "starting" {
            assert_eq!(status, 409, "{phase}: {body}");
            assert!(
                body.contains("PCR 14 of the") && body.contains("is not zero"),
                "{body}"
            );
        }
        assert!(
            server
                .log
                .contains("removing what is left of a job that was interrupted"),
            "{}",
            server.log
        );
        server.kill().await;
    }
}

/// An SSH server with one key of its own, which lets one key in.
struct Sshd {
    folder: tempfile::TempDir,
    child: std::process::Child,
    port: u16,
}

impl Sshd {
    /// Nothing where there is no `sshd`.
    fn start() -> Option<Self> {
        let program = "/usr/sbin/sshd";
        if !std::path::Path::new(program).exists() {
            assert!(std::env::var_os("CI").is_none(), "{program} is not installed");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        for name in ["host", "user"] {
            let mut command = Command::new("ssh-keygen");
            command.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
            assert!(command.arg(folder.path().join(name)).status().unwrap().success());
        }
        // Where sshd separates privileges; only root can make it, and only root needs it.
        let _ = std::fs::create_dir_all("/run/sshd");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host\nAuthorizedKeysFile {0}/user.pub\nPidFile none\n\
             StrictModes no\nUsePAM no\nPermitRootLogin yes\n\
             SetEnv GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=*\n",
            folder.path().display()
        );
        std::fs::write(folder.path().join("config"), config).unwrap();
        let mut command = Command::new(program);
        command.args(["-D", "-f"]).arg(folder.path().join("config"));
        let child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "sshd does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { folder, child, port })
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the client knows of SSH servers counts here, and nothing else does.
#[tokio::test(flavor = "multi_thread")]
async fn repositories_come_over_ssh_from_servers_that_the_client_knows() {
    use base64::Engine as _;
    if no_docker().await || skip_without(&["swtpm", "git", "ssh-keygen"]) {
        return;
    }
    let Some(sshd) = Sshd::start() else { return };
    let repository = sshd.folder.path().join("code");
    for arguments in [
        &["init", "-q", "-b", "main"][..],
        &[
            "-c",
            "user.name=x",
            "-c",
            "user.email=x@x",
            "commit",
            "-q",
            "--allow-empty",
            "-m",
            "x",
        ],
    ] {
        std::fs::create_dir_all(&repository).unwrap();
        let mut command = Command::new("git");
        command.arg("-C").arg(&repository).args(arguments);
        assert!(command.status().unwrap().success());
    }
    let user = Command::new("id").arg("-un").output().unwrap().stdout;
    let user = String::from_utf8(user).unwrap();
    let name = format!("[127.0.0.1]:{}", sshd.port);
    let config = format!(
        "kind: container\nimage: aicert/python:3.11\ncommand: [python3, -c, \"open('/workspace/outputs/x', 'w')\"]\n\
         source: {{type: git, gitRepo: 'ssh://{}@127.0.0.1:{}{}', branch: main, sshKey: /client/key}}\n\
         machine: {{provider: local, tpm: swtpm}}\n",
        user.trim(),
        sshd.port,
        repository.display()
    );
    let known = |key: &str| format!("{name} {}", sshd.read(key));
    for (known_hosts, problem) in [
        (known("user.pub"), Some("not the one in known_hosts")),
        (known("host.pub"), None),
    ] {
        let machine = Machine::new().await;
        let server = machine.start().await;
        let id = job_id();
        let mut sent = submission(&id, &config);
        let key = base64::engine::general_purpose::STANDARD.encode(sshd.read("user"));
        sent["files"] = serde_json::json!({"/client/key": key});
        let (status, body) = server.owner.post("/v1/jobs", &sent).await;
        assert!(
            status == 422 && body.contains("have no key of the SSH server"),
            "{body}"
        );
        sent["known_hosts"] = known_hosts.into();
        let (status, body) = server.owner.post("/v1/jobs", &sent).await;
        assert_eq!(status, 201, "{body}");
        let ended = server.owner.end_of(&id).await;
        match problem {
            Some(problem) => {
                let told = ended.problem.unwrap().message;
                assert!(told.contains(problem), "{told}");
            }
            None => assert_eq!(ended.state, JobState::Finished, "{ended:?}"),
        }
        assert_eq!(server.owner.delete(&format!("/v1/jobs/{id}")).await.0, 200);
        let (status, _) = server.ended().await;
        assert!(status.success() && !machine.state().join("known_hosts").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_reach_no_log_and_no_file_for_others() {
    if no_docker().await || skip_without(&["swtpm"]) {
        return;
    }
    let machine = Machine::new().await;
    let server = machine.start().await;
    let id = job_id();
    // A repository that nobody serves, with a token; the server's own environment is not the client's.
    let private = "kind: container\nimage: aicert/python:3.11\ncommand: [python3, -c, pass]\nenvironment: {CONFIGURED: text-of-the-configuration}\n\
                   source: {type: git, gitRepo: 'https://127.0.0.1:9/private-repository.git', tokenEnv: HUNTER_TOKEN}\nmachine: {provider: local, tpm: swtpm}\n";
    let (status, body) = server.owner.post("/v1/jobs", &submission(&id, private)).await;
    assert_eq!(status, 422);
    assert!(
        body.contains("HUNTER_TOKEN is not set") && !body.contains("hunter2"),
        "{body}"
    );
    let mut with_token = submission(&id, private);
    with_token["variables"] = serde_json::json!({"HUNTER_TOKEN": "hunter2-of-the-client"});
    let (status, body) = server.owner.post("/v1/jobs", &with_token).await;
    assert_eq!(status, 201, "{body}");
    let ended = server.owner.end_of(&id).await;
    assert_eq!(ended.state, JobState::Failed);
    let (_, events) = server.owner.get(&format!("/v1/jobs/{id}/events")).await;
    assert!(!holds(&machine.state(), "hunter2") && !events.contains("hunter2"));
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(machine.state()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(server.owner.delete(&format!("/v1/jobs/{id}")).await.0, 200);
    let (status, log) = server.ended().await;
    assert!(status.success());
    assert!(log.contains("\"why\":\"its job was removed\""), "{log}");
    for secret in ["hunter2", "text-of-the-configuration", "private-repository"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gibibytes_take_little_memory() {
    if no_docker().await || skip_without(&["swtpm"]) {
        return;
    }
    const SIZE: u64 = 2 << 30;
    let machine = Machine::new().await;
    let server = machine.start().await;
    let (owner, id) = (&server.owner, job_id());
    // Two files, so that what is asked for crosses from one to the other; not all zeros.
    let script = "
for name in 'ab':
    with open('/workspace/outputs/' + name, 'wb') as f:
        f.truncate(1 << 30)
        f.seek((1 << 30) - 5)
        f.write(name.encode() * 5)
";
    owner.begin(&id, &config(script, "")).await;
    assert_eq!(owner.end_of(&id).await.result, Some(JobResult::Succeeded));
    let began = Instant::now();
    let path = format!("/v1/jobs/{id}/outputs");
    let mut received = 0u64;
    // A connection that is cut in the middle, and a second one that goes on there.
    for _ in 0..2 {
        let request = owner
            .request(reqwest::Method::GET, &path)
            .header("range", format!("bytes={received}-"));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 206);
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.unwrap();
            for end in [1u64 << 30, SIZE] {
                let byte = if end == SIZE { b'b' } else { b'a' };
                for at in end - 5..end {
                    if (received..received + chunk.len() as u64).contains(&at) {
                        assert_eq!(chunk[(at - received) as usize], byte);
                    }
                }
            }
            let before = received;
            received += chunk.len() as u64;
            if before < SIZE / 3 && received >= SIZE / 3 {
                break;
            }
        }
    }
    assert_eq!(received, SIZE);
    let (peak, speed) = (
        server.peak_memory(),
        SIZE as f64 / began.elapsed().as_secs_f64() / 1e6,
    );
    println!(
        "2 GiB at {speed:.0} MB/s, peak memory of the server {} MiB",
        peak >> 20
    );
    assert!(peak < 64 << 20, "{} MiB", peak >> 20);

    let (_, proof) = owner.get(&format!("/v1/jobs/{id}/certificate")).await;
    let anchors = TrustAnchors::pinned()
        .with_root(machine.ca.root_pem().as_bytes())
        .unwrap();
    let options = Options::new(anchors, Timestamp::now());
    aicert_verify::verify(Unverified::from_slice(proof.as_bytes()).unwrap(), &options).unwrap();
    server.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_end_it_with_its_job() {
    if no_docker().await || skip_without(&["swtpm"]) {
        return;
    }
    let machine = Machine::new().await;
    let server = machine.start().await;
    let id = job_id();
    server
        .owner
        .begin(
            &id,
            &config("import time\nprint('begun', flush=True)\ntime.sleep(600)", ""),
        )
        .await;
    server.owner.await_event(&id, "\"line\":\"begun\"").await;
    let began = Instant::now();
    let pid = server.child.id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    let (status, log) = server.ended().await;
    assert!(status.success() && log.contains("it was told to stop"), "{log}");
    assert!(began.elapsed() < Duration::from_secs(30));
    common::assert_nothing_is_left(&id).await;
    assert!(common::is_empty(&machine.state().join("jobs")));
}

#[test]
fn what_is_wrong_at_the_start_is_said() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_aicert-server"))
            .args(arguments)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let (code, said) = run(&["openapi"]);
    assert_eq!(code, Some(0));
    assert!(said == aicert_server::openapi_document());
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().to_str().unwrap();
    for (arguments, expected, words) in [
        (&[][..], 2, "--provisioning"),
        (
            &["--provisioning", "/nonexistent", "--state", state],
            1,
            "\\\"/nonexistent\\\" could not be read",
        ),
        (
            &["--provisioning", "/dev/zero", "--state", state],
            1,
            "more than 65536 bytes",
        ),
        (
            &["--provisioning", "x", "--state", state, "--tpm", "swtpm:here"],
            2,
            "expected swtpm:HOST:PORT",
        ),
        (
            &[
                "--provisioning",
                "x",
                "--state",
                state,
                "--python-image",
                "/x/image.tar",
            ],
            2,
            "expected a file named python-3.N.tar",
        ),
    ] {
        let (code, said) = run(arguments);
        assert_eq!(code, Some(expected), "{said}");
        assert!(said.contains(words), "expected {words}, found {said}");
    }
}
