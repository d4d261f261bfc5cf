//! What an instance of Compute Engine is made of.

use std::net::{IpAddr, SocketAddr};

use aicert_cloud_common::Tags;
use aicert_core::cloud::{CloudErrorKind, MachineId, MachineIdentity, MachineRecord};
use aicert_core::time::Timestamp;
use google_cloud_compute_v1::model::access_config::Type as Access;
use google_cloud_compute_v1::model::attached_disk::Type as DiskType;
use google_cloud_compute_v1::model::confidential_instance_config::ConfidentialInstanceType;
use google_cloud_compute_v1::model::instance::Status;
use google_cloud_compute_v1::model::metadata::Items;
use google_cloud_compute_v1::model::scheduling::{
    InstanceTerminationAction, OnHostMaintenance, ProvisioningModel,
};
use google_cloud_compute_v1::model::{
    AcceleratorConfig, AccessConfig, AttachedDisk, AttachedDiskInitializeParams, ConfidentialInstanceConfig,
    Duration, Instance, Metadata, NetworkInterface, Scheduling, ShieldedInstanceConfig, Tags as NetworkTags,
};

use crate::SERVER_PORT;
use crate::error::Fault;
use crate::image::KnownImage;
use crate::kind::{Kind, KnownKind};
use crate::marks::{labels, read_labels};

/// Where a machine finds what it is told before it boots.
pub(crate) const PROVISIONING: &str = "aicert-provisioning";

/// Compute Engine's documentation, "Limit the run time of a VM": 30 seconds to 120 days.
const LIFETIMES: std::ops::RangeInclusive<u64> = 30..=120 * 24 * 3600;

/// The smallest disk, in GiB.
const SMALLEST_DISK: u64 = 10;

/// Everything that decides what instance is made.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) project: String,
    pub(crate) zone: String,
    pub(crate) name: String,
    pub(crate) tags: Tags,
    pub(crate) kind: KnownKind,
    pub(crate) image: KnownImage,
    pub(crate) network: String,
    /// In bytes.
    pub(crate) disk: u64,
    pub(crate) spot: bool,
    pub(crate) confidential: bool,
    /// In seconds.
    pub(crate) lifetime: Option<u64>,
    pub(crate) provisioning: String,
}

impl Order {
    /// Refuses what Compute Engine would refuse.
    pub(crate) fn check(&self, doing: &str) -> Result<(), Fault> {
        if let Some(lifetime) = self.lifetime.filter(|seconds| !LIFETIMES.contains(seconds)) {
            return Err(Fault::new(
                doing,
                CloudErrorKind::Unsupported,
                format!("a lifetime of {lifetime} s is not offered"),
            )
            .advise("Compute Engine ends machines after 30 seconds to 120 days"));
        }
        let gib = self.disk.div_ceil(1 << 30);
        if gib < self.image.size {
            return Err(Fault::new(
                doing,
                CloudErrorKind::Unsupported,
                format!(
                    "a disk of {gib} GiB does not hold the image, which has {}",
                    self.image.size
                ),
            )
            .advise("ask for a larger disk: the image, and what the job writes"));
        }
        Ok(())
    }

    pub(crate) fn body(&self) -> Instance {
        let Self {
            project,
            zone,
            name,
            kind,
            ..
        } = self;
        let mut instance = Instance::new()
            .set_name(name)
            .set_description("Made by aicert for one job; see its labels.")
            .set_labels(labels(&self.tags))
            .set_tags(NetworkTags::new().set_items([name]))
            .set_machine_type(format!("zones/{zone}/machineTypes/{}", kind.kind.name))
            .set_disks([self.boot_disk()])
            .set_network_interfaces([NetworkInterface::new()
                .set_network(&self.network)
                .set_access_configs([AccessConfig::new()
                    .set_name("External NAT")
                    .set_type(Access::OneToOneNat)])])
            .set_metadata(self.metadata())
            .set_scheduling(self.scheduling())
            .set_shielded_instance_config(
                ShieldedInstanceConfig::new()
                    .set_enable_secure_boot(self.image.secure_boot)
                    .set_enable_vtpm(true)
                    .set_enable_integrity_monitoring(true),
            )
            .set_deletion_protection(false)
            .set_can_ip_forward(false);
        if self.confidential {
            instance = instance.set_confidential_instance_config(
                ConfidentialInstanceConfig::new()
                    .set_enable_confidential_compute(true)
                    .set_confidential_instance_type(ConfidentialInstanceType::Sev),
            );
        }
        if let Some((count, gpu)) = &kind.kind.added {
            instance = instance.set_guest_accelerators([AcceleratorConfig::new()
                .set_accelerator_type(format!("projects/{project}/zones/{zone}/acceleratorTypes/{gpu}"))
                // At most 16.
                .set_accelerator_count(i32::try_from(*count).unwrap_or(i32::MAX))]);
        }
        instance
    }

