//! Attestation documents, as the tests of bare ones make them.

#[path = "../evidence/document.rs"]
pub mod document;
#[path = "../evidence/support.rs"]
pub mod support;
