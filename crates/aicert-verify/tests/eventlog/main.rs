//! Event logs: of real machines, and forged ones.

#![allow(unreachable_pub)] // a test binary has no outside
#![allow(clippy::print_stdout)] // to say what is skipped
#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

mod builder;
mod bytes;
mod forged;
mod honest;
mod vectors;
