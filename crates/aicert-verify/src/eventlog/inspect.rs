//! What no honest log has.

use aicert_core::tpm::PcrBank;

use super::{EventLog, EventLogFault};

impl EventLog<'_> {
    /// Finds what no honest log has, as far as a log alone can show it; for the bank of a quote.
    pub fn inspect(&self, bank: PcrBank) -> Vec<EventLogFault> {
        let mut faults = Vec::new();
        if !self.banks().contains(&bank) {
            faults.push(EventLogFault::NoSuchBank {
                bank,
                found: self.banks(),
            });
        }
        faults
    }
}
