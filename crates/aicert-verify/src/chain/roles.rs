//! What each certificate of a chain may do.

use aicert_core::certificate::PlatformKind;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::KeyUsages;

use super::ChainFault;
use crate::x509::Certificate;

/// `tcg-kp-EKCertificate` and `tcg-kp-AIKCertificate` (TCG Credential Profiles, extended key usage).
const EK_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.1");
const AIK_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.3");

/// What a certificate may do follows from its place: the first is the key's, all others are authorities.
pub(super) fn check_roles(
    certificates: &[Certificate],
    path: &[usize],
    purposes: &Purposes,
    faults: &mut Vec<ChainFault>,
) {
    for (position, certificate) in certificates.iter().enumerate() {
        let subject = || certificate.subject_text.clone();
        if position == 0 {
            if certificate.is_ca || certificate.allows(KeyUsages::KeyCertSign) {
                faults.push(ChainFault::LeafIsAuthority { subject: subject() });
            }
            if certificate.key_usage.is_some() && !certificate.allows(KeyUsages::DigitalSignature) {
                faults.push(ChainFault::KeyUsage {
                    position,
                    subject: subject(),
                    expected: "digitalSignature",
                });
            }
        } else {
            if !certificate.is_ca {
                faults.push(ChainFault::NotAnAuthority {
                    position,
                    subject: subject(),
                });
            }
            if !certificate.allows(KeyUsages::KeyCertSign) {
                faults.push(ChainFault::KeyUsage {
                    position,
                    subject: subject(),
                    expected: "keyCertSign",
                });
            }
        }
        let (accepted, required) = if position == 0 {
            purposes.leaf
        } else {
            (purposes.authority, false)
        };
        let holds = match &certificate.extended_key_usage {
            Some(found) => found.iter().any(|purpose| accepted.contains(purpose)),
            None => !required,
        };
        if !holds {
            let list = |purposes: &[ObjectIdentifier]| {
                purposes
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            let found = certificate
                .extended_key_usage
                .as_deref()
                .map_or("none".to_owned(), list);
            faults.push(ChainFault::ExtendedKeyUsage {
                position,
                subject: subject(),
                expected: list(accepted),
                found,
            });
        }
    }
    // Intermediates below the one at `depth`: all between it and the leaf.
    for (depth, position) in path.iter().enumerate().skip(1) {
        let certificate = &certificates[*position];
        if let Some(expected) = certificate
            .path_length
            .filter(|limit| usize::from(*limit) < depth - 1)
        {
            let subject = certificate.subject_text.clone();
            faults.push(ChainFault::PathLength {
                position: *position,
                subject,
                expected,
                found: depth - 1,
            });
        }
    }
}

/// The extended key usages of a platform's certificates.
pub(crate) struct Purposes {
    /// What the leaf is accepted with, and whether it must have the extension.
    leaf: (&'static [ObjectIdentifier], bool),
    /// What authorities are accepted with, where they have the extension.
    authority: &'static [ObjectIdentifier],
}

impl Purposes {
    /// Those of certificates that vouch for attestation keys.
    pub(super) fn of_attestation_keys(platform: PlatformKind) -> Self {
        match platform {
            PlatformKind::AzureTrustedLaunch => Self {
                leaf: (&[AIK_CERTIFICATE], true),
                authority: &[AIK_CERTIFICATE],
            },
            // Google's leaves have no extended key usage, its authorities that of EK certificates.
            PlatformKind::GceShieldedVm => Self {
                leaf: (&[AIK_CERTIFICATE], false),
                authority: &[AIK_CERTIFICATE, EK_CERTIFICATE],
            },
            _ => Self {
                leaf: (&[AIK_CERTIFICATE], false),
                authority: &[AIK_CERTIFICATE, EK_CERTIFICATE],
            },
        }
    }

    /// Those of certificates that sign attestation documents of AWS: no certificate has the extension.
    pub(crate) fn of_attestation_documents() -> Self {
        Self {
            leaf: (&[], false),
            authority: &[],
        }
    }
}
