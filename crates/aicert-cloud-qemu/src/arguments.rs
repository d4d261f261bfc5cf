//! What QEMU is told.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use aicert_core::runtime::JobId;
use aicert_core::spec::{Accelerator, QemuMachine};

use crate::config::Firmware;
use crate::error::Failure;
use crate::{SERVER_PORT, folder};

/// The command line of a machine. Its working folder is the machine's: sockets have short names there.
pub(crate) fn qemu(
    machine: &QemuMachine,
    firmware: &Firmware,
    job: &JobId,
) -> Result<Vec<OsString>, Failure> {
    let (accelerator, cpu) = match machine.accelerator {
        // QEMU 7.2 confuses the flags after CMPXCHG16B when an interrupt comes at once, and the kernel dies of it.
        Accelerator::Tcg => ("tcg,thread=multi", "max,-cx16"),
        Accelerator::Kvm => ("kvm", "host"),
        other => {
            return Err(Failure::Unsupported {
                what: format!("machines in QEMU cannot be run by {other:?}"),
                advice: "ask for `tcg` or `kvm`".into(),
            });
        }
    };
    let mut arguments = Arguments::default();
    arguments
        .flags(&["-nodefaults", "-no-user-config", "-no-reboot"])
        .option("-name", &format!("aicert-{job}"))
        .option("-display", "none")
        // Without what a machine in a rack has no use for.
        .option("-machine", "q35,smm=off,vmport=off,sata=off")
        .option("-accel", accelerator)
        .option("-cpu", cpu)
        .option("-smp", &machine.cpus.to_string())
        .option("-m", &format!("{}M", machine.memory >> 20));
    arguments
        .file(
            "-drive",
            "if=pflash,unit=0,format=raw,readonly=on",
            firmware.code.as_os_str(),
        )
        .file(
            "-drive",
            "if=pflash,unit=1,format=raw",
            OsStr::new(folder::VARIABLES),
        );
    arguments
        // Nobody can read the disk again once the machine is off, so nothing on it must outlive a crash of this one. Errors
        // are for the machine, which fails with them; QEMU would stop it when this disk is full, without a word.
        .file(
            "-drive",
            "if=none,id=disk,format=qcow2,cache=unsafe,werror=report,rerror=report,discard=unmap,detect-zeroes=unmap",
            OsStr::new(folder::DISK),
        )
        // Firmware boots from nothing else: without this, it would ask the network when it finds nothing on the disk.
        .option("-device", &device("virtio-blk-pci", "drive=disk,bootindex=0"))
        // QEMU is given a free port by the kernel, and says which: nobody can take it in between.
        .option(
            "-netdev",
            &format!("user,id=net,hostfwd=tcp:127.0.0.1:0-:{SERVER_PORT}"),
        )
        .option("-device", &device("virtio-net-pci", "netdev=net"))
        .option("-object", "rng-random,id=random,filename=/dev/urandom")
        .option("-device", &device("virtio-rng-pci", "rng=random"))
        .option("-chardev", &format!("socket,id=tpm,path={}", folder::TPM_CONTROL))
        .option("-tpmdev", "emulator,id=tpm,chardev=tpm")
        .option("-device", "tpm-crb,tpmdev=tpm")
        .option(
            "-chardev",
            &format!("file,id=console,path={},append=on", folder::CONSOLE),
        )
        .option("-serial", "chardev:console")
        .option("-qmp", &format!("unix:{},server=on,wait=off", folder::MONITOR))
        .option(
            "-fw_cfg",
            &format!("name={},file={}", crate::PROVISIONING, folder::PROVISIONING),
        );
    Ok(arguments.0)
}

/// A device without code of its own for the firmware: what it would run is measured, and verifiers know none of it.
fn device(kind: &str, properties: &str) -> String {
    format!("{kind},{properties},romfile=")
}

/// The command line of a software TPM, which ends when QEMU does.
pub(crate) fn swtpm() -> Vec<OsString> {
    let state = format!("dir={}", folder::TPM);
    let control = format!("type=unixio,path={}", folder::TPM_CONTROL);
    [
        "socket",
        "--tpm2",
        "--tpmstate",
        &state,
        "--ctrl",
        &control,
        "--terminate",
    ]
    .map(OsString::from)
    .into()
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn flags(&mut self, flags: &[&str]) -> &mut Self {
        self.0.extend(flags.iter().map(OsString::from));
        self
    }

    fn option(&mut self, name: &str, value: &str) -> &mut Self {
        self.flags(&[name, value])
    }

    /// In QEMU's options, a comma ends a value, and two are one of its own (qemu(1), "-drive").
    fn file(&mut self, name: &str, properties: &str, path: &OsStr) -> &mut Self {
        let mut value = format!("{properties},file=").into_bytes();
        for &byte in path.as_bytes() {
            value.push(byte);
            if byte == b',' {
                value.push(byte);
            }
        }
        self.0.extend([name.into(), OsString::from_vec(value)]);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn paths_cannot_add_options() {
        let machine = QemuMachine {
            image: "/image".into(),
            reference_values: None,
            accelerator: Accelerator::Tcg,
            cpus: 2,
            memory: 4 << 30,
            disk: 32 << 30,
            boot_limit: Duration::from_secs(90),
        };
        let firmware = Firmware {
            code: "/a,readonly=off/code.fd".into(),
            variables: "/vars".into(),
        };
        let arguments = qemu(&machine, &firmware, &"j".parse().unwrap()).unwrap();
        let arguments: Vec<_> = arguments
            .iter()
            .map(|argument| argument.to_str().unwrap())
            .collect();
        assert!(
            arguments.contains(&"if=pflash,unit=0,format=raw,readonly=on,file=/a,,readonly=off/code.fd"),
            "{arguments:?}"
        );
        for pair in [["-m", "4096M"], ["-smp", "2"], ["-accel", "tcg,thread=multi"]] {
            assert!(arguments.windows(2).any(|window| window == pair), "{pair:?}");
        }
        // Each device that could bring code for the firmware has none.
        let devices = arguments.windows(2).filter(|window| window[0] == "-device");
        for device in devices.filter(|window| window[1].contains("-pci,")) {
            assert!(device[1].ends_with(",romfile="), "{device:?}");
        }
    }
}
