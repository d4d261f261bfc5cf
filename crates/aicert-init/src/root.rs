//! Stage 2, on the root file system: from there to the server.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::console::say;
use crate::disk::DeviceNumber;
use crate::failure::{Failure, OrFail as _, Outcome};
use crate::services::{self, Files, STATE, USER};
use crate::{lifetime, modules, network, provisioning, scratch, system};

/// The modules that this stage and the services need.
const MODULES: &str = "/usr/lib/aicert/modules";

const TPM: &str = "/dev/tpmrm0";
/// The device behind the kernel's resource manager: before Linux 6.3 the manager does not pass the command on with which a
/// NitroTPM makes attestation documents.
const TPM_BEHIND: &str = "/dev/tpm0";

/// How long a TPM may take to answer its driver.
const PATIENCE: Duration = Duration::from_secs(10);

/// What firmware measured; for root alone, and where it was given away, for nobody else to change.
const BOOT_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";

/// Firmware's log has some ten kilobytes.
const BOOT_LOG_LIMIT: u64 = 4 << 20;

const IMAGE: &str = "the image is incomplete";

/// Ends when a service has.
pub(crate) fn run() -> Outcome {
    let disk = std::env::args()
        .nth(1)
        .unwrap_or_default()
        .parse::<DeviceNumber>()
        .or_fail(
            || "cannot understand what stage 1 says".into(),
            "a fault in aicert-init itself",
        )?;
    system::mount_rest()?;
    say!(
        "stage 2, on the root file system; version {}",
        env!("CARGO_PKG_VERSION")
    );
    modules::load(Path::new(MODULES))?;
    system::close_modules()?;
    system::configure()?;
    scratch::mount_on(disk)?;
    make_folders()?;
    let files = Files {
        provisioning: Path::new("/run/aicert/provisioning.json"),
        boot_log: Path::new("/run/aicert/binary_bios_measurements"),
        tpm: Path::new(TPM),
    };
    open_tpm()?;
    copy_boot_log(files.boot_log)?;
    // Clouds tell a machine whom it serves over its network.
    network::configure()?;
    let document = provisioning::fetch(files.provisioning)?;
    lifetime::watch(&document);
    services::run(&files)
}

/// The folders that programs expect in what is empty at each boot.
fn make_folders() -> Outcome {
    for (folder, mode, owner) in [
        ("/run/aicert", 0o755, 0),
        ("/run/lock", 0o755, 0),
        ("/var/lib", 0o755, 0),
        (STATE, 0o700, USER),
        ("/var/log", 0o755, 0),
        ("/var/tmp", 0o1777, 0),
    ] {
        let what = || format!("cannot make {folder}");
        fs::create_dir(folder).or_fail(what, IMAGE)?;
        fs::set_permissions(folder, Permissions::from_mode(mode)).or_fail(what, IMAGE)?;
        chown(folder, Some(owner), Some(owner)).or_fail(what, IMAGE)?;
    }
    symlink("/run", "/var/run").or_fail(|| "cannot make /var/run".into(), IMAGE)
}

/// Gives the TPM to the server.
fn open_tpm() -> Outcome {
    let end = Instant::now() + PATIENCE;
    while !Path::new(TPM).exists() {
        if Instant::now() >= end {
            return Err(Failure::new(
                format!("there is no {TPM} after {} s", PATIENCE.as_secs()),
                "the machine has no TPM 2.0, and nothing that it does could be proven",
            ));
        }
        sleep(Duration::from_millis(10));
    }
    for device in [TPM, TPM_BEHIND] {
        chown(device, Some(USER), Some(USER))
            .or_fail(|| format!("cannot give {device} to the server"), IMAGE)?;
    }
    Ok(())
}

fn copy_boot_log(place: &Path) -> Outcome {
    let meaning = "without what firmware measured, nobody can recognise what was booted";
    let failed = || format!("cannot copy {BOOT_LOG}");
    let mut log = File::open(BOOT_LOG)
        .or_fail(failed, meaning)?
        .take(BOOT_LOG_LIMIT + 1);
    let mut copy = File::create(place).or_fail(failed, meaning)?;
    let bytes = io::copy(&mut log, &mut copy).or_fail(failed, meaning)?;
    if bytes > BOOT_LOG_LIMIT {
        return Err(Failure::new(
            format!("{BOOT_LOG} has more than {BOOT_LOG_LIMIT} bytes"),
            meaning,
        ));
    }
    Ok(())
}
