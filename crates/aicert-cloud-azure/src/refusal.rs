//! Errors that Azure answers with, and what to do about them.

use std::fmt;
use std::time::Duration;

use aicert_cloud_common::{Again, one_line};
use aicert_core::cloud::CloudErrorKind;
use serde::Deserialize;

/// An answer that says no (Azure Resource Manager's common error response).
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    /// What was asked: method and path, no query.
    pub(crate) request: String,
    /// The status of the answer; that of what went on after the answer, when it failed then.
    pub(crate) status: u16,
    /// The code; the first of the details, where the outer one says nothing.
    pub(crate) code: String,
    /// The message, in one line.
    pub(crate) message: String,
    /// When to ask again.
    pub(crate) retry_after: Option<Duration>,
    /// What Azure's support asks for.
    pub(crate) id: Option<String>,
}

#[derive(Deserialize)]
struct Body {
    error: Detail,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct Detail {
    code: Option<String>,
    message: Option<String>,
    details: Option<Vec<Detail>>,
}

/// Codes that say only that another one is inside.
const OUTER: [&str; 4] = [
    "DeploymentFailed",
    "ResourceOperationFailure",
    "ResourceDeploymentFailure",
    "Conflict",
];

impl Detail {
    /// The error that says something, and its message; inner ones are at most a few levels down.
    fn innermost(self, depth: u8) -> (String, String) {
        let code = self.code.unwrap_or_default();
        let inner = self.details.unwrap_or_default().into_iter().next();
        match inner {
            Some(inner)
                if depth > 0
                    && inner.code.is_some()
                    && (code.is_empty() || OUTER.contains(&code.as_str())) =>
            {
                inner.innermost(depth - 1)
            }
            _ => (code, self.message.unwrap_or_default()),
        }
    }
}

impl Refusal {
    /// Reads an answer. What is no error of Azure's (a proxy's page, say) is shown as it begins.
    pub(crate) fn read(request: String, status: u16, body: &[u8]) -> Self {
        let detail = serde_json::from_slice::<Body>(body)
            .map(|body| body.error)
            .or_else(|_| serde_json::from_slice::<Detail>(body))
            .ok()
            .filter(|detail| detail.code.is_some() || detail.message.is_some())
            .or_else(|| storage(body))
            .unwrap_or_else(|| Detail {
                code: None,
                message: Some(String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned()),
                details: None,
            });
        Self::from_detail(request, status, detail)
    }

    /// What has failed after the answer.
    pub(crate) fn from_detail(request: String, status: u16, detail: Detail) -> Self {
        let (code, message) = detail.innermost(4);
        Self {
            request,
            status,
            code: code.chars().take(100).collect(),
            message: one_line(&message),
            retry_after: None,
            id: None,
        }
    }

    /// Whether there is no such thing. That a subscription is not found, or the page of a proxy, says nothing of what is in it.
    pub(crate) fn is_not_found(&self) -> bool {
        let code = self.code.as_str();
        self.status == 404
            && code.ends_with("NotFound")
            && !matches!(code, "SubscriptionNotFound" | "TenantNotFound")
    }

    /// When the same request may succeed.
    pub(crate) fn again(&self) -> Option<Again> {
        let passes = match self.status {
            408 | 429 | 500 | 502 | 503 | 504 => true,
            // Bytes were damaged on the way.
            400 if self.code == "Md5Mismatch" => true,
            // What was in it is gone, and was a moment ago: versions of images stay with their image for some seconds.
            // <https://github.com/Azure/azure-rest-api-specs/issues/11559>
            409 if self.request.starts_with("DELETE ") && self.code == "CannotDeleteResource" => true,
            // Something else is at work on the same thing, or on what it needs.
            409 | 412 => matches!(
                self.code.as_str(),
                "AnotherOperationInProgress"
                    | "RetryableError"
                    | "RetryableErrorDueToAnotherOperation"
                    | "ReferencedResourceNotProvisioned"
                    | "ResourceGroupBeingDeleted"
                    | "ResourceGroupDeletionTimeout"
                    | "OperationPreempted"
            ),
            // What was just made is not known everywhere yet.
            400 | 404 if self.request.starts_with("PUT ") => matches!(
                self.code.as_str(),
                "ResourceGroupNotFound" | "ParentResourceNotFound" | "InvalidResourceReference"
            ),
            _ => false,
        };
        passes.then(|| self.retry_after.map_or(Again::Soon, Again::After))
    }

