//! Forgeries by somebody with full power over a machine and its software TPM. Each must be rejected for its own reason.
//!
//! What can be forged without a TPM is in the tests of `aicert-verify`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use aicert_core::certificate::{Base64, Certificate, qualifying_data};
use aicert_core::digest::FileDigest;
use aicert_core::event::{EventContent, JobResult, Pin, PinKind};
use aicert_core::log::head_of;
use aicert_core::time::Timestamp;
use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues, Quote, TpmBackend};
use aicert_swtpm_testing::{KeyAlgorithm, KeyTemplate, SignedAttestation, SimulatedTpm, SimulationOptions};
use aicert_tests::proofs::{self, NONCE};
use aicert_tests::tools;
use aicert_verify::{Options, Rejection, TrustAnchors, Unverified, Verified, verify};

async fn start() -> Option<SimulatedTpm> {
    start_with(SimulationOptions::new(KeyAlgorithm::EccP256)).await
}

async fn start_with(options: SimulationOptions) -> Option<SimulatedTpm> {
    if !tools::have("swtpm") {
        return None;
    }
    Some(SimulatedTpm::start(options).await.expect("a software TPM starts"))
}

macro_rules! tpm_or_skip {
    ($start:expr) => {
        match $start.await {
            Some(tpm) => tpm,
            None => return,
        }
    };
}

fn check(tpm: &SimulatedTpm, certificate: &Certificate) -> Result<Verified<Certificate>, Rejection> {
    let anchors = TrustAnchors::pinned()
        .with_root(tpm.root_pem().as_bytes())
        .expect("the CA is an anchor");
    let unverified = Unverified::from_slice(certificate.to_json().as_bytes())?;
    verify(unverified, &Options::new(anchors, Timestamp::now()))
}

/// Asserts that a proof is rejected, and that one of the reasons is `cause`, in words that say `words`.
#[track_caller]
fn rejected(tpm: &SimulatedTpm, certificate: &Certificate, cause: &str, words: &str) {
    let rejection = check(tpm, certificate).expect_err("a forged proof was accepted");
    let found: Vec<_> = rejection
        .failures()
        .iter()
        .map(|failure| (failure.cause().name(), failure.to_string()))
        .collect();
    assert!(
        found
            .iter()
            .any(|(name, text)| *name == cause && text.contains(words)),
        "no {cause} that says {words:?} in {found:#?}"
    );
}

fn pcr(index: u8) -> PcrIndex {
    PcrIndex::new(index).expect("tests name existing PCRs")
}

#[tokio::test]
async fn honest_proofs_hold_with_either_kind_of_key() {
    for algorithm in [KeyAlgorithm::EccP256, KeyAlgorithm::Rsa2048] {
        let tpm = tpm_or_skip!(start_with(SimulationOptions::new(algorithm)));
        let certificate = proofs::certify(&tpm, &proofs::honest_contents(&tpm).await).await;
        let verified = check(&tpm, &certificate).expect("an honest proof holds");
        assert!(verified.is_simulated());
        assert!(verified.is_of_a_model());
    }
}

#[tokio::test]
async fn a_simulated_proof_does_not_hold_without_its_trust_anchor() {
    let tpm = tpm_or_skip!(start());
    let certificate = proofs::certify(&tpm, &proofs::honest_contents(&tpm).await).await;
    let other = tpm_or_skip!(start());
    rejected(
        &other,
        &certificate,
        "UnknownSimulatedRoot",
        "was not given as a trust anchor",
    );
    let unverified = Unverified::from_slice(certificate.to_json().as_bytes()).unwrap();
    assert!(
        verify(
            unverified,
            &Options::new(TrustAnchors::pinned(), Timestamp::now())
        )
        .is_err()
    );
}

#[tokio::test]
async fn the_leaf_certifies_one_key_and_another_signs() {
    let tpm = tpm_or_skip!(start());
    let other = tpm_or_skip!(start());
    let honest = proofs::certify(&tpm, &proofs::honest_contents(&tpm).await).await;
    let mut forged = proofs::certify(&other, &proofs::honest_contents(&other).await).await;
    forged.attestation_key.certificate_chain = honest.attestation_key.certificate_chain.clone();
    rejected(
        &tpm,
        &forged,
        "NotTheCertifiedKey",
        "is not the key that the first certificate of the chain is for",
    );
    forged.attestation_key = honest.attestation_key.clone();
    rejected(&tpm, &forged, "Signature", "");
}

