//! The base image on a machine that pretends to be a cloud's: firmware names the cloud, the disk is behind the cloud's kind of
//! controller, the TPM is laid out as the cloud's, and a metadata service answers at the address where clouds have theirs.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aicert_core::attestation::{KeyLocation, Provisioning};
use aicert_core::certificate::Base64;
use aicert_core::digest::ClientDigest;
use aicert_core::tpm::PcrBank;
use aicert_swtpm_testing::{CertificateProfile, CloudTpm, SwtpmInstance, SwtpmOptions, TestCa};

use super::{Desk, wait_for};
use crate::base::BaseImage;

const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const FIRMWARE_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// Where the machine's server listens.
const SERVER_PORT: u16 = 8443;

/// How large its disk is, and the one that Azure lends it for the time that it runs.
const DISK: &str = "6G";
const TEMPORARY_DISK: &str = "3G";

/// How much of its console is shown when a test fails.
const CONSOLE_LINES: usize = 60;

/// A cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloud {
    /// Azure.
    Azure,
    /// Amazon EC2. Its TPM signs documents of the cloud's, which nothing here can; so the machine's TPM is as in Compute Engine.
    Ec2,
    /// Google Compute Engine.
    ComputeEngine,
}

impl Cloud {
    fn service(self) -> &'static str {
        match self {
            Self::Azure => "azure",
            Self::Ec2 => "ec2",
            Self::ComputeEngine => "compute-engine",
        }
    }

    fn tpm(self) -> CloudTpm {
        match self {
            Self::Azure => CloudTpm::Azure,
            Self::Ec2 | Self::ComputeEngine => CloudTpm::ComputeEngine,
        }
    }

    /// What firmware says of the machine.
    fn smbios(self) -> &'static [&'static str] {
        match self {
            Self::Azure => &[
                "type=1,manufacturer=Microsoft Corporation,product=Virtual Machine",
                "type=3,manufacturer=Microsoft Corporation,asset=7783-7084-3265-9085-8269-3286-77",
            ],
            Self::Ec2 => &["type=1,manufacturer=Amazon EC2,product=m6i.large"],
            Self::ComputeEngine => &["type=1,manufacturer=Google,product=Google Compute Engine"],
        }
    }

    /// What the disk is attached to.
    fn disk(self) -> &'static [&'static str] {
        match self {
            // The lent one comes first.
            Self::Azure => &[
                "virtio-scsi-pci,id=scsi,romfile=",
                "scsi-hd,bus=scsi.0,lun=0,drive=temporary",
                "scsi-hd,bus=scsi.0,lun=1,drive=disk,bootindex=0",
            ],
            Self::Ec2 => &["nvme,drive=disk,serial=vol0123456789abcdef,bootindex=0"],
            Self::ComputeEngine => &[
                "virtio-scsi-pci,id=scsi,romfile=",
                "scsi-hd,bus=scsi.0,drive=disk,bootindex=0",
            ],
        }
    }
}

/// A machine that boots. It ends with its desk at the latest.
#[derive(Debug)]
pub struct CloudMachine {
    folder: PathBuf,
    ca: TestCa,
    endpoint: SocketAddr,
    qemu: Child,
    swtpm: Child,
}

impl CloudMachine {
    /// Starts a machine for a client. `metadata` is the program that answers for the cloud: `env!("CARGO_BIN_EXE_metadata")`.
    ///
    /// # Panics
    ///
    /// When a program cannot be started.
    pub async fn boot(
        desk: &Desk,
        image: &BaseImage,
        metadata: &str,
        cloud: Cloud,
        client: ClientDigest,
    ) -> Self {
        let folder = desk.at(cloud.service());
        fs::create_dir(&folder).expect("a folder can be made");
        let ca = TestCa::new().expect("a CA can be made");
        let location = make_tpm(&folder.join("tpm"), cloud, &ca).await;
        let document = Provisioning {
            client,
            // What it is, and what its key's authority says: a proof that says something else is refused.
            provider: "qemu".into(),
            instance_type: "test".into(),
            region: "here".into(),
            attestation_key: location,
            // Brought along in no order, because nothing that the machine can reach has them.
            issuers: [ca.root(), ca.intermediate()]
                .map(|authority| Base64(authority.certificate().to_vec()))
                .into(),
            idle_seconds: 3600,
            lifetime_seconds: Some(4 * 3600),
        };
        let document = serde_json::to_vec(&document).expect("it can be written");
        fs::write(folder.join("document"), document).expect("a file can be written");
        fs::copy(FIRMWARE_VARIABLES, folder.join("variables")).expect("there is firmware");
        let base = image.disk.display().to_string();
        let of_image = [
            "create", "-q", "-f", "qcow2", "-F", "raw", "-b", &base, "disk", DISK,
        ];
        let lent = ["create", "-q", "-f", "qcow2", "temporary", TEMPORARY_DISK];
        for arguments in [&of_image[..], &lent] {
            let status = command(&folder, "qemu-img").args(arguments).status();
            assert!(status.expect("qemu-img starts").success(), "{arguments:?}");
        }

        let swtpm = command(&folder, "swtpm")
            .args([
                "socket",
                "--tpm2",
                "--tpmstate",
                "dir=tpm",
                "--ctrl",
                "type=unixio,path=tpm.sock",
                "--terminate",
            ])
            .spawn()
            .expect("swtpm starts");
        wait_for("swtpm listens", Duration::from_secs(60), || {
            folder.join("tpm.sock").exists().then_some(())
        });
        // Nobody else takes it: ports are given out in turn.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a port");
        let endpoint = listener.local_addr().expect("it has an address");
        drop(listener);
        let service = format!("{metadata} {} document journal", cloud.service());
        let qemu = command(&folder, "qemu-system-x86_64")
            .args(arguments(cloud, endpoint.port(), &service))
            .spawn()
            .expect("QEMU starts");
        Self {
            folder,
            ca,
            endpoint,
            qemu,
            swtpm,
        }
    }

