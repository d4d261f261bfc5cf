//! The command `aicert`.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if let (Some((name, value)), Ok(program)) = (
        aicert_cli::needed_environment(&arguments),
        std::env::current_exe(),
    ) {
        let mut command = Command::new(program);
        if let Some(first) = arguments.first() {
            command.arg0(first);
        }
        // Does not return if it succeeds; if it does not, all there is to lose is a quiet terminal.
        let _ = command.args(arguments.iter().skip(1)).env(name, value).exec();
    }
    // Libraries that leave the choice to the program, and end it where there is none: all TLS here is of one kind.
    let _ = rustls::crypto::ring::default_provider().install_default();
    aicert_cli::run(arguments)
}
