//! Forgeries that other verifiers accepted, each built here from keys made on the spot, and refused for its real cause.

#![allow(unreachable_pub)] // a test binary has no outside
#![allow(clippy::print_stdout)] // to say what is skipped
#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

mod boot;
mod bytes;
mod chain;
mod document;
mod honest;
mod key;
mod log;
mod machine;
#[allow(dead_code, unused_imports, unused_macros)] // what tests of bare documents need
mod papers;
mod quote;
mod step8;
mod support;
mod vectors;
