#![doc = include_str!("../README.md")]

mod attest;
mod config;
mod error;
mod http;
mod identity;
mod job;
mod tls;

pub use attest::{AttestedClient, Client, Session};
pub use config::Settings;
pub use error::ClientError;
pub use identity::Identity;
