//! The path over a character device, without a TPM in the machine: a pseudo-terminal in raw mode with a software TPM
//! behind it. It is opened, written, polled and read like `/dev/tpm0`.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use aicert_core::conformance::tpm as suite;
use aicert_core::tpm::{TpmBackend as _, TpmErrorKind};
use aicert_swtpm_testing::{KeyAlgorithm, SimulatedTpm, SimulationOptions, skip_without};
use aicert_tpm::{Tpm, TpmConfig};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// One test after the other: the TSS does not close its devices to processes that others start meanwhile, which would then have them
/// open.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// What the TSS asks a device first, and waits a second for: eight random bytes (tpm2-tss, `Tss2_Tcti_Device_Init`).
const PROBE: [u8; 12] = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 8];

/// Makes a device that hands what is written to it to `answer`, while there are answers.
fn device(answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> PathBuf {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let path = PathBuf::from(ptsname(&ours, Vec::new()).unwrap().into_string().unwrap());
    let theirs = File::options().read(true).write(true).open(&path).unwrap();
    let mut settings = tcgetattr(&theirs).unwrap();
    settings.make_raw();
    tcsetattr(&theirs, OptionalActions::Now, &settings).unwrap();
    std::thread::spawn(move || {
        // While this end is open, the device outlives those who close it.
        let _theirs = theirs;
        let mut ours = File::from(ours);
        let mut last = Vec::new();
        loop {
            let mut command = vec![0; 10];
            ours.read_exact(&mut command).unwrap();
            let size = u32::from_be_bytes(command[2..6].try_into().unwrap());
            command.resize(size.try_into().unwrap(), 0);
            ours.read_exact(&mut command[10..]).unwrap();
            // A TPM forgets its answer to who has gone; here, the next one gets it, and must not get another.
            let is_asked_again = command == PROBE && last == PROBE;
            if let Some(answer) = (!is_asked_again).then(|| answer(&command)).flatten() {
                ours.write_all(&answer).unwrap();
            }
            last = command;
        }
    });
    path
}

fn converse(port: u16, command: &[u8]) -> Vec<u8> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(command).unwrap();
    let mut answer = vec![0; 10];
    stream.read_exact(&mut answer).unwrap();
    let size = u32::from_be_bytes(answer[2..6].try_into().unwrap());
    answer.resize(size.try_into().unwrap(), 0);
    stream.read_exact(&mut answer[10..]).unwrap();
    answer
}

#[tokio::test]
async fn a_device_conforms() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let _alone = ALONE.lock().await;
    let simulated = SimulatedTpm::start(SimulationOptions::new(KeyAlgorithm::EccP256))
        .await
        .unwrap();
    let port = simulated.instance().port();
    let path = device(move |command| Some(converse(port, command)));
    let log = tempfile::NamedTempFile::new().unwrap();
    let config = TpmConfig::device(&path, simulated.key_source().await.unwrap());
    let tpm = Tpm::open(config.with_boot_event_log(log.path())).await.unwrap();
    assert!(!tpm.capabilities().simulated);
    suite::all(&tpm).await;
    tpm.close().await.unwrap();
}

/// As on a machine that has much else to do.
#[tokio::test]
async fn a_device_that_takes_its_time_is_waited_for() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let _alone = ALONE.lock().await;
    let simulated = SimulatedTpm::start(SimulationOptions::new(KeyAlgorithm::EccP256))
        .await
        .unwrap();
    let port = simulated.instance().port();
    let path = device(move |command| {
        if command == PROBE {
            std::thread::sleep(Duration::from_millis(2_500));
        }
        Some(converse(port, command))
    });
    let config = TpmConfig::device(&path, simulated.key_source().await.unwrap());
    let tpm = Tpm::open(config).await.unwrap();
    tpm.clock().await.unwrap();
    tpm.close().await.unwrap();
}

#[tokio::test]
async fn a_silent_device_names_who_else_has_it_open() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let _alone = ALONE.lock().await;
    let simulated = SimulatedTpm::start(SimulationOptions::new(KeyAlgorithm::EccP256))
        .await
        .unwrap();
    let path = device(|_| None);
    let mut other = std::process::Command::new("sleep")
        .arg("60")
        .stdin(File::open(&path).unwrap())
        .spawn()
        .unwrap();
    let key = async || simulated.key_source().await.unwrap();
    let config = TpmConfig::device(&path, key().await);
    let errors = [
        Tpm::open(config.with_deadline(Duration::from_millis(200)))
            .await
            .unwrap_err(),
        // Long enough for the TSS to lose its own patience.
        Tpm::open(TpmConfig::device(&path, key().await))
            .await
            .unwrap_err(),
    ];
    other.kill().unwrap();
    other.wait().unwrap();
    for error in errors {
        assert_eq!(error.kind(), TpmErrorKind::InUse, "{error}");
        let name = format!("sleep (pid {})", other.id());
        assert!(error.message().contains(&name), "{error}");
    }
}
