//! Attestation documents of AWS NitroTPM.
//!
//! AWS certifies no key of the TPM. A vendor command has the hypervisor write a document instead, over all PCRs of the SHA-384
//! bank. Its way in and out is an NV index: the request is written there, the command names the index, and the answer stands
//! there afterwards. Request and answer are those of the Nitro Secure Module in CBOR (AWS, aws-nitro-enclaves-nsm-api,
//! `src/api`); the command, its code and the size of the buffer are those of AWS's own tool (aws/NitroTPM-Tools,
//! `nitro-tpm-attest`).
//!
//! The index is one of some of our own, with an empty password: what matters in the document is compared afterwards. It is
//! removed again whatever happens; what a process that was killed has left is removed by the next that opens the TPM.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use aicert_core::cbor::{Reader, Value};
use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues, Quote, TpmClock};
use tss_esapi::Context;
use tss_esapi::attributes::NvIndexAttributes;
use tss_esapi::constants::response_code::Tss2ResponseCodeKind;
use tss_esapi::constants::{CapabilityType, PropertyTag};
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{CapabilityData, MaxNvBuffer, NvPublic};

use crate::error::Failure;
use crate::nv;
use crate::wire::{NO_SESSIONS, SESSIONS, Wire};
use crate::worker::{Patience, Repeat};

const OPERATION: &str = "making an attestation document";
/// The vendor command: the bit of vendors' commands, and the first of theirs.
const COMMAND: u32 = 0x2000_0001;
/// `TPM2_ReadClock` (TPM 2.0 Library, part 3, section 29.1), which the TSS's wrapper lacks.
const READ_CLOCK: u32 = 0x0000_0181;
/// `TPM_RS_PW` (part 2, section 7.4), with an empty nonce, no attributes and an empty password.
const EMPTY_PASSWORD: [u8; 9] = [0x40, 0x00, 0x00, 0x09, 0, 0, 0, 0, 0];
/// The size of the buffer: a document has some 5,000 bytes, and could hold 3,072 of ours.
const BUFFER: usize = 8192;
/// Where buffers are defined: in the range that owners use as they like (TCG, Registry of Reserved TPM 2.0 Handles and
/// Localities, section 2.2).
const INDICES: RangeInclusive<u32> = 0x018a_1ce0..=0x018a_1cef;
/// A nonce is longer in no request (aws-nitro-enclaves-nsm-api): 512 bytes; ours are hashes.
const NONCE_LIMIT: usize = 64;

const NO_NITRO: &str = "use an EC2 instance whose image was registered with NitroTPM (`--tpm-support v2.0`, UEFI) and of a \
                        type that supports it";

/// What documents are made with.
#[derive(Debug)]
pub(crate) struct Nitro {
    wire: Wire,
}

impl Nitro {
    /// Requires a TPM that makes documents, and removes what killed processes left.
    pub(crate) fn open(
        context: &mut Context,
        wire: Wire,
        banks: &[PcrBank],
        patience: Patience,
    ) -> Result<Self, Failure> {
        let unsupported = |what: String| Failure::Unsupported {
            what,
            advice: NO_NITRO,
        };
        if !knows_command(context, patience)? {
            return Err(unsupported(format!(
                "this TPM makes no attestation documents: it does not list the command {COMMAND:#010x} of NitroTPM"
            )));
        }
        if !banks.contains(&PcrBank::Sha384) {
            let active: Vec<_> = banks.iter().map(ToString::to_string).collect();
            return Err(unsupported(format!(
                "the SHA-384 bank, which attestation documents cover, is not active in this TPM; active are: {}",
                active.join(", ")
            )));
        }
        let largest = context
            .get_tpm_property(PropertyTag::NvIndexMax)
            .map_err(Failure::of("TPM2_GetCapability(TPM_PT_NV_INDEX_MAX)"))?
            .unwrap_or_default();
        if (largest as usize) < BUFFER {
            return Err(unsupported(format!(
                "this TPM cannot hold an attestation document: an NV index has at most {largest} bytes, and {BUFFER} are needed"
            )));
        }
        remove_leftovers(context, patience)?;
        Ok(Self { wire })
    }

