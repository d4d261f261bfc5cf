//! Policies as people write them: what is read, what is refused and how it is said, and that the documentation, the
//! examples and the JSON Schema say the same as the code.

#![cfg(feature = "policy")]
#![allow(unreachable_pub)] // a test binary has no outside
#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

mod read;
mod refused;
mod schema;
