//! Step 2: the certificates of the attestation key lead to a trusted root.
//!
//! The file carries exactly the certificates that are needed: the key's own, intermediates, the root. The path is found
//! by signatures, not by names alone, so authorities that renewed their key under the same name are no obstacle, in
//! whatever order they stand. Every certificate is held to every check; then rustls-webpki, which shares no parser with
//! this module, must accept the same path.
//!
//! Where certificates are at hand in no order, or a chain lacks some, [`Pool`] puts together what [`verify`] then judges.

mod fault;
mod instance;
mod issuers;
mod pool;
mod roles;

use aicert_core::certificate::{EvidenceKind, PlatformKind};
use aicert_core::time::Timestamp;
use pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};

pub use fault::{ChainFault, IssuerUrl};
pub use instance::{InstanceInfo, SecurityProperties};
pub use issuers::{certificates_of_file, is_issued_by, issuer, issuer_urls};
pub use pool::{POOL_LIMIT, Pool, PoolError};

use crate::anchors::{Fingerprint, NITRO_ROOT, TrustAnchors, platform_of_root};
use crate::signature::{PublicKey, Remembering};
use crate::x509::{Certificate, CertificateError, shorten};
pub(crate) use roles::Purposes;
use roles::check_roles;

/// The largest number of certificates, leaf and root included.
pub const LENGTH_LIMIT: usize = 8;

/// Shows that certificates lead to a trusted root, at the time that was verified for: those of an attestation key, or those of
/// an attestation document. Only [`verify`] and [`crate::nitro::verify`] make it.
#[derive(Debug, Clone)]
pub struct ChainProof {
    path: ProvenPath,
    platform: PlatformKind,
    evidence: EvidenceKind,
    instance: Option<InstanceInfo>,
}

impl ChainProof {
    /// What the root vouches for.
    pub fn platform(&self) -> PlatformKind {
        self.platform
    }

    /// What the certificates are for. One that vouches for documents vouches for no key of a TPM.
    pub fn evidence(&self) -> EvidenceKind {
        self.evidence
    }

    /// The root's fingerprint.
    pub fn root(&self) -> Fingerprint {
        self.path.root
    }

    /// The subjects (RFC 4514) from the key's own certificate to the root. They are chosen by whoever issued the
    /// certificates: escape them before they reach a terminal.
    pub fn subjects(&self) -> &[String] {
        &self.path.subjects
    }

    /// The first moment at which every certificate is valid.
    pub fn valid_from(&self) -> Timestamp {
        self.path.valid_from
    }

    /// The last moment at which every certificate is valid.
    pub fn valid_until(&self) -> Timestamp {
        self.path.valid_until
    }

    /// From when the key's own certificate is valid: about when it was issued, and before anything that the key signed
    /// under it.
    pub fn leaf_issued(&self) -> Timestamp {
        self.path.leaf_validity.0
    }

    /// The machine that the key's own certificate is for, where it says so as Compute Engine's do. Whoever issued the
    /// certificate vouches for it; under a root that is not Google's ([`ChainProof::platform`]) that is not Google.
    pub fn instance(&self) -> Option<&InstanceInfo> {
        self.instance.as_ref()
    }

    pub(crate) fn key(&self) -> &PublicKey {
        &self.path.key
    }

    /// The chain of an attestation document.
    pub(crate) fn of_document(path: ProvenPath, platform: PlatformKind) -> Self {
        Self {
            path,
            platform,
            evidence: EvidenceKind::NitroDocument,
            instance: None,
        }
    }
}