    /// Reads the clock and the boot counters.
    pub(crate) fn clock(&self, patience: Patience) -> Result<TpmClock, Failure> {
        const OPERATION: &str = "TPM2_ReadClock";
        let body = self
            .wire
            .command(OPERATION, NO_SESSIONS, READ_CLOCK, &[], patience)?;
        // `TPMS_TIME_INFO` (TPM 2.0 Library, part 2, section 10.11.6): time, clock, resetCount, restartCount, safe.
        let parts = body
            .split_first_chunk::<8>()
            .and_then(|(_, rest)| rest.split_first_chunk::<8>())
            .and_then(|(clock, rest)| Some((clock, rest.split_first_chunk::<4>()?)))
            .and_then(|(clock, (reset, rest))| Some((clock, reset, rest.split_first_chunk::<4>()?)));
        match parts {
            Some((clock, reset, (restart, [_]))) => Ok(TpmClock {
                clock: u64::from_be_bytes(*clock),
                reset_count: u32::from_be_bytes(*reset).into(),
                restart_count: u32::from_be_bytes(*restart).into(),
            }),
            _ => Err(Failure::nonsense(
                OPERATION,
                format!("{} bytes where 25 were expected", body.len()),
            )),
        }
    }

    /// Has a document made, and checks that it is about what was asked. That it holds is for verifiers to say.
    pub(crate) fn quote(
        &self,
        context: &mut Context,
        patience: Patience,
        bank: PcrBank,
        pcrs: &BTreeSet<PcrIndex>,
        qualifying_data: &[u8],
    ) -> Result<Quote, Failure> {
        let unsupported = |what: String| Failure::Unsupported {
            what,
            advice: "ask for PCRs of the SHA-384 bank, with a hash as qualifying data",
        };
        if bank != PcrBank::Sha384 {
            return Err(unsupported(format!(
                "an attestation document over the bank {bank} was asked for: those of NitroTPM are over sha384"
            )));
        }
        if pcrs.is_empty() {
            return Err(unsupported("a document about no PCRs was asked for".into()));
        }
        if qualifying_data.is_empty() || qualifying_data.len() > NONCE_LIMIT {
            return Err(unsupported(format!(
                "{} bytes were given as qualifying data: expected 1 to {NONCE_LIMIT}",
                qualifying_data.len()
            )));
        }
        let answer = self.converse(context, &request(qualifying_data), patience)?;
        let document = document_of(&answer)?;
        let (values, nonce) = read_document(document)?;
        if nonce != Some(qualifying_data) {
            return Err(nonsense("a document with another nonce than was given"));
        }
        if let Some(missing) = pcrs.iter().find(|pcr| !values.0.contains_key(pcr)) {
            return Err(nonsense(format!("a document without PCR {missing}")));
        }
        Ok(Quote {
            bank,
            pcrs: values,
            attest: document.to_vec(),
            signature: Vec::new(),
        })
    }

    /// Writes a request into a buffer, gives the command, and reads what the buffer holds then.
    fn converse(
        &self,
        context: &mut Context,
        request: &[u8],
        patience: Patience,
    ) -> Result<Vec<u8>, Failure> {
        let (index, handle) = define(context, patience)?;
        let answer = self.exchange(context, index, handle, request, patience);
        let removed = undefine(context, handle, patience);
        // Why there is no answer says more than that the buffer could not be removed either.
        let answer = answer?;
        removed?;
        Ok(answer)
    }

    fn exchange(
        &self,
        context: &mut Context,
        index: u32,
        handle: NvIndexHandle,
        request: &[u8],
        patience: Patience,
    ) -> Result<Vec<u8>, Failure> {
        const WRITE: &str = "TPM2_NV_Write of a request to NitroTPM";
        // A request has at most 40 bytes more than its nonce, and every TPM takes 512 at once (TPM 2.0 Library, part 2,
        // `MAX_NV_BUFFER_SIZE`; PC Client Platform TPM Profile, section 4.4).
        let request = MaxNvBuffer::try_from(request).map_err(Failure::of(WRITE))?;
        patience.insist(WRITE, Repeat::Harmless, || {
            context.execute_with_session(Some(AuthSession::Password), |context| {
                context.nv_write(NvAuth::NvIndex(handle), handle, request.clone(), 0)
            })
        })?;
        // The index authorizes itself; the sizes of the authorization area and of what is in it are part of the command.
        let mut body = Vec::new();
        for _ in 0..2 {
            body.extend(index.to_be_bytes());
        }
        body.extend((EMPTY_PASSWORD.len() as u32).to_be_bytes());
        body.extend(EMPTY_PASSWORD);
        self.wire.command(OPERATION, SESSIONS, COMMAND, &body, patience)?;
        nv::read_pieces(context, NvAuth::NvIndex(handle), handle.into(), BUFFER, patience)
    }
}

