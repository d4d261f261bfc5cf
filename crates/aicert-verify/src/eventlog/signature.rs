//! Lists of keys and hashes that Secure Boot allows or forbids (UEFI 2.10, section 32.4.1).

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use super::read::{Fields, Guid, Reason};
use crate::x509;

/// What an entry of a list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SignatureKind {
    /// An X.509 certificate.
    X509,
    /// The SHA-1 of an image.
    Sha1,
    /// The SHA-256 of an image.
    Sha256,
    /// The SHA-384 of an image.
    Sha384,
    /// The SHA-512 of an image.
    Sha512,
    /// An RSA key of 2048 bits.
    Rsa2048,
    /// The SHA-256 of a certificate that is revoked, and since when.
    X509Sha256,
    /// Something else.
    Other,
}

/// An entry of a list, or the one that allowed something to run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Signature {
    /// What it is.
    pub kind: SignatureKind,
    /// Who put it there.
    pub owner: Option<Guid>,
    /// A certificate in DER, or a hash.
    pub data: Vec<u8>,
}

/// `EFI_CERT_X509_GUID`.
const X509: Guid = Guid::from_fields(0xa5c0_59a1, 0x94e4, 0x4aa7, 0x87b5_ab15_5c2b_f072);

const KINDS: [(Guid, SignatureKind); 7] = [
    (X509, SignatureKind::X509),
    (
        Guid::from_fields(0x826c_a512, 0xcf10, 0x4ac9, 0xb187_be01_4966_31bd),
        SignatureKind::Sha1,
    ),
    (
        Guid::from_fields(0xc1c4_1626, 0x504c, 0x4092, 0xaca9_41f9_3693_4328),
        SignatureKind::Sha256,
    ),
    (
        Guid::from_fields(0xff3e_5307, 0x9fd0, 0x48c9, 0x85f1_8ad5_6c70_1e01),
        SignatureKind::Sha384,
    ),
    (
        Guid::from_fields(0x093e_0fae, 0xa6c4, 0x4f50, 0x9f1b_d41e_2b89_c19a),
        SignatureKind::Sha512,
    ),
    (
        Guid::from_fields(0x3c57_66e8, 0x269c, 0x4e34, 0xaa14_ed77_6e85_b3b6),
        SignatureKind::Rsa2048,
    ),
    (
        Guid::from_fields(0x3bd2_a492, 0x96c0, 0x4079, 0xb420_fcf9_8ef1_03ed),
        SignatureKind::X509Sha256,
    ),
];

impl Signature {
    /// Reads `EFI_SIGNATURE_LIST`s to the end.
    pub(super) fn lists(bytes: &[u8]) -> Result<Vec<Self>, Reason> {
        let mut signatures = Vec::new();
        let mut fields = Fields::new(bytes);
        while !fields.rest().is_empty() {
            let kind = fields.guid("signature list's type")?;
            let list_size = fields.u32("signature list's size")?;
            let header_size = fields.u32("signature list's header size")?;
            let size = fields.u32("signature's size")?;
            let content = u64::from(list_size)
                .checked_sub(28)
                .ok_or_else(|| format!("a signature list has {list_size} bytes, expected 28 or more"))?;
            let mut content = Fields::new(fields.take_u64("signature list", content)?);
            content.take_u64("signature list's header", header_size.into())?;
            // The owner's GUID, and something.
            if size <= 16 || !content.rest().len().is_multiple_of(size as usize) {
                return Err(format!(
                    "a signature list has {} bytes of signatures of {size} bytes each",
                    content.rest().len()
                ));
            }
            let kind = KINDS
                .iter()
                .find_map(|(guid, known)| (*guid == kind).then_some(*known))
                .unwrap_or(SignatureKind::Other);
            for entry in content.rest().chunks_exact(size as usize) {
                let (owner, data) = entry.split_at(16);
                signatures.push(Self {
                    kind,
                    owner: owner.try_into().ok().map(Guid),
                    data: data.to_vec(),
                });
            }
        }
        Ok(signatures)
    }

