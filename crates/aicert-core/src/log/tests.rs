use super::*;
use crate::digest::{BootLogDigest, ConfigDigest, FileDigest, ImageDigest};
use crate::event::{
    ExecutionOutcome, Gpu, LOG_SCHEMA, Network, Package, Pin, PinKind, Sealed, Tool, Variable,
};
use crate::tpm::TpmClock;
use crate::tree::{Entry, Tree};
use proptest::prelude::*;

fn time(second: i64) -> Timestamp {
    Timestamp::from_unix(1_767_225_600 + second)
}

fn file(path: &str) -> Entry {
    Entry::file(
        path.parse().unwrap(),
        false,
        path.len() as u64,
        FileDigest::of(path.as_bytes()),
    )
}

/// The contents of a small log in which every type occurs.
pub(crate) fn sample_contents() -> Vec<EventContent> {
    let image = ImageDigest::of(b"built");
    let weights = Tree::from_entries(vec![file("weights.bin")]).unwrap();
    vec![
        EventContent::JobOpened(JobOpened {
            schema: LOG_SCHEMA.into(),
            tool: Tool {
                name: "aicert".into(),
                version: "0.1.0".into(),
            },
            config: ConfigDigest::of(b"kind: python\n"),
            time: time(0),
            tpm: TpmClock {
                clock: 1234,
                reset_count: 2,
                restart_count: 0,
            },
            boot_event_log: BootLogDigest::of(b"boot"),
            banks: vec![PcrBank::Sha256, PcrBank::Sha384],
        }),
        EventContent::Machine(Machine {
            provider: "local".into(),
            instance_type: "x86_64".into(),
            region: "local".into(),
            gpus: vec![Gpu {
                model: "NVIDIA H200".into(),
                uuid: "GPU-1".into(),
                driver: "580.0".into(),
            }],
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
            tree: Tree::from_entries(vec![file("main.py"), file("é \"quoted\"\\.txt")])
                .unwrap()
                .measured(),
        }),
        EventContent::InputMeasured(InputMeasured {
            name: "weights".into(),
            kind: "file".into(),
            origin: "https://example.org/weights.bin".into(),
            requested: vec![Pin {
                kind: PinKind::Sha256,
                value: FileDigest::of(b"weights.bin").to_string(),
            }],
            resolved: vec![Pin {
                kind: PinKind::Sha256,
                value: FileDigest::of(b"weights.bin").to_string(),
            }],
            destination: "/workspace/resources/weights.bin".into(),
            tree: weights.measured(),
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
            time: time(5),
            image,
            command: vec!["python3".into(), "main.py".into()],
            working_directory: "/workspace/src".into(),
            environment: vec![Variable {
                name: "SEED".into(),
                value: "1".into(),
            }],
            network: Network::None,
            gpus: vec!["GPU-1".into()],
        }),
        EventContent::ExecutionFinished(ExecutionFinished {
            time: time(9),
            outcome: ExecutionOutcome::Exited,
            exit_code: 0,
            wall_milliseconds: 4000,
        }),
        EventContent::OutputsMeasured(OutputsMeasured {
            folder: "/workspace/outputs".into(),
            tree: Tree::from_entries(vec![file("model.bin")]).unwrap().measured(),
        }),
        EventContent::Closed(Closed {
            time: time(10),
            result: JobResult::Succeeded,
        }),
    ]
}

pub(crate) fn log_of(contents: Vec<EventContent>) -> Result<MeasurementLog, LogError> {
    MeasurementLog::from_events(
        contents
            .into_iter()
            .enumerate()
            .map(|(seq, content)| Event {
                seq: seq as u64,
                content,
            })
            .collect(),
    )
}

