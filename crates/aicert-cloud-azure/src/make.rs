//! Making a machine, and undoing what did not become one.

use std::net::SocketAddr;
use std::time::Duration;

use aicert_cloud_common::{Names, Tags, provisioning_document, read_issuers};
use aicert_core::attestation::KeyLocation;
use aicert_core::cloud::{CloudError, MachineId, MachineRecord, MachineRequest};
use aicert_core::progress::{ProgressEvent, Step};
use aicert_core::spec::AzureMachine;
use aicert_core::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use crate::arm::Arm;
use crate::config::AzureConfig;
use crate::error::Failure;
use crate::network::{self, Place};
use crate::size::{self, Disks, Wanted};
use crate::{PROVIDER, SERVER_PORT, compute, registration, remove};

/// Where Azure's machines have their attestation key, and its certificate.
/// <https://learn.microsoft.com/azure/virtual-machines/trusted-launch-faq>
const ATTESTATION_KEY: KeyLocation = KeyLocation::Persistent {
    handle: 0x8100_0003,
    certificate: 0x01c1_01d0,
};

/// Of Microsoft.DevTestLab, whose schedules turn machines off: those of laboratories, and all others.
const SCHEDULE_VERSION: &str = "2018-09-15";
const DAY: i64 = 24 * 60 * 60;

/// How long before an hour of the day a schedule is made, at least, and how long after the last one, so that it is neither
/// missed nor taken for yesterday's.
const NEAR: i64 = 120;

/// How many steps there are to tell of.
const STEPS: u64 = 8;

/// What is to be made, complete and checked.
#[derive(Debug)]
struct Plan<'a> {
    arm: &'a Arm,
    config: &'a AzureConfig,
    spec: &'a AzureMachine,
    request: &'a MachineRequest,
    name: String,
    region: String,
    size: String,
    disks: Disks,
    access: Vec<String>,
    document: String,
    subject: String,
}

/// Makes a machine. What was made is removed again when it fails.
pub(crate) async fn make(
    arm: &Arm,
    config: &AzureConfig,
    request: &MachineRequest,
) -> Result<MachineRecord, CloudError> {
    let arm = &arm.telling(&request.progress);
    let spec = config.machine.as_ref().ok_or_else(|| Failure::Unsupported {
        what: "nothing says what machines in Azure are to be like".into(),
        advice: "give the provider a machine to make".into(),
    })?;
    let region = normal(request.region.as_deref().unwrap_or(&spec.region))?;
    let wanted = Wanted {
        size: request
            .instance_type
            .as_deref()
            .or(spec.machine.instance_type.as_deref()),
        gpus: request.gpus,
        confidential: spec.confidential,
        spot: spec.machine.spot,
    };
    let (size, price) = size::choose(wanted)?;
    compute::image(&spec.machine.image)?;
    let issuers = read_issuers(&spec.machine.issuers)?;
    let document = provisioning_document(request, PROVIDER, &size, &region, ATTESTATION_KEY, &issuers)?;
    let access = network::reachable(&request.access, &request.progress)?;
    let subject = format!(
        "{PROVIDER}: {size} in {region}, {price}{}",
        if spec.machine.spot {
            ", as a spot machine"
        } else {
            ""
        }
    );
    request.progress.started(Step::Machine, &subject);
    registration::check(arm, &registration::MACHINES).await?;
    if request.lifetime.is_some_and(is_scheduled) {
        registration::check(arm, &[registration::SCHEDULES]).await?;
    }
    let disks = size::check(arm, &region, &size, wanted).await?;
    let plan = Plan {
        arm,
        config,
        spec,
        request,
        name: Names(&request.job).main(),
        region,
        size,
        disks,
        access,
        document,
        subject,
    };
    let record = plan.carry_out().await?;
    request
        .progress
        .finished(Step::Machine, &plan.subject, record.id.to_string());
    Ok(record)
}

/// Names of regions are those of the API, without spaces: `westeurope`.
fn normal(region: &str) -> Result<String, Failure> {
    let name: String = region
        .chars()
        .filter(|c| *c != ' ')
        .collect::<String>()
        .to_ascii_lowercase();
    if matches!(name.len(), 1..=60) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        Ok(name)
    } else {
        Err(Failure::Unsupported {
            what: format!(
                "{:?} is no region of Azure's",
                region.chars().take(60).collect::<String>()
            ),
            advice: "`az account list-locations --output table` shows their names, such as westeurope".into(),
        })
    }
}

