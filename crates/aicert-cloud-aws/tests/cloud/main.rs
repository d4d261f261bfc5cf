//! The provider and the publisher against moto's server, behind a proxy that holds all requests to Amazon's service models and has
//! Amazon's faults.

#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]

mod conformance;
mod faults;
mod killed;
mod publish;
mod requests;
mod roles;
mod scene;
