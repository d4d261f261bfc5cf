//! One machine, and everybody who could come between it and its owner: strangers, somebody in the middle, a restart, a second job,
//! readers that do not read.

use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use aicert_client::{AttestedClient, Client, ClientError, Identity, PreparedJob, Settings, outputs_tree};
use aicert_cloud_qemu::{QemuConfig, QemuProvider};
use aicert_core::api::{JobState, ProblemCode};
use aicert_core::cloud::{CloudProvider as _, MachineRecord, MachineRequest};
use aicert_core::digest::Nonce;
use aicert_core::progress::Progress;
use aicert_core::runtime::JobId;
use aicert_tests::base::BaseImage;
use aicert_tests::vm::interceptor::Interceptor;
use aicert_tests::vm::relay::Relay;
use aicert_tests::vm::{BOOT_LIMIT, Desk, https, trust, wait_for};
use aicert_verify::{Options, Unverified, verify};

use crate::WORKSHOP;

/// How many strangers come at once.
const STRANGERS: usize = 200;

/// What the server may have of memory.
const MEMORY_LIMIT_MIB: u64 = 256;

/// How long an owner waits at most for a small answer, whoever else is there.
const ANSWER: Duration = Duration::from_secs(30);

/// A machine, and its owner.
struct Owner {
    desk: Desk,
    provider: QemuProvider,
    machine: MachineRecord,
    identity: Identity,
    options: Options,
}

impl Owner {
    /// Has a machine made, which boots when this returns.
    async fn of(image: &BaseImage) -> Self {
        let desk = Desk::new(WORKSHOP.aicert);
        let config = QemuConfig::new(desk.at("state/qemu")).with_machine(Desk::machine(image, 3072));
        let provider = QemuProvider::new(config).unwrap();
        let identity = Identity::generate().unwrap();
        let machine = provider
            .provision(MachineRequest {
                job: job("owner"),
                instance_type: None,
                region: None,
                client: Some(identity.digest()),
                access: Vec::new(),
                gpus: 0,
                idle: Duration::from_secs(3600),
                lifetime: None,
                progress: Progress::ignored(),
            })
            .await
            .unwrap();
        Self {
            options: trust::options(image, provider.trust_anchor().unwrap()),
            desk,
            provider,
            machine,
            identity,
        }
    }

    fn endpoint(&self) -> SocketAddr {
        self.machine.endpoint.unwrap()
    }

    /// A client that tries once, so that every failure is seen.
    fn client(&self, endpoint: SocketAddr) -> Client {
        let mut settings = Settings::default();
        settings.retries = 0;
        settings.connect_limit = Duration::from_secs(5);
        Client::new(endpoint, self.identity.clone()).with_settings(settings)
    }

