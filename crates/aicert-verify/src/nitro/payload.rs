//! What an attestation document says, before anybody vouches for it.

use aicert_core::cbor::{self, Value};
use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues};

use super::NitroFault;

/// `public_key`, `user_data` and `nonce` have at most this many bytes (AWS, "The Attestation Document specification").
const DATA_LIMIT: usize = 1024;
/// Longer names of modules are refused; theirs have 40 characters.
const NAME_LIMIT: usize = 128;

/// The fields, each as AWS describes it ("Validate a NitroTPM Attestation Document").
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Payload {
    pub(super) module_id: String,
    /// In milliseconds since 1970-01-01T00:00:00Z.
    pub(super) timestamp: u64,
    pub(super) pcrs: PcrValues,
    pub(super) certificate: Vec<u8>,
    /// The root first.
    pub(super) bundle: Vec<Vec<u8>>,
    pub(super) public_key: Option<Vec<u8>>,
    pub(super) user_data: Option<Vec<u8>>,
    pub(super) nonce: Option<Vec<u8>>,
}

impl Payload {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Vec<NitroFault>> {
        let error = |error| NitroFault::Cbor {
            part: "payload",
            error,
        };
        let map = match cbor::read(bytes).map_err(|cause| vec![error(cause)])? {
            Value::Map(map) => map,
            other => return Err(vec![wrong("payload", "a map", &other)]),
        };
        let mut fields = Fields::default();
        let mut faults = Vec::new();
        for (key, value) in map {
            let fault = match key {
                Value::Text(name) => fields.set(name, value),
                other => Err(wrong("payload", "a map from texts", &other)),
            };
            faults.extend(fault.err());
        }
        fields.finish(faults)
    }
}

/// Fields that may be missing.
#[derive(Default)]
struct Fields {
    module_id: Option<String>,
    digest: Option<()>,
    timestamp: Option<u64>,
    pcrs: Option<PcrValues>,
    certificate: Option<Vec<u8>>,
    bundle: Option<Vec<Vec<u8>>>,
    public_key: Option<Vec<u8>>,
    user_data: Option<Vec<u8>>,
    nonce: Option<Vec<u8>>,
    /// Fields that are there, but wrong: they are not missing as well.
    wrong: Vec<&'static str>,
}

impl Fields {
    fn set(&mut self, name: &str, value: Value<'_>) -> Result<(), NitroFault> {
        let fault = match name {
            "module_id" => keep(&mut self.module_id, read_name(&value), "module_id"),
            "digest" => keep(&mut self.digest, read_digest(&value), "digest"),
            "timestamp" => keep(&mut self.timestamp, read_timestamp(&value), "timestamp"),
            "nitrotpm_pcrs" => keep(&mut self.pcrs, read_pcrs(value), "nitrotpm_pcrs"),
            "certificate" => keep(
                &mut self.certificate,
                read_bytes("certificate", &value),
                "certificate",
            ),
            "cabundle" => keep(&mut self.bundle, read_bundle(value), "cabundle"),
            "public_key" => read_data("public_key", &value)
                .map(|data| self.public_key = data)
                .map_err(|fault| (fault, "public_key")),
            "user_data" => read_data("user_data", &value)
                .map(|data| self.user_data = data)
                .map_err(|fault| (fault, "user_data")),
            "nonce" => read_data("nonce", &value)
                .map(|data| self.nonce = data)
                .map_err(|fault| (fault, "nonce")),
            "pcrs" => Err((NitroFault::Enclave {}, "nitrotpm_pcrs")),
            other => {
                let field = other.chars().take(NAME_LIMIT).collect();
                return Err(NitroFault::Unknown { field });
            }
        };
        fault.map_err(|(fault, name)| {
            self.wrong.push(name);
            fault
        })
    }

    fn finish(self, mut faults: Vec<NitroFault>) -> Result<Payload, Vec<NitroFault>> {
        let wrong = &self.wrong;
        let mut missing = |is_there: bool, field| {
            if !is_there && !wrong.contains(&field) {
                faults.push(NitroFault::Missing { field });
            }
        };
        missing(self.module_id.is_some(), "module_id");
        missing(self.digest.is_some(), "digest");
        missing(self.timestamp.is_some(), "timestamp");
        missing(self.pcrs.is_some(), "nitrotpm_pcrs");
        missing(self.certificate.is_some(), "certificate");
        missing(self.bundle.is_some(), "cabundle");
        match self {
            Self {
                module_id: Some(module_id),
                timestamp: Some(timestamp),
                pcrs: Some(pcrs),
                certificate: Some(certificate),
                bundle: Some(bundle),
                public_key,
                user_data,
                nonce,
                ..
            } if faults.is_empty() => Ok(Payload {
                module_id,
                timestamp,
                pcrs,
                certificate,
                bundle,
                public_key,
                user_data,
                nonce,
            }),
            _ => Err(faults),
        }
    }
}

