//! Machines, and the trait of what provides them.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;

use crate::digest::ClientDigest;
use crate::error::Error;
use crate::progress::Progress;
use crate::runtime::JobId;
use crate::time::Timestamp;

/// An error of a [`CloudProvider`].
pub type CloudError = Error<CloudErrorKind>;

/// What went wrong with a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloudErrorKind {
    /// Credentials are missing or do not suffice.
    PermissionDenied,
    /// There is no such machine, image, size or region.
    NotFound,
    /// A quota or capacity is exhausted.
    Exhausted,
    /// The provider or something it needs could not be reached.
    Unavailable,
    /// What was asked for is not offered here.
    Unsupported,
    /// The machine did not come up, or not in time.
    Boot,
    /// Anything else that the provider answered.
    Failed,
}

/// Names a machine at its provider.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineId(pub String);

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What machine is wanted.
#[derive(Debug, Clone)]
pub struct MachineRequest {
    /// The job that it is for.
    pub job: JobId,
    /// The provider's name for the kind of machine; the provider's default when absent.
    pub instance_type: Option<String>,
    /// Where; the provider's default when absent.
    pub region: Option<String>,
    /// Who may use the machine's server, for machines that have one ([`CloudCapabilities::measured_boot`]): the digest of
    /// a client certificate.
    pub client: Option<ClientDigest>,
    /// After how long without a client or a running job the machine turns itself off.
    pub idle: Duration,
    /// Where to report, with [`crate::progress::Step::Machine`].
    pub progress: Progress,
}

/// A machine that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineRecord {
    /// Its name at the provider.
    pub id: MachineId,
    /// The job that it is for.
    pub job: JobId,
    /// The provider's name for the kind of machine.
    pub instance_type: String,
    /// Where it is.
    pub region: String,
    /// Since when it exists.
    pub created: Timestamp,
    /// Where its server listens, for machines that have one.
    pub endpoint: Option<SocketAddr>,
    /// Whether whoever asked for it is still there to use it; `None` where the provider cannot tell.
    pub in_use: Option<bool>,
}

/// What a provider offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudCapabilities {
    /// The value of `provider` in the configuration.
    pub name: &'static str,
    /// Whether a machine is a real boundary that is attested from its boot on, or only this machine.
    pub measured_boot: bool,
    /// Whether its TPMs are simulated.
    pub simulated: bool,
}

/// A provider of machines.
///
/// # Contract
///
/// *Implemented by* crates for a cloud or hypervisor. *Called by* the CLI and by embedders; calls may run at the same
/// time.
///
/// * `provision` leaves a durable trace *before* it creates anything, so that a crash at any instant leaves no machine
///   that `list` does not show. If it fails, or its future is dropped and `destroy` called, nothing remains.
/// * `destroy` is idempotent: destroying what is gone succeeds. It returns when nothing that costs or runs is left.
/// * `list` shows every machine made by aicert for this user, those of crashed runs too, and no others.
/// * Nothing is chosen by falling back: what is asked for and not offered is [`CloudErrorKind::Unsupported`].
#[async_trait]
pub trait CloudProvider: Send + Sync {
    /// What this provider offers.
    fn capabilities(&self) -> &CloudCapabilities;

    /// The root certificate (PEM) that attestation keys of its machines are certified under, where it is one that no
    /// verifier knows by itself; such machines are simulated.
    fn trust_anchor(&self) -> Option<&str>;

    /// Creates a machine and starts it. It has an address then, and may still be booting.
    async fn provision(&self, request: MachineRequest) -> Result<MachineRecord, CloudError>;

    /// Every machine there is.
    async fn list(&self) -> Result<Vec<MachineRecord>, CloudError>;

    /// Whether a machine still runs: false when it has ended by itself, has failed to boot and stopped, or is not there.
    async fn is_running(&self, id: &MachineId) -> Result<bool, CloudError>;

    /// Removes a machine and everything that was made for it.
    async fn destroy(&self, id: &MachineId) -> Result<(), CloudError>;

    /// What the machine wrote to its console, for people who look for a fault; empty when there is nothing.
    async fn console_log(&self, id: &MachineId) -> Result<String, CloudError>;
}
