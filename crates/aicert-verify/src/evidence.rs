//! A TPM quote with its certificates, outside of any proof: as clouds and other tools hand them out.
//!
//! [`verify`] holds it to every check of a proof's quote that does not need a proof: the chain of certificates
//! ([`crate::chain`]), the attestation key ([`crate::key`]), the quote's structure, signature, PCR selection and PCR digest
//! ([`crate::quote`]); and compares the qualifying data with a nonce, if one is given.
//!
//! # What is not known without the public area
//!
//! A quote counts only when its key signs nothing but what its TPM made: a *restricted* key. The key's public area
//! (`TPMT_PUBLIC`) says whether it is one, but clouds hand out quotes without it. Azure and Compute Engine create the
//! attestation key themselves and certify no other for this purpose; what is accepted without a public area rests on that.
//! Below any other root the public area is demanded, and the quote must name the key by it, which binds it: see
//! [`crate::key`].
//!
//! # What a quote says nothing about
//!
//! It covers the PCRs that it selects, and no others. [`VerifiedQuote::pcrs`] holds exactly those; values that were given
//! beyond them are refused, or set aside where [`Expected::set_aside_pcrs_not_covered`] asks for it, and never appear as
//! verified.
//!
//! Without a nonce that the verifier chose, a quote may be of any age: [`VerifiedQuote::answers_nonce`] says whether one was
//! compared.

mod pcrs;

use aicert_core::certificate::PlatformKind;
use aicert_core::time::Timestamp;
use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues, TpmClock};

pub use pcrs::{PcrBanks, PcrsError};

use crate::anchors::{TrustAnchors, platform_name};
use crate::attest::{Attest, EitherSignature, EitherSignatureError};
use crate::chain::{self, ChainFault, ChainProof, Pool};
use crate::error::{Failure, Rejection};
use crate::key::{self, KeyFault, PublicArea, algorithm};
use crate::quote::{self, QuoteFault};
use crate::signature::{Hash, PublicKey, Signature};

/// What was handed out. Nothing in it is believed.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The signed structure, `TPMS_ATTEST`.
    pub message: &'a [u8],
    /// The signature: a `TPMT_SIGNATURE`, or an ECDSA signature in DER as some tools write it. Which of the two follows from
    /// the first byte.
    pub signature: &'a [u8],
    /// The PCR values. Those of the bank that the quote selects are compared; other banks are not looked at.
    pub pcrs: &'a PcrBanks,
    /// The certificates, in any order: the attestation key's own, intermediates and the root.
    pub certificates: &'a Pool,
    /// The attestation key's public area, `TPMT_PUBLIC`, where it is known.
    pub public: Option<&'a [u8]>,
}

/// What to believe, and what to hold a quote to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Expected {
    /// The roots that are believed.
    pub trust_anchors: TrustAnchors,
    /// The time for which certificates must be valid.
    pub time: Timestamp,
    /// The platform that it must be of; any when absent.
    pub platform: Option<PlatformKind>,
    /// What the qualifying data must be; any when absent.
    pub nonce: Option<Vec<u8>>,
    /// Whether values of PCRs that the quote does not cover are set aside rather than refused.
    pub set_aside_pcrs_not_covered: bool,
}

impl Expected {
    /// Holds a quote to these trust anchors, at this time, and to everything that needs no further information.
    pub fn new(trust_anchors: TrustAnchors, time: Timestamp) -> Self {
        Self {
            trust_anchors,
            time,
            platform: None,
            nonce: None,
            set_aside_pcrs_not_covered: false,
        }
    }

    /// Accepts only a quote of this platform.
    #[must_use]
    pub fn of_platform(mut self, platform: PlatformKind) -> Self {
        self.platform = Some(platform);
        self
    }

    /// Accepts only a quote whose qualifying data is exactly this.
    #[must_use]
    pub fn answering(mut self, nonce: impl Into<Vec<u8>>) -> Self {
        self.nonce = Some(nonce.into());
        self
    }

    /// Sets values aside that were given of PCRs which the quote does not cover. They are in no result but
    /// [`VerifiedQuote::pcrs_set_aside`], by number.
    #[must_use]
    pub fn setting_aside_pcrs_not_covered(mut self) -> Self {
        self.set_aside_pcrs_not_covered = true;
        self
    }
}

/// A quote for which every check has held. Only [`verify`] makes it.
#[derive(Debug, Clone)]
pub struct VerifiedQuote {
    chain: ChainProof,
    area: Option<PublicArea>,
    attest: Attest,
    bank: PcrBank,
    pcrs: PcrValues,
    set_aside: Vec<PcrIndex>,
    answers_nonce: bool,
}

impl VerifiedQuote {
    /// What the root vouches for.
    pub fn platform(&self) -> PlatformKind {
        self.chain.platform()
    }

