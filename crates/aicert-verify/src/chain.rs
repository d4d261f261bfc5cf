//! Step 2: the certificates of the attestation key lead to a trusted root.
//!
//! The file carries exactly the certificates that are needed: the key's own, intermediates, the root. The path is found
//! by signatures, not by names alone, so authorities that renewed their key under the same name are no obstacle, in
//! whatever order they stand. Every certificate is held to every check; then rustls-webpki, which shares no parser with
//! this module, must accept the same path.

mod fault;

use aicert_core::certificate::PlatformKind;
use aicert_core::time::Timestamp;
use pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::KeyUsages;

pub use fault::ChainFault;

use crate::anchors::{Fingerprint, TrustAnchors, platform_of_root};
use crate::signature::{PublicKey, Remembering};
use crate::x509::{Certificate, CertificateError};

/// The largest number of certificates, leaf and root included.
pub const LENGTH_LIMIT: usize = 8;

/// `tcg-kp-EKCertificate` and `tcg-kp-AIKCertificate` (TCG Credential Profiles, extended key usage).
const EK_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.1");
const AIK_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.3");

/// Shows that a key's certificates lead to a trusted root, at the time that was verified for. Only [`verify`] makes it.
#[derive(Debug, Clone)]
pub struct ChainProof {
    pub(crate) key: PublicKey,
    platform: PlatformKind,
    root: Fingerprint,
    subjects: Vec<String>,
    valid_until: Timestamp,
}

impl ChainProof {
    /// What the root vouches for.
    pub fn platform(&self) -> PlatformKind {
        self.platform
    }

    /// The root's fingerprint.
    pub fn root(&self) -> Fingerprint {
        self.root
    }

    /// The subjects (RFC 4514) from the key's own certificate to the root. They are chosen by whoever issued the
    /// certificates: escape them before they reach a terminal.
    pub fn subjects(&self) -> &[String] {
        &self.subjects
    }

    /// The last moment at which every certificate is valid.
    pub fn valid_until(&self) -> Timestamp {
        self.valid_until
    }
}

/// Verifies a chain of DER certificates, the key's own first and the root last, for a time.
///
/// # Errors
///
/// Everything that is wrong with it. A chain is never accepted with a warning.
pub fn verify<C: AsRef<[u8]>>(
    chain: &[C],
    anchors: &TrustAnchors,
    at: Timestamp,
) -> Result<ChainProof, Vec<ChainFault>> {
    let certificates = parse(chain)?;
    // `parse` refuses fewer than two.
    let (leaf, root) = (&certificates[0], &certificates[certificates.len() - 1]);
    let mut faults = Vec::new();
    for (position, certificate) in certificates.iter().enumerate() {
        check_alone(position, certificate, at, &mut faults);
    }
    let platform = anchors.platform_of(&root.fingerprint);
    if platform.is_none() {
        faults.push(ChainFault::UnknownRoot {
            subject: root.subject_text.clone(),
            found: root.fingerprint,
        });
    }
    let path = find_path(&certificates, &mut faults);
    check_roles(
        &certificates,
        &path,
        platform.unwrap_or_else(|| platform_of_root(&root.der)),
        &mut faults,
    );
    if let (true, Some(platform), Ok(key)) = (faults.is_empty(), platform, &leaf.key) {
        let on_path: Vec<_> = path.iter().map(|position| &certificates[*position]).collect();
        ask_webpki(&on_path, at).map_err(|fault| vec![fault])?;
        return Ok(ChainProof {
            key: key.clone(),
            platform,
            root: root.fingerprint,
            subjects: on_path
                .iter()
                .map(|certificate| certificate.subject_text.clone())
                .collect(),
            valid_until: certificates
                .iter()
                .map(|certificate| certificate.not_after)
                .min()
                .unwrap_or(at),
        });
    }
    Err(faults)
}

/// The key that the first certificate of a chain certifies, for explaining other failures when the chain is not proven.
pub(crate) fn unproven_key<C: AsRef<[u8]>>(chain: &[C]) -> Option<PublicKey> {
    Certificate::from_der(chain.first()?.as_ref()).ok()?.key.ok()
}

fn parse<C: AsRef<[u8]>>(chain: &[C]) -> Result<Vec<Certificate>, Vec<ChainFault>> {
    if !(2..=LENGTH_LIMIT).contains(&chain.len()) {
        return Err(vec![ChainFault::Length { found: chain.len() }]);
    }
    let (mut certificates, mut faults) = (Vec::new(), Vec::new());
    for (position, der) in chain.iter().enumerate() {
        if let Some(first) = chain[..position]
            .iter()
            .position(|other| other.as_ref() == der.as_ref())
        {
            faults.push(ChainFault::Duplicate {
                first,
                again: position,
            });
        }
        match Certificate::from_der(der.as_ref()) {
            Ok(certificate) => certificates.push(certificate),
            Err(CertificateError::TooLarge(found)) => {
                faults.push(ChainFault::TooLarge {
                    position,
                    found,
                    limit: crate::x509::SIZE_LIMIT,
                });
            }
            Err(CertificateError::Pem) => faults.push(ChainFault::PemInDer { position }),
            Err(CertificateError::Der(reason)) => {
                faults.push(ChainFault::NotACertificate { position, reason })
            }
        }
    }
    if faults.is_empty() {
        Ok(certificates)
    } else {
        Err(faults)
    }
}

