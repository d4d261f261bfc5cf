//! What kind of machine suits a job, and what it costs.

use aicert_cloud_common::PriceClass;
use aws_sdk_ec2::types::{ArchitectureType, BootModeType, InstanceType, InstanceTypeInfo, NitroTpmSupport};

use crate::account::Account;
use crate::error::Failure;

/// The kind of machine for a job that needs so many GPUs, where none is named: 4 processors and 16 GiB, or NVIDIA L4 GPUs with
/// 24 GB each.
pub(crate) fn suitable(gpus: u32) -> Result<&'static str, Failure> {
    match gpus {
        0 => Ok("m7i.xlarge"),
        1 => Ok("g6.xlarge"),
        2..=4 => Ok("g6.12xlarge"),
        5..=8 => Ok("g6.48xlarge"),
        _ => Err(Failure::unsupported(
            format!("no machine of EC2 has {gpus} GPUs"),
            "ask for at most 8",
        )),
    }
}

/// What a kind of machine costs: list prices of Linux in us-east-1 (https://aws.amazon.com/ec2/pricing/on-demand/), end of 2025.
pub(crate) fn price(kind: &str) -> PriceClass {
    let Some((family, size)) = kind.split_once('.') else {
        return PriceClass::Unknown;
    };
    // In units of `xlarge`.
    let units = match size {
        "nano" | "micro" | "small" | "medium" => 0.25,
        "large" => 0.5,
        "xlarge" => 1.0,
        size => match size
            .strip_suffix("xlarge")
            .and_then(|units| units.parse::<u16>().ok())
        {
            Some(units) => f64::from(units),
            None => return PriceClass::Unknown,
        },
    };
    // Up to how many units it costs less than one, and less than ten dollars.
    let (cents, dollars) = match family {
        "g4dn" => (2.0, 16.0),
        "g5" => (0.5, 24.0),
        "g6" => (2.0, 24.0),
        "g6e" => (0.5, 8.0),
        "p4d" | "p4de" | "p5en" | "p5e" => (0.0, 0.0),
        "p5" => (0.0, 4.0),
        general => match general.as_bytes() {
            [b'm', b'0'..=b'9', ..] => (4.0, 32.0),
            [b'c', b'0'..=b'9', ..] => (4.0, 48.0),
            [b'r', b'0'..=b'9', ..] => (2.0, 32.0),
            [b't', b'0'..=b'9', ..] => (4.0, 32.0),
            _ => return PriceClass::Unknown,
        },
    };
    if units <= cents {
        PriceClass::Cents
    } else if units <= dollars {
        PriceClass::Dollars
    } else {
        PriceClass::TensOfDollars
    }
}

/// Whether a kind of machine is offered, is one that aicert's image boots on, and has so many GPUs. Returns its description for
/// people.
pub(crate) async fn require(account: &Account, kind: &str, gpus: u32) -> Result<String, Failure> {
    let answer = account
        .call("DescribeInstanceTypes", |clients| {
            let kind = InstanceType::from(kind);
            clients.ec2.describe_instance_types().instance_types(kind).send()
        })
        .await?;
    let info = answer.instance_types().first().ok_or_else(|| {
        Failure::told(
            aicert_core::cloud::CloudErrorKind::NotFound,
            format!("{} has no kind of machine {kind:?}", account.config.region),
            "leave `instanceType` out, or name one that the region has",
        )
    })?;
    check(kind, gpus, info)?;
    let memory = info
        .memory_info()
        .and_then(|memory| memory.size_in_mib())
        .unwrap_or(0)
        / 1024;
    let processors = info
        .v_cpu_info()
        .and_then(|cpus| cpus.default_v_cpus())
        .unwrap_or(0);
    let gpus: Vec<_> = info
        .gpu_info()
        .map(|gpus| gpus.gpus())
        .unwrap_or_default()
        .iter()
        .map(|gpu| format!(", {} × {}", gpu.count().unwrap_or(0), gpu.name().unwrap_or("GPU")))
        .collect();
    Ok(format!("{processors} processors, {memory} GiB{}", gpus.concat()))
}

fn check(kind: &str, gpus: u32, info: &InstanceTypeInfo) -> Result<(), Failure> {
    let advice = "leave `instanceType` out, or name a kind with NitroTPM, UEFI and as many GPUs: `aws ec2 describe-instance-types \
                  --filters Name=nitro-tpm-support,Values=supported`";
    let refuse = |what: &str| {
        Err(Failure::unsupported(
            format!("machines of the kind {kind:?} {what}"),
            advice,
        ))
    };
    let architectures = info
        .processor_info()
        .map(|processor| processor.supported_architectures())
        .unwrap_or_default();
    if !architectures.contains(&ArchitectureType::X8664) {
        return refuse("are not x86-64, which aicert's image is");
    }
    if !info.supported_boot_modes().contains(&BootModeType::Uefi) {
        return refuse("do not boot with UEFI");
    }
    if info.nitro_tpm_support() != Some(&NitroTpmSupport::Supported) {
        return refuse("have no NitroTPM, so that nothing on them could be certified");
    }
    let has: i32 = info
        .gpu_info()
        .map(|gpus| gpus.gpus().iter().filter_map(|gpu| gpu.count()).sum())
        .unwrap_or(0);
    if u32::try_from(has).unwrap_or(0) < gpus {
        return refuse(&format!("have {has} GPUs, and the job needs {gpus}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_suitable_has_a_known_price() {
        for gpus in 0..=8 {
            assert_ne!(price(suitable(gpus).unwrap()), PriceClass::Unknown, "{gpus}");
        }
        assert!(suitable(9).is_err());
    }

    #[test]
    fn prices_grow_with_machines() {
        for (kind, class) in [
            ("t3.micro", PriceClass::Cents),
            ("m7i.xlarge", PriceClass::Cents),
            ("m7i.16xlarge", PriceClass::Dollars),
            ("r7i.48xlarge", PriceClass::TensOfDollars),
            ("g6.xlarge", PriceClass::Cents),
            ("g5.xlarge", PriceClass::Dollars),
            ("g6.48xlarge", PriceClass::TensOfDollars),
            ("p5.48xlarge", PriceClass::TensOfDollars),
            ("p6-b200.48xlarge", PriceClass::Unknown),
            ("m7i.metal-24xl", PriceClass::Unknown),
            ("nonsense", PriceClass::Unknown),
        ] {
            assert_eq!(price(kind), class, "{kind}");
        }
    }
}
