//! The security group of a job: the first thing that is made for it, and the last that is removed.
//!
//! Everything hangs on it. Its id becomes part of the client token of the machine, so that nobody makes two machines with one
//! group; its tags are those of the machine, so that asking again asks the same; and as EC2 refuses to delete a group that
//! anything uses, a group that could be deleted proves that there is no machine left, however late machines are listed.

use std::collections::BTreeSet;

use aicert_cloud_common::{Names, Owner, Tags, WaitError};
use aicert_core::cloud::{CloudErrorKind, Network};
use aicert_core::runtime::JobId;
use aws_sdk_ec2::types::{
    Filter, IpPermission, IpRange, Ipv6Range, ResourceType, SecurityGroup, Tag, TagSpecification,
};

use crate::SERVER_PORT;
use crate::account::Account;
use crate::error::Failure;
use crate::network::filter;

/// A security group that was found or made.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) id: String,
    pub(crate) vpc: String,
    pub(crate) tags: Tags,
    /// Who may reach the server already.
    admits: BTreeSet<String>,
}

/// Those of an owner, or of one of the owner's jobs.
pub(crate) async fn list(account: &Account, job: Option<&JobId>) -> Result<Vec<Group>, Failure> {
    let filters = of(&account.config.owner, job);
    find(account, &filters).await
}

/// The filters for what belongs to an owner, or to one of the owner's jobs.
pub(crate) fn of(owner: &Owner, job: Option<&JobId>) -> Vec<Filter> {
    let tag = |key, value| filter(&format!("tag:{key}"), [value]);
    let mut filters = vec![tag(Tags::OWNER, owner.as_str())];
    filters.extend(job.map(|job| tag(Tags::JOB, job.as_str())));
    filters
}

async fn find(account: &Account, filters: &[Filter]) -> Result<Vec<Group>, Failure> {
    let mut groups = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let answer = account
            .call("DescribeSecurityGroups", |clients| {
                clients
                    .ec2
                    .describe_security_groups()
                    .set_filters(Some(filters.to_vec()))
                    .set_next_token(next.clone())
                    .max_results(200)
                    .send()
            })
            .await?;
        groups.extend(answer.security_groups().iter().filter_map(read));
        next = answer
            .next_token()
            .filter(|token| !token.is_empty())
            .map(str::to_owned);
        if next.is_none() {
            return Ok(groups);
        }
    }
}

