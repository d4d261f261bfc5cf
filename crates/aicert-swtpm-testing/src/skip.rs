//! What tests do on machines that lack a tool.

use std::io::Write as _;
use std::path::Path;

/// Says whether a test must be skipped because one of these programs is not installed.
///
/// # Panics
///
/// When the environment variable `CI` is set: there, nothing is skipped.
pub fn skip_without(programs: &[&str]) -> bool {
    let Some(missing) = programs.iter().find(|program| !installed(program)) else {
        return false;
    };
    assert!(
        std::env::var_os("CI").is_none(),
        "`{missing}` is not installed, and nothing is skipped where CI is set"
    );
    // A message that cannot be written changes nothing.
    let _ = writeln!(std::io::stderr(), "skipped: `{missing}` is not installed");
    true
}

fn installed(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| Path::new(&directory).join(program).is_file())
    })
}
