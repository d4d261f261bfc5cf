//! What booting an image measures: computed, compared with real boots, and refused where it is not certain.

#![allow(clippy::print_stdout, reason = "to say what is skipped")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod boots;
mod disks;
mod forge;
mod pe;
mod properties;
mod tools;
mod ukis;
