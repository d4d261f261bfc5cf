//! Logs as JSON, see the documentation of the module above.

use std::collections::BTreeMap;

use aicert_core::tpm::{PcrBank, PcrValues};
use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::{DataCheck, Event, EventData, EventLog};

impl Serialize for EventLog<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let banks = self.banks();
        let pcrs: BTreeMap<PcrBank, PcrValues> = banks
            .iter()
            .filter_map(|bank| Some((*bank, self.replay(*bank).ok()?)))
            .collect();
        let mut object = serializer.serialize_struct("EventLog", 6)?;
        object.serialize_field("format", &self.format)?;
        object.serialize_field("header", &self.header)?;
        object.serialize_field("banks", &banks)?;
        object.serialize_field("events", &self.events)?;
        object.serialize_field("padding", &self.padding)?;
        object.serialize_field("pcrs", &pcrs)?;
        object.end()
    }
}

impl Serialize for Event<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digests: BTreeMap<PcrBank, &[u8]> = PcrBank::ALL
            .into_iter()
            .filter_map(|bank| Some((bank, self.digest(bank)?)))
            .collect();
        let checks: BTreeMap<PcrBank, DataCheck> = digests
            .keys()
            .map(|bank| (*bank, self.data_check(*bank)))
            .collect();
        let digests: BTreeMap<PcrBank, String> = digests
            .into_iter()
            .map(|(bank, digest)| (bank, hex::encode(digest)))
            .collect();
        let unread = matches!(self.data, EventData::Undecoded | EventData::Malformed { .. });
        let mut object = serializer.serialize_struct("Event", 9)?;
        object.serialize_field("number", &self.number)?;
        object.serialize_field("offset", &self.offset)?;
        object.serialize_field("pcr", &self.pcr)?;
        object.serialize_field("type", &self.event_type)?;
        object.serialize_field("digests", &digests)?;
        object.serialize_field("size", &self.raw.len())?;
        object.serialize_field("data", &self.data)?;
        object.serialize_field("data_check", &checks)?;
        if unread {
            object.serialize_field("raw", &hex::encode(self.raw))?;
        } else {
            object.skip_field("raw")?;
        }
        object.end()
    }
}
