//! The faults that a log can have.

use aicert_core::tpm::PcrBank;

use super::EventType;
use crate::error::faults;

faults! {
    /// Says what is wrong with a boot log that could be read. Events are counted from 0 after the header.
    enum EventLogFault {
        /// It has no digests of the bank that was quoted.
        NoSuchBank {
            /// The bank that was quoted.
            bank: PcrBank,
            /// The banks in the log.
            found: String,
        } => Builder, "the boot log has no digests of the bank {bank}, only of {found}", "quote a bank that the firmware measures into, or have the firmware measure into this one";
        /// An event has a type that nothing defines.
        UnknownType {
            /// The event.
            event: usize,
            /// Its PCR.
            pcr: u32,
            /// Its type.
            event_type: EventType,
        } => Builder, "event {event} of the boot log (PCR {pcr}) has the type {event_type}, which no specification defines: nobody can say what was measured", "do not believe this proof unless you know what firmware writes such events";
        /// An event is for a PCR that TPMs do not have.
        NoSuchPcr {
            /// The event.
            event: usize,
            /// Its PCR.
            pcr: u32,
        } => Builder, "event {event} of the boot log is for PCR {pcr}; there are 0 to 23", "do not believe this proof: its boot log was made up";
        /// The data of an event is not what its type says.
        Malformed {
            /// The event.
            event: usize,
            /// Its PCR.
            pcr: u32,
            /// Its type.
            event_type: EventType,
            /// What is wrong with it.
            reason: String,
        } => Builder, "event {event} of the boot log (PCR {pcr}, {event_type}) has malformed data: {reason}", "do not believe this proof: the event says nothing, or its type was changed";
        /// The data of an event is not what was measured.
        DataDiffers {
            /// The event.
            event: usize,
            /// Its PCR.
            pcr: u32,
            /// Its type.
            event_type: EventType,
            /// The digest of its data.
            expected: String,
            /// Its digest.
            found: String,
        } => Builder, "the data of event {event} of the boot log (PCR {pcr}, {event_type}) is not what was measured: its digest would be {expected}, the event has {found}", "do not believe this proof: the data, or the type, was changed after it was measured";
        /// An event that extends nothing has a digest.
        HiddenExtend {
            /// The event.
            event: usize,
            /// Its PCR.
            pcr: u32,
            /// Its digest.
            found: String,
        } => Builder, "event {event} of the boot log (PCR {pcr}) is an EV_NO_ACTION, which extends nothing, and yet has the digest {found} instead of zeros", "do not believe this proof: a measurement was made to look as if it were none";
        /// A PCR of the firmware was never closed.
        SeparatorMissing {
            /// The PCRs.
            pcrs: String,
        } => Builder, "the boot log has no separator in PCR {pcrs}: what firmware measured cannot be told from what was measured after it", "do not believe this proof: its boot log was cut, or is not that of a whole boot";
        /// A PCR of the firmware was closed more than once.
        SeparatorRepeated {
            /// The PCR.
            pcr: u32,
            /// The events.
            events: String,
        } => Builder, "the boot log has more than one separator in PCR {pcr}: events {events}", "do not believe this proof: somebody else than firmware has measured like firmware";
        /// A separator is labelled as something else.
        SeparatorDisguised {
            /// The event.
            event: usize,
            /// Its PCR.
            pcr: u32,
            /// Its type.
            event_type: EventType,
        } => Builder, "event {event} of the boot log (PCR {pcr}) says that it is an {event_type}, and has the digest of a separator", "do not believe this proof: the type of the event was changed";
        /// Firmware says that it failed.
        FirmwareError {
            /// The event.
            event: usize,
            /// The PCR.
            pcr: u32,
        } => Platform, "event {event} of the boot log (PCR {pcr}) is a separator with the value 1: firmware could not measure everything", "boot the machine again, and do not use it if that does not help";
        /// An application ran before firmware was done.
        ImageBeforeSeparator {
            /// The event.
            event: usize,
            /// The separator of PCR 4.
            separator: usize,
        } => Builder, "event {event} of the boot log starts an application before firmware was done, which it was at event {separator}", "remove applications that run before the operating system (UEFI variables SysPrep####) and boot again";
        /// The locality of the TPM's start is stated more than once.
        LocalityRepeated {
            /// The event.
            event: usize,
        } => Builder, "event {event} of the boot log states once more from which locality the TPM was started", "do not believe this proof: its boot log was put together";
        /// The locality of the TPM's start is stated too late.
        LocalityLate {
            /// The event.
            event: usize,
            /// The first event that extended PCR 0.
            first: usize,
        } => Builder, "event {event} of the boot log states from which locality the TPM was started, after event {first} has extended PCR 0", "do not believe this proof: its boot log was put together";
        /// The locality of the TPM's start is stated for another PCR.
        LocalityElsewhere {
            /// The event.
            event: usize,
            /// Its PCR.
            pcr: u32,
        } => Builder, "event {event} of the boot log states from which locality the TPM was started, for PCR {pcr} instead of 0", "do not believe this proof: its boot log was put together";
        /// Secure Boot was configured after firmware was done.
        SecureBootLate {
            /// The event.
            event: usize,
            /// The variable.
            variable: String,
        } => Builder, "event {event} of the boot log measures the variable {variable} after firmware was done with PCR 7", "do not believe what this log says of Secure Boot: whoever controls the machine can measure that";
        /// Whether Secure Boot is on is said more than once.
        SecureBootRepeated {
            /// The events.
            events: String,
        } => Builder, "the boot log says more than once whether Secure Boot is on: events {events}", "boot the machine again, without changing how it is configured while it boots";
        /// Firmware says that the machine is open to attack.
        Weakened {
            /// The event.
            event: usize,
            /// Its PCR.
            pcr: u32,
            /// What it says.
            what: &'static str,
        } => Platform, "event {event} of the boot log (PCR {pcr}) says `{what}`: the machine was open to whoever can reach it", "turn that off in the firmware, and boot again";
        /// An event is in a PCR where its type never is.
        Misplaced {
            /// The event.
            event: usize,
            /// Its PCR.
            pcr: u32,
            /// Its type.
            event_type: EventType,
        } => Builder, "event {event} of the boot log is an {event_type} in PCR {pcr}, where no firmware and no boot loader measures such", "do not believe this proof: the type of the event was changed, or somebody else than firmware has measured";
        /// There is more that is wrong with it.
        More {
            /// How many faults.
            found: usize,
        } => Builder, "the boot log has {found} more faults", "do not believe this proof: its boot log was put together";
    }
}
