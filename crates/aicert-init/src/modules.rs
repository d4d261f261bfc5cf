//! Kernel modules, in the order of a list: one absolute path in each line. The list is in the image, and measured with it,
//! and so is each module.

use std::ffi::CStr;
use std::fs::{self, File};
use std::path::Path;
use std::time::Instant;

use rustix::io::Errno;
use rustix::system::finit_module;

use crate::console::say;
use crate::failure::{OrFail as _, Outcome};

const NO_PARAMETERS: &CStr = c"";

/// Loads the modules of a list.
pub(crate) fn load(list: &Path) -> Outcome {
    let started = Instant::now();
    let text = fs::read_to_string(list).or_fail(
        || format!("cannot read the list of kernel modules {}", list.display()),
        "the image is incomplete",
    )?;
    let mut loaded = 0;
    for path in paths(&text) {
        match load_one(path) {
            Ok(()) => loaded += 1,
            // There is no such device in this machine, or the module is there already.
            Err(Errno::NODEV | Errno::EXIST) => {}
            // What cannot be done without it says so when it is tried.
            Err(error) => say!("the kernel module {path} was not loaded: {error}"),
        }
    }
    say!(
        "loaded {loaded} kernel modules of {} in {} ms",
        list.display(),
        started.elapsed().as_millis()
    );
    Ok(())
}

fn load_one(path: &str) -> rustix::io::Result<()> {
    let file = File::open(path).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    finit_module(&file, NO_PARAMETERS, 0)
}

fn paths(list: &str) -> impl Iterator<Item = &str> {
    list.lines().map(str::trim).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_order() {
        let list = "/lib/b.ko\n\n/lib/a.ko  \n";
        assert_eq!(paths(list).collect::<Vec<_>>(), ["/lib/b.ko", "/lib/a.ko"]);
    }
}
