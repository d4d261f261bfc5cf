//! What can be wrong with an attestation alone, and with a proof of the machine that was attested.

use aicert_core::canonical::ReadError;
use aicert_core::digest::{BootLogDigest, Nonce, TlsKeyDigest};
use aicert_core::time::Timestamp;
use aicert_core::tpm::PcrIndex;

use crate::error::faults;

faults! {
    /// Says what is wrong with an attestation, beside what can be wrong with any quote; or why a proof is not from the
    /// machine that was attested.
    enum AttestationFault {
        /// The answer is none.
        Malformed {
            /// What is wrong with it, and where.
            reason: String,
        } => Machine, "the answer is no attestation: {reason}", "send nothing: this is no machine of aicert, or one of another version";
        /// The machine serves its connections with another key than this one is served with.
        OtherTlsKey {
            /// The key of the connection.
            expected: TlsKeyDigest,
            /// The key that the machine says it has.
            found: TlsKeyDigest,
        } => Machine, "this connection is served with the TLS key {expected}, and the machine that answers says that its own is {found}: somebody stands between you and the machine, or the answer is another machine's", "send nothing over this connection; connect to the machine itself, without a proxy that decrypts TLS";
        /// The answer is to another nonce.
        OtherNonce {
            /// The nonce that was asked with.
            expected: Nonce,
            /// The nonce that the answer is to.
            found: Nonce,
        } => Machine, "the answer is to the nonce {found}, not to the {expected} that was asked with: it is an older one, or somebody else's", "send nothing: an answer that was kept says nothing about the machine as it is now";
        /// The quote is about nothing.
        NothingBound {
            /// What it should be about, hexadecimal.
            expected: String,
        } => Machine, "the quote has no qualifying data; expected {expected}, which follows from the TLS key and the nonce", "send nothing: nothing binds the quote to this connection";
        /// The quote is about something else than the answer says.
        QualifyingData {
            /// What follows from key and nonce, hexadecimal.
            expected: String,
            /// What the TPM signed, hexadecimal.
            found: String,
        } => Machine, "the quote's qualifying data is {found}; from the TLS key and the nonce follows {expected}: somebody stands between you and the machine, or the answer is another machine's", "send nothing over this connection: the TPM did not vouch for it";
        /// A PCR that belongs to the job is not zero.
        Used {
            /// Which.
            pcr: PcrIndex,
            /// What it holds, hexadecimal.
            found: String,
        } => Machine, "this machine has already been used: PCR {pcr} holds {found}", "start another machine: each takes one job, from its boot on";
        /// What was booted was not measured.
        NothingMeasured {} => Machine, "nothing shows what this machine has booted: its boot log is empty, and its boot PCRs are zero", "send nothing: it is no machine that boots aicert's image, but perhaps a server that somebody started for tests";
        /// There are no reference values to recognise an image by.
        NoReferenceValues {} => Verifier, "there are no reference values for images, so that nobody can say what this machine has booted", "give the reference values that were published with the image: nothing is sent to a machine that runs something unknown";
        /// Another machine than the one that was made answers.
        OtherMachine {
            /// The machine, as its provider names it.
            expected: String,
            /// The machine that the evidence is about.
            found: String,
        } => Machine, "the machine that answers is {found}; the one that was made is {expected}", "send nothing: somebody has another machine answer, which may be theirs; start again from another network";
        /// A proof is signed by another key.
        ProofOfOtherKey {
            /// The name of the key of the machine that was attested, hexadecimal.
            expected: String,
            /// The name of the key that signed the proof, hexadecimal.
            found: String,
        } => Machine, "the proof is signed by the TPM key {found}; the machine that was attested has {expected}", "do not believe that this job did what the proof says: it is another machine's";
        /// A proof rests on another kind of evidence.
        ProofOfOtherEvidence {
            /// What showed that the attestation is true.
            expected: &'static str,
            /// What shows that the proof is true.
            found: &'static str,
        } => Machine, "what vouches for the proof is {found}; the machine was attested with {expected}", "do not believe that this job did what the proof says: it is another machine's";
        /// A document in a proof is about another machine.
        ProofOfOtherMachine {
            /// The machine that was attested, and the root that said so.
            expected: String,
            /// The machine of the proof, and the root that says so.
            found: String,
        } => Machine, "the proof is of the machine {found}; the one that was attested is {expected}", "do not believe that this job did what the proof says: it is another machine's";
        /// The document of a proof is older than that of the attestation.
        ProofBeforeAttestation {
            /// When the document of the attestation was made.
            expected: Timestamp,
            /// When that of the proof was made.
            found: Timestamp,
        } => Machine, "the document of the proof was made at {found}, before the machine was attested with one of {expected}: it is not of the job that was sent", "do not believe that this is your job's proof: somebody replaced it";
        /// A proof is from another boot.
        ProofOfOtherBoot {
            /// The reset count and the restart count that were attested.
            expected: String,
            /// Those of the proof.
            found: String,
        } => Machine, "the TPM counted {found} in the proof, and {expected} when the machine was attested: it was restarted in between", "do not believe that this job did what the proof says: what ran after the restart was never attested to you";
        /// A proof's job was opened before the machine was attested.
        ProofTooEarly {
            /// The TPM's clock when the machine was attested, in milliseconds.
            expected: u64,
            /// The TPM's clock when the job was opened, in milliseconds.
            found: u64,
        } => Machine, "the job of the proof was opened when the TPM's clock showed {found} ms, before the {expected} ms at which the machine was attested: it is not the job that was sent", "do not believe that this is your job's proof: the machine was not unused when it was attested, or somebody replaced the proof";
        /// A proof has another boot log.
        ProofOfOtherBootLog {
            /// The digest of the boot log that was attested.
            expected: BootLogDigest,
            /// That of the proof.
            found: BootLogDigest,
        } => Machine, "the boot log of the proof is {found}; that of the machine that was attested is {expected}", "do not believe that this job did what the proof says: the machine did not say the same twice";
    }
}

impl From<ReadError> for AttestationFault {
    fn from(error: ReadError) -> Self {
        Self::Malformed {
            reason: error.to_string(),
        }
    }
}