fn read(group: &SecurityGroup) -> Option<Group> {
    let admits = group
        .ip_permissions()
        .iter()
        .filter(|rule| rule.from_port() == Some(SERVER_PORT) && rule.to_port() == Some(SERVER_PORT))
        .flat_map(|rule| {
            let v4 = rule.ip_ranges().iter().filter_map(|range| range.cidr_ip());
            let v6 = rule.ipv6_ranges().iter().filter_map(|range| range.cidr_ipv6());
            v4.chain(v6).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    Some(Group {
        id: group.group_id()?.into(),
        vpc: group.vpc_id().unwrap_or_default().into(),
        tags: tags(group.tags())?,
        admits,
    })
}

/// aicert's tags among those of something; nothing when it is none of aicert.
pub(crate) fn tags(of: &[Tag]) -> Option<Tags> {
    Tags::read(|key| of.iter().find(|tag| tag.key() == Some(key))?.value())
}

/// What is made is marked with.
pub(crate) fn marked(kind: ResourceType, tags: &Tags) -> TagSpecification {
    let name = ("Name", Names(&tags.job).main());
    let tags = tags.pairs().into_iter().chain([name]);
    TagSpecification::builder()
        .resource_type(kind)
        .set_tags(Some(
            tags.map(|(key, value)| Tag::builder().key(key).value(value).build())
                .collect(),
        ))
        .build()
}

/// The group of a job in a network, made unless it is there.
pub(crate) async fn ensure(account: &Account, tags: &Tags, vpc: &str) -> Result<Group, Failure> {
    let there = list(account, Some(&tags.job)).await?;
    if let Some(group) = there.into_iter().find(|group| group.vpc == vpc) {
        return Ok(group);
    }
    let name = Names(&tags.job).main();
    let made = account
        .call("CreateSecurityGroup", |clients| {
            clients
                .ec2
                .create_security_group()
                .group_name(&name)
                .description(format!("aicert: the machine of the job {}", tags.job))
                .vpc_id(vpc)
                .tag_specifications(marked(ResourceType::SecurityGroup, tags))
                .send()
        })
        .await;
    match made {
        Ok(made) => Ok(Group {
            id: made.group_id().unwrap_or_default().into(),
            vpc: vpc.into(),
            tags: tags.clone(),
            admits: BTreeSet::new(),
        }),
        // Made a moment ago, by a request whose answer was lost; or by somebody else.
        Err(failure) if failure.code() == "InvalidGroup.Duplicate" => named(account, tags, &name, vpc).await,
        Err(failure) => Err(failure),
    }
}

/// The group of that name, once it is listed.
async fn named(account: &Account, tags: &Tags, name: &str, vpc: &str) -> Result<Group, Failure> {
    let filters = [filter("group-name", [name]), filter("vpc-id", [vpc])];
    let found = account
        .config
        .patience
        .listing()
        .until(|| async { Ok(find(account, &filters).await?.into_iter().next()) })
        .await;
    match found {
        Ok(group) if group.tags.owner == tags.owner && group.tags.job == tags.job => Ok(group),
        Err(WaitError::Failed(failure)) => Err(failure),
        Ok(_) | Err(WaitError::TooLong { .. }) => Err(Failure::told(
            CloudErrorKind::Failed,
            format!("{vpc} has a security group {name:?} that belongs to somebody else"),
            "name the job otherwise",
        )),
    }
}

/// Admits those who may reach the server, and nobody who may not.
pub(crate) async fn admit(account: &Account, group: &Group, access: &[Network]) -> Result<(), Failure> {
    let wanted: BTreeSet<_> = access
        .iter()
        .map(|network| (network.to_string(), *network))
        .collect();
    let missing: Vec<_> = wanted
        .iter()
        .filter(|(text, _)| !group.admits.contains(text))
        .map(|(_, network)| *network)
        .collect();
    let surplus: Vec<Network> = group
        .admits
        .iter()
        .filter(|text| wanted.iter().all(|(wanted, _)| wanted != *text))
        .filter_map(|text| text.parse().ok())
        .collect();
    // Made a moment ago, it may be unknown to whoever answers.
    let passes = |code: &str, _: &str| code == "InvalidGroup.NotFound";
    if !missing.is_empty() {
        let admitted = account
            .call_at(
                account.config.patience.answer,
                "AuthorizeSecurityGroupIngress",
                passes,
                |clients| {
                    let request = clients.ec2.authorize_security_group_ingress();
                    request.group_id(&group.id).ip_permissions(rule(&missing)).send()
                },
            )
            .await;
        match admitted {
            Ok(_) => {}
            // By a request whose answer was lost.
            Err(failure) if failure.code() == "InvalidPermission.Duplicate" => {}
            Err(failure) => return Err(failure),
        }
    }
    if !surplus.is_empty() {
        let removed = account
            .call("RevokeSecurityGroupIngress", |clients| {
                let request = clients.ec2.revoke_security_group_ingress();
                request.group_id(&group.id).ip_permissions(rule(&surplus)).send()
            })
            .await;
        match removed {
            Ok(_) => {}
            Err(failure) if failure.code() == "InvalidPermission.NotFound" => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

fn rule(networks: &[Network]) -> IpPermission {
    const WHO: &str = "who may reach aicert-server";
    let mut rule = IpPermission::builder()
        .ip_protocol("tcp")
        .from_port(SERVER_PORT)
        .to_port(SERVER_PORT);
    for network in networks {
        let cidr = network.to_string();
        // Those of IPv6 are only ever removed here.
        rule = if network.address().is_ipv4() {
            rule.ip_ranges(IpRange::builder().cidr_ip(cidr).description(WHO).build())
        } else {
            rule.ipv6_ranges(Ipv6Range::builder().cidr_ipv6(cidr).description(WHO).build())
        };
    }
    rule.build()
}

/// What deleting a group has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deleted {
    /// It is gone now, and nothing used it.
    Now,
    /// It was gone before, though it may still be listed.
    Before,
    /// Something uses it still.
    InUse,
}

/// Deletes a group, unless something uses it.
pub(crate) async fn delete(account: &Account, id: &str) -> Result<Deleted, Failure> {
    let deleted = account
        .call("DeleteSecurityGroup", |clients| {
            clients.ec2.delete_security_group().group_id(id).send()
        })
        .await;
    match deleted {
        Ok(_) => Ok(Deleted::Now),
        Err(failure) => match failure.code() {
            "InvalidGroup.NotFound" | "InvalidGroupId.Malformed" => Ok(Deleted::Before),
            "DependencyViolation" | "InvalidGroup.InUse" => Ok(Deleted::InUse),
            _ => Err(failure),
        },
    }
}
