//! `aicert attach`.

use std::sync::Arc;

use aicert_client::Identity;
use aicert_core::cloud::CloudProvider;
use aicert_core::runtime::JobId;
use aicert_core::secret::Secret;
use aicert_core::spec::JobSpec;

use crate::access;
use crate::args::AttachArgs;
use crate::backends;
use crate::deliver::Delivery;
use crate::error::{Exit, Failure};
use crate::fleet::{self, Entry, Fleet, InUse, MachineState, Survey};
use crate::machines::table_of;
use crate::output::Terminal;
use crate::progress::Renderer;
use crate::remote::record::{
    CLIENT, CONFIGURATION, POLICY, Phase, REFERENCE_VALUES, RESULT, Run, TRUST_ANCHOR, Take,
};
use crate::remote::{self, Errand};
use crate::report::{Kept, how_to_look};
use crate::run::{block_on, parse_configuration};
use crate::signals::Signals;
use crate::state::State;
use crate::trust::Trust;

pub(crate) fn attach(args: &AttachArgs, terminal: Terminal) -> Result<Exit, Failure> {
    block_on(async {
        let mut signals = Signals::listen()?;
        let state = State::from_environment()?;
        let fleet = Fleet::of(state.clone(), None);
        let Survey {
            mut entries,
            failures,
        } = fleet.survey_remote().await;
        for failure in failures {
            terminal.warning(&failure.with_advice());
        }
        // One whose record cannot be read is meant only if it is named.
        entries.retain(|entry| entry.phase.is_some() || (args.job.is_some() && entry.problem.is_some()));
        let entry = choose(&entries, args.job.as_deref(), terminal)?;
        if entry.in_use == Some(true) {
            return Err(followed(&entry.job, entry.process));
        }
        if entry.phase.is_none() || entry.state == MachineState::Unknown {
            return Err(obscure(&entry.job, entry.problem.as_deref().unwrap_or_default()));
        }
        let taken = fleet.runs().take(&entry.job);
        let mut run = match taken.map_err(|error| Failure::of(&error))? {
            Take::Run(run) => run,
            Take::Held { process } => return Err(followed(&entry.job, process)),
            Take::Unreadable(run) => return Err(obscure(&entry.job, &run.why)),
            Take::Gone => return Err(obscure(&entry.job, "somebody has just removed it")),
        };
        if run.record().phase == Phase::Delivered {
            return delivered(run, &fleet, entry, terminal).await;
        }
        redirect(&mut run, args)?;
        let configuration = unmade(&run)?;
        let cloud = configuration.as_ref().and_then(|spec| spec.machine.cloud());
        if let Some(cloud) = cloud.filter(|_| entry.state == MachineState::Running) {
            // This may be another network than the one that the job was begun from.
            let access = access::networks(&cloud.access).await?;
            let access = access.iter().map(ToString::to_string).collect();
            run.update(|record| record.access = access)
                .map_err(|error| Failure::of(&error))?;
        }
        let (provider, identity, trust) = (
            provider(&run, configuration.as_ref(), &fleet, &state)?,
            identity(&run)?,
            trust(&run)?,
        );
        let (progress, renderer) = Renderer::start(terminal, tokio::runtime::Handle::current());
        let errand = Errand {
            provider,
            identity,
            trust,
            delivery: Delivery::new(
                run.record().targets.clone(),
                state.rescue(run.job()),
                run.job().clone(),
            ),
            progress,
            terminal,
        };
        if entry.state == MachineState::Running {
            return remote::finish(run, errand, renderer, &mut signals).await;
        }
        remote::give_up(run, errand, renderer, &mut signals).await
    })
}

fn followed(job: &JobId, process: Option<u32>) -> Failure {
    fleet::followed(job, process).help("stop it there with Ctrl-C; it says how to go on")
}

fn obscure(job: &JobId, problem: &str) -> Failure {
    Failure::new(
        Exit::DoesNotHold,
        format!("nobody can go on with the job {job}: {problem}"),
    )
}

