//! Turning the machine off: how everything ends here.

use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use rustix::system::{RebootCommand, reboot};

use crate::console::{self, Level, say};
use crate::failure::Failure;
use crate::scratch;

/// How long processes may take to end, and the last lines on their way out of the machine.
const FAREWELL: Duration = Duration::from_secs(1);

/// Says what failed, and turns the machine off.
pub(crate) fn fail(failure: &Failure) -> ! {
    console::line(Level::Error, &format!("error: {failure}"));
    off()
}

/// Turns the machine off. Nothing is written to disk for that: whatever is on one cannot be read again.
pub(crate) fn off() -> ! {
    say!("powering off");
    // Every process but this one: nobody shall find the disks gone, and fill the console with complaints.
    let _ = kill_process_group(Pid::INIT, Signal::KILL);
    thread::sleep(FAREWELL);
    scratch::freeze();
    let error = match reboot(RebootCommand::PowerOff) {
        Ok(()) => "it returned".to_owned(),
        Err(error) => error.to_string(),
    };
    console::line(Level::Error, &format!("error: cannot power off: {error}"));
    // The kernel panics when its first process ends, and the command line makes it restart the machine then.
    std::process::exit(1)
}

/// Makes a panic end like every other failure.
pub(crate) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        fail(&Failure::new(panic.to_string(), "a fault in aicert-init itself"));
    }));
}
