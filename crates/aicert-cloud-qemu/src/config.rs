//! What machines are made of, and where everything is kept.

use std::path::PathBuf;

use aicert_core::spec::{Accelerator, QemuMachine};

use crate::error::Failure;

/// Where distributions have EDK II's firmware for QEMU (OVMF): its code, and the template of its variables.
const FIRMWARE: [(&str, &str); 4] = [
    // Debian, Ubuntu
    (
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.fd",
    ),
    // Fedora
    (
        "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        "/usr/share/edk2/ovmf/OVMF_VARS.fd",
    ),
    // Arch
    (
        "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
        "/usr/share/edk2/x64/OVMF_VARS.4m.fd",
    ),
    // openSUSE
    (
        "/usr/share/qemu/ovmf-x86_64-code.bin",
        "/usr/share/qemu/ovmf-x86_64-vars.bin",
    ),
];

/// The configuration of a [`QemuProvider`](crate::QemuProvider).
#[derive(Debug, Clone)]
pub struct QemuConfig {
    pub(crate) state: PathBuf,
    pub(crate) machine: Option<QemuMachine>,
}

/// The firmware of machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Firmware {
    /// Its code, which is never written to.
    pub(crate) code: PathBuf,
    /// What its variables are at first; each machine has a copy.
    pub(crate) variables: PathBuf,
}

/// The programs that make and run machines, found.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) qemu: PathBuf,
    pub(crate) qemu_img: PathBuf,
    pub(crate) swtpm: PathBuf,
    pub(crate) setsid: PathBuf,
    pub(crate) firmware: Firmware,
}

impl QemuConfig {
    /// Keeps machines, and the authority that certifies their keys, in the folder `state`, which is made where needed and
    /// must be this user's alone. Without [`with_machine`](Self::with_machine), machines can be listed, looked at and
    /// destroyed, and none made.
    pub fn new(state: impl Into<PathBuf>) -> Self {
        Self {
            state: state.into(),
            machine: None,
        }
    }

    /// Makes machines like this.
    #[must_use]
    pub fn with_machine(mut self, machine: QemuMachine) -> Self {
        self.machine = Some(machine);
        self
    }
}

impl Programs {
    /// Those that are installed here.
    pub(crate) fn find() -> Result<Self, Failure> {
        const QEMU: &str = "install QEMU (Debian and Ubuntu: `apt-get install qemu-system-x86 qemu-utils`)";
        const SWTPM: &str = "install swtpm (Debian and Ubuntu: `apt-get install swtpm`)";
        Ok(Self {
            qemu: find("qemu-system-x86_64", QEMU)?,
            qemu_img: find("qemu-img", QEMU)?,
            swtpm: find("swtpm", SWTPM)?,
            setsid: find("setsid", "install util-linux")?,
            firmware: Firmware::find()?,
        })
    }
}

impl Firmware {
    fn find() -> Result<Self, Failure> {
        FIRMWARE
            .iter()
            .map(|(code, variables)| Self {
                code: code.into(),
                variables: variables.into(),
            })
            .find(|firmware| firmware.code.is_file() && firmware.variables.is_file())
            .ok_or_else(|| {
                let places: Vec<_> = FIRMWARE.iter().map(|(code, _)| *code).collect();
                Failure::Missing {
                    what: format!(
                        "no UEFI firmware for QEMU is installed: looked for {}",
                        places.join(", ")
                    ),
                    advice: "install OVMF (Debian and Ubuntu: `apt-get install ovmf`)".into(),
                }
            })
    }
}

/// A program in `PATH`, by its name.
fn find(program: &str, advice: &str) -> Result<PathBuf, Failure> {
    std::env::split_paths(&search_path())
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .and_then(|path| path.canonicalize().ok())
        .ok_or_else(|| Failure::Missing {
            what: format!("`{program}` is not installed"),
            advice: advice.into(),
        })
}

/// `PATH`, with the folders that it often lacks for ordinary users.
pub(crate) fn search_path() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/bin:/bin:/usr/sbin:/sbin");
    path
}

/// The name for a kind of machine, such as `tcg-2cpu-4096MiB`.
pub(crate) fn instance_type(machine: &QemuMachine) -> String {
    let accelerator = match machine.accelerator {
        Accelerator::Tcg => "tcg",
        Accelerator::Kvm => "kvm",
        // Refused when a machine is made.
        _ => "unknown",
    };
    format!("{accelerator}-{}cpu-{}MiB", machine.cpus, machine.memory >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_installed_is_told() {
        assert!(find("sh", "").unwrap().is_absolute());
        let error = find("no-qemu", "install it").unwrap_err();
        assert_eq!(error.to_string(), "`no-qemu` is not installed");
        assert!(matches!(error, Failure::Missing { advice, .. } if advice == "install it"));
    }
}
