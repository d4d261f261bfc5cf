//! Attestation documents of AWS NitroTPM.
//!
//! AWS certifies no attestation keys of TPMs. What it vouches for is a document: the hypervisor writes down the TPM's PCRs
//! (SHA-384) and signs them, as a `COSE_Sign1` (RFC 9052, section 4.2) with ES384, under a certificate that lives three
//! hours and leads to the root `aws.nitro-enclaves`. AWS describes it in "Validate a NitroTPM Attestation Document" of the
//! EC2 User Guide. A TPM quote made on the same machine proves nothing by itself: its key is the guest's own.
//!
//! [`verify`] accepts one spelling, the one that AWS writes: nothing beside the algorithm in the protected header, nothing in
//! the unprotected one, every field known, no field twice, `cabundle` the exact path from the root. Documents of Nitro
//! Enclaves lead to the same root; they are refused for what they are.
//!
//! What the guest chose is not what AWS vouches for: see [`VerifiedDocument::nonce`], [`VerifiedDocument::user_data`] and
//! [`VerifiedDocument::public_key`].
//!
//! In a proof, or in a machine's answer, a document stands where a TPM's quote would stand, and [`crate::quote`] holds it to
//! more: a nonce that follows from what it is about, nothing else of the guest's, no tag.

mod fault;
mod payload;

use aicert_core::cbor::{self, Reader, Value};
use aicert_core::certificate::PlatformKind;
use aicert_core::time::Timestamp;
use aicert_core::tpm::{PcrBank, PcrValues};

pub use aicert_core::cbor::CborError;
pub use fault::NitroFault;

use crate::anchors::{Fingerprint, TrustAnchors, platform_of_document_root};
use crate::chain::{self, ChainFault, ChainProof, ProvenPath, Purposes};
use crate::error::{Failure, Rejection};
use crate::signature::{Hash, PublicKey, Signature};
use crate::x509::Certificate;

use payload::Payload;

/// A larger document is refused; real ones have about 5,000 bytes, and 3,072 more can be the guest's.
pub const SIZE_LIMIT: usize = 32 << 10;

/// The COSE algorithm ES384, -35 (RFC 9053, section 2.1), as CBOR counts negative numbers.
const ES384: u64 = 34;
/// The header parameter `alg` (RFC 9052, section 3.1).
const ALGORITHM: u64 = 1;
/// The tag of a `COSE_Sign1` (RFC 9052, section 2), 18, which AWS leaves out.
const TAG_SIGN1: u8 = 0xd2;

/// What to believe, and what to hold a document to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Expected {
    /// The roots that are believed beside AWS's: those that were added, for tests and for private clouds. What they vouch
    /// for is always simulated ([`VerifiedDocument::is_simulated`]). The other vendors' roots vouch for no documents.
    pub trust_anchors: TrustAnchors,
    /// The time for which certificates must be valid.
    pub time: Timestamp,
    /// The nonce that the document must hold; any when absent.
    pub nonce: Option<Vec<u8>>,
}

impl Expected {
    /// Holds a document to AWS's root and these, at this time, and to everything that needs no further information.
    pub fn new(trust_anchors: TrustAnchors, time: Timestamp) -> Self {
        Self {
            trust_anchors,
            time,
            nonce: None,
        }
    }

    /// Accepts only a document with exactly this nonce.
    #[must_use]
    pub fn answering(mut self, nonce: impl Into<Vec<u8>>) -> Self {
        self.nonce = Some(nonce.into());
        self
    }
}

/// A document for which every check has held. Only [`verify`] makes it.
#[derive(Debug, Clone)]
pub struct VerifiedDocument {
    claims: Claims,
    chain: ChainProof,
    answers_nonce: bool,
}

impl VerifiedDocument {
    /// The module that made it: the instance's identifier, and which of its TPMs. Visible ASCII characters alone.
    pub fn module_id(&self) -> &str {
        &self.claims.payload.module_id
    }

    /// The instance's identifier: the module's up to `-tpm`.
    pub fn instance_id(&self) -> &str {
        let module = self.module_id();
        module.split_once("-tpm").map_or(module, |(instance, _)| instance)
    }

