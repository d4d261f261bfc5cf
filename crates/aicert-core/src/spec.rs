//! What a job is: the typed form of `aicert.yaml`.

use std::path::PathBuf;
use std::time::Duration;

use crate::cloud::Network;
use crate::digest::{ConfigDigest, FileDigest};
use crate::event::Variable;
use crate::runtime::Limits;
use crate::secret::Secret;

/// The list of packages of a Python job that names none; it need not be there.
pub const DEFAULT_REQUIREMENTS: &str = "requirements.txt";

/// A job, complete and checked: names are unique, destinations stay inside the workspace.
#[derive(Debug, Clone)]
pub struct JobSpec {
    /// SHA-256 of the configuration file.
    pub config: ConfigDigest,
    /// The image to run in.
    pub image: ImageSpec,
    /// The program and its arguments; the image's own when absent.
    pub command: Option<Vec<String>>,
    /// For Python: the file that is run, relative to the source; it must be among the measured files.
    pub entry_point: Option<String>,
    /// For Python: the requirements file, relative to the source; used when it exists.
    pub requirements: Option<String>,
    /// Where Python packages come from.
    pub package_index: PackageIndex,
    /// Environment variables for the job. They are in the certificate: no secrets here.
    pub environment: Vec<Variable>,
    /// The source and the resources, in the order of the configuration; the source, if any, is first.
    pub inputs: Vec<InputSpec>,
    /// The folder in the container where the job leaves its outputs.
    pub outputs: String,
    /// The GPUs that the job needs.
    pub gpus: Option<GpuRequest>,
    /// What the job may use at most.
    pub limits: Limits,
    /// Where it runs.
    pub machine: MachineSpec,
}

impl JobSpec {
    /// The small files that the job needs besides its inputs: keys for SSH, certificates to trust. Who sends a job to
    /// another machine sends them along, and changes their paths to where they are there.
    pub fn auxiliary_files(&mut self) -> Vec<&mut PathBuf> {
        let keys = self
            .inputs
            .iter_mut()
            .filter_map(|input| match &mut input.location {
                Location::Git(GitLocation {
                    credentials: Some(GitCredentials::SshKey { path, .. }),
                    ..
                }) => Some(path),
                _ => None,
            });
        keys.chain(&mut self.package_index.ca_bundle).collect()
    }
}

/// The image that a job runs in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageSpec {
    /// aicert's own Python base image, built from its recipe when it is not there.
    Python {
        /// The minor version of Python 3: 11 means 3.11.
        minor: u8,
    },
    /// An image of a registry or of the engine, by reference.
    Reference {
        /// `name`, `name:tag` or `name@sha256:…`.
        reference: String,
    },
}

/// GPUs asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GpuRequest {
    /// Every GPU of the machine.
    All,
    /// That many.
    Count(u32),
    /// Those with these UUIDs.
    Uuids(Vec<String>),
}

/// Where Python packages come from. Used in the resolving step alone.
#[derive(Debug, Clone, Default)]
pub struct PackageIndex {
    /// The index; pip's default when absent.
    pub url: Option<String>,
    /// User and password or token for it, as `user:password`.
    pub credentials: Option<Secret>,
    /// A file with certificates (PEM) to trust in addition.
    pub ca_bundle: Option<PathBuf>,
    /// A proxy for HTTP and HTTPS.
    pub proxy: Option<Secret>,
}

/// An input, as it is configured.
#[derive(Debug, Clone)]
pub struct InputSpec {
    /// Unique in the job.
    pub name: String,
    /// Absolute path in the container.
    pub destination: String,
    /// Where it comes from.
    pub location: Location,
}

/// Where an input comes from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Location {
    /// A git repository.
    Git(GitLocation),
    /// One file.
    File(FileLocation),
    /// A directory of this machine.
    Directory(DirectoryLocation),
    /// A kind that aicert itself does not know: for embedders with sources of their own.
    Custom {
        /// The value of `type`.
        kind: String,
        /// Its parameters.
        parameters: Vec<(String, String)>,
    },
}

impl Location {
    /// The value of `type` in the configuration.
    pub fn kind(&self) -> &str {
        match self {
            Self::Git(_) => "git",
            Self::File(_) => "file",
            Self::Directory(_) => "directory",
            Self::Custom { kind, .. } => kind,
        }
    }
}

/// A git repository.
#[derive(Debug, Clone)]
pub struct GitLocation {
    /// `https://…`, `http://…`, `ssh://…`, `user@host:path`, `file:///…` or an absolute path; without credentials.
    pub repository: String,
    /// Which revision.
    pub revision: GitRevision,
    /// Whether submodules are fetched too; true unless configured otherwise.
    pub submodules: bool,
    /// How to get in, for private repositories.
    pub credentials: Option<GitCredentials>,
}

/// Which revision of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GitRevision {
    /// What the remote's HEAD is.
    Default,
    /// The tip of a branch.
    Branch(String),
    /// What a tag points to.
    Tag(String),
    /// A commit, 40 hexadecimal digits.
    Commit(crate::digest::CommitId),
}