    /// Reads what allowed an image to run: an `EFI_SIGNATURE_DATA` whose type is not given (PFP 1.06, section 3.3.4.8), or,
    /// as shim does it, a certificate alone. Nothing for what looks like neither.
    pub(super) fn authority(data: &[u8]) -> Option<Self> {
        let certificate = |bytes: &[u8]| bytes.starts_with(&[0x30, 0x82]);
        if certificate(data) {
            return Some(Self {
                kind: SignatureKind::X509,
                owner: None,
                data: data.to_vec(),
            });
        }
        let (owner, data) = data.split_at_checked(16)?;
        let kind = match data.len() {
            _ if certificate(data) => SignatureKind::X509,
            20 => SignatureKind::Sha1,
            32 => SignatureKind::Sha256,
            48 => SignatureKind::Sha384,
            64 => SignatureKind::Sha512,
            _ => return None,
        };
        Some(Self {
            kind,
            owner: owner.try_into().ok().map(Guid),
            data: data.to_vec(),
        })
    }

    /// The subject of a certificate; nothing for what is none.
    pub fn subject(&self) -> Option<String> {
        if self.kind != SignatureKind::X509 {
            return None;
        }
        let certificate = x509::decode(&self.data).ok()?;
        Some(certificate.tbs_certificate.subject.to_string())
    }

    /// The SHA-256 of a certificate; nothing for what is none.
    pub fn fingerprint(&self) -> Option<[u8; 32]> {
        (self.kind == SignatureKind::X509).then(|| Sha256::digest(&self.data).into())
    }
}

impl Serialize for Signature {
    /// As an object with `type` and `owner`; for certificates `subject` and `sha256`, for all others `data`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Signature", 4)?;
        object.serialize_field("type", &self.kind)?;
        object.serialize_field("owner", &self.owner)?;
        match self.fingerprint() {
            Some(fingerprint) => {
                object.serialize_field("subject", &self.subject())?;
                object.serialize_field("sha256", &hex::encode(fingerprint))?;
            }
            None => object.serialize_field("data", &hex::encode(&self.data))?,
        }
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(kind: Guid, entries: &[&[u8]]) -> Vec<u8> {
        let size = entries[0].len() + 16;
        let mut bytes = kind.0.to_vec();
        for field in [28 + size * entries.len(), 0, size] {
            bytes.extend(u32::try_from(field).unwrap().to_le_bytes());
        }
        for entry in entries {
            bytes.extend([7; 16]);
            bytes.extend(*entry);
        }
        bytes
    }

    #[test]
    fn lists_are_read_to_their_end() {
        let bytes = [
            list(KINDS[2].0, &[&[1; 32], &[2; 32]]),
            list(Guid([9; 16]), &[&[3]]),
        ]
        .concat();
        let signatures = Signature::lists(&bytes).unwrap();
        let found: Vec<_> = signatures
            .iter()
            .map(|entry| (entry.kind, entry.data[0]))
            .collect();
        assert_eq!(
            found,
            [
                (SignatureKind::Sha256, 1),
                (SignatureKind::Sha256, 2),
                (SignatureKind::Other, 3)
            ]
        );
        assert_eq!(Signature::lists(&[]), Ok(Vec::new()));
    }

    #[test]
    fn sizes_that_lie_are_refused() {
        let honest = list(KINDS[2].0, &[&[1; 32]]);
        for (offset, value) in [
            (16, 27),
            (16, u32::MAX),
            (20, u32::MAX),
            (24, 0),
            (24, 16),
            (24, 47),
            (24, u32::MAX),
        ] {
            let mut bytes = honest.clone();
            bytes[offset..offset + 4].copy_from_slice(&u32::to_le_bytes(value));
            assert!(Signature::lists(&bytes).is_err(), "{offset} {value}");
        }
        assert!(Signature::lists(&honest[..honest.len() - 1]).is_err());
        assert!(Signature::lists(&[&honest[..], &[0]].concat()).is_err());
    }
}
