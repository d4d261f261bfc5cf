//! Running the job: the pipeline in a task of its own.

use std::error::Error;
use std::io;
use std::sync::Arc;

use aicert_core::api::{Problem, ProblemCode};
use aicert_core::event::Tool;
use aicert_core::pipeline::{self, Backends, Outcome, PipelineError};
use aicert_core::progress::ProgressEvent;

use super::{Job, Phase, Plan};
use crate::attestation::chain;
use crate::events::Pump;
use crate::results::{Proof, Results};
use crate::uploads::UploadedSource;
use crate::{App, TOOL, VERSION};

pub(super) async fn run(job: Arc<Job>, app: Arc<App>, plan: Plan) {
    let (progress, pump) = Pump::start(Arc::clone(&job.events));
    let backends = Backends {
        inputs: app
            .backends
            .inputs
            .iter()
            .map(|source| {
                let source = UploadedSource::new(Arc::clone(source), Arc::clone(&job.uploads));
                Arc::new(source) as _
            })
            .collect(),
        ..app.backends.clone()
    };
    let request = pipeline::Job {
        spec: plan.spec,
        tool: Tool {
            name: TOOL.into(),
            version: VERSION.into(),
        },
        id: job.id.clone(),
        workspace: job.workspace(),
        nonce: plan.nonce,
        platform_kind: plan.platform,
        provider: app.provisioning.provider.clone(),
        instance_type: app.provisioning.instance_type.clone(),
        region: app.provisioning.region.clone(),
    };
    let reporting = progress.clone();
    let mut work = tokio::spawn(async move { pipeline::run(&request, &backends, &reporting).await });
    let ended = tokio::select! {
        biased;
        () = job.cancel.cancelled() => {
            work.abort();
            // When it returns, the future is gone.
            let _ = (&mut work).await;
            Phase::Cancelled
        }
        done = &mut work => match done {
            Ok(Ok(outcome)) => finish(&job, outcome).await,
            Ok(Err(error)) => {
                // Its words may be the configuration's: they are for the client, and not for the log.
                let problem = problem(&error);
                tracing::warn!(job = %job.id, code = ?problem.code, "the job stopped without a proof");
                Phase::Failed(problem, None)
            }
            Err(error) => {
                tracing::error!(job = %job.id, %error, "the job was interrupted by a fault of the server");
                let problem = Problem {
                    code: ProblemCode::Failed,
                    message: "the job was interrupted by a fault of the server".into(),
                    advice: Some("please report it, with the machine's console log".into()),
                };
                Phase::Failed(problem, None)
            }
        },
    };
    if !matches!(ended, Phase::Finished(_))
        && let Err(error) = app.backends.runtime.clean_up(&job.id).await
    {
        tracing::warn!(job = %job.id, %error, "could not remove all containers");
        progress.send(ProgressEvent::Warning {
            message: format!("could not remove all containers: {error}"),
        });
    }
    job.forget_inputs().await;
    pump.stop().await;
    // A client that comes back for the results has its time from here on.
    app.activity.touch();
    job.end(ended);
}

async fn finish(job: &Job, outcome: Outcome) -> Phase {
    // Whatever happens to the rest of the results, a proof that was made is not lost.
    let proof = Proof::of(&outcome.certificate);
    let kept = proof.as_ref().ok().cloned();
    let folder = job.folder.clone();
    let prepared = tokio::task::spawn_blocking(move || Results::of(proof?, outcome, &folder)).await;
    let message = match prepared {
        Ok(Ok(results)) => return Phase::Finished(Arc::new(results)),
        Ok(Err(error)) => chain(&error),
        Err(error) => error.to_string(),
    };
    let (is, advice) = match kept {
        Some(_) => (
            "has a proof",
            "the proof is there, and what the job left can be had as an archive, uncertified",
        ),
        None => (
            "ran to its end",
            "what the job left can be had as an archive, uncertified",
        ),
    };
    let problem = Problem {
        code: ProblemCode::Failed,
        message: format!("the job {is}, and its outputs cannot be handed out with it: {message}"),
        advice: Some(advice.into()),
    };
    Phase::Failed(problem, kept)
}

/// What the client is told.
fn problem(error: &PipelineError) -> Problem {
    if is_full(error) {
        return Problem {
            code: ProblemCode::StorageFull,
            message: format!("the machine's disk is full: {error}"),
            advice: Some("ask for a machine with a larger disk".into()),
        };
    }
    Problem {
        code: ProblemCode::Failed,
        message: error.to_string(),
        advice: error.advice(),
    }
}

fn is_full(error: &(dyn Error + 'static)) -> bool {
    let full = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    };
    let own = match error.downcast_ref::<PipelineError>() {
        Some(PipelineError::Journal(journal)) => full(journal.io_error()),
        _ => false,
    };
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(full) {
            return true;
        }
        cause = error.source();
    }
    own
}
