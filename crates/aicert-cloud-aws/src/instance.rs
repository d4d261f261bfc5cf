//! Instances: finding, waiting for and ending them.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use aicert_cloud_common::{Pace, Tags, WaitError};
use aicert_core::cloud::{MachineId, MachineIdentity, MachineRecord};
use aicert_core::progress::{Progress, Step};
use aicert_core::runtime::JobId;
use aws_sdk_ec2::types::{Filter, Instance, InstanceAttributeName, InstanceStateName};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::SERVER_PORT;
use crate::account::Account;
use crate::error::{self, Failure};
use crate::group::{self, Deleted};
use crate::network::filter;

/// The states of instances that are there still: those that have ended are shown for about an hour.
const THERE: [&str; 5] = ["pending", "running", "shutting-down", "stopping", "stopped"];

/// An instance that was found.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) id: String,
    pub(crate) tags: Tags,
    state: InstanceStateName,
    kind: String,
    address: Option<IpAddr>,
    /// Why it has ended, as EC2 says it: a code, and a message.
    why: (String, String),
}

impl Machine {
    fn read(instance: &Instance) -> Option<Self> {
        let why = instance.state_reason();
        let said = |text: Option<&str>| text.unwrap_or_default().to_owned();
        Some(Self {
            id: instance.instance_id()?.into(),
            tags: group::tags(instance.tags())?,
            state: instance.state()?.name()?.clone(),
            kind: instance
                .instance_type()
                .map_or_else(|| "unknown".into(), |kind| kind.as_str().to_owned()),
            address: instance
                .public_ip_address()
                .and_then(|address| address.parse().ok()),
            why: (
                said(why.and_then(|why| why.code())),
                said(why.and_then(|why| why.message())),
            ),
        })
    }

    /// Whether it runs, or will.
    pub(crate) fn is_running(&self) -> bool {
        matches!(
            self.state,
            InstanceStateName::Pending | InstanceStateName::Running
        )
    }

    fn is_ending(&self) -> bool {
        self.state == InstanceStateName::ShuttingDown
    }

    pub(crate) fn record(&self, region: &str) -> MachineRecord {
        let port = SERVER_PORT as u16;
        MachineRecord {
            id: MachineId(self.tags.job.to_string()),
            job: self.tags.job.clone(),
            instance_type: self.kind.clone(),
            region: region.into(),
            created: self.tags.created,
            endpoint: self.address.map(|address| SocketAddr::new(address, port)),
            in_use: None,
            identity: Some(MachineIdentity::Ec2 {
                instance: self.id.clone(),
            }),
        }
    }
}

/// The machines of the owner, or of one of the owner's jobs, that have not ended.
pub(crate) async fn list(account: &Account, job: Option<&JobId>) -> Result<Vec<Machine>, Failure> {
    let mut filters = group::of(&account.config.owner, job);
    filters.push(filter("instance-state-name", THERE));
    find(account, &filters).await
}

async fn find(account: &Account, filters: &[Filter]) -> Result<Vec<Machine>, Failure> {
    let mut machines = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let answer = account
            .call("DescribeInstances", |clients| {
                clients
                    .ec2
                    .describe_instances()
                    .set_filters(Some(filters.to_vec()))
                    .set_next_token(next.clone())
                    .max_results(200)
                    .send()
            })
            .await?;
        let instances = answer
            .reservations()
            .iter()
            .flat_map(|reservation| reservation.instances());
        machines.extend(instances.filter_map(Machine::read));
        next = answer
            .next_token()
            .filter(|token| !token.is_empty())
            .map(str::to_owned);
        if next.is_none() {
            return Ok(machines);
        }
    }
}

/// Whether the machine of a job runs, or will. That it does not is only said of one that is shown to have ended, or that is not
/// listed for as long as something that is there may remain unlisted: whoever hears it gives up what is on the machine.
pub(crate) async fn runs(account: &Account, job: &JobId) -> Result<bool, Failure> {
    let start = Instant::now();
    let patience = account.config.patience;
    let Pace {
        first,
        longest,
        limit,
    } = patience.answer;
    let looked = Pace::new(first, longest, limit + patience.settle)
        .until(|| async {
            let machines = find(account, &group::of(&account.config.owner, Some(job))).await?;
            if machines.iter().any(Machine::is_running) {
                return Ok(Some(true));
            }
            if !machines.is_empty() {
                // One that has ended is listed for an hour: that of an earlier run with this job says nothing of this one.
                let groups = group::list(account, Some(job)).await?;
                let is_current = |machine: &Machine| {
                    let mut created = groups.iter().map(|group| group.tags.created);
                    created.all(|created| created == machine.tags.created)
                };
                if machines.iter().any(is_current) {
                    return Ok(Some(false));
                }
            }
            Ok((start.elapsed() >= patience.settle).then_some(false))
        })
        .await;
    looked.map_err(|error| match error {
        WaitError::Failed(failure) => failure,
        WaitError::TooLong { waited } => Failure::TooLong {
            what: format!("it is not known whether the machine of the job {job} runs"),
            waited,
        },
    })
}

/// The machine of a job, which was made a moment ago, once it is listed.
pub(crate) async fn listed(account: &Account, job: &JobId) -> Result<String, Failure> {
    let pace = account.config.patience.listing();
    let listed = pace
        .until(|| async {
            let machines = list(account, Some(job)).await?;
            Ok(machines.into_iter().find(Machine::is_running))
        })
        .await;
    match listed {
        Ok(machine) => Ok(machine.id),
        Err(WaitError::Failed(failure)) => Err(failure),
        Err(WaitError::TooLong { waited }) => Err(Failure::TooLong {
            what: format!("another attempt at the job {job} has made a machine, which is not listed"),
            waited,
        }),
    }
}

