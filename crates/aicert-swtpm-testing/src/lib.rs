#![doc = include_str!("../README.md")]

mod activation;
mod backend;
mod ca;
mod config;
mod error;
mod forge;
mod instance;
mod interposer;
mod keys;
mod layout;
mod nitro;
mod provision;
mod public;
mod raw;
mod skip;

pub use backend::{SignedAttestation, SimulatedTpm, certified_key};
pub use ca::{Authority, CertificateProfile, TestCa};
pub use config::{KeyAlgorithm, KeyHierarchy, KeyTemplate, SimulationOptions, SwtpmOptions};
pub use forge::ForgedKey;
pub use instance::SwtpmInstance;
pub use interposer::{Interposer, Verdict};
pub use layout::CloudTpm;
pub use nitro::{NitroAuthority, NitroProxy, NitroReply, NitroStatement};
pub use provision::{InstalledKey, PlatformKey};
pub use public::{public_key_der, public_key_pem};
pub use skip::skip_without;
pub use x509_cert;
