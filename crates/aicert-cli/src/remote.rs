//! Jobs on machines other than this one, from a configuration to results that are here.
//!
//! [`record`] is what is known of a job whatever happens to this process; [`phases`] goes from one phase of it to the next;
//! [`boot`], [`job`] and [`receive`] are what is done in them. [`survey`] finds what earlier commands left.

mod boot;
mod job;
mod phases;
mod receive;
pub(crate) mod record;
mod stop;
pub(crate) mod survey;
#[cfg(test)]
mod tests;
mod traces;

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use aicert_client::Identity;
use aicert_core::cloud::{CloudProvider, Network};
use aicert_core::progress::{Progress, ProgressEvent};
use aicert_core::spec::{GpuRequest, MachineSpec};
use aicert_core::time::Timestamp;

use self::record::{
    CLIENT, CONFIGURATION, POLICY, Phase, REFERENCE_VALUES, Record, Run, Runs, TRUST_ANCHOR, Times,
};
use self::stop::{Fate, Stop};
use crate::access;
use crate::backends;
use crate::card;
use crate::deliver::{Delivery, Published};
use crate::error::{Exit, Failure};
use crate::fleet::Fleet;
use crate::output::Terminal;
use crate::owner;
use crate::place::{Place, Places};
use crate::progress::Renderer;
use crate::report;
use crate::run::Plan;
use crate::signals::Signals;
use crate::state;
use crate::text::Text;
use crate::trust::Trust;

/// What a job needs in every phase.
pub(crate) struct Errand {
    pub(crate) provider: Arc<dyn CloudProvider>,
    pub(crate) identity: Identity,
    pub(crate) trust: Trust,
    pub(crate) delivery: Delivery,
    pub(crate) progress: Progress,
    pub(crate) terminal: Terminal,
}

/// Runs a job on a machine that is made for it.
pub(crate) async fn run(
    plan: &Plan,
    machine: &MachineSpec,
    terminal: Terminal,
    signals: &mut Signals,
) -> Result<Exit, Failure> {
    let place = Place::of(machine, owner::owner)?
        .ok_or_else(|| Failure::misuse("this build knows no such machine"))?;
    let provider = backends::provider(machine, &place, &plan.state)?;
    let fleet = Fleet::of(plan.state.clone(), Some(&place));
    // Clouds may take their time to answer.
    let access = tokio::select! {
        biased;
        number = signals.next() => {
            return Err(Failure::new(Exit::Signal(number), "interrupted: nothing was made"));
        }
        access = before(&fleet, machine, terminal) => access?,
    };
    let identity = Identity::generate().map_err(|error| stop::failure(&error))?;
    let trust = Trust {
        root_pem: provider.trust_anchor().map(str::to_owned),
        ..plan.trust.clone()
    };
    let record = new_record(plan, machine, &place, &access)?;
    // What cannot be sent is better known before there is a machine.
    let prepared = job::prepare(&record, &plan.text)?;
    job::warn_of_loopback(&prepared, terminal);
    let references = serde_json::to_vec_pretty(&trust.reference_values).map_err(|error| {
        Failure::new(Exit::DoesNotHold, "the reference values cannot be kept").because(&error)
    })?;
    let pem = identity.to_pem();
    let mut beside = vec![
        (CLIENT, pem.expose().as_bytes()),
        (CONFIGURATION, plan.text.as_bytes()),
        (REFERENCE_VALUES, &references[..]),
    ];
    for (name, text) in [(TRUST_ANCHOR, &trust.root_pem), (POLICY, &trust.policy_text)] {
        beside.extend(text.as_ref().map(|text| (name, text.as_bytes())));
    }
    // Before anything is there: what is made is found again from here.
    Places::of(&plan.state)
        .remember(&place)
        .map_err(|error| Failure::of(&error))?;
    announce(&record, &place, terminal);
    let run = Runs::of(&plan.state)
        .begin(record, &beside)
        .map_err(|error| Failure::of(&error))?;
    let delivery = Delivery::new(
        plan.targets.clone(),
        plan.state.rescue(run.job()),
        run.job().clone(),
    );
    let (progress, renderer) = Renderer::start(terminal, tokio::runtime::Handle::current());
    let errand = Errand {
        provider,
        identity,
        trust,
        delivery,
        progress,
        terminal,
    };
    finish(run, errand, renderer, signals).await
}

/// Looks at what earlier commands left, and finds out who shall reach the machine.
async fn before(fleet: &Fleet, machine: &MachineSpec, terminal: Terminal) -> Result<Vec<Network>, Failure> {
    survey::survey(fleet, terminal).await;
    match machine.cloud() {
        Some(cloud) => access::networks(&cloud.access).await,
        None => Ok(Vec::new()),
    }
}

