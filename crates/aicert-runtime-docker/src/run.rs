//! The job itself.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use aicert_core::event::{ExecutionOutcome, Variable};
use aicert_core::runtime::{ExecutionReport, ExecutionRequest, Limits, RuntimeErrorKind};
use bollard::models::{ContainerCreateBody, ContainerState, DeviceRequest};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;

use crate::engine::Engine;
use crate::error::Fault;
use crate::process::{End, run_to_end};
use crate::{output, sandbox};

/// Pieces of output on their way to the file: room for a moment in which the disk is slow.
const PIECES: usize = 4_096;

/// Runs a job, and returns when its container is removed.
pub(crate) async fn run(engine: &Engine, request: ExecutionRequest) -> Result<ExecutionReport, Fault> {
    let body = body(engine, &request).await?;
    let log = create_log(&request.log_file)?;
    let (sender, receiver) = mpsc::channel(PIECES);
    let progress = request.progress.clone();
    let recorder = tokio::task::spawn_blocking(move || output::record(receiver, log, &progress));

    let id = engine.create(&request.job, body).await?;
    let end = run_to_end(engine, &id, request.limits.time, sender).await;
    let removed = engine.remove(&id).await;
    let recorded = recorder.await;
    let end = end?;
    removed?;
    match recorded {
        Ok(Ok(())) => Ok(report(&end)),
        Ok(Err(error)) => Err(Fault::file("write the job's output to", &request.log_file, error)),
        Err(panic) => Err(Fault::told(
            RuntimeErrorKind::Failed,
            format!("writing the job's output broke off: {panic}"),
            "this is a fault of aicert: please report it",
        )),
    }
}

async fn body(engine: &Engine, request: &ExecutionRequest) -> Result<ContainerCreateBody, Fault> {
    if request.command.is_empty() {
        return Err(Fault::told(
            RuntimeErrorKind::Unsupported,
            "the job has no command",
            "name the command to run",
        ));
    }
    let image = engine
        .image_by_digest(request.image)
        .await?
        .id
        .unwrap_or_default();
    let user = sandbox::user(engine);
    let mut body = sandbox::container(&image, request.command.clone(), user, sandbox::Network::None);
    body.working_dir = Some(request.working_directory.clone());
    body.env = Some(
        request
            .environment
            .iter()
            .map(variable)
            .collect::<Result<_, _>>()?,
    );

    // The sandbox always has one; `Option` is the API's.
    let host = body.host_config.get_or_insert_default();
    host.mounts = Some(sandbox::job_mounts(&request.mounts, engine.socket.as_deref())?);
    // Reaps what the job leaves behind, and passes signals on: most programs are not made to be process 1.
    host.init = Some(engine.facts.init);
    limit(engine, &request.limits, host)?;
    if !request.gpus.is_empty() {
        host.device_requests = Some(vec![DeviceRequest {
            driver: Some("nvidia".into()),
            device_ids: Some(request.gpus.iter().map(|gpu| gpu.uuid.clone()).collect()),
            capabilities: Some(vec![vec!["gpu".into(), "compute".into(), "utility".into()]]),
            ..DeviceRequest::default()
        }]);
    }
    Ok(body)
}

fn variable(variable: &Variable) -> Result<String, Fault> {
    let name_is_fine = !variable.name.is_empty() && !variable.name.contains(['=', '\0']);
    if !name_is_fine || variable.value.contains('\0') {
        return Err(Fault::told(
            RuntimeErrorKind::Unsupported,
            format!("{:?} cannot be an environment variable", variable.name),
            "a name is not empty and has no `=`; neither name nor value has a zero byte",
        ));
    }
    Ok(format!("{}={}", variable.name, variable.value))
}

