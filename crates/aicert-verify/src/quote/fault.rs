//! Everything that can be wrong in this step.

use aicert_core::digest::Nonce;
use aicert_core::time::Timestamp;
use aicert_core::tpm::{PcrBank, PcrIndex};

use crate::error::faults;
use crate::marshal::MarshalError;

faults! {
    /// Says what is wrong with the quote.
    enum QuoteFault {
        /// What was signed was not made by a TPM.
        Magic {
            /// `TPM_GENERATED_VALUE`.
            expected: u32,
            /// The value found.
            found: u32,
        } => Builder, "what was signed begins with {found:#010x}; what a TPM makes begins with {expected:#010x} (TPM_GENERATED_VALUE)", "do not believe this proof: somebody signed a structure that no TPM made";
        /// What was signed is another attestation than a quote.
        Type {
            /// `TPM_ST_ATTEST_QUOTE`.
            expected: u16,
            /// The value found.
            found: u16,
        } => Builder, "what was signed has the type {found:#06x}; a quote has {expected:#06x} (TPM_ST_ATTEST_QUOTE)", "do not believe this proof: something other than a quote is shown as one";
        /// What was signed is no `TPMS_ATTEST`, or something follows it.
        Malformed {
            /// What is wrong with it.
            error: MarshalError,
        } => File, "the signed structure cannot be read: {error}", "get the proof again from whoever published it";
        /// The signature is no `TPMT_SIGNATURE`, or something follows it.
        SignatureMalformed {
            /// What is wrong with it.
            error: MarshalError,
        } => File, "the signature cannot be read: {error}", "get the proof again from whoever published it";
        /// The signature is of a kind that is not accepted.
        Scheme {
            /// The kinds accepted.
            expected: &'static str,
            /// The `TPM_ALG_ID` of the scheme or hash found.
            found: u16,
        } => Builder, "the quote is signed with algorithm {found:#06x}; expected {expected}", "make the proof with an attestation key that signs with an accepted algorithm; SHA-1 is refused";
        /// The signature uses another scheme or hash than the key is bound to.
        NotTheKeysScheme {} => Builder, "the quote is signed with another scheme or hash than the attestation key is bound to", "do not believe this proof: a TPM signs only with the scheme of a restricted key";
        /// The signature does not match.
        Signature {} => Builder, "the signature of the quote was not made by the attestation key over this quote", "do not believe this proof: the quote was altered, or another key signed it";
        /// The public area in the file is not the one that the TPM knows the key by.
        QualifiedSigner {
            /// Computed from the public area, as a primary key of the endorsement hierarchy; hexadecimal.
            expected: String,
            /// What the TPM signed; hexadecimal.
            found: String,
        } => Builder, "the quote names its key {found}; the public area in the file, as a primary key of the endorsement hierarchy, has the qualified name {expected}", "either the public area in the file was altered, or the attestation key is not a primary key of the endorsement hierarchy, which it must be";
        /// The bank is that of SHA-1.
        Sha1Bank {} => Builder, "the quote is over the SHA-1 bank, whose values can be made to collide", "make the proof with a TPM whose SHA-256 bank is active";
        /// The quote covers PCRs of other banks, or of more than one.
        Bank {
            /// The bank that the file shows.
            expected: PcrBank,
            /// The banks that the quote covers, as `TPM_ALG_ID`s.
            found: String,
        } => Builder, "the quote covers PCRs of the banks {found}, and is shown as one over the bank {expected}", "do not believe this proof: values of one bank are shown as those of another";
        /// The quote covers other PCRs than those shown.
        Selection {
            /// The PCRs that the file shows.
            expected: String,
            /// The PCRs that the quote covers.
            found: String,
        } => Builder, "the quote covers PCRs {found}, and is shown as one over PCRs {expected}", "do not believe this proof: values of some PCRs are shown as those of others";
        /// The quote leaves PCRs out.
        PcrsMissing {
            /// Those that every quote must cover.
            expected: &'static str,
            /// Those that it leaves out.
            missing: String,
        } => Builder, "the quote must cover PCRs {expected}; it leaves out {missing}", "make the proof again with a version that quotes all of them";
        /// A PCR's value has not the length of its bank's digests.
        ValueLength {
            /// Which PCR.
            pcr: PcrIndex,
            /// The length of the bank's digests in bytes.
            expected: usize,
            /// The length of the value in bytes.
            found: usize,
        } => File, "the value of PCR {pcr} has {found} bytes; those of its bank have {expected}", "get the proof again from whoever published it";
        /// The PCR values shown are not those that were quoted.
        PcrDigest {
            /// The digest that the TPM signed, hexadecimal.
            expected: String,
            /// The digest of the values shown, hexadecimal.
            found: String,
        } => Builder, "the PCR values shown have the digest {found}; the TPM signed {expected}", "do not believe this proof: PCR values were altered, or belong to another quote";
        /// The quote answers nothing.
        NothingBound {
            /// What it should answer, hexadecimal.
            expected: String,
        } => Builder, "the quote has no qualifying data; expected {expected}, which follows from the log and the nonce", "do not believe this proof: nothing binds the quote to this job";
        /// The signature is neither a `TPMT_SIGNATURE` nor DER.
        SignatureForm {
            /// Its first bytes, hexadecimal.
            found: String,
        } => File, "the signature begins with {found}; expected a TPMT_SIGNATURE (beginning with 0014, 0016 or 0018) or an ECDSA signature in DER (beginning with 30)", "give the signature as the TPM or the cloud handed it out; other forms are never guessed";
        /// The signature is DER, but not that of an ECDSA signature in its one spelling.
        SignatureDer {
            /// What is wrong with it.
            reason: String,
        } => File, "the signature is not an ECDSA signature in exact DER: {reason}", "get the signature again from whoever made it: each has one spelling";
        /// The hash that was signed with cannot be told.
        HashUnknown {
            /// The length of the PCR digest in bytes.
            found: usize,
        } => Builder, "the quote's PCR digest has {found} bytes, which is the length of no accepted hash: expected 32, 48 or 64 (SHA-256, SHA-384, SHA-512)", "make the quote with a key that signs with an accepted hash; SHA-1 is refused";
        /// The quote is not over exactly one bank.
        NotOneBank {
            /// The banks, as `TPM_ALG_ID`s.
            found: String,
        } => Builder, "the quote covers PCRs of the banks {found}; expected exactly one bank of SHA-256, SHA-384 or SHA-512", "make a quote over one bank alone";
        /// The quote covers no PCR.
        NoPcrs {} => Builder, "the quote covers no PCR at all", "make a quote over the PCRs that matter: this one says nothing about the machine";
        /// Values of the bank that the quote covers were not given.
        BankNotGiven {
            /// The bank that the quote covers.
            expected: PcrBank,
            /// The banks whose values were given.
            found: String,
        } => Verifier, "the quote covers the bank {expected}; values were given of {found}", "give the values of the quoted bank";
        /// Values of PCRs that the quote covers were not given.
        NotGiven {
            /// Those PCRs.
            missing: String,
        } => Verifier, "the quote covers PCRs {missing}, whose values were not given", "give the values of every PCR that the quote covers: their digest needs all of them";
        /// Values of PCRs were given that the quote does not cover.
        NotCovered {
            /// Those PCRs.
            found: String,
            /// Those that the quote covers.
            covered: String,
        } => Verifier, "values of PCRs {found} were given, which the quote does not cover; it covers {covered}", "nothing is known about those values: leave them out, or have them set aside expressly";
        /// No nonce can be compared with an empty one.
        EmptyNonce {} => Verifier, "the nonce to compare with is empty", "give the nonce that the quote was asked for with, or none, if it was asked for without";
        /// The quote has no qualifying data, where a nonce was posed.
        NonceMissing {
            /// The nonce, hexadecimal.
            expected: String,
        } => Builder, "the quote has no qualifying data; expected the nonce {expected}", "do not believe that the quote is recent: it answers nothing, and may be of any age";
        /// The quote answers another nonce.
        OtherNonce {
            /// The nonce, hexadecimal.
            expected: String,
            /// The qualifying data, hexadecimal.
            found: String,
        } => Builder, "the quote's qualifying data is {found}; expected the nonce {expected}", "this quote answers another question than the one that was asked, perhaps an older one; ask for a fresh one";
        /// The quote is about another log, or answers another nonce.
        QualifyingData {
            /// What follows from the log and the nonce, hexadecimal.
            expected: String,
            /// What the TPM signed, hexadecimal.
            found: String,
        } => Builder, "the quote's qualifying data is {found}; from the log and the nonce follows {expected}", "do not believe this proof: the quote belongs to another job, or the log or the nonce was altered";
        /// The quote answers another challenge than the one that was posed.
        Nonce {
            /// The challenge.
            expected: Nonce,
            /// The nonce in the file.
            found: Nonce,
        } => Builder, "the proof answers the nonce {found}, not the {expected} that was asked for", "this is another proof than the one that was asked for, perhaps an older one; ask for a fresh one";
        /// Parts of a TPM's quote stand beside an attestation document, which has no use for them.
        BesideDocument {
            /// Which part.
            what: &'static str,
        } => File, "the quote is an attestation document, and beside it there is {what}: the document has its own, and nothing covers another", "do not believe this proof: nobody who makes one from a document writes that into it";
        /// The tag of a `COSE_Sign1` stands before an attestation document.
        TaggedDocument {} => File, "the attestation document begins with the tag of a COSE_Sign1 (d2), which nothing signs: proofs have it without", "get the proof again from whoever published it";
        /// The values are shown as those of another bank than a document has.
        DocumentBank {
            /// The bank that the file shows.
            found: PcrBank,
        } => Builder, "the attestation document has PCRs of the bank sha384, and is shown as one over the bank {found}", "do not believe this proof: values of one bank are shown as those of another";
        /// A PCR has another value than in the document.
        DocumentPcr {
            /// Which PCR.
            pcr: PcrIndex,
            /// What the document has, hexadecimal.
            expected: String,
            /// What the file shows, hexadecimal.
            found: String,
        } => Builder, "PCR {pcr} is shown as {found}; the attestation document has {expected}", "do not believe this proof: PCR values were altered, or belong to another document";
        /// The document has something that the guest chose, beside the nonce.
        GuestData {
            /// The name of the field.
            field: &'static str,
        } => Builder, "the attestation document has `{field}`, which the documents in proofs do not have", "do not believe this proof: the document was asked for by something else than aicert, for another purpose";
        /// The document was made before the job.
        DocumentTooEarly {
            /// When the job was opened, by the machine's clock.
            expected: Timestamp,
            /// When the document was made.
            found: Timestamp,
        } => Builder, "the attestation document was made at {found}, before the job was opened at {expected} by the machine's own clock", "do not believe what this proof says about times; run the job again on a machine whose clock is right";
        /// The log does not say in which boot it was opened.
        NotOpened {} => File, "the log does not begin with `job_opened`, so that it is not known which boot of the TPM it belongs to", "get the proof again from whoever published it";
        /// The TPM was reset between the opening of the log and the quote.
        ResetCount {
            /// What `job_opened` recorded.
            expected: u64,
            /// What the TPM signed.
            found: u64,
        } => Builder, "the TPM's reset count is {found} in the quote and was {expected} when the job was opened: the machine was reset in between", "run the job again without restarting the machine; if nobody did, do not believe this proof";
        /// The TPM was resumed between the opening of the log and the quote.
        RestartCount {
            /// What `job_opened` recorded.
            expected: u64,
            /// What the TPM signed.
            found: u64,
        } => Builder, "the TPM's restart count is {found} in the quote and was {expected} when the job was opened: the machine was suspended in between", "run the job again without suspending the machine; if nobody did, do not believe this proof";
        /// The quote is older than the log.
        Clock {
            /// What `job_opened` recorded, in milliseconds.
            expected: u64,
            /// What the TPM signed, in milliseconds.
            found: u64,
        } => Builder, "the TPM's clock is {found} ms in the quote, before the {expected} ms at which the job was opened", "do not believe this proof: the quote was made before the job";
    }
}
