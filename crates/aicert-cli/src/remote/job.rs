//! From an attested machine to a job that has ended.

use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use aicert_client::{AttestedClient, Client, ClientError, PreparedJob, Sent, Session, Settings};
use aicert_core::api::{JobState, JobStatus, ProblemCode, StreamEvent};
use aicert_core::progress::{ProgressEvent, Step};
use futures_util::StreamExt as _;

use super::Errand;
use super::boot::{self, milliseconds};
use super::record::{CONFIGURATION, Phase, Record, Run, SENT, SESSION};
use super::stop::{self, Fate, Stop};
use super::traces;
use crate::error::{Exit, Failure};
use crate::files;
use crate::output::Terminal;
use crate::run::unusable;
use crate::text::one_line;

/// For how long a machine that runs is tried to be reached.
const LOST_LIMIT: Duration = Duration::from_secs(600);
/// How long to wait between tries, at first and at most.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Gathers everything of this computer that the job needs.
pub(super) fn prepare(record: &Record, text: &str) -> Result<PreparedJob, Failure> {
    let job = record
        .job
        .parse()
        .map_err(|error| Failure::misuse("the record has no job").because(&error))?;
    let folder = files::folder_of(&record.configuration);
    let environment = |name: &str| std::env::var(name).ok();
    let prepared = PreparedJob::from_yaml(&job, text, folder, record.nonce, &environment);
    prepared.map_err(|error| match error {
        ClientError::Configuration(error) => unusable(&error, &record.configuration),
        error => Failure {
            exit: Exit::Misuse,
            ..stop::failure(&error)
        },
    })
}

/// The same for a job whose configuration is kept beside its record. What is missing on this computer, such as an environment
/// variable in another shell, says nothing about the machine.
fn prepare_again(run: &Run) -> Result<PreparedJob, Stop> {
    let bytes = run.read(CONFIGURATION).map_err(|error| Failure::of(&error));
    bytes
        .and_then(|bytes| prepare(run.record(), &String::from_utf8_lossy(&bytes)))
        .map_err(|failure| Stop::keep(failure, run.job()))
}

/// Names what is forwarded to the machine and means this computer: there it means the machine, where nothing answers.
pub(super) fn warn_of_loopback(prepared: &PreparedJob, terminal: Terminal) {
    for (name, value) in &prepared.submission().variables {
        if is_loopback(value.0.expose()) {
            terminal.warning(&format!(
                "the environment variable {name} goes to the machine with the job, and names an address of this computer \
                 that means the machine itself there: packages cannot be fetched that way"
            ));
        }
    }
}

/// Whether the host of an address, with or without its scheme, is the computer that looks at it.
fn is_loopback(address: &str) -> bool {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let host = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => place.split(':').next().unwrap_or_default(),
    };
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback() || address.is_unspecified())
}

/// A client of the machine as it was attested; every connection is held to its key.
pub(super) fn connect(run: &Run, errand: &Errand, settings: Settings) -> Result<AttestedClient, Stop> {
    let keep = |failure| Stop::keep(failure, run.job());
    let bytes = run.read(SESSION).map_err(|error| keep(Failure::of(&error)))?;
    let session: Session = serde_json::from_slice(&bytes).map_err(|error| {
        keep(Failure::new(Exit::DoesNotHold, "what is known of the machine cannot be read").because(&error))
    })?;
    Client::new(session.endpoint, errand.identity.clone())
        .with_settings(settings)
        .resume(session)
        .map_err(|error| keep(stop::failure(&error)))
}

/// Sends the job, from here on a machine may have it.
pub(super) async fn submit(run: &mut Run, errand: &Errand) -> Result<(), Stop> {
    let prepared = prepare_again(run)?;
    let client = connect(run, errand, Settings::default())?;
    run.update(|record| record.phase = Phase::Submitted)
        .map_err(|error| Stop::provider(&error))?;
    send_job(run, errand, &client, &prepared).await
}

async fn send_job(
    run: &mut Run,
    errand: &Errand,
    client: &AttestedClient,
    prepared: &PreparedJob,
) -> Result<(), Stop> {
    let begun = Instant::now();
    errand.progress.started(Step::Send, "the job");
    let submitted = client.submit(prepared.submission()).await;
    if let Err(error) = submitted {
        return Err(talk(run, errand, client, error, Fate::Destroy).await);
    }
    errand.progress.finished(Step::Send, "the job", "accepted");
    run.update(|record| record.times.send += milliseconds(begun))
        .map_err(|error| Stop::keep(Failure::of(&error), run.job()))
}

