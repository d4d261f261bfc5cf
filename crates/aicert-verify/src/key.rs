//! Step 3: the attestation key is one that only signs what its TPM made, and is the key that was certified.
//!
//! The certificates vouch for the key itself. The rest of its public area (TPM 2.0 Library, part 2, section 12.2.4), its
//! attributes above all, is bound to the quote: the TPM signs the key's *qualified name*, a hash over the key's name and
//! its place below a hierarchy (part 1, chapter "Names"; part 2, section 10.12.8). The key must be a primary key of the
//! endorsement hierarchy, as the keys of Azure and Compute Engine are; the qualified name of a key below another cannot
//! be recomputed from what a proof holds, and is refused. Keys of other hierarchies would be of no use: in what they
//! sign, the TPM obfuscates the reset and restart counts (part 1, chapter "Attestation").

use aicert_core::certificate::EvidenceKind;
use sha2::{Digest as _, Sha256};

use crate::chain::ChainProof;
use crate::error::faults;
use crate::marshal::{MarshalError, Reader};
use crate::signature::{Curve, Hash, PublicKey};

/// `TPM_ALG_*` (TPM 2.0 Library, part 2, section 6.3).
pub(crate) mod algorithm {
    pub(crate) const RSA: u16 = 0x0001;
    pub(crate) const SHA256: u16 = 0x000b;
    pub(crate) const NULL: u16 = 0x0010;
    pub(crate) const RSASSA: u16 = 0x0014;
    pub(crate) const RSAPSS: u16 = 0x0016;
    pub(crate) const ECDSA: u16 = 0x0018;
    pub(crate) const ECC: u16 = 0x0023;
}

/// `TPM_RH_ENDORSEMENT` (TPM 2.0 Library, part 2, section 7.4), whose name is its handle.
const ENDORSEMENT: [u8; 4] = 0x4000_000b_u32.to_be_bytes();

/// `TPMA_OBJECT` (TPM 2.0 Library, part 2, section 8.3): what must be set, and why.
const REQUIRED: [(u32, &str); 5] = [
    (1 << 1, "fixedTPM"),
    (1 << 4, "fixedParent"),
    (1 << 5, "sensitiveDataOrigin"),
    (1 << 16, "restricted"),
    (1 << 18, "sign"),
];
const DECRYPT: u32 = 1 << 17;

faults! {
    /// Says what is wrong with the attestation key.
    enum KeyFault {
        /// The public area is no `TPMT_PUBLIC`.
        Malformed {
            /// What is wrong with it.
            error: MarshalError,
        } => File, "the public area of the attestation key cannot be read: {error}", "get the proof again from whoever published it";
        /// The key lacks attributes without which it could sign anything.
        Attributes {
            /// Those that are missing.
            missing: String,
            /// All attributes, as a `TPMA_OBJECT`.
            found: u32,
        } => Builder, "the attestation key is not {missing} (attributes {found:#010x}): it could have signed something that no TPM made, or have left the TPM", "do not believe this proof: quotes count only when a restricted key that never leaves its TPM signed them";
        /// The certificates are for something else than a key of a TPM.
        NotForKeys {} => Builder, "the certificates vouch for attestation documents, and for no key of a TPM", "do not believe this proof: documents and keys never vouch for each other";
        /// The key can also decrypt.
        CanDecrypt {
            /// All attributes, as a `TPMA_OBJECT`.
            found: u32,
        } => Builder, "the attestation key can decrypt (attributes {found:#010x}); expected a key that only signs", "do not believe this proof: attestation keys only sign";
        /// The key is of a kind, size or scheme that is not accepted.
        Unsupported {
            /// What it is.
            found: String,
            /// What is accepted.
            expected: &'static str,
        } => Builder, "the attestation key has {found}; expected {expected}", "make the proof with an attestation key of an accepted kind";
        /// The public area was not given, where nothing else says what the key may do.
        PublicAreaMissing {} => Verifier, "the public area of the attestation key was not given: nothing shows that it signs only what its TPM made", "give the public area (TPMT_PUBLIC); without it, only keys are accepted whose authority is known to certify no others, as those of Azure and Compute Engine";
        /// The certificate is for another key.
        NotTheCertifiedKey {} => Builder, "the attestation key is not the key that the first certificate of the chain is for", "do not believe this proof: whoever made it holds a certificate for one key and signed with another";
    }
}