/// These bytes and digests are the format: if this test has to change, the schema's version has to.
#[test]
fn golden_vectors() {
    let log = log_of(sample_contents()).unwrap();
    let canonical =
        |index: usize| String::from_utf8(crate::canonical::to_jcs(&log.events()[index]).unwrap()).unwrap();
    assert_eq!(
        canonical(7),
        r#"{"content":{"events":7},"pcr":14,"seq":7,"type":"sealed"}"#
    );
    assert_eq!(
        canonical(11),
        r#"{"content":{"result":"succeeded","time":"2026-01-01T00:00:10Z"},"pcr":15,"seq":11,"type":"closed"}"#
    );
    assert_eq!(
        hex::encode(log.events()[7].digest(PcrBank::Sha256).unwrap()),
        "1e5546297d15ef88c9b9c57e3bb40be793f810c1811906a01a2793d8ec29904b"
    );
    assert_eq!(
        log.head().unwrap().to_string(),
        "sha256:228907917306eeedec38e360fd45685909b94ea09466063e2263a97f1824f12d"
    );
    assert_eq!(
        hex::encode(log.replay(PcrBank::Sha256, PcrIndex::INPUTS).unwrap()),
        "91483bd9b4a6cfa74202278a0e1aa7ac61310754d1cc07daeed74d59fa4d7f56"
    );
    assert_eq!(
        hex::encode(log.replay(PcrBank::Sha256, PcrIndex::OUTPUTS).unwrap()),
        "05deb632f9fe51584579512cc17d58b47e8cb4b6165b5126295035a3e347cd18"
    );
}

#[test]
fn events_survive_a_round_trip() {
    let log = log_of(sample_contents()).unwrap();
    let text = serde_json::to_vec_pretty(log.events()).unwrap();
    let read: Vec<Event> = crate::canonical::from_slice(&text, 100_000).unwrap();
    assert_eq!(MeasurementLog::from_events(read).unwrap(), log);
    let wrong_pcr = String::from_utf8(text)
        .unwrap()
        .replacen("\"pcr\": 15", "\"pcr\": 14", 1);
    let error = crate::canonical::from_slice::<Vec<Event>>(wrong_pcr.as_bytes(), 100_000).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("an event of type `execution_started` belongs to PCR 15, this one says PCR 14"),
        "{error}"
    );
}

proptest! {
    /// However events are dropped, doubled and swapped: only the order of the grammar is accepted.
    #[test]
    fn no_other_order_is_accepted(picks in proptest::collection::vec(0usize..12, 0..20)) {
        let contents = sample_contents();
        let chosen: Vec<_> = picks.iter().map(|pick| contents[*pick].clone()).collect();
        let complete = log_of(chosen).is_ok_and(|log| log.complete().is_ok());
        let one_input = [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11];
        let other_input = [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11];
        let both = (0..12).collect::<Vec<_>>();
        let swapped = [0, 1, 3, 2, 4, 5, 6, 7, 8, 9, 10, 11];
        // `sealed` counts what is before it, so only the logs with both inputs have the right count.
        prop_assert_eq!(complete, picks == both || picks == swapped);
        prop_assert!(!(complete && (picks == one_input || picks == other_input)));
    }
}

#[test]
fn every_prefix_is_incomplete_and_every_gap_is_refused() {
    let contents = sample_contents();
    for end in 0..contents.len() {
        let log = log_of(contents[..end].to_vec()).unwrap();
        assert!(
            matches!(log.complete(), Err(LogError::Incomplete { .. })),
            "{end}"
        );
        for (pick, content) in contents.iter().enumerate() {
            let may_come = log.next_event(content.clone()).is_ok();
            // The inputs may come in any order, and one of them is enough for the grammar.
            let other_ways = [(2, 3), (3, 4)];
            assert_eq!(
                may_come,
                pick == end || other_ways.contains(&(end, pick)),
                "{pick} after {end}"
            );
        }
    }
    let mut events: Vec<_> = log_of(contents).unwrap().events().to_vec();
    events.remove(3);
    assert_eq!(
        MeasurementLog::from_events(events),
        Err(LogError::Sequence {
            expected: 3,
            found: 4
        })
    );
}

