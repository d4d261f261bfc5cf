#![doc = include_str!("../README.md")]

mod arm;
mod blob;
mod compute;
mod config;
mod credential;
mod error;
mod gallery;
mod make;
mod network;
mod provider;
mod publisher;
mod refusal;
mod registration;
mod remove;
mod size;
mod transport;
mod vhd;

/// What gives access tokens: for embedders that bring their own. It is the type of `azure_core` 1.
pub use azure_core_now::credentials::TokenCredential;
pub use config::{AzureConfig, AzurePublisherConfig, Patience};
pub use provider::AzureProvider;
pub use publisher::AzurePublisher;

/// The value of `provider` in the configuration.
pub(crate) const PROVIDER: &str = "azure";

/// Where the server of a machine listens.
pub(crate) const SERVER_PORT: u16 = 8443;
