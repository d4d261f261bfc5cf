//! Providers of machines, by the places that they look after.

use std::sync::Arc;

use aicert_cloud_common::Owner;
use aicert_core::cloud::{CloudProvider, ImagePublisher};
use aicert_core::spec::MachineSpec;

use super::clouds;
use crate::error::Failure;
use crate::place::Place;
use crate::state::State;

/// A provider, or why it cannot be used.
pub(crate) type Provider = Result<Arc<dyn CloudProvider>, Failure>;

/// The places that there always are, but for this machine.
pub(crate) fn only_places() -> Vec<Place> {
    vec![
        #[cfg(feature = "qemu")]
        Place::only(qemu::FOLDER),
    ]
}

/// The provider that looks after a place; nothing when no version of this command that is as old as this one knows it.
pub(crate) fn provider_at(place: &Place, state: &State) -> Option<Provider> {
    match (&*place.provider, &place.cloud) {
        ("qemu", None) => Some(qemu::provider(state, None)),
        ("azure", Some(cloud)) => Some(clouds::azure::provider(cloud, None)),
        ("aws", Some(cloud)) => Some(clouds::aws::provider(cloud, None)),
        ("gcp", Some(cloud)) => Some(clouds::gcp::provider(cloud, None)),
        _ => None,
    }
}

/// The provider that makes machines like this, at the place that they are made at.
pub(crate) fn provider(machine: &MachineSpec, place: &Place, state: &State) -> Provider {
    match (machine, &place.cloud) {
        (MachineSpec::Qemu(machine), None) => qemu::provider(state, Some(machine)),
        (MachineSpec::Azure(machine), Some(cloud)) => clouds::azure::provider(cloud, Some(machine)),
        (MachineSpec::Aws(machine), Some(cloud)) => clouds::aws::provider(cloud, Some(machine)),
        (MachineSpec::Gcp(machine), Some(cloud)) => clouds::gcp::provider(cloud, Some(machine)),
        _ => Err(Failure::misuse("this build knows no such machine")),
    }
}

/// Where images are published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    Azure {
        subscription: String,
        region: String,
        resource_group: Option<String>,
        gallery: Option<String>,
    },
    Aws {
        region: String,
    },
    Gcp {
        project: String,
        bucket: String,
    },
}

/// Who publishes images there.
pub(crate) fn publisher(destination: &Destination, owner: Owner) -> Result<Arc<dyn ImagePublisher>, Failure> {
    match destination {
        Destination::Azure { .. } => clouds::azure::publisher(destination, owner),
        Destination::Aws { region } => clouds::aws::publisher(region, owner),
        Destination::Gcp { project, bucket } => clouds::gcp::publisher(project, bucket, owner),
    }
}

#[cfg(feature = "qemu")]
mod qemu {
    use aicert_cloud_qemu::{QemuConfig, QemuProvider};
    use aicert_core::spec::QemuMachine;

    use super::{Arc, Failure, Provider, State};

    /// Its name, and that of the folder of its machines in the state folder.
    pub(super) const FOLDER: &str = "qemu";

    pub(super) fn provider(state: &State, machine: Option<&QemuMachine>) -> Provider {
        let mut config = QemuConfig::new(state.folder.join(FOLDER));
        if let Some(machine) = machine {
            config = config.with_machine(machine.clone());
        }
        let provider = QemuProvider::new(config).map_err(|error| Failure::of(&error))?;
        Ok(Arc::new(provider))
    }
}

#[cfg(not(feature = "qemu"))]
mod qemu {
    use aicert_core::spec::QemuMachine;

    use super::{Provider, State};

    pub(super) fn provider(_: &State, _: Option<&QemuMachine>) -> Provider {
        Err(crate::backends::not_built_in("make machines in QEMU", "qemu"))
    }
}
