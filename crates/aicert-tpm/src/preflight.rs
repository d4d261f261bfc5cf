//! Looks whether a TPM is there and free before the TSS is let at it, whose errors do not say.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::time::Duration;

use aicert_core::tpm::{TpmError, TpmErrorKind};

use crate::config::Tcti;
use crate::holder::{self, Process};

/// How long a software TPM may take to answer the first, trivial command; at most half of what the caller waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// `TPM2_GetCapability(TPM_CAP_TPM_PROPERTIES, TPM_PT_FAMILY_INDICATOR, 1)` (TPM 2.0 Library, part 3, section 30.2).
const GET_FAMILY: [u8; 22] = [
    0x80, 0x01, 0, 0, 0, 22, 0, 0, 0x01, 0x7a, 0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 0, 1,
];

/// Checks that the TPM can be used by us now.
pub(crate) fn check(tcti: &Tcti, deadline: Duration) -> Result<(), TpmError> {
    match tcti {
        Tcti::Device { path } => check_device(path),
        Tcti::Swtpm { host, port } => check_swtpm(host, *port, PATIENCE.min(deadline / 2)),
    }
}

/// The processes, other than this one, that use the TPM now.
pub(crate) fn other_users(tcti: &Tcti) -> Vec<Process> {
    let mut users = match tcti {
        Tcti::Device { path } => holder::of_file(path),
        Tcti::Swtpm { host, port } => (host.as_str(), *port)
            .to_socket_addrs()
            .map(|mut addresses| addresses.find_map(|address| some(holder::of_connection(address))))
            .ok()
            .flatten()
            .unwrap_or_default(),
    };
    users.retain(|user| user.pid != std::process::id());
    users
}

fn some(processes: Vec<Process>) -> Option<Vec<Process>> {
    (!processes.is_empty()).then_some(processes)
}

fn check_device(path: &Path) -> Result<(), TpmError> {
    let metadata = std::fs::metadata(path).map_err(|error| device_error(path, error))?;
    if !metadata.file_type().is_char_device() {
        return Err(TpmError::new(
            TpmErrorKind::Absent,
            format!("{} is not a TPM: expected a character device", path.display()),
        ));
    }
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(device_error(path, error)),
    }
}

fn device_error(device: &Path, error: io::Error) -> TpmError {
    let path = device.display();
    match error.kind() {
        ErrorKind::PermissionDenied => TpmError::new(
            TpmErrorKind::PermissionDenied,
            format!("this user may not open the TPM {path}"),
        )
        .with_advice(
            "run as root, or add this user to the group that owns the device (often `tss`) and log in again",
        ),
        ErrorKind::ResourceBusy => {
            let users = holder::of_file(device);
            let who = match users.as_slice() {
                [] => "a process that this user may not see".to_owned(),
                users => holder::name_all(users),
            };
            TpmError::new(
                TpmErrorKind::InUse,
                format!("the TPM {path} is in use by {who}, and it serves one process at a time"),
            )
            .with_advice("stop that process, or use /dev/tpmrm0, which can be shared")
            .retryable()
        }
        _ => TpmError::new(TpmErrorKind::Absent, format!("there is no usable TPM at {path}")).with_advice(
            "enable the TPM (or vTPM) of this machine and look for /dev/tpmrm0; for a trial without a TPM, \
             ask for a simulated one",
        ),
    }
    .with_source(error)
}

fn check_swtpm(host: &str, port: u16, patience: Duration) -> Result<(), TpmError> {
    let at = format!("{host}:{port}");
    let server = connect(host, port, patience)?;
    match converse(server, patience) {
        Ok(answer) => check_answer(&at, &answer)?,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            return Err(silent(&at, server, patience).with_source(error));
        }
        Err(error) => return Err(not_a_tpm(&at).with_source(error)),
    }
    // `Tcti::name_conf` has refused a port that has no next one.
    connect(host, port.saturating_add(1), patience)
        .map(drop)
        .map_err(|error| {
            TpmError::new(
                TpmErrorKind::Absent,
                format!("the software TPM at {at} has no control channel on the next higher port"),
            )
            .with_advice(format!(
                "start swtpm with `--ctrl type=tcp,port={}`",
                port.saturating_add(1)
            ))
            .with_source(error)
        })
}

