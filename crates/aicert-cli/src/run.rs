//! `aicert run`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aicert_core::cloud::{CloudProvider, MachineId, MachineRecord, MachineRequest};
use aicert_core::digest::Nonce;
use aicert_core::event::Tool;
use aicert_core::pipeline::{self, Backends, Job, Outcome, PipelineError};
use aicert_core::progress::Progress;
use aicert_core::runtime::{JobId, Runtime};
use aicert_core::spec::{JobSpec, LocalTpm, MachineSpec};
use aicert_core::time::Timestamp;

use crate::args::RunArgs;
use crate::backends;
use crate::deliver::{Delivery, Published};
use crate::error::{Exit, Failure};
use crate::files;
use crate::local::{LocalProvider, Purpose};
use crate::output::Terminal;
use crate::progress::Renderer;
use crate::recover;
use crate::report;
use crate::signals::Signals;
use crate::targets::Targets;
use crate::text::Text;

/// A configuration larger than that is refused by its reader with a better message.
const CONFIG_LIMIT: u64 = 8 << 20;

/// Everything that is known before anything is done.
struct Plan {
    spec: JobSpec,
    tpm: LocalTpm,
    configuration: PathBuf,
    targets: Targets,
    state: PathBuf,
    cache: PathBuf,
}

pub(crate) fn run(args: &RunArgs, terminal: Terminal) -> Result<Exit, Failure> {
    let plan = Plan::make(args)?;
    let executor = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::DoesNotHold, "could not start threads").because(&error))?;
    let result = executor.block_on(async {
        let mut signals = Signals::listen()?;
        drive(&plan, terminal, &mut signals).await
    });
    // A download that was given up may still wait for its last packet; nobody waits for it.
    executor.shutdown_background();
    result
}

impl Plan {
    fn make(args: &RunArgs) -> Result<Self, Failure> {
        let file = args.file.clone().unwrap_or_else(|| "aicert.yaml".into());
        let (spec, configuration) = read_configuration(&file)?;
        let tpm = match &spec.machine {
            MachineSpec::Local(tpm) => tpm.clone(),
            _ => return Err(Failure::misuse("this build knows no such machine")),
        };
        let targets = Targets::of(args, matches!(tpm, LocalTpm::Swtpm))?;
        Ok(Self {
            spec,
            tpm,
            configuration,
            targets,
            state: folder_from(&["AICERT_STATE_DIR"], "XDG_STATE_HOME", ".local/state")?,
            cache: folder_from(&["AICERT_CACHE_DIR"], "XDG_CACHE_HOME", ".cache")?,
        })
    }
}

fn read_configuration(file: &Path) -> Result<(JobSpec, PathBuf), Failure> {
    let shown = file.display();
    let unreadable = |error: std::io::Error| {
        let failure = Failure::misuse(format!("could not read the configuration {shown}")).because(&error);
        match error.kind() {
            std::io::ErrorKind::NotFound => {
                failure.help("`aicert init` writes one to start from; `-f FILE` names another")
            }
            _ => failure,
        }
    };
    let path = std::fs::canonicalize(file).map_err(unreadable)?;
    let size = std::fs::metadata(&path).map_err(unreadable)?.len();
    let text = if size > CONFIG_LIMIT {
        return Err(Failure::misuse(format!(
            "the configuration {shown} is larger than 1 MiB"
        )));
    } else {
        std::fs::read_to_string(&path).map_err(unreadable)?
    };
    let environment = |name: &str| std::env::var(name).ok();
    let spec = JobSpec::from_yaml(&text, files::folder_of(&path), &environment).map_err(|error| {
        let number = error.problems().len();
        Failure::misuse(format!(
            "{shown} cannot be used: {}\n\n{}\n",
            crate::card::count(number as u64, "problem"),
            error.render(&shown.to_string())
        ))
    })?;
    Ok((spec, path))
}

/// A folder of the user: named by a variable of ours, or below one of the XDG base directories.
fn folder_from(own: &[&str], base: &str, default: &str) -> Result<PathBuf, Failure> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let found = own.iter().find_map(|name| set(name)).or_else(|| {
        let base = set(base)
            .filter(|path| path.is_absolute())
            .or_else(|| Some(set("HOME")?.join(default)))?;
        Some(base.join("aicert"))
    });
    found
        .and_then(|path| std::path::absolute(path).ok())
        .ok_or_else(|| {
            Failure::misuse("there is no home folder to keep state in")
                .help(format!("name a folder with {}", own.join(" or ")))
        })
}

