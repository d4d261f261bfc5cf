//! Running a container to its end, with all its output.

use std::pin::pin;
use std::time::{Duration, Instant};

use aicert_core::runtime::RuntimeErrorKind;
use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error as ApiError;
use bollard::models::ContainerState;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, KillContainerOptionsBuilder, StartContainerOptions,
    WaitContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::sync::mpsc;

use crate::engine::Engine;
use crate::error::{Doing as _, Fault};

/// What the engine still holds of a container's output after its end is read within this time.
const DRAIN: Duration = Duration::from_secs(120);
/// A killed container is gone within this time.
const KILL: Duration = Duration::from_secs(60);

/// A piece of a container's output, as it came.
pub(crate) struct Output {
    pub(crate) is_error: bool,
    pub(crate) bytes: Bytes,
}

/// How a container ended.
pub(crate) struct End {
    pub(crate) state: ContainerState,
    /// Whether the time limit ended it.
    pub(crate) timed_out: bool,
    /// From start to end, by this machine's monotonic clock; the engine's own work included.
    pub(crate) elapsed: Duration,
}

/// Starts a container that was created, passes its output on, and waits for its end.
///
/// The streams are attached before the start, so that nothing is missed, and read without pause, so that the container
/// never waits for a reader.
pub(crate) async fn run_to_end(
    engine: &Engine,
    id: &str,
    limit: Option<Duration>,
    output: mpsc::Sender<Output>,
) -> Result<End, Fault> {
    let docker = &engine.docker;
    let options = AttachContainerOptionsBuilder::new()
        .stdout(true)
        .stderr(true)
        .stream(true)
        .build();
    let attached = docker
        .attach_container(id, Some(options))
        .await
        .doing("read the output of a container")?;
    let started = Instant::now();
    docker
        .start_container(id, None::<StartContainerOptions>)
        .await
        .doing("start a container")?;

    let mut frames = attached.output;
    let mut drain = pin!(async move {
        while let Some(frame) = frames.next().await {
            let frame = frame.doing("read the output of a container")?;
            let is_error = matches!(frame, LogOutput::StdErr { .. });
            // Fails only when the reader panicked, which its own result tells.
            let _ = output
                .send(Output {
                    is_error,
                    bytes: frame.into_bytes(),
                })
                .await;
        }
        Ok::<(), Fault>(())
    });
    let mut wait = pin!(wait(docker, id, limit));

    let mut drained = None;
    let timed_out = tokio::select! {
        timed_out = &mut wait => timed_out?,
        result = &mut drain => {
            // Without its output a run is worthless: end it now rather than at its end.
            if result.is_err() {
                let _ = docker.kill_container(id, None::<bollard::query_parameters::KillContainerOptions>).await;
            }
            drained = Some(result);
            wait.await?
        }
    };
    let elapsed = started.elapsed();
    match drained {
        Some(result) => result?,
        None => tokio::time::timeout(DRAIN, drain).await.map_err(|_| {
            Fault::told(
                RuntimeErrorKind::Failed,
                "the Docker engine kept the output of a container open for two minutes after its end",
                "try again; restart the engine if it happens again",
            )
        })??,
    }
    Ok(End {
        state: engine.state(id).await?,
        timed_out,
        elapsed,
    })
}

/// Waits until a container has ended, killing it at the limit; tells whether it had to.
async fn wait(docker: &Docker, id: &str, limit: Option<Duration>) -> Result<bool, Fault> {
    let Some(limit) = limit else {
        return ended(docker, id).await.map(|()| false);
    };
    if let Ok(result) = tokio::time::timeout(limit, ended(docker, id)).await {
        return result.map(|()| false);
    }
    let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
    match docker
        .kill_container(id, Some(options))
        .await
        .doing("kill a container that reached its time limit")
    {
        Ok(()) => {}
        // It ended by itself at this very moment.
        Err(fault) if fault.status() == Some(409) => {}
        Err(fault) => return Err(fault),
    }
    let killed = tokio::time::timeout(KILL, ended(docker, id)).await.map_err(|_| {
        Fault::told(
            RuntimeErrorKind::Failed,
            format!(
                "the container {id} reached its time limit and was killed, but is still there a minute later"
            ),
            "a process in it hangs in the kernel, perhaps on a disk or GPU; restart the engine",
        )
    })?;
    killed.map(|()| true)
}

async fn ended(docker: &Docker, id: &str) -> Result<(), Fault> {
    let options = WaitContainerOptionsBuilder::new()
        .condition("not-running")
        .build();
    match docker
        .wait_container(id, Some(options))
        .try_collect::<Vec<_>>()
        .await
    {
        // The client makes an error of an exit status other than zero; the status is read from the container's state.
        Ok(_) | Err(ApiError::DockerContainerWaitError { .. }) => Ok(()),
        Err(error) => Err(error).doing("wait for a container"),
    }
}
