//! Step 4: the quote is signed by the attestation key, or is an attestation document of the platform's; it covers the PCRs it
//! is shown with, and is about this log.

mod document;
mod fault;
mod session;
mod statement;

use std::collections::BTreeSet;

use aicert_core::certificate::{LowLevelQuote, PlatformKind, qualifying_data};
use aicert_core::digest::{LogHead, Nonce};
use aicert_core::event::{Event, EventContent, JobOpened};
use aicert_core::log::head_of;
use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues, TpmClock};

pub use document::authenticate_document;
pub(crate) use document::{inspect_beside, inspect_document};
pub use fault::QuoteFault;
pub(crate) use session::inspect_session;
pub use session::{SessionBinding, SessionClaims};
pub(crate) use statement::Statement;

use crate::attest::{Attest, AttestError, MAGIC, QUOTE_TYPE, SignatureError, read_signature};
use crate::chain::ChainProof;
use crate::key::{PublicArea, TrustedKey};
use crate::nitro::VerifiedDocument;
use crate::signature::{Hash, Signature};

/// By how much the clock of a machine may differ from that of whoever makes its attestation documents.
pub(crate) const CLOCK_TOLERANCE: i64 = 300;

/// A quote that somebody who is believed signed over exactly the PCR values it is shown with. What it is *about* is not known
/// before [`AuthenticQuote::bind`]. Only [`authenticate`] and [`authenticate_document`] make it.
#[derive(Debug, Clone)]
pub struct AuthenticQuote {
    signer: Signer,
    bank: PcrBank,
    pcrs: PcrValues,
}

/// Who signed a quote.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Signer {
    /// The TPM, with a certified key.
    Key(Box<KeySigner>),
    /// The platform, in an attestation document.
    Document(Box<VerifiedDocument>),
}

/// A key that signed, and what it signed beside the PCRs.
#[derive(Debug, Clone)]
pub struct KeySigner {
    key: TrustedKey,
    attest: Attest,
}

/// Authenticates a quote: structure, signature, PCR selection and PCR digest.
///
/// `signature` is a `TPMT_SIGNATURE`.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn authenticate(
    key: TrustedKey,
    quote: &LowLevelQuote,
    signature: &[u8],
) -> Result<AuthenticQuote, Vec<QuoteFault>> {
    let mut faults = inspect(Some(key.public_area()), quote, signature);
    match Attest::parse(&quote.attest.0) {
        Ok(attest) if faults.is_empty() => Ok(AuthenticQuote {
            signer: Signer::Key(Box::new(KeySigner { key, attest })),
            bank: quote.bank,
            pcrs: quote.pcrs.clone(),
        }),
        Ok(_) => Err(faults),
        Err(error) => {
            // `inspect` has said so already; a quote that cannot be read is never authentic.
            if faults.is_empty() {
                faults.push(attest_fault(error));
            }
            Err(faults)
        }
    }
}

/// Verifies that a trusted key made a signature (`TPMT_SIGNATURE`) over a quote (`TPMS_ATTEST`), and nothing else.
///
/// # Errors
///
/// When either is malformed, or the signature is not that key's.
pub fn verify_signature(key: &TrustedKey, attest: &[u8], signature: &[u8]) -> Result<(), QuoteFault> {
    Attest::parse(attest).map_err(attest_fault)?;
    let (scheme, signature) = read_signature(signature).map_err(signature_fault)?;
    check_signature(key.public_area(), attest, scheme, &signature)
}

pub(crate) fn check_signature(
    area: &PublicArea,
    attest: &[u8],
    scheme: u16,
    signature: &Signature<'_>,
) -> Result<(), QuoteFault> {
    if scheme != area.scheme || signature.hash() != area.hash {
        return Err(QuoteFault::NotTheKeysScheme {});
    }
    if !area.key.verifies(attest, signature) {
        return Err(QuoteFault::Signature {});
    }
    Ok(())
}

/// What is wrong with a quote, as far as the key is known.
pub(crate) fn inspect(area: Option<&PublicArea>, quote: &LowLevelQuote, signature: &[u8]) -> Vec<QuoteFault> {
    let mut faults = Vec::new();
    let attest = Attest::parse(&quote.attest.0)
        .map_err(|error| faults.push(attest_fault(error)))
        .ok();
    let signature_hash = match (area, read_signature(signature)) {
        (_, Err(error)) => {
            faults.push(signature_fault(error));
            None
        }
        (None, Ok((_, signature))) => Some(signature.hash()),
        (Some(area), Ok((scheme, signature))) => {
            if let Err(fault) = check_signature(area, &quote.attest.0, scheme, &signature) {
                faults.push(fault);
            }
            Some(signature.hash())
        }
    };
    check_values(quote, &mut faults);
    if let Some(attest) = &attest {
        check_selection(attest, quote, &mut faults);
        faults.extend(area.and_then(|area| check_signer(area, attest)));
        if let Some(hash) = signature_hash {
            faults.extend(check_digest(attest, &quote.pcrs, hash));
        }
    }
    faults
}

