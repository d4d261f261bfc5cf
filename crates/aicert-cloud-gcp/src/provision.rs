//! Making a machine.

use std::sync::Mutex;

use aicert_cloud_common::{Names, Tags, provisioning_document, read_issuers};
use aicert_core::attestation::KeyLocation;
use aicert_core::cloud::{CloudError, CloudErrorKind, MachineRecord, MachineRequest};
use aicert_core::progress::{ProgressEvent, Step};
use aicert_core::spec::GcpMachine;
use google_cloud_compute_v1::model::{Instance, Operation};

use crate::PROVIDER;
use crate::api::Api;
use crate::error::Fault;
use crate::image::ImageName;
use crate::instance::{self, Order};
use crate::kind::{Kind, UNCERTIFIED};
use crate::marks::{Marks, is_name, is_of, request_id};
use crate::operation::{Scope, Watch};
use crate::rule::{self, Rule};

/// Where Compute Engine's TPMs keep the template of the attestation key on the curve P-256, and its certificate
/// (go-tpm-tools, `client/handles.go`).
const KEY: KeyLocation = KeyLocation::Template {
    template: 0x01c1_0003,
    certificate: 0x01c1_0002,
};

/// What is going to be made, all of it checked.
struct Plan {
    order: Order,
    marks: Marks,
    ranges: Vec<String>,
    /// For people: what, where, and at what price.
    subject: String,
}

/// What there was when it was begun.
enum Begun {
    /// Nothing, or a trace of an earlier attempt: what is made from now on is removed if it fails.
    Rule(Rule),
    /// The machine.
    Machine(Box<Instance>),
}

impl Api {
    pub(crate) async fn provision(&self, request: MachineRequest) -> Result<MachineRecord, CloudError> {
        let machine = self.config.machine.as_ref().ok_or_else(|| {
            CloudError::new(CloudErrorKind::Unsupported, "no machine was configured")
                .with_advice("use a configuration with `machine: {provider: gcp, …}`")
        })?;
        let plan = self.plan(machine, &request).await?;
        let progress = &request.progress;
        progress.started(Step::Machine, plan.subject.clone());
        if !machine.confidential {
            progress.send(ProgressEvent::Warning {
                message: format!("this machine may be of no use: {UNCERTIFIED}"),
            });
        }
        let made = match self.begin(&plan, &request).await {
            Ok(Begun::Machine(instance)) => self.complete(&plan, *instance, &request).await?,
            Ok(Begun::Rule(rule)) => match self.make(&plan, &rule, &request).await {
                Ok(instance) => instance,
                Err(fault) => return Err(self.roll_back(&request, fault.into()).await),
            },
            // A rule that may have been made nevertheless.
            Err(Beginning::Uncertain(fault)) => return Err(self.roll_back(&request, fault.into()).await),
            Err(Beginning::Refused(fault)) => return Err(fault.into()),
        };
        let record = instance::record(self.project(), &made).ok_or_else(|| {
            CloudError::new(CloudErrorKind::Failed, "the machine that was made has no labels")
                .with_advice("remove it with `aicert machines destroy`")
        })?;
        progress.finished(Step::Machine, plan.subject, record.id.to_string());
        Ok(record)
    }

