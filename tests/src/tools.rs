//! Tools that a test needs: missing ones skip it here and fail it in CI.

use std::process::{Command, Stdio};

/// Whether a program can be started; says so and, in CI, panics when it cannot.
///
/// # Panics
///
/// When `CI` is set and the program is missing.
pub fn have(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    skip_unless(found, program)
}

/// Whether the container engine answers; says so and, in CI, panics when it does not.
///
/// # Panics
///
/// When `CI` is set and the engine does not answer.
pub fn have_docker() -> bool {
    let answer = Command::new("docker")
        .arg("info")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    skip_unless(
        answer.is_ok_and(|status| status.success()),
        "a running Docker engine",
    )
}

pub(crate) fn skip_unless(found: bool, what: &str) -> bool {
    skip_with(found, &format!("{what} is missing; scripts/setup.sh installs it"))
}

/// Says why a test is skipped and, in CI, panics instead.
pub(crate) fn skip_with(found: bool, why_not: &str) -> bool {
    assert!(found || std::env::var_os("CI").is_none(), "{why_not}");
    if !found {
        eprintln!("skipped: {why_not}");
    }
    found
}