    /// What kind of error it is, and what the user can do.
    pub(crate) fn judge(&self) -> (CloudErrorKind, Option<String>) {
        use CloudErrorKind as Kind;
        let code = self.code.as_str();
        let advice = match code {
            "AuthorizationFailed" | "LinkedAuthorizationFailed" => (
                Kind::PermissionDenied,
                match between(&self.message, "perform action '", "'") {
                    Some(action) => format!(
                        "the identity lacks the action {action}: assign it a role that has it; \
                         `roles/aicert.json` of aicert-cloud-azure has all that machines need, `roles/publisher.json` what images need"
                    ),
                    None => "assign the identity the role in `roles/aicert.json` of aicert-cloud-azure, or \
                             `roles/publisher.json` to publish images"
                        .into(),
                },
            ),
            "ExpiredAuthenticationToken" | "InvalidAuthenticationToken" | "AuthenticationFailed" => (
                Kind::PermissionDenied,
                "log in again: `az login`, or renew the secret of the service principal".into(),
            ),
            "InvalidAuthenticationTokenTenant" => (
                Kind::PermissionDenied,
                "the login is for another tenant than the subscription's: `az login --tenant …`".into(),
            ),
            "RequestDisallowedByPolicy" => (
                Kind::PermissionDenied,
                "a policy of the organization forbids it: ask who administers the subscription".into(),
            ),
            "QuotaExceeded" => (Kind::Exhausted, self.quota()),
            "OperationNotAllowed" if self.message.to_lowercase().contains("quota") => {
                (Kind::Exhausted, self.quota())
            }
            "SubscriptionRequestsThrottled" | "TooManyRequests" => {
                (Kind::Exhausted, "Azure takes fewer requests than were made: try again in some minutes".into())
            }
            "SkuNotAvailable" => (
                Kind::Exhausted,
                "this size is not offered there now: choose another `instanceType` or `region`; `az vm list-skus --location … \
                 --output table` shows what is"
                    .into(),
            ),
            "AllocationFailed" | "ZonalAllocationFailed" | "OverconstrainedAllocationRequest"
            | "OverconstrainedZonalAllocationRequest" | "CapacityNotAvailable" => (
                Kind::Exhausted,
                "Azure has no such machine free there now: try again later, or choose another `instanceType` or `region`; \
                 with `spot: true`, capacity is scarcer"
                    .into(),
            ),
            "ImageNotFound" | "GalleryImageNotFound" | "ImageVersionNotFound" => (
                Kind::NotFound,
                "publish the image to the region first: `aicert image publish`; `image` is what that prints".into(),
            ),
            "SubscriptionNotFound" | "InvalidSubscriptionId" => (
                Kind::NotFound,
                "`subscription` is the id that `az account list --output table` shows, and the login must see it".into(),
            ),
            "MissingSubscriptionRegistration" | "NoRegisteredProviderFound" | "SubscriptionNotRegistered" => (
                Kind::Unsupported,
                match between(&self.message, "namespace '", "'") {
                    Some(provider) => format!("register it once: `az provider register --namespace {provider}`"),
                    None => "register the resource provider that the message names: `az provider register --namespace …`".into(),
                },
            ),
            "LocationNotAvailableForResourceType" | "LocationNotAvailableForResourceGroup" | "InvalidLocation" => (
                Kind::NotFound,
                "choose another `region`; `az account list-locations --output table` shows their names".into(),
            ),
            "InvalidParameter" if self.message.to_lowercase().contains("disk controller type") => (
                Kind::Unsupported,
                "the image is one that starts from SCSI disks alone, as those do that were published by earlier versions of aicert: publish \
                 it again under another name, or choose a size of the fifth version or earlier in `instanceType`"
                    .into(),
            ),
            "CannotDeleteResource" => (
                Kind::Failed,
                "something else is in it, which aicert has not made: remove that in Azure's portal, and try again".into(),
            ),
            "InvalidTemplate" | "InvalidParameter" | "InvalidRequestContent" | "InvalidRequestFormat" | "PropertyChangeNotAllowed" => {
                return (Kind::Failed, None);
            }
            "ScopeLocked" => (
                Kind::PermissionDenied,
                "a lock on the subscription or the group keeps it from being changed: remove the lock in Azure's portal".into(),
            ),
            _ => {
                let kind = match self.status {
                    401 | 403 => Kind::PermissionDenied,
                    404 => Kind::NotFound,
                    429 => Kind::Exhausted,
                    408 | 500.. => Kind::Unavailable,
                    _ => Kind::Failed,
                };
                return (kind, None);
            }
        };
        (advice.0, Some(advice.1))
    }

