//! Machines, and the trait of what provides them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;

pub use crate::attestation::MachineIdentity;
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
    /// Who may reach the machine's server at all, where the provider filters; whoever does still needs the client's key.
    pub access: Vec<Network>,
    /// How many GPUs the job needs at least; a provider's default kind of machine has as many.
    pub gpus: u32,
    /// After how long without a client or a running job the machine turns itself off.
    pub idle: Duration,
    /// After how long the machine ends, whatever it does; never, where that is not said.
    pub lifetime: Option<Duration>,
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
    /// What the evidence of this very machine must say, where the provider knows.
    pub identity: Option<MachineIdentity>,
}

/// Addresses with a common beginning: `203.0.113.0/24`, or one address alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Says that a text is no [`Network`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no network: {why}")]
pub struct ParseNetworkError {
    text: String,
    why: &'static str,
}

impl Network {
    /// One address.
    pub fn of(address: IpAddr) -> Self {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        Self { address, prefix }
    }

    /// The first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits all addresses have in common.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Network {
    type Err = ParseNetworkError;

    /// Reads an address, or CIDR notation (RFC 4632, section 3.1; RFC 4291, section 2.3) without bits behind the prefix.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why| ParseNetworkError {
            text: text.chars().take(60).collect(),
            why,
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| wrong("expected an address such as 203.0.113.7, or 203.0.113.0/24"))?;
        let whole = Self::of(address);
        let Some(prefix) = prefix else {
            return Ok(whole);
        };
        let prefix = prefix
            .parse()
            .ok()
            .filter(|bits| *bits <= whole.prefix && !prefix.starts_with('+'))
            .ok_or_else(|| wrong("the prefix is a number of bits, at most 32, or 128 for IPv6"))?;
        let (bits, width) = match address {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
            IpAddr::V6(v6) => (v6.to_bits(), 128),
        };
        let behind = match width - u32::from(prefix) {
            0 => 0,
            128 => bits,
            free => bits & ((1 << free) - 1),
        };
        if behind != 0 {
            return Err(wrong("the address has bits behind the prefix"));
        }
        Ok(Self { address, prefix })
    }
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
/// * A job has one machine: asking for a second one for the same job fails, or gives the same machine again.
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

/// An image to publish.
#[derive(Debug, Clone)]
pub struct ImageRequest {
    /// The disk image of aicert's base image, raw.
    pub image: PathBuf,
    /// What to call it.
    pub name: String,
    /// Where to report, with [`crate::progress::Step::Publish`].
    pub progress: Progress,
}

/// An image that machines can be made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedImage {
    /// What `image` in the configuration of a machine names.
    pub id: String,
    /// Whether it was there before, complete.
    pub existed: bool,
}

/// Who puts images where a provider's machines are made from.
///
/// # Contract
///
/// *Implemented by* crates for a cloud. *Called by* the CLI and by embedders.
///
/// * What is published holds the bytes of the file, every one of them checked on the way; blocks of zeros need not travel.
/// * Publishing the same file under the same name again gives the same image. Another file under that name is refused.
/// * After an interruption at any point, the same call goes on with what is there already. What is left of it until then is
///   found by its tags, and removed by [`ImagePublisher::discard`].
#[async_trait]
pub trait ImagePublisher: Send + Sync {
    /// Publishes an image; returns when machines can be made from it.
    async fn publish(&self, request: ImageRequest) -> Result<PublishedImage, CloudError>;

    /// Removes an image of that name, complete or not, with everything that was made for it; succeeds when there is none.
    async fn discard(&self, name: &str) -> Result<(), CloudError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_one_spelling() {
        for text in [
            "203.0.113.7/32",
            "203.0.113.0/24",
            "0.0.0.0/0",
            "2001:db8::/32",
            "::/0",
            "::1/128",
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        assert_eq!(
            "203.0.113.7".parse::<Network>().unwrap().to_string(),
            "203.0.113.7/32"
        );
        for text in [
            "",
            "203.0.113.7/33",
            "203.0.113.7/24",
            "203.0.113.0/+8",
            "203.0.113.0/",
            "host/8",
            "2001:db8::1/32",
            "::1/0",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