/// How to get into a private repository.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum GitCredentials {
    /// A token, for HTTPS.
    Token(Secret),
    /// A private key file, for SSH.
    SshKey {
        /// The private key.
        path: PathBuf,
        /// Its passphrase.
        passphrase: Option<Secret>,
    },
}

/// One file.
#[derive(Debug, Clone)]
pub struct FileLocation {
    /// `https://…`, `http://…` or `file:///…`.
    pub url: String,
    /// What its SHA-256 must be.
    pub sha256: Option<FileDigest>,
    /// A bearer token for the request.
    pub token: Option<Secret>,
}

/// A directory of this machine.
#[derive(Debug, Clone)]
pub struct DirectoryLocation {
    /// Absolute.
    pub path: PathBuf,
}

/// Where the job runs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum MachineSpec {
    /// On this machine.
    Local(LocalTpm),
    /// On a machine that is booted in QEMU, with a software TPM: proofs are marked simulated.
    Qemu(QemuMachine),
    /// On a machine of Microsoft Azure.
    Azure(AzureMachine),
    /// On a machine of Amazon EC2.
    Aws(AwsMachine),
    /// On a machine of Google Compute Engine.
    Gcp(GcpMachine),
}

impl MachineSpec {
    /// What all clouds have in common, for machines of one.
    pub fn cloud(&self) -> Option<&CloudMachine> {
        match self {
            Self::Azure(azure) => Some(&azure.machine),
            Self::Aws(aws) => Some(&aws.machine),
            Self::Gcp(gcp) => Some(&gcp.machine),
            Self::Local(_) | Self::Qemu(_) => None,
        }
    }
}

/// What machines of all clouds have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudMachine {
    /// The cloud's name for the published base image.
    pub image: String,
    /// What the image must measure.
    pub reference_values: PathBuf,
    /// The cloud's name for the kind of machine; one that suits the job when absent.
    pub instance_type: Option<String>,
    /// The disk, in bytes: the image, and what the job may write.
    pub disk: u64,
    /// Whether the cloud may take the machine away at any time, for a lower price.
    pub spot: bool,
    /// Who may reach the machine's server; the caller's own address when empty.
    pub access: Vec<Network>,
    /// After how long the machine ends, whatever it does.
    pub lifetime: Duration,
    /// How long it may take from power-on until it is attested.
    pub boot_limit: Duration,
    /// Files with certificates between that of the attestation key and the root (DER or PEM), for keys whose certificates do
    /// not say where they are.
    pub issuers: Vec<PathBuf>,
}

/// A machine of Microsoft Azure: Trusted Launch, with Secure Boot off or on as the image is, and a virtual TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzureMachine {
    /// The subscription that pays.
    pub subscription: String,
    /// The region, such as `westeurope`.
    pub region: String,
    /// Whether memory is encrypted with a key of the processor.
    pub confidential: bool,
    /// The rest.
    pub machine: CloudMachine,
}

/// A machine of Amazon EC2, with UEFI and NitroTPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsMachine {
    /// The region, such as `eu-west-1`.
    pub region: String,
    /// The subnet; one of the default VPC when absent.
    pub subnet: Option<String>,
    /// The rest.
    pub machine: CloudMachine,
}

/// A machine of Google Compute Engine: a Shielded VM.
///
/// Compute Engine documents certificates of attestation keys for confidential machines alone; on others there may be
/// none, and then they cannot be attested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcpMachine {
    /// The project that pays.
    pub project: String,
    /// The zone, such as `europe-west4-a`.
    pub zone: String,
    /// The network; `default` when absent.
    pub network: Option<String>,
    /// Whether memory is encrypted with a key of the processor: so it is unless the configuration says otherwise.
    pub confidential: bool,
    /// The rest.
    pub machine: CloudMachine,
}

/// A machine in QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QemuMachine {
    /// The disk image of aicert's base image, raw or qcow2. It is never written to.
    pub image: PathBuf,
    /// What the image must measure; beside the image, with the ending `.reference-values.json`, when absent.
    pub reference_values: Option<PathBuf>,
    /// What executes the machine's instructions.
    pub accelerator: Accelerator,
    /// The number of processors.
    pub cpus: u32,
    /// The memory, in bytes.
    pub memory: u64,
    /// The disk, in bytes: the image, and what the job may write.
    pub disk: u64,
    /// How long it may take from power-on until it is attested.
    pub boot_limit: Duration,
}

/// What executes the instructions of a machine in QEMU. Nothing is chosen by falling back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Accelerator {
    /// QEMU's own emulation, which works everywhere.
    Tcg,
    /// The kernel's virtualization, `/dev/kvm`.
    Kvm,
}

/// The TPM of this machine to use.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LocalTpm {
    /// A software TPM, started for this job: the proof is marked simulated.
    Swtpm,
    /// The TPM of this machine.
    Device {
        /// `/dev/tpmrm0` unless configured otherwise.
        path: PathBuf,
        /// The persistent handle of the attestation key.
        ak_handle: u32,
        /// Files with its certificate chain, leaf first (DER or PEM).
        ak_certificates: Vec<PathBuf>,
    },
}
