#![doc = include_str!("../README.md")]

mod attest;
mod config;
mod error;
mod events;
mod files;
mod http;
mod identity;
mod inputs;
mod job;
mod outputs;
mod progress;
mod range;
mod sse;
mod submission;
mod tls;

pub use attest::{AttestedClient, Client, Session};
pub use config::Settings;
pub use error::ClientError;
pub use identity::Identity;
pub use inputs::{Sent, SentContent};
pub use outputs::outputs_tree;
pub use submission::{PreparedJob, Upload};
