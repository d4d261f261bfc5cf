//! Kernel modules, in the order of a list: one absolute path in each line. The list is in the image, and measured with it,
//! and so is each module.

use std::fs;
use std::path::Path;
use std::time::Instant;

use rustix::io::Errno;
use rustix::system::init_module;

use crate::console::say;
use crate::failure::{OrFail as _, Outcome};

/// What stands before the names of the modules that a module needs, among its strings (Linux, kernel/module/main.c,
/// section `.modinfo`).
const DEPENDS: &[u8] = b"\0depends=";

/// Where the kernel shows the modules that it has.
const LOADED: &str = "/sys/module";

/// Loads the modules of a list.
pub(crate) fn load(list: &Path) -> Outcome {
    const IMAGE: &str = "the image is incomplete";
    let started = Instant::now();
    let text = fs::read_to_string(list).or_fail(
        || format!("cannot read the list of kernel modules {}", list.display()),
        IMAGE,
    )?;
    let mut loaded = 0;
    let mut left_out = Vec::new();
    for path in paths(&text) {
        let module = fs::read(path).or_fail(|| format!("cannot read the kernel module {path}"), IMAGE)?;
        // The kernel would complain about each symbol that is not there.
        let result = if needs(&module).all(|name| Path::new(LOADED).join(name).exists()) {
            init_module(&module, c"")
        } else {
            Err(Errno::NODEV)
        };
        match result {
            Ok(()) => loaded += 1,
            Err(Errno::EXIST) => {}
            Err(Errno::NODEV) => left_out.push(name(path)),
            // What cannot be done without it says so when it is tried.
            Err(error) => say!("the kernel module {path} was not loaded: {error}"),
        }
    }
    let time = started.elapsed().as_millis();
    say!(
        "loaded {loaded} kernel modules of {} in {time} ms",
        list.display()
    );
    if !left_out.is_empty() {
        say!("this machine has not what these are for: {}", left_out.join(" "));
    }
    Ok(())
}

/// The names of the modules that a module needs.
fn needs(module: &[u8]) -> impl Iterator<Item = String> {
    let text = module
        .windows(DEPENDS.len())
        .position(|window| window == DEPENDS)
        .and_then(|at| module.get(at + DEPENDS.len()..))
        .and_then(|rest| rest.split(|byte| *byte == 0).next())
        .unwrap_or_default();
    text.split(|byte| *byte == b',')
        .map(|name| String::from_utf8_lossy(name).replace('-', "_"))
        .filter(|name| !name.is_empty())
}

/// A module's name, as the kernel spells it.
fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or_default();
    file.trim_end_matches(".ko").replace('-', "_")
}

fn paths(list: &str) -> impl Iterator<Item = &str> {
    list.lines().map(str::trim).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_what_a_module_needs() {
        let module = b"\x7fELF\0license=GPL\0depends=hv_vmbus,crypto-simd\0retpoline=Y\0";
        assert_eq!(needs(module).collect::<Vec<_>>(), ["hv_vmbus", "crypto_simd"]);
        assert_eq!(needs(b"\0depends=\0name=x\0").count(), 0);
        assert_eq!(
            name("/usr/lib/modules/6.1/kernel/drivers/hv/pci-hyperv.ko"),
            "pci_hyperv"
        );
    }

    proptest! {
        #[test]
        fn never_panics(before in proptest::collection::vec(any::<u8>(), 0..50), after in proptest::collection::vec(any::<u8>(), 0..50)) {
            let module = [before.as_slice(), DEPENDS, after.as_slice()].concat();
            prop_assert!(needs(&module).all(|name| !name.is_empty()));
        }
    }

    #[test]
    fn keeps_the_order() {
        let list = "/lib/b.ko\n\n/lib/a.ko  \n";
        assert_eq!(paths(list).collect::<Vec<_>>(), ["/lib/b.ko", "/lib/a.ko"]);
    }
}
