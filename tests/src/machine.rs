//! A machine with a TPM that is booted for a test: real firmware, which measures a real UKI, in QEMU.
//!
//! The machine's kernel comes from the distribution, its only program is `src/bin/guest.rs`, which hands the commands of
//! the test to the machine's TPM. So a test has everything that a verifier gets from a cloud: a TPM whose PCRs firmware
//! and boot loader have extended, their event log, and the image that was booted.

mod bridge;
mod command;
mod disk;
mod initrd;
mod kernel;
mod process;
mod uki;
mod variables;

use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aicert_swtpm_testing::{KeyAlgorithm, TestCa, certified_key};
use aicert_tpm::{Tpm, TpmConfig};
use tempfile::TempDir;

use crate::machine::bridge::Bridge;
use crate::machine::kernel::Kernel;
use crate::machine::process::Processes;
use crate::tools::{skip_unless, skip_with};

/// What the guest says first on its line to the host. Firmware writes there too, so it must be unmistakable.
pub const HELLO: [u8; 16] = *b"\0aicert guest 1\0";

/// The kernel command line inside the UKI, unless a test asks for more.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 loglevel=5 no_timer_check";

/// How long a boot may take; without virtualization, on a busy machine, it takes half a minute.
const PATIENCE: Duration = Duration::from_secs(240);

const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const FIRMWARE_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// What machine is wanted.
#[derive(Debug, Clone)]
pub struct MachineOptions {
    guest: PathBuf,
    command_line: String,
    load_options: Option<String>,
    ca: Option<TestCa>,
}

impl MachineOptions {
    /// An ordinary machine; `guest` is `env!("CARGO_BIN_EXE_guest")`.
    pub fn new(guest: impl Into<PathBuf>) -> Self {
        Self {
            guest: guest.into(),
            command_line: COMMAND_LINE.into(),
            load_options: None,
            ca: None,
        }
    }

    /// Builds another image: its kernel command line has one more word in it.
    #[must_use]
    pub fn with_word_in_image(mut self, word: &str) -> Self {
        self.command_line = format!("{COMMAND_LINE} {word}");
        self
    }

    /// Leaves the image alone, and has firmware start it with a kernel command line that has one more word in it: a boot
    /// entry in the firmware's variables has it, as whoever owns the machine can arrange. The stub in the image takes it,
    /// because Secure Boot is off.
    #[must_use]
    pub fn with_word_outside_image(mut self, word: &str) -> Self {
        self.load_options = Some(format!("{COMMAND_LINE} {word}"));
        self
    }

    /// Builds the image that the machine would boot; always the same bytes.
    ///
    /// # Panics
    ///
    /// When it cannot be built.
    pub fn uki(&self) -> Vec<u8> {
        let scratch = scratch();
        let initrd = initrd::archive(&self.guest, scratch.path());
        let kernel = kernel().as_ref().expect("`have_machines` was asked before");
        uki::build(kernel, &initrd, &self.command_line, scratch.path())
    }

    /// Has the attestation key certified by this CA.
    #[must_use]
    pub fn with_ca(mut self, ca: TestCa) -> Self {
        self.ca = Some(ca);
        self
    }
}

/// A machine that has booted, and waits for TPM commands. It ends when it is dropped, and with the test.
#[derive(Debug)]
pub struct Machine {
    // In this order they are dropped: who uses the machine, the machine, its files.
    tpm: Arc<Tpm>,
    ca: TestCa,
    event_log: Vec<u8>,
    _bridge: Bridge,
    processes: Processes,
    uki: Vec<u8>,
    directory: TempDir,
}

