//! A NitroTPM: a software TPM with somebody in front of it who makes attestation documents, as AWS's hypervisor does.
//!
//! Everything that a TPM does is done by the real one behind: PCRs, NV indices, authorizations. [`NitroProxy`] adds what a
//! NitroTPM has beyond: the vendor command, whose documents a [`NitroAuthority`] of the test signs over the PCRs that the TPM
//! really has, and room for 8 KiB in an NV index, of which swtpm has but 2.

mod document;
mod proxy;
mod room;

pub use document::{NitroAuthority, NitroStatement};
pub use proxy::{NitroProxy, NitroReply};
