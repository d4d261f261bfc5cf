//! What every container of a job is allowed to do: as little as its step needs.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Component, Path, PathBuf};

use aicert_core::runtime::{Mount, RuntimeErrorKind};
use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount as ApiMount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType,
};

use crate::engine::Engine;
use crate::error::Fault;

/// The network of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// No interface but loopback.
    None,
    /// The engine's default bridge; only for downloading dependencies.
    Bridge,
}

/// A container without privileges: no capabilities, no way to gain any, no devices, its own namespaces.
///
/// The engine's default seccomp profile and masked paths stay as they are. Everything that would widen the sandbox is
/// set to its closed value rather than left out, so that no engine default can open it.
pub(crate) fn container(
    image: &str,
    command: Vec<String>,
    user: String,
    network: Network,
) -> ContainerCreateBody {
    let network = match network {
        Network::None => "none",
        Network::Bridge => "bridge",
    };
    ContainerCreateBody {
        image: Some(image.into()),
        // As entry point, so that the image's own is not put before it.
        entrypoint: Some(command),
        cmd: Some(Vec::new()),
        user: Some(user),
        // The same in every run: a random name would be one more thing by which two runs differ.
        hostname: Some("aicert".into()),
        tty: Some(false),
        open_stdin: Some(false),
        attach_stdin: Some(false),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".into()]),
            ..HealthConfig::default()
        }),
        host_config: Some(HostConfig {
            network_mode: Some(network.into()),
            cap_drop: Some(vec!["ALL".into()]),
            cap_add: Some(Vec::new()),
            security_opt: Some(vec!["no-new-privileges:true".into()]),
            privileged: Some(false),
            devices: Some(Vec::new()),
            device_cgroup_rules: Some(Vec::new()),
            binds: Some(Vec::new()),
            volumes_from: Some(Vec::new()),
            group_add: Some(Vec::new()),
            pid_mode: Some(String::new()),
            uts_mode: Some(String::new()),
            ipc_mode: Some("private".into()),
            oom_kill_disable: Some(false),
            auto_remove: Some(false),
            // Output is read from the attached streams; a log driver would write everything a second time.
            log_config: Some(HostConfigLogConfig {
                typ: Some("none".into()),
                config: None,
            }),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// The user that files on this machine belong to, as a container sees it.
pub(crate) fn user(engine: &Engine) -> String {
    if engine.facts.rootless {
        // The root of a rootless container is the user that runs the engine.
        return "0:0".into();
    }
    format!(
        "{}:{}",
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw()
    )
}

/// A bind mount without what is mounted below it: a nested mount would not be read-only.
pub(crate) fn bind(source: &Path, target: &str, writable: bool) -> Result<ApiMount, Fault> {
    let source = source
        .to_str()
        .ok_or_else(|| refused(source, "its name is not UTF-8"))?;
    Ok(ApiMount {
        typ: Some(MountType::BIND),
        source: Some(source.into()),
        target: Some(target.into()),
        read_only: Some(!writable),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            non_recursive: Some(true),
            ..MountBindOptions::default()
        }),
        ..ApiMount::default()
    })
}

/// Turns the folders of a job into mounts; refuses those that would show the job more than a folder.
pub(crate) fn job_mounts(mounts: &[Mount], socket: Option<&Path>) -> Result<Vec<ApiMount>, Fault> {
    let socket = socket.and_then(|socket| fs::canonicalize(socket).ok());
    mounts
        .iter()
        .map(|mount| job_mount(mount, socket.as_deref()))
        .collect()
}

