//! What can fail here, and how it is told outside.

use std::time::Duration;

use aicert_cloud_common::{Again, ImageError, Transient, WaitError};
use aicert_core::cloud::{CloudError, CloudErrorKind};

use crate::refusal::Refusal;

/// A failure to make, find or remove something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Azure said no.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// Azure could not be reached, or the connection broke.
    #[error("{request} got no answer: {why}")]
    Unreachable { request: String, why: String },
    /// There is no token.
    #[error("no access token for Azure: {why}")]
    Credential { why: String },
    /// It is not offered, or cannot be asked for like this.
    #[error("{what}")]
    Unsupported { what: String, advice: String },
    /// Something that has the name of ours and is not ours.
    #[error("{what} is there already, and was not made by aicert for this owner")]
    Foreign { what: String },
    /// There is something else under that name.
    #[error("{what}")]
    Exists { what: String, advice: String },
    /// Patience has ended.
    #[error("{what} was not done in time{}", .waited.map_or_else(String::new, |waited| format!(": after {} s", waited.as_secs())))]
    TooLong { what: String, waited: Option<Duration> },
    /// Azure is still at it.
    #[error("Azure is still at work on it")]
    NotYet { after: Option<Duration> },
    /// Azure took it on, and it came to nothing.
    #[error("{what} ended as {state}")]
    Ended { what: String, state: String },
    /// An answer that nothing can be made of.
    #[error("Azure's answer to {request} is not what was expected: {why}")]
    Unexpected { request: String, why: String },
    /// The image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The image does not boot as it should.
    #[error("the image cannot be measured: {0}")]
    Measure(#[from] aicert_verify::image::ImageError),
    /// Something on this machine.
    #[error("{what}: {why}")]
    Local { what: String, why: String },
    /// Not everything could be removed.
    #[error("{cause}; left is: {}", .left.join(", "))]
    Remains { cause: Box<Failure>, left: Vec<String> },
    /// It failed, and what had been made for it could not be removed.
    #[error("{cause}; what had been made for it could not all be removed ({why}), and is left: {}", .left.join(", "))]
    Left {
        cause: Box<Failure>,
        why: Box<Failure>,
        left: Vec<String>,
    },
}

impl Failure {
    /// Whether Azure has no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.is_not_found())
    }

    /// For `map_err` of what was waited for.
    pub(crate) fn waiting(what: impl Into<String>) -> impl FnOnce(WaitError<Self>) -> Self {
        move |error| match error {
            WaitError::Failed(Self::NotYet { .. }) => Self::TooLong {
                what: what.into(),
                waited: None,
            },
            WaitError::Failed(failure) => failure,
            WaitError::TooLong { waited } => Self::TooLong {
                what: what.into(),
                waited: Some(waited),
            },
        }
    }
}

impl Transient for Failure {
    fn again(&self) -> Option<Again> {
        match self {
            Self::Refused(refusal) => refusal.again(),
            Self::Unreachable { .. } => Some(Again::Soon),
            Self::NotYet { after } => Some(after.map_or(Again::Soon, Again::After)),
            _ => None,
        }
    }
}

impl From<azure_core::Error> for Failure {
    /// All that the generated client sends goes through this crate's transport, whose failures are inside.
    fn from(error: azure_core::Error) -> Self {
        match error.into_downcast::<Self>() {
            Ok(failure) => failure,
            Err(error) => Self::Unexpected {
                request: "the generated client".into(),
                why: error.kind().to_string(),
            },
        }
    }
}

impl From<Failure> for CloudError {
    fn from(failure: Failure) -> Self {
        use CloudErrorKind as Kind;
        let message = failure.to_string();
        let retryable = failure.again().is_some();
        let (kind, advice) = judge(failure);
        let mut error = Self::new(kind, message);
        if let Some(advice) = advice {
            error = error.with_advice(advice);
        }
        if retryable || matches!(kind, Kind::Unavailable) {
            error = error.retryable();
        }
        error
    }
}

fn judge(failure: Failure) -> (CloudErrorKind, Option<String>) {
    use CloudErrorKind as Kind;
    match failure {
        Failure::Refused(refusal) => refusal.judge(),
        Failure::Unreachable { .. } => (
            Kind::Unavailable,
            Some("check the network and its proxy (`HTTPS_PROXY`), and try again".into()),
        ),
        Failure::Credential { .. } => (
            Kind::PermissionDenied,
            Some(
                "log in with `az login`, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET of a service principal".into(),
            ),
        ),
        Failure::Unsupported { advice, .. } => (Kind::Unsupported, Some(advice)),
        Failure::Foreign { .. } => (
            Kind::Failed,
            Some("it is left as it is: name the job otherwise, or have whoever owns it remove it".into()),
        ),
        Failure::Exists { advice, .. } => (Kind::Failed, Some(advice)),
        Failure::TooLong { .. } | Failure::NotYet { .. } => (
            Kind::Boot,
            Some("try again later; `aicert machines list` shows what is there".into()),
        ),
        Failure::Ended { .. } => (
            Kind::Boot,
            Some("the resource group's activity log in Azure's portal says why".into()),
        ),
        Failure::Unexpected { .. } => (Kind::Failed, None),
        Failure::Image(_) | Failure::Measure(_) => (
            Kind::NotFound,
            Some("`aicert image build` makes the image".into()),
        ),
        Failure::Local { .. } => (Kind::Failed, None),
        Failure::Remains { cause, left } | Failure::Left { cause, left, .. } => {
            let (kind, advice) = judge(*cause);
            let remove = format!(
                "remove what is left: `aicert machines destroy`, or in Azure's portal ({})",
                left.join(", ")
            );
            let advice = match advice {
                Some(advice) => format!("{remove}; then {advice}"),
                None => remove,
            };
            (kind, Some(advice))
        }
    }
}
