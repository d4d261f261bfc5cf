#![doc = include_str!("../README.md")]

mod backend;
mod config;
mod error;
mod holder;
mod key;
mod pcr;
mod preflight;
mod quote;
mod worker;

pub use backend::Tpm;
pub use config::{KeySource, Provision, ProvisionedKey, QUIET_LOGS, Tcti, TpmConfig};
pub use tss_esapi;
