//! The network that machines are in.

use aicert_core::cloud::{CloudErrorKind, Network};
use aicert_core::progress::{Progress, ProgressEvent};
use aws_sdk_ec2::types::Filter;

use crate::account::Account;
use crate::error::Failure;

/// Where a machine is.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) vpc: String,
    /// Without one, EC2 takes a subnet of the default VPC, in a zone that has the kind of machine.
    pub(crate) subnet: Option<String>,
}

/// Those that can reach a machine at all: the address that is told of it is one of IPv4.
pub(crate) fn reachable(access: &[Network], progress: &Progress) -> Result<Vec<Network>, Failure> {
    let (v4, v6): (Vec<Network>, Vec<Network>) =
        access.iter().partition(|network| network.address().is_ipv4());
    if v4.is_empty() && !v6.is_empty() {
        return Err(Failure::unsupported(
            "only addresses of IPv6 may reach the machine, and machines of EC2 have one of IPv4 here",
            "name in `access` the address of IPv4 that you come from",
        ));
    }
    if !v6.is_empty() {
        progress.send(ProgressEvent::Warning {
            message: "the machine has an address of IPv4 only: those of IPv6 in `access` do not reach it"
                .into(),
        });
    }
    Ok(v4)
}

/// The subnet that is named, or the default VPC.
pub(crate) async fn find(account: &Account, subnet: Option<&str>) -> Result<Place, Failure> {
    match subnet {
        Some(subnet) => named(account, subnet).await,
        None => default(account).await,
    }
}

async fn named(account: &Account, subnet: &str) -> Result<Place, Failure> {
    let answer = account
        .call("DescribeSubnets", |clients| {
            clients.ec2.describe_subnets().subnet_ids(subnet).send()
        })
        .await?;
    let vpc = answer.subnets().first().and_then(|subnet| subnet.vpc_id());
    Ok(Place {
        vpc: vpc
            .map(str::to_owned)
            .ok_or_else(|| nothing(account, &format!("no subnet {subnet:?}")))?,
        subnet: Some(subnet.into()),
    })
}

async fn default(account: &Account) -> Result<Place, Failure> {
    let answer = account
        .call("DescribeVpcs", |clients| {
            clients
                .ec2
                .describe_vpcs()
                .filters(filter("is-default", ["true"]))
                .send()
        })
        .await?;
    let vpc = answer.vpcs().first().and_then(|vpc| vpc.vpc_id());
    let vpc = vpc.ok_or_else(|| nothing(account, "no default VPC"))?;
    let answer = account
        .call("DescribeSubnets", |clients| {
            let of_vpc = filter("vpc-id", [vpc]);
            let default = filter("default-for-az", ["true"]);
            clients
                .ec2
                .describe_subnets()
                .filters(of_vpc)
                .filters(default)
                .send()
        })
        .await?;
    if answer.subnets().is_empty() {
        return Err(nothing(
            account,
            &format!("no default subnet in its default VPC {vpc}"),
        ));
    }
    Ok(Place {
        vpc: vpc.into(),
        subnet: None,
    })
}

fn nothing(account: &Account, what: &str) -> Failure {
    Failure::told(
        CloudErrorKind::NotFound,
        format!("{} has {what}", account.config.region),
        "name in `subnet` one that gives machines a way to the Internet (`aws ec2 describe-subnets`), or make the default ones \
         with `aws ec2 create-default-vpc`",
    )
}

/// A filter of a description.
pub(crate) fn filter<'a>(name: &str, values: impl IntoIterator<Item = &'a str>) -> Filter {
    Filter::builder()
        .name(name)
        .set_values(Some(values.into_iter().map(str::to_owned).collect()))
        .build()
}
