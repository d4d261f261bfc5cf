//! The sources against real servers, which the tests start on free ports and have misbehave.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says why it is skipped"
)]

mod directories;
mod files;
mod repositories;
mod server;
mod ssh;
mod support;