    /// Attests the machine as soon as it is up.
    async fn attest(&self) -> AttestedClient {
        let end = Instant::now() + BOOT_LIMIT;
        loop {
            match self.client(self.endpoint()).attest(&self.options).await {
                Err(ClientError::NotYet { .. }) if Instant::now() < end => {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                attested => return attested.unwrap(),
            }
        }
    }

    fn prepared(&self, id: &str, program: &str, lines: &str, image: &BaseImage) -> PreparedJob {
        self.desk.python_job(image, 3072, program, lines);
        let text = fs::read_to_string(self.desk.at("aicert.yaml")).unwrap();
        let nonce = Nonce::from_bytes([9; 32]);
        PreparedJob::from_yaml(&job(id), &text, self.desk.scene().path(), nonce, &|_| None).unwrap()
    }
}

fn job(name: &str) -> JobId {
    name.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_serves_its_owner_and_nobody_else() {
    let Some(image) = BaseImage::released(&WORKSHOP) else {
        return;
    };
    let owner = Owner::of(&image).await;

    strangers_come_first(&owner);
    somebody_stands_in_the_middle(&owner).await;
    let first = owner.attest().await;
    assert_eq!(
        first.attestation().unwrap().boot().image(),
        Some("aicert-base 0.1.0")
    );
    what_is_too_large_is_refused(&owner, &first, &image).await;

    // Attested, reset, and only then used: by whoever owns the machine.
    let folder = owner.desk.machine_folder().unwrap();
    folder.power_cycle();
    the_restart_is_noticed(&owner, &first, &image).await;
    let second = owner.attest().await;
    eprintln!("milestones: {}", owner.desk.consoles().milestones());
    assert_ne!(second.session().boot, first.session().boot);
    assert_ne!(second.session().tls_key, first.session().tls_key);

    let prepared = owner.prepared("owner", include_str!("../../jobs/talkative.py"), "", &image);
    second.submit(prepared.submission()).await.unwrap();
    let status = second.status(&job("owner")).await.unwrap();
    let mut sent = Vec::new();
    second
        .send_inputs(
            &job("owner"),
            prepared.uploads(),
            &status.awaited,
            &Progress::ignored(),
            |input| {
                sent.push(input.clone());
                Ok(())
            },
        )
        .await
        .unwrap();
    let readers = [SlowReader::of(&owner, "events"), SlowReader::of(&owner, "log")];
    printed_everything(&owner, &second).await;
    let crowd = Crowd::before(owner.endpoint());
    a_second_job_is_refused(&owner, &second, &image).await;
    a_used_machine_is_refused(&owner).await;
    let longest = the_owner_gets_through(&owner);
    eprintln!("with {STRANGERS} strangers there, the slowest answer took {longest:?}");
    crowd.leave();
    wait_for_the_end(&second).await;
    for reader in readers {
        eprintln!("a slow reader has got {} bytes", reader.stop());
    }

    let proof = Unverified::from_slice(&second.certificate(&job("owner")).await.unwrap()).unwrap();
    let options = owner
        .options
        .clone()
        .with_expected_nonce(prepared.submission().nonce);
    let proof = verify(proof, &options).unwrap();
    assert!(proof.is_of_a_model());
    second.check_proof(&proof).unwrap();
    for input in &sent {
        input.check(&proof).unwrap();
    }
    // It is the same machine, and yet not the boot that was attested first.
    let error = first.check_proof(&proof).unwrap_err();
    assert!(matches!(error, ClientError::OtherMachine(_)), "{error}");
    assert!(
        error.to_string().contains("it was restarted in between"),
        "{error}"
    );

    let tree = outputs_tree(&proof, None).unwrap();
    outputs_come_back_over_a_connection_that_breaks(&owner, &second, &tree).await;
    the_machine_ends_with_its_job(&owner, &second).await;
}

/// Whoever is there before the owner is told to go away, whatever he asks for.
fn strangers_come_first(owner: &Owner) {
    let stranger = Identity::generate().unwrap();
    let connected = |identity| https::connect(owner.endpoint(), identity).ok();
    wait_for("the machine answers", BOOT_LIMIT, || connected(Some(&stranger)));
    for identity in [Some(&stranger), None] {
        for (method, path) in [
            ("GET", format!("/v1/attestation?nonce={}", "0".repeat(64))),
            ("POST", "/v1/jobs".to_owned()),
            ("GET", "/v1/jobs/owner/outputs".to_owned()),
            ("DELETE", "/v1/jobs/owner".to_owned()),
            ("GET", "/".to_owned()),
        ] {
            let mut connection = connected(identity).unwrap();
            let answer = https::ask(&mut connection, method, &path, "{}").unwrap();
            assert_eq!(answer.status, 401, "{method} {path}: {answer:?}");
            assert!(answer.body.contains("unauthorized"), "{answer:?}");
            let again = https::ask(&mut connection, method, &path, "{}");
            assert!(again.is_err(), "the connection is still there: {again:?}");
        }
    }
}

/// By which names a machine was refused.
#[track_caller]
fn causes_of_refusal(error: &ClientError) -> Vec<&'static str> {
    let ClientError::Rejected(rejection) = error else {
        panic!("{error}")
    };
    let failures = rejection.failures().iter();
    failures.map(|failure| failure.cause().name()).collect()
}

/// Whoever ends the owner's connection with a key of his own hears a nonce, and nothing else.
async fn somebody_stands_in_the_middle(owner: &Owner) {
    let middle = Interceptor::before(owner.endpoint(), owner.identity.clone());
    let error = owner
        .client(middle.address())
        .attest(&owner.options)
        .await
        .unwrap_err();
    let causes = causes_of_refusal(&error);
    assert_eq!(causes, ["OtherTlsKey"], "{error}");
    assert!(
        error
            .to_string()
            .contains("somebody stands between you and the machine"),
        "{error}"
    );
    let heard = middle.heard();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].starts_with("GET /v1/attestation?nonce="), "{heard:?}");
}

