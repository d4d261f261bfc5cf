//! Devices made by the kernel's device mapper: the one place with unsafe code, because ioctl(2) is its only interface.
//!
//! Structures and numbers: Linux 6.1, include/uapi/linux/dm-ioctl.h.

use std::ffi::c_void;
use std::fs::File;
use std::path::PathBuf;

use rustix::io;
use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode, opcode};
use zeroize::Zeroizing;

use crate::disk::DeviceNumber;
use crate::failure::{Failure, OrFail as _, Outcome};

const CONTROL: &str = "/dev/mapper/control";

const MEANING: &str = "the kernel's log, above, says more; a module may be missing in the image";

/// `struct dm_ioctl`: its size, and where its fields are.
const HEADER: usize = 312;
const DATA_SIZE: usize = 12;
const DATA_START: usize = 16;
const TARGET_COUNT: usize = 20;
const FLAGS: usize = 28;
const DEVICE: usize = 40;
const NAME: usize = 48;
const NAME_LIMIT: usize = 128;

/// `struct dm_target_spec`: its size, and where its fields are.
const TARGET: usize = 40;
const LENGTH: usize = 8;
const NEXT: usize = 20;
const TYPE: usize = 24;
const TYPE_LIMIT: usize = 16;

const DM_READONLY_FLAG: u32 = 1 << 0;
const DM_SUSPEND_FLAG: u32 = 1 << 1;
const DM_SKIP_LOCKFS_FLAG: u32 = 1 << 10;
const DM_NOFLUSH_FLAG: u32 = 1 << 11;
/// The kernel clears its copy of the buffer.
const DM_SECURE_DATA_FLAG: u32 = 1 << 15;

/// The version of the interface that is spoken here; the kernel takes every minor version up to its own.
const VERSION: [u32; 3] = [4, 0, 0];

#[derive(Debug, Clone, Copy)]
enum Command {
    CreateDevice = 3,
    /// Resumes, unless the flag says otherwise.
    Suspend = 6,
    LoadTable = 9,
}

/// What a device is to be made of: one target from its first to its last sector.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    /// The name of the device.
    pub(crate) name: &'a str,
    /// The kind of target.
    pub(crate) target: &'a str,
    /// The device's size in sectors of 512 bytes.
    pub(crate) sectors: u64,
    /// What the target is told.
    pub(crate) parameters: &'a str,
    /// Whether it can be written to.
    pub(crate) writable: bool,
}

/// A device of the device mapper.
#[derive(Debug)]
pub(crate) struct Device {
    /// Its number.
    pub(crate) number: DeviceNumber,
}

impl Device {
    /// Its node, which the kernel makes.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/dev/dm-{}", self.number.minor).into()
    }
}

/// Makes a device.
pub(crate) fn create(table: &Table<'_>) -> Outcome<Device> {
    let what = |step: &str| format!("cannot {step} the device {} ({})", table.name, table.target);
    let control = control()?;
    let flags = if table.writable { 0 } else { DM_READONLY_FLAG } | DM_SECURE_DATA_FLAG;
    let header = Request::new(table.name, flags).ok_or_else(|| Failure::new(what("name"), MEANING))?;
    let created = header
        .clone()
        .send(&control, Command::CreateDevice)
        .or_fail(|| what("create"), MEANING)?;
    let number = created
        .device()
        .ok_or_else(|| Failure::new(what("number"), MEANING))?;
    header
        .clone()
        .with_target(table)
        .ok_or_else(|| Failure::new(what("describe"), MEANING))?
        .send(&control, Command::LoadTable)
        .or_fail(|| what("load"), MEANING)?;
    header
        .send(&control, Command::Suspend)
        .or_fail(|| what("start"), MEANING)?;
    Ok(Device { number })
}

/// Stops a device: what is written to it or read from it from now on waits, and never ends.
pub(crate) fn freeze(name: &str) -> Outcome {
    let what = || format!("cannot stop the device {name}");
    Request::new(name, DM_SUSPEND_FLAG | DM_SKIP_LOCKFS_FLAG | DM_NOFLUSH_FLAG)
        .ok_or_else(|| Failure::new(what(), MEANING))?
        .send(&control()?, Command::Suspend)
        .or_fail(what, MEANING)
        .map(drop)
}

fn control() -> Outcome<File> {
    File::options()
        .read(true)
        .write(true)
        .open(CONTROL)
        .or_fail(|| format!("cannot open {CONTROL}"), MEANING)
}

/// `struct dm_ioctl` and what follows it. May hold a key, and clears itself.
#[derive(Clone)]
struct Request(Zeroizing<Vec<u8>>);

impl Request {
    fn new(name: &str, flags: u32) -> Option<Self> {
        let mut bytes = Zeroizing::new(vec![0; HEADER]);
        for (number, at) in VERSION.iter().zip([0, 4, 8]) {
            put(&mut bytes, at, &number.to_ne_bytes())?;
        }
        put(&mut bytes, DATA_START, &u32::try_from(HEADER).ok()?.to_ne_bytes())?;
        put(&mut bytes, FLAGS, &flags.to_ne_bytes())?;
        put_text(&mut bytes, NAME, NAME_LIMIT, name)?;
        Some(Self(bytes))
    }

