//! Commands that the TSS has no function for, as bytes on the way to the TPM: the vendor command of NitroTPM, and
//! `TPM2_ReadClock`.
//!
//! The TSS goes on holding its own connection. The kernel's resource manager, and whoever stands in front of a software TPM, let
//! both in; a bare software TPM serves one client, and does not answer here in time.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::Tcti;
use crate::error::Failure;
use crate::worker::{Patience, Repeat};

/// The largest response of a TPM that Linux passes on (`TPM_BUFSIZE`, drivers/char/tpm/tpm.h).
const RESPONSE_LIMIT: usize = 4096;
/// Tag, size and response code (TPM 2.0 Library, part 1, section 18).
const HEADER: usize = 10;
/// `TPM_ST_NO_SESSIONS` and `TPM_ST_SESSIONS` (part 2, section 6.9).
pub(crate) const NO_SESSIONS: u16 = 0x8001;
pub(crate) const SESSIONS: u16 = 0x8002;

/// `TPM_RC_COMMAND_CODE` (part 2, section 6.6.3), as the resource manager of the kernel answers it by itself
/// (`TSS2_RESMGR_TPM_RC_LAYER`, drivers/char/tpm/tpm-interface.c).
const REFUSED_BY_MANAGER: u32 = 0x000b_0143;
/// Stands for an error that no TPM answered: `TSS2_TCTI_RC_IO_ERROR`.
const CONNECTION_BROKE: u32 = 0x000a_000a;

/// A way to the TPM.
#[derive(Debug, Clone)]
pub(crate) enum Wire {
    /// A device of the kernel.
    Device {
        /// The one that the TSS uses.
        path: PathBuf,
        /// The device behind a resource manager, for what the manager does not pass on.
        behind: Option<PathBuf>,
    },
    /// A software TPM, or who stands in front of it.
    Tcp {
        /// Host and port of commands.
        host: String,
        /// The port.
        port: u16,
    },
}

impl Wire {
    pub(crate) fn new(tcti: &Tcti) -> Self {
        match tcti {
            Tcti::Device { path } => Self::Device {
                path: path.clone(),
                behind: behind(path),
            },
            Tcti::Swtpm { host, port } => Self::Tcp {
                host: host.clone(),
                port: *port,
            },
        }
    }

    /// Gives a command until the TPM no longer asks to try again, and returns what follows the header of its response.
    pub(crate) fn command(
        &self,
        operation: &'static str,
        tag: u16,
        code: u32,
        body: &[u8],
        patience: Patience,
    ) -> Result<Vec<u8>, Failure> {
        let mut command = tag.to_be_bytes().to_vec();
        // A command of ours has some dozens of bytes.
        command.extend(((HEADER + body.len()) as u32).to_be_bytes());
        command.extend(code.to_be_bytes());
        command.extend(body);
        let mut broken = None;
        let answered = patience.insist(operation, Repeat::Never, || {
            let response = match self.transmit(&command, patience.left()) {
                Ok(response) => response,
                Err(error) => {
                    broken = Some(error);
                    return Err(tss_esapi::Error::Tss2Error(CONNECTION_BROKE.into()));
                }
            };
            match response.code {
                0 => Ok(response.body),
                code => Err(tss_esapi::Error::Tss2Error(code.into())),
            }
        });
        match broken {
            Some(Broken::Io(source)) => Err(Failure::Wire {
                operation,
                way: self.to_string(),
                source,
            }),
            Some(Broken::Malformed(what)) => Err(Failure::nonsense(operation, what)),
            None => answered,
        }
    }

    /// What the resource manager refuses goes to the device behind it. Before Linux 6.3, it does not know vendors' commands: it
    /// compared codes from which it had taken the bit that marks them. The device serves one process at a time, and the commands
    /// in question need nothing that the manager keeps for us: no session, no loaded object.
    fn transmit(&self, command: &[u8], limit: Duration) -> Result<Response, Broken> {
        match self {
            Self::Device { path, behind } => {
                let response = Response::read(&through_device(path, command)?)?;
                match behind {
                    Some(behind) if response.code == REFUSED_BY_MANAGER => {
                        Response::read(&through_device(behind, command)?)
                    }
                    _ => Ok(response),
                }
            }
            Self::Tcp { host, port } => Response::read(&through_tcp(host, *port, command, limit)?),
        }
    }
}