#[tokio::test]
async fn a_key_that_is_not_restricted_signs_a_made_up_quote() {
    let mut template = KeyTemplate::attestation(KeyAlgorithm::EccP256);
    template.restricted = false;
    let options = SimulationOptions::new(KeyAlgorithm::EccP256).dangerous_with_key(template);
    let tpm = tpm_or_skip!(start_with(options));
    // Nothing is ever extended: PCR values and the signed structure are written by hand.
    let events = proofs::events(&proofs::honest_contents(&tpm).await);
    let log = aicert_core::log::MeasurementLog::from_events(events.clone()).unwrap();
    let mut quote = proofs::quote(&tpm, PcrBank::Sha256, &events).await;
    let real_digest = PcrBank::Sha256.hash(&quote.pcrs.0.values().map(Vec::as_slice).collect::<Vec<_>>());
    for index in [PcrIndex::INPUTS, PcrIndex::OUTPUTS] {
        quote
            .pcrs
            .0
            .insert(index, log.replay(PcrBank::Sha256, index).unwrap());
    }
    let made_up = PcrBank::Sha256.hash(&quote.pcrs.0.values().map(Vec::as_slice).collect::<Vec<_>>());
    let at = quote
        .attest
        .windows(32)
        .position(|window| window == real_digest)
        .unwrap();
    quote.attest[at..at + 32].copy_from_slice(&made_up);
    quote.signature = tpm
        .sign_anything(&quote.attest)
        .await
        .expect("an unrestricted key signs anything");
    let forged = proofs::assemble(&tpm, &events, &events, quote).await;
    rejected(&tpm, &forged, "Attributes", "restricted");
}

#[tokio::test]
async fn a_key_that_can_leave_its_tpm_is_refused() {
    let mut template = KeyTemplate::attestation(KeyAlgorithm::EccP256);
    template.fixed = false;
    template.restricted = false; // a restricted key that can be duplicated is not made by a TPM
    let options = SimulationOptions::new(KeyAlgorithm::EccP256).dangerous_with_key(template);
    let tpm = tpm_or_skip!(start_with(options));
    let forged = proofs::certify(&tpm, &proofs::honest_contents(&tpm).await).await;
    rejected(&tpm, &forged, "Attributes", "fixedTPM");
}

/// A proof whose quote is something else that the right key signed.
async fn with_attestation(tpm: &SimulatedTpm, signed: SignedAttestation) -> Certificate {
    let mut certificate = proofs::certify(tpm, &proofs::honest_contents(tpm).await).await;
    certificate.low_level_quote.attest = Base64(signed.attest);
    certificate.signature = Base64(signed.signature);
    certificate
}

#[tokio::test]
async fn attestations_of_other_types_are_no_quotes() {
    let tpm = tpm_or_skip!(start());
    let certified = tpm.certify_itself(&[1; 32]).await.unwrap();
    rejected(&tpm, &with_attestation(&tpm, certified).await, "Type", "8017");
    let tpm = tpm_or_skip!(start());
    let time = tpm.sign_time(&[1; 32]).await.unwrap();
    rejected(&tpm, &with_attestation(&tpm, time).await, "Type", "8019");
}

#[tokio::test]
async fn resettable_pcrs_are_shown_as_14_and_15() {
    let tpm = tpm_or_skip!(start());
    let events = proofs::events(&proofs::honest_contents(&tpm).await);
    // The log goes into PCR 16 and 23, which anybody can reset, so that a log of one's choice can be replayed at any time.
    for event in &events {
        let shadow = if event.content.pcr() == PcrIndex::INPUTS {
            pcr(16)
        } else {
            pcr(23)
        };
        let digests = tpm
            .capabilities()
            .banks
            .iter()
            .map(|bank| (*bank, event.digest(*bank).unwrap()))
            .collect();
        tpm.extend(shadow, &digests).await.unwrap();
    }
    let selection: Vec<_> = (0..14).chain([16, 23]).map(pcr).collect();
    let data = qualifying_data(&head_of(&events).unwrap(), &NONCE);
    let Quote {
        bank,
        pcrs,
        attest,
        signature,
    } = tpm.quote(PcrBank::Sha256, &selection, &data).await.unwrap();
    let shown = pcrs.0.into_iter().map(|(index, value)| match index.as_u8() {
        16 => (PcrIndex::INPUTS, value),
        23 => (PcrIndex::OUTPUTS, value),
        _ => (index, value),
    });
    let quote = Quote {
        bank,
        pcrs: PcrValues(shown.collect()),
        attest,
        signature,
    };
    let forged = proofs::assemble(&tpm, &events, &events, quote).await;
    rejected(&tpm, &forged, "Selection", "16");
}

