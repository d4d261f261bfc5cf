//! What the kernel provides: its file systems, and its settings.

use std::ffi::CStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::mount::{MountFlags, mount};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::system::{RebootCommand, reboot, sethostname};

use crate::failure::{OrFail as _, Outcome};

const IMAGE: &str = "the image's kernel or its folders are not those that it was made for";

/// No programs, no devices, no changes of rights.
const BARE: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// No devices, no changes of rights.
pub(crate) const FILES: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// Mounts what the first stage needs, and the second one takes over.
pub(crate) fn mount_first() -> Outcome {
    for folder in ["/proc", "/sys", "/dev"] {
        // The initrd need not have them.
        let _ = fs::create_dir(folder);
    }
    attach(
        "devtmpfs",
        "/dev",
        MountFlags::NOSUID.union(MountFlags::NOEXEC),
        c"mode=0755",
    )?;
    attach("proc", "/proc", BARE, c"")?;
    attach("sysfs", "/sys", BARE, c"")?;
    // Else the kernel leaves out lines when many come at once.
    set("kernel/printk_devkmsg", "on")
}

/// Sees to it that no key, and no break on a serial line, does anything.
pub(crate) fn ignore_keys() -> Outcome {
    set("kernel/sysrq", "0")?;
    // Ctrl-Alt-Delete then is a signal to this process, which ignores it.
    reboot(RebootCommand::CadOff).or_fail(|| "cannot switch off Ctrl-Alt-Delete".into(), IMAGE)
}

/// Mounts the rest.
pub(crate) fn mount_rest() -> Outcome {
    for folder in ["/dev/pts", "/dev/shm"] {
        fs::create_dir(folder).or_fail(|| format!("cannot make {folder}"), IMAGE)?;
    }
    attach(
        "devpts",
        "/dev/pts",
        MountFlags::NOSUID.union(MountFlags::NOEXEC),
        c"mode=0620,gid=5,ptmxmode=0666",
    )?;
    attach("tmpfs", "/dev/shm", BARE, c"mode=1777")?;
    attach("tmpfs", "/run", FILES, c"mode=0755,size=25%")?;
    attach("tmpfs", "/tmp", FILES, c"mode=1777,size=25%")?;
    attach("cgroup2", "/sys/fs/cgroup", BARE, c"nsdelegate")?;
    attach("securityfs", "/sys/kernel/security", BARE, c"")?;
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, link).or_fail(|| format!("cannot make {link}"), IMAGE)?;
    }
    Ok(())
}

fn attach(kind: &str, folder: &str, flags: MountFlags, options: &CStr) -> Outcome {
    mount(kind, folder, kind, flags, options).or_fail(|| format!("cannot mount {kind} at {folder}"), IMAGE)
}

/// Settings, each with why. Forwarding is not among them: the container engine switches it on for its networks, and only if
/// it was off does it see to it that nothing else is forwarded.
const SETTINGS: [(&str, &str); 12] = [
    // No other kernel is started from this one: it would not be measured.
    ("kernel/kexec_load_disabled", "1"),
    // The kernel's log and addresses are for the console, not for programs.
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kptr_restrict", "2"),
    ("kernel/perf_event_paranoid", "3"),
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("net/core/bpf_jit_harden", "2"),
    // Containers are made by root; a job that makes user namespaces only reaches more of the kernel.
    ("user/max_user_namespaces", "0"),
    // As many processes and threads as the kernel can have.
    ("kernel/pid_max", "4194304"),
    // What a router says is not asked for; there is no IPv6 in here.
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
    ("net/ipv6/conf/all/disable_ipv6", "1"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
];

/// Hardens the kernel.
pub(crate) fn configure() -> Outcome {
    for (name, value) in SETTINGS {
        set(name, value)?;
    }
    sethostname(b"aicert").or_fail(|| "cannot set the machine's name".into(), IMAGE)?;
    limit(Resource::Core, Some(0))?;
    // As Docker's own units have them: containers inherit them.
    limit(Resource::Nofile, Some(1 << 20))?;
    limit(Resource::Nproc, None)
}

/// Lets no module in from now on, until the machine is off.
pub(crate) fn close_modules() -> Outcome {
    set("kernel/modules_disabled", "1")
}

fn limit(resource: Resource, value: Option<u64>) -> Outcome {
    let limit = Rlimit {
        current: value,
        maximum: value,
    };
    setrlimit(resource, limit).or_fail(|| format!("cannot limit {resource:?}"), IMAGE)
}

fn set(name: &str, value: &str) -> Outcome {
    let path = Path::new("/proc/sys").join(name);
    // Some settings want the end of the line.
    fs::write(&path, format!("{value}\n"))
        .or_fail(|| format!("cannot write {value} to {}", path.display()), IMAGE)
}
