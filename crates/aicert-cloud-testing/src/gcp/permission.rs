//! Which permissions Google asks for.

use std::collections::BTreeSet;

use serde_json::Value;

/// The permissions that a request needs: those that the reference of Compute Engine's API lists under "IAM Permissions" of the
/// method, as far as its body uses what they are for, and those of "IAM permissions for JSON methods" in the documentation of
/// Cloud Storage.
pub(super) fn needed(method: &str, body: Option<&Value>) -> BTreeSet<&'static str> {
    let of_body = |pointer: &str| {
        body.and_then(|body| body.pointer(pointer))
            .is_some_and(|value| !value.is_null())
    };
    let mut needed = BTreeSet::new();
    match method {
        "compute.firewalls.get" => _ = needed.insert("compute.firewalls.get"),
        "compute.firewalls.list" => _ = needed.insert("compute.firewalls.list"),
        "compute.firewalls.insert" => {
            needed.extend(["compute.firewalls.create", "compute.networks.updatePolicy"])
        }
        "compute.firewalls.delete" => {
            needed.extend(["compute.firewalls.delete", "compute.networks.updatePolicy"])
        }
        "compute.globalOperations.get" => _ = needed.insert("compute.globalOperations.get"),
        "compute.zoneOperations.get" => _ = needed.insert("compute.zoneOperations.get"),
        "compute.zoneOperations.list" => _ = needed.insert("compute.zoneOperations.list"),
        "compute.images.get" => _ = needed.insert("compute.images.get"),
        "compute.images.delete" => _ = needed.insert("compute.images.delete"),
        "compute.images.insert" => {
            needed.insert("compute.images.create");
            if of_body("/labels") {
                needed.insert("compute.images.setLabels");
            }
            if of_body("/rawDisk/source") {
                // Cloud Storage asks it of whoever imports.
                needed.insert("storage.objects.get");
            }
        }
        "compute.instances.get" => _ = needed.insert("compute.instances.get"),
        "compute.instances.aggregatedList" => _ = needed.insert("compute.instances.list"),
        "compute.instances.delete" => {
            needed.insert("compute.instances.delete");
        }
        "compute.instances.getSerialPortOutput" => _ = needed.insert("compute.instances.getSerialPortOutput"),
        "compute.instances.insert" => {
            needed.insert("compute.instances.create");
            for (pointer, permission) in [
                ("/disks/0/initializeParams", "compute.disks.create"),
                ("/disks/0/initializeParams/labels", "compute.disks.setLabels"),
                (
                    "/disks/0/initializeParams/sourceImage",
                    "compute.images.useReadOnly",
                ),
                ("/labels", "compute.instances.setLabels"),
                ("/metadata", "compute.instances.setMetadata"),
                ("/serviceAccounts/0", "compute.instances.setServiceAccount"),
                ("/tags/items/0", "compute.instances.setTags"),
                ("/networkInterfaces/0/network", "compute.subnetworks.use"),
                (
                    "/networkInterfaces/0/accessConfigs/0",
                    "compute.subnetworks.useExternalIp",
                ),
            ] {
                if of_body(pointer) {
                    needed.insert(permission);
                }
            }
        }
        "compute.machineTypes.get" => _ = needed.insert("compute.machineTypes.get"),
        "storage.objects.get" => _ = needed.insert("storage.objects.get"),
        "storage.objects.list" => _ = needed.insert("storage.objects.list"),
        "storage.objects.delete" => _ = needed.insert("storage.objects.delete"),
        // Overwriting is deleting.
        "storage.objects.insert" => needed.extend(["storage.objects.create", "storage.objects.delete"]),
        "storage.objects.compose" => {
            needed.extend([
                "storage.objects.create",
                "storage.objects.delete",
                "storage.objects.get",
            ]);
        }
        other => panic!("it is not known what permissions {other} needs: look them up and add them"),
    }
    needed
}