    /// Decides on everything, and asks whether it is there, before anything is made.
    async fn plan(&self, machine: &GcpMachine, request: &MachineRequest) -> Result<Plan, CloudError> {
        const DOING: &str = "make the machine";
        let zone = machine.zone.as_str();
        let refuse = |why: String| Err(CloudError::new(CloudErrorKind::Unsupported, why));
        if machine.project != self.config.project {
            return refuse(format!(
                "the machine is to be in the project {:?}, and this provider uses {:?}",
                machine.project, self.config.project
            ));
        }
        if !is_name(zone) {
            return refuse(format!("{zone:?} is no zone; one is `europe-west4-a`"));
        }
        if let Some(region) = request.region.as_deref().filter(|region| *region != zone) {
            return refuse(format!(
                "the machine is to be in {region:?}, and the configuration names the zone {zone:?}"
            ));
        }
        let asked = request
            .instance_type
            .as_deref()
            .or(machine.machine.instance_type.as_deref());
        if machine.confidential && request.gpus > 0 {
            let why = "the job needs GPUs, and the base image does not run in those confidential machines of Compute Engine that have some";
            return Err(
                CloudError::new(CloudErrorKind::Unsupported, why).with_advice(format!(
                    "run jobs with GPUs at `provider: azure` or `provider: aws`; {UNCERTIFIED}"
                )),
            );
        }
        let kind = match asked {
            Some(text) => Kind::parse(text)?,
            None => Kind::for_job(request.gpus)?,
        };
        if machine.confidential {
            kind.require_confidential()?;
        }
        kind.require_sold(machine.machine.spot)?;
        let ranges = rule::ranges(&request.access, &request.progress)?;
        let image = ImageName::parse(&machine.machine.image)?;
        let issuers = read_issuers(&machine.machine.issuers)?;
        let provisioning = provisioning_document(request, PROVIDER, &kind.to_string(), zone, KEY, &issuers)?;
        let kind = self.know_kind(kind, zone, request.gpus).await?;
        let image = self.know_image(image, machine.confidential).await?;
        let spot = if machine.machine.spot {
            " (as spot machine, for less)"
        } else {
            ""
        };
        let subject = format!("{PROVIDER}: {} in {zone}, {}{spot}", kind.kind, kind.price);
        let tags = Tags::new(&self.config.owner, request);
        let order = Order {
            project: self.config.project.clone(),
            zone: zone.to_owned(),
            name: Names(&request.job).main(),
            tags: tags.clone(),
            network: rule::network(&self.config.project, machine.network.as_deref()),
            disk: machine.machine.disk,
            spot: machine.machine.spot,
            confidential: machine.confidential,
            lifetime: request.lifetime.map(|lifetime| lifetime.as_secs()),
            provisioning,
            image,
            kind,
        };
        order.check(DOING)?;
        Ok(Plan {
            marks: Marks {
                tags,
                zone: zone.to_owned(),
                instance_type: order.kind.kind.to_string(),
            },
            order,
            ranges,
            subject,
        })
    }

    /// Leaves a trace, unless there is one or the machine itself.
    async fn begin(&self, plan: &Plan, request: &MachineRequest) -> Result<Begun, Beginning> {
        let doing = format!("make the firewall rule {}", plan.order.name);
        let mut rule = self
            .rule(&doing, &request.job)
            .await
            .map_err(Beginning::Refused)?;
        // From the moment that it is made, whatever fails has to remove it.
        let mut failed: fn(Fault) -> Beginning = Beginning::Refused;
        if rule.is_none() {
            rule = Some(self.make_rule(&doing, plan, request).await?);
            failed = Beginning::Uncertain;
        }
        let Some(rule) = rule else {
            let fault = Fault::new(&doing, CloudErrorKind::Failed, "it was made, and is not there");
            return Err(Beginning::Uncertain(fault));
        };
        self.require_own(&doing, &rule, plan, request)
            .map_err(Beginning::Refused)?;
        let found = self
            .instance(&doing, &plan.order.zone, &request.job)
            .await
            .map_err(failed)?;
        Ok(match found {
            Some(instance) => Begun::Machine(Box::new(instance)),
            None => Begun::Rule(rule),
        })
    }

    async fn make_rule(&self, doing: &str, plan: &Plan, request: &MachineRequest) -> Result<Rule, Beginning> {
        let body = rule::body(&plan.order.name, &plan.order.network, &plan.ranges, &plan.marks);
        let done = match self.insert_rule(doing, &body, &plan.marks).await {
            Ok(operation) => {
                let watch = watch(plan, request);
                self.wait(doing, operation, Scope::Global, Some(watch)).await
            }
            // Somebody was faster.
            Err(fault) if fault.is_conflict() => Ok(()),
            Err(fault) => Err(fault),
        };
        done.map_err(Beginning::Uncertain)?;
        let shown = self
            .config
            .paces
            .request
            .until(|| async { self.rule(doing, &request.job).await })
            .await;
        shown.map_err(|error| Beginning::Uncertain(Fault::waited(doing, error)))
    }

    /// Refuses to go on with what another made, or what was made otherwise.
    fn require_own(
        &self,
        doing: &str,
        rule: &Rule,
        plan: &Plan,
        request: &MachineRequest,
    ) -> Result<(), Fault> {
        let refuse =
            |why: String, advice: &str| Err(Fault::new(doing, CloudErrorKind::Failed, why).advise(advice));
        let marks = rule
            .marks
            .as_ref()
            .filter(|marks| is_of(Some(&marks.tags), &self.config.owner, &request.job));
        let Some(marks) = marks else {
            return refuse(
                "there is one of that name already, which was not made for this job and owner".into(),
                "name the job otherwise",
            );
        };
        if (&marks.zone, &marks.instance_type) != (&plan.marks.zone, &plan.marks.instance_type) {
            return refuse(
                format!(
                    "the job has a machine already, of the kind {} in {}",
                    marks.instance_type, marks.zone
                ),
                "destroy that one first (`aicert machines destroy`), or name the job otherwise",
            );
        }
        let body = rule::body(&plan.order.name, &plan.order.network, &plan.ranges, &plan.marks);
        if rule.ranges != body.source_ranges {
            return refuse(
                format!(
                    "the job has a machine already, which admits {}",
                    rule.ranges.join(", ")
                ),
                "destroy that one first (`aicert machines destroy`), or name the job otherwise",
            );
        }
        Ok(())
    }

