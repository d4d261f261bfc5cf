//! What goes wrong at Amazon, on purpose.

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The request is refused, and not carried out.
    Refuse {
        /// The HTTP status.
        status: u16,
        /// The code of the error.
        code: &'static str,
        /// After how many seconds it may be asked again, where that is said.
        retry_after: Option<u64>,
    },
    /// The connection is cut; nobody knows whether the request was carried out.
    Cut {
        /// Whether it was.
        carried_out: bool,
    },
    /// No answer ever comes; [`AwsCloud::paused`](super::AwsCloud::paused) tells when it has come to this.
    Pause {
        /// Whether the request is carried out first.
        carried_out: bool,
    },
    /// A bit of the body changes on the way.
    Corrupt,
    /// The second half of the body is lost on the way.
    Truncate,
}

/// Which requests a fault befalls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum When {
    /// So many of this operation, from the next one on.
    Operation(&'static str, u32),
    /// The request with this number, the next one being 0.
    Request(u64),
}

/// What takes its time: each number counts how often it is asked until it is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slow {
    /// What was made is not listed.
    pub listing: u32,
    /// Instances are pending, without an address.
    pub start: u32,
    /// Instances are shutting down.
    pub end: u32,
    /// Snapshots that were completed are pending.
    pub snapshot: u32,
    /// Images that were registered are pending.
    pub image: u32,
}

impl Fault {
    /// Asked too often.
    pub const THROTTLED: Self = Self::Refuse {
        status: 503,
        code: "RequestLimitExceeded",
        retry_after: None,
    };
    /// Something is broken at Amazon.
    pub const BROKEN: Self = Self::Refuse {
        status: 500,
        code: "InternalError",
        retry_after: None,
    };
    /// There is no such machine free.
    pub const NO_CAPACITY: Self = Self::Refuse {
        status: 500,
        code: "InsufficientInstanceCapacity",
        retry_after: None,
    };
    /// The time of the credentials is over.
    pub const EXPIRED: Self = Self::Refuse {
        status: 400,
        code: "RequestExpired",
        retry_after: None,
    };
    /// The answer is lost.
    pub const LOST: Self = Self::Cut { carried_out: true };
}