    /// Where its server will be.
    pub fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }

    /// The root of the authority that certified its key (PEM).
    pub fn root_pem(&self) -> String {
        self.ca.root_pem()
    }

    /// What it has written to its console.
    pub fn console(&self) -> String {
        let bytes = fs::read(self.folder.join("console")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What its metadata service was asked, and which status that answered.
    pub fn asked(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join("journal")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.qemu.try_wait().is_ok_and(|status| status.is_none())
    }
}

impl Drop for CloudMachine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let console = self.console();
            let lines: Vec<_> = console.lines().collect();
            let end = lines.len().saturating_sub(CONSOLE_LINES);
            eprintln!("{}\n{:?}", lines[end..].join("\n"), self.asked());
        }
        for process in [&mut self.qemu, &mut self.swtpm] {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A program that works in the machine's folder, and says what it has to say in a file there.
fn command(folder: &Path, program: &str) -> Command {
    let messages = File::create(folder.join(format!("{program}.log"))).expect("a file can be made");
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(messages);
    command
}

/// Makes a TPM as the cloud does before a machine boots.
async fn make_tpm(folder: &Path, cloud: Cloud, ca: &TestCa) -> KeyLocation {
    let options = SwtpmOptions::new()
        .with_directory(folder.to_owned())
        .with_banks([PcrBank::Sha256]);
    let instance = SwtpmInstance::start(options).expect("swtpm starts");
    let profile = CertificateProfile::attestation_key(format!("machine of {}", cloud.service()));
    let locations = instance
        .lay_out(cloud.tpm(), ca, &profile)
        .await
        .expect("the TPM takes its keys");
    instance.into_state().expect("the TPM can be handed on");
    locations[0]
}

/// As machines of `provider: qemu` have it, but for what is the cloud's.
fn arguments(cloud: Cloud, port: u16, service: &str) -> Vec<String> {
    let network = format!(
        "user,id=net,net=169.254.0.0/16,hostfwd=tcp:127.0.0.1:{port}-:{SERVER_PORT},guestfwd=tcp:169.254.169.254:80-cmd:{service}"
    );
    let code = format!("if=pflash,unit=0,format=raw,readonly=on,file={FIRMWARE}");
    let mut arguments = vec!["-nodefaults", "-no-user-config", "-no-reboot"];
    for (name, value) in [
        ("-display", "none"),
        ("-machine", "q35,smm=off,vmport=off,sata=off"),
        ("-accel", "tcg,thread=multi"),
        ("-cpu", "max,-cx16"),
        ("-smp", "2"),
        ("-m", "2048M"),
        ("-drive", &code),
        ("-drive", "if=pflash,unit=1,format=raw,file=variables"),
        ("-drive", "if=none,id=disk,format=qcow2,cache=unsafe,file=disk"),
        (
            "-drive",
            "if=none,id=temporary,format=qcow2,cache=unsafe,file=temporary",
        ),
        ("-netdev", &network),
        ("-device", "virtio-net-pci,netdev=net,romfile="),
        ("-object", "rng-random,id=random,filename=/dev/urandom"),
        ("-device", "virtio-rng-pci,rng=random,romfile="),
        ("-chardev", "socket,id=tpm,path=tpm.sock"),
        ("-tpmdev", "emulator,id=tpm,chardev=tpm"),
        ("-device", "tpm-crb,tpmdev=tpm"),
        ("-chardev", "file,id=console,path=console"),
        ("-serial", "chardev:console"),
    ] {
        arguments.extend([name, value]);
    }
    for device in cloud.disk() {
        arguments.extend(["-device", device]);
    }
    for table in cloud.smbios() {
        arguments.extend(["-smbios", table]);
    }
    arguments.into_iter().map(str::to_owned).collect()
}
