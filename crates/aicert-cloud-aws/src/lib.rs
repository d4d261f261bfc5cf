#![doc = include_str!("../README.md")]

mod account;
mod config;
mod error;
mod group;
mod image;
mod instance;
mod network;
mod provider;
mod publish;
mod run;
mod size;

pub use config::{AwsConfig, Patience};
pub use provider::AwsProvider;
pub use publish::AwsPublisher;

/// The value of `provider` in the configuration.
pub(crate) const PROVIDER: &str = "aws";

/// Where the server of a machine listens.
pub(crate) const SERVER_PORT: i32 = 8443;

/// 2³⁰ bytes, in which EC2 counts disks.
pub(crate) const GIB: u64 = 1 << 30;
