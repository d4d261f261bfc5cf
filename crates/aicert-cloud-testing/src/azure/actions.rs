//! What an identity must be allowed for a request: Azure's resource provider operations.
//!
//! <https://learn.microsoft.com/azure/role-based-access-control/resource-provider-operations>

use std::collections::BTreeSet;

use serde_json::Value;

/// What a request needs, with what it refers to.
pub(super) fn needed(method: &str, path: &str, body: &Value) -> BTreeSet<String> {
    let mut actions = BTreeSet::new();
    let verb = match method {
        "PUT" | "PATCH" => "write",
        "DELETE" => "delete",
        "POST" => "action",
        _ => "read",
    };
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let own = match parts.iter().position(|part| *part == "providers") {
        // The resource provider itself.
        Some(at) if parts.len() == at + 2 => "Microsoft.Resources/subscriptions/providers".into(),
        Some(at) => {
            let mut kind = vec![parts.get(at + 1).copied().unwrap_or_default()];
            // Kinds and names take turns; the last kind may have no name.
            kind.extend(parts.iter().skip(at + 2).step_by(2));
            kind.join("/")
        }
        None if parts.contains(&"operationresults") => {
            "Microsoft.Resources/subscriptions/operationresults".into()
        }
        None if parts.last() == Some(&"resources") => {
            "Microsoft.Resources/subscriptions/resourceGroups/resources".into()
        }
        None => "Microsoft.Resources/subscriptions/resourceGroups".into(),
    };
    actions.insert(format!("{own}/{verb}"));
    // What is referred to must be allowed to be joined, or read ("linked access checks").
    if method == "PUT" {
        let mut ids = Vec::new();
        references(body, &mut ids);
        for id in ids {
            for (kind, action) in [
                (
                    "/networkSecurityGroups/",
                    "Microsoft.Network/networkSecurityGroups/join/action",
                ),
                (
                    "/subnets/",
                    "Microsoft.Network/virtualNetworks/subnets/join/action",
                ),
                (
                    "/publicIPAddresses/",
                    "Microsoft.Network/publicIPAddresses/join/action",
                ),
                (
                    "/networkInterfaces/",
                    "Microsoft.Network/networkInterfaces/join/action",
                ),
                ("/versions/", "Microsoft.Compute/galleries/images/versions/read"),
                ("/disks/", "Microsoft.Compute/disks/read"),
            ] {
                if id.contains(kind) {
                    actions.insert(action.to_owned());
                }
            }
        }
        if own == "Microsoft.Compute/virtualMachines" {
            // Its disk is made with it.
            actions.insert("Microsoft.Compute/disks/write".into());
        }
    }
    actions
}

fn references<'a>(value: &'a Value, ids: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_str() {
                    Some(id) if key == "id" => ids.push(id),
                    _ => references(value, ids),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, ids)),
        _ => {}
    }
}