    fn boot_disk(&self) -> AttachedDisk {
        let size = self.disk.div_ceil(1 << 30).max(SMALLEST_DISK);
        AttachedDisk::new()
            .set_boot(true)
            .set_auto_delete(true)
            .set_type(DiskType::Persistent)
            .set_initialize_params(
                AttachedDiskInitializeParams::new()
                    .set_source_image(self.image.name.path())
                    .set_disk_size_gb(i64::try_from(size).unwrap_or(i64::MAX))
                    .set_disk_type(format!("zones/{}/diskTypes/{}", self.zone, self.kind.kind.disk()))
                    .set_labels(labels(&self.tags)),
            )
    }

    /// Nobody logs in on a machine, and its console is in no log of the project.
    fn metadata(&self) -> Metadata {
        let item = |key: &str, value: &str| Items::new().set_key(key).set_value(value);
        Metadata::new().set_items([
            item(PROVISIONING, &self.provisioning),
            item("block-project-ssh-keys", "TRUE"),
            item("serial-port-enable", "FALSE"),
            item("serial-port-logging-enable", "FALSE"),
        ])
    }

    /// A machine that has ended does not start again: what it held is gone with its memory.
    fn scheduling(&self) -> Scheduling {
        // GPUs do not move to another host, nor does encrypted memory, but of some machines (Confidential VM's documentation,
        // "Live migration").
        let moves = !self.spot && !self.confidential && self.kind.gpus == 0;
        let mut scheduling = Scheduling::new()
            .set_automatic_restart(false)
            .set_on_host_maintenance(if moves {
                OnHostMaintenance::Migrate
            } else {
                OnHostMaintenance::Terminate
            })
            .set_provisioning_model(if self.spot {
                ProvisioningModel::Spot
            } else {
                ProvisioningModel::Standard
            });
        if self.spot || self.lifetime.is_some() {
            scheduling = scheduling.set_instance_termination_action(InstanceTerminationAction::Delete);
        }
        if let Some(lifetime) = self.lifetime {
            // In the range that was checked.
            let seconds = i64::try_from(lifetime).unwrap_or(i64::MAX);
            scheduling = scheduling.set_max_run_duration(Duration::new().set_seconds(seconds));
        }
        scheduling
    }
}

/// The last part of an address, which is a name.
pub(crate) fn last(address: &str) -> &str {
    address.rsplit('/').next().unwrap_or_default()
}

/// Whether a machine in that state runs or is about to.
pub(crate) fn runs(instance: &Instance) -> bool {
    matches!(
        instance.status,
        Some(Status::Provisioning | Status::Staging | Status::Running | Status::Repairing)
    )
}

/// The address that the machine has outside.
pub(crate) fn address(instance: &Instance) -> Option<IpAddr> {
    instance
        .network_interfaces
        .iter()
        .flat_map(|interface| &interface.access_configs)
        .find_map(|access| access.nat_ip.as_deref()?.parse().ok())
}

/// What the machine was told before it booted.
pub(crate) fn provisioning(instance: &Instance) -> Option<&str> {
    let items = &instance.metadata.as_ref()?.items;
    items
        .iter()
        .find(|item| item.key.as_deref() == Some(PROVISIONING))?
        .value
        .as_deref()
}

/// A machine as others see it; nothing when it is not of aicert.
pub(crate) fn record(project: &str, instance: &Instance) -> Option<MachineRecord> {
    let tags = read_labels(&instance.labels)?;
    let zone = last(instance.zone.as_deref()?).to_owned();
    let kind = Kind {
        name: last(instance.machine_type.as_deref().unwrap_or("unknown")).to_owned(),
        // Those that belong to the kind of machine are not told from those that were added, but for N1.
        added: instance
            .guest_accelerators
            .first()
            .filter(|_| last(instance.machine_type.as_deref().unwrap_or_default()).starts_with("n1-"))
            .map(|gpu| {
                let count = gpu.accelerator_count.and_then(|count| u32::try_from(count).ok());
                let name = last(gpu.accelerator_type.as_deref().unwrap_or_default());
                (count.unwrap_or_default(), name.to_owned())
            }),
    };
    Some(MachineRecord {
        id: MachineId(tags.job.to_string()),
        job: tags.job,
        instance_type: kind.to_string(),
        created: tags.created,
        endpoint: address(instance).map(|address| SocketAddr::new(address, SERVER_PORT)),
        in_use: None,
        identity: instance.id.map(|instance| MachineIdentity::Gce {
            project: project.to_owned(),
            zone: zone.clone(),
            instance,
        }),
        region: zone,
    })
}

/// What is known of a machine of which there is a firewall rule alone.
pub(crate) fn trace(marks: &crate::marks::Marks) -> MachineRecord {
    MachineRecord {
        id: MachineId(marks.tags.job.to_string()),
        job: marks.tags.job.clone(),
        instance_type: marks.instance_type.clone(),
        region: marks.zone.clone(),
        created: Timestamp::from_unix(marks.tags.created.as_unix()),
        endpoint: None,
        in_use: None,
        identity: None,
    }
}
