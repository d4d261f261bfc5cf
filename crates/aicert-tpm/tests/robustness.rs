//! A TPM that is busy, slow, silent, lying, or changed by somebody else while it is looked at.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aicert_core::tpm::{PcrBank, PcrIndex, TpmBackend as _, TpmError, TpmErrorKind};
use aicert_swtpm_testing::{
    Interposer, KeyAlgorithm, SimulatedTpm, SimulationOptions, SwtpmOptions, Verdict, skip_without,
};
use aicert_tpm::{KeySource, Tpm, TpmConfig};

const PCR_EXTEND: u32 = 0x0182;
const PCR_READ: u32 = 0x017e;
const QUOTE: u32 = 0x0158;

const RC_RETRY: u32 = 0x0922;
const RC_TESTING: u32 = 0x090a;
const RC_YIELDED: u32 = 0x0908;

const SHA256: PcrBank = PcrBank::Sha256;

fn code(command: &[u8]) -> u32 {
    u32::from_be_bytes(command[6..10].try_into().unwrap())
}

fn digests() -> BTreeMap<PcrBank, Vec<u8>> {
    [(SHA256, SHA256.hash(&[b"event"]))].into()
}

async fn simulated() -> SimulatedTpm {
    let swtpm = SwtpmOptions::new().with_banks([SHA256]);
    let options = SimulationOptions::new(KeyAlgorithm::EccP256).with_swtpm(swtpm);
    SimulatedTpm::start(options).await.unwrap()
}

/// Opens `tpm` through somebody who judges its commands.
async fn interposed(
    tpm: &SimulatedTpm,
    deadline: Duration,
    judge: impl FnMut(&[u8]) -> Verdict + Send + 'static,
) -> (Interposer, Result<Tpm, TpmError>) {
    let interposer = Interposer::start(tpm.instance(), judge).unwrap();
    let config = interposer.config(tpm.key_source().await.unwrap());
    let opened = Tpm::open(config.with_deadline(deadline)).await;
    (interposer, opened)
}

/// Refuses the first `times` commands of a kind.
fn refuse_some(kind: u32, times: u32, with: u32) -> impl FnMut(&[u8]) -> Verdict + Send {
    let mut left = times;
    move |command| {
        if code(command) == kind && left > 0 {
            left -= 1;
            Verdict::Refuse(with)
        } else {
            Verdict::Forward
        }
    }
}

#[tokio::test]
async fn a_busy_tpm_is_asked_again_and_extends_once() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let tpm = simulated().await;
    let mut expected = vec![0; 32];
    // More often than the TSS itself tries.
    for (kind, with) in [
        (PCR_EXTEND, RC_RETRY),
        (PCR_EXTEND, RC_TESTING),
        (QUOTE, RC_YIELDED),
    ] {
        let judge = refuse_some(kind, 40, with);
        let (_interposer, opened) = interposed(&tpm, Duration::from_secs(30), judge).await;
        let busy = opened.unwrap();
        busy.extend(PcrIndex::INPUTS, &digests()).await.unwrap();
        expected = SHA256.extend(&expected, &digests()[&SHA256]);
        let quote = busy.quote(SHA256, &[PcrIndex::INPUTS], b"x").await.unwrap();
        assert_eq!(
            quote.pcrs.0[&PcrIndex::INPUTS],
            expected,
            "each extend must happen once"
        );
    }
}

#[tokio::test]
async fn a_tpm_that_stays_busy_is_an_error_in_time() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let tpm = simulated().await;
    for (kind, with) in [(PCR_EXTEND, RC_RETRY), (QUOTE, RC_YIELDED)] {
        let judge = refuse_some(kind, u32::MAX, with);
        let (_interposer, opened) = interposed(&tpm, Duration::from_secs(1), judge).await;
        let busy = opened.unwrap();
        let started = Instant::now();
        let error = match kind {
            QUOTE => busy.quote(SHA256, &[PcrIndex::INPUTS], b"x").await.map(drop),
            _ => busy.extend(PcrIndex::INPUTS, &digests()).await,
        }
        .unwrap_err();
        assert_eq!(error.kind(), TpmErrorKind::Busy, "{error}");
        assert!(error.is_retryable());
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "{:?}",
            started.elapsed()
        );
    }
    let values = tpm.read_pcrs(SHA256, &[PcrIndex::INPUTS]).await.unwrap();
    assert_eq!(
        values.0[&PcrIndex::INPUTS],
        [0; 32],
        "an extend that was refused must not happen"
    );
}