/// Whether the TPM lists the vendor command among those that it knows.
fn knows_command(context: &mut Context, patience: Patience) -> Result<bool, Failure> {
    const OPERATION: &str = "TPM2_GetCapability(TPM_CAP_COMMANDS)";
    let (capability, _) = patience.insist(OPERATION, Repeat::Harmless, || {
        context.get_capability(CapabilityType::Command, COMMAND, 1)
    })?;
    let CapabilityData::Commands(commands) = capability else {
        return Err(Failure::nonsense(OPERATION, "another capability"));
    };
    let index = (COMMAND & 0xffff) as u16;
    Ok(commands
        .iter()
        .any(|command| command.is_vendor_specific() && command.command_index() == index))
}

fn attributes() -> Result<NvIndexAttributes, Failure> {
    NvIndexAttributes::builder()
        .with_auth_read(true)
        .with_auth_write(true)
        .build()
        .map_err(Failure::of("TPM2_NV_DefineSpace"))
}

/// Defines a buffer at the first of our indices that is free: that it is free is for the definition itself to say.
fn define(context: &mut Context, patience: Patience) -> Result<(u32, NvIndexHandle), Failure> {
    const OPERATION: &str = "TPM2_NV_DefineSpace of a buffer for NitroTPM";
    for index in INDICES {
        let named = NvIndexTpmHandle::new(index).map_err(Failure::of(OPERATION))?;
        let public = NvPublic::builder()
            .with_nv_index(named)
            .with_index_name_algorithm(HashingAlgorithm::Sha256)
            .with_index_attributes(attributes()?)
            .with_data_area_size(BUFFER)
            .build()
            .map_err(Failure::of(OPERATION))?;
        let defined = patience.insist(OPERATION, Repeat::Harmless, || {
            context.execute_with_session(Some(AuthSession::Password), |context| {
                context.nv_define_space(Provision::Owner, None, public.clone())
            })
        });
        match defined {
            Ok(handle) => return Ok((index, handle)),
            Err(Failure::Tss { source, .. }) if is(&source, Tss2ResponseCodeKind::NvDefined) => {}
            Err(other) => return Err(other),
        }
    }
    Err(Failure::Unsupported {
        what: format!(
            "all NV indices from {:#010x} to {:#010x} of this TPM are taken: none is free for an attestation document",
            INDICES.start(),
            INDICES.end()
        ),
        advice: "stop what else makes documents on this machine, and start again, which removes what it left",
    })
}

fn undefine(context: &mut Context, handle: NvIndexHandle, patience: Patience) -> Result<(), Failure> {
    patience.insist(
        "TPM2_NV_UndefineSpace of a buffer for NitroTPM",
        Repeat::Harmless,
        || {
            context.execute_with_session(Some(AuthSession::Password), |context| {
                context.nv_undefine_space(Provision::Owner, handle)
            })
        },
    )
}

/// Removes buffers that a process did not live to remove: of our indices those that look exactly as ours do.
fn remove_leftovers(context: &mut Context, patience: Patience) -> Result<(), Failure> {
    const OPERATION: &str = "TPM2_GetCapability(TPM_CAP_HANDLES)";
    let count = INDICES.end() - INDICES.start() + 1;
    let (capability, _) = patience.insist(OPERATION, Repeat::Harmless, || {
        context.get_capability(CapabilityType::Handles, *INDICES.start(), count)
    })?;
    let CapabilityData::Handles(handles) = capability else {
        return Err(Failure::nonsense(OPERATION, "another capability"));
    };
    let ours = handles.into_inner().into_iter().filter(|handle| match handle {
        TpmHandle::NvIndex(index) => INDICES.contains(&u32::from(*index)),
        _ => false,
    });
    for named in ours {
        let handle = patience.insist("TPM2_NV_ReadPublic", Repeat::Harmless, || {
            context.tr_from_tpm_public(named)
        })?;
        let handle = NvIndexHandle::from(handle);
        let (public, _) = patience.insist("TPM2_NV_ReadPublic", Repeat::Harmless, || {
            context.nv_read_public(handle)
        })?;
        let found = public.attributes();
        let looks_ours =
            found.auth_read() && found.auth_write() && !found.owner_read() && !found.owner_write();
        if looks_ours && public.data_size() == BUFFER {
            undefine(context, handle, patience)?;
        }
    }
    Ok(())
}

