//! The virtual machine of a job.

use aicert_core::spec::AzureMachine;
use azure_mgmt_compute::models::{
    self, BillingProfile, BootDiagnostics, DiagnosticsProfile, HardwareProfile, ImageReference,
    ManagedDiskParameters, NetworkInterfaceReference, NetworkInterfaceReferenceProperties, NetworkProfile,
    OsDisk, Resource, SecurityProfile, StorageProfile, SubResource, UefiSettings, VirtualMachine,
    VirtualMachineProperties, VmDiskSecurityProfile,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;
use url::Url;

use crate::arm::{Arm, AsyncAgain, read};
use crate::error::Failure;
use crate::network::Place;
use crate::size::Disks;
use crate::transport::{Reply, checked};

pub(crate) const MACHINES: &str = "Microsoft.Compute/virtualMachines";

/// A machine that is there, as far as it is of interest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) size: String,
    /// How far it has been made.
    pub(crate) state: String,
    /// What it was told.
    pub(crate) user_data: Option<String>,
    /// Whether it runs; nothing while that is not known yet.
    pub(crate) power: Option<String>,
}

impl Found {
    /// Whether it runs, or will.
    pub(crate) fn runs(&self) -> bool {
        match self.power.as_deref() {
            Some("running" | "starting" | "unknown") => true,
            Some(_) => false,
            None => !matches!(
                self.state.to_ascii_lowercase().as_str(),
                "failed" | "deleting" | "canceled"
            ),
        }
    }
}

/// A version of an image of a gallery, by its id: what machines can be made from. The gallery is one of the account's, or one that
/// is shared with it, or with everybody.
pub(crate) fn image(id: &str) -> Result<ImageReference, Failure> {
    let parts: Vec<&str> = id.split('/').collect();
    let follows = |template: &[&str]| {
        parts.len() == template.len()
            && parts
                .iter()
                .zip(template)
                .all(|(part, expected)| match *expected {
                    "*" => {
                        matches!(part.len(), 1..=90)
                            && part.chars().all(|c| {
                                c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '(' | ')')
                            })
                    }
                    expected => part.eq_ignore_ascii_case(expected),
                })
    };
    let mut reference = ImageReference::default();
    if follows(&OWN) {
        reference.sub_resource.id = Some(id.into());
    } else if follows(&shared("SharedGalleries")) {
        reference.shared_gallery_image_id = Some(id.into());
    } else if follows(&shared("CommunityGalleries")) {
        reference.community_gallery_image_id = Some(id.into());
    } else {
        return Err(Failure::Unsupported {
            what: format!(
                "{:?} is no image of Azure's",
                id.chars().take(300).collect::<String>()
            ),
            advice: "`image` is what `aicert image publish` prints: /subscriptions/…/resourceGroups/…/providers/Microsoft.Compute/\
                     galleries/…/images/…/versions/…; or /CommunityGalleries/…/images/…/versions/…, or \
                     /SharedGalleries/…/images/…/versions/…"
                .into(),
        });
    }
    Ok(reference)
}

const OWN: [&str; 13] = [
    "",
    "subscriptions",
    "*",
    "resourceGroups",
    "*",
    "providers",
    "Microsoft.Compute",
    "galleries",
    "*",
    "images",
    "*",
    "versions",
    "*",
];

const fn shared(galleries: &str) -> [&str; 7] {
    ["", galleries, "*", "images", "*", "versions", "*"]
}

