//! What is saved of a job that ended without a proof of what it made, before its machine is gone.

use aicert_client::{AttestedClient, ClientError};
use aicert_core::api::{JobState, JobStatus, Problem};
use aicert_core::pipeline::LOG_FILE;
use aicert_core::progress::Step;

use super::Errand;
use super::job::{is_running, warn};
use super::receive::{LOG_LIMIT, log_is_cut};
use super::record::Run;
use super::stop::{Fate, Stop};
use crate::card;
use crate::error::{Exit, Failure};
use crate::files;
use crate::text::one_line;

// In the folder for what cannot be delivered.
/// What the machine wrote to its console.
const CONSOLE_FILE: &str = "console.log";
/// What the job left, of which no proof speaks.
const ARCHIVE_FILE: &str = "outputs.tar";
/// A proof that came without what it speaks of, and the trust anchor that goes with it.
const PROOF_FILE: &str = "proof.json";
const ANCHOR_FILE: &str = "proof.ca.pem";

/// A job that ended without results that a proof vouches for: says why, and brings what there is. What took days to compute is
/// not lost because it cannot be certified.
pub(super) async fn without_certificate(
    run: &Run,
    errand: &Errand,
    client: &AttestedClient,
    status: JobStatus,
) -> Stop {
    let failure = match &status.problem {
        Some(Problem { message, advice, .. }) => {
            Failure::new(Exit::DoesNotHold, one_line(message)).maybe_help(advice.as_deref().map(one_line))
        }
        None if status.state == JobState::Cancelled => {
            Failure::new(Exit::DoesNotHold, "the job was cancelled on its machine")
        }
        None => Failure::new(
            Exit::DoesNotHold,
            "the job ended without a proof, and without saying why",
        ),
    };
    let folder = errand.delivery.rescue();
    if let Err(source) = files::private(folder) {
        let error = ClientError::Storage {
            action: "make",
            path: folder.to_owned(),
            source,
        };
        return cannot_be_saved(run, failure, &error);
    }
    // What is dearest first: the disk may be full after it.
    let outputs = save_outputs(run, errand, client, failure).await;
    let Stop { mut failure, fate } = outputs;
    if status.result.is_some() {
        failure = save_proof(run, errand, client, failure).await;
    }
    failure = save_words(run, errand, client, failure).await;
    match fate {
        Fate::Keep => Stop::keep(failure, run.job()),
        Fate::Destroy => Stop::destroy(failure),
    }
}

fn cannot_be_saved(run: &Run, failure: Failure, error: &ClientError) -> Stop {
    Stop::keep(not_saved(failure, error), run.job())
}

fn not_saved(failure: Failure, error: &ClientError) -> Failure {
    let advice = error.advice().map(|advice| format!("; {}", one_line(&advice)));
    failure.more_help(format!(
        "what the job left is still on the machine, and could not be saved: {}{}",
        one_line(&error.to_string()),
        advice.unwrap_or_default()
    ))
}

/// Saves what the job left, as one archive; tells what becomes of the machine.
async fn save_outputs(run: &Run, errand: &Errand, client: &AttestedClient, failure: Failure) -> Stop {
    const SUBJECT: &str = "what the job left";
    let archive = errand.delivery.rescue().join(ARCHIVE_FILE);
    errand.progress.started(Step::Receive, SUBJECT);
    let (failure, fate) = match client.leftovers(run.job(), &archive).await {
        Ok(0) => (failure, Fate::Destroy),
        Ok(length) => {
            let detail = format!("{}, uncertified", card::bytes(length));
            errand.progress.finished(Step::Receive, SUBJECT, detail);
            let help = format!("what the job left is kept, uncertified, in {}", archive.display());
            (failure.more_help(help), Fate::Destroy)
        }
        Err(error @ (ClientError::Storage { .. } | ClientError::Changed { .. })) => {
            (not_saved(failure, &error), Fate::Keep)
        }
        Err(error) if error.is_retryable() && is_running(run, errand).await => {
            (not_saved(failure, &error), Fate::Keep)
        }
        Err(error) => {
            let help = format!(
                "what it computed cannot be brought back, and is lost with the machine: {}",
                one_line(&error.to_string())
            );
            (failure.more_help(help), Fate::Destroy)
        }
    };
    Stop { failure, fate }
}

/// Saves a proof that was made before something went wrong with what it speaks of.
async fn save_proof(run: &Run, errand: &Errand, client: &AttestedClient, failure: Failure) -> Failure {
    let folder = errand.delivery.rescue();
    let Ok(proof) = client.certificate(run.job()).await else {
        return failure;
    };
    if files::replace_secret(&folder.join(PROOF_FILE), &proof).is_err() {
        return failure;
    }
    if let Some(pem) = &errand.trust.root_pem {
        let _ = files::replace_secret(&folder.join(ANCHOR_FILE), pem.as_bytes());
    }
    failure.more_help(format!(
        "the machine had made a proof before, which nobody has verified yet: {}",
        folder.join(PROOF_FILE).display()
    ))
}

/// Saves what the job printed and what the machine wrote to its console; says where.
async fn save_words(run: &Run, errand: &Errand, client: &AttestedClient, failure: Failure) -> Failure {
    let folder = errand.delivery.rescue();
    let log = folder.join(LOG_FILE);
    let length = client.log_up_to(run.job(), &log, LOG_LIMIT).await.unwrap_or(0);
    let printed = length > 0;
    if !printed {
        let _ = files::remove(&log);
    }
    if length >= LOG_LIMIT {
        warn(errand, log_is_cut());
    }
    let console = match run.record().id() {
        Some(machine) => errand.provider.console_log(&machine).await.unwrap_or_default(),
        None => String::new(),
    };
    let at = folder.join(CONSOLE_FILE);
    let written = !console.is_empty() && files::replace_secret(&at, console.as_bytes()).is_ok();
    match (printed, written) {
        (true, true) => failure.more_help(format!(
            "what the job printed, and the machine's console, are in {}",
            folder.display()
        )),
        (true, false) => failure.more_help(format!("what the job printed is in {}", log.display())),
        (false, true) => failure.more_help(format!("the machine's console is in {}", at.display())),
        (false, false) => failure,
    }
}