#[tokio::test]
async fn an_extend_that_was_begun_is_not_given_again_forever() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let tpm = simulated().await;
    let given = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&given);
    let judge = move |command: &[u8]| {
        if code(command) == PCR_EXTEND {
            counter.fetch_add(1, Ordering::Relaxed);
            return Verdict::Refuse(RC_YIELDED);
        }
        Verdict::Forward
    };
    let (_interposer, opened) = interposed(&tpm, Duration::from_secs(30), judge).await;
    let error = opened
        .unwrap()
        .extend(PcrIndex::INPUTS, &digests())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), TpmErrorKind::Failed, "{error}");
    // The TSS itself continues a suspended command a few times, as the specification has it.
    assert!(given.load(Ordering::Relaxed) < 10, "{given:?}");
}

#[tokio::test]
async fn a_silent_tpm_is_an_error_at_the_deadline() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let tpm = simulated().await;
    let judge = |command: &[u8]| match code(command) {
        PCR_EXTEND => Verdict::Ignore,
        _ => Verdict::Forward,
    };
    let (_interposer, opened) = interposed(&tpm, Duration::from_millis(500), judge).await;
    let silent = opened.unwrap();
    let started = Instant::now();
    let error = silent.extend(PcrIndex::INPUTS, &digests()).await.unwrap_err();
    assert!(
        matches!(error.kind(), TpmErrorKind::Busy | TpmErrorKind::InUse),
        "{error}"
    );
    assert!(error.message().contains("did not answer within 0.5 s"), "{error}");
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    // What waits behind a stuck command is an error in time, too, and is not run later.
    silent.clock().await.unwrap_err();

    let (_interposer, opened) = interposed(&tpm, Duration::from_millis(500), |_| Verdict::Ignore).await;
    let error = opened.unwrap_err();
    assert!(
        matches!(error.kind(), TpmErrorKind::Busy | TpmErrorKind::InUse),
        "{error}"
    );
}

#[tokio::test]
async fn pcrs_that_change_while_they_are_read_are_read_again() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let tpm = simulated().await;
    let extend = extend_command(PcrIndex::OUTPUTS, &digests()[&SHA256]);
    let port = tpm.instance().port();
    let disturb = move |kind: u32, times: u32| {
        let (extend, mut left) = (extend.clone(), times);
        move |command: &[u8]| {
            if code(command) == kind && left > 0 {
                left -= 1;
                send(port, &extend);
            }
            Verdict::Forward
        }
    };
    let all: Vec<_> = (0..24).filter_map(PcrIndex::new).collect();
    let deadline = Duration::from_secs(30);
    for kind in [PCR_READ, QUOTE] {
        let (_interposer, opened) = interposed(&tpm, deadline, disturb(kind, 5)).await;
        let quote = opened.unwrap().quote(SHA256, &all, b"x").await.unwrap();
        assert_eq!(quote.pcrs, tpm.read_pcrs(SHA256, &all).await.unwrap());
        let signed = SHA256.hash(&quote.pcrs.0.values().map(Vec::as_slice).collect::<Vec<_>>());
        assert!(
            quote.attest.ends_with(&signed),
            "the values must be those that were signed"
        );
    }
    let (_interposer, opened) = interposed(&tpm, deadline, disturb(PCR_READ, u32::MAX)).await;
    let error = opened.unwrap().read_pcrs(SHA256, &all).await.unwrap_err();
    assert!(error.message().contains("something else extends them"), "{error}");
}

#[tokio::test]
async fn a_quote_of_something_else_is_not_returned() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let tpm = simulated().await;
    let deadline = Duration::from_secs(30);
    // Other qualifying data: the byte is the last before scheme and selection.
    let replay = |command: &[u8]| match code(command) {
        QUOTE => {
            let mut other = command.to_vec();
            let place = other.windows(4).position(|window| window == b"data").unwrap();
            other[place] = b'D';
            Verdict::Replace(other)
        }
        _ => Verdict::Forward,
    };
    let (_interposer, opened) = interposed(&tpm, deadline, replay).await;
    let error = opened
        .unwrap()
        .quote(SHA256, &[PcrIndex::INPUTS], b"data")
        .await
        .unwrap_err();
    assert!(error.message().contains("qualifying data"), "{error}");
    // Other PCRs: the last byte of the selection has PCRs 16 to 23.
    let reselect = |command: &[u8]| match code(command) {
        QUOTE => {
            let mut other = command.to_vec();
            *other.last_mut().unwrap() |= 1;
            Verdict::Replace(other)
        }
        _ => Verdict::Forward,
    };
    let (_interposer, opened) = interposed(&tpm, deadline, reselect).await;
    let error = opened
        .unwrap()
        .quote(SHA256, &[PcrIndex::INPUTS], b"data")
        .await
        .unwrap_err();
    assert!(error.message().contains("other PCRs"), "{error}");
}

