//! What Google answered, turned into what to do about it.

mod advice;

use std::fmt;
use std::time::Duration;

use aicert_cloud_common::{Again, ImageError, Transient, WaitError, one_line};
use aicert_core::cloud::{CloudError, CloudErrorKind};
use google_cloud_compute_v1::model::Operation;
use google_cloud_gax::error::Error as GaxError;
use http::HeaderMap;

use advice::{constraint, is_quota, is_rate, network, quota, refused};

const LOGIN: &str = "log in again with `gcloud auth application-default login`, or name a key file in `GOOGLE_APPLICATION_CREDENTIALS`";
/// The longest that a server's wish to be left alone is heeded at once.
const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(600);

/// A request or an operation that failed.
#[derive(Debug)]
pub(crate) struct Fault {
    /// What was being done, for people.
    doing: Box<str>,
    kind: CloudErrorKind,
    /// What was answered, as it may be shown.
    message: Box<str>,
    advice: Option<Box<str>>,
    again: Option<Again>,
    /// The HTTP status, where there was an answer.
    pub(crate) status: Option<u16>,
    source: Option<Box<GaxError>>,
}

impl Transient for Fault {
    fn again(&self) -> Option<Again> {
        self.again
    }
}

impl Fault {
    /// Messages are shown as one line, whoever wrote them.
    pub(crate) fn new(doing: &str, kind: CloudErrorKind, message: impl AsRef<str>) -> Self {
        Self {
            doing: doing.into(),
            kind,
            message: one_line(message.as_ref()).into(),
            advice: None,
            again: None,
            status: None,
            source: None,
        }
    }

    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into().into());
        self
    }

    /// The same, after what is advised already.
    pub(crate) fn advise_also(self, advice: &str) -> Self {
        match self.advice.clone() {
            Some(first) => self.advise(format!("{first}; {advice}")),
            None => self.advise(advice),
        }
    }

    /// The same may succeed later.
    pub(crate) fn passing(mut self) -> Self {
        self.again = Some(Again::Soon);
        self
    }

    pub(crate) fn kind(&self) -> CloudErrorKind {
        self.kind
    }

    /// Whether what was asked about is not there.
    pub(crate) fn is_absent(&self) -> bool {
        self.status == Some(404)
    }

    /// Whether the answer says of a resource with that path that it is not there, and not of one in it.
    pub(crate) fn names_absent(&self, path: &str) -> bool {
        self.is_absent()
            && self.message.split('\'').any(|word| {
                word.strip_suffix(path)
                    .is_some_and(|before| before.is_empty() || before.ends_with('/'))
            })
    }

    /// Whether it is there already.
    pub(crate) fn is_conflict(&self) -> bool {
        self.status == Some(409)
    }

    /// Whether the credentials were refused, and new ones may not be.
    pub(crate) fn is_unauthenticated(&self) -> bool {
        self.status == Some(401)
    }

    /// An error of Google's client.
    pub(crate) fn of(doing: &str, error: GaxError) -> Self {
        if let Some(status) = error.http_status_code() {
            let message = match (error.status(), error.http_payload()) {
                (Some(status), _) => status.message.clone(),
                (None, Some(payload)) => payload_message(payload),
                (None, None) => String::new(),
            };
            let retry_after = error.http_headers().and_then(retry_after);
            return Self::answered(doing, status, &message, retry_after).caused_by(error);
        }
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(next) = cause {
            message = format!("{message}: {next}");
            cause = next.source();
        }
        if error.is_authentication() {
            // Whether they may be had later is known to whoever makes them.
            let passes = std::error::Error::source(&error)
                .and_then(|source| source.downcast_ref::<google_cloud_auth::errors::CredentialsError>())
                .is_some_and(google_cloud_auth::errors::CredentialsError::is_transient);
            let fault = Self::new(doing, CloudErrorKind::PermissionDenied, message).advise(LOGIN);
            return if passes { fault.passing() } else { fault }.caused_by(error);
        }
        if error.is_io() || error.is_timeout() || error.is_connect() || error.is_transport() {
            return Self::unreachable(doing, message).caused_by(error);
        }
        Self::new(doing, CloudErrorKind::Failed, message).caused_by(error)
    }

    /// No answer came.
    pub(crate) fn unreachable(doing: &str, message: impl AsRef<str>) -> Self {
        Self::new(doing, CloudErrorKind::Unavailable, message)
            .advise("see whether this machine reaches Google's APIs, and try again")
            .passing()
    }

    fn caused_by(mut self, error: GaxError) -> Self {
        self.source = Some(Box::new(error));
        self
    }

    /// An answer that is an error.
    pub(crate) fn answered(doing: &str, status: u16, message: &str, retry_after: Option<Duration>) -> Self {
        let shown = match one_line(message) {
            empty if empty.is_empty() => format!("status {status}"),
            message => message,
        };
        let fault = |kind| Self::new(doing, kind, &shown);
        let again = retry_after.map_or(Again::Soon, Again::After);
        let mut fault = match status {
            401 => fault(CloudErrorKind::PermissionDenied).advise(LOGIN),
            403 if is_rate(message) => Self {
                again: Some(again),
                ..fault(CloudErrorKind::Unavailable)
            },
            403 => refused(fault(CloudErrorKind::PermissionDenied), message),
            404 => fault(CloudErrorKind::NotFound),
            409 => fault(CloudErrorKind::Failed),
            408 | 429 | 500..=599 => Self {
                again: Some(again),
                ..fault(CloudErrorKind::Unavailable)
                    .advise("that is Google's side: try again in a few minutes")
            },
            _ if is_quota(message) => quota(fault(CloudErrorKind::Exhausted)),
            400 if message.contains("does not exist") || message.contains("not found") => {
                fault(CloudErrorKind::NotFound)
            }
            _ => fault(CloudErrorKind::Failed),
        };
        fault.status = Some(status);
        if let Some((kind, advice)) = network(message).filter(|_| matches!(status, 400 | 404)) {
            fault = Self { kind, ..fault }.advise(advice);
        }
        if let Some(constraint) = constraint(message) {
            fault = fault.advise(format!(
                "a policy of the organisation forbids it ({constraint}): have it changed for this project, or use another project"
            ));
        }
        fault
    }

    /// An operation that has ended with an error; nothing when it has none.
    pub(crate) fn of_operation(doing: &str, operation: &Operation) -> Option<Self> {
        let first = operation.error.as_ref().and_then(|error| error.errors.first());
        let status = operation
            .http_error_status_code
            .and_then(|status| u16::try_from(status).ok());
        let Some(error) = first else {
            let status = status.filter(|status| *status >= 400)?;
            let message = operation.http_error_message.as_deref().unwrap_or_default();
            let fault = Self::answered(doing, status, message, None);
            return Some(Self { again: None, ..fault });
        };
        let code = error.code.as_deref().unwrap_or("unknown");
        let text = error.message.as_deref().unwrap_or_default();
        let message = format!("{code}: {text}");
        let fault = |kind| Self::new(doing, kind, &message);
        let other_zone = "take another zone or another kind of machine, or try again later";
        let mut fault = match code {
            // With details, or without.
            _ if code.starts_with("ZONE_RESOURCE_POOL_EXHAUSTED") || code == "STOCKOUT" => {
                fault(CloudErrorKind::Exhausted).advise(other_zone)
            }
            "QUOTA_EXCEEDED" | "LIMIT_EXCEEDED" => {
                let said = error
                    .error_details
                    .iter()
                    .find_map(|details| details.quota_info.as_ref());
                let mut fault = fault(CloudErrorKind::Exhausted);
                if let Some(said) = said {
                    let place = said.dimensions.get("region").or_else(|| said.dimensions.get("zone"));
                    fault.message = one_line(&format!(
                        "{code}: the quota {} is {}{}; {text}",
                        said.metric_name.as_deref().unwrap_or("asked for"),
                        said.limit.unwrap_or_default(),
                        place.map(|place| format!(" in {place}")).unwrap_or_default(),
                    ))
                    .into();
                }
                quota(fault)
            }
            "RESOURCE_NOT_FOUND" => fault(CloudErrorKind::NotFound),
            "RESOURCE_ALREADY_EXISTS" => fault(CloudErrorKind::Failed),
            "PERMISSIONS_ERROR" => refused(fault(CloudErrorKind::PermissionDenied), text),
            "UNSUPPORTED_OPERATION" | "INVALID_USAGE" | "INVALID_FIELD_VALUE" => {
                fault(CloudErrorKind::Unsupported)
                    .advise("this zone has no such machine: take another zone, or another kind of machine")
            }
            "CONDITION_NOT_MET" => fault(CloudErrorKind::PermissionDenied)
                .advise("a policy of the organisation forbids it: have it changed for this project, or use another project"),
            "INTERNAL_ERROR" => fault(CloudErrorKind::Unavailable)
                .advise("that is Google's side: try again in a few minutes"),
            _ => fault(CloudErrorKind::Failed),
        };
        fault.status = status;
        Some(fault)
    }

    /// What came of waiting.
    pub(crate) fn waited(doing: &str, error: WaitError<Self>) -> Self {
        match error {
            WaitError::Failed(fault) => fault,
            WaitError::TooLong { waited } => Self::new(
                doing,
                CloudErrorKind::Unavailable,
                format!("it is not done after {} s", waited.as_secs()),
            )
            .advise("it may still come to an end: look again in a few minutes"),
        }
    }
}

