//! Kinds of machines.

use aicert_cloud_common::PriceClass;
use azure_mgmt_compute::models::ResourceSku;

use crate::arm::Arm;
use crate::error::Failure;

/// Sizes that are taken when none is asked for, the first that fits: ordered by how many GPUs they have, and then by their price;
/// what they cost in Linux, in `eastus`, roughly.
/// <https://learn.microsoft.com/azure/virtual-machines/sizes/overview>
const SIZES: [Size; 10] = [
    Size::new("Standard_D4s_v5", 0, false, PriceClass::Cents),
    Size::new("Standard_NC4as_T4_v3", 1, false, PriceClass::Cents),
    Size::new("Standard_NC24ads_A100_v4", 1, false, PriceClass::Dollars),
    Size::new("Standard_NC40ads_H100_v5", 1, false, PriceClass::Dollars),
    Size::new("Standard_NC48ads_A100_v4", 2, false, PriceClass::Dollars),
    Size::new("Standard_NC64as_T4_v3", 4, false, PriceClass::Dollars),
    Size::new("Standard_NC96ads_A100_v4", 4, false, PriceClass::TensOfDollars),
    Size::new("Standard_ND96isr_H100_v5", 8, false, PriceClass::TensOfDollars),
    Size::new("Standard_DC4as_v5", 0, true, PriceClass::Cents),
    Size::new("Standard_NCC40ads_H100_v5", 1, true, PriceClass::Dollars),
];

#[derive(Debug, Clone, Copy)]
struct Size {
    name: &'static str,
    gpus: u32,
    confidential: bool,
    price: PriceClass,
}

impl Size {
    const fn new(name: &'static str, gpus: u32, confidential: bool, price: PriceClass) -> Self {
        Self {
            name,
            gpus,
            confidential,
            price,
        }
    }
}

/// What is wanted of a machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) size: Option<&'a str>,
    pub(crate) gpus: u32,
    pub(crate) confidential: bool,
    pub(crate) spot: bool,
}

/// What disks a size takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disks {
    /// Whether they may be of the fastest kind.
    pub(crate) premium: bool,
    /// Whether they are behind NVMe, and cannot be behind SCSI: so of all sizes from the sixth version on.
    /// <https://learn.microsoft.com/azure/virtual-machines/nvme-overview>
    pub(crate) nvme: bool,
}

/// The size to take, and what it costs.
pub(crate) fn choose(wanted: Wanted<'_>) -> Result<(String, PriceClass), Failure> {
    if let Some(name) = wanted.size {
        let valid = matches!(name.len(), 1..=60)
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !valid {
            return Err(Failure::Unsupported {
                what: format!(
                    "{:?} is no name of a size",
                    name.chars().take(60).collect::<String>()
                ),
                advice: "`az vm list-sizes --location …` shows them, such as Standard_D4s_v5".into(),
            });
        }
        let known = SIZES.iter().find(|size| size.name.eq_ignore_ascii_case(name));
        return Ok((
            name.to_owned(),
            known.map_or(PriceClass::Unknown, |size| size.price),
        ));
    }
    SIZES
        .iter()
        .filter(|size| size.gpus >= wanted.gpus && size.confidential == wanted.confidential)
        .find(|size| wanted.gpus > 0 || size.gpus == 0)
        .map(|size| (size.name.to_owned(), size.price))
        .ok_or_else(|| Failure::Unsupported {
            what: format!(
                "aicert knows no size of Azure's with {} GPUs{}",
                wanted.gpus,
                if wanted.confidential {
                    " whose memory is encrypted"
                } else {
                    ""
                }
            ),
            advice: "name one in `instanceType`".into(),
        })
}

/// Checks, before anything is made, that a region has a size, and that it can do what is wanted.
pub(crate) async fn check(arm: &Arm, region: &str, name: &str, wanted: Wanted<'_>) -> Result<Disks, Failure> {
    let filter = format!("location eq '{region}'");
    let path = format!(
        "/subscriptions/{}/providers/Microsoft.Compute/skus",
        arm.subscription
    );
    let query = [("api-version", "2021-07-01"), ("$filter", filter.as_str())];
    let skus: Vec<ResourceSku> = arm.list(&path, &query).await?;
    let sku = skus
        .iter()
        .find(|sku| {
            sku.resource_type.as_deref() == Some("virtualMachines")
                && sku.name.as_deref().is_some_and(|found| found.eq_ignore_ascii_case(name))
        })
        .ok_or_else(|| Failure::Unsupported {
            what: format!("Azure has no size {name} in {region}"),
            advice: format!("choose another `instanceType` or `region`: `az vm list-skus --location {region} --output table`"),
        })?;
    judge(sku, region, name, wanted)
}

