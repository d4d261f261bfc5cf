#![doc = include_str!("../README.md")]

mod backend;
mod certificate;
mod config;
mod error;
mod holder;
mod key;
mod nitro;
mod nv;
mod pcr;
mod platform;
mod preflight;
mod quote;
mod wire;
mod worker;

pub use backend::Tpm;
pub use config::{KeySource, Provision, ProvisionedKey, QUIET_LOGS, Tcti, TpmConfig};
pub use tss_esapi;
