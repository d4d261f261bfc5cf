//! From a job that has ended to results that are here and verified.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;
use std::time::Instant;

use aicert_client::{AttestedClient, ClientError, Sent, Settings, outputs_tree};
use aicert_core::certificate::{Certificate, SIZE_LIMIT};
use aicert_core::cloud::CloudError;
use aicert_core::digest::ConfigDigest;
use aicert_core::manifest::Manifest;
use aicert_core::progress::Step;
use aicert_verify::policy::{FirmwareRule, Policy};
use aicert_verify::{Unverified, Verified};

use super::Errand;
use super::boot::milliseconds;
use super::job::{connect, talk, warn};
use super::record::{Phase, RESULT, Run, SENT, Times};
use super::stop::{self, Fate, Stop};
use crate::card;
use crate::deliver::{Published, Staged};
use crate::error::{Exit, Failure};
use crate::files;
use crate::report::Kept;
use crate::source;

/// How much is taken of what the job printed: it may print without end.
pub(super) const LOG_LIMIT: u64 = 1 << 30;
/// The outputs in the folder that they arrive in, once they are complete.
const ARRIVED: &str = "outputs";

/// Brings everything back, verifies it, and gives it its names.
pub(super) async fn receive(run: &mut Run, errand: &Errand) -> Result<Published, Stop> {
    let begun = Instant::now();
    if let Some(published) = resume(run, errand).await? {
        return Ok(delivered(run, errand, published, begun));
    }
    let client = connect(run, errand, Settings::default())?;
    let keep = |failure| Stop::keep(failure, run.job());
    errand.progress.started(Step::Receive, "the proof");
    let bytes = match client.certificate(run.job()).await {
        Ok(bytes) => bytes,
        Err(error) => return Err(talk(run, errand, &client, error, Fate::Keep).await),
    };
    let proof = verify(run, errand, &client, &bytes).map_err(keep)?;
    errand
        .progress
        .finished(Step::Receive, "the proof", card::bytes(bytes.len() as u64));

    let published = match deliver(run, errand, &client, &proof).await? {
        Ok(published) => published,
        Err(error) => return Err(talk(run, errand, &client, error, Fate::Keep).await),
    };
    Ok(delivered(run, errand, published, begun))
}

/// Goes on with what an earlier process had brought here, without the machine: nothing unless that is everything.
pub(super) async fn resume(run: &Run, errand: &Errand) -> Result<Option<Published>, Stop> {
    let client = connect(run, errand, Settings::default())?;
    for place in errand.delivery.proofs() {
        let Ok(bytes) = source::read_bounded(&place, SIZE_LIMIT as u64, "the proof") else {
            continue;
        };
        // Whatever else may be there.
        let Ok(proof) = verify(run, errand, &client, &bytes) else {
            continue;
        };
        let resumed = errand
            .delivery
            .resume(place, proof, run.record().nonce, errand.trust.clone());
        if let Some(published) = resumed.await.map_err(|failure| Stop::keep(failure, run.job()))? {
            return Ok(Some(published));
        }
    }
    Ok(None)
}

/// Records that everything is here.
pub(super) fn delivered(
    run: &mut Run,
    errand: &Errand,
    mut published: Published,
    begun: Instant,
) -> Published {
    let mut times = run.record().times;
    times.receive += milliseconds(begun);
    published.times = Some(times);
    if let Err(error) = record(run, &published, times) {
        // Everything is here; the machine is removed next.
        errand.terminal.warning(error.message());
    }
    published
}

/// Records that everything is here, and what came of the job.
fn record(run: &mut Run, published: &Published, times: Times) -> Result<(), CloudError> {
    let kept = serde_json::to_vec_pretty(&Kept::of(published)).unwrap_or_default();
    run.write(RESULT, &kept)?;
    run.update(|record| {
        record.times = times;
        record.phase = Phase::Delivered;
    })
}

/// Fetches what goes with a proof, and gives everything its name.
async fn deliver(
    run: &Run,
    errand: &Errand,
    client: &AttestedClient,
    proof: &Verified<Certificate>,
) -> Result<Result<Published, ClientError>, Stop> {
    let keep = |failure| Stop::keep(failure, run.job());
    let (delivery, nonce) = (&errand.delivery, run.record().nonce);
    let certificate = proof.certificate().clone();
    let manifest = match fetch(run, errand, client, proof).await {
        Ok(manifest) => manifest,
        Err(error) => return Ok(Err(error)),
    };
    let staged = delivery
        .stage_arrived(
            certificate,
            manifest,
            nonce,
            errand.trust.clone(),
            proof.verified_at(),
        )
        .await;
    staged.and_then(Staged::publish).map(Ok).map_err(keep)
}

