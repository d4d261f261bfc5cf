#![doc = include_str!("../README.md")]

mod attestation;
mod authorize;
mod beneath;
mod config;
mod events;
mod idle;
pub mod issuers;
mod job;
mod leftovers;
mod lifetime;
mod linger;
mod listen;
pub mod logging;
mod memory;
mod openapi;
mod outputs;
mod pieces;
mod problem;
pub mod provisioning;
mod ranges;
mod results;
mod routes;
mod server;
mod state;
mod submission;
mod tls;
mod uploads;

pub use aicert_core::pipeline::Backends;
pub use config::{Limits, ServerConfig};
pub use memory::peak_mib;
pub use openapi::document as openapi_document;
pub use server::{Ended, Server, StartError, Stop};
pub use tls::TlsError;

pub(crate) use server::App;

/// The name of this software in proofs.
pub const TOOL: &str = "aicert-server";

/// The version of this software in proofs.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
