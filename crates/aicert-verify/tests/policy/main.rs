//! Policies as people write them: what is read, what is refused and how it is said, what a whole verification makes of
//! them, and that the documentation, the examples and the JSON Schema say the same as the code.

#![cfg(feature = "policy")]
#![allow(unreachable_pub)] // a test binary has no outside
#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

// Proofs are built as for the forgeries, of which these tests need little.
#[path = "../forgeries/machine.rs"]
#[allow(dead_code)]
mod machine;
#[path = "../forgeries/support.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod support;

mod read;
mod refused;
mod schema;
mod verified;