/// What a machine is made of.
pub(crate) fn machine(
    spec: &AzureMachine,
    place: Place<'_>,
    (size, disks): (&str, Disks),
    interface: &str,
    user_data: &str,
) -> Result<VirtualMachine, Failure> {
    use models::network_interface_reference_properties::DeleteOption as InterfaceDeleteOption;
    use models::os_disk::OsType;
    use models::security_profile::SecurityType;
    use models::vm_disk_security_profile::SecurityEncryptionType;
    let gib = i32::try_from(spec.machine.disk.div_ceil(1 << 30)).map_err(|_| Failure::Unsupported {
        what: format!("no disk of Azure's has {} bytes", spec.machine.disk),
        advice: "choose a smaller `disk`".into(),
    })?;
    let resource = |id: String| SubResource { id: Some(id) };
    let mut disk = OsDisk::new(models::CreateOption::FromImage);
    disk.os_type = Some(OsType::Linux);
    disk.disk_size_gb = Some(gib);
    disk.delete_option = Some(models::DeleteOption::Delete);
    disk.managed_disk = Some(ManagedDiskParameters {
        storage_account_type: Some(if disks.premium {
            models::StorageAccountType::PremiumLrs
        } else {
            models::StorageAccountType::StandardSsdLrs
        }),
        security_profile: spec.confidential.then(|| VmDiskSecurityProfile {
            // What is written to the disk is encrypted by the machine itself, with a key that nobody keeps.
            security_encryption_type: Some(SecurityEncryptionType::VmGuestStateOnly),
            ..VmDiskSecurityProfile::default()
        }),
        ..ManagedDiskParameters::default()
    });
    let mut properties = VirtualMachineProperties::new();
    properties.hardware_profile = Some(HardwareProfile {
        vm_size: Some(models::hardware_profile::VmSize::UnknownValue(size.into())),
        ..HardwareProfile::default()
    });
    // No profile of the operating system: the image is specialized. There is no agent, no user, and no key.
    properties.storage_profile = Some(StorageProfile {
        image_reference: Some(image(&spec.machine.image)?),
        os_disk: Some(disk),
        // Where both are possible, Azure takes SCSI.
        disk_controller_type: disks.nvme.then_some(models::DiskControllerType::NvMe),
        ..StorageProfile::default()
    });
    properties.security_profile = Some(SecurityProfile {
        security_type: Some(if spec.confidential {
            SecurityType::ConfidentialVm
        } else {
            SecurityType::TrustedLaunch
        }),
        uefi_settings: Some(UefiSettings {
            secure_boot_enabled: Some(true),
            v_tpm_enabled: Some(true),
        }),
        ..SecurityProfile::default()
    });
    properties.network_profile = Some(NetworkProfile {
        network_interfaces: vec![NetworkInterfaceReference {
            sub_resource: resource(interface.into()),
            properties: Some(NetworkInterfaceReferenceProperties {
                primary: Some(true),
                delete_option: Some(InterfaceDeleteOption::Delete),
            }),
        }],
        ..NetworkProfile::default()
    });
    properties.diagnostics_profile = Some(DiagnosticsProfile {
        boot_diagnostics: Some(BootDiagnostics {
            enabled: Some(true),
            storage_uri: None,
        }),
    });
    if spec.machine.spot {
        properties.priority = Some(models::Priority::Spot);
        properties.eviction_policy = Some(models::EvictionPolicy::Delete);
        // At most the usual price.
        properties.billing_profile = Some(BillingProfile {
            max_price: Some(-1.0),
        });
    }
    properties.user_data = Some(BASE64.encode(user_data));
    let mut resource = Resource::new(place.region.into());
    resource.tags = Some(place.tags.clone());
    let mut machine = VirtualMachine::new(resource);
    machine.properties = Some(properties);
    Ok(machine)
}

/// Makes the machine, and waits until it has been started. One that is there is never changed.
pub(crate) async fn create(arm: &Arm, name: &str, machine: &VirtualMachine) -> Result<(), Failure> {
    let what = "the machine";
    let reply = arm
        .generated(what, || {
            arm.compute
                .virtual_machines_client()
                .create_or_update(name, name, machine.clone(), &arm.subscription)
                .if_none_match("*")
                .send()
        })
        .await;
    let reply = match reply {
        // The answer to the same request before this one was lost on the way.
        Err(Failure::Refused(refusal)) if refusal.status == 412 => get(arm, name).await?,
        other => other?,
    };
    arm.finish(what, reply, Some(&Again(arm, name))).await?;
    Ok(())
}

struct Again<'a>(&'a Arm, &'a str);

#[async_trait::async_trait]
impl AsyncAgain for Again<'_> {
    async fn ask(&self) -> Result<Reply, Failure> {
        get(self.0, self.1).await
    }
}

