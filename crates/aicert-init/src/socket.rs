//! The container engine's socket, which is there before the engine is: whoever connects early waits for it, and nobody has to
//! ask again and again.
//!
//! The engine takes the socket over as sd_listen_fds(3) describes: as file descriptor 3, with its own process id in
//! `LISTEN_PID`. A process learns its id only once it runs, so there is a launcher between: this program by another name.

use std::env::ArgsOs;
use std::fs::{self, Permissions};
use std::io::stdin;
use std::os::fd::{AsRawFd as _, IntoRawFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

use crate::console::{self, Level};
use crate::failure::{OrFail as _, Outcome};

/// The name that the launcher is started by.
pub(crate) const LAUNCHER: &str = "aicert-launcher";

/// The first file descriptor that is handed over.
const FIRST: i32 = 3;

/// Makes a socket that `user` alone may connect to.
pub(crate) fn bind(path: &Path, user: u32) -> Outcome<UnixListener> {
    let what = || format!("cannot make the socket {}", path.display());
    let meaning = "the image is incomplete";
    let listener = UnixListener::bind(path).or_fail(what, meaning)?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).or_fail(what, meaning)?;
    chown(path, Some(user), Some(user)).or_fail(what, meaning)?;
    Ok(listener)
}

/// A command that starts `program` with the socket.
pub(crate) fn command(program: &str, listener: UnixListener) -> Command {
    let mut command = Command::new(crate::IN_ROOT);
    command
        .arg0(LAUNCHER)
        .arg(program)
        .stdin(Stdio::from(OwnedFd::from(listener)));
    command
}

/// What the launcher does: becomes the program in its first argument, with the socket that is its standard input.
pub(crate) fn launch(mut arguments: ArgsOs) -> ExitCode {
    let Some(program) = arguments.next() else {
        return ExitCode::FAILURE;
    };
    let error = match take_over() {
        Ok(()) => Command::new(&program)
            .args(arguments)
            .stdin(Stdio::null())
            .env("LISTEN_FDS", "1")
            .env("LISTEN_PID", std::process::id().to_string())
            .exec()
            .to_string(),
        Err(why) => why,
    };
    console::line(
        Level::Error,
        &format!("error: cannot start {}: {error}", program.display()),
    );
    ExitCode::FAILURE
}

/// Makes standard input file descriptor 3 as well, which outlives the start of another program.
fn take_over() -> Result<(), String> {
    let socket = fcntl_dupfd_cloexec(stdin(), FIRST).map_err(|error| error.to_string())?;
    if socket.as_raw_fd() != FIRST {
        return Err(format!("file descriptor {FIRST} is taken"));
    }
    fcntl_setfd(&socket, FdFlags::empty()).map_err(|error| error.to_string())?;
    let _ = socket.into_raw_fd();
    Ok(())
}
