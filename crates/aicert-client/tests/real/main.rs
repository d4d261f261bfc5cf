//! A real server with a software TPM and the Docker engine of this machine, over connections that somebody tampers with.

#![allow(unreachable_pub)] // a test binary has no outside
#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do
#![allow(clippy::print_stdout)] // to say what is skipped

mod attest;
mod job;
mod middle;
mod scene;