    /// The name of the platform, as in proof files.
    pub fn platform_name(&self) -> &'static str {
        platform_name(self.platform())
    }

    /// Whether nothing real vouches for the TPM.
    pub fn is_simulated(&self) -> bool {
        self.platform().is_simulated()
    }

    /// What vouches for the key that signed.
    pub fn chain(&self) -> &ChainProof {
        &self.chain
    }

    /// The public area of the key that signed, if it was given. Where it is absent, that the key is restricted rests on what
    /// the platform's authority certifies.
    pub fn public_area(&self) -> Option<&PublicArea> {
        self.area.as_ref()
    }

    /// The bank of the PCRs.
    pub fn bank(&self) -> PcrBank {
        self.bank
    }

    /// The PCRs that the quote covers, and no others.
    pub fn pcrs(&self) -> &PcrValues {
        &self.pcrs
    }

    /// The PCRs of the same bank whose values were given, but which the quote does not cover: nothing is known about them.
    pub fn pcrs_set_aside(&self) -> &[PcrIndex] {
        &self.set_aside
    }

    /// What whoever asked for the quote gave the TPM to sign: a nonce, a hash, or nothing.
    pub fn qualifying_data(&self) -> &[u8] {
        &self.attest.extra_data
    }

    /// Whether the qualifying data was compared with a nonce. If not, the quote may be of any age.
    pub fn answers_nonce(&self) -> bool {
        self.answers_nonce
    }

    /// The TPM's clock in milliseconds, and how often it was reset and resumed.
    pub fn clock(&self) -> TpmClock {
        TpmClock {
            clock: self.attest.clock,
            reset_count: self.attest.reset_count.into(),
            restart_count: self.attest.restart_count.into(),
        }
    }

    /// Whether the TPM's clock is certain not to have shown the same value before, as it may after a loss of power.
    pub fn clock_is_safe(&self) -> bool {
        self.attest.safe
    }

    /// The version of the TPM's firmware, as its manufacturer encodes it.
    pub fn firmware_version(&self) -> u64 {
        self.attest.firmware_version
    }
}

/// Verifies a quote.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn verify(evidence: &Evidence<'_>, expected: &Expected) -> Result<VerifiedQuote, Rejection> {
    let mut failures = Vec::new();
    let (chain, certified) = verify_chain(evidence, expected, &mut failures);
    let area = verify_key(evidence, certified.as_ref(), chain.as_ref(), &mut failures);
    let mut faults = Vec::new();
    let quote = verify_quote(evidence, expected, certified.as_ref(), area.as_ref(), &mut faults);
    let answers_nonce = quote
        .as_ref()
        .is_some_and(|quote| check_nonce(&quote.attest, expected, &mut faults));
    failures.extend(faults.into_iter().map(Failure::from));
    Rejection::unless_empty(failures)?;
    match (chain, quote) {
        (Some(chain), Some(quote)) => Ok(VerifiedQuote {
            chain,
            area,
            attest: quote.attest,
            bank: quote.bank,
            pcrs: quote.pcrs,
            set_aside: quote.set_aside,
            answers_nonce,
        }),
        // What returns nothing has reported why, so this is not reached; if it were, nothing is verified.
        _ => Err(Failure::from(QuoteFault::Signature {}).into()),
    }
}

/// The proven chain; and the key that signed if the chain can be put together at all, for explaining what else is wrong.
fn verify_chain(
    evidence: &Evidence<'_>,
    expected: &Expected,
    failures: &mut Vec<Failure>,
) -> (Option<ChainProof>, Option<PublicKey>) {
    let Expected {
        trust_anchors, time, ..
    } = expected;
    let assembled = match evidence.certificates.assemble(trust_anchors, *time) {
        Ok(assembled) => assembled,
        Err(faults) => {
            failures.extend(faults.into_iter().map(Failure::from));
            return (None, None);
        }
    };
    let certified = chain::unproven_key(&assembled);
    let chain = chain::verify(&assembled, trust_anchors, *time)
        .map_err(|faults| failures.extend(faults.into_iter().map(Failure::from)))
        .ok();
    let found = chain.as_ref().map(ChainProof::platform);
    if let (Some(expected), Some(found)) = (expected.platform, found)
        && expected != found
    {
        let (expected, found) = (platform_name(expected), platform_name(found));
        failures.push(ChainFault::Platform { expected, found }.into());
    }
    (chain, certified)
}

fn verify_key(
    evidence: &Evidence<'_>,
    certified: Option<&PublicKey>,
    chain: Option<&ChainProof>,
    failures: &mut Vec<Failure>,
) -> Option<PublicArea> {
    let Some(public) = evidence.public else {
        let restricted_by_authority = matches!(
            chain.map(ChainProof::platform),
            Some(PlatformKind::AzureTrustedLaunch | PlatformKind::GceShieldedVm)
        );
        if chain.is_some() && !restricted_by_authority {
            failures.push(KeyFault::PublicAreaMissing {}.into());
        }
        return None;
    };
    failures.extend(key::inspect(public, certified).into_iter().map(Failure::from));
    PublicArea::parse(public).ok()
}

/// What a quote covers.
struct Covered {
    attest: Attest,
    bank: PcrBank,
    pcrs: PcrValues,
    set_aside: Vec<PcrIndex>,
}