    /// The region that its certificate is for, where it names one as AWS's do; of a root that is not AWS's, that is not AWS's
    /// word.
    pub fn region(&self) -> Option<&str> {
        let leaf = self.subjects().first()?;
        let names = leaf.split(',').filter_map(|part| part.trim().strip_prefix("CN="));
        let mut regions = names.filter_map(|name| {
            name.strip_prefix(self.module_id())?
                .strip_prefix('.')?
                .strip_suffix(".aws")
        });
        regions.next()
    }

    /// When it was made, to the second.
    pub fn timestamp(&self) -> Timestamp {
        seconds(self.claims.payload.timestamp)
    }

    /// The bank of the PCRs.
    pub fn bank(&self) -> PcrBank {
        PcrBank::Sha384
    }

    /// The PCRs when it was made. PCR 0 and 1 are the same on every machine, AWS says: they recognise no firmware.
    pub fn pcrs(&self) -> &PcrValues {
        &self.claims.payload.pcrs
    }

    /// The nonce. Chosen by whoever asked for the document *on the machine*: it shows that the document is recent only to a
    /// verifier who chose it, and says nothing otherwise.
    pub fn nonce(&self) -> Option<&[u8]> {
        self.claims.payload.nonce.as_deref()
    }

    /// Whether the nonce was compared with one that was given.
    pub fn answers_nonce(&self) -> bool {
        self.answers_nonce
    }

    /// Data of the guest. Chosen by whoever asked for the document on the machine; AWS vouches that it was asked for with
    /// this data on that machine, not that it is true.
    pub fn user_data(&self) -> Option<&[u8]> {
        self.claims.payload.user_data.as_deref()
    }

    /// A public key of the guest. Chosen by whoever asked for the document on the machine, as [`Self::user_data`].
    pub fn public_key(&self) -> Option<&[u8]> {
        self.claims.payload.public_key.as_deref()
    }

    /// Whether the tag of a `COSE_Sign1` stands before it, which nothing signs, and which AWS leaves out.
    pub fn is_tagged(&self) -> bool {
        self.claims.is_tagged
    }

    /// What vouches for it.
    pub fn chain(&self) -> &ChainProof {
        &self.chain
    }

    /// Whether the root is not AWS's, so that nothing real vouches for the document.
    pub fn is_simulated(&self) -> bool {
        self.chain.platform().is_simulated()
    }

    /// The root's fingerprint.
    pub fn root(&self) -> Fingerprint {
        self.chain.root()
    }

    /// The subjects (RFC 4514) from the document's own certificate to the root: escape them before they reach a terminal.
    pub fn subjects(&self) -> &[String] {
        self.chain.subjects()
    }

    /// The first moment at which every certificate is valid.
    pub fn valid_from(&self) -> Timestamp {
        self.chain.valid_from()
    }

    /// The last moment at which every certificate is valid: hours after the document was made.
    pub fn valid_until(&self) -> Timestamp {
        self.chain.valid_until()
    }

    /// As before anybody vouched for it.
    pub(crate) fn claims(&self) -> &Claims {
        &self.claims
    }
}

/// Verifies a document.
///
/// # Errors
///
/// Everything that is wrong with it. What an altered document says of its certificates explains nothing: they are judged
/// once its signature holds.
pub fn verify(document: &[u8], expected: &Expected) -> Result<VerifiedDocument, Rejection> {
    let sign1 = Sign1::parse(document).map_err(Failure::from)?;
    let payload = Payload::parse(sign1.payload).or_else(reject)?;
    let mut failures: Vec<Failure> = Vec::new();
    let answers_nonce = check_nonce(&payload, expected, &mut failures);
    let chain: Vec<_> = std::iter::once(&payload.certificate)
        .chain(payload.bundle.iter().rev())
        .collect();
    let Ok(leaf) = Certificate::from_der(&payload.certificate) else {
        // With the others that cannot be read.
        return reject(chain::parse(&chain).err().unwrap_or_default());
    };
    failures.extend(check_time(&payload, &leaf).map(Failure::from));
    if let Err(fault) = sign1.check_signature(&leaf) {
        failures.push(fault.into());
        return reject(failures);
    }
    let certificates = chain::parse(&chain).or_else(reject)?;
    match judge(&certificates, expected) {
        Ok((path, platform)) => {
            if !path.positions.iter().copied().eq(0..certificates.len()) {
                failures.push(NitroFault::BundleOrder {}.into());
            }
            Rejection::unless_empty(failures)?;
            Ok(VerifiedDocument {
                claims: Claims {
                    payload,
                    is_tagged: sign1.is_tagged,
                },
                chain: ChainProof::of_document(path, platform),
                answers_nonce,
            })
        }
        Err(faults) => {
            failures.extend(faults.into_iter().map(Failure::from));
            reject(failures)
        }
    }
}