#[tokio::test]
async fn a_quote_over_fewer_pcrs_is_refused() {
    let tpm = tpm_or_skip!(start());
    let events = proofs::events(&proofs::honest_contents(&tpm).await);
    proofs::extend(&tpm, &events).await;
    let data = qualifying_data(&head_of(&events).unwrap(), &NONCE);
    let quote = tpm
        .quote(PcrBank::Sha256, &[PcrIndex::INPUTS, PcrIndex::OUTPUTS], &data)
        .await
        .unwrap();
    let forged = proofs::assemble(&tpm, &events, &events, quote).await;
    rejected(&tpm, &forged, "PcrsMissing", "0 to 15");
}

#[tokio::test]
async fn a_quote_of_another_bank_is_refused() {
    let options = SimulationOptions::new(KeyAlgorithm::EccP256);
    let tpm = tpm_or_skip!(start_with(options));
    let events = proofs::events(&proofs::honest_contents(&tpm).await);
    proofs::extend(&tpm, &events).await;
    let honest = proofs::quote(&tpm, PcrBank::Sha256, &events).await;
    let data = qualifying_data(&head_of(&events).unwrap(), &NONCE);
    let other = tpm
        .quote_any(&[(PcrBank::Sha384, PcrIndex::quoted().collect())], &data)
        .await
        .unwrap();
    let quote = Quote {
        attest: other.attest,
        signature: other.signature,
        ..honest
    };
    rejected(
        &tpm,
        &proofs::assemble(&tpm, &events, &events, quote).await,
        "Bank",
        "sha256",
    );
    // Two banks at once: which one would be meant?
    let both = [
        (PcrBank::Sha256, PcrIndex::quoted().collect()),
        (PcrBank::Sha384, PcrIndex::quoted().collect()),
    ];
    let both = tpm.quote_any(&both, &data).await.unwrap();
    let honest = proofs::quote(&tpm, PcrBank::Sha256, &events).await;
    let quote = Quote {
        attest: both.attest,
        signature: both.signature,
        ..honest
    };
    rejected(
        &tpm,
        &proofs::assemble(&tpm, &events, &events, quote).await,
        "Bank",
        "sha256",
    );
}

#[tokio::test]
async fn the_sha1_bank_proves_nothing() {
    let tpm = tpm_or_skip!(start());
    if !tpm.capabilities().banks.contains(&PcrBank::Sha1) {
        return;
    }
    let events = proofs::events(&proofs::honest_contents(&tpm).await);
    proofs::extend(&tpm, &events).await;
    let quote = proofs::quote(&tpm, PcrBank::Sha1, &events).await;
    rejected(
        &tpm,
        &proofs::assemble(&tpm, &events, &events, quote).await,
        "Sha1Bank",
        "SHA-1",
    );
}

#[tokio::test]
async fn the_quote_answers_nothing_or_another_job() {
    let tpm = tpm_or_skip!(start());
    let events = proofs::events(&proofs::honest_contents(&tpm).await);
    let pcrs: Vec<_> = PcrIndex::quoted().collect();
    // A quote of the same machine from before this log.
    let earlier = proofs::quote(&tpm, PcrBank::Sha256, &events[..3]).await;
    proofs::extend(&tpm, &events).await;
    let empty = tpm.quote(PcrBank::Sha256, &pcrs, &[]).await.unwrap();
    rejected(
        &tpm,
        &proofs::assemble(&tpm, &events, &events, empty).await,
        "NothingBound",
        "no qualifying data",
    );
    let other = tpm.quote(PcrBank::Sha256, &pcrs, &[9; 32]).await.unwrap();
    rejected(
        &tpm,
        &proofs::assemble(&tpm, &events, &events, other).await,
        "QualifyingData",
        "0909",
    );
    rejected(
        &tpm,
        &proofs::assemble(&tpm, &events, &events, earlier).await,
        "QualifyingData",
        "",
    );
}