/// What can be said of a certificate whatever its place.
fn check_alone(position: usize, certificate: &Certificate, at: Timestamp, faults: &mut Vec<ChainFault>) {
    let subject = || certificate.subject_text.clone();
    if at < certificate.not_before {
        faults.push(ChainFault::NotYetValid {
            position,
            subject: subject(),
            from: certificate.not_before,
            at,
        });
    }
    if at > certificate.not_after {
        faults.push(ChainFault::Expired {
            position,
            subject: subject(),
            until: certificate.not_after,
            at,
        });
    }
    if certificate.scheme.is_none() {
        faults.push(ChainFault::Algorithm {
            position,
            subject: subject(),
            found: certificate.scheme_oid.to_string(),
        });
    }
    if let Err(error) = &certificate.key {
        faults.push(ChainFault::WeakKey {
            position,
            subject: subject(),
            reason: error.to_string(),
        });
    }
    for extension in &certificate.unknown_critical {
        faults.push(ChainFault::UnknownCriticalExtension {
            position,
            subject: subject(),
            found: extension.to_string(),
        });
    }
}

/// The positions from the leaf to the root, or as far as the links hold.
///
/// An intermediate off the path is tolerated for one reason: it has the name of one on the path, and is itself signed by
/// one on the path. Whoever assembled the chain by names could not tell them apart.
fn find_path(certificates: &[Certificate], faults: &mut Vec<ChainFault>) -> Vec<usize> {
    let root = certificates.len() - 1;
    let mut path = vec![0];
    let mut current = 0;
    while current != root {
        let Some(next) = issuer_of(certificates, current, &path, faults) else {
            break;
        };
        path.push(next);
        current = next;
    }
    if current != root {
        // What is not reached may only be unreached because of the broken link, which is already reported.
        return path;
    }
    for (position, certificate) in certificates.iter().enumerate() {
        let is_namesake = || {
            path[1..]
                .iter()
                .any(|other| certificates[*other].subject == certificate.subject)
        };
        let is_signed = || {
            path[1..]
                .iter()
                .map(|other| &certificates[*other])
                .any(|issuer| issuer.subject == certificate.issuer && certificate.is_signed_by(issuer))
        };
        let belongs = path.contains(&position) || (is_namesake() && is_signed());
        if !belongs {
            faults.push(ChainFault::Unused {
                position,
                subject: certificate.subject_text.clone(),
            });
        }
    }
    path
}

fn issuer_of(
    certificates: &[Certificate],
    position: usize,
    path: &[usize],
    faults: &mut Vec<ChainFault>,
) -> Option<usize> {
    let certificate = &certificates[position];
    let (subject, issuer) = (certificate.subject_text.clone(), certificate.issuer_text.clone());
    let named: Vec<_> = (1..certificates.len())
        .filter(|candidate| {
            !path.contains(candidate) && certificates[*candidate].subject == certificate.issuer
        })
        .collect();
    let signed: Vec<_> = named
        .iter()
        .copied()
        .filter(|candidate| certificate.is_signed_by(&certificates[*candidate]))
        .collect();
    match (&signed[..], &named[..]) {
        ([one], _) => return Some(*one),
        ([], []) => faults.push(ChainFault::IssuerMissing {
            position,
            subject,
            issuer,
        }),
        ([], _) if certificate.scheme.is_none() => {} // already reported: nothing can be said of its signature
        ([], _) => faults.push(ChainFault::BadSignature {
            position,
            subject,
            issuer,
        }),
        _ => faults.push(ChainFault::Ambiguous { position, subject }),
    }
    None
}

/// What a certificate may do follows from its place: the first is the key's, all others are authorities.
fn check_roles(
    certificates: &[Certificate],
    path: &[usize],
    platform: PlatformKind,
    faults: &mut Vec<ChainFault>,
) {
    let purposes = Purposes::of(platform);
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
struct Purposes {
    /// What the leaf is accepted with, and whether it must have the extension.
    leaf: (&'static [ObjectIdentifier], bool),
    /// What authorities are accepted with, where they have the extension.
    authority: &'static [ObjectIdentifier],
}

impl Purposes {
    fn of(platform: PlatformKind) -> Self {
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
}

/// Extended key usages differ from platform to platform: [`check_roles`] has checked them.
struct PurposesCheckedAbove;

impl webpki::ExtendedKeyUsageValidator for PurposesCheckedAbove {
    fn validate(&self, purposes: webpki::KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        for purpose in purposes {
            purpose?;
        }
        Ok(())
    }
}

/// Asks for a second opinion on a path whose links [`find_path`] has found to hold.
fn ask_webpki(path: &[&Certificate], at: Timestamp) -> Result<(), ChainFault> {
    let refused = |error: webpki::Error| ChainFault::SecondOpinion {
        found: error.to_string(),
    };
    let ders: Vec<_> = path
        .iter()
        .map(|certificate| CertificateDer::from(certificate.der.as_slice()))
        .collect();
    let [leaf, intermediates @ .., root] = &ders[..] else {
        return Err(ChainFault::Length { found: ders.len() });
    };
    let accepted: Vec<_> = path
        .windows(2)
        .filter_map(|link| link[0].accepted_signature(link[1]))
        .collect();
    let algorithms = Remembering::all(&accepted);
    let algorithms = algorithms
        .each_ref()
        .map(|algorithm| algorithm as &dyn SignatureVerificationAlgorithm);
    let anchor = webpki::anchor_from_trusted_cert(root).map_err(refused)?;
    let seconds = u64::try_from(at.as_unix()).unwrap_or(0);
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let leaf = webpki::EndEntityCert::try_from(leaf).map_err(refused)?;
    leaf.verify_for_usage(
        &algorithms,
        &[anchor],
        intermediates,
        time,
        PurposesCheckedAbove,
        None,
        None,
    )
    .map(|_| ())
    .map_err(refused)
}
