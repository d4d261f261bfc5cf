//! From one phase of a job to the next.

use std::time::Instant;

use super::record::{Phase, Run};
use super::stop::Stop;
use super::{Errand, boot, job, receive};
use crate::deliver::Published;
use crate::error::Failure;
use aicert_core::cloud::{CloudError, MachineId};
use aicert_core::progress::Step;

/// What the machine is called on the way.
pub(super) const MACHINE: &str = "the machine";

/// Goes on from the phase that the job is in until its results are here. Dropping it at any time leaves a job that can be
/// gone on with from the phase that its record says.
pub(super) async fn drive(run: &mut Run, errand: &Errand) -> Result<Published, Stop> {
    loop {
        match run.record().phase {
            Phase::Prepared => boot::provision(run, errand).await?,
            Phase::Booting => boot::attest(run, errand).await?,
            Phase::Attested => job::submit(run, errand).await?,
            Phase::Submitted => job::follow(run, errand).await?,
            Phase::Finished | Phase::Delivered => return receive::receive(run, errand).await,
        }
    }
}

/// Goes on with a job whose machine has ended: its results may be here, with nobody having been left to say so.
pub(super) async fn without_machine(run: &mut Run, errand: &Errand) -> Result<Published, Stop> {
    let begun = Instant::now();
    if run.record().phase == Phase::Finished
        && let Some(published) = receive::resume(run, errand).await?
    {
        return Ok(receive::delivered(run, errand, published, begun));
    }
    Err(job::ended(run, errand).await)
}

/// Removes the machine of a job, and then what is known of the job.
pub(super) async fn remove(run: Run, errand: &Errand) -> Result<(), Failure> {
    errand.delivery.settle().await;
    let in_cloud = run.record().is_in_cloud();
    if in_cloud {
        // It takes minutes.
        errand.progress.started(Step::Machine, "removing the machine");
    }
    let machines = machines(&run, errand).await;
    for machine in machines.map_err(|error| Failure::of(&error))? {
        let destroyed = errand.provider.destroy(&machine).await;
        destroyed.map_err(|error| Failure::of(&error))?;
        let subject = if in_cloud { "removing the machine" } else { MACHINE };
        errand.progress.finished(Step::Machine, subject, "removed");
    }
    run.forget().map_err(|error| Failure::of(&error))?;
    errand.delivery.tidy();
    Ok(())
}

/// The machines of a job: the one that is recorded, or whatever was made before that could be.
pub(super) async fn machines(run: &Run, errand: &Errand) -> Result<Vec<MachineId>, CloudError> {
    if let Some(machine) = run.record().id() {
        return Ok(vec![machine]);
    }
    if run.record().is_in_cloud() {
        // Machines in clouds are named after their jobs. What was made a moment ago may not be listed yet.
        return Ok(vec![MachineId(run.job().to_string())]);
    }
    let machines = errand.provider.list().await?;
    let of_job = machines.into_iter().filter(|machine| machine.job == *run.job());
    Ok(of_job.map(|machine| machine.id).collect())
}