    async fn make(&self, plan: &Plan, rule: &Rule, request: &MachineRequest) -> Result<Instance, Fault> {
        let doing = format!("make the instance {} in {}", plan.order.name, plan.order.zone);
        // The same for everybody who finds this rule.
        let id = request_id(&[
            "instance",
            self.project(),
            request.job.as_str(),
            &rule.id.to_string(),
        ]);
        let body = plan.order.body();
        let inserted: Result<Operation, Fault> = self
            .ask(&doing, |clients| {
                let request = clients.instances.insert();
                request
                    .set_project(self.project())
                    .set_zone(&plan.order.zone)
                    .set_request_id(&id)
                    .set_body(body.clone())
                    .send()
            })
            .await;
        match inserted {
            Ok(operation) => {
                let scope = Scope::Zone(&plan.order.zone);
                self.wait(&doing, operation, scope, Some(watch(plan, request)))
                    .await?;
            }
            // Asked for before, and it did not show then.
            Err(fault) if fault.is_conflict() => {}
            Err(fault) => return Err(fault),
        }
        let shown = self
            .config
            .paces
            .request
            .until(|| async { self.instance(&doing, &plan.order.zone, &request.job).await })
            .await
            .map_err(|error| Fault::waited(&doing, error))?;
        self.complete(plan, shown, request).await
    }

    /// Waits until the machine runs and has an address; refuses one that was made for something else.
    async fn complete(
        &self,
        plan: &Plan,
        found: Instance,
        request: &MachineRequest,
    ) -> Result<Instance, Fault> {
        let doing = format!("start the instance {} in {}", plan.order.name, plan.order.zone);
        if !self.is_own(&found, &request.job) {
            return Err(Fault::new(
                &doing,
                CloudErrorKind::Failed,
                "there is one of that name already, which was not made for this job and owner",
            )
            .advise("name the job otherwise"));
        }
        if instance::provisioning(&found) != Some(&plan.order.provisioning) {
            return Err(Fault::new(
                &doing,
                CloudErrorKind::Failed,
                "the job has a machine already, which serves somebody else, or was configured otherwise",
            )
            .advise("destroy that one first (`aicert machines destroy`), or name the job otherwise"));
        }
        let known = Mutex::new(Some(found));
        let complete = self
            .config
            .paces
            .operation
            .until(|| async {
                let instance = match known.lock().ok().and_then(|mut known| known.take()) {
                    Some(instance) => Some(instance),
                    None => self.instance(&doing, &plan.order.zone, &request.job).await?,
                };
                let Some(instance) = instance.filter(instance::runs) else {
                    return Err(
                        Fault::new(&doing, CloudErrorKind::Boot, "it has ended before it had an address").advise(
                            "a spot machine may be taken away at any time; else look at the instance's operations in Google's console",
                        ),
                    );
                };
                Ok(instance::address(&instance).is_some().then_some(instance))
            })
            .await;
        let complete = complete.map_err(|error| Fault::waited(&doing, error))?;
        if complete.id.is_none() {
            return Err(Fault::new(
                &doing,
                CloudErrorKind::Failed,
                "Compute Engine does not say its id, so it could not be told from other machines when it is attested",
            )
            .advise("destroy it (`aicert machines destroy`) and try again"));
        }
        Ok(complete)
    }

    /// Removes what was made; what could not be removed is told with the error.
    async fn roll_back(&self, request: &MachineRequest, error: CloudError) -> CloudError {
        let Err(left) = self.remove(&request.job).await else {
            return error;
        };
        let both = CloudError::new(
            error.kind(),
            format!("{}; and {}", error.message(), left.message()),
        );
        let advice = [error.advice(), left.advice()];
        let advice: Vec<_> = advice.into_iter().flatten().collect();
        both.with_advice(advice.join("; and ")).with_source(error)
    }
}

/// Why nothing was begun.
enum Beginning {
    /// What there is stays as it is.
    Refused(Fault),
    /// A rule may be there now.
    Uncertain(Fault),
}

fn watch<'a>(plan: &'a Plan, request: &'a MachineRequest) -> Watch<'a> {
    Watch {
        progress: &request.progress,
        step: Step::Machine,
        subject: &plan.subject,
    }
}
