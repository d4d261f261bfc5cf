//! The measurement log and the summaries. What is forged here was really extended and really quoted, unless a test says
//! otherwise: the log alone must give it away.

use aicert_core::event::*;
use aicert_core::tpm::PcrIndex;
use aicert_verify::log::LogFault;
use aicert_verify::quote::QuoteFault;
use aicert_verify::summary::SummaryFault;
use aicert_verify::{Cause, Unverified, verify};

use crate::support::*;

fn proof(contents: Vec<EventContent>) -> aicert_core::certificate::Certificate {
    Recipe {
        contents,
        ..Recipe::default()
    }
    .build()
}

/// The honest contents in another order, or fewer, or some twice.
fn picked(picks: &[usize]) -> Vec<EventContent> {
    let contents = contents();
    picks.iter().map(|pick| contents[*pick].clone()).collect()
}

#[test]
fn an_empty_log_with_untouched_pcrs_is_refused() {
    refused!(
        check(&proof(Vec::new())),
        Cause::Log(LogFault::Incomplete { found: 0, .. }) | Cause::Quote(QuoteFault::NotOpened {}),
        "the log ends after 0 events, where it must go on with `job_opened`"
    );
}

/// What a machine is told of itself is measured as it was told.
#[test]
fn a_machine_of_somebody_who_does_not_vouch_for_it_is_refused() {
    for provider in ["azure", "gcp"] {
        let mut contents = contents();
        for content in &mut contents {
            if let EventContent::Machine(machine) = content {
                machine.provider = provider.into();
            }
        }
        refused!(
            check(&proof(contents)),
            Cause::Log(LogFault::AnotherProvider { said, .. }) if said == provider,
            "what vouches for its TPM is local-ca"
        );
    }
}

#[test]
fn a_log_that_ends_early_is_refused() {
    for end in 1..12 {
        let contents = picked(&(0..end).collect::<Vec<_>>());
        refused!(
            check(&proof(contents)),
            Cause::Log(LogFault::Incomplete { found, .. }) if *found == end as u64,
            "the job was not recorded to its end"
        );
    }
}

#[test]
fn events_out_of_order_are_refused() {
    for (picks, cause) in [
        (
            &[0, 1, 2, 3, 4, 5, 6, 10, 7, 8, 9, 11][..],
            "event 7 is `outputs_measured`, where the log may only go on with `sealed`",
        ),
        (
            &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 10],
            "event 12 is `outputs_measured`, where the log may only go on with nothing: it is closed",
        ),
        (
            &[0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
            "event 1 is `job_opened`",
        ),
        (
            &[0, 1, 2, 3, 4, 5, 6, 7, 2, 8, 9, 10, 11],
            "event 8 is `input_measured`",
        ),
        (
            &[0, 1, 4, 5, 6, 7, 8, 9, 10, 11],
            "event 2 is `image_resolved`, where the log may only go on with `input_measured`",
        ),
        (
            &[0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11],
            "event 7 is `execution_started`, where the log may only go on with `sealed`",
        ),
    ] {
        refused!(
            check(&proof(picked(picks))),
            Cause::Log(LogFault::Order { .. }),
            cause
        );
    }
    let mut certificate = proof(contents());
    certificate.measurement_log[3].seq = 4;
    refused_also!(
        check(&certificate),
        Cause::Log(LogFault::Sequence {
            expected: 3,
            found: 4
        }),
        "numbered from 0 without gaps"
    );
}

#[test]
fn a_pcr_that_was_not_zero_when_the_job_opened_is_refused() {
    let certificate = Recipe {
        pcr14: Some(vec![9; 32]),
        ..Recipe::default()
    }
    .build();
    refused!(
        check(&certificate),
        Cause::Log(LogFault::Replay {
            pcr: PcrIndex::INPUTS,
            ..
        }),
        "the PCR was not zero when the job was opened"
    );
}

