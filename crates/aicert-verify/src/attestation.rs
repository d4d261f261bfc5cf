//! Whether a machine may be trusted, before anything is sent to it.
//!
//! A machine's server answers a nonce with an [`Attestation`]: a quote over all its PCRs, bound to the nonce and to the key
//! of its TLS connections. [`verify_attestation`] takes the same steps as [`crate::verify`] does with a proof, and then holds
//! the machine to more:
//!
//! * the quote is about the TLS key of *this* connection, and about a nonce that was made up for it: otherwise somebody
//!   stands in between, or shows an answer of another machine or of another day;
//! * PCR 14 and PCR 15 are zero: nobody has used the machine since it booted;
//! * an image of the reference values was booted. A TPM without a machine, which a proof may come from when it is marked
//!   simulated, is refused, unless [`Options::dangerous_accept_unmeasured_machine`] says otherwise.
//!
//! What comes out is a [`VerifiedAttestation`], which nothing else makes. It also tells whether a proof that comes back
//! later is from the very machine and boot that was attested ([`VerifiedAttestation::check_proof`]); [`AttestedBoot`] is what
//! that needs, for who must write it down.

mod advice;
mod fault;

use aicert_core::attestation::{ATTESTATION_LIMIT, Attestation};
use aicert_core::canonical;
use aicert_core::certificate::{Base64, Certificate, PlatformKind};
use aicert_core::digest::{BootLogDigest, Nonce, TlsKeyDigest};
use aicert_core::time::Timestamp;
use aicert_core::tpm::{PcrIndex, PcrValues, TpmClock};
use serde::{Deserialize, Serialize};

pub(crate) use advice::advice;
pub use fault::AttestationFault;

use crate::anchors::platform_of_root;
use crate::boot::{self, BootFacts, ExplainedBoot};
use crate::config::Options;
use crate::error::{Failure, Rejection};
use crate::key::PublicArea;
use crate::policy::MachineFound;
use crate::quote::{self, AuthenticQuote, SessionBinding, SessionClaims};
use crate::reference::ImageReference;
use crate::steps::{Signed, Steps};
use crate::verified::Verified;

/// Reads an attestation of at most [`ATTESTATION_LIMIT`] bytes. That it can be read says nothing about whether it is true.
///
/// # Errors
///
/// When it is none, or spelled in any but the one accepted way (white space between tokens aside).
pub fn read(bytes: &[u8]) -> Result<Attestation, Rejection> {
    canonical::from_slice(bytes, ATTESTATION_LIMIT).map_err(|error| {
        let fault = AttestationFault::from(error);
        Rejection::of_a_machine(vec![fault.into()])
    })
}

/// Verifies that a machine is one that may be trusted, and that nobody stands between it and this connection.
///
/// `tls_key` is the key of the connection over which the attestation came, as the handshake has shown it; `nonce` was made
/// up for this request. [`Options::expected_nonce`] and everything about jobs are not looked at.
///
/// # Errors
///
/// Everything that is wrong, or cannot be verified by this version. Nothing may be sent to the machine then.
pub fn verify_attestation(
    attestation: &Attestation,
    tls_key: &TlsKeyDigest,
    nonce: &Nonce,
    options: &Options,
) -> Result<VerifiedAttestation, Rejection> {
    let mut failures = Vec::new();
    let explained = verify_evidence(attestation, tls_key, nonce, options, &mut failures);
    failures.extend(inspect_use(&attestation.quote.pcrs).map(Failure::from));
    if !options.dangerous_accept_unmeasured_machine {
        failures.extend(inspect_measured(attestation, options).map(Failure::from));
    }
    if let (true, Some(explained)) = (failures.is_empty(), &explained) {
        let platform = explained.quote().quote().key().chain().platform();
        let machine = MachineFound::of(platform, explained.facts());
        let faults = options.policy.inspect_machine(&machine);
        failures.extend(faults.into_iter().map(Failure::from));
    }
    match explained {
        Some(boot) if failures.is_empty() => {
            if boot.facts().image().is_none() && !options.dangerous_accept_unmeasured_machine {
                let fault = AttestationFault::NothingMeasured {};
                return Err(Rejection::of_a_machine(vec![fault.into()]));
            }
            Ok(VerifiedAttestation::new(attestation, boot, options))
        }
        // Every step that returns nothing reports why, so there are failures; if there were none, nothing is verified.
        None if failures.is_empty() => {
            let fault = AttestationFault::NothingMeasured {};
            Err(Rejection::of_a_machine(vec![fault.into()]))
        }
        _ => Err(Rejection::of_a_machine(failures)),
    }
}

