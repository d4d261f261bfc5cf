//! Making a machine.

use aicert_cloud_common::{Tags, provisioning_document};
use aicert_core::attestation::KeyLocation;
use aicert_core::cloud::{CloudError, CloudErrorKind, MachineRecord, MachineRequest, Network};
use aicert_core::progress::{ProgressEvent, Step};
use aicert_core::spec::AwsMachine;
use aws_sdk_ec2::types::{
    BlockDeviceMapping, EbsBlockDevice, HttpTokensState, InstanceInterruptionBehavior,
    InstanceMarketOptionsRequest, InstanceMetadataEndpointState, InstanceMetadataOptionsRequest,
    InstanceMetadataTagsState, InstanceNetworkInterfaceSpecification, InstanceType, MarketType, ResourceType,
    ShutdownBehavior, SpotInstanceType, SpotMarketOptions, VolumeType,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::account::Account;
use crate::error::Failure;
use crate::group::{self, Group};
use crate::image::Found;
use crate::instance::{self, Machine};
use crate::network::Place;
use crate::{GIB, PROVIDER, image, network, size};

/// The largest user data that EC2 takes ("Run commands when you launch an EC2 instance with user data input"), before base64.
const USER_DATA_LIMIT: usize = 16 << 10;

/// Everything that a machine is made of, checked.
struct Order<'a> {
    request: &'a MachineRequest,
    kind: &'a str,
    disk: u64,
    spot: bool,
    image: Found,
    place: Place,
    access: Vec<Network>,
    user_data: String,
    /// What it is called in reports.
    subject: String,
}

/// Makes the machine of a job, or takes the one that there is. Whatever fails, nothing that was made remains.
pub(crate) async fn provision(
    account: &Account,
    request: &MachineRequest,
) -> Result<MachineRecord, CloudError> {
    let account = &account.telling(&request.progress);
    let order = prepare(account, request).await?;
    let there = instance::list(account, Some(&request.job)).await?;
    if there.iter().any(|machine| !machine.is_running()) {
        return Err(CloudError::new(
            CloudErrorKind::Failed,
            format!(
                "there is a machine of the job {} that is just ending, or stopped",
                request.job
            ),
        )
        .with_advice("destroy it first, or name the job otherwise"));
    }
    let machine = match there.first() {
        Some(machine) => take(account, &order, &machine.id).await?,
        None => match make(account, &order).await {
            Ok(Some(machine)) => machine,
            // Another attempt at this job has made one since.
            Ok(None) => {
                let instance = instance::listed(account, &request.job).await?;
                take(account, &order, &instance).await?
            }
            Err(cause) => return Err(roll_back(account, request, cause).await.into()),
        },
    };
    let detail = format!("{} in {}", machine.id, account.config.region);
    request.progress.finished(Step::Machine, &order.subject, detail);
    Ok(machine.record(&account.config.region))
}

/// Looks at all that was asked for, before anything is made.
async fn prepare<'a>(account: &'a Account, request: &'a MachineRequest) -> Result<Order<'a>, CloudError> {
    let config = &account.config;
    let machine = config.machine.as_ref().ok_or_else(|| {
        Failure::unsupported(
            "no machine of EC2 is described in the configuration",
            "add `machine: {provider: aws, …}`",
        )
    })?;
    for region in [Some(&machine.region), request.region.as_ref()]
        .into_iter()
        .flatten()
    {
        if *region != config.region {
            return Err(Failure::unsupported(
                format!(
                    "a machine in {region:?} was asked for, and this is {:?}",
                    config.region
                ),
                "name the same region everywhere",
            )
            .into());
        }
    }
    if !machine.machine.issuers.is_empty() {
        return Err(Failure::unsupported(
            "`issuers` says where certificates are, and documents of EC2 carry theirs",
            "leave `issuers` out",
        )
        .into());
    }
    let kind = match request
        .instance_type
        .as_ref()
        .or(machine.machine.instance_type.as_ref())
    {
        Some(kind) => kind,
        None => size::suitable(request.gpus)?,
    };
    let user_data = provisioning_document(
        request,
        PROVIDER,
        kind,
        &config.region,
        KeyLocation::NitroDocument,
        &[],
    )?;
    if user_data.len() > USER_DATA_LIMIT {
        return Err(Failure::unsupported(
            format!(
                "the machine's orders have {} bytes; EC2 takes {USER_DATA_LIMIT}",
                user_data.len()
            ),
            "shorten them",
        )
        .into());
    }
    let spot = machine.machine.spot;
    let price = size::price(kind);
    let subject = format!("{kind} in {} (Amazon EC2)", config.region);
    let discount = if spot {
        ", as a spot machine usually less"
    } else {
        ""
    };
    request
        .progress
        .started(Step::Machine, format!("{subject}, {price}{discount}"));
    let access = network::reachable(&request.access, &request.progress)?;
    let described = size::require(account, kind, request.gpus).await?;
    request
        .progress
        .advanced(Step::Machine, format!("{subject}: {described}"), 0, None);
    let AwsMachine { subnet, machine, .. } = machine;
    Ok(Order {
        request,
        kind,
        disk: machine.disk,
        spot,
        image: image::require(account, &machine.image, machine.disk).await?,
        place: network::find(account, subnet.as_deref()).await?,
        access,
        user_data,
        subject,
    })
}

