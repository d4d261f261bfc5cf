//! The only program of the machines that tests boot: it is `/init` of their initrd.
//!
//! It says on the second serial line what firmware measured, and then hands TPM commands from there to the TPM, and the
//! answers back. What it sends first is `HELLO`, the length of the event log (32 bits, big-endian), and the log.

#![allow(clippy::print_stdout)] // the console is where people look when a machine does not come up

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

use aicert_tests::machine::HELLO;
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

const LINE: &str = "/dev/ttyS1";
const TPM: &str = "/dev/tpm0";
const EVENT_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";

/// The header of a TPM command; its size is in bytes 2 to 5 (TPM 2.0 Library, part 1, section 18).
const HEADER: usize = 10;

fn main() {
    if std::process::id() != 1 {
        println!("this is the init of a test machine, and does nothing elsewhere");
        return;
    }
    if let Err(error) = serve() {
        println!("guest: {error}");
    }
    // Without init there is no machine: ending in any other way would be a kernel panic.
    let _ = reboot(RebootCommand::PowerOff);
}

fn serve() -> Result<(), Box<dyn Error>> {
    for (kind, place) in [
        ("devtmpfs", "/dev"),
        ("sysfs", "/sys"),
        ("securityfs", "/sys/kernel/security"),
    ] {
        mount(kind, place, kind, MountFlags::empty(), None)
            .map_err(|error| format!("mounting {kind}: {error}"))?;
    }
    let log = fs::read(EVENT_LOG).map_err(|error| format!("{EVENT_LOG}: {error}"))?;
    let mut tpm = open(TPM)?;
    let mut line = open(LINE)?;
    let mut settings = tcgetattr(&line)?;
    settings.make_raw();
    tcsetattr(&line, OptionalActions::Now, &settings)?;
    println!("guest: {} bytes of event log", log.len());

    line.write_all(&HELLO)?;
    line.write_all(&u32::try_from(log.len())?.to_be_bytes())?;
    line.write_all(&log)?;
    let mut answer = vec![0; 1 << 16];
    loop {
        let command = read_command(&mut line)?;
        tpm.write_all(&command)?;
        // The driver gives a whole answer, or as much of it as there is room for.
        let size = tpm.read(&mut answer)?;
        line.write_all(answer.get(..size).unwrap_or_default())?;
    }
}

/// Opens a device, which a driver may still be about to make.
fn open(path: &str) -> Result<File, String> {
    for _ in 0..100 {
        if Path::new(path).exists() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| format!("{path}: {error}"))
}

fn read_command(line: &mut File) -> io::Result<Vec<u8>> {
    let mut command = vec![0; HEADER];
    line.read_exact(&mut command)?;
    let size = u32::from_be_bytes([command[2], command[3], command[4], command[5]]) as usize;
    if !(HEADER..=1 << 16).contains(&size) {
        return Err(io::Error::other(format!("a TPM command of {size} bytes")));
    }
    command.resize(size, 0);
    line.read_exact(&mut command[HEADER..])?;
    Ok(command)
}