#[test]
fn the_pcr_of_the_outputs_is_held_to_zero_as_well() {
    let certificate = Recipe {
        quoted: |pcrs| {
            let bank = aicert_core::tpm::PcrBank::Sha256;
            let events = number(contents());
            let value = events
                .iter()
                .filter(|event| event.content.pcr() == PcrIndex::OUTPUTS)
                .fold(vec![9; 32], |value, event| {
                    bank.extend(&value, &event.digest(bank).unwrap())
                });
            pcrs.0.insert(PcrIndex::OUTPUTS, value);
        },
        ..Recipe::default()
    }
    .build();
    refused!(
        check(&certificate),
        Cause::Log(LogFault::Replay {
            pcr: PcrIndex::OUTPUTS,
            ..
        }),
        "the PCR was not zero when the job was opened"
    );
}

#[test]
fn an_event_changed_removed_or_added_after_the_quote_is_refused() {
    let changed = with!(OutputsMeasured, |outputs| outputs.tree =
        tree(&[("model/weights.bin", b"other weights")]));
    for recipe in [
        Recipe {
            contents: changed,
            extended: Some(contents()),
            ..Recipe::default()
        },
        Recipe {
            extended: Some(picked(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])),
            ..Recipe::default()
        },
    ] {
        refused!(
            check(&recipe.build()),
            Cause::Log(LogFault::Replay {
                pcr: PcrIndex::OUTPUTS,
                ..
            }),
            "PCR 15 is"
        );
    }
}

#[test]
fn an_input_that_is_not_what_was_asked_for_is_refused() {
    let other = format!("sha1:{}", "cd".repeat(20));
    let wrong_commit = with!(InputMeasured, |input| if input.name == "code" {
        input.requested = vec![Pin {
            kind: PinKind::Commit,
            value: other.clone(),
        }];
    });
    refused!(
        check(&proof(wrong_commit)),
        Cause::Log(LogFault::Content {
            seq: 2,
            kind: "input_measured",
            ..
        }),
        &format!("was asked for as {other}, but {COMMIT} was measured")
    );
    let wrong_hash = with!(InputMeasured, |input| if input.name == "data" {
        input.tree = tree(&[("data.bin", b"poisoned")]);
    });
    refused!(
        check(&proof(wrong_hash)),
        Cause::Log(LogFault::Content { seq: 3, .. }),
        "is said to have resolved to"
    );
}

#[test]
fn another_spelling_of_the_same_log_is_refused() {
    let text = proof(contents()).to_json();
    for (from, to, cause) in [
        ("\"aicert\"", "\"\\u0061icert\"", "found \"\\\\u0061icert"),
        ("\"seq\": 0", "\"seq\": 0.0", "floating point"),
        ("\"seq\": 1", "\"seq\": 1e0", "floating point"),
        ("\"seq\": 2", "\"seq\": 02", "invalid number"),
        ("\"pcr\": 14", "\"pcr\": 15", "belongs to PCR 14"),
        (
            "\"seq\": 0,",
            "\"seq\": 0,\n\"seq\": 0,",
            "expected `pcr` in an event, found `seq`",
        ),
        (
            "\"schema\": \"aicert/log/v1\",",
            "\"schema\": \"aicert/log/v1\", \"schema\": \"aicert/log/v1\",",
            "duplicate field `schema`",
        ),
        ("\"exit_code\": 0", "\"exit_code\": null", "null"),
        ("\"exit_code\": 0", "\"exit_code\": -0", "floating point"),
        ("\"sealed\"", "\"stamped\"", "unknown variant `stamped`"),
    ] {
        assert!(text.contains(from), "{from}");
        let forged = text.replacen(from, to, 1);
        let rejection = Unverified::from_slice(forged.as_bytes()).unwrap_err();
        refused!(Err::<(), _>(rejection), Cause::Parse(_), cause);
    }
    // Key order.
    let swapped = text.replacen(
        "\"version\": \"v1\",\n  \"result\": \"succeeded\",",
        "\"result\": \"succeeded\",\n  \"version\": \"v1\",",
        1,
    );
    assert_ne!(swapped, text);
    refused!(
        Unverified::from_slice(swapped.as_bytes()),
        Cause::Parse(_),
        "found \"result"
    );
    // White space is insignificant.
    let spaced = text.replace('\n', "\r\n\t ");
    verify(Unverified::from_slice(spaced.as_bytes()).unwrap(), &options()).unwrap();
}

