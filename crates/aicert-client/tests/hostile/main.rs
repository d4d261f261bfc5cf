//! Servers that do what no honest one does: each is a real TLS server on this computer, and none gets further than it may.

#![allow(unreachable_pub)] // a test binary has no outside
#![allow(dead_code)] // the helpers serve the verifier's tests as well
#![allow(unused_imports)] // as above
#![allow(unused_macros)] // as above
#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do
#![allow(clippy::print_stderr)] // to say what is skipped

#[path = "../../../aicert-verify/tests/attestation/answer.rs"]
mod answer;
#[path = "../../../aicert-verify/tests/forgeries/machine.rs"]
mod machine;
#[path = "../../../aicert-verify/tests/forgeries/support.rs"]
mod support;

mod attest;
mod download;
mod events;
mod jobs;
mod server;
mod upload;
