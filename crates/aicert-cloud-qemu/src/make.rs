//! Making a machine, step by step. Whatever cuts this off leaves what is listed and can be destroyed.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fs, io};

use aicert_core::attestation::{MachineIdentity, Provisioning};
use aicert_core::certificate::Base64;
use aicert_core::digest::ClientDigest;
use aicert_core::runtime::JobId;
use aicert_core::spec::{Accelerator, QemuMachine};
use aicert_core::time::Timestamp;
use aicert_core::tpm::PcrBank;
use aicert_swtpm_testing::{
    CertificateProfile, InstalledKey, PlatformKey, SwtpmInstance, SwtpmOptions, TestCa,
};

use crate::config::{Programs, QemuConfig, instance_type};
use crate::console;
use crate::error::Failure;
use crate::folder::{self, Folder, Machines, wait_for};
use crate::image::Image;
use crate::monitor::Monitor;
use crate::process::{Gated, Identity};
use crate::provider::{PROVIDER, REGION};
use crate::record::Record;
use crate::{arguments, authority};

/// How long a program may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What machine is wanted, and by whom.
pub(crate) struct Order<'a> {
    pub(crate) config: &'a QemuConfig,
    pub(crate) machines: &'a Machines,
    pub(crate) job: &'a JobId,
    pub(crate) client: ClientDigest,
    pub(crate) idle: Duration,
    pub(crate) lifetime: Option<Duration>,
    /// Set when nobody waits for the machine any more.
    pub(crate) given_up: &'a AtomicBool,
}

/// Makes and starts a machine. If that fails, nothing of it remains.
pub(crate) fn make(order: &Order<'_>) -> Result<Record, Failure> {
    let machine = order
        .config
        .machine
        .as_ref()
        .ok_or_else(|| Failure::Unsupported {
            what: "no machine is configured that could be made".into(),
            advice: "say which image it boots".into(),
        })?;
    // What can be found out before there is a trace of the machine.
    let programs = Programs::find()?;
    require_accelerator(machine.accelerator)?;
    let image = Image::open(&machine.image)?;
    let disk = image.overlay(folder::DISK, machine.disk)?;
    let ca = authority::read_or_make(&order.config.state)?;
    let record = Record {
        job: order.job.to_string(),
        created: Timestamp::now(),
        maker: Identity::own().map_err(Failure::storage("read", "/proc/self".as_ref()))?,
        instance_type: instance_type(machine),
        image: image.path,
        identity: None,
        endpoint: None,
    };
    let (folder, lock) = order.machines.begin(order.job, &record, order.given_up)?;
    let making = Making {
        order,
        machine,
        programs: &programs,
        folder: &folder,
    };
    let made = making.run(&disk, &ca, record);
    if made.is_err() {
        // The first error is the one that helps; what stays is listed.
        let _ = order.machines.remove_locked(&folder, lock);
    }
    made
}

/// The name of a key whose names are hashed with SHA-256, as those of [`PlatformKey`] are (TPM 2.0 Library, part 1, section 16).
fn name_of(public: &[u8]) -> Vec<u8> {
    let algorithm = PcrBank::Sha256.algorithm_id().to_be_bytes();
    [&algorithm[..], &PcrBank::Sha256.hash(&[public])].concat()
}

struct Making<'a> {
    order: &'a Order<'a>,
    machine: &'a QemuMachine,
    programs: &'a Programs,
    folder: &'a Folder,
}