/// Recovers, runs, delivers; whatever happens, cleans up.
async fn drive(plan: &Plan, terminal: Terminal, signals: &mut Signals) -> Result<Exit, Failure> {
    let id = new_job_id(&recover::job_prefix(&plan.state))?;
    let rescue = plan.state.join("rescued").join(id.as_str());
    let delivery = Delivery::new(plan.targets.clone(), rescue, id.clone());
    let purpose = Purpose {
        configuration: plan.configuration.clone(),
        targets: delivery.places(),
        simulated: matches!(plan.tpm, LocalTpm::Swtpm),
    };
    let provider = LocalProvider::new(&plan.state, purpose)
        .map_err(|error| Failure::new(Exit::DoesNotHold, error.message()).maybe_help(error.advice()))?;
    let runtime = backends::runtime(&plan.cache)?;

    let (progress, renderer) = Renderer::start(terminal, tokio::runtime::Handle::current());
    let result = tokio::select! {
        biased;
        number = signals.next() => Err(interrupted(number)),
        result = work(plan, &provider, &runtime, &id, &delivery, &progress, terminal) => result,
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

async fn work(
    plan: &Plan,
    provider: &LocalProvider,
    runtime: &Arc<dyn Runtime>,
    id: &JobId,
    delivery: &Delivery,
    progress: &Progress,
    terminal: Terminal,
) -> Result<Published, Failure> {
    runtime.check().await.map_err(|error| {
        Failure::new(Exit::DoesNotHold, error.message())
            .maybe_help(error.advice())
            .with_causes_of(&error)
    })?;
    recover::recover(
        provider,
        runtime.as_ref(),
        &recover::job_prefix(&plan.state),
        terminal,
    )
    .await?;
    let machine = provision(provider, id, progress).await?;
    let tpm = backends::tpm(&plan.tpm, &provider.tpm_folder(&machine.id)).await?;
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
        nonce: new_nonce()?,
        platform_kind: tpm.platform,
        provider: provider.capabilities().name.into(),
        instance_type: machine.instance_type,
        region: machine.region,
    };
    let outcome: Outcome = pipeline::run(&job, &backends, progress)
        .await
        .map_err(|error| pipeline_failure(&error))?;
    delivery.stage(outcome, job.nonce, tpm.root_pem).await?.publish()
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
        idle: std::time::Duration::ZERO,
        progress: progress.clone(),
    };
    provider.provision(request).await.map_err(|error| {
        Failure::new(Exit::DoesNotHold, error.message())
            .maybe_help(error.advice())
            .with_causes_of(&error)
    })
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

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    // getrandom(2): up to 256 bytes come whole.
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()).map_err(|error| {
        Failure::new(Exit::DoesNotHold, "the system gives no random numbers").because(&error)
    })?;
    Ok(bytes)
}

fn new_nonce() -> Result<Nonce, Failure> {
    random().map(Nonce::from_bytes)
}

/// A name that tells when the job began: `<state folder>-20260131t235959-<random>`.
fn new_job_id(prefix: &str) -> Result<JobId, Failure> {
    let time: String = Timestamp::now()
        .to_string()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_digit() || *c == 't')
        .collect();
    let random = u32::from_ne_bytes(random()?);
    format!("{prefix}{time}-{random:08x}")
        .parse()
        .map_err(|error: aicert_core::runtime::ParseJobIdError| {
            Failure::new(Exit::DoesNotHold, "could not name the job").because(&error)
        })
}

/// Shows a path as it was given, for commands that can be typed again.
pub(crate) fn shown(path: &Path) -> Text {
    Text::new().bold(&crate::card::shown_command(&[path.display().to_string()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_ids_are_valid_and_differ() {
        let prefix = recover::job_prefix(Path::new("/nonexistent"));
        let (a, b) = (new_job_id(&prefix).unwrap(), new_job_id(&prefix).unwrap());
        assert_ne!(a, b);
        assert!(a.as_str().starts_with(&prefix) && a.as_str().len() <= 40, "{a}");
    }
}
