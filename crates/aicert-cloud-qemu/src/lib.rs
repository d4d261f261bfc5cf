#![doc = include_str!("../README.md")]

mod arguments;
mod authority;
mod config;
mod console;
mod error;
mod explain;
mod folder;
mod image;
mod make;
mod monitor;
mod process;
mod provider;
mod record;

pub use config::QemuConfig;
pub use explain::explain_end;
pub use provider::QemuProvider;

/// Where the server of a machine listens, inside the machine.
pub(crate) const SERVER_PORT: u16 = 8443;

/// Under what name a machine finds its [`Provisioning`](aicert_core::attestation::Provisioning) in fw_cfg.
pub(crate) const PROVISIONING: &str = "opt/org.aicert/provisioning";