/// The public area of a key, as the file claims it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicArea {
    attributes: u32,
    pub(crate) key: PublicKey,
    /// The `TPM_ALG_ID` of the scheme that the key is bound to.
    pub(crate) scheme: u16,
    /// The hash of that scheme.
    pub(crate) hash: Hash,
    name: [u8; 34],
}

impl PublicArea {
    /// Reads a `TPMT_PUBLIC` (TPM 2.0 Library, part 2, section 12.2.4) to its last byte.
    ///
    /// # Errors
    ///
    /// When it is malformed, or describes a key that is not of an accepted kind.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyFault> {
        let malformed = |error| KeyFault::Malformed { error };
        let mut reader = Reader::new(bytes);
        let kind = reader.u16("type").map_err(malformed)?;
        let name_algorithm = reader.u16("nameAlg").map_err(malformed)?;
        if name_algorithm != algorithm::SHA256 {
            return Err(unsupported(
                format!("the name algorithm {name_algorithm:#06x}"),
                "SHA-256 (0x000b)",
            ));
        }
        let attributes = reader.u32("objectAttributes").map_err(malformed)?;
        reader.sized("authPolicy", 64).map_err(malformed)?;
        let (key, scheme, hash) = match kind {
            algorithm::RSA => read_rsa(&mut reader)?,
            algorithm::ECC => read_ecc(&mut reader)?,
            other => {
                return Err(unsupported(
                    format!("the type {other:#06x}"),
                    "RSA (0x0001) or ECC (0x0023)",
                ));
            }
        };
        reader.finish().map_err(malformed)?;
        let mut name = [0; 34];
        name[..2].copy_from_slice(&algorithm::SHA256.to_be_bytes());
        name[2..].copy_from_slice(&Sha256::digest(bytes));
        Ok(Self {
            attributes,
            key,
            scheme,
            hash,
            name,
        })
    }

    /// The key's name: its name algorithm and the hash of its public area (TPM 2.0 Library, part 1, chapter "Names").
    pub fn name(&self) -> &[u8; 34] {
        &self.name
    }

    /// The qualified name that the key has as a primary key of the endorsement hierarchy.
    pub(crate) fn qualified_name(&self) -> Vec<u8> {
        let hash = Sha256::new()
            .chain_update(ENDORSEMENT)
            .chain_update(self.name)
            .finalize();
        [&algorithm::SHA256.to_be_bytes()[..], &hash].concat()
    }
}

fn unsupported(found: String, expected: &'static str) -> KeyFault {
    KeyFault::Unsupported { found, expected }
}

type ReadKey = (PublicKey, u16, Hash);

/// `TPMS_RSA_PARMS` and `TPM2B_PUBLIC_KEY_RSA` (TPM 2.0 Library, part 2, sections 12.2.3.5 and 11.2.4.5).
fn read_rsa(reader: &mut Reader<'_>) -> Result<ReadKey, KeyFault> {
    let malformed = |error| KeyFault::Malformed { error };
    read_symmetric(reader)?;
    let scheme = reader.u16("scheme").map_err(malformed)?;
    if !matches!(scheme, algorithm::RSASSA | algorithm::RSAPSS) {
        return Err(unsupported(
            format!("the RSA scheme {scheme:#06x}"),
            "RSASSA (0x0014) or RSAPSS (0x0016)",
        ));
    }
    let hash = read_scheme_hash(reader)?;
    let bits = usize::from(reader.u16("keyBits").map_err(malformed)?);
    let exponent = match reader.u32("exponent").map_err(malformed)? {
        0 => 65_537,
        other => other,
    };
    let modulus = reader.sized("unique", 512).map_err(malformed)?;
    if modulus.len() * 8 != bits || modulus.first().is_none_or(|byte| byte & 0x80 == 0) {
        return Err(unsupported(
            format!("a modulus that has not the {bits} bits it claims"),
            "as many bits as claimed",
        ));
    }
    let key = PublicKey::rsa(modulus, exponent)
        .map_err(|error| unsupported(error.to_string(), "RSA with 2048 to 4096 bits"))?;
    Ok((key, scheme, hash))
}

