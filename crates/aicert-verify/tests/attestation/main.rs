//! Machines that answer a nonce: honest ones, and everything that could stand in their place.

#![allow(unreachable_pub)] // a test binary has no outside
#![allow(dead_code)] // the helpers serve the tests of proofs as well
#![allow(unused_imports)] // as above
#![allow(unused_macros)] // as above
#![allow(clippy::print_stdout)] // as above
#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

#[path = "../forgeries/machine.rs"]
mod machine;
#[path = "../forgeries/papers.rs"]
mod papers;
#[path = "../forgeries/support.rs"]
mod support;

mod answer;
mod bytes;
mod document;
mod forged;
mod honest;
mod proof;