#[test]
fn summaries_that_differ_from_the_log_are_refused_by_name() {
    type Change = fn(&mut aicert_core::certificate::Certificate);
    let changes: [(Change, &str); 9] = [
        (|c| c.result = JobResult::Failed, "`result` is \"failed\""),
        (
            |c| c.inputs[0].hash = "sha1:00".into(),
            "`inputs[0].hash` is \"sha1:00\"",
        ),
        (
            |c| c.inputs[1].download_url = "https://elsewhere".into(),
            "`inputs[1].download_url`",
        ),
        (
            |c| c.inputs.truncate(1),
            "`inputs` is 1 entries; from the log and the trust anchor follows 2 entries",
        ),
        (|c| c.outputs[0].size = 1, "`outputs[0].size` is 1"),
        (|c| c.output_model_hash = tree(&[]).root, "`output_model_hash`"),
        (
            |c| c.platform.region = "\u{1b}[2J".into(),
            "`platform.region` is \"\\u{1b}[2J\"",
        ),
        (|c| c.platform.simulated = false, "`platform.simulated` is false"),
        (
            |c| c.platform_hash = aicert_core::digest::PlatformHash::of(b""),
            "`platform_hash`",
        ),
    ];
    for (change, text) in changes {
        let mut certificate = proof(contents());
        change(&mut certificate);
        refused!(
            check(&certificate),
            Cause::Summary(SummaryFault::Differs { .. }),
            text
        );
    }
}

fn failed(outcome: ExecutionOutcome, code: u64) -> Vec<EventContent> {
    let mut contents = contents();
    for content in &mut contents {
        match content {
            EventContent::ExecutionFinished(finished) => {
                (finished.outcome, finished.exit_code) = (outcome, code)
            }
            EventContent::Closed(closed) => closed.result = JobResult::Failed,
            _ => {}
        }
    }
    contents
}

#[test]
fn a_failed_job_is_no_certificate_of_a_model_but_can_be_inspected() {
    for (outcome, code, text) in [
        (
            ExecutionOutcome::Exited,
            3,
            "the job failed (it exited with 3, and left 2 output files)",
        ),
        (ExecutionOutcome::TimedOut, 137, "its time limit was reached"),
        (ExecutionOutcome::OutOfMemory, 0, "its memory limit was reached"),
    ] {
        let certificate = proof(failed(outcome, code));
        refused!(check(&certificate), Cause::Log(LogFault::JobFailed { .. }), text);
        let verified = check_with(&certificate, &options().accepting_failed_jobs()).unwrap();
        assert!(!verified.is_of_a_model());
        assert_eq!(verified.log().finished.exit_code, code);
    }
}

#[test]
fn a_job_without_outputs_is_no_certificate_of_a_model() {
    let mut contents = with!(OutputsMeasured, |outputs| outputs.tree = tree(&[]));
    refused!(
        check(&proof(contents.clone())),
        Cause::Log(LogFault::Content { kind: "closed", .. }),
        "exit status and outputs mean Failed"
    );
    let Some(EventContent::Closed(closed)) = contents.last_mut() else {
        panic!()
    };
    closed.result = JobResult::Failed;
    refused!(
        check(&proof(contents)),
        Cause::Log(LogFault::JobFailed { .. }),
        "it exited with 0, and left 0 output files"
    );
}

#[test]
fn a_failure_called_success_is_refused() {
    let contents = with!(ExecutionFinished, |finished| finished.exit_code = 1);
    refused!(
        check(&proof(contents)),
        Cause::Log(LogFault::Content { kind: "closed", .. }),
        "it says Succeeded"
    );
}

#[test]
fn what_accepts_failed_jobs_accepts_nothing_else() {
    let certificate = Recipe {
        contents: failed(ExecutionOutcome::Exited, 1),
        extended: Some(contents()),
        ..Recipe::default()
    };
    refused!(
        check_with(&certificate.build(), &options().accepting_failed_jobs()),
        Cause::Log(LogFault::Replay { .. }),
        "PCR 15 is"
    );
}