/// The job that is meant: the only one, unless one is named.
fn choose<'a>(entries: &'a [Entry], name: Option<&str>, terminal: Terminal) -> Result<&'a Entry, Failure> {
    match (name, entries) {
        (Some(name), _) => Fleet::choose(entries, name),
        (None, [entry]) => Ok(entry),
        (None, []) => Err(Failure::misuse("there is no job on another machine")
            .help("`aicert run` with a `machine` other than `provider: local` begins one")),
        (None, _) => {
            terminal.result(&table_of(entries));
            Err(Failure::misuse("there is more than one job").help("name one: `aicert attach JOB`"))
        }
    }
}

/// Removes the machine of a job whose results are here, and tells what came of it.
async fn delivered(run: Run, fleet: &Fleet, entry: &Entry, terminal: Terminal) -> Result<Exit, Failure> {
    let unknown = |error: &dyn std::error::Error| {
        Failure::new(
            Exit::DoesNotHold,
            "the results of the job are here, and what came of it is not known any more",
        )
        .because(error)
        .help(how_to_look(&run.record().targets.proof))
    };
    let kept = match run.read(RESULT) {
        Ok(bytes) => serde_json::from_slice::<Kept>(&bytes).map_err(|error| unknown(&error)),
        Err(error) => Err(unknown(&error)),
    };
    fleet.remove(entry, Take::Run(run), InUse::Refuse).await?;
    Ok(kept?.report(&entry.job, terminal))
}

/// Puts the results elsewhere than `run` was told, where that is wanted.
fn redirect(run: &mut Run, args: &AttachArgs) -> Result<(), Failure> {
    if args.output_bom.is_none() && args.outputs.is_none() && !args.force {
        return Ok(());
    }
    let targets = run.record().targets.clone();
    let targets = targets.redirected(args.output_bom.as_deref(), args.outputs.as_deref(), args.force);
    if args.output_bom.is_some() || args.outputs.is_some() {
        targets.check()?;
        run.clear().map_err(|error| Failure::of(&error))?;
    }
    let targets = targets.absolute()?;
    run.update(|record| record.targets = targets)
        .map_err(|error| Failure::of(&error))
}

/// The configuration of a job of which it is not known whether it has a machine: that is made again, as it says.
fn unmade(run: &Run) -> Result<Option<JobSpec>, Failure> {
    if run.record().phase > Phase::Prepared {
        return Ok(None);
    }
    let configuration = &run.record().configuration;
    parse_configuration(&text(run, CONFIGURATION)?, configuration, configuration).map(Some)
}

/// Who has the machine, or makes it.
fn provider(
    run: &Run,
    configuration: Option<&JobSpec>,
    fleet: &Fleet,
    state: &State,
) -> Result<Arc<dyn CloudProvider>, Failure> {
    let place = run
        .record()
        .place()
        .ok_or_else(|| Failure::new(Exit::DoesNotHold, "the record does not say where the machine is"))?;
    match configuration {
        Some(spec) => backends::provider(&spec.machine, &place, state),
        None => fleet.provider(&place).cloned(),
    }
}

fn identity(run: &Run) -> Result<Identity, Failure> {
    let pem = Secret::new(text(run, CLIENT)?);
    Identity::from_pem(&pem).map_err(|error| Failure::new(Exit::DoesNotHold, error.to_string()))
}

/// What the machine was attested against, whatever has become of the files since.
fn trust(run: &Run) -> Result<Trust, Failure> {
    let record = run.record();
    let optional = |name: &str| run.path(name).exists().then(|| text(run, name)).transpose();
    let references = vec![run.path(REFERENCE_VALUES)];
    let policy = optional(POLICY)?.map(|_| run.path(POLICY));
    Ok(Trust {
        root_pem: optional(TRUST_ANCHOR)?,
        reference_files: record.reference_values.clone(),
        policy_file: record.policy.clone(),
        ..Trust::read(references, policy)?
    })
}

fn text(run: &Run, name: &str) -> Result<String, Failure> {
    let bytes = run.read(name).map_err(|error| Failure::of(&error))?;
    String::from_utf8(bytes).map_err(|error| {
        Failure::new(
            Exit::DoesNotHold,
            format!("{} is damaged", run.path(name).display()),
        )
        .because(&error)
    })
}
