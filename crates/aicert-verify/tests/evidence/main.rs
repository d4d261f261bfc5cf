//! Quotes and attestation documents outside of proofs: real ones with known outcomes, and forgeries built here from keys made
//! on the spot.

#![allow(unreachable_pub)] // a test binary has no outside
#![allow(dead_code)] // some helpers serve the tests of proofs
#![allow(clippy::print_stdout)] // to say what is skipped
#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

mod chain;
mod document;
mod mutation;
mod nitro;
mod quote;
mod support;
mod vectors;
