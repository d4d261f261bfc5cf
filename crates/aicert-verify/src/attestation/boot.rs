//! What a machine is recognised by that was attested once.

use aicert_core::attestation::{Attestation, MachineIdentity};
use aicert_core::certificate::{Base64, Certificate, PlatformKind};
use aicert_core::digest::BootLogDigest;
use aicert_core::time::Timestamp;
use aicert_core::tpm::TpmClock;
use serde::{Deserialize, Serialize};

use super::AttestationFault;
use crate::anchors::Fingerprint;
use crate::error::{Failure, Rejection};
use crate::key::PublicArea;
use crate::nitro::{Claims, VerifiedDocument};
use crate::parse::Unverified;
use crate::quote::{AuthenticQuote, CLOCK_TOLERANCE, KeySigner, Signer};
use crate::verified::Verified;

/// What a machine is recognised by that was attested once. It comes from [`super::VerifiedAttestation::attested_boot`]; whoever
/// writes it down and reads it again must keep it where nobody else can write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttestedBoot {
    /// Who signed.
    pub signer: AttestedSigner,
    /// The digest of the boot log.
    pub boot_event_log: BootLogDigest,
}

/// Who signed the attestation, so that the signer of a proof can be compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum AttestedSigner {
    /// A key of the TPM.
    Key {
        /// Its public area, `TPMT_PUBLIC`.
        attestation_key: Base64,
        /// The TPM's clock and boot counters.
        clock: TpmClock,
    },
    /// The platform, in a document about the machine.
    Document {
        /// The machine's module.
        module_id: String,
        /// The root that the document's certificates ended in: the same name under another means nothing.
        root: Fingerprint,
        /// When the document was made.
        made: Timestamp,
    },
}

impl AttestedBoot {
    pub(super) fn new(
        attestation: &Attestation,
        quote: &AuthenticQuote,
        boot_event_log: BootLogDigest,
    ) -> Self {
        let signer = match quote.signer() {
            Signer::Key(signer) => AttestedSigner::Key {
                attestation_key: attestation.attestation_key.public.clone(),
                clock: signer.clock(),
            },
            Signer::Document(document) => AttestedSigner::Document {
                module_id: document.module_id().to_owned(),
                root: document.root(),
                made: document.timestamp(),
            },
        };
        Self {
            signer,
            boot_event_log,
        }
    }

    /// Whether another attestation was of the same machine, in whatever boot.
    pub fn is_of_the_machine_of(&self, other: &Self) -> bool {
        use AttestedSigner::{Document, Key};
        match (&self.signer, &other.signer) {
            (
                Key { attestation_key, .. },
                Key {
                    attestation_key: other,
                    ..
                },
            ) => attestation_key == other,
            (
                Document { module_id, root, .. },
                Document {
                    module_id: other_module,
                    root: other_root,
                    ..
                },
            ) => (module_id, root) == (other_module, other_root),
            (Key { .. }, Document { .. }) | (Document { .. }, Key { .. }) => false,
        }
    }

    /// The time for which to verify a proof that came over the pinned connection to this machine, and that may have been made
    /// long before it was fetched.
    ///
    /// The certificates of a document live three hours, and a proof may wait for longer until somebody fetches it. Whoever
    /// attested the machine knows that the proof was made since: so a document that says that it was made between then and
    /// `now` is verified for the time that it says. Everything else is verified for `now`, and is refused when it is expired.
    pub fn verification_time(&self, proof: &Unverified<Certificate>, now: Timestamp) -> Timestamp {
        let AttestedSigner::Document { made, .. } = &self.signer else {
            return now;
        };
        let latest = Timestamp::from_unix(now.as_unix().saturating_add(CLOCK_TOLERANCE));
        Claims::read(&proof.unverified_contents().low_level_quote.attest.0)
            .map(|claims| claims.timestamp())
            .filter(|claimed| (*made..=latest).contains(claimed))
            .unwrap_or(now)
    }

