//! Runs a job on this machine.

use std::sync::Arc;

use aicert_core::cloud::{CloudProvider, MachineId, MachineRecord, MachineRequest};
use aicert_core::event::Tool;
use aicert_core::pipeline::{self, Backends, Job, Outcome, PipelineError};
use aicert_core::progress::Progress;
use aicert_core::runtime::{JobId, Runtime};
use aicert_core::spec::LocalTpm;

use super::Plan;
use crate::backends;
use crate::deliver::{Delivery, Published};
use crate::error::{Exit, Failure};
use crate::files;
use crate::fleet::Fleet;
use crate::local::{LocalProvider, Purpose};
use crate::output::Terminal;
use crate::progress::Renderer;
use crate::recover;
use crate::remote::survey;
use crate::report;
use crate::signals::Signals;
use crate::state;
use crate::trust::Trust;

/// Recovers, runs, delivers; whatever happens, cleans up.
pub(super) async fn drive(
    plan: &Plan,
    tpm: &LocalTpm,
    terminal: Terminal,
    signals: &mut Signals,
) -> Result<Exit, Failure> {
    let order = Order { plan, tpm, terminal };
    survey::survey(&Fleet::of(plan.state.clone(), None), terminal).await;
    let id = plan.state.new_job_id()?;
    let delivery = Delivery::new(plan.targets.clone(), plan.state.rescue(&id), id.clone());
    let purpose = Purpose {
        configuration: plan.configuration.clone(),
        targets: delivery.places(),
        simulated: matches!(tpm, LocalTpm::Swtpm),
    };
    let provider = LocalProvider::new(&plan.state.folder, purpose).map_err(|error| Failure::of(&error))?;
    let runtime = backends::runtime(&plan.state.cache)?;

    let (progress, renderer) = Renderer::start(terminal, tokio::runtime::Handle::current());
    let result = tokio::select! {
        biased;
        number = signals.next() => Err(interrupted(number)),
        result = work(&order, &provider, &runtime, &id, &delivery, &progress) => result,
    };
    drop(progress);
    renderer.finish();
    if let Err(Failure {
        exit: Exit::Signal(_),
        ..
    }) = &result
    {
        terminal.note(
            &"Stopping the job and removing what it left … (once more to leave it to the next run)".into(),
        );
    }
    delivery.cancel();
    let result = result.map_err(|failure| {
        let workspace = provider.workspace(&MachineId(id.as_str().to_owned()));
        let kept = match failure.exit {
            // Whoever stops a run knows what is lost.
            Exit::Signal(_) => None,
            _ => delivery.keep_uncertified(&workspace),
        };
        match kept {
            Some(kept) => failure.more_help(format!(
                "what the job left is kept, uncertified, in {}",
                kept.display()
            )),
            None => failure,
        }
    });
    tokio::select! {
        biased;
        number = signals.next() => {
            return Err(Failure::new(Exit::Signal(number), "interrupted again, before everything was removed")
                .help("the next `aicert run` removes the rest"));
        }
        cleaned = clean_up(&provider, runtime.as_ref(), &id, &delivery) => if let Err(failure) = cleaned {
            // The result matters more; the next run tries again.
            terminal.warning(&format!("{}; the next `aicert run` tries again", failure.message));
        },
    }
    Ok(report::report(result?, terminal))
}

fn interrupted(number: u8) -> Failure {
    Failure::new(Exit::Signal(number), "interrupted: nothing was written")
}

/// What is wanted.
struct Order<'a> {
    plan: &'a Plan,
    tpm: &'a LocalTpm,
    terminal: Terminal,
}

async fn work(
    order: &Order<'_>,
    provider: &LocalProvider,
    runtime: &Arc<dyn Runtime>,
    id: &JobId,
    delivery: &Delivery,
    progress: &Progress,
) -> Result<Published, Failure> {
    let Order { plan, tpm, terminal } = *order;
    runtime.check().await.map_err(|error| Failure::of(&error))?;
    recover::recover(provider, runtime.as_ref(), &plan.state.job_prefix(), terminal).await;
    let machine = provision(provider, id, progress).await?;
    let tpm = backends::tpm(tpm, &provider.tpm_folder(&machine.id)).await?;
    let backends = Backends {
        tpm: Arc::clone(&tpm.backend),
        runtime: Arc::clone(runtime),
        inputs: backends::inputs(),
    };
    let job = Job {
        spec: plan.spec.clone(),
        tool: Tool {
            name: "aicert".into(),
            version: env!("CARGO_PKG_VERSION").into(),
        },
        id: id.clone(),
        workspace: provider.workspace(&machine.id),
        nonce: state::new_nonce()?,
        platform_kind: tpm.platform,
        provider: provider.capabilities().name.into(),
        instance_type: machine.instance_type,
        region: machine.region,
    };
    let outcome: Outcome = pipeline::run(&job, &backends, progress)
        .await
        .map_err(|error| pipeline_failure(&error))?;
    let trust = Trust {
        root_pem: tpm.root_pem,
        ..plan.trust.clone()
    };
    delivery.stage(outcome, job.nonce, trust).await?.publish()
}

async fn provision(
    provider: &LocalProvider,
    id: &JobId,
    progress: &Progress,
) -> Result<MachineRecord, Failure> {
    let request = MachineRequest {
        job: id.clone(),
        instance_type: None,
        region: None,
        client: None,
        access: Vec::new(),
        gpus: 0,
        idle: std::time::Duration::ZERO,
        lifetime: None,
        progress: progress.clone(),
    };
    provider
        .provision(request)
        .await
        .map_err(|error| Failure::of(&error))
}

fn pipeline_failure(error: &PipelineError) -> Failure {
    Failure::new(Exit::DoesNotHold, error.to_string())
        .maybe_help(error.advice())
        .with_causes_of(error)
}

async fn clean_up(
    provider: &LocalProvider,
    runtime: &dyn Runtime,
    id: &JobId,
    delivery: &Delivery,
) -> Result<(), Failure> {
    delivery.settle().await;
    let machine = MachineId(id.as_str().to_owned());
    if !files::exists(&provider.folder(&machine)) {
        return Ok(());
    }
    // Containers first: while there are any, the record says whose they are.
    runtime
        .clean_up(id)
        .await
        .map_err(|error| Failure::new(Exit::DoesNotHold, error.message()))?;
    provider
        .destroy(&machine)
        .await
        .map_err(|error| Failure::new(Exit::DoesNotHold, error.message()))?;
    delivery.tidy();
    Ok(())
}
