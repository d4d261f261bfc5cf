//! Outputs of two gibibytes: they come back as fast as the machine's network, over a connection that breaks once, and neither the
//! command nor the server has more than a little of them in memory. It takes a quarter of an hour and 10 GB of disk:
//!
//!     cargo test -p aicert-tests --test vm -- --ignored --nocapture

use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aicert_client::Identity;
use aicert_cloud_qemu::{QemuConfig, QemuProvider};
use aicert_core::cloud::{CloudProvider as _, MachineRequest};
use aicert_core::progress::Progress;
use aicert_tests::base::BaseImage;
use aicert_tests::vm::relay::Relay;
use aicert_tests::vm::{BOOT_LIMIT, Desk};
use serde_json::Value;

use crate::WORKSHOP;

const LIMIT: Duration = Duration::from_secs(3600);
const GIBIBYTES: u64 = 2;
const OUTPUTS: u64 = GIBIBYTES << 30;
const MEMORY_LIMIT_MIB: u64 = 256;

/// What the network alone is measured with.
const SAMPLE: u64 = 512 << 20;

#[test]
#[ignore = "takes a quarter of an hour"]
fn large_outputs_come_back() {
    let Some(image) = BaseImage::released(&WORKSHOP) else {
        return;
    };
    let desk = Desk::new(WORKSHOP.aicert);
    let program = include_str!("../../jobs/large.py");
    desk.python_job(
        &image,
        12_288,
        program,
        &format!("environment: {{GIBIBYTES: \"{GIBIBYTES}\"}}\n"),
    );
    let mut running = desk.start_run();
    running.until("the job has ended", LIMIT, |_| {
        desk.phase().filter(|phase| phase == "finished")
    });
    drop(running);

    // The rest of the way is over something that breaks.
    let job = desk.job().unwrap();
    let path = desk.at("state/runs").join(&job).join("session.json");
    let mut session: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let endpoint: SocketAddr = session["endpoint"].as_str().unwrap().parse().unwrap();
    let relay = Relay::that_breaks_once(endpoint, OUTPUTS / 2);
    session["endpoint"] = relay.address().to_string().into();
    fs::write(path, session.to_string()).unwrap();
    let running = desk.start_attach();
    let command = running.peak_memory();
    let ended = running.wait(LIMIT).expect(0);
    eprintln!("{}", ended.stdout);
    desk.verify(&image.reference_values).expect(0);
    desk.assert_nothing_is_left();

    assert!(relay.has_cut(), "{relay:?}");
    assert!(
        relay.received() < OUTPUTS + OUTPUTS / 8,
        "what was there came again: {relay:?}"
    );
    let outputs = rate(relay.received(), relay.took());
    let (command, server) = (command.load(Ordering::Relaxed) >> 20, peak_of_server(&desk));
    eprintln!("memory: command {command} MiB, server {server} MiB");
    assert!(command < MEMORY_LIMIT_MIB && server < MEMORY_LIMIT_MIB);
    drop(desk);

    let network = network_alone();
    eprintln!("outputs: {outputs:.1} MiB/s; the network alone: {network:.1} MiB/s");
}

fn rate(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / took.as_secs_f64() / f64::from(1 << 20)
}

/// The largest number that the server has logged, in MiB.
fn peak_of_server(desk: &Desk) -> u64 {
    let console = desk.consoles().text();
    let numbers = console.split("\"peak_memory_mib\":").skip(1).filter_map(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    });
    numbers.max().expect("the server says how much memory it had")
}

/// How fast a plain connection is that nothing encrypts, reads from a disk or looks at.
#[tokio::main(flavor = "current_thread")]
async fn network_alone() -> f64 {
    let program = Path::new(env!("CARGO_BIN_EXE_yardstick"));
    let image = BaseImage::with_program(&WORKSHOP, "yardstick", program).unwrap();
    let desk = Desk::new(WORKSHOP.aicert);
    let config = QemuConfig::new(desk.at("state/qemu")).with_machine(Desk::machine(&image, 3072));
    let provider = QemuProvider::new(config).unwrap();
    let machine = provider
        .provision(MachineRequest {
            job: "yardstick".parse().unwrap(),
            instance_type: None,
            region: None,
            client: Some(Identity::generate().unwrap().digest()),
            access: Vec::new(),
            gpus: 0,
            idle: Duration::from_secs(600),
            lifetime: None,
            progress: Progress::ignored(),
        })
        .await
        .unwrap();
    let end = Instant::now() + BOOT_LIMIT;
    loop {
        assert!(Instant::now() < end, "nobody sends anything");
        if let Some(rate) = sample(machine.endpoint.unwrap()) {
            provider.destroy(&machine.id).await.unwrap();
            return rate;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The rate in MiB/s; nothing when nobody sends yet.
fn sample(endpoint: SocketAddr) -> Option<f64> {
    let mut stream = TcpStream::connect(endpoint).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut buffer = vec![0; 256 << 10];
    let mut received = stream.read(&mut buffer).ok().filter(|length| *length > 0)? as u64;
    let begun = Instant::now();
    while received < SAMPLE {
        received += stream.read(&mut buffer).ok().filter(|length| *length > 0)? as u64;
    }
    Some(rate(received, begun.elapsed()))
}