fn limit(engine: &Engine, limits: &Limits, host: &mut bollard::models::HostConfig) -> Result<(), Fault> {
    let cannot = |what: &str| {
        Fault::told(
            RuntimeErrorKind::Unsupported,
            format!("a limit of {what} is asked for, and the Docker engine cannot set one"),
            "turn the control group controller on in the kernel (`docker info` shows a warning), or leave the limit out",
        )
    };
    let number = |value: u64, what| i64::try_from(value).map_err(|_| cannot(what));
    let memory = match limits.memory_bytes {
        Some(_) if !engine.facts.memory_limit => return Err(cannot("memory")),
        Some(bytes) => {
            let bytes = number(bytes, "memory")?;
            host.memory = Some(bytes);
            // Equal to memory: no swap beyond it.
            host.memory_swap = Some(bytes);
            bytes
        }
        None => number(engine.facts.memory, "memory")?,
    };
    // Data loaders pass batches between processes through shared memory, and Docker's 64 MiB starve them. It is counted
    // as memory only while it is used.
    host.shm_size = Some((memory / 2).max(64 << 20));
    if let Some(processes) = limits.processes {
        if !engine.facts.process_limit {
            return Err(cannot("processes"));
        }
        host.pids_limit = Some(number(processes.max(1), "processes")?);
    }
    Ok(())
}

fn create_log(path: &Path) -> Result<File, Fault> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(path);
    file.map_err(|error| Fault::file("write the job's output to", path, error))
}

fn report(end: &End) -> ExecutionReport {
    let exit_code = end
        .state
        .exit_code
        .and_then(|code| u64::try_from(code).ok())
        .unwrap_or(255);
    let outcome = if end.timed_out {
        ExecutionOutcome::TimedOut
    } else if end.state.oom_killed == Some(true) && exit_code != 0 {
        // A job that lost a helper to the limit and still ended well did not fail.
        ExecutionOutcome::OutOfMemory
    } else {
        ExecutionOutcome::Exited
    };
    // What was killed did not end well, whatever status it left in its last moment.
    let exit_code = if end.timed_out && exit_code == 0 {
        137
    } else {
        exit_code
    };
    ExecutionReport {
        outcome,
        exit_code,
        wall: wall(&end.state, end.elapsed),
    }
}

/// The time between the engine's two stamps; `elapsed`, which includes the engine's own work, where its clock was set
/// in between.
fn wall(state: &ContainerState, elapsed: Duration) -> Duration {
    let stamp = |text: &Option<String>| OffsetDateTime::parse(text.as_deref()?, &Rfc3339).ok();
    match (stamp(&state.started_at), stamp(&state.finished_at)) {
        (Some(started), Some(finished)) => match Duration::try_from(finished - started) {
            Ok(wall) if wall <= elapsed => wall,
            _ => elapsed,
        },
        _ => elapsed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(code: i64, oom_killed: bool, timed_out: bool) -> ExecutionReport {
        let state = ContainerState {
            exit_code: Some(code),
            oom_killed: Some(oom_killed),
            ..ContainerState::default()
        };
        report(&End {
            state,
            timed_out,
            elapsed: Duration::from_secs(1),
        })
    }

    #[test]
    fn a_killed_job_is_never_a_success() {
        assert_eq!(
            (end(0, false, false).outcome, end(0, false, false).exit_code),
            (ExecutionOutcome::Exited, 0)
        );
        assert_eq!(end(3, false, false).exit_code, 3);
        assert_eq!(end(137, true, false).outcome, ExecutionOutcome::OutOfMemory);
        assert_eq!(end(0, true, false).outcome, ExecutionOutcome::Exited);
        assert_eq!(
            (end(0, false, true).outcome, end(0, false, true).exit_code),
            (ExecutionOutcome::TimedOut, 137)
        );
        assert_eq!(
            report(&End {
                state: ContainerState::default(),
                timed_out: false,
                elapsed: Duration::ZERO
            })
            .exit_code,
            255
        );
    }

    #[test]
    fn a_clock_that_was_set_is_not_believed() {
        let state = |started: &str, finished: &str| ContainerState {
            started_at: Some(started.into()),
            finished_at: Some(finished.into()),
            ..ContainerState::default()
        };
        let elapsed = Duration::from_secs(10);
        let honest = state("2026-01-01T00:00:00.5Z", "2026-01-01T00:00:05.75Z");
        assert_eq!(wall(&honest, elapsed), Duration::from_millis(5_250));
        assert_eq!(
            wall(&state("2026-01-01T00:00:05Z", "2026-01-01T00:00:00Z"), elapsed),
            elapsed
        );
        assert_eq!(
            wall(&state("2026-01-01T00:00:05Z", "2027-01-01T00:00:00Z"), elapsed),
            elapsed
        );
        assert_eq!(
            wall(&state("yesterday", "2027-01-01T00:00:00Z"), elapsed),
            elapsed
        );
    }
}
