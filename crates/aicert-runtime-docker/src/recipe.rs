//! aicert's own Python base image, built from Debian packages by the recipe in `image/python`.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use aicert_core::progress::{Progress, Step};
use aicert_core::runtime::RuntimeErrorKind;
use bollard::models::ImageInspect;
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::archive;
use crate::config::DockerConfig;
use crate::engine::Engine;
use crate::error::Fault;

/// The recipe travels inside the program, so that an installed binary needs no source tree.
const RECIPE: &str = include_str!("../../../image/python/build");
/// What mmdebstrap says on its way, roughly: for a progress bar.
const STAGES: u64 = 16;
const TAIL: usize = 15;
const MISSING_TOOL: i32 = 3;

/// The repository of the images that are built here. Nothing is pulled from it: whoever owns the name in a public registry
/// could have anything there.
pub(crate) const REPOSITORY: &str = "docker.io/aicert/python";

/// The name of the image for a minor version of Python 3.
pub(crate) fn tag(minor: u8) -> Result<String, Fault> {
    suite(minor).map(|_| format!("aicert/python:3.{minor}"))
}

/// The Debian release that has this version: a base image takes no Python from anywhere else.
fn suite(minor: u8) -> Result<&'static str, Fault> {
    match minor {
        11 => Ok("bookworm"),
        13 => Ok("trixie"),
        other => Err(Fault::told(
            RuntimeErrorKind::NotFound,
            format!("aicert has no base image with Python 3.{other}; it has Python 3.11 and Python 3.13"),
            "set `pythonVersion: 11` or `pythonVersion: 13`, or name any image with Python and pip as `baseImage`",
        )),
    }
}

/// Builds the image, loads it into the engine, and returns it.
pub(crate) async fn build(
    engine: &Engine,
    config: &DockerConfig,
    minor: u8,
    progress: &Progress,
) -> Result<ImageInspect, Fault> {
    let tag = tag(minor)?;
    let folder = tempfile::Builder::new().prefix("aicert-image-").tempdir();
    let folder = folder.map_err(|error| Fault::file("make a folder in", &std::env::temp_dir(), error))?;
    let archive = folder.path().join("image.tar");
    let script = folder.path().join("build");
    std::fs::write(&script, RECIPE).map_err(|error| Fault::file("write", &script, error))?;

    let mut command = Command::new("sh");
    command
        .arg(&script)
        .arg("--suite")
        .arg(suite(minor)?)
        .arg("--output")
        .arg(&archive);
    if let Some(mirror) = &config.debian_mirror {
        command.arg("--mirror").arg(mirror);
    }
    let _folder = run(command, folder, &tag, progress).await?;
    load(engine, &archive, &tag).await
}

/// Runs the recipe with nothing of the caller's environment but what reaching the mirror takes.
async fn run(
    mut command: Command,
    folder: TempDir,
    tag: &str,
    progress: &Progress,
) -> Result<TempDir, Fault> {
    let search = std::env::var("PATH").unwrap_or_default();
    command.env_clear().env(
        "PATH",
        format!("{search}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    );
    command.env("TMPDIR", folder.path());
    for name in ["HOME", "http_proxy", "https_proxy", "no_proxy"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0);
    let child = command
        .spawn()
        .map_err(|error| Fault::file("run", Path::new("sh"), error))?;
    let mut recipe = Running {
        child,
        folder: Some(folder),
    };

    let mut tail = Vec::new();
    if let Some(stderr) = recipe.child.stderr.take() {
        let mut lines = BufReader::new(stderr).lines();
        let mut stage = 0;
        while let Ok(Some(line)) = lines.next_line().await {
            if line.starts_with("I: ") {
                stage = (stage + 1).min(STAGES);
                progress.advanced(Step::Image, tag, stage, Some(STAGES));
            }
            if tail.len() == TAIL {
                tail.remove(0);
            }
            tail.push(line);
        }
    }
    let status = recipe
        .child
        .wait()
        .await
        .map_err(|error| Fault::file("wait for", Path::new("sh"), error))?;
    if status.success() {
        // `Running` gives its folder up here and in `drop` alone.
        return recipe.folder.take().ok_or_else(|| failed(tag, status, &tail));
    }
    Err(failed(tag, status, &tail))
}

fn failed(tag: &str, status: ExitStatus, tail: &[String]) -> Fault {
    if status.code() == Some(MISSING_TOOL) {
        let said = tail.last().map_or("a tool is missing", |line| {
            line.trim_start_matches("image/python/build: ")
        });
        return Fault::told(
            RuntimeErrorKind::Unsupported,
            format!("cannot build the base image {tag}: {said}"),
            "install it, or name an image with Python and pip as `baseImage`",
        );
    }
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or(0)),
    };
    Fault::told(
        RuntimeErrorKind::Failed,
        format!(
            "cannot build the base image {tag} ({how}); its recipe said last:\n  {}",
            tail.join("\n  ")
        ),
        "check that this machine reaches its Debian mirror (`sudo apt-get update`), or name an image as `baseImage`",
    )
}