    /// Checks that a proof is from this boot of this machine.
    ///
    /// Where a key signed: the same attestation key, no reset and no restart in between, the job opened after the machine was
    /// attested, the same boot log. Where quotes are documents: the same machine and boot log, and a document that is not
    /// older than that of the attestation. Documents do not say how often a machine was restarted; that it was not follows
    /// from the proof having come over a connection with the key that was attested, which the server makes when it starts and
    /// never writes down.
    ///
    /// # Errors
    ///
    /// Everything in which it differs.
    pub fn check_proof(&self, proof: &Verified<Certificate>) -> Result<(), Rejection> {
        let opened = proof.log().opened;
        let mut faults = match (&self.signer, proof.quote().signer()) {
            (
                AttestedSigner::Key {
                    attestation_key,
                    clock,
                },
                Signer::Key(signer),
            ) => compare_keys(&attestation_key.0, clock, signer, &opened.tpm),
            (
                AttestedSigner::Document {
                    module_id,
                    root,
                    made,
                },
                Signer::Document(document),
            ) => compare_documents(module_id, root, *made, document),
            (AttestedSigner::Key { .. }, Signer::Document(_)) => {
                vec![AttestationFault::ProofOfOtherEvidence {
                    expected: "a key of its TPM",
                    found: "an attestation document",
                }]
            }
            (AttestedSigner::Document { .. }, Signer::Key(_)) => {
                vec![AttestationFault::ProofOfOtherEvidence {
                    expected: "an attestation document",
                    found: "a key of a TPM",
                }]
            }
        };
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

/// `opened` is what the log says: the verifier has held the quote's counters to it.
fn compare_keys(
    attested: &[u8],
    clock: &TpmClock,
    signer: &KeySigner,
    opened: &TpmClock,
) -> Vec<AttestationFault> {
    let mut faults = Vec::new();
    let found = signer.key().public_area().name();
    match PublicArea::parse(attested) {
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
    if counters(opened) != counters(clock) {
        faults.push(AttestationFault::ProofOfOtherBoot {
            expected: counted(clock),
            found: counted(opened),
        });
    } else if opened.clock < clock.clock {
        faults.push(AttestationFault::ProofTooEarly {
            expected: clock.clock,
            found: opened.clock,
        });
    }
    faults
}

fn compare_documents(
    module_id: &str,
    root: &Fingerprint,
    made: Timestamp,
    document: &VerifiedDocument,
) -> Vec<AttestationFault> {
    let mut faults = Vec::new();
    if document.module_id() != module_id || document.root() != *root {
        let name = |module_id: &str, root: &Fingerprint| format!("{module_id:?} under the root {root}");
        faults.push(AttestationFault::ProofOfOtherMachine {
            expected: name(module_id, root),
            found: name(document.module_id(), &document.root()),
        });
    }
    if document.timestamp() < made {
        faults.push(AttestationFault::ProofBeforeAttestation {
            expected: made,
            found: document.timestamp(),
        });
    }
    faults
}

/// Whose names of instances count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// Those that stand under the root of the cloud whose instances they are.
    OfTheirClouds,
    /// Those under an added root as well: whoever chose it says what he likes.
    OfAnybody,
}

/// What keeps the evidence from being that of the machine.
pub(super) fn check_machine(
    quote: &AuthenticQuote,
    expected: &MachineIdentity,
    names: Names,
) -> Result<(), AttestationFault> {
    let is_of = |cloud: PlatformKind| {
        let platform = quote.platform();
        platform == cloud || (names == Names::OfAnybody && platform.is_simulated())
    };
    let instance = |project: &str, zone: &str, instance: u64| {
        format!("the instance {instance} in zone {zone:?} of project {project:?}")
    };
    let (wanted, found) = match (expected, quote.signer()) {
        (MachineIdentity::AttestationKey(name), Signer::Key(signer)) => {
            let key = |name: &[u8]| format!("the one whose key is {}", hex::encode(name));
            (key(name), Some(key(signer.key().public_area().name())))
        }
        (
            MachineIdentity::Gce {
                project,
                zone,
                instance: number,
            },
            _,
        ) => {
            let named = quote
                .chain()
                .instance()
                .filter(|_| is_of(PlatformKind::GceShieldedVm));
            let found = named.map(|named| instance(&named.project_id, &named.zone, named.instance_id));
            (instance(project, zone, *number), found)
        }
        (MachineIdentity::Ec2 { instance }, signer) => {
            let found = match signer {
                Signer::Document(document) if is_of(PlatformKind::AwsNitroTpm) => {
                    Some(format!("the instance {:?}", document.instance_id()))
                }
                Signer::Document(_) | Signer::Key(_) => None,
            };
            (format!("the instance {instance:?}"), found)
        }
        (MachineIdentity::AttestationKey(name), Signer::Document(_)) => {
            (format!("the one whose key is {}", hex::encode(name)), None)
        }
        (other, _) => (format!("{other:?}"), None),
    };
    match found {
        Some(found) if found == wanted => Ok(()),
        found => Err(AttestationFault::OtherMachine {
            expected: wanted,
            found: found.unwrap_or_else(|| "one that its evidence does not name in this way".into()),
        }),
    }
}

fn other_key(expected: &[u8], found: &[u8]) -> AttestationFault {
    AttestationFault::ProofOfOtherKey {
        expected: hex::encode(expected),
        found: hex::encode(found),
    }
}
