//! What a verification is told by whoever asks for it.

use aicert_core::digest::Nonce;
use aicert_core::time::Timestamp;

use crate::anchors::TrustAnchors;
use crate::chain::Pool;
use crate::policy::Policy;
use crate::reference::ReferenceValues;

/// What to believe, and what to hold a proof to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// The roots that are believed.
    pub trust_anchors: TrustAnchors,
    /// Certificates that chains may lack. They are believed no more than those that a proof brings along.
    pub intermediates: Pool,
    /// The time for which certificates must be valid.
    pub time: Timestamp,
    /// What machines are known to boot. Without an image among them, only a simulated TPM without a machine can be
    /// accepted: nobody could say what any other had booted.
    pub reference_values: ReferenceValues,
    /// What is demanded beyond that the proof is true. Unless it is set, [`Policy::for_own_root`]: simulated machines
    /// are accepted where [`Options::trust_anchors`] has a root for them, since that was added on purpose.
    pub policy: Policy,
    /// The challenge that the proof must answer; any when absent.
    pub expected_nonce: Option<Nonce>,
    /// Whether a proof that says that its job failed is accepted, for looking at it. It certifies no model: see
    /// [`crate::Verified::is_of_a_model`].
    pub accept_failed_job: bool,
    /// Whether a machine is trusted that has measured nothing of what it booted, so that anything may run there: a
    /// server that was started by hand, with a software TPM, for tests. Of attestations alone; a machine whose platform
    /// somebody vouches for is refused even then.
    pub dangerous_accept_unmeasured_machine: bool,
}

impl Options {
    /// Holds proofs to these trust anchors, at this time, and to everything that needs no further information.
    pub fn new(trust_anchors: TrustAnchors, time: Timestamp) -> Self {
        Self {
            trust_anchors,
            intermediates: Pool::new(),
            time,
            reference_values: ReferenceValues::default(),
            policy: Policy::for_own_root(),
            expected_nonce: None,
            accept_failed_job: false,
            dangerous_accept_unmeasured_machine: false,
        }
    }

    /// Completes chains with these certificates.
    #[must_use]
    pub fn with_intermediates(mut self, pool: Pool) -> Self {
        self.intermediates = pool;
        self
    }

    /// Knows these images and this firmware.
    #[must_use]
    pub fn with_reference_values(mut self, values: ReferenceValues) -> Self {
        self.reference_values = values;
        self
    }

    /// Demands what this policy says.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Accepts only a proof that answers this challenge.
    #[must_use]
    pub fn with_expected_nonce(mut self, nonce: Nonce) -> Self {
        self.expected_nonce = Some(nonce);
        self
    }

    /// Accepts a proof that says that its job failed.
    #[must_use]
    pub fn accepting_failed_jobs(mut self) -> Self {
        self.accept_failed_job = true;
        self
    }

    /// Trusts machines that have measured nothing: see [`Options::dangerous_accept_unmeasured_machine`].
    #[must_use]
    pub fn dangerous_accepting_unmeasured_machines(mut self) -> Self {
        self.dangerous_accept_unmeasured_machine = true;
        self
    }
}