    fn quota(&self) -> String {
        let name = between(&self.message, "exceeding approved ", " quota")
            .or_else(|| between(&self.message, "quota '", "'"))
            .map_or_else(String::new, |name| format!(" of {name}"));
        format!(
            "ask for more{name}: in Azure's portal under Quotas, or with `az quota`; or choose a smaller `instanceType`, another \
             `region`, or remove machines: `aicert machines list`"
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Azure refused {} with status {}", self.request, self.status)?;
        if !self.code.is_empty() {
            write!(f, ", {}", self.code)?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        match &self.id {
            Some(id) => write!(f, " (request {id})"),
            None => Ok(()),
        }
    }
}

/// Errors of Azure Storage are XML.
fn storage(body: &[u8]) -> Option<Detail> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, error) = text.split_once("<Error>")?;
    let element = |name: &str| {
        let (_, rest) = error.split_once(&format!("<{name}>"))?;
        let (found, _) = rest.split_once('<')?;
        Some(found.to_owned())
    };
    Some(Detail {
        code: Some(element("Code")?),
        message: element("Message"),
        details: None,
    })
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    let (found, _) = rest.split_once(after)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '-' | '_' | '*' | ' ');
    (matches!(found.len(), 1..=120) && found.chars().all(plain)).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, body: &str) -> Refusal {
        Refusal::read("PUT /x".into(), status, body.as_bytes())
    }

    #[test]
    fn errors_become_advice() {
        let cases = [
            (
                403,
                r#"{"error":{"code":"AuthorizationFailed","message":"The client 'a' with object id 'b' does not have authorization to perform action 'Microsoft.Compute/virtualMachines/write' over scope '/s'"}}"#,
                CloudErrorKind::PermissionDenied,
                "Microsoft.Compute/virtualMachines/write",
            ),
            (
                409,
                r#"{"error":{"code":"OperationNotAllowed","message":"Operation could not be completed as it results in exceeding approved standardNCADSH100v5Family Cores quota. Additional details"}}"#,
                CloudErrorKind::Exhausted,
                "standardNCADSH100v5Family Cores",
            ),
            (
                409,
                r#"{"error":{"code":"SkuNotAvailable","message":"no"}}"#,
                CloudErrorKind::Exhausted,
                "instanceType",
            ),
            (
                409,
                r#"{"error":{"code":"MissingSubscriptionRegistration","message":"The subscription is not registered to use namespace 'Microsoft.DevTestLab'."}}"#,
                CloudErrorKind::Unsupported,
                "az provider register --namespace Microsoft.DevTestLab",
            ),
            (
                400,
                r#"{"error":{"code":"InvalidParameter","message":"The VM size 'Standard_D8s_v6' cannot boot with OS image or disk. Please check that disk controller types supported by the OS image or disk is one of the supported disk controller types for the VM size","target":"vmSize"}}"#,
                CloudErrorKind::Unsupported,
                "publish it again",
            ),
            (
                200,
                r#"{"error":{"code":"DeploymentFailed","details":[{"code":"AllocationFailed","message":"none left"}]}}"#,
                CloudErrorKind::Exhausted,
                "try again later",
            ),
        ];
        for (status, body, kind, advice) in cases {
            let (found, said) = refusal(status, body).judge();
            assert_eq!(found, kind, "{body}");
            assert!(said.clone().unwrap_or_default().contains(advice), "{said:?}");
        }
    }

    #[test]
    fn what_is_no_error_of_azure_is_shown_too() {
        let page = refusal(502, "<html>\u{1b}[2J\r\nBad gateway</html>");
        assert_eq!(page.message, "<html>[2J Bad gateway</html>");
        assert_eq!(page.again(), Some(Again::Soon));
        assert_eq!(page.judge().0, CloudErrorKind::Unavailable);
        let long = format!(
            r#"{{"error":{{"code":"X","message":"{}"}}}}"#,
            "wör ".repeat(1000)
        );
        assert!(refusal(400, &long).message.len() < 610);
    }

    #[test]
    fn only_what_passes_is_tried_again() {
        let body = |code: &str| format!(r#"{{"error":{{"code":"{code}","message":"m"}}}}"#);
        let damaged = refusal(
            400,
            "\u{feff}<?xml?><Error><Code>Md5Mismatch</Code><Message>The MD5\nwas</Message></Error>",
        );
        assert_eq!(
            (damaged.message.as_str(), damaged.again()),
            ("The MD5 was", Some(Again::Soon))
        );
        for (status, code, passes) in [
            (429, "TooManyRequests", true),
            (503, "ServerBusy", true),
            (409, "AnotherOperationInProgress", true),
            (404, "ResourceGroupNotFound", true),
            (409, "SkuNotAvailable", false),
            (403, "AuthorizationFailed", false),
            (404, "NotFound", false),
        ] {
            assert_eq!(refusal(status, &body(code)).again().is_some(), passes, "{code}");
        }
    }

    #[test]
    fn only_what_is_in_the_subscription_is_not_found() {
        let body = |code: &str| format!(r#"{{"error":{{"code":"{code}","message":"m"}}}}"#);
        for (status, code, expected) in [
            (404, "ResourceNotFound", true),
            (404, "ResourceGroupNotFound", true),
            (404, "NotFound", true),
            (404, "SubscriptionNotFound", false),
            (404, "InvalidResourceType", false),
            (403, "ResourceNotFound", false),
        ] {
            assert_eq!(refusal(status, &body(code)).is_not_found(), expected, "{code}");
        }
        assert!(!refusal(404, "<html>Not found</html>").is_not_found());
    }

    #[test]
    fn what_was_just_emptied_is_deleted_a_little_later() {
        let body = br#"{"error":{"code":"CannotDeleteResource","message":"Nested resources exist."}}"#;
        let again = |request: &str| Refusal::read(request.into(), 409, body).again();
        assert_eq!(again("DELETE /x"), Some(Again::Soon));
        assert_eq!(again("PUT /x"), None);
    }
}
