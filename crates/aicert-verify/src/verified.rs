//! The whole verification, and what is known once it has succeeded.

use aicert_core::certificate::{Certificate, InputSummary, OutputSummary, Platform, PlatformKind};
use aicert_core::digest::{Nonce, TreeRoot};
use aicert_core::event::{Event, JobResult};
use aicert_core::log::CompleteLog;
use aicert_core::time::Timestamp;

use crate::chain::{ChainFault, ChainProof};
use crate::config::Options;
use crate::error::{Failure, Rejection};
use crate::log::AuthenticLog;
use crate::parse::Unverified;
use crate::policy::{Facts, MachineFound};
use crate::quote::QuoteFault;
use crate::steps::{Signed, Steps};
use crate::{boot, log, quote, summary};

/// What was verified. Only [`verify`] makes it.
#[derive(Debug, Clone)]
pub struct Verified<T> {
    contents: T,
    log: AuthenticLog,
    at: Timestamp,
}

/// Verifies a proof.
///
/// The steps are those of the crate's documentation, each needing the proof that the one before it returned. Where one
/// fails, the others still run as far as they can, so that everything wrong is reported at once; nothing is verified
/// then.
///
/// # Errors
///
/// Everything that is wrong, or cannot be verified by this version.
pub fn verify(
    unverified: Unverified<Certificate>,
    options: &Options,
) -> Result<Verified<Certificate>, Rejection> {
    let certificate = unverified.into_unverified_contents();
    let mut failures = Vec::new();
    let signed = Signed::new(
        &certificate.low_level_quote,
        &certificate.signature.0,
        &certificate.attestation_key,
        options,
    );
    let platform = signed.platform().unwrap_or(certificate.platform.kind);
    let log = verify_evidence(&certificate, &signed, platform, options, &mut failures);
    // The log that the summaries are held to when the evidence does not hold: a claim, but a complete one.
    let claimed = log
        .is_none()
        .then(|| log::read(&certificate.measurement_log).ok())
        .flatten();
    let parts = match (&log, &claimed) {
        (Some(log), _) => Some(log.parts()),
        (None, Some(claimed)) => claimed.complete().ok(),
        (None, None) => None,
    };
    if let Some(parts) = &parts {
        failures.extend(
            summary::inspect(&certificate, parts, platform)
                .into_iter()
                .map(Failure::from),
        );
        if !options.accept_failed_job {
            failures.extend(log::inspect_result(parts).map(Failure::from));
        }
    }
    if let (true, Some(log)) = (failures.is_empty(), &log) {
        failures.extend(inspect_policy(log, options));
    }
    Rejection::unless_empty(failures)?;
    match log {
        Some(log) => Ok(Verified {
            contents: certificate,
            log,
            at: options.time,
        }),
        // Every step that returns nothing reports why, so this is not reached; if it were, nothing is verified.
        None => Err(Failure::from(QuoteFault::NotOpened {}).into()),
    }
}

/// What the verifier demands, beyond that the proof is true. Only what was verified is asked.
fn inspect_policy(log: &AuthenticLog, options: &Options) -> Vec<Failure> {
    let chain = log.boot().quote().quote().chain();
    let facts = Facts {
        log: &log.parts(),
        machine: MachineFound::of(chain.platform(), log.boot().facts()),
        key_valid_from: chain.leaf_issued(),
        at: options.time,
        // Another nonce than the expected one is a failure of the quote.
        answers_nonce: options.expected_nonce.is_some(),
    };
    options
        .policy
        .inspect(&facts)
        .into_iter()
        .map(Failure::from)
        .collect()
}

/// Steps 2 to 6 and the first half of 7.
fn verify_evidence(
    certificate: &Certificate,
    signed: &Signed<'_>,
    platform: PlatformKind,
    options: &Options,
    failures: &mut Vec<Failure>,
) -> Option<AuthenticLog> {
    let (bank, pcrs) = (signed.quote.bank, &signed.quote.pcrs);
    let nonce = &signed.quote.nonce;
    let events = &certificate.measurement_log;
    let boot_event_log = &certificate.boot_event_log.0;
    let mut steps = Steps(failures);
    let quote = steps.authenticate(signed, options.believed(), |fault| {
        hint_at_simulation(fault, certificate)
    });
    if let Some(fault) = unexpected_nonce(options, nonce) {
        steps.0.push(fault.into());
    }
    let quote = steps.next(
        quote,
        |quote| quote.bind(events, nonce),
        || signed.inspect_unproven(|statement| quote::inspect_binding(statement, events, nonce)),
    );
    let references = &options.reference_values;
    let boot = steps.next(
        quote,
        |quote| boot::verify(quote, boot_event_log, references),
        || boot::examine(bank, pcrs, boot_event_log, platform, references).1,
    );
    steps.next(
        boot,
        |boot| log::verify(boot, events),
        || log::inspect(bank, pcrs, events, boot_event_log),
    )
}

/// A root that is missing is explained to people who try things out; it is no less an error.
fn hint_at_simulation(fault: ChainFault, certificate: &Certificate) -> ChainFault {
    match fault {
        ChainFault::UnknownRoot { subject, found } if certificate.platform.kind == PlatformKind::LocalCa => {
            ChainFault::UnknownSimulatedRoot { subject, found }
        }
        other => other,
    }
}

fn unexpected_nonce(options: &Options, found: &Nonce) -> Option<QuoteFault> {
    let expected = options.expected_nonce?;
    (expected != *found).then_some(QuoteFault::Nonce {
        expected,
        found: *found,
    })
}

impl Verified<Certificate> {
    /// The certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.contents
    }

    /// The certificate, for whoever keeps nothing else.
    pub fn into_certificate(self) -> Certificate {
        self.contents
    }

    /// Everything that was recorded.
    pub fn log(&self) -> CompleteLog<'_> {
        self.log.parts()
    }

    /// Every event that was recorded, in order.
    pub fn events(&self) -> &[Event] {
        self.log.events()
    }

    /// Whether the job succeeded. Always true, unless failed jobs were accepted with
    /// [`Options::accepting_failed_jobs`]; only a job that succeeded certifies a model.
    pub fn is_of_a_model(&self) -> bool {
        self.contents.result == JobResult::Succeeded
    }

    /// The inputs, in the order of the configuration.
    pub fn inputs(&self) -> &[InputSummary] {
        &self.contents.inputs
    }

    /// The output files; empty when they are too many to be listed in a proof.
    pub fn outputs(&self) -> &[OutputSummary] {
        &self.contents.outputs
    }

    /// The root over all outputs.
    pub fn output_model_hash(&self) -> TreeRoot {
        self.contents.output_model_hash
    }

    /// The platform.
    pub fn platform(&self) -> &Platform {
        &self.contents.platform
    }

    /// Whether nothing real vouches for the TPM. Follows from the trust anchor, never from what the file says.
    pub fn is_simulated(&self) -> bool {
        self.chain().platform().is_simulated()
    }

    /// What vouches for who signed.
    pub fn chain(&self) -> &ChainProof {
        self.quote().chain()
    }

    /// The quote that shows that the log is what the TPM recorded.
    pub fn quote(&self) -> &quote::AuthenticQuote {
        self.log.boot().quote().quote()
    }

    /// What the machine booted.
    pub fn boot(&self) -> &boot::BootFacts {
        self.log.boot().facts()
    }

    /// The time that it was verified for.
    pub fn verified_at(&self) -> Timestamp {
        self.at
    }
}
