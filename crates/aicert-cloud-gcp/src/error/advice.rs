//! What Google's messages mean, by the words in them, and what to do about it.

use aicert_core::cloud::CloudErrorKind;

use super::Fault;

pub(super) fn is_rate(message: &str) -> bool {
    ["Rate Limit Exceeded", "rateLimitExceeded", "per minute"]
        .iter()
        .any(|phrase| message.contains(phrase))
}

pub(super) fn is_quota(message: &str) -> bool {
    message.contains("Quota '") || message.contains("QUOTA_EXCEEDED")
}

pub(super) fn quota(fault: Fault) -> Fault {
    fault.advise(
        "ask for more at https://console.cloud.google.com/iam-admin/quotas, take another region or kind of machine, or destroy \
         machines (`aicert machines list`); projects have no GPUs at first (`GPUS_ALL_REGIONS`)",
    )
}

pub(super) fn refused(fault: Fault, message: &str) -> Fault {
    if is_quota(message) {
        return quota(Fault {
            kind: CloudErrorKind::Exhausted,
            ..fault
        });
    }
    if message.contains("SERVICE_DISABLED")
        || message.contains("has not been used in project")
        || message.contains("it is disabled")
    {
        let service = if message.contains("storage") || message.contains("Storage") {
            "storage"
        } else {
            "compute"
        };
        return fault.advise(format!(
            "enable the API: `gcloud services enable {service}.googleapis.com`"
        ));
    }
    if message.contains("billing") {
        return fault.advise("enable billing for the project");
    }
    match permission(message) {
        Some(permission) => {
            let role = if permission.starts_with("storage.") || permission.starts_with("compute.images.") {
                "publisher.yaml"
            } else {
                "aicert.yaml"
            };
            fault.advise(format!(
                "give whoever runs this the permission {permission}: it is in the role that `roles/{role}` of aicert-cloud-gcp \
                 defines (`gcloud iam roles create`)"
            ))
        }
        None => fault.advise(
            "give whoever runs this the role that `roles/aicert.yaml` of aicert-cloud-gcp defines (`roles/publisher.yaml` for \
             publishing images)",
        ),
    }
}

/// The permission that a message names, as `Required 'compute.instances.create' permission for …` does.
fn permission(message: &str) -> Option<&str> {
    message
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '.'))
        .find(|word| {
            (word.starts_with("compute.") || word.starts_with("storage."))
                && word.split('.').count() == 3
                && !word.ends_with('.')
        })
        .filter(|word| !word.contains("googleapis"))
}

/// What to do when a message is about the network that a rule or a machine is to be in: it is not there, or has subnets that
/// have to be named ("Subnetwork should be specified for custom subnetmode network").
pub(super) fn network(message: &str) -> Option<(CloudErrorKind, &'static str)> {
    let lower = message.to_ascii_lowercase();
    let about = lower.contains("resource.network'")
        || lower.contains("resource.networkinterfaces")
        || lower.contains("/global/networks/");
    if !about {
        return None;
    }
    if lower.contains("subnetwork") {
        return Some((
            CloudErrorKind::Unsupported,
            "`network:` of the configuration (`default` without it) has to name a network that makes its subnets itself, and that is \
             another kind: `gcloud compute networks create NAME --subnet-mode=auto` makes one",
        ));
    }
    let absent = ["cannot be found", "not found", "does not exist"];
    absent.iter().any(|phrase| lower.contains(phrase)).then_some((
        CloudErrorKind::NotFound,
        "name a network of the project with `network:` in the configuration (`default` without it), as `gcloud compute networks list` \
         shows them; `gcloud compute networks create default --subnet-mode=auto` makes one",
    ))
}

/// The constraint of an organisation's policy that a message names.
pub(super) fn constraint(message: &str) -> Option<String> {
    let at = message.find("constraints/")?;
    let name: String = message[at..]
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || "/._-".contains(*c))
        .take(100)
        .collect();
    Some(name)
}
