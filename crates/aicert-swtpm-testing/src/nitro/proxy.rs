//! Who stands in front of the software TPM.

use std::io;

use aicert_core::cbor::{Reader, Value};
use aicert_core::time::Timestamp;
use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues};
use aicert_tpm::{KeySource, TpmConfig};

use super::document::{NitroAuthority, NitroStatement, bytes, item, text};
use super::room::{self, Authorized, ROOM, Room, number, refusal, response_with, succeeded};
use crate::instance::SwtpmInstance;
use crate::interposer::{Interposer, Verdict};
use crate::raw;

/// The vendor command (aws/NitroTPM-Tools, `nitro-tpm-attest`).
const COMMAND: u32 = 0x2000_0001;
const GET_CAPABILITY: u32 = 0x17a;
/// `TPM_CAP_COMMANDS`, `TPM_CAP_TPM_PROPERTIES` and `TPM_PT_NV_INDEX_MAX` (TPM 2.0 Library, part 2, sections 6.12 and 6.13).
const CAP_COMMANDS: u32 = 2;
const CAP_PROPERTIES: u32 = 6;
const NV_INDEX_MAX: u32 = 0x117;
/// `TPMA_CC` of the vendor command: a vendor's, with two handles, that uses the NV memory (part 2, section 8.9).
const ATTRIBUTES: u32 = 1 << 29 | 2 << 25 | 1 << 22 | (COMMAND & 0xffff);

/// What comes back from the vendor command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NitroReply {
    /// This is written into the buffer, and the command succeeds.
    Write(Vec<u8>),
    /// The command is refused with this code.
    Refuse(u32),
    /// This is the response, whatever it is.
    Respond(Vec<u8>),
    /// There is never a response.
    Ignore,
}

impl NitroReply {
    /// The answer with a document.
    pub fn document(document: &[u8]) -> Self {
        let fields = [item(5, 1), text("document"), bytes(document)].concat();
        Self::Write([item(5, 1), text("Attestation"), fields].concat())
    }

    /// The answer with an error of the Nitro Secure Module.
    pub fn error(code: &str) -> Self {
        Self::Write([item(5, 1), text("Error"), text(code)].concat())
    }
}

type Reply = dyn FnMut(&NitroAuthority, NitroStatement) -> NitroReply + Send;

/// A software TPM that looks like a NitroTPM.
#[derive(Debug)]
pub struct NitroProxy {
    interposer: Interposer,
}

impl NitroProxy {
    /// Puts itself in front of `instance`, as the NitroTPM of the instance `i-0123456789abcdef0`.
    ///
    /// # Errors
    ///
    /// When there are no free ports.
    pub fn start(instance: &SwtpmInstance, authority: NitroAuthority) -> io::Result<Self> {
        Self::start_with(instance, authority, |authority, statement| {
            match authority.document(&statement) {
                Ok(document) => NitroReply::document(&document),
                Err(_) => NitroReply::error("InternalError"),
            }
        })
    }

    /// As [`NitroProxy::start`], with somebody who decides what comes back: `reply` is told what an honest document would say.
    ///
    /// # Errors
    ///
    /// When there are no free ports.
    pub fn start_with(
        instance: &SwtpmInstance,
        authority: NitroAuthority,
        reply: impl FnMut(&NitroAuthority, NitroStatement) -> NitroReply + Send + 'static,
    ) -> io::Result<Self> {
        let mut device = Device {
            port: instance.port(),
            authority,
            room: Room::default(),
            reply: Box::new(reply),
        };
        let interposer = Interposer::start(instance, move |command| device.judge(command))?;
        Ok(Self { interposer })
    }

    /// The port for commands; the control channel is on the next one.
    pub fn port(&self) -> u16 {
        self.interposer.port()
    }

    /// The configuration that opens it.
    pub fn config(&self, key: KeySource) -> TpmConfig {
        self.interposer.config(key)
    }

    /// Sends one command and returns the response, beside whoever else uses it.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub fn command(&self, command: &[u8]) -> io::Result<Vec<u8>> {
        raw::converse(self.port(), command)
    }
}

struct Device {
    /// Of the TPM behind.
    port: u16,
    authority: NitroAuthority,
    room: Room,
    reply: Box<Reply>,
}

impl Device {
    fn judge(&mut self, command: &[u8]) -> Verdict {
        let answer = match number(command, 6) {
            Some(COMMAND) => return self.attest(command).unwrap_or(Verdict::Ignore),
            Some(GET_CAPABILITY) => self.capability(command),
            _ => self.room.answer(self.port, command),
        };
        match answer {
            None => Verdict::Forward,
            Some(Ok(response)) => Verdict::Answer(response),
            // As a TPM does that is gone.
            Some(Err(_)) => Verdict::Ignore,
        }
    }