/// What a machine was told before it booted.
pub(crate) async fn user_data(account: &Account, instance: &str) -> Result<Vec<u8>, Failure> {
    // Made a moment ago, it may be unknown to whoever answers.
    let passes = |code: &str, _: &str| code == "InvalidInstanceID.NotFound";
    let answer = account
        .call_at(
            account.config.patience.listing(),
            "DescribeInstanceAttribute",
            passes,
            |clients| {
                let request = clients.ec2.describe_instance_attribute().instance_id(instance);
                request.attribute(InstanceAttributeName::UserData).send()
            },
        )
        .await?;
    let told = answer
        .user_data()
        .and_then(|told| told.value())
        .unwrap_or_default();
    Ok(STANDARD.decode(told.trim()).unwrap_or_default())
}

/// Waits until the machine of a job runs and has an address.
pub(crate) async fn wait(
    account: &Account,
    job: &JobId,
    instance: &str,
    subject: &str,
    progress: &Progress,
) -> Result<Machine, Failure> {
    let start = Instant::now();
    // Those that have ended, too: they say why.
    let mut filters = group::of(&account.config.owner, Some(job));
    filters.push(filter("instance-id", [instance]));
    let seen = Mutex::new("not listed yet".to_owned());
    let note = |state: String| {
        let subject = format!("{subject}: {state}");
        progress.advanced(Step::Machine, subject, start.elapsed().as_secs(), None);
        *lock(&seen) = state;
    };
    let waited = account
        .config
        .patience
        .start
        .until(|| async {
            let machines = find(account, &filters).await?;
            let Some(machine) = machines.first() else {
                return Ok(None);
            };
            match machine.state {
                InstanceStateName::Running if machine.address.is_some() => return Ok(Some(machine.clone())),
                InstanceStateName::Running => note(format!("{} runs, without a public address", machine.id)),
                InstanceStateName::Pending => note(format!("{} is pending", machine.id)),
                _ => {
                    let (code, message) = &machine.why;
                    return Err(error::ended(&account.config.region, &machine.id, code, message));
                }
            }
            Ok(None)
        })
        .await;
    waited.map_err(|error| match error {
        WaitError::Failed(failure) => failure,
        WaitError::TooLong { waited } => Failure::TooLong {
            what: format!(
                "the machine does not run ({}; without an address, its subnet has no way to the Internet)",
                lock(&seen)
            ),
            waited,
        },
    })
}

/// Ends the machine of a job, and removes all that was made for it. Returns when nothing is left.
pub(crate) async fn remove(account: &Account, job: &JobId) -> Result<(), Failure> {
    let patience = account.config.patience;
    let quiet: Mutex<Option<Instant>> = Mutex::new(None);
    // Whether a group was deleted here, which proves that nothing uses it.
    let proven = AtomicBool::new(false);
    let ended = patience
        .end
        .until(|| async {
            let machines = list(account, Some(job)).await?;
            let running: Vec<_> = machines
                .iter()
                .filter(|machine| !machine.is_ending())
                .map(|machine| machine.id.clone())
                .collect();
            if !running.is_empty() {
                terminate(account, &running).await?;
            }
            let groups = group::list(account, Some(job)).await?;
            let mut left = !machines.is_empty();
            // While a machine is there, deleting would be refused; and where it would not, its name would be gone.
            if machines.is_empty() {
                for group in &groups {
                    match group::delete(account, &group.id).await? {
                        Deleted::Now => proven.store(true, Ordering::Relaxed),
                        Deleted::Before => {}
                        Deleted::InUse => left = true,
                    }
                }
            }
            if left {
                *lock(&quiet) = None;
                return Ok(None);
            }
            // What was made a moment ago may not be listed yet.
            let since = *lock(&quiet).get_or_insert_with(Instant::now);
            Ok((proven.load(Ordering::Relaxed) || since.elapsed() >= patience.settle).then_some(()))
        })
        .await;
    ended.map_err(|error| match error {
        WaitError::Failed(failure) => failure,
        WaitError::TooLong { waited } => Failure::TooLong {
            what: format!("the machine of the job {job} has not ended"),
            waited,
        },
    })
}

async fn terminate(account: &Account, ids: &[String]) -> Result<(), Failure> {
    let ended = account
        .call("TerminateInstances", |clients| {
            let ids = Some(ids.to_vec());
            clients.ec2.terminate_instances().set_instance_ids(ids).send()
        })
        .await;
    match ended {
        Ok(_) => Ok(()),
        // Listed, and unknown all the same to whoever answers: asked again with the next look.
        Err(failure) if failure.code() == "InvalidInstanceID.NotFound" => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// What there is of a job, for people.
pub(crate) async fn what_is_left(account: &Account, job: &JobId) -> Vec<String> {
    let mut left = Vec::new();
    match list(account, Some(job)).await {
        Ok(machines) => left.extend(machines.iter().map(|machine| format!("instance {}", machine.id))),
        Err(_) => left.push("an instance".into()),
    }
    match group::list(account, Some(job)).await {
        Ok(groups) => left.extend(groups.iter().map(|group| format!("security group {}", group.id))),
        Err(_) => left.push("a security group".into()),
    }
    left
}

/// What one look tells the next.
pub(crate) fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
