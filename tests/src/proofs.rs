//! Proofs made on a real (software) TPM without a container engine, one step at a time, so that a test can do any step
//! in a way that an honest pipeline never would.

use std::collections::BTreeMap;

use aicert_core::certificate::{
    Base64, Certificate, LowLevelQuote, PlatformKind, Summaries, Version, qualifying_data,
};
use aicert_core::digest::{BootLogDigest, ConfigDigest, FileDigest, ImageDigest, Nonce};
use aicert_core::event::{
    Closed, ContainerBuilt, DependenciesMeasured, Event, EventContent, ExecutionFinished, ExecutionOutcome,
    ExecutionStarted, ImageResolved, InputMeasured, JobOpened, JobResult, LOG_SCHEMA, Machine, Network,
    OutputsMeasured, Package, Pin, PinKind, Sealed, Tool, Variable,
};
use aicert_core::log::{MeasurementLog, head_of};
use aicert_core::time::Timestamp;
use aicert_core::tpm::{PcrBank, PcrIndex, Quote, TpmBackend};
use aicert_core::tree::{Entry, Tree};

/// The nonce of every proof made here.
pub const NONCE: Nonce = Nonce::from_bytes([7; 32]);

/// The bytes of the only output, `model.bin`.
pub const MODEL: &[u8] = b"weights";

fn tree_of(files: &[(&str, &[u8])]) -> Tree {
    let entries = files.iter().map(|(path, bytes)| {
        let path = path.parse().expect("test paths are valid");
        Entry::file(path, false, bytes.len() as u64, FileDigest::of(bytes))
    });
    Tree::from_entries(entries.collect()).expect("test trees are valid")
}

/// The contents of an honest log on this TPM, in order.
pub async fn honest_contents(tpm: &dyn TpmBackend) -> Vec<EventContent> {
    let image = ImageDigest::of(b"image");
    let data = FileDigest::of(b"data").to_string();
    let now = Timestamp::now();
    vec![
        EventContent::JobOpened(JobOpened {
            schema: LOG_SCHEMA.into(),
            tool: Tool {
                name: "aicert".into(),
                version: "0.0.0-test".into(),
            },
            config: ConfigDigest::of(b"kind: python\n"),
            time: now,
            tpm: tpm.clock().await.expect("the clock of a TPM can be read"),
            boot_event_log: BootLogDigest::of(
                &tpm.boot_event_log()
                    .await
                    .expect("the boot log of a TPM can be read"),
            ),
            banks: tpm.capabilities().banks.clone(),
        }),
        EventContent::Machine(Machine {
            provider: "local".into(),
            instance_type: "x86_64".into(),
            region: "local".into(),
            gpus: vec![],
        }),
        EventContent::InputMeasured(InputMeasured {
            name: "code".into(),
            kind: "git".into(),
            origin: "https://example.org/code.git".into(),
            requested: vec![Pin {
                kind: PinKind::Tag,
                value: "v1".into(),
            }],
            resolved: vec![Pin {
                kind: PinKind::Commit,
                value: format!("sha1:{}", "ab".repeat(20)),
            }],
            destination: "/workspace/src".into(),
            tree: tree_of(&[("main.py", b"print()"), ("requirements.txt", b"numpy==2.0.0\n")]).measured(),
        }),
        EventContent::InputMeasured(InputMeasured {
            name: "data".into(),
            kind: "file".into(),
            origin: "https://example.org/data.bin".into(),
            requested: vec![Pin {
                kind: PinKind::Sha256,
                value: data.clone(),
            }],
            resolved: vec![Pin {
                kind: PinKind::Sha256,
                value: data,
            }],
            destination: "/workspace/resources/data.bin".into(),
            tree: tree_of(&[("data.bin", b"data")]).measured(),
        }),
        EventContent::ImageResolved(ImageResolved {
            requested: "aicert/python:3.11".into(),
            digest: ImageDigest::of(b"base"),
        }),
        EventContent::DependenciesMeasured(DependenciesMeasured {
            packages: vec![Package {
                name: "numpy".into(),
                version: "2.0.0".into(),
                file: "numpy-2.0.0-py3-none-any.whl".into(),
                hash: FileDigest::of(b"numpy"),
            }],
        }),
        EventContent::ContainerBuilt(ContainerBuilt { image }),
        EventContent::Sealed(Sealed { events: 7 }),
        EventContent::ExecutionStarted(ExecutionStarted {
            time: now,
            image,
            command: vec!["python3".into(), "main.py".into()],
            working_directory: "/workspace/src".into(),
            environment: vec![Variable {
                name: "SEED".into(),
                value: "1".into(),
            }],
            network: Network::None,
            gpus: vec![],
        }),
        EventContent::ExecutionFinished(ExecutionFinished {
            time: now,
            outcome: ExecutionOutcome::Exited,
            exit_code: 0,
            wall_milliseconds: 4000,
        }),
        EventContent::OutputsMeasured(OutputsMeasured {
            folder: "/workspace/outputs".into(),
            tree: tree_of(&[("model.bin", MODEL)]).measured(),
        }),
        EventContent::Closed(Closed {
            time: now,
            result: JobResult::Succeeded,
        }),
    ]
}