    /// Adds the one target that there is.
    fn with_target(mut self, table: &Table<'_>) -> Option<Self> {
        let parameters = table.parameters.as_bytes();
        if parameters.contains(&0) {
            return None;
        }
        // The parameters end with a zero byte, and the next target would begin at a multiple of 8.
        let size = (TARGET + parameters.len() + 1).next_multiple_of(8);
        let mut bytes = Zeroizing::new(Vec::with_capacity(HEADER + size));
        bytes.extend_from_slice(&self.0);
        bytes.resize(HEADER + size, 0);
        put(&mut bytes, TARGET_COUNT, &1u32.to_ne_bytes())?;
        put(&mut bytes, HEADER + LENGTH, &table.sectors.to_ne_bytes())?;
        put(
            &mut bytes,
            HEADER + NEXT,
            &u32::try_from(size).ok()?.to_ne_bytes(),
        )?;
        put_text(&mut bytes, HEADER + TYPE, TYPE_LIMIT, table.target)?;
        put(&mut bytes, HEADER + TARGET, parameters)?;
        self.0 = bytes;
        Some(self)
    }

    #[allow(
        unsafe_code,
        reason = "the device mapper has no other interface than ioctl(2)"
    )]
    fn send(mut self, control: &File, command: Command) -> io::Result<Self> {
        let size = u32::try_from(self.0.len()).map_err(|_| io::Errno::TOOBIG)?;
        put(&mut self.0, DATA_SIZE, &size.to_ne_bytes()).ok_or(io::Errno::INVAL)?;
        let call = Call {
            request: &mut self.0,
            command,
        };
        // SAFETY: the buffer begins with a whole `struct dm_ioctl` whose `data_size`, set just above, is the buffer's
        // size: the kernel reads and writes no more than that (drivers/md/dm-ioctl.c, `copy_params`, `ctl_ioctl`).
        // Should the file be another one than the device mapper's, it does not know the number, and answers ENOTTY.
        unsafe { ioctl::ioctl(control, call) }?;
        Ok(self)
    }

    /// The device's number in an answer: `huge_encode_dev` (Linux, include/linux/kdev_t.h).
    fn device(&self) -> Option<DeviceNumber> {
        let bytes: [u8; 8] = self.0.get(DEVICE..DEVICE + 8)?.try_into().ok()?;
        let number = u64::from_ne_bytes(bytes);
        Some(DeviceNumber {
            major: u32::try_from((number >> 8) & 0xfff).ok()?,
            minor: u32::try_from((number & 0xff) | ((number >> 12) & 0xf_ff00)).ok()?,
        })
    }
}

/// One call.
struct Call<'a> {
    request: &'a mut [u8],
    command: Command,
}

// SAFETY: `as_ptr` points to the request's buffer, which is borrowed for the call and as large as it says (see
// `Request::send`); the kernel writes its answer there, and nothing is made of the pointer.
#[allow(
    unsafe_code,
    reason = "the device mapper has no other interface than ioctl(2)"
)]
unsafe impl Ioctl for Call<'_> {
    type Output = ();

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        const DM_IOCTL: u8 = 0xfd;
        opcode::from_components(ioctl::Direction::ReadWrite, DM_IOCTL, self.command as u8, HEADER)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.request.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> io::Result<()> {
        Ok(())
    }
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) -> Option<()> {
    bytes
        .get_mut(at..at.checked_add(what.len())?)?
        .copy_from_slice(what);
    Some(())
}

/// Text that must be shorter than its field, because a zero byte ends it.
fn put_text(bytes: &mut [u8], at: usize, limit: usize, text: &str) -> Option<()> {
    if text.len() >= limit || text.contains('\0') {
        return None;
    }
    put(bytes, at, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table<'a>(name: &'a str, parameters: &'a str) -> Table<'a> {
        Table {
            name,
            target: "linear",
            sectors: 0x1122,
            parameters,
            writable: true,
        }
    }

    #[test]
    fn lays_a_table_out_as_the_kernel_reads_it() {
        let request = Request::new("scratch", DM_SECURE_DATA_FLAG)
            .and_then(|request| request.with_target(&table("scratch", "254:0 2048")))
            .unwrap();
        let bytes = &request.0;
        // 312 + 40 + 11 bytes, up to a multiple of 8.
        assert_eq!(bytes.len(), 368);
        assert_eq!(bytes[..12], [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[16..24], [0x38, 1, 0, 0, 1, 0, 0, 0]);
        assert_eq!(bytes[48..56], *b"scratch\0");
        assert_eq!(bytes[320..328], [0x22, 0x11, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[332..343], *b"\x38\0\0\0linear\0");
        assert_eq!(bytes[352..363], *b"254:0 2048\0");
    }

    #[test]
    fn numbers_calls_as_the_kernel_does() {
        // DM_TABLE_LOAD is _IOWR(0xfd, 9, struct dm_ioctl).
        let call = Call {
            request: &mut [],
            command: Command::LoadTable,
        };
        assert_eq!(call.opcode(), 0xc138_fd09);
    }

    #[test]
    fn decodes_device_numbers() {
        let mut request = Request::new("x", 0).unwrap();
        put(&mut request.0, DEVICE, &0x0010_fe03_u64.to_ne_bytes()).unwrap();
        let number = request.device().unwrap();
        assert_eq!((number.major, number.minor), (254, 0x103));
    }

    proptest! {
        #[test]
        fn refuses_what_does_not_fit(name in ".{0,160}", parameters in ".{0,400}") {
            let request = Request::new(&name, 0);
            let fits = name.len() < NAME_LIMIT && !name.contains('\0');
            prop_assert_eq!(request.is_some(), fits);
            if let Some(request) = request {
                let request = request.with_target(&table(&name, &parameters));
                prop_assert_eq!(request.is_some(), !parameters.contains('\0'));
            }
        }
    }
}
