//! The faults that a log can have.

use aicert_core::tpm::PcrBank;

use crate::error::faults;

faults! {
    /// Says what is wrong with a boot log that could be read.
    enum EventLogFault {
        /// It has no digests of the bank that was quoted.
        NoSuchBank {
            /// The bank that was quoted.
            bank: PcrBank,
            /// The banks in the log.
            found: Vec<PcrBank>,
        } => Builder, "the boot log has no digests of the bank {bank}, but of {found:?}", "quote a bank that the firmware measures into, or have the firmware measure into this one";
    }
}
