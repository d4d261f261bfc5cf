//! TPM commands as bytes, for what is done behind the TSS's back.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use aicert_core::tpm::PcrBank;

use crate::error::Failure;

const PATIENCE: Duration = Duration::from_secs(30);

/// The largest command or response that is believed (swtpm's own limit is 4,096).
const SIZE_LIMIT: usize = 1 << 16;

/// `TPM2_Shutdown` (TPM 2.0 Library, part 3, section 9.4), of the kinds that matter at the next power-on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shutdown {
    /// The next start is a reset.
    Clear,
    /// The next start, with `TPM_SU_CLEAR`, is a restart.
    State,
}

impl Shutdown {
    pub(crate) fn command(self) -> Vec<u8> {
        let kind: u16 = match self {
            Self::Clear => 0,
            Self::State => 1,
        };
        command(0x8001, 0x0000_0145, &kind.to_be_bytes())
    }
}

/// `TPM2_PCR_Allocate` (part 3, section 22.5) with the platform's empty password: all PCRs of `banks`, none of others.
pub(crate) fn pcr_allocate(banks: &[PcrBank]) -> Vec<u8> {
    const PLATFORM: u32 = 0x4000_000c;
    const PASSWORD_SESSION: u32 = 0x4000_0009;
    let mut body = PLATFORM.to_be_bytes().to_vec();
    body.extend(9u32.to_be_bytes()); // size of the authorization area
    body.extend(PASSWORD_SESSION.to_be_bytes());
    body.extend([0; 5]); // no nonce, no attributes, empty password
    body.extend(4u32.to_be_bytes());
    for bank in PcrBank::ALL {
        let selected = if banks.contains(&bank) { 0xff } else { 0 };
        body.extend(bank.algorithm_id().to_be_bytes());
        body.extend([3, selected, selected, selected]);
    }
    command(0x8002, 0x0000_012b, &body)
}

fn command(tag: u16, code: u32, body: &[u8]) -> Vec<u8> {
    // A command of this module has some ten bytes.
    let size = 10 + body.len() as u32;
    [
        &tag.to_be_bytes()[..],
        &size.to_be_bytes(),
        &code.to_be_bytes(),
        body,
    ]
    .concat()
}

/// Sends one command and reads the response.
pub(crate) fn converse(port: u16, command: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    stream.write_all(command)?;
    read_message(&mut stream)
}

/// Reads one command or response: both carry their size in bytes 2 to 5 (part 1, section 18).
pub(crate) fn read_message(stream: &mut impl io::Read) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 6];
    stream.read_exact(&mut message)?;
    let size = u32::from_be_bytes([message[2], message[3], message[4], message[5]]) as usize;
    if !(10..=SIZE_LIMIT).contains(&size) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a TPM message of {size} bytes"),
        ));
    }
    message.resize(size, 0);
    stream.read_exact(&mut message[6..])?;
    Ok(message)
}

/// Sends one command that must succeed.
pub(crate) fn must(port: u16, operation: &'static str, command: &[u8]) -> Result<(), Failure> {
    let response = converse(port, command).map_err(|source| Failure::Conversation { source })?;
    // `read_message` returns at least ten bytes.
    match u32::from_be_bytes([response[6], response[7], response[8], response[9]]) {
        0 => Ok(()),
        code => Err(Failure::Refused { operation, code }),
    }
}