impl Making<'_> {
    fn run(&self, disk: &[std::ffi::OsString], ca: &TestCa, mut record: Record) -> Result<Record, Failure> {
        self.step("disk")?;
        self.make_disk(disk)?;
        self.step("variables")?;
        self.copy_variables()?;
        self.step("tpm")?;
        let (location, key) = self.make_tpm(ca)?;
        record.identity = Some(MachineIdentity::AttestationKey(name_of(&key.public)));
        self.step("provisioning")?;
        self.write_provisioning(&Provisioning {
            client: self.order.client,
            provider: PROVIDER.into(),
            instance_type: record.instance_type.clone(),
            region: REGION.into(),
            attestation_key: location,
            issuers: key.issuers.into_iter().map(Base64).collect(),
            idle_seconds: self.order.idle.as_secs(),
            lifetime_seconds: self.order.lifetime.map(|lifetime| lifetime.as_secs()),
        })?;
        self.step("swtpm")?;
        self.start_tpm()?;
        self.step("qemu")?;
        record.endpoint = Some(self.start_machine()?);
        self.step("record")?;
        self.folder.write_record(&record).map_err(Failure::storage(
            "write the record of a machine in",
            self.folder.path(),
        ))?;
        self.step("made")?;
        Ok(record)
    }

    /// Goes on only if somebody still wants the machine.
    fn step(&self, name: &str) -> Result<(), Failure> {
        instant(name);
        if self.order.given_up.load(Ordering::Relaxed) || self.folder.is_given_up() {
            return Err(Failure::GivenUp);
        }
        Ok(())
    }

    fn make_disk(&self, arguments: &[std::ffi::OsString]) -> Result<(), Failure> {
        const PROGRAM: &str = folder::QEMU_IMG;
        let status = self
            .gated(PROGRAM, &self.programs.qemu_img, arguments)?
            .run()
            .map_err(self.storage("run qemu-img in"))?;
        match status {
            Some(status) if !status.success() => {
                Err(self.failed(PROGRAM, format!("made no disk and ended with {status}")))
            }
            _ => Ok(()),
        }
    }

    fn copy_variables(&self) -> Result<(), Failure> {
        let template = &self.programs.firmware.variables;
        let copy = || -> io::Result<()> {
            // Not `fs::copy`: the template's mode may forbid to write.
            folder::write_new(&self.folder.at(folder::VARIABLES), &fs::read(template)?)
        };
        copy().map_err(Failure::storage("copy", template))
    }

    /// Makes the TPM's keys before the machine boots, as a cloud does. It has the SHA-256 bank alone: quotes are of that
    /// bank, and whatever else is active must be extended by everybody, always.
    fn make_tpm(
        &self,
        ca: &TestCa,
    ) -> Result<(aicert_core::attestation::KeyLocation, InstalledKey), Failure> {
        let options = SwtpmOptions::new()
            .with_directory(self.folder.at(folder::TPM))
            .with_banks([PcrBank::Sha256]);
        let instance = SwtpmInstance::start(options)?;
        instant("tpm started");
        let subject = format!("aicert QEMU machine {}", self.order.job);
        let key = PlatformKey::like_gce().with_profile(CertificateProfile::attestation_key(subject));
        let location = key.location();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(self.storage("work on the TPM in"))?;
        let installed = runtime.block_on(instance.install(ca, key))?;
        instant("tpm provisioned");
        instance.into_state()?;
        Ok((location, installed))
    }

    fn write_provisioning(&self, provisioning: &Provisioning) -> Result<(), Failure> {
        let write = || -> io::Result<()> {
            folder::write_new(
                &self.folder.at(folder::PROVISIONING),
                &serde_json::to_vec(provisioning)?,
            )
        };
        write().map_err(self.storage("write what the machine is told to"))
    }

    fn start_tpm(&self) -> Result<(), Failure> {
        const PROGRAM: &str = folder::SWTPM;
        let process = self.start(PROGRAM, &self.programs.swtpm, arguments::swtpm())?;
        let socket = self.folder.at(folder::TPM_CONTROL);
        let listens = wait_for(START_LIMIT, || {
            self.step("waiting for swtpm")?;
            match (socket.exists(), self.folder.is_alive(PROGRAM, &process)?) {
                (_, false) => Err(self.failed(PROGRAM, "ended as soon as it was started".into())),
                (there, true) => Ok(there.then_some(())),
            }
        })?;
        listens.ok_or_else(|| self.failed(PROGRAM, self.late()))
    }

    fn start_machine(&self) -> Result<SocketAddr, Failure> {
        const PROGRAM: &str = folder::QEMU;
        let arguments = arguments::qemu(self.machine, &self.programs.firmware, self.order.job)?;
        let process = self.start(PROGRAM, &self.programs.qemu, arguments)?;
        let monitor = wait_for(START_LIMIT, || {
            self.step("waiting for QEMU")?;
            match Monitor::connect(self.folder.path())? {
                None if !self.folder.is_alive(PROGRAM, &process)? => {
                    Err(self.failed(PROGRAM, "ended as soon as it was started".into()))
                }
                connected => Ok(connected),
            }
        })?;
        monitor
            .ok_or_else(|| self.failed(PROGRAM, self.late()))?
            .endpoint()
    }

    /// Starts a program that goes on without this process: in a session of its own, recorded before it is let go.
    fn start(
        &self,
        name: &'static str,
        program: &std::path::Path,
        mut arguments: Vec<std::ffi::OsString>,
    ) -> Result<Identity, Failure> {
        arguments.insert(0, program.into());
        let gated = self.gated(name, &self.programs.setsid, &arguments)?;
        let identity = gated.identity().clone();
        instant("recorded");
        gated.release().map_err(self.storage("start a program in"))?;
        instant("released");
        Ok(identity)
    }

    fn gated(
        &self,
        name: &'static str,
        program: &std::path::Path,
        arguments: &[std::ffi::OsString],
    ) -> Result<Gated, Failure> {
        let start = || -> io::Result<Gated> {
            let messages = folder::messages(self.folder, name)?;
            let gated = Gated::start(self.folder.path(), messages, program, arguments)?;
            instant("gated");
            self.folder.write_process(name, gated.identity())?;
            Ok(gated)
        };
        start().map_err(self.storage("start a program in"))
    }

    fn storage(&self, action: &'static str) -> impl Fn(io::Error) -> Failure + '_ {
        Failure::storage(action, self.folder.path())
    }

    fn failed(&self, program: &'static str, what: String) -> Failure {
        Failure::Program {
            program,
            what,
            messages: console::messages(self.folder, program),
        }
    }

    fn late(&self) -> String {
        format!("does not answer after {} s", START_LIMIT.as_secs())
    }
}

fn require_accelerator(accelerator: Accelerator) -> Result<(), Failure> {
    const KVM: &str = "/dev/kvm";
    if accelerator != Accelerator::Kvm {
        return Ok(());
    }
    match fs::File::options().read(true).write(true).open(KVM) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Failure::Forbidden {
            what: format!("`accelerator: kvm` was asked for, and this user may not use {KVM}"),
            advice: "become a member of the group `kvm`, or ask for `accelerator: tcg`, which is slower".into(),
        }),
        Err(error) => Err(Failure::Unsupported {
            what: format!("`accelerator: kvm` was asked for, and {KVM} cannot be used: {error}"),
            advice: "use a machine with virtualization (a virtual one needs it nested), or ask for `accelerator: tcg`, \
                     which is slower and works everywhere"
                .into(),
        }),
    }
}

/// An instant at which tests cut the making of machines off.
#[cfg(not(test))]
#[inline]
pub(crate) fn instant(_: &str) {}

#[cfg(test)]
pub(crate) use tests::instant;

#[cfg(test)]
mod tests;