/// The quote must name the key that the public area describes.
pub(crate) fn check_signer(area: &PublicArea, attest: &Attest) -> Option<QuoteFault> {
    let expected = area.qualified_name();
    (expected != attest.qualified_signer).then(|| QuoteFault::QualifiedSigner {
        expected: hex::encode(expected),
        found: hex::encode(&attest.qualified_signer),
    })
}

pub(crate) fn attest_fault(error: AttestError) -> QuoteFault {
    match error {
        AttestError::Magic(found) => QuoteFault::Magic {
            expected: MAGIC,
            found,
        },
        AttestError::Type(found) => QuoteFault::Type {
            expected: QUOTE_TYPE,
            found,
        },
        AttestError::Malformed(error) => QuoteFault::Malformed { error },
    }
}

pub(crate) fn signature_fault(error: SignatureError) -> QuoteFault {
    match error {
        SignatureError::Malformed(error) => QuoteFault::SignatureMalformed { error },
        SignatureError::Scheme(found) => QuoteFault::Scheme {
            expected: "RSASSA (0x0014), RSAPSS (0x0016) or ECDSA (0x0018)",
            found,
        },
        SignatureError::Hash(found) => QuoteFault::Scheme {
            expected: "the hash SHA-256 (0x000b), SHA-384 (0x000c) or SHA-512 (0x000d)",
            found,
        },
    }
}

/// What is wrong with the values as the file shows them.
fn check_values(quote: &LowLevelQuote, faults: &mut Vec<QuoteFault>) {
    if quote.bank == PcrBank::Sha1 {
        faults.push(QuoteFault::Sha1Bank {});
    }
    check_coverage(quote, faults);
    faults.extend(check_lengths(quote.bank, &quote.pcrs));
}

fn check_coverage(quote: &LowLevelQuote, faults: &mut Vec<QuoteFault>) {
    let missing: Vec<_> = PcrIndex::quoted()
        .filter(|pcr| !quote.pcrs.0.contains_key(pcr))
        .collect();
    if !missing.is_empty() {
        faults.push(QuoteFault::PcrsMissing {
            expected: "0 to 15",
            missing: list(&missing),
        });
    }
}

pub(crate) fn check_lengths(bank: PcrBank, pcrs: &PcrValues) -> impl Iterator<Item = QuoteFault> {
    let expected = bank.digest_len();
    let wrong = pcrs.0.iter().filter(move |(_, value)| value.len() != expected);
    wrong.map(move |(pcr, value)| QuoteFault::ValueLength {
        pcr: *pcr,
        expected,
        found: value.len(),
    })
}

fn check_selection(attest: &Attest, quote: &LowLevelQuote, faults: &mut Vec<QuoteFault>) {
    let [(bank, quoted)] = &attest.selections[..] else {
        faults.push(QuoteFault::Bank {
            expected: quote.bank,
            found: banks(attest),
        });
        return;
    };
    if *bank != quote.bank.algorithm_id() {
        faults.push(QuoteFault::Bank {
            expected: quote.bank,
            found: format!("{bank:#06x}"),
        });
    }
    let shown: BTreeSet<_> = quote.pcrs.0.keys().copied().collect();
    if *quoted != shown {
        faults.push(QuoteFault::Selection {
            expected: list(&shown),
            found: list(quoted),
        });
    }
}

/// The banks that a quote covers, for people.
pub(crate) fn banks(attest: &Attest) -> String {
    let banks: Vec<_> = attest
        .selections
        .iter()
        .map(|(bank, _)| format!("{bank:#06x}"))
        .collect();
    if banks.is_empty() {
        "none".into()
    } else {
        banks.join(", ")
    }
}

/// The PCR digest is made with the hash of the signature scheme, over the values in the order of their numbers
/// (TPM 2.0 Library, part 3, `TPM2_Quote`).
pub(crate) fn check_digest(attest: &Attest, pcrs: &PcrValues, hash: Hash) -> Option<QuoteFault> {
    let found = hash.of(pcrs.0.values().map(Vec::as_slice));
    (found != attest.pcr_digest).then(|| QuoteFault::PcrDigest {
        expected: hex::encode(&attest.pcr_digest),
        found: hex::encode(found),
    })
}

pub(crate) fn list<'a>(pcrs: impl IntoIterator<Item = &'a PcrIndex>) -> String {
    let numbers: Vec<_> = pcrs.into_iter().map(ToString::to_string).collect();
    if numbers.is_empty() {
        "none".into()
    } else {
        numbers.join(",")
    }
}