fn job_mount(mount: &Mount, socket: Option<&Path>) -> Result<ApiMount, Fault> {
    let host = canonical(&mount.host)?;
    let kind = fs::metadata(&host)
        .map_err(|error| Fault::file("read", &host, error))?
        .file_type();
    if kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device() {
        return Err(refused(&host, "it is a socket, pipe or device"));
    }
    // The folders of the system, whole, hold sockets, devices and secrets; folders of users inside some of them do not.
    let system = [
        "/", "/boot", "/dev", "/etc", "/proc", "/run", "/sys", "/usr", "/var", "/var/run", "/var/lib",
    ];
    if system.iter().any(|folder| host == Path::new(folder))
        || ["/dev", "/proc", "/sys"]
            .iter()
            .any(|folder| host.starts_with(folder) && !host.starts_with("/dev/shm"))
    {
        return Err(refused(&host, "it is a folder of the system"));
    }
    if socket.is_some_and(|socket| socket.starts_with(&host)) {
        return Err(refused(&host, "the Docker engine's socket is in it"));
    }
    let target = Path::new(&mount.container);
    let plain = target
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let covered = [
        "/", "/dev", "/etc", "/proc", "/run", "/sys", "/usr", "/bin", "/lib",
    ];
    if !target.is_absolute()
        || !plain
        || covered.iter().any(|folder| target == Path::new(folder))
        || target.starts_with("/proc")
    {
        return Err(Fault::told(
            RuntimeErrorKind::Unsupported,
            format!("nothing can be mounted at {:?} in a container", mount.container),
            "choose a folder below /workspace",
        ));
    }
    bind(&host, &mount.container, mount.writable)
}

fn canonical(path: &Path) -> Result<PathBuf, Fault> {
    fs::canonicalize(path).map_err(|error| Fault::file("find", path, error))
}

fn refused(path: &Path, reason: &str) -> Fault {
    Fault::told(
        RuntimeErrorKind::Unsupported,
        format!("{} may not be given to a container: {reason}", path.display()),
        "give the job a folder that holds only what it needs",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_is_closed() {
        for network in [Network::None, Network::Bridge] {
            let body = container("sha256:00", vec!["true".into()], "1000:1000".into(), network);
            let host = body.host_config.unwrap();
            assert_eq!(host.cap_drop, Some(vec!["ALL".into()]));
            assert_eq!(host.cap_add, Some(vec![]));
            assert_eq!(host.security_opt, Some(vec!["no-new-privileges:true".into()]));
            assert_eq!(host.privileged, Some(false));
            assert_eq!(host.devices, Some(vec![]));
            assert_eq!(host.pid_mode.as_deref(), Some(""));
            assert_eq!(host.ipc_mode.as_deref(), Some("private"));
            assert_eq!(host.mounts, None);
            assert_eq!(body.cmd, Some(vec![]));
        }
        let sealed = container("sha256:00", vec![], "0:0".into(), Network::None);
        assert_eq!(sealed.host_config.unwrap().network_mode.as_deref(), Some("none"));
    }

    #[test]
    fn a_mount_shows_a_folder_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("data");
        fs::create_dir(&inner).unwrap();
        let socket = folder.path().join("docker.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/proc", &link).unwrap();

        let mount = |host: &Path, container: &str| Mount {
            host: host.into(),
            container: container.into(),
            writable: false,
        };
        let check = |host: &Path, container: &str| {
            job_mounts(&[mount(host, container)], Some(&socket)).map(|mut all| all.remove(0))
        };

        let fine = check(&inner, "/workspace/src").unwrap();
        assert_eq!(fine.read_only, Some(true));
        assert_eq!(fine.bind_options.unwrap().non_recursive, Some(true));
        for host in [
            &socket,
            folder.path(),
            &link,
            Path::new("/"),
            Path::new("/dev"),
            Path::new("/dev/null"),
            Path::new("/etc"),
        ] {
            assert!(check(host, "/workspace/src").is_err(), "{}", host.display());
        }
        assert!(check(&folder.path().join("absent"), "/workspace/src").is_err());
        for container in ["workspace", "/", "/workspace/../etc", "/etc", "/proc/1", ""] {
            assert!(check(&inner, container).is_err(), "{container}");
        }
    }
}
