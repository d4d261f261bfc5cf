//! Jobs on machines that boot the base image, as a user runs them: the command, its state folder, what machines write to their
//! consoles, and the certainty that nothing is left of them.

pub mod cloud;
mod console;
mod folder;
pub mod https;
pub mod interceptor;
pub mod relay;
mod running;
mod slot;
pub mod trust;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aicert_client::Identity;
use aicert_core::secret::Secret;
use aicert_core::spec::{Accelerator, QemuMachine};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

pub use console::Consoles;
pub use folder::MachineFolder;
pub use running::Running;

use crate::base::BaseImage;
use crate::scene::{Ended, Scene};
use slot::Slot;

/// The options of `aicert run` and `aicert attach` that say where results go.
pub const RESULTS: [&str; 4] = ["--output-bom", "proof.json", "--outputs", "model"];

/// What machine and proof must satisfy: the firmware of whoever runs these tests is in no reference values.
const POLICY: &str = "simulated: true\nfirmware: any\n";

/// How long a machine may take to be attested when the host has much else to do.
pub const BOOT_LIMIT: Duration = Duration::from_secs(600);

/// How much of a console is shown when a test fails.
const CONSOLE_LINES: usize = 60;

/// Where somebody sits who runs jobs on machines. Whatever becomes of the test, no machine survives it.
#[derive(Debug)]
pub struct Desk {
    consoles: Consoles,
    scene: Scene,
    /// Last, so that the next machine boots after the last one of this desk is gone.
    _slot: Slot,
}

impl Desk {
    /// A desk for the command at `aicert`. Waits until the host can bear another machine.
    pub fn new(aicert: &str) -> Self {
        let slot = Slot::wait();
        let scene = Scene::new(aicert);
        scene.write("policy.yaml", POLICY);
        Self {
            consoles: Consoles::watch(&scene.path().join("state/qemu/machines")),
            scene,
            _slot: slot,
        }
    }

    /// Files, and the command.
    pub fn scene(&self) -> &Scene {
        &self.scene
    }

    /// A file or folder.
    pub fn at(&self, path: &str) -> PathBuf {
        self.scene.path().join(path)
    }

    /// The consoles of the machines.
    pub fn consoles(&self) -> &Consoles {
        &self.consoles
    }

    /// The machine that is usual here: `disk` is in MiB.
    pub fn machine(image: &BaseImage, disk: u64) -> QemuMachine {
        QemuMachine {
            image: image.disk.clone(),
            reference_values: Some(image.reference_values.clone()),
            accelerator: Accelerator::Tcg,
            cpus: 2,
            memory: 2 << 30,
            disk: disk << 20,
            boot_limit: BOOT_LIMIT,
        }
    }

    /// Writes a Python job and its configuration; `lines` are added to that.
    pub fn python_job(&self, image: &BaseImage, disk: u64, program: &str, lines: &str) {
        self.scene.write("src/main.py", program);
        let machine = Self::machine(image, disk);
        self.scene.write(
            "aicert.yaml",
            format!(
                "kind: python\npythonVersion: 11\nsource: {{type: directory, path: ./src}}\n{lines}machine:\n  provider: qemu\n  \
                 image: {:?}\n  referenceValues: {:?}\n  cpus: {}\n  memory: {}MiB\n  disk: {disk}MiB\n  bootLimit: {}s\n",
                machine.image,
                image.reference_values,
                machine.cpus,
                machine.memory >> 20,
                BOOT_LIMIT.as_secs()
            ),
        );
    }

    /// Starts `aicert run`.
    pub fn start_run(&self) -> Running {
        self.start(&[&["run", "--policy", "policy.yaml"], &RESULTS[..]].concat())
    }

    /// Starts `aicert attach`.
    pub fn start_attach(&self) -> Running {
        self.start(&["attach"])
    }

    /// Starts the command.
    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.scene.command(arguments))
    }

    /// The job whose record there is.
    pub fn job(&self) -> Option<String> {
        let entries = fs::read_dir(self.at("state/runs")).ok()?;
        let mut names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.find(|name| !name.starts_with('.'))
    }

    /// A file of the job's record.
    pub fn record(&self, file: &str) -> Option<Vec<u8>> {
        fs::read(self.at("state/runs").join(self.job()?).join(file)).ok()
    }

    /// How far the record says that the job is.
    pub fn phase(&self) -> Option<String> {
        let record: Value = serde_json::from_slice(&self.record("record.json")?).ok()?;
        Some(record["phase"].as_str()?.to_owned())
    }

    /// The identity that the job's machine knows.
    pub fn identity(&self) -> Option<Identity> {
        let pem = String::from_utf8(self.record("client.pem")?).ok()?;
        Identity::from_pem(&Secret::new(pem)).ok()
    }

    /// The folder of the only machine.
    pub fn machine_folder(&self) -> Option<MachineFolder> {
        MachineFolder::only(&self.at("state/qemu/machines"))
    }

    /// What `aicert machines list` shows.
    #[track_caller]
    pub fn machines(&self) -> Vec<Value> {
        let listed = self.scene.run(&["machines", "list", "--json"]).expect(0);
        let value = listed.json();
        value["machines"].as_array().expect("a list").clone()
    }

    /// Verifies the proof as somebody does who was given it with the outputs, and no machine.
    pub fn verify(&self, reference_values: &Path) -> Ended {
        let reference_values = reference_values.display().to_string();
        self.scene.run(&[
            "verify",
            "proof.json",
            "--trust-anchor",
            "proof.ca.pem",
            "--reference-values",
            &reference_values,
            "--policy",
            "policy.yaml",
            "--outputs",
            "model",
        ])
    }

    /// Asserts that there is neither machine nor record nor process of one.
    #[track_caller]
    pub fn assert_nothing_is_left(&self) {
        assert_eq!(self.machines(), Vec::<Value>::new());
        let left = |folder: &str| -> Vec<_> {
            let entries = fs::read_dir(self.at(folder));
            let names = entries
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.file_name());
            names.filter(|name| name != ".lock").collect()
        };
        assert_eq!(left("state/qemu/machines"), Vec::<std::ffi::OsString>::new());
        assert_eq!(left("state/runs"), Vec::<std::ffi::OsString>::new());
        let programs: Vec<_> = self.processes().into_iter().map(|(_, name)| name).collect();
        assert_eq!(programs, Vec::<String>::new(), "processes are left");
    }

    /// Asserts that there is neither a proof nor outputs, under whatever name.
    #[track_caller]
    pub fn assert_no_results(&self) {
        let entries = fs::read_dir(self.scene.path()).expect("the folder can be read");
        let names: Vec<_> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.contains("proof") || name.contains("model"))
            .collect();
        assert_eq!(names, Vec::<String>::new());
    }

    /// Processes that work in this folder.
    fn processes(&self) -> Vec<(Pid, String)> {
        let Ok(folder) = self.scene.path().canonicalize() else {
            return Vec::new();
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let found = entries.filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let path = entry.path();
            let cwd = fs::read_link(path.join("cwd")).ok()?;
            let name = fs::read_to_string(path.join("comm")).ok()?;
            cwd.starts_with(&folder)
                .then(|| Some((Pid::from_raw(pid)?, name.trim().to_owned())))?
        });
        found.collect()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "{}", self.consoles.end(CONSOLE_LINES));
        }
        self.scene.run(&["machines", "destroy", "--all", "--force"]);
        for (pid, _) in self.processes() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Looks again and again until something is there.
///
/// # Panics
///
/// When it is not in time.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not within {} s: {what}", limit.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}