/// Structure, signature, selection and digest. Returns nothing without a fault.
fn verify_quote(
    evidence: &Evidence<'_>,
    expected: &Expected,
    certified: Option<&PublicKey>,
    area: Option<&PublicArea>,
    faults: &mut Vec<QuoteFault>,
) -> Option<Covered> {
    let attest = Attest::parse(evidence.message)
        .map_err(|error| faults.push(quote::attest_fault(error)))
        .ok();
    let signature = EitherSignature::read(evidence.signature)
        .map_err(|error| faults.push(form_fault(error, evidence.signature)))
        .ok();
    let attest = attest?;
    let hash = signature.and_then(|signature| {
        let (scheme, signature) = with_hash(signature, &attest, area)
            .map_err(|fault| faults.push(fault))
            .ok()?;
        match (area, certified) {
            (Some(area), _) => {
                faults.extend(quote::check_signature(area, evidence.message, scheme, &signature).err())
            }
            (None, Some(key)) if !key.verifies(evidence.message, &signature) => {
                faults.push(QuoteFault::Signature {});
            }
            (None, _) => {}
        }
        Some(signature.hash())
    });
    faults.extend(area.and_then(|area| quote::check_signer(area, &attest)));
    let (bank, selected) = match &attest.selections[..] {
        [(id, selected)] => match PcrBank::from_algorithm_id(*id) {
            Some(PcrBank::Sha1) => {
                faults.push(QuoteFault::Sha1Bank {});
                return None;
            }
            Some(bank) => (bank, selected),
            None => {
                faults.push(QuoteFault::NotOneBank {
                    found: quote::banks(&attest),
                });
                return None;
            }
        },
        _ => {
            faults.push(QuoteFault::NotOneBank {
                found: quote::banks(&attest),
            });
            return None;
        }
    };
    if selected.is_empty() {
        faults.push(QuoteFault::NoPcrs {});
    }
    let Some(given) = evidence.pcrs.bank(bank) else {
        let found: Vec<_> = evidence.pcrs.banks().map(|bank| bank.to_string()).collect();
        let found = if found.is_empty() {
            "no bank".into()
        } else {
            found.join(", ")
        };
        faults.push(QuoteFault::BankNotGiven {
            expected: bank,
            found,
        });
        return None;
    };
    let missing: Vec<_> = selected.iter().filter(|pcr| !given.0.contains_key(pcr)).collect();
    let (mut pcrs, mut set_aside) = (PcrValues::default(), Vec::new());
    for (pcr, value) in &given.0 {
        if selected.contains(pcr) {
            pcrs.0.insert(*pcr, value.clone());
        } else {
            set_aside.push(*pcr);
        }
    }
    if !set_aside.is_empty() && !expected.set_aside_pcrs_not_covered {
        faults.push(QuoteFault::NotCovered {
            found: quote::list(&set_aside),
            covered: quote::list(selected),
        });
    }
    faults.extend(quote::check_lengths(bank, &pcrs));
    if !missing.is_empty() {
        faults.push(QuoteFault::NotGiven {
            missing: quote::list(missing),
        });
    } else if let Some(hash) = hash {
        faults.extend(quote::check_digest(&attest, &pcrs, hash));
    }
    Some(Covered {
        bank,
        pcrs,
        set_aside,
        attest,
    })
}

/// A signature in DER does not name its hash. The public area does; without it, the PCR digest shows it, which the TPM makes
/// with the hash of the key's scheme (TPM 2.0 Library, part 3, `TPM2_Quote`).
fn with_hash<'a>(
    signature: EitherSignature<'a>,
    attest: &Attest,
    area: Option<&PublicArea>,
) -> Result<(u16, Signature<'a>), QuoteFault> {
    match signature {
        EitherSignature::Tpm(scheme, signature) => Ok((scheme, signature)),
        EitherSignature::Der { r, s } => {
            let found = attest.pcr_digest.len();
            let hash = area
                .map(|area| area.hash)
                .or_else(|| Hash::from_digest_len(found))
                .ok_or(QuoteFault::HashUnknown { found })?;
            Ok((algorithm::ECDSA, Signature::Ecdsa { hash, r, s }))
        }
    }
}

fn form_fault(error: EitherSignatureError, signature: &[u8]) -> QuoteFault {
    match error {
        EitherSignatureError::Tpm(error) => quote::signature_fault(error),
        EitherSignatureError::Der(error) => QuoteFault::SignatureDer {
            reason: error.to_string(),
        },
        EitherSignatureError::Form => QuoteFault::SignatureForm {
            found: match signature {
                [] => "nothing".into(),
                some => hex::encode(&some[..some.len().min(2)]),
            },
        },
    }
}

/// Whether a nonce was compared.
fn check_nonce(attest: &Attest, expected: &Expected, faults: &mut Vec<QuoteFault>) -> bool {
    let Some(nonce) = &expected.nonce else {
        return false;
    };
    let expected = hex::encode(nonce);
    if nonce.is_empty() {
        faults.push(QuoteFault::EmptyNonce {});
    } else if attest.extra_data.is_empty() {
        faults.push(QuoteFault::NonceMissing { expected });
    } else if attest.extra_data != *nonce {
        let found = hex::encode(&attest.extra_data);
        faults.push(QuoteFault::OtherNonce { expected, found });
    }
    true
}
