//! Sizes of machines.

use serde_json::{Value, json};

/// Sizes, as `westeurope` could have them.
pub(super) fn sizes() -> Vec<Value> {
    let size = |name: &str, capabilities: &[(&str, &str)]| {
        let mut all = vec![json!({ "name": "HyperVGenerations", "value": "V1,V2" })];
        all.extend(
            capabilities
                .iter()
                .map(|(name, value)| json!({ "name": name, "value": value })),
        );
        json!({ "resourceType": "virtualMachines", "name": name, "locations": ["westeurope"], "capabilities": all, "restrictions": [] })
    };
    let mut sold_out = size("Standard_NC24ads_A100_v4", &[("GPUs", "1")]);
    sold_out["restrictions"] = json!([{ "type": "Location", "values": ["westeurope"], "reasonCode": "NotAvailableForSubscription" }]);
    vec![
        json!({ "resourceType": "disks", "name": "Standard_D4s_v5" }),
        size(
            "Standard_D4s_v5",
            &[
                ("vCPUs", "4"),
                ("LowPriorityCapable", "True"),
                ("PremiumIO", "True"),
            ],
        ),
        size("Standard_D4_v5", &[("vCPUs", "4"), ("PremiumIO", "False")]),
        size(
            "Standard_D4ds_v6",
            &[
                ("vCPUs", "4"),
                ("PremiumIO", "True"),
                ("DiskControllerTypes", "NVMe"),
            ],
        ),
        size(
            "Standard_NC4as_T4_v3",
            &[("GPUs", "1"), ("LowPriorityCapable", "True")],
        ),
        size("Standard_DC4as_v5", &[("ConfidentialComputingType", "SNP")]),
        size("Standard_M8ms", &[("TrustedLaunchDisabled", "True")]),
        sold_out,
    ]
}

/// What a size says of itself.
pub(super) fn capability(size: &str, name: &str) -> Option<String> {
    let sizes = sizes();
    let size = sizes
        .iter()
        .find(|found| found["name"] == size && found["resourceType"] == "virtualMachines")?;
    let capability = size["capabilities"]
        .as_array()?
        .iter()
        .find(|capability| capability["name"] == name)?;
    Some(capability["value"].as_str()?.to_owned())
}