impl std::fmt::Display for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Device { path, behind } => {
                write!(f, "{}", path.display())?;
                match behind {
                    Some(behind) => write!(f, " or {}", behind.display()),
                    None => Ok(()),
                }
            }
            Self::Tcp { host, port } => write!(f, "swtpm at {host}:{port}"),
        }
    }
}

/// `/dev/tpm0` of `/dev/tpmrm0`.
fn behind(manager: &Path) -> Option<PathBuf> {
    let number = manager.file_name()?.to_str()?.strip_prefix("tpmrm")?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| manager.with_file_name(format!("tpm{number}")))
}

/// A response whose header says what there is.
struct Response {
    code: u32,
    body: Vec<u8>,
}

/// What is wrong on the way to the TPM.
enum Broken {
    Io(io::Error),
    Malformed(String),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Response {
    fn read(bytes: &[u8]) -> Result<Self, Broken> {
        let malformed = |what: String| Err(Broken::Malformed(what));
        let Some((header, body)) = bytes.split_first_chunk::<HEADER>() else {
            return malformed(format!("a response of {} bytes", bytes.len()));
        };
        let [t0, t1, s0, s1, s2, s3, c0, c1, c2, c3] = *header;
        let (tag, size) = (u16::from_be_bytes([t0, t1]), u32::from_be_bytes([s0, s1, s2, s3]));
        if ![NO_SESSIONS, SESSIONS].contains(&tag) {
            return malformed(format!("a response with the tag {tag:#06x}"));
        }
        if size as usize != bytes.len() {
            return malformed(format!(
                "a response of {} bytes that says to have {size}",
                bytes.len()
            ));
        }
        Ok(Self {
            code: u32::from_be_bytes([c0, c1, c2, c3]),
            body: body.to_vec(),
        })
    }
}

/// The kernel takes a command in one write, and gives its response in one read.
fn through_device(path: &Path, command: &[u8]) -> io::Result<Vec<u8>> {
    let mut device: File = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| named(path, error))?;
    let written = device.write(command)?;
    if written != command.len() {
        return Err(io::Error::new(
            ErrorKind::WriteZero,
            format!("{} took {written} of {} bytes", path.display(), command.len()),
        ));
    }
    let mut response = vec![0; RESPONSE_LIMIT];
    let length = device.read(&mut response)?;
    response.truncate(length);
    Ok(response)
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("{} cannot be opened: {error}", path.display()),
    )
}

/// No more is read than the header says, and no more than a response can have.
fn through_tcp(host: &str, port: u16, command: &[u8], limit: Duration) -> Result<Vec<u8>, Broken> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        let mut stream = match TcpStream::connect_timeout(&address, limit) {
            Ok(stream) => stream,
            Err(error) => {
                last = error;
                continue;
            }
        };
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        stream.write_all(command)?;
        let mut response = vec![0; HEADER];
        stream.read_exact(&mut response)?;
        let [_, _, s0, s1, s2, s3, ..] = response[..] else {
            return Err(last.into());
        };
        let size = u32::from_be_bytes([s0, s1, s2, s3]) as usize;
        if !(HEADER..=RESPONSE_LIMIT).contains(&size) {
            return Err(Broken::Malformed(format!(
                "a response that says to have {size} bytes, more than {RESPONSE_LIMIT} or less than its header"
            )));
        }
        response.resize(size, 0);
        stream.read_exact(&mut response[HEADER..])?;
        return Ok(response);
    }
    Err(last.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_behind_a_resource_manager_is_found() {
        for (manager, device) in [
            ("/dev/tpmrm0", Some("/dev/tpm0")),
            ("/dev/tpmrm12", Some("/dev/tpm12")),
            ("/dev/tpm0", None),
            ("/dev/tpmrm", None),
            ("/dev/tpmrmx", None),
            ("/tmp/pty", None),
        ] {
            assert_eq!(behind(Path::new(manager)), device.map(PathBuf::from), "{manager}");
        }
    }

    #[test]
    fn a_response_is_as_long_as_it_says() {
        let honest = [0x80, 0x02, 0, 0, 0, 12, 0, 0, 0x01, 0x43, 7, 8];
        let read = Response::read(&honest).ok().unwrap();
        assert_eq!((read.code, &read.body[..]), (0x143, &[7, 8][..]));
        assert!(Response::read(&honest[..11]).is_err());
        assert!(Response::read(&honest[..9]).is_err());
        assert!(Response::read(&[&honest[..], &[0]].concat()).is_err());
        let mut other = honest;
        other[1] = 3;
        assert!(Response::read(&other).is_err());
    }
}
