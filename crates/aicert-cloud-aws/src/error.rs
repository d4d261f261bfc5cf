//! What can fail here, and how it is told outside.

use std::time::Duration;

use aicert_cloud_common::{Again, ImageError, Transient, one_line};
use aicert_core::cloud::{CloudError, CloudErrorKind};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};

/// A failure at Amazon, or on the way there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It was refused.
    #[error("{operation} was refused ({code}): {message}")]
    Refused {
        operation: &'static str,
        region: String,
        code: String,
        message: String,
        again: Option<Again>,
    },
    /// Amazon, or the way there, does not work.
    #[error("{operation} could not be carried out: {why}")]
    Unreachable {
        operation: &'static str,
        region: String,
        why: String,
    },
    /// Nothing says who asks.
    #[error("{operation} needs credentials, and there are none that can be used: {why}")]
    NoCredentials { operation: &'static str, why: String },
    /// Something took longer than anybody waits.
    #[error("{what}, after {} s", .waited.as_secs())]
    TooLong { what: String, waited: Duration },
    /// What was found is not what is needed.
    #[error("{message}")]
    Told {
        kind: CloudErrorKind,
        message: String,
        advice: String,
    },
    /// The image cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// After a failure, something could not be removed.
    #[error("{cause}; and what was made could not be removed again: {why}. There may be: {}", .left.join(", "))]
    Left {
        cause: Box<Failure>,
        why: Box<Failure>,
        left: Vec<String>,
    },
}

/// What EC2 and EBS say when they are asked too often, or have a fault that passes (EC2 API, "Error codes").
const PASSING: [&str; 13] = [
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "RequestThrottledException",
    "TooManyRequestsException",
    "EC2ThrottledException",
    "InternalError",
    "InternalFailure",
    "InternalServerException",
    "ServerInternal",
    "ServiceUnavailable",
    "Unavailable",
    "RequestTimeout",
];

/// What they say of credentials whose time is over.
const EXPIRED: [&str; 4] = [
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "TokenRefreshRequired",
];

impl Failure {
    /// What the SDK says of an operation; `passes` knows more errors that pass, by their codes and messages.
    pub(crate) fn of<E>(
        operation: &'static str,
        region: &str,
        error: &SdkError<E>,
        passes: impl Fn(&str, &str) -> bool,
    ) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        if let Some(credentials) = find::<CredentialsError>(error) {
            return Self::NoCredentials {
                operation,
                why: reasons(credentials),
            };
        }
        let response = match error {
            SdkError::ServiceError(answer) => Some(answer.raw()),
            SdkError::ResponseError(answer) => Some(answer.raw()),
            _ => None,
        };
        let Some(response) = response else {
            return Self::Unreachable {
                operation,
                region: region.into(),
                why: reasons(error),
            };
        };
        let status = response.status().as_u16();
        let Some(code) = error.as_service_error().and_then(|error| error.meta().code()) else {
            // Something on the way answered, and not Amazon.
            return Self::Unreachable {
                operation,
                region: region.into(),
                why: format!(
                    "the answer has the HTTP status {status}, and says nothing else that is understood"
                ),
            };
        };
        let after = response
            .headers()
            .get("retry-after")
            .and_then(|seconds| seconds.parse().ok())
            .map(|seconds: u64| Again::After(Duration::from_secs(seconds.min(300))));
        let message = error.as_service_error().and_then(|error| error.meta().message());
        let passing = PASSING.contains(&code)
            || passes(code, message.unwrap_or_default())
            || status == 429
            || status == 503;
        Self::Refused {
            operation,
            region: region.into(),
            code: code.into(),
            message: told(message.unwrap_or("nothing else was said")),
            again: passing.then_some(after.unwrap_or(Again::Soon)),
        }
    }

    /// What EC2 calls it.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            _ => "",
        }
    }

    pub(crate) fn is_expired(&self) -> bool {
        EXPIRED.contains(&self.code())
    }

    /// A failure that concerns what was asked for.
    pub(crate) fn told(kind: CloudErrorKind, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Told {
            kind,
            message: message.into(),
            advice: advice.into(),
        }
    }

    pub(crate) fn unsupported(message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::told(CloudErrorKind::Unsupported, message, advice)
    }
}

impl Transient for Failure {
    fn again(&self) -> Option<Again> {
        match self {
            Self::Refused { again, .. } => *again,
            Self::Unreachable { .. } => Some(Again::Soon),
            _ => None,
        }
    }
}

