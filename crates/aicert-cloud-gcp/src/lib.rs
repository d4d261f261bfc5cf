#![doc = include_str!("../README.md")]

mod api;
mod config;
mod error;
mod image;
mod instance;
mod kind;
mod locate;
mod marks;
mod operation;
mod provider;
mod provision;
mod publish;
mod remove;
mod rule;

pub use config::{CredentialsSource, GcpConfig, GcpPaces};
pub use provider::GcpProvider;
pub use publish::GcpPublisher;

/// The value of `provider` in the configuration.
pub(crate) const PROVIDER: &str = "gcp";

/// Where the server of a machine listens.
pub(crate) const SERVER_PORT: u16 = 8443;