fn is(error: &tss_esapi::Error, kind: Tss2ResponseCodeKind) -> bool {
    matches!(error, tss_esapi::Error::Tss2Error(code) if code.kind() == Some(kind))
}

fn nonsense(what: impl Into<String>) -> Failure {
    Failure::nonsense(OPERATION, what)
}

/// `Request::Attestation` with a nonce of at most [`NONCE_LIMIT`] bytes and nothing else.
fn request(nonce: &[u8]) -> Vec<u8> {
    let text = |text: &str| [&[0x60 | text.len() as u8][..], text.as_bytes()].concat();
    let bytes = [&[0x58, nonce.len() as u8][..], nonce].concat();
    // The shortest form of a length below 24 stands in the first byte.
    let bytes = match nonce.len() {
        0..24 => [&[0x40 | nonce.len() as u8][..], nonce].concat(),
        _ => bytes,
    };
    [
        vec![0xa1],
        text("Attestation"),
        vec![0xa3],
        text("user_data"),
        vec![0xf6],
        text("nonce"),
        bytes,
        text("public_key"),
        vec![0xf6],
    ]
    .concat()
}

/// The document in an answer, which the rest of the buffer follows.
fn document_of(answer: &[u8]) -> Result<&[u8], Failure> {
    let answer = Reader::new(answer)
        .value()
        .map_err(|error| nonsense(format!("an answer that cannot be read: {error}")))?;
    let Value::Map(answer) = answer else {
        return Err(nonsense(format!("{} as an answer", answer.kind())));
    };
    match &answer[..] {
        [(Value::Text("Attestation"), Value::Map(fields))] => match &fields[..] {
            [(Value::Text("document"), Value::Bytes(document))] => {
                // A tag that says that it is a COSE_Sign1 is signed by nobody; documents in proofs are without.
                Ok(document.strip_prefix(&[0xd2]).unwrap_or(document))
            }
            _ => Err(nonsense("an answer with something else than a document")),
        },
        [(Value::Text("Error"), Value::Text(code))] => Err(Failure::Refused {
            operation: OPERATION,
            code: code.chars().take(64).collect(),
        }),
        _ => Err(nonsense("an answer that is neither a document nor an error")),
    }
}

/// The PCRs of a document, and its nonce.
fn read_document(document: &[u8]) -> Result<(PcrValues, Option<&[u8]>), Failure> {
    let unreadable = |error| nonsense(format!("a document that cannot be read: {error}"));
    let Value::Array(sign1) = aicert_core::cbor::read(document).map_err(unreadable)? else {
        return Err(nonsense("a document that is no COSE_Sign1"));
    };
    let [_, _, Value::Bytes(payload), _] = sign1[..] else {
        return Err(nonsense("a document that is no COSE_Sign1"));
    };
    let Value::Map(fields) = aicert_core::cbor::read(payload).map_err(unreadable)? else {
        return Err(nonsense("a document whose payload is no map"));
    };
    let field = |name: &str| {
        let mut fields = fields.iter();
        fields
            .find(|(key, _)| matches!(key, Value::Text(key) if *key == name))
            .map(|(_, value)| value)
    };
    let nonce = match field("nonce") {
        Some(Value::Bytes(nonce)) => Some(*nonce),
        _ => None,
    };
    let Some(Value::Map(pcrs)) = field("nitrotpm_pcrs") else {
        return Err(nonsense("a document without PCRs"));
    };
    let mut values = PcrValues::default();
    for (number, value) in pcrs {
        let entry = match (number, value) {
            (Value::Unsigned(number), Value::Bytes(value)) if value.len() == PcrBank::Sha384.digest_len() => {
                u8::try_from(*number)
                    .ok()
                    .and_then(PcrIndex::new)
                    .map(|pcr| (pcr, value.to_vec()))
            }
            _ => None,
        };
        let Some((pcr, value)) = entry else {
            return Err(nonsense("a document with PCRs that no TPM has"));
        };
        values.0.insert(pcr, value);
    }
    Ok((values, nonce))
}
