//! The network of a job: who may reach the machine, and where.

use aicert_core::cloud::Network;
use aicert_core::progress::{Progress, ProgressEvent};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::SERVER_PORT;
use crate::arm::{Arm, read};
use crate::error::Failure;

/// Of Microsoft.Network.
pub(crate) const VERSION: &str = "2024-05-01";

/// The addresses inside, which nobody else sees.
const INSIDE: &str = "10.0.0.0/24";

const SECURITY_GROUPS: &str = "Microsoft.Network/networkSecurityGroups";
const NETWORKS: &str = "Microsoft.Network/virtualNetworks";
const ADDRESSES: &str = "Microsoft.Network/publicIPAddresses";
const INTERFACES: &str = "Microsoft.Network/networkInterfaces";

/// An address of the machine.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Address {
    properties: AddressProperties,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AddressProperties {
    ip_address: Option<std::net::IpAddr>,
}

/// Where, and as what, everything of a job is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The resource group, and the name of what there is one of.
    pub(crate) name: &'a str,
    pub(crate) region: &'a str,
    pub(crate) tags: &'a Value,
}

/// Those that can reach a machine at all: its address is one of IPv4.
pub(crate) fn reachable(access: &[Network], progress: &Progress) -> Result<Vec<String>, Failure> {
    let (v4, v6): (Vec<&Network>, Vec<&Network>) =
        access.iter().partition(|network| network.address().is_ipv4());
    if v4.is_empty() && !v6.is_empty() {
        return Err(Failure::Unsupported {
            what: "only addresses of IPv6 may reach the machine, and machines in Azure have one of IPv4 here"
                .into(),
            advice: "name the address of IPv4 that you come from in `access`".into(),
        });
    }
    if !v6.is_empty() {
        progress.send(ProgressEvent::Warning {
            message: "the machine has an address of IPv4 only: those of IPv6 in `access` do not reach it"
                .into(),
        });
    }
    Ok(v4.iter().map(ToString::to_string).collect())
}

/// Makes what filters: the server's port for those named, and nothing else from outside.
pub(crate) async fn security_group(
    arm: &Arm,
    place: Place<'_>,
    access: &[String],
) -> Result<String, Failure> {
    let rule = |name: &str, priority: u32, allowed: Value| {
        let mut properties = json!({
            "priority": priority,
            "direction": "Inbound",
            "sourcePortRange": "*",
            "destinationAddressPrefix": "*",
        });
        if let (Value::Object(to), Value::Object(from)) = (&mut properties, allowed) {
            to.extend(from);
        }
        json!({ "name": name, "properties": properties })
    };
    let mut rules = Vec::new();
    if !access.is_empty() {
        rules.push(rule(
            "server",
            100,
            json!({
                "access": "Allow",
                "protocol": "Tcp",
                "sourceAddressPrefixes": access,
                "destinationPortRange": SERVER_PORT.to_string(),
            }),
        ));
    }
    rules.push(rule(
        "nothing-else",
        4096,
        json!({
            "access": "Deny",
            "protocol": "*",
            "sourceAddressPrefix": "*",
            "destinationPortRange": "*",
        }),
    ));
    make(
        arm,
        place,
        SECURITY_GROUPS,
        "the network security group",
        json!({ "securityRules": rules }),
        None,
    )
    .await
}

/// Makes the network, with one subnet; gives the subnet.
pub(crate) async fn network(arm: &Arm, place: Place<'_>) -> Result<String, Failure> {
    let properties = json!({
        "addressSpace": { "addressPrefixes": [INSIDE] },
        "subnets": [{ "name": "machine", "properties": { "addressPrefix": INSIDE } }],
    });
    let id = make(arm, place, NETWORKS, "the network", properties, None).await?;
    Ok(format!("{id}/subnets/machine"))
}

/// Makes the address.
pub(crate) async fn address(arm: &Arm, place: Place<'_>) -> Result<String, Failure> {
    let properties = json!({
        "publicIPAllocationMethod": "Static",
        "publicIPAddressVersion": "IPv4",
    });
    let sku = json!({ "name": "Standard" });
    make(arm, place, ADDRESSES, "the address", properties, Some(sku)).await
}

/// Makes the interface, which brings the others together.
pub(crate) async fn interface(
    arm: &Arm,
    place: Place<'_>,
    security_group: &str,
    subnet: &str,
    address: &str,
) -> Result<String, Failure> {
    let properties = json!({
        "networkSecurityGroup": { "id": security_group },
        "ipConfigurations": [{
            "name": "machine",
            "properties": {
                "primary": true,
                "privateIPAllocationMethod": "Dynamic",
                "subnet": { "id": subnet },
                "publicIPAddress": { "id": address, "properties": { "deleteOption": "Delete" } },
            },
        }],
    });
    make(arm, place, INTERFACES, "the network interface", properties, None).await
}

async fn make(
    arm: &Arm,
    place: Place<'_>,
    kind: &str,
    what: &str,
    properties: Value,
    sku: Option<Value>,
) -> Result<String, Failure> {
    let id = arm.id(place.name, kind, place.name);
    let mut body = json!({ "location": place.region, "tags": place.tags, "properties": properties });
    if let (Value::Object(body), Some(sku)) = (&mut body, sku) {
        body.insert("sku".into(), sku);
    }
    arm.put(what, &id, VERSION, &body).await?;
    Ok(id)
}

/// The machine's address, once there is one.
pub(crate) async fn find_address(arm: &Arm, name: &str) -> Result<Option<std::net::IpAddr>, Failure> {
    let id = arm.id(name, ADDRESSES, name);
    let query = [("api-version", VERSION)];
    match arm.request(reqwest::Method::GET, &id, &query, None).await {
        Ok(reply) => Ok(read::<Address>(&id, &reply)?.properties.ip_address),
        Err(failure) if failure.is_not_found() => Ok(None),
        Err(failure) => Err(failure),
    }
}
