//! How what was made for a job is recognised: by labels, and where there are none, by a description that is read back.

use std::collections::{BTreeMap, HashMap};

use aicert_cloud_common::{Owner, Tags};
use aicert_core::runtime::JobId;
use sha2::{Digest as _, Sha256};

use crate::kind::Kind;

/// What descriptions begin with.
const BEGINNING: &str = "aicert";
const ZONE: &str = "aicert-zone";
const TYPE: &str = "aicert-type";
/// The longest description that Compute Engine takes.
const LIMIT: usize = 2048;

/// What the firewall rule of a job says: it is made first and removed last, so it tells where to look for the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) tags: Tags,
    /// Where the machine is, or was to be.
    pub(crate) zone: String,
    /// Its kind.
    pub(crate) instance_type: String,
}

impl Marks {
    /// `aicert; key=value; …`
    pub(crate) fn describe(&self) -> String {
        let mut text = BEGINNING.to_owned();
        let own = [(ZONE, self.zone.clone()), (TYPE, self.instance_type.clone())];
        for (key, value) in self.tags.pairs().into_iter().chain(own) {
            text.push_str(&format!("; {key}={value}"));
        }
        text
    }

    /// Reads what [`describe`](Self::describe) writes, and nothing else.
    pub(crate) fn read(description: &str) -> Option<Self> {
        let mut parts = description.split("; ");
        if description.len() > LIMIT || parts.next() != Some(BEGINNING) {
            return None;
        }
        let mut pairs = BTreeMap::new();
        for part in parts {
            let (key, value) = part.split_once('=')?;
            if pairs.insert(key, value).is_some() {
                return None;
            }
        }
        let marks = Self {
            tags: Tags::read(|key| pairs.get(key).copied())?,
            zone: (*pairs.get(ZONE)?).to_owned(),
            instance_type: (*pairs.get(TYPE)?).to_owned(),
        };
        let is_sound = marks.describe() == description
            && is_name(&marks.zone)
            && Kind::parse(&marks.instance_type).is_ok();
        is_sound.then_some(marks)
    }
}

/// The labels of an instance and its disk.
pub(crate) fn labels(tags: &Tags) -> HashMap<String, String> {
    tags.pairs()
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// The tags that labels hold.
pub(crate) fn read_labels(labels: &HashMap<String, String>) -> Option<Tags> {
    Tags::read(|key| labels.get(key).map(String::as_str))
}

pub(crate) fn is_of(tags: Option<&Tags>, owner: &Owner, job: &JobId) -> bool {
    tags.is_some_and(|tags| tags.owner == *owner && tags.job == *job)
}

/// Whether a text is a name in Compute Engine (RFC 1035).
pub(crate) fn is_name(text: &str) -> bool {
    matches!(text.len(), 1..=63)
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// What names a request, so that Google carries it out once however often it is sent: a UUID (RFC 9562, section 5.8) of what
/// is asked.
pub(crate) fn request_id(asked: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in asked {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let hash = hasher.finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    id[6] = (id[6] & 0x0f) | 0x80;
    id[8] = (id[8] & 0x3f) | 0x80;
    let hex = hex::encode(id);
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use aicert_core::time::Timestamp;

    use super::*;

    fn marks() -> Marks {
        Marks {
            tags: Tags {
                owner: "ada".parse().unwrap(),
                job: "job-1".parse().unwrap(),
                created: Timestamp::from_unix(1_700_000_000),
                expires: Some(Timestamp::from_unix(1_700_003_600)),
            },
            zone: "europe-west4-a".into(),
            instance_type: "n1-standard-8+1xnvidia-tesla-t4".into(),
        }
    }

    #[test]
    fn descriptions_are_read_as_they_were_written() {
        let mut marks = marks();
        assert_eq!(
            marks.describe(),
            "aicert; aicert-owner=ada; aicert-job=job-1; aicert-created=1700000000; aicert-expires=1700003600; \
             aicert-zone=europe-west4-a; aicert-type=n1-standard-8+1xnvidia-tesla-t4"
        );
        assert_eq!(Marks::read(&marks.describe()), Some(marks.clone()));
        marks.tags.expires = None;
        assert_eq!(Marks::read(&marks.describe()), Some(marks));
    }

    #[test]
    fn what_others_wrote_is_not_read() {
        let text = marks().describe();
        for other in [
            String::new(),
            "for aicert".into(),
            text.replace("aicert;", "other;"),
            text.replace("; aicert-zone=europe-west4-a", ""),
            text.replace("europe-west4-a", "../x"),
            text.clone() + "; aicert-job=job-2",
            text.clone() + "; note=x",
            text.clone() + " ",
            text.replace("ada", "Ada"),
        ] {
            assert_eq!(Marks::read(&other), None, "{other}");
        }
    }

    #[test]
    fn request_ids_are_uuids_of_what_is_asked() {
        let id = request_id(&["a", "b"]);
        assert_eq!(id.len(), 36);
        assert_eq!((&id[14..15], &id[23..24]), ("8", "-"));
        assert_eq!(id, request_id(&["a", "b"]));
        assert_ne!(id, request_id(&["ab", ""]));
    }
}
