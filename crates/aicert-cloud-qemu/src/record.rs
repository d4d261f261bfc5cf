//! The durable trace of a machine: written before anything else is made for it.

use std::net::SocketAddr;
use std::path::PathBuf;

use aicert_core::attestation::MachineIdentity;
use aicert_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::process::Identity;

/// What a machine was made for, and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// The job.
    pub(crate) job: String,
    /// Since when it exists.
    pub(crate) created: Timestamp,
    /// The process that made it.
    pub(crate) maker: Identity,
    /// The kind of machine.
    pub(crate) instance_type: String,
    /// What it boots.
    pub(crate) image: PathBuf,
    /// What its evidence must say, from when on its TPM has a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<MachineIdentity>,
    /// Where its server is reached, from when on it is complete.
    pub(crate) endpoint: Option<SocketAddr>,
}
