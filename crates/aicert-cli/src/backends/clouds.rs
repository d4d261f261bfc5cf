//! Clouds: a module for each, whether it is built in or not. Endpoints are those of the vendors, unless the environment names
//! others: of sovereign clouds, or private ones.

#[cfg(feature = "aws")]
pub(super) mod aws {
    use std::sync::Arc;

    use aicert_cloud_aws::{AwsConfig, AwsProvider, AwsPublisher};
    use aicert_cloud_common::Owner;
    use aicert_core::cloud::ImagePublisher;
    use aicert_core::spec::AwsMachine;

    use crate::backends::Provider;
    use crate::error::Failure;
    use crate::place::InCloud;

    // The SDK itself reads AWS_ENDPOINT_URL.

    pub(in crate::backends) fn provider(cloud: &InCloud, machine: Option<&AwsMachine>) -> Provider {
        let mut config = AwsConfig::new(&cloud.name, cloud.owner.clone());
        if let Some(machine) = machine {
            config = config.with_machine(machine.clone());
        }
        Ok(Arc::new(AwsProvider::new(config)))
    }

    #[expect(clippy::unnecessary_wraps, reason = "as for the other clouds")]
    pub(in crate::backends) fn publisher(
        region: &str,
        owner: Owner,
    ) -> Result<Arc<dyn ImagePublisher>, Failure> {
        Ok(Arc::new(AwsPublisher::new(AwsConfig::new(region, owner))))
    }
}

#[cfg(not(feature = "aws"))]
pub(super) mod aws {
    use std::sync::Arc;

    use aicert_cloud_common::Owner;
    use aicert_core::cloud::ImagePublisher;
    use aicert_core::spec::AwsMachine;

    use super::not_built_in;
    use crate::backends::Provider;
    use crate::error::Failure;
    use crate::place::InCloud;

    pub(in crate::backends) fn provider(_: &InCloud, _: Option<&AwsMachine>) -> Provider {
        Err(not_built_in("Amazon EC2", "aws"))
    }

    pub(in crate::backends) fn publisher(_: &str, _: Owner) -> Result<Arc<dyn ImagePublisher>, Failure> {
        Err(not_built_in("Amazon EC2", "aws"))
    }
}

#[cfg(feature = "azure")]
pub(super) mod azure {
    use std::sync::Arc;

    use aicert_cloud_azure::{AzureConfig, AzureProvider, AzurePublisher, AzurePublisherConfig};
    use aicert_cloud_common::Owner;
    use aicert_core::cloud::ImagePublisher;
    use aicert_core::spec::AzureMachine;

    use super::endpoint;
    use crate::backends::{Destination, Provider};
    use crate::error::Failure;
    use crate::place::InCloud;

    fn config(subscription: &str, owner: Owner) -> AzureConfig {
        let config = AzureConfig::new(subscription, owner);
        match endpoint("AICERT_AZURE_ENDPOINT") {
            Some(endpoint) => config.with_endpoint(endpoint),
            None => config,
        }
    }

    pub(in crate::backends) fn provider(cloud: &InCloud, machine: Option<&AzureMachine>) -> Provider {
        let mut config = config(&cloud.name, cloud.owner.clone());
        if let Some(machine) = machine {
            config = config.with_machine(machine.clone());
        }
        let provider = AzureProvider::new(config).map_err(|error| Failure::of(&error))?;
        Ok(Arc::new(provider))
    }

    pub(in crate::backends) fn publisher(
        destination: &Destination,
        owner: Owner,
    ) -> Result<Arc<dyn ImagePublisher>, Failure> {
        /// What these are called where nothing is said.
        const GROUP: &str = "aicert-images";
        const GALLERY: &str = "aicert";
        let Destination::Azure {
            subscription,
            region,
            resource_group,
            gallery,
        } = destination
        else {
            return Err(Failure::misuse("this is no place in Azure"));
        };
        let config = AzurePublisherConfig::new(config(subscription, owner), region).with_gallery(
            resource_group.as_deref().unwrap_or(GROUP),
            gallery.as_deref().unwrap_or(GALLERY),
        );
        let publisher = AzurePublisher::new(config).map_err(|error| Failure::of(&error))?;
        Ok(Arc::new(publisher))
    }
}

#[cfg(not(feature = "azure"))]
pub(super) mod azure {
    use std::sync::Arc;

    use aicert_cloud_common::Owner;
    use aicert_core::cloud::ImagePublisher;
    use aicert_core::spec::AzureMachine;

    use super::not_built_in;
    use crate::backends::{Destination, Provider};
    use crate::error::Failure;
    use crate::place::InCloud;

    pub(in crate::backends) fn provider(_: &InCloud, _: Option<&AzureMachine>) -> Provider {
        Err(not_built_in("Azure", "azure"))
    }

    pub(in crate::backends) fn publisher(
        _: &Destination,
        _: Owner,
    ) -> Result<Arc<dyn ImagePublisher>, Failure> {
        Err(not_built_in("Azure", "azure"))
    }
}

#[cfg(feature = "gcp")]
pub(super) mod gcp {
    use std::sync::Arc;

    use aicert_cloud_common::Owner;
    use aicert_cloud_gcp::{GcpConfig, GcpProvider, GcpPublisher};
    use aicert_core::cloud::ImagePublisher;
    use aicert_core::spec::GcpMachine;

    use super::endpoint;
    use crate::backends::Provider;
    use crate::error::Failure;
    use crate::place::InCloud;

    fn config(project: &str, owner: Owner) -> GcpConfig {
        let config = GcpConfig::new(project, owner);
        match endpoint("AICERT_GCP_ENDPOINT") {
            Some(endpoint) => config.with_endpoint(endpoint),
            None => config,
        }
    }

    pub(in crate::backends) fn provider(cloud: &InCloud, machine: Option<&GcpMachine>) -> Provider {
        let mut config = config(&cloud.name, cloud.owner.clone());
        if let Some(machine) = machine {
            config = config.with_machine(machine.clone());
        }
        Ok(Arc::new(GcpProvider::new(config)))
    }

    #[expect(clippy::unnecessary_wraps, reason = "as for the other clouds")]
    pub(in crate::backends) fn publisher(
        project: &str,
        bucket: &str,
        owner: Owner,
    ) -> Result<Arc<dyn ImagePublisher>, Failure> {
        Ok(Arc::new(GcpPublisher::new(config(project, owner), bucket)))
    }
}

#[cfg(not(feature = "gcp"))]
pub(super) mod gcp {
    use std::sync::Arc;

    use aicert_cloud_common::Owner;
    use aicert_core::cloud::ImagePublisher;
    use aicert_core::spec::GcpMachine;

    use super::not_built_in;
    use crate::backends::Provider;
    use crate::error::Failure;
    use crate::place::InCloud;

    pub(in crate::backends) fn provider(_: &InCloud, _: Option<&GcpMachine>) -> Provider {
        Err(not_built_in("Google Compute Engine", "gcp"))
    }

    pub(in crate::backends) fn publisher(
        _: &str,
        _: &str,
        _: Owner,
    ) -> Result<Arc<dyn ImagePublisher>, Failure> {
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
    crate::error::Failure::misuse(format!("this build of aicert knows nothing of {cloud}")).help(format!(
        "in a checkout of aicert, `cargo install --locked --path crates/aicert-cli --features {feature}` installs one that does, \
         and `cargo build --release --locked -p aicert-cli --features {feature}` builds it; that takes some minutes"
    ))
}
