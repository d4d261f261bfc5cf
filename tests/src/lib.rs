//! What the end-to-end and adversarial tests share.

#![allow(clippy::print_stderr)] // a skipped test says so

pub mod base;
pub mod machine;
pub mod proofs;
pub mod scene;
pub mod tools;
pub mod vm;
