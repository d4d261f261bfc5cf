//! NV indices that are larger than those of swtpm: what is in them is kept here, and everything else about them is the TPM's.

use std::collections::BTreeMap;
use std::io;

use sha2::{Digest as _, Sha256};

use crate::raw;

/// What a NitroTPM holds in one index, at least; and what swtpm does (libtpms, `MAX_NV_INDEX_SIZE`).
pub(super) const ROOM: usize = 8192;
const SWTPM_ROOM: u16 = 2048;
/// `TPM_RC_NV_RANGE` (TPM 2.0 Library, part 2, section 6.6.3).
const NV_RANGE: u32 = 0x146;

/// Command codes (part 2, section 6.5.2).
pub(super) mod code {
    pub(crate) const UNDEFINE: u32 = 0x122;
    pub(crate) const DEFINE: u32 = 0x12a;
    pub(crate) const WRITE: u32 = 0x137;
    pub(crate) const READ: u32 = 0x14e;
    pub(crate) const READ_PUBLIC: u32 = 0x169;
}

/// The large indices that are defined, with what is in them.
#[derive(Debug, Default)]
pub(super) struct Room {
    contents: BTreeMap<u32, Vec<u8>>,
}

/// A command with handles and an authorization area, taken apart.
pub(super) struct Authorized<'a> {
    /// Up to the end of the authorization area.
    pub(super) head: &'a [u8],
    pub(super) parameters: &'a [u8],
}

impl<'a> Authorized<'a> {
    pub(super) fn new(command: &'a [u8], handles: usize) -> Option<Self> {
        let area = 10 + 4 * handles;
        let size = number(command, area)? as usize;
        let (head, parameters) = command.split_at_checked(area + 4 + size)?;
        Some(Self { head, parameters })
    }

    /// The same command with another code and other parameters.
    pub(super) fn with(&self, code: u32, parameters: &[u8]) -> Vec<u8> {
        let mut command = [self.head, parameters].concat();
        let size = command.len() as u32;
        command[2..6].copy_from_slice(&size.to_be_bytes());
        command[6..10].copy_from_slice(&code.to_be_bytes());
        command
    }
}

pub(super) fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*bytes))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*bytes))
}

pub(super) fn succeeded(response: &[u8]) -> bool {
    number(response, 6) == Some(0)
}

pub(super) fn refusal(code: u32) -> Vec<u8> {
    [&[0x80, 0x01, 0, 0, 0, 10][..], &code.to_be_bytes()].concat()
}

/// A response with an authorization area, from one that the TPM gave to the same authorization: with other parameters.
pub(super) fn response_with(given: &[u8], parameters: &[u8]) -> Option<Vec<u8>> {
    let size = number(given, 10)? as usize;
    let area = given.get(14 + size..)?;
    let total = (14 + parameters.len() + area.len()) as u32;
    Some(
        [
            &[0x80, 0x02][..],
            &total.to_be_bytes(),
            &[0; 4],
            &(parameters.len() as u32).to_be_bytes(),
            parameters,
            area,
        ]
        .concat(),
    )
}

impl Room {
    pub(super) fn get(&mut self, index: u32) -> Option<&mut Vec<u8>> {
        self.contents.get_mut(&index)
    }

    /// The response to a command that is about an index of this kind; nothing if it is not, or is no such command.
    pub(super) fn answer(&mut self, port: u16, command: &[u8]) -> Option<io::Result<Vec<u8>>> {
        match number(command, 6)? {
            code::DEFINE => self.define(port, command),
            code::UNDEFINE => self.undefine(port, command),
            code::READ_PUBLIC => self.read_public(port, command),
            code::WRITE => self.write(port, command),
            code::READ => self.read(port, command),
            _ => None,
        }
    }