/// Steps 2 to 6, with the binding to the connection where a proof has that to its log.
fn verify_evidence(
    attestation: &Attestation,
    tls_key: &TlsKeyDigest,
    nonce: &Nonce,
    options: &Options,
    failures: &mut Vec<Failure>,
) -> Option<ExplainedBoot<SessionBinding>> {
    let chain = options.chain_of(&attestation.attestation_key);
    let signed = Signed {
        chain: &chain,
        public: &attestation.attestation_key.public.0,
        quote: &attestation.quote,
        signature: &attestation.signature.0,
    };
    let claims = SessionClaims::of(attestation);
    let (boot_event_log, references) = (&attestation.boot_event_log.0, &options.reference_values);
    let mut steps = Steps(failures);
    let quote = steps.authenticate(&signed, options, |fault| fault);
    let quote = steps.next(
        quote,
        |quote| quote.bind_session(&claims, tls_key, nonce),
        || quote::inspect_unproven_session(&signed.quote.attest.0, &claims, tls_key, nonce),
    );
    steps.next(
        quote,
        |quote| boot::verify(quote, boot_event_log, references),
        || {
            let platform = chain
                .last()
                .map_or(PlatformKind::LocalCa, |root| platform_of_root(root));
            let quote = signed.quote;
            boot::examine(quote.bank, &quote.pcrs, boot_event_log, platform, references).1
        },
    )
}

/// What the PCRs of the job show.
fn inspect_use(pcrs: &PcrValues) -> impl Iterator<Item = AttestationFault> {
    [PcrIndex::INPUTS, PcrIndex::OUTPUTS]
        .into_iter()
        .filter_map(|pcr| {
            let value = pcrs.0.get(&pcr)?;
            let is_zero = value.iter().all(|byte| *byte == 0);
            (!is_zero).then(|| AttestationFault::Used {
                pcr,
                found: hex::encode(value),
            })
        })
}

/// What is missing for knowing what a machine has booted. The steps before accept a TPM without a machine where a
/// simulation was asked for, and need no reference values then.
fn inspect_measured(attestation: &Attestation, options: &Options) -> Option<AttestationFault> {
    let is_empty = attestation.boot_event_log.0.is_empty();
    let is_zero = |value: &Vec<u8>| value.iter().all(|byte| *byte == 0);
    let boot_pcrs = boot::BOOT_PCRS.filter_map(PcrIndex::new);
    let mut values = boot_pcrs.filter_map(|pcr| attestation.quote.pcrs.0.get(&pcr));
    if is_empty && values.all(is_zero) {
        return Some(AttestationFault::NothingMeasured {});
    }
    // A log that is there is held to the reference values, which fails when there are none.
    (is_empty && options.reference_values.images.is_empty()).then_some(AttestationFault::NoReferenceValues {})
}

/// A machine that may be trusted over one connection. Only [`verify_attestation`] makes it.
#[derive(Debug, Clone)]
pub struct VerifiedAttestation {
    boot: ExplainedBoot<SessionBinding>,
    image: Option<ImageReference>,
    attested: AttestedBoot,
    at: Timestamp,
}

impl VerifiedAttestation {
    fn new(attestation: &Attestation, boot: ExplainedBoot<SessionBinding>, options: &Options) -> Self {
        let image = boot.facts().image().and_then(|name| {
            let images = &options.reference_values.images;
            images.iter().find(|image| image.name == name).cloned()
        });
        let attested = AttestedBoot {
            attestation_key: attestation.attestation_key.public.clone(),
            clock: boot.quote().quote().clock(),
            boot_event_log: boot.log,
        };
        Self {
            boot,
            image,
            attested,
            at: options.time,
        }
    }

    /// What vouches for the machine's TPM.
    pub fn platform(&self) -> PlatformKind {
        self.quote().key().chain().platform()
    }

