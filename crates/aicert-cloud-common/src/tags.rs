//! What everything that is made for a job is called and marked with.

use std::fmt;
use std::str::FromStr;

use aicert_core::cloud::MachineRequest;
use aicert_core::runtime::JobId;
use aicert_core::time::Timestamp;

/// Whose machines they are: people who share an account do not see, and never destroy, each other's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(String);

/// Says that a text is no [`Owner`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name of an owner: expected 1 to 60 lowercase letters, digits and `-`, a letter first")]
pub struct ParseOwnerError(String);

impl Owner {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Owner {
    type Err = ParseOwnerError;

    /// What is allowed is what every cloud takes for the value of a tag.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = matches!(text.len(), 1..=60)
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(ParseOwnerError(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What everything that is made for a job is marked with. Keys and values are what every cloud takes: lowercase letters,
/// digits and `-`, at most 63 of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tags {
    /// Whose it is.
    pub owner: Owner,
    /// What it is for.
    pub job: JobId,
    /// Since when it exists.
    pub created: Timestamp,
    /// When it should not exist any more, whatever happened: for people and scripts that clean up an account.
    pub expires: Option<Timestamp>,
}

impl Tags {
    /// The key that everything of aicert has, with the owner.
    pub const OWNER: &'static str = "aicert-owner";
    /// The key with the job.
    pub const JOB: &'static str = "aicert-job";
    /// The key with the time of making, in seconds since 1970.
    pub const CREATED: &'static str = "aicert-created";
    /// The key with the time of expiry, in seconds since 1970.
    pub const EXPIRES: &'static str = "aicert-expires";

    /// Those of a machine that is made now.
    pub fn new(owner: &Owner, request: &MachineRequest) -> Self {
        let created = Timestamp::now();
        let lifetime = request
            .lifetime
            .map(|lifetime| i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX));
        Self {
            owner: owner.clone(),
            job: request.job.clone(),
            created,
            expires: lifetime.map(|seconds| Timestamp::from_unix(created.as_unix().saturating_add(seconds))),
        }
    }

    /// As pairs of key and value.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = vec![
            (Self::OWNER, self.owner.to_string()),
            (Self::JOB, self.job.to_string()),
            (Self::CREATED, self.created.as_unix().to_string()),
        ];
        pairs.extend(self.expires.map(|at| (Self::EXPIRES, at.as_unix().to_string())));
        pairs
    }

    /// Reads them from something that was found; `value` looks up a key. Nothing when it is not of aicert.
    pub fn read<'a>(value: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let time = |key| {
            let seconds: i64 = value(key)?.parse().ok()?;
            Some(Timestamp::from_unix(seconds))
        };
        Some(Self {
            owner: value(Self::OWNER)?.parse().ok()?,
            job: value(Self::JOB)?.parse().ok()?,
            created: time(Self::CREATED).unwrap_or(Timestamp::from_unix(0)),
            expires: time(Self::EXPIRES),
        })
    }
}

/// What things of a job are called: always the same, so that they can be looked for, and nothing is made twice.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a>(pub &'a JobId);

impl Names<'_> {
    /// The one thing of a kind that a job has: `aicert-<job>`, at most 47 lowercase letters, digits and `-`, ending in neither.
    pub fn main(&self) -> String {
        // Names at clouds end in a letter or digit, those of jobs need not.
        format!("aicert-{}", self.0).trim_end_matches('-').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use aicert_core::progress::Progress;

    use super::*;

    #[test]
    fn tags_are_read_as_they_were_written() {
        let owner: Owner = "ada".parse().unwrap();
        let request = MachineRequest {
            job: "job-1".parse().unwrap(),
            instance_type: None,
            region: None,
            client: None,
            access: Vec::new(),
            gpus: 0,
            idle: Duration::from_secs(1),
            lifetime: Some(Duration::from_secs(3600)),
            progress: Progress::ignored(),
        };
        let tags = Tags::new(&owner, &request);
        let pairs: BTreeMap<_, _> = tags.pairs().into_iter().collect();
        let read = Tags::read(|key| pairs.get(key).map(String::as_str)).unwrap();
        assert_eq!(read, tags);
        let lived = tags.expires.unwrap().as_unix() - tags.created.as_unix();
        assert_eq!(lived, 3600);
        let allowed = |text: &str| {
            text.bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        };
        assert!(pairs.iter().all(|(key, value)| allowed(key) && allowed(value)));
        // What others made.
        assert!(Tags::read(|key| (key == Tags::JOB).then_some("job-1")).is_none());
        assert!(Tags::read(|_| Some("No Name")).is_none());
    }

    #[test]
    fn owners_are_what_every_cloud_takes() {
        assert!("ada-1".parse::<Owner>().is_ok());
        for text in ["", "Ada", "1ada", "-a", "a_b", &"a".repeat(61)] {
            assert!(text.parse::<Owner>().is_err(), "{text}");
        }
    }
}