impl Plan<'_> {
    fn step(&self, number: u64) {
        self.request
            .progress
            .advanced(Step::Machine, &self.subject, number, Some(STEPS));
    }

    /// A durable trace first, then what costs; all of it in one group, which is removed when anything fails.
    async fn carry_out(&self) -> Result<MachineRecord, Failure> {
        let (tags, existed) = self.group().await?;
        self.step(1);
        if existed && let Some(found) = compute::find(self.arm, &self.name, "userData").await? {
            return self.again(tags, found).await;
        }
        match self.fill(&tags).await {
            Ok(record) => Ok(record),
            Err(cause) => Err(self.roll_back(cause).await),
        }
    }

    /// The group of the job; whether it was there.
    async fn group(&self) -> Result<(Tags, bool), Failure> {
        let (owner, job) = (&self.config.owner, &self.request.job);
        // One that is being removed goes first.
        let found = self
            .arm
            .patience
            .removal
            .until(|| async {
                match remove::find(self.arm, &self.name).await? {
                    Some(group) if group.is_of(owner, job) && group.is_deleting() => Ok(None),
                    other => Ok(Some(other)),
                }
            })
            .await
            .map_err(Failure::waiting(format!(
                "deleting the resource group {}",
                self.name
            )))?;
        let tags = match found {
            Some(group) => match group.tags().filter(|_| group.is_of(owner, job)) {
                None => {
                    return Err(Failure::Foreign {
                        what: format!("the resource group {}", self.name),
                    });
                }
                Some(_) if !group.location.eq_ignore_ascii_case(&self.region) => {
                    return Err(Failure::Exists {
                        what: format!(
                            "the job has a machine in {} already, not in {}",
                            group.location, self.region
                        ),
                        advice: "destroy that machine first, or name the job otherwise".into(),
                    });
                }
                Some(tags) => Some(tags),
            },
            None => None,
        };
        match tags {
            Some(tags) => Ok((tags, true)),
            None => {
                let tags = Tags::new(owner, self.request);
                remove::make(
                    self.arm,
                    &self.name,
                    &self.region,
                    &remove::tags_object(tags.pairs()),
                )
                .await?;
                Ok((tags, false))
            }
        }
    }

    /// The machine that is there already is given again, if it is the one that is asked for.
    async fn again(&self, tags: Tags, found: compute::Found) -> Result<MachineRecord, Failure> {
        let told = found.user_data.as_deref() == Some(BASE64.encode(&self.document).as_str());
        if !told || !found.size.eq_ignore_ascii_case(&self.size) {
            return Err(Failure::Exists {
                what: format!(
                    "the job {} has another machine already, of the size {}",
                    self.request.job, found.size
                ),
                advice: "destroy that machine first, or name the job otherwise".into(),
            });
        }
        match self.fill(&tags).await {
            Ok(record) => Ok(record),
            // A machine that does not come up is of use to nobody.
            Err(cause @ (Failure::Ended { .. } | Failure::Refused(_))) => Err(self.roll_back(cause).await),
            Err(cause) => Err(cause),
        }
    }

    async fn fill(&self, tags: &Tags) -> Result<MachineRecord, Failure> {
        let (arm, name) = (self.arm, self.name.as_str());
        remove::until_listed(arm, &self.config.owner, name).await?;
        self.step(2);
        let tag_values = remove::tags_object(tags.pairs());
        let place = Place {
            name,
            region: &self.region,
            tags: &tag_values,
        };
        let security_group = network::security_group(arm, place, &self.access).await?;
        self.step(3);
        let subnet = network::network(arm, place).await?;
        self.step(4);
        let address = network::address(arm, place).await?;
        self.step(5);
        let interface = network::interface(arm, place, &security_group, &subnet, &address).await?;
        self.step(6);
        let machine = compute::machine(
            self.spec,
            place,
            (&self.size, self.disks),
            &interface,
            &self.document,
        )?;
        compute::create(arm, name, &machine).await?;
        self.step(7);
        self.schedule_end(tags, place).await?;
        self.step(STEPS);
        let address = network::find_address(arm, name)
            .await?
            .ok_or_else(|| Failure::Unexpected {
                request: "GET the address".into(),
                why: "it has none, and the machine is there".into(),
            })?;
        Ok(MachineRecord {
            id: MachineId(self.request.job.to_string()),
            job: self.request.job.clone(),
            instance_type: self.size.clone(),
            region: self.region.clone(),
            created: tags.created,
            endpoint: Some(SocketAddr::new(address, SERVER_PORT)),
            in_use: Some(true),
            identity: None,
        })
    }

    /// A machine that turns itself off is still paid for in Azure. So Azure is asked to take it down when its time is over;
    /// it does that every day at an hour, and so only for machines that live a day at most: others it would take down too early.
    async fn schedule_end(&self, tags: &Tags, place: Place<'_>) -> Result<(), Failure> {
        let Some(expires) = tags.expires else {
            return Ok(());
        };
        let lifetime = expires.as_unix().saturating_sub(tags.created.as_unix());
        if !is_scheduled(Duration::from_secs(lifetime.unsigned_abs())) {
            self.request.progress.send(ProgressEvent::Warning {
                message: "Azure does not take the machine down by itself: it is to live for more than a day. If it is left \
                          behind, it is paid for until it is destroyed"
                    .into(),
            });
            return Ok(());
        }
        let hour = hour_of_end(Timestamp::now(), expires);
        let machine = self.arm.id(&self.name, compute::MACHINES, &self.name);
        let schedule = format!("shutdown-computevm-{}", self.name);
        let id = self
            .arm
            .id(&self.name, "Microsoft.DevTestLab/schedules", &schedule);
        let body = json!({
            "location": place.region,
            "tags": place.tags,
            "properties": {
                "status": "Enabled",
                "taskType": "ComputeVmShutdownTask",
                "dailyRecurrence": { "time": hour },
                "timeZoneId": "UTC",
                "targetResourceId": machine,
            },
        });
        self.arm
            .put("the schedule of its end", &id, SCHEDULE_VERSION, &body)
            .await?;
        Ok(())
    }

    async fn roll_back(&self, cause: Failure) -> Failure {
        self.request
            .progress
            .advanced(Step::Machine, &self.subject, 0, Some(STEPS));
        match remove::remove(self.arm, &self.config.owner, &self.request.job).await {
            Ok(()) => cause,
            Err(why) => {
                let (why, left) = match why {
                    Failure::Remains { cause, left } => (cause, left),
                    why => (Box::new(why), vec![format!("resource group {}", self.name)]),
                };
                Failure::Left {
                    cause: Box::new(cause),
                    why,
                    left,
                }
            }
        }
    }
}