impl From<Failure> for CloudError {
    fn from(failure: Failure) -> Self {
        use CloudErrorKind as Kind;
        let message = failure.to_string();
        match failure {
            Failure::Refused {
                operation,
                region,
                code,
                again,
                ..
            } => {
                let (kind, advice) = explain(operation, &region, &code);
                let error = Self::new(kind, message);
                let error = match advice {
                    Some(advice) => error.with_advice(advice),
                    None => error,
                };
                match again {
                    Some(_) => error.retryable(),
                    None => error,
                }
            }
            Failure::Unreachable { region, .. } => Self::new(Kind::Unavailable, message)
                .with_advice(format!(
                    "look at the network, at https://health.aws.amazon.com, and whether Amazon has a region {region:?}; if not, {OTHER_REGION}"
                ))
                .retryable(),
            Failure::NoCredentials { .. } => Self::new(Kind::PermissionDenied, message).with_advice(
                "log in (`aws sso login`, `aws configure`), name the profile in AWS_PROFILE, or set AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY",
            ),
            Failure::TooLong { .. } => Self::new(Kind::Unavailable, message).retryable(),
            Failure::Told { kind, advice, .. } => Self::new(kind, message).with_advice(advice),
            Failure::Image(error) => Self::new(Kind::NotFound, message).with_source(error),
            Failure::Left { cause, why, .. } => {
                let cause = Self::from(*cause);
                let why = Self::from(*why);
                let then = "`aicert machines list` shows what there is, and `aicert machines destroy` removes it";
                let mut advice: Vec<_> = [cause.advice(), why.advice(), Some(then)].into_iter().flatten().collect();
                advice.dedup();
                Self::new(cause.kind(), message).with_advice(advice.join("; "))
            }
        }
    }
}

/// How it is said which region is meant.
const OTHER_REGION: &str =
    "name another one: `region` in the section `machine`, AWS_REGION, or `--region` of `aicert image`";

/// What a code of EC2 or EBS means for whoever asked (EC2 API, "Error codes").
fn explain(operation: &str, region: &str, code: &str) -> (CloudErrorKind, Option<String>) {
    use CloudErrorKind as Kind;
    let told = |kind, advice: &str| (kind, Some(advice.to_owned()));
    match code {
        "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" => {
            let file = match operation {
                "DescribeSnapshots" | "StartSnapshot" | "PutSnapshotBlock" | "CompleteSnapshot"
                | "RegisterImage" | "DeregisterImage" | "DeleteSnapshot" | "CreateTags" => "publisher.json",
                _ => "aicert.json",
            };
            (
                Kind::PermissionDenied,
                Some(format!(
                    "whoever you are logged in as (`aws sts get-caller-identity`) may not do this here: attach the policy \
                     crates/aicert-cloud-aws/roles/{file}, or have an administrator do it"
                )),
            )
        }
        "AuthFailure.ServiceLinkedRoleCreationNotPermitted" => told(
            Kind::PermissionDenied,
            "spot machines need a role once for each account: `aws iam create-service-linked-role --aws-service-name spot.amazonaws.com`",
        ),
        code if EXPIRED.contains(&code) => told(
            Kind::PermissionDenied,
            "your login has expired: log in again (`aws sso login`, or new credentials), and repeat; nothing is lost, everything \
             that was made carries its tags",
        ),
        "AuthFailure"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken" => told(
            Kind::PermissionDenied,
            // Regions that are not enabled say the same of good credentials.
            &format!(
                "Amazon does not know these credentials in {region:?}: log in again, look at AWS_PROFILE and at the clock of this \
                 computer; if they are good elsewhere, the region is not enabled for the account: enable it \
                 (`aws account enable-region --region-name {region}`), or {OTHER_REGION}"
            ),
        ),
        "OptInRequired" | "PendingVerification" | "Blocked" => told(
            Kind::PermissionDenied,
            &format!(
                "the account, or its region {region:?}, is not enabled: enable it in the AWS console, or {OTHER_REGION}"
            ),
        ),
        "InsufficientInstanceCapacity"
        | "InsufficientHostCapacity"
        | "InsufficientAddressCapacity"
        | "SpotMaxPriceTooLow" => told(
            Kind::Exhausted,
            "Amazon has no such machine free there now: try later, name a subnet in another zone (`subnet`), another \
             `instanceType` or region, or change `spot`",
        ),
        "VcpuLimitExceeded" | "InstanceLimitExceeded" => told(
            Kind::Exhausted,
            "raise the quota of EC2 for this kind (Service Quotas, Amazon EC2: \"Running On-Demand Standard instances\" L-1216C47A, \
             \"Running On-Demand G and VT instances\" L-DB2E81BA, \"Running On-Demand P instances\" L-417A185B), or end other machines",
        ),
        "MaxSpotInstanceCountExceeded" | "SpotInstanceRequestLimitExceeded" => told(
            Kind::Exhausted,
            "raise the quota of EC2 for spot machines (Service Quotas, Amazon EC2: \"All Standard Spot Instance Requests\" L-34B43A08, \
             \"All G and VT Spot Instance Requests\" L-3819A6DF, \"All P4, P3 and P2 Spot Instance Requests\" L-7212CCBC), or turn `spot` off",
        ),
        "VolumeLimitExceeded"
        | "SnapshotLimitExceeded"
        | "PendingSnapshotLimitExceeded"
        | "ConcurrentSnapshotLimitExceeded"
        | "SecurityGroupLimitExceeded"
        | "RulesPerSecurityGroupLimitExceeded"
        | "NetworkInterfaceLimitExceeded"
        | "AddressLimitExceeded"
        | "ServiceQuotaExceededException"
        | "InsufficientFreeAddressesInSubnet" => told(
            Kind::Exhausted,
            "remove what is not needed any more, or raise the quota in Service Quotas",
        ),
        "InvalidAMIID.NotFound" | "InvalidAMIID.Malformed" | "InvalidAMIID.Unavailable" => told(
            Kind::NotFound,
            "name in `image` what `aicert image publish --provider aws` printed, for this very region: images do not exist in others",
        ),
        "InvalidSubnetID.NotFound" | "InvalidSubnet" | "InvalidSubnetId.Malformed" => told(
            Kind::NotFound,
            "`aws ec2 describe-subnets` shows what subnets there are; without `subnet`, one of the default VPC is taken",
        ),
        "InvalidInstanceType" => told(
            Kind::NotFound,
            "`aws ec2 describe-instance-types --filters Name=nitro-tpm-support,Values=supported` shows what can be had",
        ),
        "MissingInput" | "VPCIdNotSpecified" => told(
            Kind::NotFound,
            "there is no default VPC: name a `subnet`, or make one with `aws ec2 create-default-vpc`",
        ),
        "Unsupported"
        | "UnsupportedOperation"
        | "UnsupportedInstanceAttribute"
        | "InvalidParameterCombination" => told(
            Kind::Unsupported,
            "this kind of machine is not offered so in this zone or region: name another `subnet`, `instanceType` or region",
        ),
        "IdempotentInstanceTerminated" => told(
            Kind::Failed,
            "the machine has ended while it was waited for: destroy what is left of it, and begin again",
        ),
        "InvalidKMSKey.InvalidState" | "InvalidKmsKey.InvalidState" | "Client.InvalidKMSKey.InvalidState" => {
            told(
                Kind::PermissionDenied,
                "disks are encrypted with the account's default key of EBS: it must be usable by whoever you are logged in as",
            )
        }
        code if PASSING.contains(&code) => told(
            Kind::Unavailable,
            "Amazon was asked too often, or has a fault: wait some minutes, and try again",
        ),
        _ => (Kind::Failed, None),
    }
}