    /// Whether nothing real vouches for the TPM. Follows from the trust anchor, never from what the machine says.
    pub fn is_simulated(&self) -> bool {
        self.platform().is_simulated()
    }

    /// The reference values of the image that was booted; none of a machine that measured nothing, which is accepted only
    /// with [`Options::dangerous_accept_unmeasured_machine`].
    pub fn image(&self) -> Option<&ImageReference> {
        self.image.as_ref()
    }

    /// What was booted: image, firmware, Secure Boot.
    pub fn boot(&self) -> &BootFacts {
        self.boot.facts()
    }

    /// The quote that shows all this.
    pub fn quote(&self) -> &AuthenticQuote {
        self.boot.quote().quote()
    }

    /// The TPM's clock and its boot counters.
    pub fn clock(&self) -> TpmClock {
        self.attested.clock
    }

    /// The key that connections to the machine are served with, for pinning it.
    pub fn tls_key(&self) -> &TlsKeyDigest {
        self.boot.quote().to.tls_key()
    }

    /// The nonce that was answered.
    pub fn nonce(&self) -> &Nonce {
        self.boot.quote().to.nonce()
    }

    /// What is needed to recognise this boot of this machine later.
    pub fn attested_boot(&self) -> &AttestedBoot {
        &self.attested
    }

    /// The time that it was verified for.
    pub fn verified_at(&self) -> Timestamp {
        self.at
    }

    /// Checks that a proof is from the very machine and boot that was attested: see [`AttestedBoot::check_proof`].
    ///
    /// # Errors
    ///
    /// When it is not.
    pub fn check_proof(&self, proof: &Verified<Certificate>) -> Result<(), Rejection> {
        self.attested.check_proof(proof)
    }
}

/// What a machine is recognised by that was attested once. It comes from [`VerifiedAttestation::attested_boot`]; whoever
/// writes it down and reads it again must keep it where nobody else can write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttestedBoot {
    /// The public area of the key that signed, `TPMT_PUBLIC`.
    pub attestation_key: Base64,
    /// The TPM's clock and boot counters.
    pub clock: TpmClock,
    /// The digest of the boot log.
    pub boot_event_log: BootLogDigest,
}

impl AttestedBoot {
    /// Checks that a proof is from this boot of this machine: the same attestation key, no reset and no restart in
    /// between, the job opened after the machine was attested, the same boot log.
    ///
    /// # Errors
    ///
    /// Everything in which it differs.
    pub fn check_proof(&self, proof: &Verified<Certificate>) -> Result<(), Rejection> {
        let opened = proof.log().opened;
        let mut faults = Vec::new();
        let found = proof.quote().key().public_area().name();
        match PublicArea::parse(&self.attestation_key.0) {
            Ok(area) if area.name() == found => {}
            Ok(area) => faults.push(other_key(area.name(), found)),
            Err(_) => faults.push(other_key(&[], found)),
        }
        let counted = |clock: &TpmClock| {
            format!(
                "{} resets and {} restarts",
                clock.reset_count, clock.restart_count
            )
        };
        let counters = |clock: &TpmClock| (clock.reset_count, clock.restart_count);
        // The verifier has held the quote's counters to those of `job_opened`.
        if counters(&opened.tpm) != counters(&self.clock) {
            faults.push(AttestationFault::ProofOfOtherBoot {
                expected: counted(&self.clock),
                found: counted(&opened.tpm),
            });
        } else if opened.tpm.clock < self.clock.clock {
            faults.push(AttestationFault::ProofTooEarly {
                expected: self.clock.clock,
                found: opened.tpm.clock,
            });
        }
        if opened.boot_event_log != self.boot_event_log {
            faults.push(AttestationFault::ProofOfOtherBootLog {
                expected: self.boot_event_log,
                found: opened.boot_event_log,
            });
        }
        if faults.is_empty() {
            Ok(())
        } else {
            let failures = faults.into_iter().map(Failure::from).collect();
            Err(Rejection::of_a_machine(failures))
        }
    }
}

fn other_key(expected: &[u8], found: &[u8]) -> AttestationFault {
    AttestationFault::ProofOfOtherKey {
        expected: hex::encode(expected),
        found: hex::encode(found),
    }
}