/// Follows the job until it has ended, whatever of it there is already.
pub(super) async fn follow(run: &mut Run, errand: &Errand) -> Result<(), Stop> {
    let client = connect(run, errand, Settings::default())?;
    let mut status = match client.status(run.job()).await {
        Err(error) if is_not_found(&error) => {
            let prepared = prepare_again(run)?;
            send_job(run, errand, &client, &prepared).await?;
            ask(run, errand, &client).await?
        }
        Err(error) => return Err(talk(run, errand, &client, error, Fate::Keep).await),
        Ok(status) => status,
    };
    if status.state == JobState::Receiving {
        send_inputs(run, errand, &client, &status).await?;
        status = ask(run, errand, &client).await?;
    }
    if status.state == JobState::Running || status.state == JobState::Receiving {
        let begun = Instant::now();
        watch(run, errand).await?;
        run.update(|record| record.times.run += milliseconds(begun))
            .map_err(|error| Stop::keep(Failure::of(&error), run.job()))?;
        status = ask(run, errand, &client).await?;
    }
    match status.state {
        JobState::Finished => run
            .update(|record| record.phase = Phase::Finished)
            .map_err(|error| Stop::keep(Failure::of(&error), run.job())),
        _ => Err(traces::without_certificate(run, errand, &client, status).await),
    }
}

async fn ask(run: &Run, errand: &Errand, client: &AttestedClient) -> Result<JobStatus, Stop> {
    match client.status(run.job()).await {
        Ok(status) => Ok(status),
        Err(error) => Err(talk(run, errand, client, error, Fate::Keep).await),
    }
}

async fn send_inputs(
    run: &mut Run,
    errand: &Errand,
    client: &AttestedClient,
    status: &JobStatus,
) -> Result<(), Stop> {
    let begun = Instant::now();
    let prepared = prepare_again(run)?;
    let uploads = prepared.uploads();
    // What an earlier process has sent counts as well.
    let mut all = super::receive::sent(run)?;
    // Before the machine has any of it: the proof is held to what stands there, whatever becomes of this process.
    let note = |sent: &Sent| {
        all.retain(|old| old.name != sent.name);
        all.push(sent.clone());
        let bytes = serde_json::to_vec_pretty(&all).map_err(io::Error::other)?;
        run.write(SENT, &bytes).map_err(io::Error::other)
    };
    let sent = client
        .send_inputs(run.job(), uploads, &status.awaited, &errand.progress, note)
        .await;
    if let Err(error) = sent {
        // An input that cannot be read, and what the machine refuses for good: the job never starts.
        let fate = match &error {
            ClientError::Storage { .. } => Fate::Keep,
            _ => Fate::Destroy,
        };
        return Err(talk(run, errand, client, error, fate).await);
    }
    run.update(|record| record.times.send += milliseconds(begun))
        .map_err(|error| Stop::keep(Failure::of(&error), run.job()))
}

/// Shows what the job reports until it has ended. A connection that is lost is made again, and the user told.
async fn watch(run: &Run, errand: &Errand) -> Result<(), Stop> {
    let mut settings = Settings::default();
    settings.retries = 0;
    let client = connect(run, errand, settings)?;
    let (mut after, mut pause) = (None, PAUSE);
    loop {
        let (begun, before) = (Instant::now(), after);
        let mut events = pin!(client.events(run.job(), after));
        let error = loop {
            match events.next().await {
                Some(Ok((number, event))) => {
                    after = Some(number);
                    match event {
                        StreamEvent::Progress { event } => errand.progress.send(event),
                        StreamEvent::Missed { events } => {
                            warn(
                                errand,
                                format!("{events} reports of the job came too fast, and are left out"),
                            );
                        }
                        StreamEvent::End { .. } => return Ok(()),
                        _ => {}
                    }
                }
                Some(Err(error)) => break error,
                None => return Ok(()),
            }
        };
        if error.is_retryable() {
            warn(
                errand,
                format!(
                    "the connection to the machine is lost, and is made again: {error}. The job goes on there; Ctrl-C and \
                     `aicert attach {}` later are safe",
                    run.job()
                ),
            );
        }
        // A job may say nothing for hours: that it is quiet does not mean that its machine cannot be reached.
        if after != before || begun.elapsed() > LONGEST_PAUSE {
            pause = PAUSE;
        }
        let status = reconnect(run, errand, &client, error, &mut pause).await?;
        warn(errand, "connected again".into());
        let goes_on = matches!(status.state, JobState::Running | JobState::Receiving);
        if !goes_on && after == before {
            // What the job said last cannot be had this way; its log has it.
            return Ok(());
        }
    }
}