/// One example of each rule; the log's own tests have them all.
#[test]
fn a_log_that_makes_no_sense_is_refused_though_it_was_recorded() {
    let outside = with!(InputMeasured, |input| if input.name == "code" {
        input.destination = "/etc".into();
    });
    let over_inputs = with!(OutputsMeasured, |outputs| outputs.folder =
        "/workspace/src/out".into());
    let two_commits = with!(InputMeasured, |input| if input.name == "code" {
        input.resolved.push(Pin {
            kind: PinKind::Commit,
            value: format!("sha1:{}", "cd".repeat(20)),
        });
    });
    let no_commit = with!(InputMeasured, |input| if input.name == "code" {
        input.resolved.clear();
    });
    let another_image = with!(ImageResolved, |image| image.requested =
        format!("python@{}", aicert_core::digest::ImageDigest::of(b"other")));
    let back_in_time = with!(Closed, |closed| closed.time =
        aicert_core::time::Timestamp::from_unix(0));
    for (contents, cause) in [
        (outside, "its destination is \"/etc\""),
        (over_inputs, "apart from the inputs"),
        (two_commits, "two things of one kind"),
        (no_commit, "does not say which commit it is"),
        (another_image, "the image was asked for as sha256:"),
        (back_in_time, "before that of an earlier event"),
    ] {
        refused!(
            check(&proof(contents)),
            Cause::Log(LogFault::Content { .. }),
            cause
        );
    }
}

#[test]
fn text_in_a_log_cannot_fool_a_terminal() {
    let hostile = "\u{1b}[2J\u{202e}verified";
    let name = with!(InputMeasured, |input| if input.name == "code" {
        input.name = hostile.into();
    });
    let pins = with!(InputMeasured, |input| if input.name == "code" {
        for pins in [&mut input.requested, &mut input.resolved] {
            *pins = vec![Pin {
                kind: PinKind::Commit,
                value: hostile.into(),
            }];
        }
    });
    for contents in [name, pins] {
        let rejection = check(&proof(contents)).unwrap_err().to_string();
        assert!(rejection.contains("holds a control character"), "{rejection:?}");
        assert!(!rejection.contains(['\u{1b}', '\u{202e}']), "{rejection:?}");
    }
    // Not even when the file cannot be read.
    let text = proof(contents()).to_json();
    for forged in [
        text.replacen("\"version\"", "\"\\u001b[2J\\u202e\": 1, \"version\"", 1),
        text.replacen("\"sealed\"", "\"\\u001b[2J\\u202e\"", 1),
        text.replacen("\"seq\"", "\"\\u001b[2J\\u202e\"", 1),
        text.replacen(
            "\"version\"",
            &format!("\"{}\": 1, \"version\"", "x".repeat(1 << 20)),
            1,
        ),
    ] {
        assert_ne!(forged, text);
        let rejection = Unverified::from_slice(forged.as_bytes()).unwrap_err().to_string();
        assert!(!rejection.contains(['\u{1b}', '\u{202e}']), "{rejection:?}");
        assert!(rejection.len() < 2_000, "{} bytes", rejection.len());
    }
}

#[test]
fn outputs_without_a_byte_are_no_model() {
    let link = aicert_core::tree::Entry::symlink("model".parse().unwrap(), "nowhere".into()).unwrap();
    let link = aicert_core::tree::Tree::from_entries(vec![link])
        .unwrap()
        .measured();
    for outputs in [link, tree(&[("model.bin", b"")])] {
        let mut contents = with!(OutputsMeasured, |measured| measured.tree = outputs.clone());
        refused!(
            check(&proof(contents.clone())),
            Cause::Log(LogFault::Content { kind: "closed", .. }),
            "exit status and outputs mean Failed"
        );
        if let Some(EventContent::Closed(closed)) = contents.last_mut() {
            closed.result = JobResult::Failed;
        }
        refused!(
            check(&proof(contents)),
            Cause::Log(LogFault::JobFailed { .. }),
            "left 1 output files, all of them empty"
        );
    }
}