/// Whether Azure takes a machine down that is to live so long.
fn is_scheduled(lifetime: Duration) -> bool {
    i64::try_from(lifetime.as_secs()).is_ok_and(|seconds| seconds <= DAY)
}

/// The time of day, in UTC, at which a machine is to end: the first full minute after its end, or the last one that comes only
/// once until then, which is up to three minutes before the end of a machine that lives a whole day.
fn hour_of_end(now: Timestamp, expires: Timestamp) -> String {
    let minute = |at: i64| at.div_euclid(60);
    let full_minute = |at: i64| minute(at.saturating_add(59));
    let now = now.as_unix();
    let (soonest, latest) = (
        full_minute(now.saturating_add(NEAR)),
        minute(now.saturating_add(DAY - NEAR)),
    );
    let end = full_minute(expires.as_unix()).min(latest).max(soonest);
    let minute = end.rem_euclid(DAY / 60);
    format!("{:02}{:02}", minute / 60, minute % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_end_at_an_hour_of_the_day() {
        let at = |seconds| Timestamp::from_unix(seconds);
        // 2024-01-01, 00:00.
        let midnight = 1_704_067_200;
        let hour = |now, end| hour_of_end(at(midnight + now), at(midnight + end));
        assert_eq!(hour(0, 3600), "0100");
        assert_eq!(hour(0, 3601), "0101");
        assert_eq!(hour(23 * 3600, 25 * 3600 - 1), "0100");
        // Its end is over, or almost: soon.
        assert_eq!(hour(0, -1), "0002");
        assert_eq!(hour(30, 60), "0003");
        assert_eq!(hour(0, i64::MAX - midnight), "2358");
    }

    /// However long it took to make the machine: there is an hour, it comes once, and it is not long before the end.
    #[test]
    fn a_whole_day_has_an_end_too() {
        let midnight = 1_704_067_200;
        let lifetime = Duration::from_secs(24 * 60 * 60);
        assert!(is_scheduled(lifetime));
        assert!(!is_scheduled(lifetime + Duration::from_secs(1)));
        for (elapsed, expected) in [(0, "2358"), (61, "2359"), (300, "0000")] {
            let now = Timestamp::from_unix(midnight + elapsed);
            let hour = hour_of_end(now, Timestamp::from_unix(midnight + DAY));
            assert_eq!(hour, expected, "{elapsed}");
        }
        for elapsed in 0..1000 {
            let hour = hour_of_end(
                Timestamp::from_unix(midnight + elapsed),
                Timestamp::from_unix(midnight + DAY),
            );
            let second = hour[..2].parse::<i64>().unwrap() * 3600 + hour[2..].parse::<i64>().unwrap() * 60;
            let end = if second > elapsed { second } else { second + DAY };
            assert!((DAY - 180..=DAY).contains(&end), "{elapsed}: {hour}");
            assert!(
                (NEAR..=DAY - NEAR).contains(&(end - elapsed)),
                "{elapsed}: {hour}"
            );
        }
    }

    #[test]
    fn regions_have_one_name() {
        assert_eq!(normal("West Europe").unwrap(), "westeurope");
        assert!(normal("west/../europe").is_err());
        assert!(normal("").is_err());
    }
}
