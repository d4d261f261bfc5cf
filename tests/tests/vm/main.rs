//! The base image in machines that really boot.
//!
//! All of it is one program, so that as many machines run at a time as the host can bear: one boots while another waits.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stderr, reason = "says how long things took")]

mod clouds;
mod faults;
mod large;
mod machine;
mod rejected;
mod run;

use aicert_tests::base::Workshop;

const WORKSHOP: Workshop = Workshop {
    aicert: env!("CARGO_BIN_EXE_aicert-under-test"),
    folder: env!("CARGO_TARGET_TMPDIR"),
};
