//! The network that machines are in.

use aicert_core::cloud::CloudErrorKind;
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
