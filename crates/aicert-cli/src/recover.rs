//! What runs that were killed left behind: told to the user, then removed.

use std::path::Path;

use aicert_core::cloud::{CloudProvider, MachineId, MachineRecord};
use aicert_core::grammar::Stage;
use aicert_core::journal::Journal;
use aicert_core::pipeline::JOURNAL_FILE;
use aicert_core::runtime::{JobId, Runtime};

use crate::error::{Exit, Failure};
use crate::files;
use crate::local::LocalProvider;
use crate::output::Terminal;

/// Cleans up after runs whose process is gone. What goes wrong with that is told, and stops nobody from running another job.
pub(crate) async fn recover(
    provider: &LocalProvider,
    runtime: &dyn Runtime,
    prefix: &str,
    terminal: Terminal,
) {
    let machines = match provider.list().await {
        Ok(machines) => machines,
        Err(error) => {
            terminal.warning(&format!(
                "what earlier commands left cannot be looked at: {}",
                error.message()
            ));
            return;
        }
    };
    let (used, abandoned): (Vec<_>, Vec<_>) = machines
        .into_iter()
        .partition(|machine| machine.in_use != Some(false));
    for machine in &abandoned {
        terminal.warning(&describe(provider, machine));
        if let Err(failure) = remove(provider, runtime, machine).await {
            let job = &machine.job;
            terminal.warning(&format!(
                "{}; `aicert machines destroy {job}` tries again",
                failure.message
            ));
        }
    }
    // Containers without a record: somebody removed the record by hand.
    let jobs = runtime.leftovers().await.unwrap_or_default();
    for job in jobs.iter().filter(|job| job.as_str().starts_with(prefix)) {
        let known = used.iter().chain(&abandoned).any(|machine| machine.job == *job);
        if !known && !is_new(provider, job).await {
            terminal.warning(&format!(
                "removing what is left of job {job}, which nothing else is known of"
            ));
            if let Err(failure) = clean_up(runtime, job).await {
                terminal.warning(&failure.message);
            }
        }
    }
}

/// Removes containers first: while there are any, the record says whose they are.
async fn remove(
    provider: &LocalProvider,
    runtime: &dyn Runtime,
    machine: &MachineRecord,
) -> Result<(), Failure> {
    clean_up(runtime, &machine.job).await?;
    let destroyed = provider.destroy(&machine.id).await;
    destroyed.map_err(|error| Failure::of(&error))
}

/// Whether a job began after the machines were listed.
async fn is_new(provider: &LocalProvider, job: &JobId) -> bool {
    provider.list().await.map_or(true, |machines| {
        machines.iter().any(|machine| machine.job == *job)
    })
}

/// Removes the containers and images of a job.
pub(crate) async fn clean_up(runtime: &dyn Runtime, job: &JobId) -> Result<(), Failure> {
    runtime.clean_up(job).await.map_err(|error| {
        Failure::new(
            Exit::DoesNotHold,
            format!("could not remove what is left of job {job}: {}", error.message()),
        )
        .maybe_help(error.advice())
        .with_causes_of(&error)
    })
}

/// Says what happened to a run that did not end.
fn describe(provider: &LocalProvider, machine: &MachineRecord) -> String {
    let record = provider.record(&machine.id);
    let of = record.as_ref().map_or_else(
        || format!("a run (job {})", machine.job),
        |record| {
            format!(
                "the run of {} that began {}",
                record.configuration.display(),
                record.created
            )
        },
    );
    let journal = provider.workspace(&machine.id).join(JOURNAL_FILE);
    let stage = Journal::read(&journal).map_or(Stage::Empty, |log| log.stage());
    let proof = record.as_ref().and_then(|record| record.targets.first());
    let published = stage == Stage::Closed
        && proof.is_some_and(|proof| {
            files::exists(proof)
                && !files::exists(&files::partial(proof, &machine.job))
                && is_younger(proof, &journal)
        });
    if published {
        return format!("{of} was interrupted while it cleaned up; its proof was written. Cleaning up.");
    }
    format!(
        "{of} was interrupted while it {}; it left no proof. Cleaning up.",
        activity(stage)
    )
}

fn is_younger(file: &Path, than: &Path) -> bool {
    let modified = |path| std::fs::metadata(path).and_then(|metadata| metadata.modified());
    matches!((modified(file), modified(than)), (Ok(file), Ok(than)) if file >= than)
}

/// What the job of a machine does, or did when it was interrupted.
pub(crate) fn stage_of(provider: &LocalProvider, machine: &MachineId) -> &'static str {
    let journal = provider.workspace(machine).join(JOURNAL_FILE);
    match Journal::read(&journal).map_or(Stage::Empty, |log| log.stage()) {
        Stage::Empty | Stage::Opened => "gets ready",
        Stage::Machine | Stage::Inputs => "fetches inputs",
        Stage::Image => "fetches packages",
        Stage::Dependencies => "builds the container",
        Stage::Built | Stage::Sealed | Stage::Started => "runs the job",
        Stage::Finished | Stage::Outputs => "measures outputs",
        Stage::Closed => "writes the proof",
    }
}

/// What a job does after it has recorded an event.
fn activity(stage: Stage) -> &'static str {
    match stage {
        Stage::Empty => "got ready, before anything was measured",
        Stage::Opened => "looked at the machine",
        Stage::Machine | Stage::Inputs => "fetched and measured its inputs, or its image",
        Stage::Image => "resolved and downloaded packages",
        Stage::Dependencies => "built its container",
        Stage::Built | Stage::Sealed => "was about to start the job",
        Stage::Started => "ran the job: what it computed is lost",
        Stage::Finished => "measured the outputs: they are lost",
        Stage::Outputs => "closed its log: the outputs are lost",
        Stage::Closed => "had the TPM sign, and wrote the proof: the outputs are lost",
    }
}

#[cfg(all(test, feature = "docker"))]
mod tests {
    use super::*;
    use crate::args::GlobalArgs;
    use crate::backends;
    use crate::local::Purpose;

    #[tokio::test]
    async fn what_cannot_be_removed_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = backends::runtime(folder.path()).unwrap();
        if let Err(error) = runtime.check().await {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            return;
        }
        let machines = folder.path().join("machines");
        let provider = LocalProvider::new(folder.path(), Purpose::default()).unwrap();
        // The name of the first one's half-written proof is longer than any file's.
        for (job, proof) in [("recover-a", "x".repeat(250)), ("recover-b", "proof.json".into())] {
            std::fs::create_dir(machines.join(job)).unwrap();
            let record = serde_json::json!({
                "job": job,
                "created": "2026-01-31T23:59:59Z",
                "process": 4_000_000,
                "configuration": "/job/aicert.yaml",
                "targets": [folder.path().join(proof)],
            });
            std::fs::write(machines.join(job).join("record.json"), record.to_string()).unwrap();
        }
        let terminal = Terminal::new(&GlobalArgs {
            quiet: true,
            json: false,
            color: crate::args::Color::Never,
        });
        recover(&provider, runtime.as_ref(), "recover-", terminal).await;
        let left = provider.list().await.unwrap();
        let left: Vec<_> = left.iter().map(|machine| machine.job.as_str()).collect();
        assert_eq!(left, ["recover-a"]);
    }
}