/// Without advice: for a list of what could not be done.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {}: {}", self.doing, self.message)
    }
}

impl From<ImageError> for Fault {
    fn from(error: ImageError) -> Self {
        let kind = match error {
            ImageError::NotRaw { .. } => CloudErrorKind::Unsupported,
            _ => CloudErrorKind::NotFound,
        };
        Self::new("publish the image", kind, error.to_string())
            .advise("name the raw disk image that `aicert image build` has made")
    }
}

impl From<Fault> for CloudError {
    fn from(fault: Fault) -> Self {
        let error = Self::new(fault.kind, fault.to_string());
        let error = match fault.advice {
            Some(advice) => error.with_advice(advice.into_string()),
            None => error,
        };
        let error = match fault.source {
            Some(source) => error.with_source(source),
            None => error,
        };
        if fault.again.is_some() || fault.kind == CloudErrorKind::Unavailable {
            error.retryable()
        } else {
            error
        }
    }
}

/// What the body of an error says, of which neither form nor length is certain.
pub(crate) fn payload_message(payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(&payload[..payload.len().min(16 << 10)]);
    serde_json::from_str::<serde_json::Value>(&text)
        .ok()
        .and_then(|json| json["error"]["message"].as_str().map(str::to_owned))
        .unwrap_or_else(|| text.into_owned())
}

