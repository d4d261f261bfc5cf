//! Step 2: the certificates of the attestation key lead to a trusted root.
//!
//! The file carries exactly the certificates that are needed: the key's own, intermediates, the root. The path is found
//! by signatures, not by names alone, so authorities that renewed their key under the same name are no obstacle, in
//! whatever order they stand. Every certificate is held to every check; then rustls-webpki, which shares no parser with
//! this module, must accept the same path.

use aicert_core::certificate::PlatformKind;
use aicert_core::time::Timestamp;
use pki_types::{CertificateDer, UnixTime};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::KeyUsages;

use crate::anchors::{Fingerprint, TrustAnchors, platform_of_root};
use crate::error::faults;
use crate::signature::{CERTIFICATE_ALGORITHMS, PublicKey};
use crate::x509::{Certificate, CertificateError};

/// The largest number of certificates, leaf and root included.
pub const LENGTH_LIMIT: usize = 8;

/// `tcg-kp-EKCertificate` and `tcg-kp-AIKCertificate` (TCG EK Credential Profile 2.5, section 3.2.16; TCG Credential
/// Profiles 1.2, section 3.5.15).
const EK_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.1");
const AIK_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.3");

faults! {
    /// Says what is wrong with the certificate chain. Positions count from 0, the leaf.
    enum ChainFault {
        /// There are too few certificates or too many.
        Length {
            /// How many there are.
            found: usize,
        } => File, "the chain has {found} certificates; expected the key's own, intermediates and the root: 2 to 8", "get the proof again from whoever published it, or ask them for one whose chain is complete";
        /// A certificate is larger than any that is accepted.
        TooLarge {
            /// Which.
            position: usize,
            /// Its size in bytes.
            found: usize,
            /// The largest size accepted.
            limit: usize,
        } => File, "certificate {position} has {found} bytes; at most {limit} are accepted", "get the proof again from whoever published it";
        /// A certificate is, or contains, PEM text: one parser may read it as another certificate than the next.
        PemInDer {
            /// Which.
            position: usize,
        } => File, "certificate {position} is PEM text, or holds some, where only DER is accepted: two parsers could read two different certificates", "do not use this proof: no honest authority issues such a certificate";
        /// A certificate is not exact DER of an X.509 version 3 certificate.
        NotACertificate {
            /// Which.
            position: usize,
            /// What is wrong with it.
            reason: String,
        } => File, "certificate {position} is not an X.509 certificate in exact DER: {reason}", "get the proof again from whoever published it";
        /// One certificate stands twice.
        Duplicate {
            /// Where it stands first.
            first: usize,
            /// Where it stands again.
            again: usize,
        } => File, "certificates {first} and {again} are the same", "ask whoever published the proof for one whose chain has no certificate twice";
        /// The chain ends in a root that is not trusted.
        UnknownRoot {
            /// The root's subject.
            subject: String,
            /// The root's fingerprint.
            found: Fingerprint,
        } => Builder, "the chain ends in {subject:?} (SHA-256 {found}), which is neither a pinned vendor root nor a trust anchor that was given", "do not believe this proof, unless you know that root yourself and trust it: then give its certificate with --trust-anchor";
        /// The chain ends in a root that is not trusted, and the file says itself that its TPM is simulated.
        UnknownSimulatedRoot {
            /// The root's subject.
            subject: String,
            /// The root's fingerprint.
            found: Fingerprint,
        } => Verifier, "the chain ends in {subject:?} (SHA-256 {found}), a root of a simulated platform that was not given as a trust anchor", "if you made this proof yourself to try things out, pass --trust-anchor ca.pem; a simulated proof shows nothing to anybody else";
        /// No certificate in the file is named as another's issuer.
        IssuerMissing {
            /// Which.
            position: usize,
            /// Its subject.
            subject: String,
            /// The issuer that it names.
            issuer: String,
        } => File, "certificate {position} ({subject:?}) was issued by {issuer:?}, which is not in the chain", "ask whoever published the proof for one whose chain has the missing intermediate";
        /// A certificate's signature was not made by the issuer that it names.
        BadSignature {
            /// Which.
            position: usize,
            /// Its subject.
            subject: String,
            /// The issuer that it names.
            issuer: String,
        } => Builder, "certificate {position} ({subject:?}) is not signed by the key of {issuer:?}, whom it names as its issuer", "do not believe this proof: the certificate was altered or made up";
        /// More than one certificate could be the issuer of another.
        Ambiguous {
            /// Which.
            position: usize,
            /// Its subject.
            subject: String,
        } => File, "certificate {position} ({subject:?}) has more than one issuer in the chain with the same name and key", "ask whoever published the proof for one whose chain has one path only";
        /// A certificate is on no path from the key to the root.
        Unused {
            /// Which.
            position: usize,
            /// Its subject.
            subject: String,
        } => File, "certificate {position} ({subject:?}) has no part in the chain from the key to the root", "ask whoever published the proof for one without that certificate: nothing in a proof may be without protection";
        /// Verification is for a time before a certificate became valid.
        NotYetValid {
            /// Which.
            position: usize,
            /// Its subject.
            subject: String,
            /// From when it is valid.
            from: Timestamp,
            /// The time that was verified for.
            at: Timestamp,
        } => Verifier, "certificate {position} ({subject:?}) is valid from {from} on, and verification is for {at}", "check this machine's clock, or the time given with --at";
        /// Verification is for a time after a certificate expired.
        Expired {
            /// Which.
            position: usize,
            /// Its subject.
            subject: String,
            /// Until when it was valid.
            until: Timestamp,
            /// The time that was verified for.
            at: Timestamp,
        } => Verifier, "certificate {position} ({subject:?}) was valid until {until}, and verification is for {at}", "if you know from elsewhere that the proof existed before it expired, verify for that time with --at; otherwise ask the builder for a new proof";
        /// The key's own certificate is that of an authority.
        LeafIsAuthority {
            /// Its subject.
            subject: String,
        } => Builder, "the certificate of the attestation key ({subject:?}) is one of a certificate authority", "do not believe this proof: an attestation key never is an authority";
        /// A certificate issued another, but is not that of an authority.
        NotAnAuthority {
            /// Which.
            position: usize,
            /// Its subject.
            subject: String,
        } => Builder, "certificate {position} ({subject:?}) stands as an issuer, but is not marked as a certificate authority", "do not believe this proof: its chain was made by somebody who may not issue certificates";
        /// More authorities stand below one than it allows.
        PathLength {
            /// Which.
            position: usize,
            /// Its subject.
            subject: String,
            /// How many intermediates it allows below it.
            expected: u8,
            /// How many there are.
            found: usize,
        } => Builder, "certificate {position} ({subject:?}) allows {expected} intermediates below it, the chain has {found}", "do not believe this proof: its chain was made by somebody who may not issue certificates";
        /// A certificate's key may not be used for what it was used for.
        KeyUsage {
            /// Which.
            position: usize,
            /// Its subject.
            subject: String,
            /// The usage that is needed.
            expected: &'static str,
        } => Platform, "certificate {position} ({subject:?}) does not allow its key the usage {expected}", "do not believe this proof; if the certificate comes from your own test authority, issue it with that key usage";
        /// A certificate is not one for attestation keys.
        ExtendedKeyUsage {
            /// Which.
            position: usize,
            /// Its subject.
            subject: String,
            /// The purpose that is needed.
            expected: String,
            /// The purposes that it has.
            found: String,
        } => Platform, "certificate {position} ({subject:?}) is for the purposes {found}; expected {expected}", "do not believe this proof: the certificate was issued for something else than attesting";
        /// A certificate demands that something be understood that is not.
        UnknownCriticalExtension {
            /// Which.
            position: usize,
            /// Its subject.
            subject: String,
            /// The extension's object identifier.
            found: String,
        } => Platform, "certificate {position} ({subject:?}) has the critical extension {found}, which this version does not understand", "a newer version may understand it";
        /// A certificate is signed with an algorithm that is not accepted.
        Algorithm {
            /// Which.
            position: usize,
            /// Its subject.
            subject: String,
            /// The algorithm's object identifier.
            found: String,
        } => Platform, "certificate {position} ({subject:?}) is signed with algorithm {found}; expected RSA PKCS #1 v1.5 or ECDSA with SHA-256, SHA-384 or SHA-512 (SHA-1 is refused)", "ask the builder for a proof whose certificates are signed with an accepted algorithm";
        /// A certificate's key is not accepted.
        WeakKey {
            /// Which.
            position: usize,
            /// Its subject.
            subject: String,
            /// What is wrong with the key.
            reason: String,
        } => Platform, "certificate {position} ({subject:?}) has a key that is not accepted: {reason}", "ask the builder for a proof whose certificates have keys of at least RSA-2048 or P-256";
        /// The second implementation refused the path.
        SecondOpinion {
            /// What it said.
            found: String,
        } => Platform, "an independent implementation of path validation refuses the chain: {found}", "do not believe this proof, and report the case: two implementations must agree";
    }
}

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
        if !path.contains(&position) && !(is_namesake() && is_signed()) {
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
    let anchor = webpki::anchor_from_trusted_cert(root).map_err(refused)?;
    let seconds = u64::try_from(at.as_unix()).unwrap_or(0);
    webpki::EndEntityCert::try_from(leaf)
        .and_then(|leaf| {
            leaf.verify_for_usage(
                CERTIFICATE_ALGORITHMS,
                &[anchor],
                intermediates,
                UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)),
                PurposesCheckedAbove,
                None,
                None,
            )
            .map(|_| ())
        })
        .map_err(refused)
}
