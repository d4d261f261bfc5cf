//! Everything that can be wrong with a document.

use aicert_core::time::Timestamp;
use aicert_core::tpm::PcrIndex;

use super::cbor::CborError;
use crate::error::faults;

faults! {
    /// Says what is wrong with an attestation document of AWS NitroTPM.
    enum NitroFault {
        /// It is larger than any that is accepted.
        TooLarge {
            /// Its size in bytes.
            found: usize,
            /// The largest size accepted.
            limit: usize,
        } => File, "the document has {found} bytes; at most {limit} are accepted", "give the document as the TPM handed it out, without anything around it";
        /// It is not a `COSE_Sign1`.
        NotSign1 {
            /// What is wrong with it.
            reason: &'static str,
        } => File, "the document is no COSE_Sign1: {reason}", "give the document in binary form (CBOR) as the TPM handed it out, without anything around it";
        /// A part of it cannot be read.
        Cbor {
            /// Which part.
            part: &'static str,
            /// What is wrong with it.
            error: CborError,
        } => File, "the {part} cannot be read: {error}", "get the document again from whoever made it";
        /// Its protected header is not the one that AWS writes.
        Protected {
            /// What is wrong with it.
            reason: &'static str,
        } => Builder, "the protected header is not the one of attestation documents, which names the algorithm alone: {reason}", "do not believe this document: AWS does not write such a header";
        /// It is signed with an algorithm that is not accepted.
        Algorithm {
            /// The COSE algorithm found.
            found: String,
        } => Builder, "the document says that it is signed with the COSE algorithm {found}; expected -35 (ES384)", "do not believe this document: AWS signs with ES384 alone";
        /// It has an unprotected header.
        Unprotected {} => Builder, "the unprotected header is not empty: nothing in it is signed", "do not believe this document: somebody added to it";
        /// The signature has a length that it cannot have.
        SignatureLength {
            /// Its length in bytes.
            found: usize,
        } => File, "the signature has {found} bytes; one of ES384 has 96", "get the document again from whoever made it";
        /// It is the document of an enclave.
        Enclave {} => Builder, "the document is one of a Nitro Enclave (it has `pcrs` in place of `nitrotpm_pcrs`): it says nothing about the machine's TPM", "ask for the document of the machine's NitroTPM; that of an enclave measures an enclave image";
        /// A field is missing.
        Missing {
            /// Its name.
            field: &'static str,
        } => File, "the document has no `{field}`", "get the document again from whoever made it";
        /// There is a field that is not known.
        Unknown {
            /// Its name.
            field: String,
        } => Platform, "the document has the field {field:?}, which this version does not understand", "a newer version may understand it: what it means for the others cannot be known without";
        /// A field is not what it must be.
        Field {
            /// Its name.
            field: &'static str,
            /// What it must be.
            expected: &'static str,
            /// What it is.
            found: String,
        } => File, "`{field}` is {found}; expected {expected}", "get the document again from whoever made it";
        /// The PCRs were made with another hash.
        Digest {
            /// The hash.
            found: String,
        } => Platform, "the document's PCRs are of the digest {found:?}; expected \"SHA384\"", "a newer version may understand it";
        /// There is no PCR in it.
        NoPcrs {} => Builder, "the document covers no PCR at all", "do not believe this document: one of AWS covers all of them";
        /// A PCR has a number that none has.
        PcrIndex {
            /// The number.
            found: String,
        } => Builder, "the document has the PCR {found}; expected numbers from 0 to 23", "do not believe this document: no TPM has that PCR";
        /// A PCR's value has not the length of the digests.
        PcrLength {
            /// Which PCR.
            pcr: PcrIndex,
            /// The length of its value in bytes.
            found: usize,
        } => Builder, "the value of PCR {pcr} has {found} bytes; those of SHA-384 have 48", "do not believe this document: it contradicts itself";
        /// The key of the certificate cannot have made the signature.
        Key {} => Builder, "the key of the document's certificate is not one over P-384, with which ES384 signs", "do not believe this document: AWS signs with such a key alone";
        /// The signature does not match.
        Signature {} => Builder, "the document is not signed by the key of its certificate", "do not believe this document: it was altered, or its certificate is another's";
        /// The certificates do not stand in the order in which AWS writes them.
        BundleOrder {} => Builder, "`cabundle` is not the path from the root to the issuer of the document's certificate, in that order and without others", "do not believe this document: AWS writes them in that order";
        /// It was made when its certificate was not valid.
        MadeOutsideValidity {
            /// When it says that it was made.
            found: Timestamp,
            /// From when its certificate is valid.
            from: Timestamp,
            /// Until when.
            until: Timestamp,
        } => Builder, "the document says that it was made at {found}; its certificate is valid from {from} to {until}", "do not believe this document: AWS makes certificate and document together";
        /// No nonce can be compared with an empty one.
        EmptyNonce {} => Verifier, "the nonce to compare with is empty", "give the nonce that the document was asked for with, or none, if it was asked for without";
        /// It has no nonce, where one was posed.
        NonceMissing {
            /// The nonce, hexadecimal.
            expected: String,
        } => Builder, "the document has no nonce; expected {expected}", "do not believe that the document answers you; ask for one with that nonce";
        /// It answers another nonce.
        OtherNonce {
            /// The nonce, hexadecimal.
            expected: String,
            /// The nonce in the document, hexadecimal.
            found: String,
        } => Builder, "the document answers the nonce {found}; expected {expected}", "this document answers another question than the one that was asked, perhaps an older one; ask for a fresh one";
    }
}
