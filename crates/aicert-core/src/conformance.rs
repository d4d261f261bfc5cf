//! Conformance suites: what every implementation of a trait must do, as functions that its tests call.
//!
//! A contributor who adds a cloud, a TPM, a runtime or an input source calls the functions of the matching module with
//! the real thing; each documents what it needs and panics with the rule that was broken.

pub mod cloud;
pub mod input;
pub mod runtime;
pub mod tpm;
