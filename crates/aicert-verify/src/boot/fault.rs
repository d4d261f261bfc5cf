//! Everything that can be wrong in these steps.

use crate::error::faults;
use crate::eventlog::EventLogError;

faults! {
    /// Says what cannot be explained about how the machine booted.
    enum BootFault {
        /// The evidence lacks boot PCRs.
        PcrsMissing {
            /// Which.
            missing: String,
        } => Builder, "the evidence has no values for the PCRs {missing}; all of 0 to 13 are needed to say what was booted", "make the evidence again over all PCRs";
        /// The bank is that of SHA-1.
        Sha1Bank {} => Builder, "the evidence is of the SHA-1 bank, whose values can be made to collide", "use the values of another bank";
        /// There is no log, and PCRs that nothing explains.
        Unexplained {
            /// The PCRs that are not zero.
            found: String,
        } => Builder, "the boot log is empty, but the boot PCRs {found} are not zero, and no reference values cover all of them: what was measured is unknown", "do not believe this proof: whoever made it left the boot log out";
        /// A machine that a vendor vouches for measured nothing.
        NothingMeasured {} => Builder, "the boot log is empty and all boot PCRs are zero: whatever this machine booted, it was not measured", "do not believe this proof: a machine of this platform measures what it boots";
        /// The log is none.
        Unreadable {
            /// Why, and where.
            error: EventLogError,
        } => File, "the boot log cannot be read: {error}", "get the proof again from whoever published it";
        /// The log does not give the value of a PCR.
        Replay {
            /// Which PCR.
            pcr: u8,
            /// What the log gives, in hexadecimal.
            expected: String,
            /// What the quote shows, in hexadecimal.
            found: String,
            /// How the two could differ, where it can be told.
            hint: String,
        } => Builder, "PCR {pcr} is {found} in the quote; the boot log gives {expected}{hint}", "do not believe this proof: the boot log is not what was measured";
        /// Something at boot measured into a PCR that belongs to the job.
        JobPcr {
            /// Which PCR.
            pcr: u8,
            /// The event's number.
            number: usize,
            /// What the log says it is.
            event: String,
        } => Builder, "event {number} of the boot log ({event}) extended PCR {pcr}, which belongs to the job and must be zero when it opens", "boot an image in which nothing measures into PCRs 14 and 15";
        /// The reference values say nothing about any image.
        NoReferenceValues {} => Verifier, "there are no reference values for images, so that nobody can say what this machine booted", "give the reference values that were published with the image (`--reference-values FILE`)";
        /// No image of the reference values was booted.
        UnknownImage {
            /// The image that comes nearest.
            nearest: String,
            /// In how many events it differs.
            differences: usize,
        } => Builder, "the machine booted none of the images that the reference values know; the nearest is {nearest:?}, from which it differs in {differences} event(s)", "get the reference values of the image that was booted, if you trust it; otherwise do not believe this proof";
        /// Something else was measured than the image has.
        Changed {
            /// The PCR.
            pcr: u8,
            /// The event's number in the log.
            number: usize,
            /// What it is, in the words of the reference values.
            what: String,
            /// The image.
            image: String,
            /// The digest that the image has, in hexadecimal.
            expected: String,
            /// The digest that was measured, in hexadecimal.
            found: String,
            /// What more can be said.
            detail: String,
        } => Builder, "PCR {pcr}, event {number}: `{what}` was measured as {found}; that of {image:?} is {expected}{detail}", "this is another image than the one that was released, or it was changed";
        /// The image has something that was not measured.
        Missing {
            /// The PCR.
            pcr: u8,
            /// What, in the words of the reference values.
            what: String,
            /// The image.
            image: String,
            /// Its digest, in hexadecimal.
            expected: String,
        } => Builder, "PCR {pcr}: `{what}` of {image:?} ({expected}) was not measured", "this is another image than the one that was released, or it was changed";
        /// Something was measured that the image does not have.
        Unexpected {
            /// The PCR.
            pcr: u8,
            /// The event's number in the log.
            number: usize,
            /// What the log says it is.
            event: String,
            /// The digest, in hexadecimal.
            found: String,
            /// What it could be.
            reason: String,
        } => Builder, "PCR {pcr}, event {number}: {event} was measured as {found}, {reason}", "boot the released image as it is, and nothing beside it";
        /// More was measured where nothing may be.
        More {
            /// How many events.
            found: usize,
        } => Builder, "{found} more events were measured where nothing may be", "boot the released image as it is, and nothing beside it";
        /// The kernel was given a command line from outside the image.
        CommandLine {
            /// The event's number in the log.
            number: usize,
            /// The command line.
            found: String,
            /// The words in it that are in no image's command line.
            added: String,
            /// The image's.
            expected: String,
        } => Builder, "PCR 12, event {number}: the kernel was given the command line {found:?} from outside the image, which has {expected:?}; added: {added:?}", "boot the released image without load options or add-ons";
        /// An event has another type than what was measured has.
        Relabelled {
            /// The PCR.
            pcr: u8,
            /// The event's number in the log.
            number: usize,
            /// What was measured, in the words of the reference values.
            what: String,
            /// Its type.
            expected: String,
            /// The type in the log.
            found: String,
        } => Builder, "PCR {pcr}, event {number}: the log calls `{what}` {found}; it is {expected}", "do not believe this proof: the log was altered where no digest covers it";
    }
}