/// Takes the machine that there is, and admits those who ask now. Somebody may use it: it is never removed from here, and if it
/// serves somebody else, nothing is changed about it.
async fn take(account: &Account, order: &Order<'_>, id: &str) -> Result<Machine, Failure> {
    let job = &order.request.job;
    if instance::user_data(account, id).await? != order.user_data.as_bytes() {
        return Err(Failure::told(
            CloudErrorKind::Failed,
            format!(
                "the job {job} has a machine already, {id}, which serves somebody else, or was configured otherwise"
            ),
            "destroy that one first (`aicert machines destroy`), or name the job otherwise",
        ));
    }
    for group in group::list(account, Some(job)).await? {
        group::admit(account, &group, &order.access).await?;
    }
    instance::wait(account, job, id, &order.subject, &order.request.progress).await
}

/// Makes the machine, unless another attempt at this job has made one with other orders.
async fn make(account: &Account, order: &Order<'_>) -> Result<Option<Machine>, Failure> {
    let request = order.request;
    if request.access.is_empty() {
        request.progress.send(ProgressEvent::Warning {
            message: "nobody may reach the machine's server: `access` is empty".into(),
        });
    }
    let tags = Tags::new(&account.config.owner, request);
    let group = group::ensure(account, &tags, &order.place.vpc).await?;
    let Some(instance) = run(account, order, &group).await? else {
        return Ok(None);
    };
    // Not before it is known that the group has no machine that admits others.
    group::admit(account, &group, &order.access).await?;
    let machine = instance::wait(
        account,
        &request.job,
        &instance,
        &order.subject,
        &request.progress,
    );
    machine.await.map(Some)
}

/// Starts it. Returns its id, unless another request with other orders has started one already.
async fn run(account: &Account, order: &Order<'_>, group: &Group) -> Result<Option<String>, Failure> {
    // One group, one machine: at most 64 characters, of which a job has 40 and the id of a group 20.
    let token = format!("{}-{}", group.tags.job, group.id);
    // Made a moment ago, it may be unknown to whoever answers.
    let passes = |code: &str, _: &str| code == "InvalidGroup.NotFound";
    let started = account
        .call_at(
            account.config.patience.answer,
            "RunInstances",
            passes,
            |clients| {
                let mut request = clients
                    .ec2
                    .run_instances()
                    .client_token(&token)
                    .image_id(&order.image.id)
                    .instance_type(InstanceType::from(order.kind))
                    .min_count(1)
                    .max_count(1)
                    .user_data(STANDARD.encode(&order.user_data))
                    .instance_initiated_shutdown_behavior(ShutdownBehavior::Terminate)
                    .metadata_options(metadata())
                    .network_interfaces(interface(order, group))
                    .block_device_mappings(disk(order))
                    .tag_specifications(group::marked(ResourceType::Instance, &group.tags))
                    .tag_specifications(group::marked(ResourceType::Volume, &group.tags))
                    .tag_specifications(group::marked(ResourceType::NetworkInterface, &group.tags));
                if order.spot {
                    request = request
                        .instance_market_options(spot())
                        .tag_specifications(group::marked(ResourceType::SpotInstancesRequest, &group.tags));
                }
                request.send()
            },
        )
        .await;
    match started {
        Ok(started) => Ok(started
            .instances()
            .first()
            .and_then(|instance| instance.instance_id())
            .map(str::to_owned)),
        Err(failure) if failure.code() == "IdempotentParameterMismatch" => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Only with a token, and only on the machine itself: a container is one hop further.
fn metadata() -> InstanceMetadataOptionsRequest {
    InstanceMetadataOptionsRequest::builder()
        .http_endpoint(InstanceMetadataEndpointState::Enabled)
        .http_tokens(HttpTokensState::Required)
        .http_put_response_hop_limit(1)
        .instance_metadata_tags(InstanceMetadataTagsState::Disabled)
        .build()
}

fn interface(order: &Order<'_>, group: &Group) -> InstanceNetworkInterfaceSpecification {
    InstanceNetworkInterfaceSpecification::builder()
        .device_index(0)
        .associate_public_ip_address(true)
        .delete_on_termination(true)
        .groups(&group.id)
        .set_subnet_id(order.place.subnet.clone())
        .build()
}

fn disk(order: &Order<'_>) -> BlockDeviceMapping {
    let gib = i32::try_from(order.disk.div_ceil(GIB)).unwrap_or(i32::MAX);
    let volume = EbsBlockDevice::builder()
        .volume_size(gib)
        .volume_type(VolumeType::Gp3)
        .encrypted(true)
        .delete_on_termination(true)
        .build();
    BlockDeviceMapping::builder()
        .device_name(&order.image.root)
        .ebs(volume)
        .build()
}

fn spot() -> InstanceMarketOptionsRequest {
    let options = SpotMarketOptions::builder()
        .spot_instance_type(SpotInstanceType::OneTime)
        .instance_interruption_behavior(InstanceInterruptionBehavior::Terminate)
        .build();
    InstanceMarketOptionsRequest::builder()
        .market_type(MarketType::Spot)
        .spot_options(options)
        .build()
}

/// Removes what was made; what could not be removed is told with the failure.
async fn roll_back(account: &Account, request: &MachineRequest, cause: Failure) -> Failure {
    let subject = format!("removing what was made for the job {}", request.job);
    request.progress.advanced(Step::Machine, subject, 0, None);
    match instance::remove(account, &request.job).await {
        Ok(()) => cause,
        Err(why) => Failure::Left {
            cause: Box::new(cause),
            why: Box::new(why),
            left: instance::what_is_left(account, &request.job).await,
        },
    }
}