fn judge(sku: &ResourceSku, region: &str, name: &str, wanted: Wanted<'_>) -> Result<Disks, Failure> {
    use azure_mgmt_compute::models::resource_sku_restrictions::{ReasonCode, Type};
    let capability = |key: &str| {
        sku.capabilities
            .iter()
            .find(|capability| capability.name.as_deref() == Some(key))
            .and_then(|capability| capability.value.as_deref())
    };
    let is = |key, value: &str| capability(key).is_some_and(|found| found.eq_ignore_ascii_case(value));
    let refuse = |why: String, advice: &str| {
        Err(Failure::Unsupported {
            what: format!("the size {name} {why}"),
            advice: advice.into(),
        })
    };
    let another = "choose another `instanceType`";
    // A restriction of single zones leaves the others.
    if let Some(restriction) = sku.restrictions.iter().find(|r| r.type_ == Some(Type::Location)) {
        return match restriction.reason_code {
            Some(ReasonCode::QuotaId) => refuse(
                "cannot be used with this kind of subscription".into(),
                "use another subscription, or choose another `instanceType`",
            ),
            _ => refuse(
                format!("is not offered to this subscription in {region}"),
                "choose another `region` or `instanceType`, or ask Azure's support for access to it",
            ),
        };
    }
    if let Some(generations) = capability("HyperVGenerations")
        && !generations.split(',').any(|generation| generation.trim() == "V2")
    {
        return refuse("does not boot by UEFI".into(), another);
    }
    if wanted.confidential {
        match capability("ConfidentialComputingType") {
            Some("SNP" | "TDX") => {}
            _ => {
                return refuse(
                    "does not encrypt its memory, and `confidential` is asked for".into(),
                    "choose a size such as Standard_DC4as_v5, or leave `confidential` out",
                );
            }
        }
    } else if is("TrustedLaunchDisabled", "true") {
        return refuse("has no Trusted Launch, and so no TPM".into(), another);
    }
    let gpus: u32 = capability("GPUs").and_then(|gpus| gpus.parse().ok()).unwrap_or(0);
    if gpus < wanted.gpus {
        return refuse(
            format!("has {gpus} GPUs, and the job needs {}", wanted.gpus),
            another,
        );
    }
    if wanted.spot && is("LowPriorityCapable", "false") {
        return refuse(
            "is not offered as a spot machine".into(),
            "choose another `instanceType`, or leave `spot` out",
        );
    }
    let controllers = capability("DiskControllerTypes").unwrap_or_default();
    let has = |kind: &str| {
        controllers
            .split(',')
            .any(|found| found.trim().eq_ignore_ascii_case(kind))
    };
    Ok(Disks {
        premium: !is("PremiumIO", "false"),
        // Sizes that say nothing of it are older than the choice.
        nvme: has("NVMe") && !has("SCSI"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Wanted<'_> = Wanted {
        size: None,
        gpus: 0,
        confidential: false,
        spot: false,
    };

    #[test]
    fn the_first_that_fits_is_taken() {
        let name = |wanted| choose(wanted).unwrap().0;
        assert_eq!(name(PLAIN), "Standard_D4s_v5");
        assert_eq!(name(Wanted { gpus: 1, ..PLAIN }), "Standard_NC4as_T4_v3");
        assert_eq!(name(Wanted { gpus: 3, ..PLAIN }), "Standard_NC64as_T4_v3");
        assert_eq!(name(Wanted { gpus: 8, ..PLAIN }), "Standard_ND96isr_H100_v5");
        let confidential = Wanted {
            confidential: true,
            ..PLAIN
        };
        assert_eq!(name(confidential), "Standard_DC4as_v5");
        assert_eq!(
            name(Wanted {
                gpus: 1,
                ..confidential
            }),
            "Standard_NCC40ads_H100_v5"
        );
        assert!(choose(Wanted { gpus: 9, ..PLAIN }).is_err());
        assert!(
            choose(Wanted {
                gpus: 2,
                ..confidential
            })
            .is_err()
        );
        let given = Wanted {
            size: Some("Standard_X1"),
            ..PLAIN
        };
        assert_eq!(
            choose(given).unwrap(),
            ("Standard_X1".into(), PriceClass::Unknown)
        );
        let bad = Wanted {
            size: Some("a/../b"),
            ..PLAIN
        };
        assert!(choose(bad).is_err());
    }

    #[test]
    fn what_a_size_cannot_do_is_told_before_anything_is_made() {
        let sku = |text: &str| serde_json::from_str::<ResourceSku>(text).unwrap();
        let with = |capabilities: &str| sku(&format!(r#"{{"name":"S","capabilities":[{capabilities}]}}"#));
        let judged = |sku: &ResourceSku, wanted| judge(sku, "westeurope", "S", wanted);
        let usual = Disks {
            premium: true,
            nvme: false,
        };
        for (capabilities, disks) in [
            (r#"{"name":"HyperVGenerations","value":"V1,V2"}"#, usual),
            (
                r#"{"name":"PremiumIO","value":"False"}"#,
                Disks {
                    premium: false,
                    ..usual
                },
            ),
            (
                r#"{"name":"DiskControllerTypes","value":"SCSI, NVMe"},{"name":"PremiumIO","value":"True"}"#,
                usual,
            ),
            (
                r#"{"name":"DiskControllerTypes","value":"NVMe"}"#,
                Disks { nvme: true, ..usual },
            ),
        ] {
            assert_eq!(
                judged(&with(capabilities), PLAIN).unwrap(),
                disks,
                "{capabilities}"
            );
        }
        let cases = [
            (
                with(r#"{"name":"HyperVGenerations","value":"V1"}"#),
                PLAIN,
                "UEFI",
            ),
            (
                with(r#"{"name":"TrustedLaunchDisabled","value":"True"}"#),
                PLAIN,
                "no TPM",
            ),
            (
                with(r#"{"name":"GPUs","value":"1"}"#),
                Wanted { gpus: 2, ..PLAIN },
                "needs 2",
            ),
            (
                with(""),
                Wanted {
                    confidential: true,
                    ..PLAIN
                },
                "encrypt",
            ),
            (
                with(r#"{"name":"LowPriorityCapable","value":"False"}"#),
                Wanted { spot: true, ..PLAIN },
                "spot",
            ),
            (
                sku(
                    r#"{"name":"S","restrictions":[{"type":"Location","reasonCode":"NotAvailableForSubscription"}]}"#,
                ),
                PLAIN,
                "not offered",
            ),
        ];
        for (sku, wanted, expected) in cases {
            let message = judged(&sku, wanted).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
