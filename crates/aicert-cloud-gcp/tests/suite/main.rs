//! The provider and the publisher against a stand-in for Google's APIs that holds them to the published definitions.

#![allow(clippy::unwrap_used)] // The helpers of tests are tests, which clippy does not see.

mod faults;
mod killed;
mod provider;
mod publish;
mod role;
mod support;
