//! Forgeries that other verifiers accepted, each built here from keys made on the spot, and refused for its real cause.

#![allow(unreachable_pub)] // a test binary has no outside

mod boot;
mod chain;
mod honest;
mod key;
mod log;
mod quote;
mod step8;
mod support;