/// When a document says that it was made; nobody vouches for it. For whoever wants to verify it for that very time, which
/// shows that it was good once, and not that it is recent.
///
/// # Errors
///
/// When it cannot be read.
pub fn unverified_timestamp(document: &[u8]) -> Result<Timestamp, Rejection> {
    let sign1 = Sign1::parse(document).map_err(Failure::from)?;
    let payload = Payload::parse(sign1.payload).or_else(reject)?;
    Ok(seconds(payload.timestamp))
}

/// Never succeeds.
fn reject<T, F: Into<Failure>>(faults: Vec<F>) -> Result<T, Rejection> {
    Rejection::unless_empty(faults.into_iter().map(Into::into).collect())?;
    // Nobody rejects without a fault, so this is not reached; if it were, nothing is verified.
    Err(Failure::from(NitroFault::Signature {}).into())
}

fn judge(
    certificates: &[Certificate],
    expected: &Expected,
) -> Result<(ProvenPath, PlatformKind), Vec<ChainFault>> {
    let mut faults = Vec::new();
    let root = certificates.last();
    let platform = root.and_then(|root| expected.trust_anchors.platform_of_documents(&root.fingerprint));
    if let (Some(root), None) = (root, platform) {
        faults.push(ChainFault::UnknownRoot {
            subject: root.subject_text.clone(),
            found: root.fingerprint,
        });
    }
    let purposes = Purposes::of_attestation_documents();
    let path = chain::judge(certificates, &purposes, faults, expected.time)?;
    // Without a platform there was a fault; if there were none, nobody real vouches for it.
    Ok((path, platform.unwrap_or(PlatformKind::LocalCa)))
}

fn seconds(milliseconds: u64) -> Timestamp {
    Timestamp::from_unix(i64::try_from(milliseconds / 1000).unwrap_or(i64::MAX))
}

/// The hypervisor makes certificate and document together.
fn check_time(payload: &Payload, leaf: &Certificate) -> Option<NitroFault> {
    let found = seconds(payload.timestamp);
    let (from, until) = (leaf.not_before, leaf.not_after);
    (!(from..=until).contains(&found)).then_some(NitroFault::MadeOutsideValidity { found, from, until })
}

/// Whether a nonce was compared.
fn check_nonce(payload: &Payload, expected: &Expected, failures: &mut Vec<Failure>) -> bool {
    let Some(nonce) = &expected.nonce else {
        return false;
    };
    let expected = hex::encode(nonce);
    let fault = match &payload.nonce {
        _ if nonce.is_empty() => NitroFault::EmptyNonce {},
        None => NitroFault::NonceMissing { expected },
        Some(found) if found != nonce => NitroFault::OtherNonce {
            expected,
            found: hex::encode(found),
        },
        Some(_) => return true,
    };
    failures.push(fault.into());
    true
}

/// What a document says of itself, before anybody vouches for it: for explaining what else is wrong where it does not hold.
#[derive(Debug, Clone)]
pub(crate) struct Claims {
    payload: Payload,
    pub(crate) is_tagged: bool,
}

impl Claims {
    pub(crate) fn read(document: &[u8]) -> Option<Self> {
        let sign1 = Sign1::parse(document).ok()?;
        Some(Self {
            payload: Payload::parse(sign1.payload).ok()?,
            is_tagged: sign1.is_tagged,
        })
    }

    pub(crate) fn pcrs(&self) -> &PcrValues {
        &self.payload.pcrs
    }

    pub(crate) fn nonce(&self) -> Option<&[u8]> {
        self.payload.nonce.as_deref()
    }

    pub(crate) fn user_data(&self) -> Option<&[u8]> {
        self.payload.user_data.as_deref()
    }

    pub(crate) fn public_key(&self) -> Option<&[u8]> {
        self.payload.public_key.as_deref()
    }

    pub(crate) fn timestamp(&self) -> Timestamp {
        seconds(self.payload.timestamp)
    }

    /// What its root would vouch for if it were believed.
    pub(crate) fn platform(&self) -> PlatformKind {
        let root = self.payload.bundle.first();
        root.map_or(PlatformKind::LocalCa, |root| {
            platform_of_document_root(&Fingerprint::of(root))
        })
    }
}