/// Numbers contents, whatever their order.
pub fn events(contents: &[EventContent]) -> Vec<Event> {
    contents
        .iter()
        .enumerate()
        .map(|(seq, content)| Event {
            seq: seq as u64,
            content: content.clone(),
        })
        .collect()
}

/// Extends events into every active bank, whatever their order.
pub async fn extend(tpm: &dyn TpmBackend, events: &[Event]) {
    for event in events {
        let digest = |bank: &PcrBank| {
            (
                *bank,
                event.digest(*bank).expect("test events have a canonical form"),
            )
        };
        let digests: BTreeMap<_, _> = tpm.capabilities().banks.iter().map(digest).collect();
        tpm.extend(event.content.pcr(), &digests).await.expect("extend");
    }
}

/// A quote over PCRs 0 to 15 of `bank` for these events.
pub async fn quote(tpm: &dyn TpmBackend, bank: PcrBank, events: &[Event]) -> Quote {
    let pcrs: Vec<_> = PcrIndex::quoted().collect();
    tpm.quote(
        bank,
        &pcrs,
        &qualifying_data(
            &head_of(events).expect("test events have a canonical form"),
            &NONCE,
        ),
    )
    .await
    .expect("quote")
}

/// Puts a certificate together. The summaries are those of the events when they are a complete log, else those of
/// `honest`, which must be one.
pub async fn assemble(tpm: &dyn TpmBackend, events: &[Event], honest: &[Event], quote: Quote) -> Certificate {
    let log = MeasurementLog::from_events(events.to_vec())
        .ok()
        .filter(|log| log.complete().is_ok())
        .unwrap_or_else(|| MeasurementLog::from_events(honest.to_vec()).expect("the honest log is a log"));
    let complete = log.complete().expect("the log is complete");
    let summaries =
        Summaries::derive(&complete, PlatformKind::LocalCa).expect("summaries have a canonical form");
    let key = tpm.attestation_key().await.expect("attestation key");
    Certificate {
        version: Version::V1,
        result: summaries.result,
        inputs: summaries.inputs,
        outputs: summaries.outputs,
        output_model_hash: summaries.output_model_hash,
        platform: summaries.platform,
        platform_hash: summaries.platform_hash,
        measurement_log: events.to_vec(),
        boot_event_log: Base64(tpm.boot_event_log().await.expect("boot log")),
        low_level_quote: LowLevelQuote {
            bank: quote.bank,
            pcrs: quote.pcrs,
            attest: Base64(quote.attest),
            nonce: NONCE,
        },
        signature: Base64(quote.signature),
        attestation_key: key.map(Into::into).unwrap_or_default(),
        timestamp: (),
    }
}

/// A proof of these contents, extended and quoted as an honest pipeline would.
pub async fn certify(tpm: &dyn TpmBackend, contents: &[EventContent]) -> Certificate {
    let honest = events(&honest_contents(tpm).await);
    let events = events(contents);
    extend(tpm, &events).await;
    let quote = quote(tpm, PcrBank::Sha256, &events).await;
    assemble(tpm, &events, &honest, quote).await
}