/// A quote of which it is known what it is about: one log, or one connection ([`SessionBinding`]). Only
/// [`AuthenticQuote::bind`] and [`AuthenticQuote::bind_session`] make it.
#[derive(Debug, Clone)]
pub struct BoundQuote<To = LogHead> {
    quote: AuthenticQuote,
    /// What it is about.
    pub(crate) to: To,
}

impl KeySigner {
    /// The key that signed.
    pub fn key(&self) -> &TrustedKey {
        &self.key
    }

    /// The version of the TPM's firmware, as its manufacturer encodes it.
    pub fn firmware_version(&self) -> u64 {
        self.attest.firmware_version
    }

    /// The TPM's clock and its boot counters when it signed.
    pub fn clock(&self) -> TpmClock {
        TpmClock {
            clock: self.attest.clock,
            reset_count: self.attest.reset_count.into(),
            restart_count: self.attest.restart_count.into(),
        }
    }
}

impl AuthenticQuote {
    /// Who signed.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// What vouches for who signed.
    pub fn chain(&self) -> &ChainProof {
        match &self.signer {
            Signer::Key(signer) => signer.key.chain(),
            Signer::Document(document) => document.chain(),
        }
    }

    /// What the root vouches for.
    pub fn platform(&self) -> PlatformKind {
        self.chain().platform()
    }

    /// The bank of the PCRs.
    pub fn bank(&self) -> PcrBank {
        self.bank
    }

    /// The PCR values that were signed.
    pub fn pcrs(&self) -> &PcrValues {
        &self.pcrs
    }

    fn statement(&self) -> Statement<'_> {
        match &self.signer {
            Signer::Key(signer) => Statement::Attest(&signer.attest),
            Signer::Document(document) => Statement::Document(document.claims()),
        }
    }

    /// Verifies that the quote is about these events and this nonce, and from the boot in which the log was opened. A document
    /// does not tell one boot from another; it must not be older than the log.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn bind(self, events: &[Event], nonce: &Nonce) -> Result<BoundQuote, Vec<QuoteFault>> {
        let faults = inspect_binding(self.statement(), events, nonce);
        match head_of(events).ok() {
            Some(head) if faults.is_empty() => Ok(BoundQuote {
                quote: self,
                to: head,
            }),
            _ => Err(faults),
        }
    }
}

impl<To> BoundQuote<To> {
    /// The quote.
    pub fn quote(&self) -> &AuthenticQuote {
        &self.quote
    }
}

/// What is wrong with what a quote is about, whether or not it is authentic.
pub(crate) fn inspect_binding(statement: Statement<'_>, events: &[Event], nonce: &Nonce) -> Vec<QuoteFault> {
    let mut faults = Vec::new();
    let found = statement.qualifying_data();
    match head_of(events).ok().map(|head| qualifying_data(&head, nonce)) {
        Some(expected) if found.is_empty() => {
            faults.push(QuoteFault::NothingBound {
                expected: hex::encode(expected),
            });
        }
        Some(expected) if found != expected => {
            let (expected, found) = (hex::encode(expected), hex::encode(found));
            faults.push(QuoteFault::QualifyingData { expected, found });
        }
        Some(_) => {}
        // Only an event that has no canonical form has no digest.
        None => faults.push(QuoteFault::NotOpened {}),
    }
    let Some(opened) = opened(events) else {
        faults.push(QuoteFault::NotOpened {});
        return faults;
    };
    match statement {
        Statement::Attest(attest) => inspect_boot(attest, opened, &mut faults),
        Statement::Document(claims) => {
            let (expected, found) = (opened.time, claims.timestamp());
            if found.as_unix().saturating_add(CLOCK_TOLERANCE) < expected.as_unix() {
                faults.push(QuoteFault::DocumentTooEarly { expected, found });
            }
        }
    }
    faults
}

/// The quote must be of the boot in which the log was opened.
fn inspect_boot(attest: &Attest, opened: &JobOpened, faults: &mut Vec<QuoteFault>) {
    let (reset, restart) = (u64::from(attest.reset_count), u64::from(attest.restart_count));
    if reset != opened.tpm.reset_count {
        faults.push(QuoteFault::ResetCount {
            expected: opened.tpm.reset_count,
            found: reset,
        });
    }
    if restart != opened.tpm.restart_count {
        faults.push(QuoteFault::RestartCount {
            expected: opened.tpm.restart_count,
            found: restart,
        });
    }
    if attest.clock < opened.tpm.clock {
        faults.push(QuoteFault::Clock {
            expected: opened.tpm.clock,
            found: attest.clock,
        });
    }
}

fn opened(events: &[Event]) -> Option<&JobOpened> {
    match events.first().map(|event| &event.content) {
        Some(EventContent::JobOpened(opened)) => Some(opened),
        _ => None,
    }
}
