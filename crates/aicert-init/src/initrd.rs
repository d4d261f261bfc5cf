//! Stage 1, in the initrd: from the kernel's start to the root file system.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::mount::{MountFlags, mount, mount_move};
use rustix::process::{chdir, chroot};

use crate::console::say;
use crate::disk;
use crate::failure::{OrFail as _, Outcome};
use crate::{IN_ROOT, cmdline, modules, system, verity};

/// The modules that the root file system needs.
const MODULES: &str = "/modules";

/// The name of the partition with the root file system, in the partition table.
pub(crate) const PARTITION: &str = "aicert-root";

/// Where the root file system is mounted before it is the root.
const ROOT: &str = "/sysroot";

/// Disks that are found in the background can take some seconds.
const PATIENCE: Duration = Duration::from_secs(30);

const IMAGE: &str = "the image is incomplete";

/// Ends in stage 2, another program; only returns when that fails.
pub(crate) fn run() -> Outcome {
    system::mount_first()?;
    system::ignore_keys()?;
    say!("stage 1, in the initrd; version {}", env!("CARGO_PKG_VERSION"));
    let command_line = fs::read_to_string("/proc/cmdline")
        .or_fail(|| "cannot read the kernel command line".into(), IMAGE)?;
    let root = cmdline::root(&command_line)?;
    modules::load(Path::new(MODULES))?;
    let partition = disk::wait_for(Path::new(disk::SYSFS), PARTITION, PATIENCE)?;
    say!(
        "root file system on {}, under dm-verity with root hash {}",
        partition.name,
        root.hash
    );
    let device = verity::open(&partition, &root)?;
    mount_root(&device.path())?;
    enter(&partition.disk.number.to_string())
}

fn mount_root(device: &Path) -> Outcome {
    fs::create_dir_all(ROOT).or_fail(|| format!("cannot make {ROOT}"), IMAGE)?;
    let flags = MountFlags::RDONLY | system::FILES | MountFlags::NOATIME;
    mount(device, ROOT, "squashfs", flags, None).or_fail(
        || format!("cannot mount {} at {ROOT}", device.display()),
        "the partition does not have the file system that the command line speaks of, or the disk does not work",
    )
}

/// Makes the mounted file system the root (as switch_root(8) does), and goes on there with nothing but `disk`.
fn enter(disk: &str) -> Outcome {
    for folder in ["/proc", "/sys", "/dev"] {
        mount_move(folder, format!("{ROOT}{folder}")).or_fail(|| format!("cannot move {folder}"), IMAGE)?;
    }
    let failed = || "cannot make the mounted file system the root".into();
    chdir(ROOT).or_fail(failed, IMAGE)?;
    mount_move(".", "/").or_fail(failed, IMAGE)?;
    chroot(".").or_fail(failed, IMAGE)?;
    chdir("/").or_fail(failed, IMAGE)?;
    // The kernel puts words of its command line that it does not know into the environment.
    let error = Command::new(IN_ROOT).arg(OsStr::new(disk)).env_clear().exec();
    Err(error).or_fail(|| format!("cannot start {IN_ROOT}"), IMAGE)
}