#[tokio::test]
async fn the_machine_was_reset_or_resumed_in_the_middle() {
    for resumed in [false, true] {
        let mut tpm = tpm_or_skip!(start());
        let contents = proofs::honest_contents(&tpm).await;
        let events = proofs::events(&contents);
        proofs::extend(&tpm, &events).await;
        if resumed { tpm.restart() } else { tpm.reset() }.unwrap();
        // Whoever resets the machine can extend the old log again.
        let again = tpm.second_client().await.unwrap();
        if again
            .read_pcrs(PcrBank::Sha256, &[PcrIndex::INPUTS])
            .await
            .unwrap()
            .0[&PcrIndex::INPUTS]
            == [0; 32]
        {
            proofs::extend(&again, &events).await;
        }
        let quote = proofs::quote(&again, PcrBank::Sha256, &events).await;
        let forged = proofs::assemble(&again, &events, &events, quote).await;
        let (cause, words) = if resumed {
            ("RestartCount", "suspended")
        } else {
            ("ResetCount", "reset in between")
        };
        rejected(&tpm, &forged, cause, words);
    }
}

#[tokio::test]
async fn only_one_bank_was_extended_and_another_is_shown() {
    let tpm = tpm_or_skip!(start());
    let events = proofs::events(&proofs::honest_contents(&tpm).await);
    for event in &events {
        let digest = event.digest(PcrBank::Sha384).unwrap();
        tpm.extend_one_bank(PcrBank::Sha384, event.content.pcr(), &digest)
            .await
            .unwrap();
    }
    let quote = proofs::quote(&tpm, PcrBank::Sha256, &events).await;
    let forged = proofs::assemble(&tpm, &events, &events, quote).await;
    rejected(&tpm, &forged, "Replay", "PCR 14");
    rejected(&tpm, &forged, "Replay", "PCR 15");
}

#[tokio::test]
async fn pcr_14_was_extended_before_the_job() {
    let tpm = tpm_or_skip!(start());
    let digests = tpm
        .capabilities()
        .banks
        .iter()
        .map(|bank| (*bank, bank.hash(&[b"something"])))
        .collect();
    tpm.extend(PcrIndex::INPUTS, &digests).await.unwrap();
    let forged = proofs::certify(&tpm, &proofs::honest_contents(&tpm).await).await;
    rejected(&tpm, &forged, "Replay", "PCR 14");
}

#[tokio::test]
async fn an_empty_log_with_zero_pcrs_proves_nothing() {
    let tpm = tpm_or_skip!(start());
    let forged = proofs::certify(&tpm, &[]).await;
    rejected(&tpm, &forged, "Incomplete", "job_opened");
}

/// Every one of these is really extended and really signed: only the grammar stands against them.
#[tokio::test]
async fn logs_of_another_grammar_are_refused() {
    type Change = fn(&mut Vec<EventContent>);
    let cases: [(&str, Change, &str); 9] = [
        ("no outputs", |c| drop(c.remove(10)), "outputs_measured"),
        ("outputs before the seal", |c| c.swap(7, 10), "sealed"),
        ("not sealed", |c| drop(c.remove(7)), "sealed"),
        ("an event after the end", |c| c.push(c[10].clone()), "closed"),
        ("a second opening", |c| c.insert(1, c[0].clone()), "machine"),
        ("a second job behind the first", |c| c.extend(c.clone()), "closed"),
        ("no input", |c| drop(c.drain(2..4)), "input_measured"),
        (
            "an input after the seal",
            |c| c.insert(8, c[2].clone()),
            "execution_started",
        ),
        (
            "dependencies not measured",
            |c| drop(c.remove(5)),
            "dependencies_measured",
        ),
    ];
    for (name, change, expected) in cases {
        let tpm = tpm_or_skip!(start());
        let mut contents = proofs::honest_contents(&tpm).await;
        change(&mut contents);
        let forged = proofs::certify(&tpm, &contents).await;
        println!("{name}");
        rejected(&tpm, &forged, "Order", expected);
    }
}

