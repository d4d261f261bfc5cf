//! What the PCRs hold after all events.

use std::collections::BTreeMap;

use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues};

use super::{EventData, EventLog, EventLogError};

impl EventLog<'_> {
    /// Computes the value that every PCR with extending events ends with.
    ///
    /// PCRs 0 to 15 start at zero, as do 16 and 23; 17 to 22 start at ones (PC Client Platform TPM Profile 1.05, PCR attributes). PCR 0 starts with
    /// the locality that the TPM was started from (section 10.4.5.3).
    ///
    /// Events for PCRs above 23 are left out; [`EventLog::inspect`] reports them.
    ///
    /// # Errors
    ///
    /// When the log has no digests for the bank.
    pub fn replay(&self, bank: PcrBank) -> Result<PcrValues, EventLogError> {
        if !self.banks().contains(&bank) {
            return Err(EventLogError::NoSuchBank { bank });
        }
        let mut values = BTreeMap::<PcrIndex, Vec<u8>>::new();
        for event in self.events.iter().filter(|event| event.extends()) {
            let Some(pcr) = u8::try_from(event.pcr).ok().and_then(PcrIndex::new) else {
                continue;
            };
            // Every event has a digest of every algorithm of the header.
            let Some(digest) = event.digest(bank) else {
                continue;
            };
            let value = values.entry(pcr).or_insert_with(|| self.start(pcr, bank));
            *value = bank.extend(value, digest);
        }
        Ok(PcrValues(values))
    }

    /// The locality that the TPM was started from, according to the log's first statement about it.
    pub fn startup_locality(&self) -> Option<u8> {
        self.events.iter().find_map(|event| match event.data {
            EventData::StartupLocality { locality } if !event.extends() => Some(locality),
            _ => None,
        })
    }

    /// What a PCR holds before the first event.
    pub(crate) fn start(&self, pcr: PcrIndex, bank: PcrBank) -> Vec<u8> {
        let fill = if (17..=22).contains(&pcr.as_u8()) { 0xff } else { 0 };
        let mut value = vec![fill; bank.digest_len()];
        if let (0, Some(last)) = (pcr.as_u8(), value.last_mut()) {
            *last = self.startup_locality().unwrap_or(0);
        }
        value
    }
}