/// What is known of a path of certificates for which every check has held.
#[derive(Debug, Clone)]
pub(crate) struct ProvenPath {
    pub(crate) key: PublicKey,
    pub(crate) root: Fingerprint,
    pub(crate) subjects: Vec<String>,
    pub(crate) valid_from: Timestamp,
    pub(crate) valid_until: Timestamp,
    /// Of the first certificate.
    pub(crate) leaf_validity: (Timestamp, Timestamp),
    /// Where the certificates of the path stand in what was given.
    pub(crate) positions: Vec<usize>,
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
    let (subject, found) = (root.subject_text.clone(), root.fingerprint);
    let mut faults = Vec::new();
    // AWS's root vouches for documents: were it believed here, whatever it certifies could sign quotes.
    let platform = anchors.platform_of(&found).filter(|_| found != NITRO_ROOT);
    if found == NITRO_ROOT {
        faults.push(ChainFault::NotForAttestationKeys { subject, found });
    } else if platform.is_none() {
        faults.push(ChainFault::UnknownRoot { subject, found });
    }
    let since = platform.and_then(|platform| anchors.too_early(platform, leaf.not_before));
    if let Some(since) = since {
        faults.push(ChainFault::CertifiedBeforeFix {
            subject: leaf.subject_text.clone(),
            from: leaf.not_before,
            since,
        });
    }
    let instance = leaf
        .instance
        .as_deref()
        .map(InstanceInfo::parse)
        .transpose()
        .unwrap_or_else(|reason| {
            let subject = leaf.subject_text.clone();
            faults.push(ChainFault::Instance { subject, reason });
            None
        });
    let purposes = Purposes::of_attestation_keys(platform.unwrap_or_else(|| platform_of_root(&root.der)));
    let path = judge(&certificates, &purposes, faults, at);
    match (path, platform) {
        (Ok(path), Some(platform)) => Ok(ChainProof {
            path,
            platform,
            evidence: EvidenceKind::Quote,
            instance,
        }),
        (Err(faults), _) => Err(faults),
        // `judge` returns the fault that says so, so this is not reached; if it were, nothing is verified.
        (Ok(path), None) => Err(vec![ChainFault::UnknownRoot {
            subject: String::new(),
            found: path.root,
        }]),
    }
}

/// Holds certificates, as [`parse`] returns them, to every check that does not depend on which root is believed; `known`
/// is what is already known to be wrong.
pub(crate) fn judge(
    certificates: &[Certificate],
    purposes: &Purposes,
    known: Vec<ChainFault>,
    at: Timestamp,
) -> Result<ProvenPath, Vec<ChainFault>> {
    let mut faults = Vec::new();
    for (position, certificate) in certificates.iter().enumerate() {
        check_alone(position, certificate, at, &mut faults);
    }
    faults.extend(known);
    let path = find_path(certificates, &mut faults);
    check_roles(certificates, &path, purposes, &mut faults);
    let on_path: Vec<_> = path.iter().map(|position| &certificates[*position]).collect();
    let (leaf, root) = match &on_path[..] {
        [leaf, .., root] if faults.is_empty() => (leaf, root),
        _ => return Err(faults),
    };
    let Ok(key) = &leaf.key else {
        return Err(faults);
    };
    ask_webpki(&on_path, at).map_err(|fault| vec![fault])?;
    let all = || certificates.iter();
    Ok(ProvenPath {
        key: key.clone(),
        root: root.fingerprint,
        subjects: on_path
            .iter()
            .map(|certificate| certificate.subject_text.clone())
            .collect(),
        valid_from: all()
            .map(|certificate| certificate.not_before)
            .max()
            .unwrap_or(at),
        valid_until: all().map(|certificate| certificate.not_after).min().unwrap_or(at),
        leaf_validity: (leaf.not_before, leaf.not_after),
        positions: path,
    })
}

/// The key that the first certificate of a chain certifies, for explaining other failures when the chain is not proven.
pub(crate) fn unproven_key<C: AsRef<[u8]>>(chain: &[C]) -> Option<PublicKey> {
    Certificate::from_der(chain.first()?.as_ref()).ok()?.key.ok()
}

pub(crate) fn parse<C: AsRef<[u8]>>(chain: &[C]) -> Result<Vec<Certificate>, Vec<ChainFault>> {
    if let [only] = chain
        && let Ok(leaf) = Certificate::from_der(only.as_ref())
        && leaf.subject != leaf.issuer
    {
        return Err(vec![issuer_missing(0, &leaf)]);
    }
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
        ([], []) => faults.push(issuer_missing(position, certificate)),
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

fn issuer_missing(position: usize, certificate: &Certificate) -> ChainFault {
    ChainFault::IssuerMissing {
        position,
        subject: certificate.subject_text.clone(),
        issuer: certificate.issuer_text.clone(),
        url: IssuerUrl(certificate.issuer_urls.first().map(|url| shorten(url))),
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
