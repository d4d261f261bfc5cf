//! Everything that can be wrong in this step.

use aicert_core::time::Timestamp;

use crate::anchors::Fingerprint;
use crate::error::faults;

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
