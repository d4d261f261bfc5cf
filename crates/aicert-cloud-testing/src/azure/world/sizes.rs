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
            &[("vCPUs", "4"), ("LowPriorityCapable", "True")],
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
