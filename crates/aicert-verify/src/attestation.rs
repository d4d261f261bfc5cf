//! Whether a machine may be trusted, before anything is sent to it.
//!
//! A machine's server answers a nonce with an [`Attestation`]: a quote over all its PCRs (or an attestation document), bound to the nonce and to the key
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
mod boot;
mod fault;

use aicert_core::attestation::{ATTESTATION_LIMIT, Attestation, MachineIdentity};
use aicert_core::canonical;
use aicert_core::certificate::{Certificate, PlatformKind};
use aicert_core::digest::{Nonce, TlsKeyDigest};
use aicert_core::time::Timestamp;
use aicert_core::tpm::{PcrIndex, PcrValues};

pub(crate) use advice::advice;
use boot::Names;
pub use boot::{AttestedBoot, AttestedSigner};
pub use fault::AttestationFault;

use crate::boot::{BootFacts, ExplainedBoot};
use crate::config::Options;
use crate::error::{Failure, Rejection};
use crate::policy::MachineFound;
use crate::quote::{self, AuthenticQuote, SessionBinding, SessionClaims};
use crate::reference::ImageReference;
use crate::steps::{Believed, Signed, Steps};
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
        let platform = explained.quote().quote().platform();
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
    let signed = Signed::new(
        &attestation.quote,
        &attestation.signature.0,
        &attestation.attestation_key,
        options,
    );
    let claims = SessionClaims::of(attestation);
    let (boot_event_log, references) = (&attestation.boot_event_log.0, &options.reference_values);
    let mut steps = Steps(failures);
    let believed = Believed {
        time: signed.time_of_answer(options.time),
        ..options.believed()
    };
    let quote = steps.authenticate(&signed, believed, |fault| fault);
    let quote = steps.next(
        quote,
        |quote| quote.bind_session(&claims, tls_key, nonce),
        || signed.inspect_unproven(|statement| quote::inspect_session(statement, &claims, tls_key, nonce)),
    );
    steps.next(
        quote,
        |quote| crate::boot::verify(quote, boot_event_log, references),
        || {
            let platform = signed.platform().unwrap_or(PlatformKind::LocalCa);
            let quote = signed.quote;
            crate::boot::examine(quote.bank, &quote.pcrs, boot_event_log, platform, references).1
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
    let boot_pcrs = crate::boot::BOOT_PCRS.filter_map(PcrIndex::new);
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
        let attested = AttestedBoot::new(attestation, boot.quote().quote(), boot.log);
        Self {
            boot,
            image,
            attested,
            at: options.time,
        }
    }

    /// What vouches for the machine's TPM.
    pub fn platform(&self) -> PlatformKind {
        self.quote().platform()
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

    /// Checks that it is the very machine that its provider speaks of, and not another that has booted the same image. What names
    /// an instance of a cloud counts only under that cloud's own root.
    ///
    /// # Errors
    ///
    /// When the evidence names another machine, or none.
    pub fn check_machine(&self, expected: &MachineIdentity) -> Result<(), Rejection> {
        self.compare_machine(expected, Names::OfTheirClouds)
    }

    /// As [`VerifiedAttestation::check_machine`], of machines that stand in for a cloud's: takes what is said of an instance under a root
    /// that was added by hand for what the cloud would say. Whoever has the key of that root can say it of any machine.
    ///
    /// # Errors
    ///
    /// When the evidence names another machine, or none.
    pub fn dangerous_check_simulated_machine(&self, expected: &MachineIdentity) -> Result<(), Rejection> {
        self.compare_machine(expected, Names::OfAnybody)
    }

    fn compare_machine(&self, expected: &MachineIdentity, names: Names) -> Result<(), Rejection> {
        boot::check_machine(self.quote(), expected, names)
            .map_err(|fault| Rejection::of_a_machine(vec![fault.into()]))
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