/// `Retry-After` in seconds (RFC 9110, section 10.2.3); dates are not sent by Google.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?;
    seconds
        .trim()
        .parse()
        .ok()
        .map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_LIMIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, message: &str) -> CloudError {
        Fault::answered("make the machine", status, message, None).into()
    }

    #[test]
    fn refusals_name_what_is_missing() {
        let error = answered(
            403,
            "Required 'compute.instances.create' permission for 'projects/p/zones/z/instances/i'",
        );
        assert_eq!(error.kind(), CloudErrorKind::PermissionDenied);
        let advice = error.advice().unwrap();
        assert!(
            advice.contains("compute.instances.create") && advice.contains("roles/aicert.yaml"),
            "{advice}"
        );
        let error = answered(
            403,
            "ada@example.org does not have storage.objects.create access to the Google Cloud Storage object.",
        );
        assert!(error.advice().unwrap().contains("roles/publisher.yaml"));
        let error = answered(
            403,
            "Compute Engine API has not been used in project 1 before or it is disabled.",
        );
        assert!(
            error
                .advice()
                .unwrap()
                .contains("gcloud services enable compute.googleapis.com")
        );
        let error = answered(
            412,
            "Constraint constraints/compute.vmExternalIpAccess violated for project p.",
        );
        assert!(
            error
                .advice()
                .unwrap()
                .contains("constraints/compute.vmExternalIpAccess")
        );
        assert!(answered(401, "x").advice().unwrap().contains("gcloud auth"));
    }

    #[test]
    fn networks_that_do_not_do_are_told_with_their_key() {
        for (message, kind, says) in [
            (
                "Invalid value for field 'resource.network': 'projects/p/global/networks/default'. The referenced network resource \
                 cannot be found.",
                CloudErrorKind::NotFound,
                "networks list",
            ),
            (
                "The resource 'projects/p/global/networks/default' was not found",
                CloudErrorKind::NotFound,
                "networks list",
            ),
            (
                "Invalid value for field 'resource.networkInterfaces[0]': ''. Subnetwork should be specified for custom subnetmode \
                 network",
                CloudErrorKind::Unsupported,
                "--subnet-mode=auto",
            ),
        ] {
            let error = answered(400, message);
            assert_eq!(error.kind(), kind, "{message}");
            let advice = error.advice().unwrap();
            assert!(advice.contains("`network:`") && advice.contains(says), "{advice}");
        }
        let error = answered(
            400,
            "Invalid value for field 'resource.networkInterfaces[0].networkIP': 'x'",
        );
        assert_eq!((error.kind(), error.advice()), (CloudErrorKind::Failed, None));
    }

    #[test]
    fn what_is_absent_is_told_from_what_is_in_it() {
        let fault = |message| Fault::answered("x", 404, message, None);
        let project = fault("The resource 'projects/p' was not found");
        assert!(project.names_absent("projects/p") && !project.names_absent("projects/p/zones/z"));
        let kind = fault("The resource 'projects/p/zones/z/machineTypes/k' was not found");
        assert!(!kind.names_absent("projects/p") && !kind.names_absent("projects/p/zones/z"));
        assert!(!fault("The resource 'x-projects/p' was not found").names_absent("projects/p"));
    }

    #[test]
    fn what_passes_is_told_from_what_does_not() {
        for (status, message, kind, passes) in [
            (
                403,
                "Quota 'CPUS' exceeded. Limit: 8.0 in region r.",
                CloudErrorKind::Exhausted,
                false,
            ),
            (403, "Rate Limit Exceeded", CloudErrorKind::Unavailable, true),
            (429, "", CloudErrorKind::Unavailable, true),
            (503, "backend", CloudErrorKind::Unavailable, true),
            (404, "gone", CloudErrorKind::NotFound, false),
            (400, "bad", CloudErrorKind::Failed, false),
        ] {
            let fault = Fault::answered("x", status, message, None);
            assert_eq!(fault.again().is_some(), passes, "{status}");
            assert_eq!(fault.kind(), kind, "{status}");
        }
        let after = Fault::answered("x", 429, "", Some(Duration::from_secs(7)));
        assert_eq!(after.again(), Some(Again::After(Duration::from_secs(7))));
    }

    #[test]
    fn nothing_of_an_answer_reaches_a_terminal_unescaped() {
        let error = answered(400, "\u{1b}[2Jall is well");
        assert!(!error.message().contains('\u{1b}'));
        assert_eq!(payload_message(b"\xff no json"), "\u{fffd} no json");
    }
}