/// A `COSE_Sign1` whose headers are those of attestation documents.
struct Sign1<'a> {
    is_tagged: bool,
    protected: &'a [u8],
    payload: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Sign1<'a> {
    /// What is outside of the payload and of the protected header is not signed: it has one spelling, but for the tag, which
    /// may be left out.
    fn parse(document: &'a [u8]) -> Result<Self, NitroFault> {
        if document.len() > SIZE_LIMIT {
            return Err(NitroFault::TooLarge {
                found: document.len(),
                limit: SIZE_LIMIT,
            });
        }
        let mut reader = Reader::new(document);
        let is_tagged = reader.skip(TAG_SIGN1);
        if !reader.skip(0x84) {
            return Err(NitroFault::NotSign1 {
                reason: "it is not an array of four elements",
            });
        }
        let protected = bytes(&mut reader, "the protected header is not a byte string")?;
        check_protected(protected)?;
        if !reader.skip(0xa0) {
            return Err(match reader.peek() {
                // Any other map.
                Some(0xa1..=0xbf) => NitroFault::Unprotected {},
                _ => NitroFault::NotSign1 {
                    reason: "the unprotected header is not a map",
                },
            });
        }
        let payload = bytes(&mut reader, "the payload is not a byte string")?;
        let signature = bytes(&mut reader, "the signature is not a byte string")?;
        reader.finish().map_err(|error| NitroFault::Cbor {
            part: "document",
            error,
        })?;
        if signature.len() != 96 {
            return Err(NitroFault::SignatureLength {
                found: signature.len(),
            });
        }
        Ok(Self {
            is_tagged,
            protected,
            payload,
            signature,
        })
    }

    /// The signature is r and s, each as long as the field (RFC 9053, section 2.1), over the `Sig_structure` (RFC 9052,
    /// section 4.4) without external data.
    fn check_signature(&self, leaf: &Certificate) -> Result<(), NitroFault> {
        let Ok(key @ PublicKey::P384(_)) = &leaf.key else {
            return Err(NitroFault::Key {});
        };
        let (r, s) = self.signature.split_at(48);
        let signature = Signature::Ecdsa {
            hash: Hash::Sha384,
            r,
            s,
        };
        if key.verifies(&self.signed(), &signature) {
            Ok(())
        } else {
            Err(NitroFault::Signature {})
        }
    }

    fn signed(&self) -> Vec<u8> {
        [
            &[0x84, 0x6a][..],
            b"Signature1",
            &byte_string(self.protected),
            &byte_string(&[]),
            &byte_string(self.payload),
        ]
        .concat()
    }
}

/// `Reader::value` bounds what it reads.
fn bytes<'a>(reader: &mut Reader<'a>, reason: &'static str) -> Result<&'a [u8], NitroFault> {
    match reader.value() {
        Ok(Value::Bytes(bytes)) => Ok(bytes),
        Ok(_) => Err(NitroFault::NotSign1 { reason }),
        Err(error) => Err(NitroFault::Cbor {
            part: "document",
            error,
        }),
    }
}

fn check_protected(protected: &[u8]) -> Result<(), NitroFault> {
    let value = cbor::read(protected).map_err(|error| NitroFault::Cbor {
        part: "protected header",
        error,
    })?;
    let Value::Map(parameters) = value else {
        return Err(NitroFault::Protected {
            reason: "it is not a map",
        });
    };
    match &parameters[..] {
        [(Value::Unsigned(ALGORITHM), Value::Negative(ES384))] => Ok(()),
        [(Value::Unsigned(ALGORITHM), other)] => Err(NitroFault::Algorithm {
            found: match other {
                Value::Unsigned(number) => number.to_string(),
                Value::Negative(number) => (-1 - i128::from(*number)).to_string(),
                other => other.kind().to_owned(),
            },
        }),
        _ => Err(NitroFault::Protected {
            reason: "it has other parameters than the algorithm, or not that",
        }),
    }
}

/// A byte string in CBOR (RFC 8949, section 3), of at most [`SIZE_LIMIT`] bytes.
fn byte_string(bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len();
    let head = match length {
        0..24 => vec![0x40 | length as u8],
        24..0x100 => vec![0x58, length as u8],
        _ => vec![0x59, (length >> 8) as u8, length as u8],
    };
    [&head, bytes].concat()
}
