#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::indexing_slicing, reason = "a test may panic"))]

mod cmdline;
mod console;
mod device_mapper;
mod dhcp;
mod disk;
mod engine;
mod failure;
mod forward;
mod gpt;
mod http;
mod initrd;
mod lifetime;
mod metadata;
mod modules;
mod netlink;
mod network;
mod platform;
mod power;
mod provisioning;
mod root;
mod scratch;
mod services;
mod socket;
mod system;
mod verity;

use std::env;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::failure::Outcome;

/// The name that the kernel starts the initrd's first program by.
const IN_INITRD: &str = "/init";

/// The name that the initrd starts the root file system's first program by.
const IN_ROOT: &str = "/usr/lib/aicert/init";

fn main() -> ExitCode {
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    let stage: fn() -> Outcome = match name.to_str() {
        Some(IN_INITRD) if is_first() => initrd::run,
        Some(IN_ROOT) if is_first() => root::run,
        Some(socket::LAUNCHER) => return socket::launch(arguments),
        _ => {
            let _ = io::stderr().write_all(
                b"aicert-init is the first process of aicert's base image; it does nothing elsewhere\n",
            );
            return ExitCode::FAILURE;
        }
    };
    power::install_panic_hook();
    match stage() {
        Ok(()) => power::off(),
        Err(failure) => power::fail(&failure),
    }
}

fn is_first() -> bool {
    std::process::id() == 1
}