    /// The TPM defines a smaller one.
    fn define(&mut self, port: u16, command: &[u8]) -> Option<io::Result<Vec<u8>>> {
        let parts = Authorized::new(command, 1)?;
        let password = 2 + usize::from(half(parts.parameters, 0)?);
        let index = number(parts.parameters, password + 2)?;
        let at = parts.parameters.len().checked_sub(2)?;
        let size = usize::from(half(parts.parameters, at)?);
        if !(usize::from(SWTPM_ROOM) + 1..=ROOM).contains(&size) {
            return None;
        }
        let mut parameters = parts.parameters.to_vec();
        parameters[at..].copy_from_slice(&SWTPM_ROOM.to_be_bytes());
        let answer = raw::converse(port, &parts.with(code::DEFINE, &parameters));
        if answer.as_ref().is_ok_and(|response| succeeded(response)) {
            self.contents.insert(index, vec![0xff; size]);
        }
        Some(answer)
    }

    fn undefine(&mut self, port: u16, command: &[u8]) -> Option<io::Result<Vec<u8>>> {
        let index = number(command, 14)?;
        self.get(index)?;
        let answer = raw::converse(port, command);
        if answer.as_ref().is_ok_and(|response| succeeded(response)) {
            self.contents.remove(&index);
        }
        Some(answer)
    }

    /// With the size that was asked for, and the name that follows from it (`TPM2_NV_ReadPublic`, part 3, section 31.6).
    fn read_public(&mut self, port: u16, command: &[u8]) -> Option<io::Result<Vec<u8>>> {
        let size = self.get(number(command, 10)?)?.len() as u16;
        let patch = |mut response: Vec<u8>| {
            let length = usize::from(half(&response, 10)?);
            let public = response.get_mut(12..12 + length)?;
            let at = length.checked_sub(2)?;
            public[at..].copy_from_slice(&size.to_be_bytes());
            let digest = Sha256::digest(public);
            // TPM2B_NAME: its size, the hash's identifier, the hash.
            response
                .get_mut(12 + length + 4..)?
                .get_mut(..32)?
                .copy_from_slice(&digest);
            Some(response)
        };
        Some(raw::converse(port, command).map(|response| patch(response.clone()).unwrap_or(response)))
    }

    /// The TPM is given one byte, so that it judges the authorization and remembers that something was written.
    fn write(&mut self, port: u16, command: &[u8]) -> Option<io::Result<Vec<u8>>> {
        let contents = self.get(number(command, 14)?)?;
        let parts = Authorized::new(command, 2)?;
        let length = usize::from(half(parts.parameters, 0)?);
        let data = parts.parameters.get(2..2 + length)?;
        let offset = usize::from(half(parts.parameters, 2 + length)?);
        let Some(target) = contents.get_mut(offset..offset + length) else {
            return Some(Ok(refusal(NV_RANGE)));
        };
        let answer = raw::converse(port, &parts.with(code::WRITE, &[0, 1, 0, 0, 0]));
        if answer.as_ref().is_ok_and(|response| succeeded(response)) {
            target.copy_from_slice(data);
        }
        Some(answer)
    }

    fn read(&mut self, port: u16, command: &[u8]) -> Option<io::Result<Vec<u8>>> {
        let contents = self.get(number(command, 14)?)?;
        let parts = Authorized::new(command, 2)?;
        let (size, offset) = (
            half(parts.parameters, 0)?,
            usize::from(half(parts.parameters, 2)?),
        );
        let Some(data) = contents.get(offset..offset + usize::from(size)) else {
            return Some(Ok(refusal(NV_RANGE)));
        };
        let parameters = [&size.to_be_bytes()[..], data].concat();
        let answer = authorize(port, &parts);
        Some(answer.map(|response| {
            if succeeded(&response) {
                response_with(&response, &parameters).unwrap_or(response)
            } else {
                response
            }
        }))
    }
}

/// Has the TPM judge an authorization of an index: it reads one byte of it.
pub(super) fn authorize(port: u16, parts: &Authorized<'_>) -> io::Result<Vec<u8>> {
    raw::converse(port, &parts.with(code::READ, &[0, 1, 0, 0]))
}
