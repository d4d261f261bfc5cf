//! Whether the subscription may use what machines are made with.

use serde::Deserialize;

use crate::arm::{Arm, read};
use crate::error::Failure;
use crate::remove::VERSION;

/// What every machine needs.
pub(crate) const MACHINES: [&str; 2] = ["Microsoft.Compute", "Microsoft.Network"];

/// What schedules are of.
pub(crate) const SCHEDULES: &str = "Microsoft.DevTestLab";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Provider {
    registration_state: String,
}

/// Checks, before anything is made, that resource providers are registered: Resource Manager finds out when the first thing of
/// theirs is made, and that would be after the machine.
pub(crate) async fn check(arm: &Arm, namespaces: &[&str]) -> Result<(), Failure> {
    for namespace in namespaces {
        let path = format!("/subscriptions/{}/providers/{namespace}", arm.subscription);
        let query = [("api-version", VERSION)];
        let reply = arm.request(reqwest::Method::GET, &path, &query, None).await?;
        let state = read::<Provider>(&path, &reply)?.registration_state;
        // While it is registering, some regions have it already, and nobody says which.
        if !["registered", "registering"].contains(&state.to_ascii_lowercase().as_str()) {
            return Err(Failure::Unsupported {
                what: format!("the resource provider {namespace} is not registered in the subscription"),
                advice: format!("register it once: `az provider register --wait --namespace {namespace}`"),
            });
        }
    }
    Ok(())
}
