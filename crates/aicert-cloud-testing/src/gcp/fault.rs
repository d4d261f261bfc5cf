//! What goes wrong, when, and how.

use std::time::Duration;

/// Something that goes wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It is not carried out: answered with that status, and `Retry-After` in seconds.
    Refused(u16, Option<u64>),
    /// It is not carried out, and no answer comes: the connection ends.
    Lost,
    /// It is carried out, and no answer comes: the connection ends.
    Cut,
    /// It is carried out, and the answer takes that long.
    Slow(Duration),
    /// Its credentials have expired, and are refused from now on.
    Expired,
    /// What is uploaded is stored with one byte changed.
    Corrupt,
    /// The operation that it begins fails with that code and message.
    Operation(&'static str, &'static str),
}

/// When something goes wrong.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    /// The id of a method; any when absent.
    pub(super) method: Option<&'static str>,
    /// At which of the requests, from 1 on.
    pub(super) nth: u32,
    /// How many of them there were.
    pub(super) seen: u32,
    pub(super) fault: Fault,
}

impl Planned {
    /// Whether it is time.
    pub(super) fn is_due(&mut self, method: &str) -> bool {
        if self.method.is_some_and(|expected| expected != method) {
            return false;
        }
        self.seen += 1;
        self.seen == self.nth
    }
}

/// How things take their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Habits {
    /// How many requests later an operation has ended.
    pub operation: u32,
    /// How many requests later an instance is deleted.
    pub deletion: u32,
    /// How many times an instance that was made does not show in lists.
    pub unlisted: u32,
    /// How many times it does not show when it is asked for by name.
    pub unseen: u32,
    /// How many times a firewall rule does not show, in lists or by name.
    pub rule_unseen: u32,
    /// How many items a page has.
    pub page: usize,
    /// A zone that is not reachable when all are asked.
    pub unreachable: Option<&'static str>,
    /// Whether the ids of instances are not told.
    pub anonymous: bool,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            operation: 2,
            deletion: 2,
            unlisted: 0,
            unseen: 0,
            rule_unseen: 0,
            page: 2,
            unreachable: None,
            anonymous: false,
        }
    }
}