/// An input for which there is no room is refused in words, and so is a second job even then.
async fn what_is_too_large_is_refused(owner: &Owner, client: &AttestedClient, image: &BaseImage) {
    let large = owner.desk.at("large");
    fs::File::create(&large).unwrap().set_len(64 << 30).unwrap();
    let lines = format!(
        "resources: [{{type: file, name: large, url: \"file://{}\", destinationPath: large}}]\n",
        large.display()
    );
    let prepared = owner.prepared("too-large", "print()\n", &lines, image);
    let status = client.submit(prepared.submission()).await.unwrap();
    assert_eq!(status.state, JobState::Receiving);
    let error = client
        .send_inputs(
            &job("too-large"),
            prepared.uploads(),
            &status.awaited,
            &Progress::ignored(),
            |_| Ok(()),
        )
        .await
        .unwrap_err();
    let ClientError::Problem { problem, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(problem.code, ProblemCode::StorageFull, "{error}");
    assert!(problem.advice.is_some(), "{problem:?}");
    eprintln!("no room: {error}");
    fs::remove_file(large).unwrap();
}

/// The owner's client sends nothing to a machine that is not the one it attested, and says why.
async fn the_restart_is_noticed(owner: &Owner, first: &AttestedClient, image: &BaseImage) {
    let secret = "this must not be sent";
    let prepared = owner.prepared("owner", &format!("print({secret:?})\n"), "", image);
    let end = Instant::now() + BOOT_LIMIT;
    let error = loop {
        match first.submit(prepared.submission()).await.unwrap_err() {
            ClientError::Unreachable { .. } if Instant::now() < end => {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            error => break error,
        }
    };
    let ClientError::Changed { expected, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(*expected, first.session().tls_key);
    assert!(error.to_string().contains("the machine was restarted"), "{error}");
}

async fn printed_everything(owner: &Owner, client: &AttestedClient) {
    const LAST: &str = "printed everything\n";
    let log = owner.desk.at("log");
    let end = Instant::now() + Duration::from_secs(600);
    // It goes on where it was.
    while client.log(&job("owner"), &log).await.unwrap() == 0
        || !fs::read_to_string(&log).unwrap().ends_with(LAST)
    {
        assert!(Instant::now() < end, "the job has not printed everything");
        assert_eq!(
            client.status(&job("owner")).await.unwrap().state,
            JobState::Running
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn a_second_job_is_refused(owner: &Owner, client: &AttestedClient, image: &BaseImage) {
    for id in ["another", "owner"] {
        let prepared = owner.prepared(id, "print('another')\n", "environment: {SEED: \"1\"}\n", image);
        let error = client.submit(prepared.submission()).await.unwrap_err();
        let ClientError::Problem { problem, status, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!((*status, problem.code), (409, ProblemCode::Occupied), "{error}");
        for words in [
            "this machine has had its job: owner runs",
            "one job can be certified per boot",
        ] {
            assert!(problem.message.contains(words), "{problem:?}");
        }
        assert_eq!(problem.advice.as_deref(), Some("use another machine"));
    }
}

/// Whoever attests a machine that has been used is told so.
async fn a_used_machine_is_refused(owner: &Owner) {
    let error = owner
        .client(owner.endpoint())
        .attest(&owner.options)
        .await
        .unwrap_err();
    let causes = causes_of_refusal(&error);
    assert!(
        causes.contains(&"Used") && !causes.contains(&"OtherTlsKey"),
        "{causes:?}: {error}"
    );
    assert!(
        error
            .to_string()
            .contains("this machine has already been used: PCR 14"),
        "{error}"
    );
}

async fn wait_for_the_end(client: &AttestedClient) {
    let end = Instant::now() + Duration::from_secs(600);
    loop {
        let status = client.status(&job("owner")).await.unwrap();
        match status.state {
            JobState::Running => assert!(Instant::now() < end, "the job still runs"),
            JobState::Finished => return,
            _ => panic!("{status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn outputs_come_back_over_a_connection_that_breaks(
    owner: &Owner,
    client: &AttestedClient,
    tree: &aicert_core::tree::Tree,
) {
    let half = tree.bytes() / 2;
    let relay = Relay::that_breaks_once(owner.endpoint(), half);
    let mut session = client.session().clone();
    session.endpoint = relay.address();
    let client = Client::new(relay.address(), owner.identity.clone())
        .resume(session)
        .unwrap();
    let outputs = owner.desk.at("outputs");
    let begun = Instant::now();
    client
        .download_outputs(&job("owner"), tree, &outputs, &Progress::ignored())
        .await
        .unwrap();
    let rate = tree.bytes() as f64 / begun.elapsed().as_secs_f64() / f64::from(1 << 20);
    eprintln!(
        "outputs: {} MiB at {rate:.1} MiB/s, with a cut",
        tree.bytes() >> 20
    );
    assert!(relay.has_cut() && relay.connections() == 2, "{relay:?}");
    // It went on where it was: not half of it came twice.
    assert!(relay.received() < tree.bytes() + tree.bytes() / 4, "{relay:?}");
    assert_took(&outputs);
}

fn assert_took(outputs: &Path) {
    let took: serde_json::Value =
        serde_json::from_slice(&fs::read(outputs.join("took.json")).unwrap()).unwrap();
    let seconds = took["seconds"].as_f64().unwrap();
    eprintln!("printing 11 MB took the job {seconds:.1} s");
    // At the pace of the readers, it would have taken months.
    assert!(seconds < 300.0, "{seconds}");
    assert_eq!(fs::metadata(outputs.join("model.bin")).unwrap().len(), 32 << 20);
}

async fn the_machine_ends_with_its_job(owner: &Owner, client: &AttestedClient) {
    client.delete(&job("owner")).await.unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while owner.provider.is_running(&owner.machine.id).await.unwrap() {
        assert!(Instant::now() < end, "the machine still runs");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let console = owner.provider.console_log(&owner.machine.id).await.unwrap();
    let (_, peak) = console
        .rsplit_once("\"peak_memory_mib\":")
        .expect("the server says how much memory it had");
    let digits: String = peak.chars().take_while(char::is_ascii_digit).collect();
    let peak: u64 = digits.parse().unwrap();
    eprintln!("memory of the server: {peak} MiB");
    assert!(peak < MEMORY_LIMIT_MIB);
    owner.provider.destroy(&owner.machine.id).await.unwrap();
    owner.desk.assert_nothing_is_left();
}

/// Somebody who is the owner, and takes one byte a second.
struct SlowReader {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl SlowReader {
    fn of(owner: &Owner, what: &str) -> Self {
        let mut connection = https::connect(owner.endpoint(), Some(&owner.identity)).unwrap();
        https::send(&mut connection, "GET", &format!("/v1/jobs/owner/{what}"), "").unwrap();
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut bytes = 0;
            while !stopped.load(Ordering::Relaxed) {
                // An answer may end before this does.
                if connection.read(&mut [0]).is_ok_and(|length| length == 1) {
                    bytes += 1;
                }
                thread::sleep(Duration::from_secs(1));
            }
            bytes
        });
        Self { stop, thread }
    }

    /// Gives up; returns how many bytes came.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Strangers who connect and say nothing, half of them in TLS; whoever is sent away comes again.
struct Crowd {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn before(endpoint: SocketAddr) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stranger = Identity::generate().unwrap();
        let threads = (0..STRANGERS).map(|number| {
            let (stop, stranger) = (Arc::clone(&stop), stranger.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    idle(endpoint, (number % 2 == 0).then_some(&stranger));
                    thread::sleep(Duration::from_secs(1));
                }
            })
        });
        let threads = threads.collect();
        thread::sleep(Duration::from_secs(2));
        Self { threads, stop }
    }

    fn leave(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

/// Connects, and waits until it is sent away.
fn idle(endpoint: SocketAddr, stranger: Option<&Identity>) {
    let patience = Some(Duration::from_secs(4));
    match stranger {
        Some(_) => {
            if let Ok(mut connection) = https::connect(endpoint, stranger) {
                let _ = connection.sock.set_read_timeout(patience);
                let _ = connection.read(&mut [0]);
            }
        }
        None => {
            if let Ok(mut connection) = TcpStream::connect(endpoint) {
                let _ = connection.set_read_timeout(patience);
                let _ = connection.read(&mut [0]);
            }
        }
    }
}

/// The owner connects anew for each question; returns how long it took at most until there was an answer.
fn the_owner_gets_through(owner: &Owner) -> Duration {
    let mut longest = Duration::ZERO;
    for _ in 0..10 {
        let begun = Instant::now();
        let answer = wait_for("the owner is answered", ANSWER, || {
            let mut connection = https::connect(owner.endpoint(), Some(&owner.identity)).ok()?;
            https::ask(&mut connection, "GET", "/v1/jobs/owner", "").ok()
        });
        assert_eq!(answer.status, 200, "{answer:?}");
        longest = longest.max(begun.elapsed());
    }
    longest
}
