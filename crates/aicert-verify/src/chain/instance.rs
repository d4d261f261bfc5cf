//! Which machine of Compute Engine a certificate is for.

use serde::Serialize;
use x509_cert::der::asn1::{AnyRef, ContextSpecific, Utf8StringRef};
use x509_cert::der::{self, Decode as _, Reader as _, SliceReader, TagNumber, Tagged as _};

/// Texts longer are refused; names on Compute Engine have at most 63 characters, project identifiers with a domain more.
const TEXT_LIMIT: usize = 256;

/// The instance that Google's certificate of an attestation key names, in the extension 1.3.6.1.4.1.11129.2.1.21.
///
/// Google has published the structure as code (`gceInstanceInfo` in `server/verify.go` of go-tpm-tools). The texts are
/// chosen by whoever created the machine: escape them before they reach a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct InstanceInfo {
    /// The zone that it was created in.
    pub zone: String,
    /// The number of its project.
    pub project_number: u64,
    /// The identifier of its project.
    pub project_id: String,
    /// Its identifier.
    pub instance_id: u64,
    /// Its name.
    pub instance_name: String,
    /// What Google says about the virtual TPM's security, if anything.
    pub security: Option<SecurityProperties>,
}

/// What Google says about the security of a virtual TPM. Elements that follow these two are not described anywhere, and
/// not interpreted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SecurityProperties {
    /// The security version of its implementation.
    pub security_version: u64,
    /// Whether it is one for production.
    pub is_production: bool,
}

impl InstanceInfo {
    /// Reads the content of the extension to its last byte; the error is for people.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = SliceReader::new(bytes).map_err(|error| error.to_string())?;
        let info = reader
            .sequence(Self::read)
            .and_then(|info| reader.finish(info))
            .map_err(|error| error.to_string())?;
        for (name, text) in [
            ("zone", &info.zone),
            ("project identifier", &info.project_id),
            ("instance name", &info.instance_name),
        ] {
            if text.is_empty() || text.len() > TEXT_LIMIT {
                return Err(format!(
                    "its {name} has {} bytes; expected 1 to {TEXT_LIMIT}",
                    text.len()
                ));
            }
        }
        Ok(info)
    }

    fn read<'a>(reader: &mut impl der::Reader<'a>) -> der::Result<Self> {
        let text = |text: Utf8StringRef<'a>| text.as_str().to_owned();
        Ok(Self {
            zone: text(Utf8StringRef::decode(reader)?),
            project_number: u64::decode(reader)?,
            project_id: text(Utf8StringRef::decode(reader)?),
            instance_id: u64::decode(reader)?,
            instance_name: text(Utf8StringRef::decode(reader)?),
            security: if reader.is_finished() {
                None
            } else {
                Some(SecurityProperties::read(reader)?)
            },
        })
    }
}

impl SecurityProperties {
    fn read<'a>(reader: &mut impl der::Reader<'a>) -> der::Result<Self> {
        explicit::<AnyRef<'_>>(reader, TagNumber::N0)?.sequence(|reader| {
            let security_version = explicit(reader, TagNumber::N0)?;
            let is_production = explicit(reader, TagNumber::N1)?;
            while !reader.is_finished() {
                let other = AnyRef::decode(reader)?;
                if !other.tag().is_context_specific() {
                    return Err(other.tag().value_error());
                }
            }
            Ok(Self {
                security_version,
                is_production,
            })
        })
    }
}

fn explicit<'a, T: der::Decode<'a>>(
    reader: &mut impl der::Reader<'a>,
    tag_number: TagNumber,
) -> der::Result<T> {
    let missing = der::Tag::ContextSpecific {
        constructed: true,
        number: tag_number,
    };
    ContextSpecific::decode_explicit(reader, tag_number)?
        .map(|element| element.value)
        .ok_or_else(|| missing.value_error())
}
