#![doc = include_str!("../README.md")]

pub mod anchors;
mod attest;
pub mod attestation;
pub mod boot;
pub mod chain;
mod config;
pub mod error;
pub mod eventlog;
pub mod evidence;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod image;
pub mod input;
pub mod key;
pub mod log;
mod marshal;
pub mod nitro;
pub mod output;
pub mod parse;
pub mod policy;
pub mod quote;
pub mod reference;
mod signature;
mod steps;
pub mod summary;
#[cfg(feature = "testing")]
pub mod testing;
mod verified;
mod x509;

pub use anchors::{TrustAnchors, platform_of_root};
pub use attestation::{VerifiedAttestation, verify_attestation};
pub use config::Options;
pub use error::{Cause, Failure, Party, Rejection, Step};
pub use marshal::MarshalError;
pub use parse::Unverified;
pub use verified::{Verified, verify};