/// `TPMS_ECC_PARMS` and `TPMS_ECC_POINT` (TPM 2.0 Library, part 2, sections 12.2.3.6 and 11.2.5.2).
fn read_ecc(reader: &mut Reader<'_>) -> Result<ReadKey, KeyFault> {
    let malformed = |error| KeyFault::Malformed { error };
    read_symmetric(reader)?;
    let scheme = reader.u16("scheme").map_err(malformed)?;
    if scheme != algorithm::ECDSA {
        return Err(unsupported(
            format!("the elliptic-curve scheme {scheme:#06x}"),
            "ECDSA (0x0018)",
        ));
    }
    let hash = read_scheme_hash(reader)?;
    let curve = reader.u16("curveID").map_err(malformed)?;
    let curve = Curve::from_id(curve).ok_or_else(|| {
        unsupported(
            format!("the curve {curve:#06x}"),
            "NIST P-256 (0x0003) or P-384 (0x0004)",
        )
    })?;
    let derivation = reader.u16("kdf").map_err(malformed)?;
    if derivation != algorithm::NULL {
        return Err(unsupported(
            format!("the key derivation {derivation:#06x}"),
            "none (0x0010)",
        ));
    }
    let x = reader.sized("unique.x", 48).map_err(malformed)?;
    let y = reader.sized("unique.y", 48).map_err(malformed)?;
    let key = PublicKey::ecc(curve, x, y)
        .map_err(|error| unsupported(error.to_string(), "a point of its curve"))?;
    Ok((key, scheme, hash))
}

/// A key that signs has no symmetric algorithm (TPM 2.0 Library, part 2, section 12.2.3.5).
fn read_symmetric(reader: &mut Reader<'_>) -> Result<(), KeyFault> {
    match reader
        .u16("symmetric")
        .map_err(|error| KeyFault::Malformed { error })?
    {
        algorithm::NULL => Ok(()),
        other => Err(unsupported(
            format!("the symmetric algorithm {other:#06x}"),
            "none (0x0010), as keys have that sign",
        )),
    }
}

fn read_scheme_hash(reader: &mut Reader<'_>) -> Result<Hash, KeyFault> {
    let id = reader
        .u16("scheme.hashAlg")
        .map_err(|error| KeyFault::Malformed { error })?;
    Hash::from_algorithm_id(id).ok_or_else(|| {
        unsupported(
            format!("the signature hash {id:#06x}"),
            "SHA-256, SHA-384 or SHA-512 (SHA-1 is refused)",
        )
    })
}

/// A key that is certified, and can only sign what its TPM made. Only [`verify`] makes it.
#[derive(Debug, Clone)]
pub struct TrustedKey {
    pub(crate) area: PublicArea,
    chain: ChainProof,
}

impl TrustedKey {
    /// Its public area.
    pub fn public_area(&self) -> &PublicArea {
        &self.area
    }

    /// What vouches for it.
    pub fn chain(&self) -> &ChainProof {
        &self.chain
    }
}

/// Verifies a key's public area (`TPMT_PUBLIC`) against the chain of its certificates.
///
/// That the public area is the one which the TPM knows is shown by the quote: see [`crate::quote::authenticate`].
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn verify(chain: ChainProof, public: &[u8]) -> Result<TrustedKey, Vec<KeyFault>> {
    let mut faults = inspect(public, Some(chain.key()));
    if chain.evidence() != EvidenceKind::Quote {
        faults.push(KeyFault::NotForKeys {});
    }
    match PublicArea::parse(public) {
        Ok(area) if faults.is_empty() => Ok(TrustedKey { area, chain }),
        _ => Err(faults),
    }
}

/// What is wrong with a key, whether or not its chain is proven.
pub(crate) fn inspect(public: &[u8], certified: Option<&PublicKey>) -> Vec<KeyFault> {
    let area = match PublicArea::parse(public) {
        Ok(area) => area,
        Err(fault) => return vec![fault],
    };
    let mut faults = Vec::new();
    let found = area.attributes;
    let missing: Vec<_> = REQUIRED
        .iter()
        .filter(|(bit, _)| found & bit == 0)
        .map(|(_, name)| *name)
        .collect();
    if !missing.is_empty() {
        faults.push(KeyFault::Attributes {
            missing: missing.join(", "),
            found,
        });
    }
    if found & DECRYPT != 0 {
        faults.push(KeyFault::CanDecrypt { found });
    }
    if certified.is_some_and(|certified| *certified != area.key) {
        faults.push(KeyFault::NotTheCertifiedKey {});
    }
    faults
}
