#![doc = include_str!("../README.md")]
#![allow(clippy::unwrap_used)] // what helps a test may fail it
#![allow(clippy::print_stdout)] // a test that is skipped says so

mod docker;
mod machine;
pub mod tls;

pub use docker::no_docker;
pub use machine::{Machine, MachineOptions, trusting};