fn keep<T>(
    field: &mut Option<T>,
    value: Result<T, NitroFault>,
    name: &'static str,
) -> Result<(), (NitroFault, &'static str)> {
    *field = Some(value.map_err(|fault| (fault, name))?);
    Ok(())
}

fn wrong(field: &'static str, expected: &'static str, found: &Value<'_>) -> NitroFault {
    NitroFault::Field {
        field,
        expected,
        found: found.kind().into(),
    }
}

/// Names are shown to people: they hold nothing that could fool a terminal.
fn read_name(value: &Value<'_>) -> Result<String, NitroFault> {
    let expected = "a name of 1 to 128 visible ASCII characters";
    match value {
        Value::Text(text) if !text.is_empty() && text.len() <= NAME_LIMIT => {
            if text.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Ok((*text).to_owned());
            }
            Err(NitroFault::Field {
                field: "module_id",
                expected,
                found: format!("{text:?}"),
            })
        }
        Value::Text(text) => Err(NitroFault::Field {
            field: "module_id",
            expected,
            found: format!("a text of {} bytes", text.len()),
        }),
        other => Err(wrong("module_id", expected, other)),
    }
}

fn read_digest(value: &Value<'_>) -> Result<(), NitroFault> {
    match value {
        Value::Text("SHA384") => Ok(()),
        Value::Text(other) => Err(NitroFault::Digest {
            found: other.chars().take(NAME_LIMIT).collect(),
        }),
        other => Err(wrong("digest", "the text SHA384", other)),
    }
}

fn read_timestamp(value: &Value<'_>) -> Result<u64, NitroFault> {
    match value {
        // No later than the year 9999, the last that can be written.
        Value::Unsigned(milliseconds) if *milliseconds < 253_402_300_800_000 => Ok(*milliseconds),
        Value::Unsigned(milliseconds) => Err(NitroFault::Field {
            field: "timestamp",
            expected: "milliseconds since 1970, before the year 10000",
            found: milliseconds.to_string(),
        }),
        other => Err(wrong("timestamp", "milliseconds since 1970", other)),
    }
}

fn read_pcrs(value: Value<'_>) -> Result<PcrValues, NitroFault> {
    let Value::Map(map) = value else {
        return Err(wrong("nitrotpm_pcrs", "a map", &value));
    };
    let mut pcrs = PcrValues::default();
    for (key, value) in map {
        let index = match key {
            Value::Unsigned(number) => u8::try_from(number)
                .ok()
                .and_then(PcrIndex::new)
                .ok_or_else(|| number.to_string()),
            other => Err(other.kind().to_owned()),
        };
        let pcr = index.map_err(|found| NitroFault::PcrIndex { found })?;
        let value = read_bytes("nitrotpm_pcrs", &value)?;
        if value.len() != PcrBank::Sha384.digest_len() {
            return Err(NitroFault::PcrLength {
                pcr,
                found: value.len(),
            });
        }
        // The reader has refused keys that stand twice.
        pcrs.0.insert(pcr, value);
    }
    if pcrs.0.is_empty() {
        return Err(NitroFault::NoPcrs {});
    }
    Ok(pcrs)
}

fn read_bundle(value: Value<'_>) -> Result<Vec<Vec<u8>>, NitroFault> {
    match value {
        Value::Array(certificates) => certificates
            .iter()
            .map(|certificate| read_bytes("cabundle", certificate))
            .collect(),
        other => Err(wrong("cabundle", "an array of byte strings", &other)),
    }
}

/// Certificates are bounded by [`crate::chain`].
fn read_bytes(field: &'static str, value: &Value<'_>) -> Result<Vec<u8>, NitroFault> {
    match value {
        Value::Bytes(bytes) => Ok(bytes.to_vec()),
        other => Err(wrong(field, "byte strings", other)),
    }
}

fn read_data(field: &'static str, value: &Value<'_>) -> Result<Option<Vec<u8>>, NitroFault> {
    match value {
        Value::Null => Ok(None),
        Value::Bytes(bytes) if bytes.len() <= DATA_LIMIT => Ok(Some(bytes.to_vec())),
        Value::Bytes(bytes) => Err(NitroFault::Field {
            field,
            expected: "at most 1024 bytes",
            found: format!("a byte string of {}", bytes.len()),
        }),
        other => Err(wrong(field, "a byte string or null", other)),
    }
}