/// Each contradiction, with the words that name it.
#[test]
fn contradictions_are_refused() {
    type Change = fn(&mut EventContent);
    let cases: Vec<(usize, Change, &str)> = vec![
        (
            0,
            |c| {
                if let EventContent::JobOpened(o) = c {
                    o.schema = "aicert/log/v9".into()
                }
            },
            "this software reads",
        ),
        (
            0,
            |c| {
                if let EventContent::JobOpened(o) = c {
                    o.banks.clear()
                }
            },
            "PCR banks are none",
        ),
        (
            3,
            |c| {
                if let EventContent::InputMeasured(i) = c {
                    i.name = "code".into()
                }
            },
            "a second input has the name \"code\"",
        ),
        (
            3,
            |c| {
                if let EventContent::InputMeasured(i) = c {
                    i.destination = "/workspace/src".into()
                }
            },
            "a second input has the destination",
        ),
        (
            3,
            |c| {
                if let EventContent::InputMeasured(i) = c {
                    i.requested[0].value = FileDigest::of(b"other").to_string()
                }
            },
            "was asked for as sha256:",
        ),
        (
            3,
            |c| {
                if let EventContent::InputMeasured(i) = c {
                    i.resolved.clear()
                }
            },
            "nothing of that kind was measured",
        ),
        (
            3,
            |c| {
                if let EventContent::InputMeasured(i) = c {
                    (i.requested[0].value, i.resolved[0].value) =
                        (FileDigest::of(b"x").to_string(), FileDigest::of(b"x").to_string());
                }
            },
            "what was measured is",
        ),
        (
            3,
            |c| {
                if let EventContent::InputMeasured(i) = c {
                    i.tree.bytes += 1
                }
            },
            "total size",
        ),
        (
            3,
            |c| {
                if let EventContent::InputMeasured(i) = c {
                    i.tree.listing = None
                }
            },
            "listing",
        ),
        (
            7,
            |c| {
                if let EventContent::Sealed(s) = c {
                    s.events = 6
                }
            },
            "it seals 6 events, the log has 7",
        ),
        (
            8,
            |c| {
                if let EventContent::ExecutionStarted(s) = c {
                    s.image = ImageDigest::of(b"other")
                }
            },
            "the one that was built is",
        ),
        (
            8,
            |c| {
                if let EventContent::ExecutionStarted(s) = c {
                    s.gpus.push("GPU-2".into())
                }
            },
            "GPU \"GPU-2\", which the machine does not have",
        ),
        (
            9,
            |c| {
                if let EventContent::ExecutionFinished(f) = c {
                    f.exit_code = 1
                }
            },
            "exit status and outputs mean Failed",
        ),
        (
            9,
            |c| {
                if let EventContent::ExecutionFinished(f) = c {
                    f.outcome = ExecutionOutcome::TimedOut
                }
            },
            "exit status and outputs mean Failed",
        ),
        (
            10,
            |c| {
                if let EventContent::OutputsMeasured(o) = c {
                    o.tree = Tree::from_entries(vec![]).unwrap().measured()
                }
            },
            "exit status and outputs mean Failed",
        ),
        (
            11,
            |c| {
                if let EventContent::Closed(o) = c {
                    o.result = JobResult::Failed
                }
            },
            "exit status and outputs mean Succeeded",
        ),
    ];
    for (index, change, words) in cases {
        let mut contents = sample_contents();
        change(&mut contents[index]);
        assert_ne!(contents[index], sample_contents()[index]);
        let error = log_of(contents).unwrap_err();
        assert!(
            error.to_string().contains(words),
            "{error} does not say {words:?}"
        );
    }
}

#[test]
fn packages_are_sorted_and_unique() {
    for names in [["b", "a"], ["a", "a"]] {
        let mut contents = sample_contents();
        if let EventContent::DependenciesMeasured(dependencies) = &mut contents[5] {
            dependencies.packages = names
                .iter()
                .map(|name| Package {
                    name: (*name).into(),
                    version: "1".into(),
                    file: format!("{name}.whl"),
                    hash: FileDigest::of(b""),
                })
                .collect();
        }
        assert!(
            log_of(contents)
                .unwrap_err()
                .to_string()
                .contains("not sorted by name, or one stands twice")
        );
    }
}