    fn capability(&self, command: &[u8]) -> Option<io::Result<Vec<u8>>> {
        let (capability, property) = (number(command, 10)?, number(command, 14)?);
        match (capability, property) {
            (CAP_COMMANDS, COMMAND) => {
                let body = [
                    &[0][..],
                    &CAP_COMMANDS.to_be_bytes(),
                    &1u32.to_be_bytes(),
                    &ATTRIBUTES.to_be_bytes(),
                ]
                .concat();
                let size = (10 + body.len()) as u32;
                Some(Ok(
                    [&[0x80, 0x01][..], &size.to_be_bytes(), &[0; 4], &body].concat()
                ))
            }
            (CAP_PROPERTIES, NV_INDEX_MAX) => {
                let answer = raw::converse(self.port, command).map(|mut response| {
                    // moreData, capability, count, and the first property (part 3, section 30.2).
                    if succeeded(&response)
                        && number(&response, 19) == Some(NV_INDEX_MAX)
                        && let Some(value) = response.get_mut(23..27)
                    {
                        value.copy_from_slice(&(ROOM as u32).to_be_bytes());
                    }
                    response
                });
                Some(answer)
            }
            _ => None,
        }
    }

    /// Carries the vendor command out, as far as the TPM lets its caller into the buffer.
    fn attest(&mut self, command: &[u8]) -> Option<Verdict> {
        let parts = Authorized::new(command, 2)?;
        let (authority, index) = (number(command, 10)?, number(command, 14)?);
        let authorized = room::authorize(self.port, &parts).ok()?;
        if authority != index || !succeeded(&authorized) {
            let code = number(&authorized, 6).filter(|code| *code != 0);
            // `TPM_RC_NV_AUTHORIZATION`.
            return Some(Verdict::Answer(refusal(code.unwrap_or(0x149))));
        }
        let pcrs = read_pcrs(self.port)?;
        // `TPM_RC_SIZE` where the index is no buffer.
        let Some(buffer) = self.room.get(index) else {
            return Some(Verdict::Answer(refusal(0x095)));
        };
        let reply = match statement(buffer, pcrs) {
            Some(statement) => (self.reply)(&self.authority, statement),
            None => NitroReply::error("InvalidArgument"),
        };
        Some(match reply {
            NitroReply::Write(answer) => {
                buffer.fill(0xff);
                let length = answer.len().min(buffer.len());
                buffer[..length].copy_from_slice(&answer[..length]);
                Verdict::Answer(response_with(&authorized, &[])?)
            }
            NitroReply::Refuse(code) => Verdict::Answer(refusal(code)),
            NitroReply::Respond(response) => Verdict::Answer(response),
            NitroReply::Ignore => Verdict::Ignore,
        })
    }
}

/// What the document of a request says; nothing if it is no request.
fn statement(request: &[u8], pcrs: PcrValues) -> Option<NitroStatement> {
    let Ok(Value::Map(request)) = Reader::new(request).value() else {
        return None;
    };
    let [(Value::Text("Attestation"), Value::Map(fields))] = &request[..] else {
        return None;
    };
    let mut statement = NitroStatement {
        module_id: "i-0123456789abcdef0-tpm0000000000000000".into(),
        region: "eu-central-1".into(),
        made: Timestamp::now(),
        pcrs,
        nonce: None,
        user_data: None,
        public_key: None,
    };
    for (name, value) in fields {
        let field = match name {
            Value::Text("nonce") => &mut statement.nonce,
            Value::Text("user_data") => &mut statement.user_data,
            Value::Text("public_key") => &mut statement.public_key,
            _ => return None,
        };
        *field = match value {
            Value::Null => None,
            Value::Bytes(bytes) if bytes.len() <= 512 => Some(bytes.to_vec()),
            _ => return None,
        };
    }
    Some(statement)
}

/// All PCRs of the SHA-384 bank, eight at a time (`TPM2_PCR_Read`, part 3, section 22.4).
fn read_pcrs(port: u16) -> Option<PcrValues> {
    let mut values = PcrValues::default();
    for octet in 0..3u8 {
        let mut selection = [0; 3];
        selection[usize::from(octet)] = 0xff;
        let mut command = vec![0x80, 0x01, 0, 0, 0, 20, 0, 0, 0x01, 0x7e, 0, 0, 0, 1];
        command.extend(PcrBank::Sha384.algorithm_id().to_be_bytes());
        command.push(3);
        command.extend(selection);
        let response = raw::converse(port, &command).ok()?;
        // Header, pcrUpdateCounter, the selection (as long as that of the command), the number of digests.
        if !succeeded(&response) || number(&response, 24) != Some(8) {
            return None;
        }
        let digests = response.get(28..)?.chunks_exact(50);
        for (bit, digest) in (0..8).zip(digests) {
            let pcr = PcrIndex::new(octet * 8 + bit)?;
            values.0.insert(pcr, digest[2..].to_vec());
        }
    }
    Some(values)
}
