//! The container engine: containerd and dockerd, each by itself, so that they start at the same time.
//!
//! What does not follow from how they are started is in the image's `/etc/docker/daemon.json`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::failure::{OrFail as _, Outcome};
use crate::socket;

/// Where programs of the engine find each other.
pub(crate) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

const CONTAINERD: &str = "/usr/bin/containerd";
const CONTAINERD_CONFIG: &str = "/run/aicert/containerd.toml";
const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

const DOCKERD: &str = "/usr/sbin/dockerd";
const DOCKERD_SOCKET: &str = "/run/docker.sock";

/// Without the interface for Kubernetes, and what no image here uses.
const CONFIG: &str = r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
    "io.containerd.grpc.v1.cri",
    "io.containerd.internal.v1.opt",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
]
"#;

/// What runs containers.
pub(crate) fn containerd() -> Outcome<Command> {
    fs::write(CONTAINERD_CONFIG, CONFIG)
        .or_fail(|| format!("cannot write {CONTAINERD_CONFIG}"), "memory is full")?;
    let mut command = Command::new(CONTAINERD);
    command
        .args([
            "--config",
            CONTAINERD_CONFIG,
            "--address",
            CONTAINERD_SOCKET,
            "--log-level",
            "warn",
        ])
        .stdin(Stdio::null());
    Ok(prepared(command))
}

/// What the server speaks to, at a socket that `user` may use; the socket is there from now on.
pub(crate) fn dockerd(user: u32) -> Outcome<Command> {
    let listener = socket::bind(Path::new(DOCKERD_SOCKET), user)?;
    let mut command = socket::command(DOCKERD, listener);
    command.args([
        "--host",
        "fd://",
        "--containerd",
        CONTAINERD_SOCKET,
        "--log-level",
        "warn",
    ]);
    Ok(prepared(command))
}

fn prepared(mut command: Command) -> Command {
    command
        .env_clear()
        .env("HOME", "/var")
        .env("TMPDIR", "/var/tmp")
        .env("PATH", PATH);
    command
}