fn new_record(
    plan: &Plan,
    machine: &MachineSpec,
    place: &Place,
    access: &[Network],
) -> Result<Record, Failure> {
    let cloud = machine.cloud();
    let boot_limit = match (machine, cloud) {
        (MachineSpec::Qemu(machine), _) => machine.boot_limit,
        (_, Some(cloud)) => cloud.boot_limit,
        _ => return Err(Failure::misuse("this build knows no such machine")),
    };
    Ok(Record {
        job: plan.state.new_job_id()?.to_string(),
        created: Timestamp::now(),
        process: std::process::id(),
        configuration: plan.configuration.clone(),
        config: plan.spec.config,
        targets: plan.targets.absolute()?,
        reference_values: absolute(&plan.trust.reference_files),
        policy: absolute(plan.trust.policy_file.as_slice()).pop(),
        nonce: state::new_nonce()?,
        provider: place.provider.clone(),
        place: place.name().map(str::to_owned),
        owner: place.owner().map(ToString::to_string),
        machine: None,
        identity: None,
        endpoint: None,
        boot_limit: boot_limit.as_secs(),
        access: access.iter().map(ToString::to_string).collect(),
        gpus: cloud.map(|_| gpus(plan.spec.gpus.as_ref())),
        lifetime: cloud.map(|cloud| cloud.lifetime.as_secs()),
        phase: Phase::Prepared,
        times: Times::default(),
    })
}

/// How many GPUs a machine must have at least for a job.
fn gpus(request: Option<&GpuRequest>) -> u32 {
    match request {
        None => 0,
        Some(GpuRequest::Count(count)) => *count,
        Some(GpuRequest::Uuids(uuids)) => u32::try_from(uuids.len()).unwrap_or(u32::MAX),
        // All that there are, of which there must be one.
        Some(_) => 1,
    }
}

/// Says what is going to be made that costs; the provider says which kind of machine it is, and what such cost.
fn announce(record: &Record, place: &Place, terminal: Terminal) {
    let (true, Some(lifetime)) = (place.is_cloud(), record.lifetime) else {
        return;
    };
    let access = record.access.join(", ");
    let mut text = Text::from("A machine is made at ").bold(&place.to_string());
    text = text.plain(&format!(
        ", which {access} may reach. Whatever happens, it ends after {}.",
        card::span(lifetime)
    ));
    terminal.note(&text);
    terminal.json_event(&serde_json::json!({
        "event": "planned",
        "job": record.job,
        "provider": place.provider,
        "place": place.name(),
        "owner": place.owner().map(ToString::to_string),
        "access": record.access,
        "lifetime_seconds": lifetime,
        "gpus": record.gpus,
    }));
}

fn absolute(paths: &[PathBuf]) -> Vec<PathBuf> {
    let absolute = paths.iter().map(std::path::absolute);
    absolute.filter_map(Result::ok).collect()
}

/// Goes through the phases that are left, and leaves behind what is of use.
pub(crate) async fn finish(
    mut run: Run,
    errand: Errand,
    renderer: Renderer,
    signals: &mut Signals,
) -> Result<Exit, Failure> {
    let result = tokio::select! {
        biased;
        number = signals.next() => Err(number),
        result = phases::drive(&mut run, &errand) => Ok(result),
    };
    let result = result.unwrap_or_else(|number| Err(stop::interrupted(number, run.record())));
    leave(run, errand, renderer, signals, result).await
}

/// Finds out what is lost with a machine that has ended, and cleans up.
pub(crate) async fn give_up(
    mut run: Run,
    errand: Errand,
    renderer: Renderer,
    signals: &mut Signals,
) -> Result<Exit, Failure> {
    let result = tokio::select! {
        biased;
        number = signals.next() => Err(stop::interrupted(number, run.record())),
        result = phases::without_machine(&mut run, &errand) => result,
    };
    leave(run, errand, renderer, signals, result).await
}

/// Removes the machine unless there is something on it, and tells the user what came of the job.
async fn leave(
    run: Run,
    errand: Errand,
    renderer: Renderer,
    signals: &mut Signals,
    result: Result<Published, Stop>,
) -> Result<Exit, Failure> {
    let (terminal, job) = (errand.terminal, run.job().clone());
    errand.delivery.cancel();
    let result = match result {
        Err(Stop {
            failure,
            fate: Fate::Keep,
        }) => {
            // What is being written is complete, or gone on with later: nobody has to wait for it twice.
            tokio::select! {
                biased;
                _ = signals.next() => {}
                () = errand.delivery.settle() => {}
            }
            renderer.finish();
            return Err(failure);
        }
        result => result,
    };
    let mut removal = pin!(phases::remove(run, &errand));
    let warn = || {
        errand.progress.send(ProgressEvent::Warning {
            message: "removing the machine (once more to leave that to `aicert machines destroy`)".into(),
        });
    };
    // Whoever stops a run that is at its end already has not said yet that the machine may stay.
    let mut is_warned = matches!(&result, Err(stop) if matches!(stop.failure.exit, Exit::Signal(_)));
    if is_warned {
        warn();
    }
    let removed = loop {
        tokio::select! {
            biased;
            number = signals.next() => {
                if is_warned {
                    renderer.finish();
                    return Err(Failure::new(Exit::Signal(number), "interrupted again, before the machine was removed")
                        .help(format!("`aicert machines destroy {job}` removes it")));
                }
                is_warned = true;
                warn();
            }
            removed = &mut removal => break removed,
        }
    };
    renderer.finish();
    if let Err(failure) = removed {
        // The result matters more.
        terminal.alarm(&format!(
            "not everything of the job {job} could be removed, and its machine may still run: {}; `aicert machines destroy {job}` tries again",
            failure.message
        ));
    }
    match result {
        Ok(published) => Ok(report::report(published, terminal)),
        Err(stop) => Err(stop.failure),
    }
}
