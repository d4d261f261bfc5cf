//! Which TPM to use, with which key, and how patiently.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use aicert_core::attestation::KeyLocation;
use aicert_core::tpm::{TpmError, TpmErrorKind};
use tss_esapi::Context;
use tss_esapi::handles::KeyHandle;
use tss_esapi::tcti_ldr::{DeviceConfig, NetworkTPMConfig, ServerAddress, TctiNameConf};

/// The environment variable, and its value, that keep the C libraries of the TSS from writing to standard error.
///
/// They read it once, when they first have something to say; a program sets it for itself by starting itself again
/// with it, before any thread exists. Nothing but the noise depends on it.
pub const QUIET_LOGS: (&str, &str) = ("TSS2_LOG", "all+NONE");

/// How long one command may take, unless configured.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(60);

/// Where Linux shows the boot event log of the first TPM.
const KERNEL_BOOT_EVENT_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";

/// How a TPM is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tcti {
    /// A device of the kernel. `/dev/tpmrm0` can be shared between processes, `/dev/tpm0` cannot.
    Device {
        /// The device.
        path: PathBuf,
    },
    /// A software TPM that listens on TCP, with its control channel on the next higher port.
    Swtpm {
        /// Host name or address.
        host: String,
        /// The port for commands.
        port: u16,
    },
}

impl Tcti {
    pub(crate) fn name_conf(&self) -> Result<TctiNameConf, TpmError> {
        let misconfigured = |what: String| TpmError::new(TpmErrorKind::Unsupported, what);
        match self {
            Self::Device { path } => path
                .to_str()
                .and_then(|path| DeviceConfig::from_str(path).ok())
                .map(TctiNameConf::Device)
                .ok_or_else(|| misconfigured(format!("the TPM device {} cannot be named", path.display()))),
            Self::Swtpm { host, port } => {
                // The TCTI's configuration is a text with commas in it: nothing but a host may get there.
                if ServerAddress::from_str(host).is_err() {
                    return Err(misconfigured(format!(
                        "{host:?} is neither a host name nor an address of a software TPM"
                    )));
                }
                if *port == 0 || *port == u16::MAX {
                    return Err(misconfigured(format!(
                        "a software TPM cannot listen on port {port}: its control channel is on the next higher port"
                    )));
                }
                NetworkTPMConfig::from_str(&format!("host={host},port={port}"))
                    .map(TctiNameConf::Swtpm)
                    .map_err(|error| {
                        misconfigured(format!("no software TPM can be at {self}")).with_source(error)
                    })
            }
        }
    }
}

impl fmt::Display for Tcti {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device { path } => path.display().fmt(f),
            Self::Swtpm { host, port } => write!(f, "swtpm at {host}:{port}"),
        }
    }
}

/// A key that [`Provision`] made or found.
#[derive(Debug, Clone)]
pub struct ProvisionedKey {
    /// The loaded key.
    pub handle: KeyHandle,
    /// X.509 certificates in DER: the key's own, then intermediates, then the root.
    pub certificate_chain: Vec<Vec<u8>>,
}

/// Makes or finds the attestation key, with the TPM's context, before anything else is done with the TPM.
pub type Provision = Box<dyn FnOnce(&mut Context) -> Result<ProvisionedKey, TpmError> + Send>;

/// Where the attestation key is.
#[non_exhaustive]
pub enum KeySource {
    /// In the TPM's persistent memory, usable with an empty password.
    Persistent {
        /// The persistent handle, `0x81000000` to `0x81ffffff`.
        handle: u32,
        /// X.509 certificates in DER: the key's own, then intermediates, then the root.
        certificate_chain: Vec<Vec<u8>>,
    },
    /// Where a cloud, or whoever else provides the machine, has put it, with its certificate.
    Platform {
        /// Where the key and its certificate are.
        location: KeyLocation,
        /// X.509 certificates in DER that follow the key's own: intermediates, then the root.
        issuers: Vec<Vec<u8>>,
    },
    /// Made or found by the caller's own code, in the context that is going to be used.
    Provisioned(Provision),
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Persistent {
                handle,
                certificate_chain,
            } => write!(
                f,
                "Persistent({handle:#x}, {} certificates)",
                certificate_chain.len()
            ),
            Self::Platform { location, issuers } => {
                write!(f, "Platform({location:?}, {} issuers)", issuers.len())
            }
            Self::Provisioned(_) => f.write_str("Provisioned"),
        }
    }
}

/// The configuration of a [`Tpm`](crate::Tpm).
#[derive(Debug)]
pub struct TpmConfig {
    pub(crate) tcti: Tcti,
    pub(crate) key: KeySource,
    pub(crate) boot_event_log: Option<PathBuf>,
    pub(crate) deadline: Duration,
}

impl TpmConfig {
    /// A TPM of the kernel, with the kernel's boot event log of the first TPM.
    pub fn device(path: impl AsRef<Path>, key: KeySource) -> Self {
        Self {
            tcti: Tcti::Device {
                path: path.as_ref().to_owned(),
            },
            key,
            boot_event_log: Some(KERNEL_BOOT_EVENT_LOG.into()),
            deadline: DEFAULT_DEADLINE,
        }
    }

    /// A software TPM, without boot event log. Its capabilities say that it is simulated.
    pub fn swtpm(host: impl Into<String>, port: u16, key: KeySource) -> Self {
        Self {
            tcti: Tcti::Swtpm {
                host: host.into(),
                port,
            },
            key,
            boot_event_log: None,
            deadline: DEFAULT_DEADLINE,
        }
    }

    /// Takes the boot event log from `path`; when there is no such file, the log is empty.
    #[must_use]
    pub fn with_boot_event_log(mut self, path: impl Into<PathBuf>) -> Self {
        self.boot_event_log = Some(path.into());
        self
    }

    /// Gives up on a command after `deadline`.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_cannot_smuggle_options_into_the_tcti() {
        for host in ["", "localhost,port=1", "a b", "host=x", "-x"] {
            let tcti = Tcti::Swtpm {
                host: host.into(),
                port: 2321,
            };
            assert!(tcti.name_conf().is_err(), "{host:?}");
        }
        for port in [0, u16::MAX] {
            let host = "localhost".into();
            assert!(Tcti::Swtpm { host, port }.name_conf().is_err(), "{port}");
        }
        let host = "127.0.0.1".into();
        assert!(Tcti::Swtpm { host, port: 2321 }.name_conf().is_ok());
    }
}