async fn get(arm: &Arm, name: &str) -> Result<Reply, Failure> {
    arm.generated("GET the machine", || {
        arm.compute
            .virtual_machines_client()
            .get(name, name, &arm.subscription)
            .send()
    })
    .await
}

/// The machine of a job, if there is one; with what it was told, or with whether it runs.
pub(crate) async fn find(arm: &Arm, name: &str, expand: &str) -> Result<Option<Found>, Failure> {
    let reply = arm
        .generated("GET the machine", || {
            arm.compute
                .virtual_machines_client()
                .get(name, name, &arm.subscription)
                .expand(expand)
                .send()
        })
        .await;
    let reply = match reply {
        Err(failure) if failure.is_not_found() => return Ok(None),
        other => other?,
    };
    let machine: Value = read("GET the machine", &reply)?;
    let text = |path: &str| machine.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let power = machine
        .pointer("/properties/instanceView/statuses")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|status| status.get("code")?.as_str()?.strip_prefix("PowerState/"))
        .next_back()
        .map(str::to_owned);
    Ok(Some(Found {
        size: text("/properties/hardwareProfile/vmSize").unwrap_or_else(|| "unknown".into()),
        state: text("/properties/provisioningState").unwrap_or_default(),
        user_data: text("/properties/userData"),
        power,
    }))
}

/// How much of a console is read. Azure keeps about a MiB.
const CONSOLE_LIMIT: usize = 16 << 20;

/// What the machine wrote to its serial port, as Azure keeps it.
pub(crate) async fn console(arm: &Arm, name: &str) -> Result<Vec<u8>, Failure> {
    let what = "POST retrieveBootDiagnosticsData";
    let reply = arm
        .generated(what, || {
            arm.compute
                .virtual_machines_client()
                .retrieve_boot_diagnostics_data(name, name, &arm.subscription)
                .send()
        })
        .await;
    let reply = match reply {
        Err(failure) if nothing_yet(&failure) => return Ok(Vec::new()),
        other => other?,
    };
    let data: models::RetrieveBootDiagnosticsDataResult = read(what, &reply)?;
    let Some(address) = data.serial_console_log_blob_uri else {
        return Ok(Vec::new());
    };
    let url = Url::parse(&address).map_err(|_| Failure::Unexpected {
        request: what.into(),
        why: "the address of the console is none".into(),
    })?;
    let reply = arm
        .retry("GET the console", || async {
            // The address has what it needs to be let in.
            let reply = arm
                .http
                .send(Method::GET, &url, HeaderMap::new(), Bytes::new())
                .await?;
            checked("GET the console".into(), reply)
        })
        .await;
    match reply {
        Err(failure) if failure.is_not_found() => Ok(Vec::new()),
        Err(failure) => Err(failure),
        Ok(reply) => Ok(reply.body[reply.body.len().saturating_sub(CONSOLE_LIMIT)..].to_vec()),
    }
}

/// A machine that is not there, or has not been started, has written nothing.
fn nothing_yet(failure: &Failure) -> bool {
    failure.is_not_found() || matches!(failure, Failure::Refused(refusal) if refusal.status == 409)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_versions_of_galleries() {
        let own = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/galleries/a/images/b/versions/1.0.0";
        assert_eq!(image(own).unwrap().sub_resource.id.as_deref(), Some(own));
        let shared = "/sharedGalleries/x/images/base/versions/1.2.3";
        let reference = image(shared).unwrap();
        assert_eq!(reference.shared_gallery_image_id.as_deref(), Some(shared));
        assert_eq!(reference.sub_resource.id, None);
        let community = "/CommunityGalleries/aicert-0123/Images/base/Versions/0.1.0";
        let reference = image(community).unwrap();
        assert_eq!(reference.community_gallery_image_id.as_deref(), Some(community));
        for bad in [
            "",
            "ubuntu",
            "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/galleries/a/images/b",
            "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/images/b",
            "/CommunityGalleries//images/b/versions/1.0.0",
            "/CommunityGalleries/a/images/b",
            "/OtherGalleries/a/images/b/versions/1.0.0",
            "/CommunityGalleries/a/images/b c/versions/1.0.0",
        ] {
            assert!(image(bad).is_err(), "{bad}");
        }
    }
}