#[tokio::test]
async fn what_was_asked_for_is_not_what_was_measured() {
    let tpm = tpm_or_skip!(start());
    let mut contents = proofs::honest_contents(&tpm).await;
    let EventContent::InputMeasured(data) = &mut contents[3] else {
        unreachable!("the fourth event is an input")
    };
    data.requested[0].value = FileDigest::of(b"what the configuration asked for").to_string();
    let forged = proofs::certify(&tpm, &contents).await;
    rejected(&tpm, &forged, "Content", "was asked for as sha256:");

    let tpm = tpm_or_skip!(start());
    let mut contents = proofs::honest_contents(&tpm).await;
    let EventContent::InputMeasured(code) = &mut contents[2] else {
        unreachable!("the third event is an input")
    };
    code.requested = vec![Pin {
        kind: PinKind::Commit,
        value: format!("sha1:{}", "cd".repeat(20)),
    }];
    let forged = proofs::certify(&tpm, &contents).await;
    rejected(&tpm, &forged, "Content", "was asked for as sha1:cdcd");
}

#[tokio::test]
async fn a_failed_job_is_certified_as_failed_and_as_nothing_else() {
    type Change = fn(&mut Vec<EventContent>);
    let cases: [(Change, &str); 2] = [
        (
            |c| {
                if let EventContent::ExecutionFinished(f) = &mut c[9] {
                    f.exit_code = 3
                }
            },
            "3",
        ),
        (
            |c| {
                if let EventContent::OutputsMeasured(o) = &mut c[10] {
                    let nothing = aicert_core::tree::Tree::from_entries(vec![]).expect("nothing is a tree");
                    o.tree = nothing.measured();
                }
            },
            "left 0 output files",
        ),
    ];
    for (change, words) in cases {
        let tpm = tpm_or_skip!(start());
        let mut contents = proofs::honest_contents(&tpm).await;
        change(&mut contents);
        // Claimed as a success, the log contradicts itself.
        let claimed = proofs::certify(&tpm, &contents).await;
        rejected(&tpm, &claimed, "Content", "mean Failed");
        // Said as it is, it is authentic, and not a certificate of a model.
        let tpm = tpm_or_skip!(start());
        let mut contents = proofs::honest_contents(&tpm).await;
        change(&mut contents);
        if let Some(EventContent::Closed(closed)) = contents.last_mut() {
            closed.result = JobResult::Failed;
        }
        let failed = proofs::certify(&tpm, &contents).await;
        rejected(&tpm, &failed, "JobFailed", words);
        let rejection = check(&tpm, &failed).unwrap_err();
        assert_eq!(
            rejection.failures().len(),
            1,
            "nothing else is wrong with it: {rejection}"
        );
    }
}

/// The first proof is real; then every byte of the file is changed, one at a time.
#[tokio::test]
async fn no_byte_of_a_proof_can_be_changed() {
    let tpm = tpm_or_skip!(start());
    let certificate = proofs::certify(&tpm, &proofs::honest_contents(&tpm).await).await;
    let text = certificate.to_json().into_bytes();
    let anchors = TrustAnchors::pinned()
        .with_root(tpm.root_pem().as_bytes())
        .unwrap();
    let options = Options::new(anchors, Timestamp::now());
    let holds = |bytes: &[u8]| {
        Unverified::from_slice(bytes)
            .and_then(|unverified| verify(unverified, &options))
            .is_ok()
    };
    assert!(holds(&text));
    let is_white = |byte: u8| matches!(byte, b' ' | b'\n' | b'\t' | b'\r');
    let (mut changed, mut insignificant) = (0, 0);
    for at in 0..text.len() {
        for value in [text[at] ^ 1, text[at] ^ 0x20] {
            let mut forged = text.clone();
            forged[at] = value;
            changed += 1;
            if holds(&forged) {
                assert!(
                    is_white(text[at]) && is_white(value),
                    "byte {at}: {:?} -> {:?}",
                    text[at] as char,
                    value as char
                );
                insignificant += 1;
            }
        }
    }
    println!(
        "{changed} changes in {} bytes, {insignificant} of them in insignificant white space",
        text.len()
    );
}
