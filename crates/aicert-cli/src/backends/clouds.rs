//! Clouds: a module for each, whether it is built in or not. Endpoints are those of the vendors, unless the environment names
//! others: of sovereign clouds, or private ones.

#[cfg(feature = "aws")]
pub(super) mod aws {
    use std::sync::Arc;

    use aicert_cloud_aws::{AwsConfig, AwsProvider};
    use aicert_core::spec::AwsMachine;

    use crate::backends::Provider;
    use crate::place::InCloud;

    pub(in crate::backends) fn provider(cloud: &InCloud, machine: Option<&AwsMachine>) -> Provider {
        // The SDK reads AWS_ENDPOINT_URL itself.
        let mut config = AwsConfig::new(&cloud.name, cloud.owner.clone());
        if let Some(machine) = machine {
            config = config.with_machine(machine.clone());
        }
        Ok(Arc::new(AwsProvider::new(config)))
    }
}

#[cfg(not(feature = "aws"))]
pub(super) mod aws {
    use aicert_core::spec::AwsMachine;

    use super::not_built_in;
    use crate::backends::Provider;
    use crate::place::InCloud;

    pub(in crate::backends) fn provider(_: &InCloud, _: Option<&AwsMachine>) -> Provider {
        Err(not_built_in("Amazon EC2", "aws"))
    }
}

#[cfg(feature = "azure")]
pub(super) mod azure {
    use std::sync::Arc;

    use aicert_cloud_azure::{AzureConfig, AzureProvider};
    use aicert_core::spec::AzureMachine;

    use super::endpoint;
    use crate::backends::Provider;
    use crate::error::Failure;
    use crate::place::InCloud;

    pub(in crate::backends) fn provider(cloud: &InCloud, machine: Option<&AzureMachine>) -> Provider {
        let mut config = AzureConfig::new(&cloud.name, cloud.owner.clone());
        if let Some(endpoint) = endpoint("AICERT_AZURE_ENDPOINT") {
            config = config.with_endpoint(endpoint);
        }
        if let Some(machine) = machine {
            config = config.with_machine(machine.clone());
        }
        let provider = AzureProvider::new(config).map_err(|error| Failure::of(&error))?;
        Ok(Arc::new(provider))
    }
}

#[cfg(not(feature = "azure"))]
pub(super) mod azure {
    use aicert_core::spec::AzureMachine;

    use super::not_built_in;
    use crate::backends::Provider;
    use crate::place::InCloud;

    pub(in crate::backends) fn provider(_: &InCloud, _: Option<&AzureMachine>) -> Provider {
        Err(not_built_in("Azure", "azure"))
    }
}

#[cfg(feature = "gcp")]
pub(super) mod gcp {
    use std::sync::Arc;

    use aicert_cloud_gcp::{GcpConfig, GcpProvider};
    use aicert_core::spec::GcpMachine;

    use super::endpoint;
    use crate::backends::Provider;
    use crate::place::InCloud;

    pub(in crate::backends) fn provider(cloud: &InCloud, machine: Option<&GcpMachine>) -> Provider {
        let mut config = GcpConfig::new(&cloud.name, cloud.owner.clone());
        if let Some(endpoint) = endpoint("AICERT_GCP_ENDPOINT") {
            config = config.with_endpoint(endpoint);
        }
        if let Some(machine) = machine {
            config = config.with_machine(machine.clone());
        }
        Ok(Arc::new(GcpProvider::new(config)))
    }
}

#[cfg(not(feature = "gcp"))]
pub(super) mod gcp {
    use aicert_core::spec::GcpMachine;

    use super::not_built_in;
    use crate::backends::Provider;
    use crate::place::InCloud;

    pub(in crate::backends) fn provider(_: &InCloud, _: Option<&GcpMachine>) -> Provider {
        Err(not_built_in("Google Compute Engine", "gcp"))
    }
}

/// An endpoint that the environment names.
#[cfg(any(feature = "azure", feature = "gcp"))]
fn endpoint(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|url| !url.is_empty())
}

#[cfg(not(all(feature = "aws", feature = "azure", feature = "gcp")))]
fn not_built_in(cloud: &str, feature: &str) -> crate::error::Failure {
    crate::error::Failure::misuse(format!("this build of aicert cannot make or find machines in {cloud}")).help(
        format!(
            "build it with the feature `{feature}`, which takes some minutes: `cargo install --locked --path crates/aicert-cli \
             --features {feature}` in a checkout of aicert"
        ),
    )
}