/// What an instance that never ran says of why (`StateReason`); the code looks like `Server.InsufficientInstanceCapacity`.
pub(crate) fn ended(region: &str, instance: &str, code: &str, message: &str) -> Failure {
    let inner = code.rsplit_once('.').map_or(code, |(_, code)| code);
    let (kind, advice) = match inner {
        "InternalError" => (
            CloudErrorKind::Boot,
            Some(
                "often the key of encrypted disks may not be used: look at the account's default key of EBS"
                    .to_owned(),
            ),
        ),
        "SpotInstanceTermination" => (
            CloudErrorKind::Exhausted,
            Some("Amazon took the spot machine away: try again, or turn `spot` off".to_owned()),
        ),
        inner => explain("RunInstances", region, inner),
    };
    let kind = match kind {
        CloudErrorKind::Failed => CloudErrorKind::Boot,
        kind => kind,
    };
    Failure::told(
        kind,
        format!(
            "the machine {instance} ended before it ran ({code}): {}",
            told(message)
        ),
        advice.unwrap_or_else(|| {
            "try again; if it happens again, look at the instance in the AWS console".into()
        }),
    )
}

/// What others said, as far as it is shown.
fn told(message: &str) -> String {
    // Long, and of use only to whoever may decode it.
    let message = message
        .split("Encoded authorization failure message")
        .next()
        .unwrap_or_default();
    one_line(message)
}

fn find<'a, T: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a T> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
}

/// An error with what caused it; what several say alike is said once.
fn reasons(error: &(dyn std::error::Error + 'static)) -> String {
    let mut reasons: Vec<String> = Vec::new();
    for error in std::iter::successors(Some(error), |error| error.source()).take(8) {
        let text = told(&error.to_string());
        if reasons.iter().all(|said| !said.contains(&text)) {
            reasons.push(text);
        }
    }
    reasons.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_amazon_says_is_shown_without_what_nobody_reads() {
        let said = "You are not \u{1b}[31mauthorized.\nEncoded authorization failure message: AQoDYXdz";
        assert_eq!(told(said), "You are not [31mauthorized.");
    }
}