#[tokio::test]
async fn a_tpm_that_is_not_there_is_absent() {
    let key = || KeySource::Persistent {
        handle: 0x8100_0003,
        certificate_chain: Vec::new(),
    };
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let error = Tpm::open(TpmConfig::swtpm("127.0.0.1", port, key()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), TpmErrorKind::Absent);
    assert!(error.message().contains(&port.to_string()), "{error}");

    let error = Tpm::open(TpmConfig::device("/dev/no-such-tpm", key()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), TpmErrorKind::Absent);
    assert!(error.advice().is_some());
}

#[tokio::test]
async fn what_is_not_a_tpm_is_not_taken_for_one() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for stream in listener.incoming().take(2) {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let key = KeySource::Persistent {
        handle: 0x8100_0003,
        certificate_chain: Vec::new(),
    };
    let error = Tpm::open(TpmConfig::swtpm("127.0.0.1", port, key))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), TpmErrorKind::Absent, "{error}");
    assert!(error.message().contains("does not answer like a TPM"), "{error}");
}

#[tokio::test]
async fn a_key_that_is_not_there_or_cannot_quote_is_unsupported() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let tpm = simulated().await;
    for handle in [0x8100_0042, 0x0100_0001, 0] {
        let key = KeySource::Persistent {
            handle,
            certificate_chain: Vec::new(),
        };
        let error = Tpm::open(tpm.instance().config(key)).await.unwrap_err();
        assert_eq!(error.kind(), TpmErrorKind::Unsupported, "{error}");
        assert!(error.message().contains(&format!("{handle:#x}")), "{error}");
    }
}

#[tokio::test]
async fn the_boot_event_log_is_the_file_or_empty() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let options = SimulationOptions::new(KeyAlgorithm::EccP256).with_boot_event_log(&path);
    let tpm = SimulatedTpm::start(options).await.unwrap();
    assert_eq!(tpm.boot_event_log().await.unwrap(), b"");
    std::fs::write(&path, b"\x01\x02").unwrap();
    assert_eq!(tpm.boot_event_log().await.unwrap(), b"\x01\x02");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert_eq!(
        tpm.boot_event_log().await.unwrap_err().kind(),
        TpmErrorKind::Failed
    );
}

#[tokio::test]
async fn closing_frees_the_tpm() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let tpm = simulated().await;
    tpm.second_client().await.unwrap().close().await.unwrap();
    // A task that gives up before its turn leaves nothing behind.
    let second = tpm.second_client().await.unwrap();
    let slow = second.with_context(|_, _| std::thread::sleep(Duration::from_millis(300)));
    let extend = async {
        let digests = digests();
        tokio::time::timeout(
            Duration::from_millis(50),
            second.extend(PcrIndex::INPUTS, &digests),
        )
        .await
    };
    let (slow, extend) = tokio::join!(slow, extend);
    slow.unwrap();
    extend.unwrap_err();
    second.close().await.unwrap();
    let values = tpm.read_pcrs(SHA256, &[PcrIndex::INPUTS]).await.unwrap();
    assert_eq!(
        values.0[&PcrIndex::INPUTS],
        [0; 32],
        "it was dropped before it began"
    );
}

/// `TPM2_PCR_Extend` of the SHA-256 bank with an empty password (TPM 2.0 Library, part 3, section 22.2).
fn extend_command(pcr: PcrIndex, digest: &[u8]) -> Vec<u8> {
    let body = [
        &[0, 0, 0, pcr.as_u8()][..],                 // handle
        &[0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0], // password session
        &[0, 0, 0, 1, 0x00, 0x0b],                   // one digest, SHA-256
        digest,
    ]
    .concat();
    let size = 10 + u32::try_from(body.len()).unwrap();
    [
        &[0x80, 0x02][..],
        &size.to_be_bytes(),
        &PCR_EXTEND.to_be_bytes(),
        &body,
    ]
    .concat()
}

fn send(port: u16, command: &[u8]) {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(command).unwrap();
    let mut header = [0; 10];
    stream.read_exact(&mut header).unwrap();
    assert_eq!(header[6..], [0; 4], "the disturbance must succeed");
}
