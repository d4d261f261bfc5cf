//! What does not meet a policy.

use aicert_core::time::Timestamp;

use crate::error::faults;

faults! {
    /// Says which rule of a policy a proof does not meet, with the value found. The proof itself may well be true.
    enum PolicyFault {
        /// The platform is none of those that are allowed.
        Platform {
            /// What the policy allows.
            expected: String,
            /// What vouches for the TPM.
            found: String,
        } => Builder, "the policy allows the platforms {expected}; the evidence is from {found}", "ask for a proof from one of these platforms, or add {found} to `platforms`";
        /// Nothing real vouches for the TPM.
        Simulated {
            /// What vouches for the TPM.
            found: String,
        } => Builder, "the policy allows no simulated platform; the evidence is from {found}, and whoever has the key of its root can prove anything", "ask for a proof from a real machine; to try things out, say `simulated: true`";
        /// The machine ran none of the images that are allowed.
        Image {
            /// What the policy allows.
            expected: String,
            /// What the machine ran.
            found: String,
        } => Builder, "the policy allows the images {expected}; the machine ran {found}", "ask for a proof from one of these images, or add the one found to `images`";
        /// The machine ran something that no reference value recognises.
        ImageUnknown {
            /// What is known about it.
            found: &'static str,
        } => Builder, "the policy allows only images that the reference values recognise; {found}", "verify with the reference values of the image that the proof is from, if there are any that you trust";
        /// The firmware is not recognised.
        Firmware {
            /// What is known about it.
            found: &'static str,
        } => Builder, "the policy allows only firmware that the reference values recognise; {found}", "verify with newer reference values; `firmware: any` accepts firmware that nobody vouches for";
        /// Secure Boot is not shown to have been on.
        SecureBoot {
            /// What is known about it.
            found: &'static str,
        } => Builder, "the policy requires Secure Boot; {found}", "ask for a proof from a machine with Secure Boot, or leave `secure_boot` out: the image is identified without it";
        /// An input that is demanded is not there.
        InputMissing {
            /// What the policy demands.
            expected: String,
            /// What comes nearest, or all that there is.
            found: String,
        } => Builder, "the policy demands an input with {expected}; {found}", "ask for a proof of a job that had this input, or correct the entry of `inputs`";
        /// There are inputs that the policy does not list.
        InputsNotListed {
            /// The inputs.
            found: String,
        } => Builder, "the policy allows no inputs but those it lists; the job also had {found}", "list them in `inputs`, or say `other_inputs: allowed`";
        /// A package is there that is forbidden.
        PackageForbidden {
            /// The rule.
            expected: String,
            /// The package.
            found: String,
        } => Builder, "the policy forbids the package {expected}; the job had {found}", "ask for a proof of a job without it";
        /// A package is there whose version cannot be compared with the one that is forbidden.
        PackageVersionUnreadable {
            /// The rule.
            expected: String,
            /// The package.
            found: String,
        } => Builder, "the policy forbids the package {expected}; the job had {found}, whose version cannot be compared: it is none that PEP 440 knows", "do not believe this proof, unless you know that version";
        /// A package is there in another version than the one demanded.
        PackageVersion {
            /// The rule.
            expected: String,
            /// The package.
            found: String,
        } => Builder, "the policy pins the package {expected}; the job had {found}", "ask for a proof of a job with the pinned version, or correct `pinned`";
        /// A package that is demanded was not installed.
        PackageMissing {
            /// The rule.
            expected: String,
            /// How many packages there are, in words.
            found: String,
        } => Builder, "the policy pins the package {expected}; it was not installed: the job had {found}", "ask for a proof of a job with it; packages inside a container image are not listed in a proof";
        /// There are packages that the policy does not list.
        PackagesNotListed {
            /// The packages.
            found: String,
        } => Builder, "the policy allows no packages but those it pins; the job also had {found}", "list them in `pinned`, or say `others: allowed`";
        /// It cannot be shown that packages are absent.
        PackagesUnknown {
            /// What cannot be shown, in words.
            expected: String,
            /// The container image that was asked for.
            found: String,
        } => Builder, "the policy {expected}; the job ran in the container image {found}, and what is inside it is not listed", "ask for a proof of a job with aicert's own Python image, in which every package is listed";
        /// Nothing shows that the proof is young enough.
        Age {
            /// How old the policy lets it be.
            expected: String,
            /// What is known about its age.
            found: String,
            /// The time that it was verified for.
            at: Timestamp,
        } => Builder, "the policy allows a proof to be at most {expected} old at {at}; {found}", "ask for a new proof, or for one that answers a nonce of your own choice";
    }
}
