//! Everything that can be wrong in this step.

use std::fmt;

use aicert_core::time::Timestamp;

use crate::anchors::Fingerprint;
use crate::error::faults;

/// Where an issuer's certificate can be fetched, in words: the first `caIssuers` address of the certificate that it issued
/// (RFC 5280, section 4.2.2.1), if there is one. Nobody vouches for an address before the certificate is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerUrl(pub Option<String>);

impl fmt::Display for IssuerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(url) => write!(f, "the certificate says that it can be fetched from {url:?}"),
            None => f.write_str("the certificate does not say where it can be fetched"),
        }
    }
}

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
            /// Where it can be fetched.
            url: IssuerUrl,
        } => File, "certificate {position} ({subject:?}) was issued by {issuer:?}, which is not in the chain; {url}", "give the missing certificate, or ask whoever published the proof for one whose chain has it";
        /// The chain ends in a root that certifies no attestation keys.
        NotForAttestationKeys {
            /// The root's subject.
            subject: String,
            /// The root's fingerprint.
            found: Fingerprint,
        } => Builder, "the chain ends in {subject:?} (SHA-256 {found}), which vouches for attestation documents of AWS and for no attestation key of a TPM", "verify the attestation document instead: nobody vouches for the key of a quote made on AWS";
        /// Azure certified the key when the owner of a machine could still choose which key that is.
        CertifiedBeforeFix {
            /// The certificate's subject.
            subject: String,
            /// From when it is valid.
            from: Timestamp,
            /// From when on certificates of Azure vouch for keys.
            since: Timestamp,
        } => Platform, "the certificate of the attestation key ({subject:?}) is valid from {from} on; before {since}, Azure also certified keys that the owner of a machine had chosen (CVE-2025-49707), and such a key signs whatever its owner wants", "do not believe it: ask the builder for evidence from a machine whose key Azure has certified since";
        /// The chain ends in the root of another platform than the one that was asked for.
        Platform {
            /// The platform that was asked for.
            expected: &'static str,
            /// The platform that the root vouches for.
            found: &'static str,
        } => Builder, "the chain is one of the platform {found}; expected {expected}", "do not believe that the machine is of the platform that it was said to be";
        /// The instance information in the key's own certificate cannot be read.
        Instance {
            /// The certificate's subject.
            subject: String,
            /// What is wrong with it.
            reason: String,
        } => Platform, "the instance information in the certificate {subject:?} (extension 1.3.6.1.4.1.11129.2.1.21) cannot be read: {reason}", "a newer version may understand it";
        /// There is not exactly one certificate that could be the key's own.
        LeafUnclear {
            /// How many are not those of authorities.
            found: usize,
        } => Verifier, "{found} of the certificates given are not those of authorities; expected exactly one, that of the attestation key", "give the certificate of the attestation key, and otherwise only those of authorities";
        /// The certificates given make no chain of the length accepted.
        NoChain {
            /// The longest chain accepted.
            limit: usize,
        } => Verifier, "among the certificates given, no chain of at most {limit} was found that leads from the attestation key's to a root", "give only certificates that belong to the chain; many of one name hide it";
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
        /// Verification is for a time after a certificate of an attestation document expired: hours after it was made.
        DocumentExpired {
            /// Which.
            position: usize,
            /// Its subject.
            subject: String,
            /// Until when it was valid.
            until: Timestamp,
            /// The time that was verified for.
            at: Timestamp,
            /// When the document says that it was made.
            made: Timestamp,
        } => Verifier, "certificate {position} ({subject:?}) was valid until {until}, and verification is for {at}; the document in the proof says that it was made at {made}", "such documents can be verified as they are for three hours; if you know from elsewhere that the proof existed then, verify it for that time with `--at {made}`";
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