impl Machine {
    /// Boots a machine, and has an attestation key of its TPM certified by a CA.
    ///
    /// # Panics
    ///
    /// When it does not come up, with what it wrote to its console.
    pub async fn boot(options: MachineOptions) -> Self {
        let ca = options
            .ca
            .clone()
            .unwrap_or_else(|| TestCa::new().expect("a CA can be made"));
        let booted = tokio::task::spawn_blocking(move || Booted::start(&options))
            .await
            // It has panicked, in words of its own.
            .unwrap_or_else(|error| resume_unwind(error.into_panic()));
        let Booted {
            directory,
            uki,
            processes,
            bridge,
            event_log,
        } = booted;
        let log_file = directory.path().join("binary_bios_measurements");
        fs::write(&log_file, &event_log).expect("the log can be written");
        let key = certified_key(ca.clone(), KeyAlgorithm::EccP256);
        let config = TpmConfig::swtpm("127.0.0.1", bridge.port(), key).with_boot_event_log(log_file);
        let tpm = Tpm::open(config)
            .await
            .unwrap_or_else(|error| panic!("the machine's TPM: {error:?}\n{}", processes.console()));
        Self {
            tpm: Arc::new(tpm),
            ca,
            event_log,
            _bridge: bridge,
            processes,
            uki,
            directory,
        }
    }

    /// What firmware and boot loader measured, as the machine's kernel shows it.
    pub fn event_log(&self) -> &[u8] {
        &self.event_log
    }

    /// The machine's TPM; its boot event log is the machine's. It answers as long as the machine is there.
    pub fn tpm(&self) -> Arc<Tpm> {
        Arc::clone(&self.tpm)
    }

    /// The CA that certified the attestation key.
    pub fn ca(&self) -> &TestCa {
        &self.ca
    }

    /// The image that was booted.
    pub fn uki(&self) -> &[u8] {
        &self.uki
    }

    /// The disk that it was booted from.
    pub fn disk(&self) -> PathBuf {
        self.directory.path().join(DISK)
    }

    /// What the machine has written to its console.
    pub fn console(&self) -> String {
        self.processes.console()
    }
}

const DISK: &str = "disk.img";

/// A machine whose guest has spoken.
struct Booted {
    directory: TempDir,
    uki: Vec<u8>,
    processes: Processes,
    bridge: Bridge,
    event_log: Vec<u8>,
}

impl Booted {
    fn start(options: &MachineOptions) -> Self {
        let directory = scratch();
        let path = directory.path();
        let uki = options.uki();
        disk::build(&uki, &path.join(DISK), path);
        let variables = variables::with_boot_entry(
            fs::read(FIRMWARE_VARIABLES).expect("the firmware's variables can be read"),
            options.load_options.as_deref(),
        );
        fs::write(path.join(process::VARIABLES), variables).expect("a file can be written");
        let mut processes = Processes::start(path, Path::new(FIRMWARE));
        let (bridge, event_log) = match processes.greeting(PATIENCE) {
            Ok((line, event_log)) => (Bridge::start(line), event_log),
            Err(why) => panic!("the machine does not come up: {why}\n{}", processes.console()),
        };
        Self {
            directory,
            uki,
            processes,
            bridge,
            event_log,
        }
    }
}

fn scratch() -> TempDir {
    tempfile::Builder::new()
        .prefix("aicert-machine-")
        .tempdir()
        .expect("a temporary folder")
}

fn kernel() -> &'static Result<Kernel, String> {
    static KERNEL: OnceLock<Result<Kernel, String>> = OnceLock::new();
    KERNEL.get_or_init(Kernel::find)
}

/// Whether machines can be booted; says so and, in CI, panics when they cannot.
///
/// # Panics
///
/// When `CI` is set and something is missing.
pub fn have_machines() -> bool {
    const PROGRAMS: [&str; 9] = [
        "qemu-system-x86_64",
        "swtpm",
        "objcopy",
        "objdump",
        "ldd",
        "sfdisk",
        "mkfs.vfat",
        "mcopy",
        "mmd",
    ];
    const FILES: [&str; 3] = [FIRMWARE, FIRMWARE_VARIABLES, uki::STUB];
    if !skip_with(
        cfg!(target_arch = "x86_64"),
        "machines run programs of an x86-64 processor alone",
    ) {
        return false;
    }
    PROGRAMS
        .iter()
        .all(|program| skip_unless(command::is_there(program), program))
        && FILES
            .iter()
            .all(|file| skip_unless(Path::new(file).is_file(), file))
        && match kernel() {
            Ok(_) => true,
            Err(why) => skip_with(false, &format!("machines have no kernel: {why}")),
        }
}