/// The recipe at work; dropped, it is told to stop, and its folder is removed once it has.
struct Running {
    child: Child,
    folder: Option<TempDir>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(folder) = self.folder.take() else { return };
        let Some(pid) = self
            .child
            .id()
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
        else {
            return;
        };
        // mmdebstrap unmounts and removes what it made when it is told to stop; killed, it could not.
        let _ = kill_process_group(pid, Signal::TERM);
        std::thread::spawn(move || {
            for _ in 0..200 {
                if rustix::process::test_kill_process_group(pid).is_err() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            drop(folder);
        });
    }
}

async fn load(engine: &Engine, archive: &Path, tag: &str) -> Result<ImageInspect, Fault> {
    archive::load(engine, archive, tag, &Progress::ignored()).await?;
    engine.image(tag).await?.ok_or_else(|| {
        Fault::told(
            RuntimeErrorKind::Failed,
            format!("the Docker engine loaded the base image {tag}, but does not have it"),
            "try again; the engine's log may say more",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_cannot_be_had_are_named_with_those_that_can() {
        assert_eq!(tag(11).unwrap(), "aicert/python:3.11");
        assert_eq!(tag(13).unwrap(), "aicert/python:3.13");
        let error = tag(12).unwrap_err().to_string();
        assert!(
            error.contains("3.12") && error.contains("3.11") && error.contains("3.13"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_recipe_that_is_dropped_stops() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mark) = (
            folder.path().to_owned(),
            std::env::temp_dir().join(format!("aicert-recipe-{}", std::process::id())),
        );
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg("echo $$ > \"$1\"; sleep 600")
            .arg("sh")
            .arg(&mark);
        let progress = Progress::ignored();
        let running = run(command, folder, "x", &progress);
        assert!(
            tokio::time::timeout(std::time::Duration::from_millis(500), running)
                .await
                .is_err()
        );
        let pid = std::fs::read_to_string(&mark)
            .unwrap()
            .trim()
            .parse::<i32>()
            .unwrap();
        std::fs::remove_file(&mark).unwrap();
        let pid = Pid::from_raw(pid).unwrap();
        for _ in 0..50 {
            if rustix::process::test_kill_process_group(pid).is_err() && !path.exists() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("the recipe or its folder is still there");
    }

    #[tokio::test]
    async fn a_missing_tool_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.arg("-c").arg("echo 'image/python/build: mmdebstrap is not installed: sudo apt-get install mmdebstrap' >&2; exit 3");
        let fault = run(command, folder, "aicert/python:3.11", &Progress::ignored())
            .await
            .unwrap_err();
        let error = aicert_core::runtime::RuntimeError::from(fault);
        assert_eq!(error.kind(), RuntimeErrorKind::Unsupported);
        assert!(
            error.message().ends_with("sudo apt-get install mmdebstrap"),
            "{error}"
        );
    }
}