/// Verifies that a proof is true, and of this job on this machine, before anything that it names is fetched. What the user
/// demands beyond that is looked at when everything is here, as for a job on this machine.
pub(super) fn verify(
    run: &Run,
    errand: &Errand,
    client: &AttestedClient,
    bytes: &[u8],
) -> Result<Verified<Certificate>, Failure> {
    let mut policy = Policy::for_own_root();
    policy.firmware = FirmwareRule::Any;
    let mut options = errand
        .trust
        .options()?
        .with_policy(policy)
        .with_expected_nonce(run.record().nonce)
        .accepting_failed_jobs();
    let proof = Unverified::from_slice(bytes).and_then(|proof| {
        // It may have waited here for days, and the certificates of some evidence live for hours.
        options.time = client.verification_time(&proof, options.time);
        aicert_verify::verify(proof, &options)
    });
    let proof = proof.map_err(|rejection| {
        stop::refused(
            "the proof that the machine made does not hold, and is not written",
            &rejection,
        )
    })?;
    client
        .check_proof(&proof)
        .map_err(|error| stop::failure(&error))?;
    let (expected, found) = (run.record().config, proof.log().opened.config);
    if found != expected {
        return Err(other_configuration(expected, found));
    }
    let sent = sent(run).map_err(|stop| stop.failure)?;
    for input in &sent {
        input.check(&proof).map_err(|error| stop::failure(&error))?;
    }
    Ok(proof)
}

/// The machine ran something else than what it was sent.
fn other_configuration(expected: ConfigDigest, found: ConfigDigest) -> Failure {
    let message = "the proof that the machine made is of another configuration than the one that was sent, and is not written";
    let mut failure = Failure::new(Exit::DoesNotHold, message)
        .help("do not use what the machine computed, and report the case");
    failure.causes.push(format!("expected {expected}, found {found}"));
    failure
}

/// What was sent to the machine so far.
pub(super) fn sent(run: &Run) -> Result<Vec<Sent>, Stop> {
    let keep = |failure| Stop::keep(failure, run.job());
    if !files::exists(&run.path(SENT)) {
        return Ok(Vec::new());
    }
    let bytes = run.read(SENT).map_err(|error| keep(Failure::of(&error)))?;
    serde_json::from_slice(&bytes).map_err(|error| {
        keep(Failure::new(Exit::DoesNotHold, "the record of what was sent cannot be read").because(&error))
    })
}

/// Fetches what goes with a proof, under hidden names; what has arrived before is not fetched again.
async fn fetch(
    run: &Run,
    errand: &Errand,
    client: &AttestedClient,
    proof: &Verified<Certificate>,
) -> Result<Manifest, ClientError> {
    let job = run.job();
    let delivery = &errand.delivery;
    let at = delivery.hidden_manifest();
    let manifest = match client.manifest(job, &at).await? {
        0 => Manifest::default(),
        _ => read_manifest(&at)?,
    };
    let tree = outputs_tree(proof, Some(&manifest))?;
    let hidden = delivery.hidden_outputs();
    if !tree.entries().is_empty() && !files::exists(&hidden) {
        let folder = delivery.arriving();
        let arrived = folder.join(ARRIVED);
        files::private(&folder).map_err(|error| storage("make", &folder, error))?;
        client
            .download_outputs(job, &tree, &arrived, &errand.progress)
            .await?;
        fs::rename(&arrived, &hidden).map_err(|error| storage("rename", &arrived, error))?;
        files::remove(&folder).map_err(|error| storage("remove", &folder, error))?;
    }
    // It is no part of the proof: what matters arrives without it too.
    let log = delivery.hidden_log();
    match client.log_up_to(job, &log, LOG_LIMIT).await {
        Ok(length) if length >= LOG_LIMIT => warn(errand, log_is_cut()),
        Ok(_) => {}
        Err(error) => {
            let _ = files::remove(&log);
            warn(
                errand,
                format!("what the job printed cannot be brought back, and everything else is here: {error}"),
            );
        }
    }
    Ok(manifest)
}

pub(super) fn log_is_cut() -> String {
    format!(
        "of what the job printed, only the first {} are brought back",
        card::bytes(LOG_LIMIT)
    )
}

fn read_manifest(path: &Path) -> Result<Manifest, ClientError> {
    let file = File::open(path).map_err(|error| storage("read", path, error))?;
    Manifest::read(BufReader::new(file)).map_err(|error| ClientError::Protocol {
        request: "the manifest".into(),
        expected: "listings of files".into(),
        found: error.to_string(),
    })
}

fn storage(action: &'static str, path: &Path, source: std::io::Error) -> ClientError {
    ClientError::Storage {
        action,
        path: path.to_owned(),
        source,
    }
}
