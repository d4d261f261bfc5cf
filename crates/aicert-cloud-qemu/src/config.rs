//! What machines are made of, and where everything is kept.

use std::path::{Path, PathBuf};

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
    qemu: PathBuf,
    qemu_img: PathBuf,
    firmware: Option<Firmware>,
    pub(crate) arguments: Vec<String>,
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
            qemu: "qemu-system-x86_64".into(),
            qemu_img: "qemu-img".into(),
            firmware: None,
            arguments: Vec::new(),
        }
    }

    /// Makes machines like this.
    #[must_use]
    pub fn with_machine(mut self, machine: QemuMachine) -> Self {
        self.machine = Some(machine);
        self
    }

    /// Uses these programs; without, those that `PATH` has.
    #[must_use]
    pub fn with_programs(mut self, qemu: impl Into<PathBuf>, qemu_img: impl Into<PathBuf>) -> Self {
        self.qemu = qemu.into();
        self.qemu_img = qemu_img.into();
        self
    }

    /// Uses this firmware: its code, and what its variables are at first. Without, the distribution's OVMF.
    #[must_use]
    pub fn with_firmware(mut self, code: impl Into<PathBuf>, variables: impl Into<PathBuf>) -> Self {
        self.firmware = Some(Firmware {
            code: code.into(),
            variables: variables.into(),
        });
        self
    }

    /// Gives QEMU these arguments besides its own: for experiments, and for tests of what a verifier makes of machines
    /// that are not as they should be.
    #[must_use]
    pub fn with_arguments(mut self, arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    pub(crate) fn programs(&self) -> Result<Programs, Failure> {
        const QEMU: &str = "install QEMU (Debian and Ubuntu: `apt-get install qemu-system-x86 qemu-utils`)";
        Ok(Programs {
            qemu: find(&self.qemu, QEMU)?,
            qemu_img: find(&self.qemu_img, QEMU)?,
            swtpm: find(
                Path::new("swtpm"),
                "install swtpm (Debian and Ubuntu: `apt-get install swtpm`)",
            )?,
            setsid: find(Path::new("setsid"), "install util-linux")?,
            firmware: self.firmware()?,
        })
    }

    fn firmware(&self) -> Result<Firmware, Failure> {
        let missing = |what: String| Failure::Missing {
            what,
            advice: "install OVMF (Debian and Ubuntu: `apt-get install ovmf`)".into(),
        };
        if let Some(firmware) = &self.firmware {
            return match [&firmware.code, &firmware.variables]
                .into_iter()
                .find(|path| !path.is_file())
            {
                Some(path) => Err(missing(format!("there is no firmware {path:?}"))),
                None => Ok(firmware.clone()),
            };
        }
        FIRMWARE
            .iter()
            .map(|(code, variables)| Firmware {
                code: code.into(),
                variables: variables.into(),
            })
            .find(|firmware| firmware.code.is_file() && firmware.variables.is_file())
            .ok_or_else(|| {
                let places: Vec<_> = FIRMWARE.iter().map(|(code, _)| *code).collect();
                missing(format!(
                    "no UEFI firmware for QEMU is installed: looked for {}",
                    places.join(", ")
                ))
            })
    }
}

/// A program by its path, or in `PATH` by its name.
fn find(program: &Path, advice: &str) -> Result<PathBuf, Failure> {
    let found = if program.components().count() > 1 {
        Some(program.to_owned()).filter(|path| path.is_file())
    } else {
        std::env::split_paths(&search_path())
            .map(|folder| folder.join(program))
            .find(|path| path.is_file())
    };
    found
        .and_then(|path| path.canonicalize().ok())
        .ok_or_else(|| Failure::Missing {
            what: format!("`{}` is not installed", program.display()),
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