/// Finds the first address of `host` that accepts a connection.
fn connect(host: &str, port: u16, patience: Duration) -> Result<SocketAddr, TpmError> {
    let absent = |error: io::Error| {
        TpmError::new(
            TpmErrorKind::Absent,
            format!("there is no software TPM at {host}:{port}"),
        )
        .with_advice(
            "check that swtpm runs, and its port; it may have ended with the program that started it",
        )
        .with_source(error)
    };
    let mut last = io::Error::new(ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs().map_err(absent)? {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(_) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(absent(last))
}

fn converse(server: SocketAddr, patience: Duration) -> io::Result<[u8; 10]> {
    let mut stream = TcpStream::connect_timeout(&server, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(&GET_FAMILY)?;
    let mut header = [0; 10];
    stream.read_exact(&mut header)?;
    Ok(header)
}

/// Judges a response header: tag, size and response code (TPM 2.0 Library, part 1, section 18).
fn check_answer(at: &str, header: &[u8; 10]) -> Result<(), TpmError> {
    const RC_INITIALIZE: [u8; 4] = [0, 0, 0x01, 0x00];
    const RC_BAD_TAG: [u8; 4] = [0, 0, 0, 0x1e];
    match (&header[..2], &header[6..]) {
        ([0x80, 0x01], code) if code == RC_INITIALIZE => Err(TpmError::new(
            TpmErrorKind::Failed,
            format!("the software TPM at {at} has not been started up"),
        )
        .with_advice("start swtpm with `--flags not-need-init,startup-clear`")),
        ([0x80, 0x01], _) => Ok(()),
        // TPM 1.2 answers in its own form (`TPM_TAG_RSP_COMMAND`, or the error for a tag that it does not know).
        ([0x00, 0xc4], code) if code == RC_BAD_TAG || code[3] != 0 => Err(TpmError::new(
            TpmErrorKind::Unsupported,
            format!("the software TPM at {at} is a TPM 1.2: expected TPM 2.0"),
        )
        .with_advice("start swtpm with `--tpm2`")),
        _ => Err(not_a_tpm(at)),
    }
}

fn not_a_tpm(at: &str) -> TpmError {
    TpmError::new(
        TpmErrorKind::Absent,
        format!("what listens at {at} does not answer like a TPM 2.0"),
    )
    .with_advice("check the port")
}

fn silent(at: &str, server: SocketAddr, patience: Duration) -> TpmError {
    let seconds = patience.as_secs_f64();
    match holder::of_connection(server).as_slice() {
        [] => TpmError::new(
            TpmErrorKind::Busy,
            format!("the software TPM at {at} did not answer within {seconds} s"),
        )
        .with_advice("it serves one client at a time: look for another client, or start it again")
        .retryable(),
        clients => TpmError::new(
            TpmErrorKind::InUse,
            format!(
                "the software TPM at {at} is in use by {}, and it serves one client at a time",
                holder::name_all(clients)
            ),
        )
        .with_advice("stop that process, or start another software TPM")
        .retryable(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_cannot_be_opened_is_explained() {
        let path = Path::new("/dev/tpm-of-nobody");
        let error = check_device(path).unwrap_err();
        assert_eq!(error.kind(), TpmErrorKind::Absent);
        assert!(error.message().contains("/dev/tpm-of-nobody"), "{error}");

        let error = device_error(path, io::Error::from_raw_os_error(13));
        assert_eq!(error.kind(), TpmErrorKind::PermissionDenied);
        assert!(error.advice().unwrap().contains("tss"), "{error:?}");

        let error = check_device(Path::new("/etc/hostname")).unwrap_err();
        assert_eq!(error.kind(), TpmErrorKind::Absent);
    }

    #[test]
    fn the_process_that_holds_a_device_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = device_error(file.path(), io::Error::from_raw_os_error(16));
        assert_eq!(error.kind(), TpmErrorKind::InUse);
        let own = format!("(pid {})", std::process::id());
        assert!(error.message().contains(&own), "{error}");
    }
}