/// Tries until the machine answers; not for ever, and not when it has ended.
async fn reconnect(
    run: &Run,
    errand: &Errand,
    client: &AttestedClient,
    mut error: ClientError,
    pause: &mut Duration,
) -> Result<JobStatus, Stop> {
    let since = Instant::now();
    loop {
        if !error.is_retryable() || since.elapsed() > LOST_LIMIT || !is_running(run, errand).await {
            return Err(talk(run, errand, client, error, Fate::Keep).await);
        }
        tokio::time::sleep(*pause).await;
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        match client.status(run.job()).await {
            Ok(status) => return Ok(status),
            Err(again) => error = again,
        }
    }
}

pub(super) fn warn(errand: &Errand, message: String) {
    let message = one_line(&message);
    errand.progress.send(ProgressEvent::Warning { message });
}

/// Whether the machine runs; where that cannot be found out, it may.
pub(super) async fn is_running(run: &Run, errand: &Errand) -> bool {
    match run.record().id() {
        Some(machine) => errand.provider.is_running(&machine).await.unwrap_or(true),
        None => false,
    }
}

/// What becomes of a job when talking to its machine fails: `refused` says what becomes of the machine when it answers, and
/// the answer is no.
pub(super) async fn talk(
    run: &Run,
    errand: &Errand,
    client: &AttestedClient,
    error: ClientError,
    refused: Fate,
) -> Stop {
    match &error {
        ClientError::Changed { .. } => boot::changed(run, errand, client.session(), &error).await,
        error if error.is_retryable() => {
            if is_running(run, errand).await {
                let mut failure = stop::failure(error);
                if let Some(hint) = boot::who_may_reach(run.record()) {
                    failure = failure.more_help(hint);
                }
                return Stop::keep(failure, run.job());
            }
            ended(run, errand).await
        }
        error => match refused {
            Fate::Destroy => Stop::destroy(stop::failure(error)),
            Fate::Keep => Stop::keep(stop::failure(error), run.job()),
        },
    }
}

/// Says what is lost with a machine that has ended.
pub(crate) async fn ended(run: &Run, errand: &Errand) -> Stop {
    let failure = Failure::new(Exit::DoesNotHold, lost(run.record().phase)).help("run the job again");
    let failure = match run.record().id() {
        Some(machine) => boot::explain(errand, &machine, failure).await,
        None => failure,
    };
    Stop::destroy(failure)
}

/// What is lost when a machine ends in a phase.
pub(crate) fn lost(phase: Phase) -> &'static str {
    match phase {
        Phase::Prepared => "it was interrupted before there was a machine",
        Phase::Booting | Phase::Attested => "the machine has ended before the job was sent to it",
        Phase::Submitted => "the machine has ended while it had the job: what it computed is lost",
        Phase::Finished => "the machine has ended before the results were here: they are lost",
        Phase::Delivered => "the machine has ended; the results are here",
    }
}

fn is_not_found(error: &ClientError) -> bool {
    matches!(error, ClientError::Problem { problem, .. } if problem.code == ProblemCode::NotFound)
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn addresses_of_this_computer_are_recognised() {
        for address in [
            "http://127.0.0.1:3128",
            "http://me:secret@localhost:3128/x@y",
            "https://LOCALHOST./simple",
            "http://[::1]:8080/",
            "http://0.0.0.0",
            "127.3.2.1:3128",
            "proxy.localhost",
        ] {
            assert!(is_loopback(address), "{address}");
        }
        for address in [
            "http://proxy.example:3128",
            "http://localhost@proxy.example",
            "https://example.org/localhost",
            "http://[2001:db8::1]:80",
            "http://10.0.2.2:3128",
            "hunter2",
            "/etc/ssl/ca.pem",
            "",
        ] {
            assert!(!is_loopback(address), "{address}");
        }
    }
}
