//! Kinds of machines: which one suits a job, and what of it has to be known before it is made.

use std::fmt;

use aicert_cloud_common::PriceClass;
use aicert_core::cloud::CloudErrorKind;
use google_cloud_compute_v1::model::{MachineType, machine_type};

use crate::api::Api;
use crate::error::Fault;
use crate::marks::is_name;

const DOING: &str = "choose a kind of machine";

/// What to know before one does without `confidential`.
pub(crate) const UNCERTIFIED: &str = "`confidential: false` makes a machine of any kind, but Google documents certificates of \
     attestation keys for confidential machines alone: without one, it cannot be attested, and the job does not run";

/// A kind of machine, such as `g2-standard-8`, or with GPUs that are added to it: `n1-standard-8+1xnvidia-tesla-t4`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Google's machine type.
    pub(crate) name: String,
    /// GPUs that are added, and how many.
    pub(crate) added: Option<(u32, String)>,
}

/// A kind of machine that there is in a zone.
#[derive(Debug, Clone)]
pub(crate) struct KnownKind {
    pub(crate) kind: Kind,
    pub(crate) gpus: u32,
    pub(crate) price: PriceClass,
}

impl Kind {
    /// The kind that suits a job when none is named.
    ///
    /// Compute Engine's documentation, "Machine families" and "GPU machine types": how many GPUs each has.
    pub(crate) fn for_job(gpus: u32) -> Result<Self, Fault> {
        let name = match gpus {
            0 => "n2d-standard-4",
            1 => "g2-standard-8",
            2 => "g2-standard-24",
            3..=4 => "g2-standard-48",
            5..=8 => "g2-standard-96",
            9..=16 => "a2-megagpu-16g",
            _ => {
                return Err(Fault::new(
                    DOING,
                    CloudErrorKind::Unsupported,
                    format!("Compute Engine has no machine with {gpus} GPUs"),
                )
                .advise("ask for fewer GPUs"));
            }
        };
        Ok(Self {
            name: name.into(),
            added: None,
        })
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let wrong = || {
            Fault::new(
                DOING,
                CloudErrorKind::Unsupported,
                format!("{:?} is no kind of machine", text.chars().take(80).collect::<String>()),
            )
            .advise(
                "expected a machine type such as `n2d-standard-4` or `g2-standard-8`, or one with GPUs added to it, such as \
                 `n1-standard-8+1xnvidia-tesla-t4`",
            )
        };
        let (name, added) = match text.split_once('+') {
            None => (text, None),
            Some((name, added)) => {
                let (count, gpu) = added.split_once('x').ok_or_else(wrong)?;
                let count = count
                    .parse()
                    .ok()
                    .filter(|count| matches!(count, 1..=16))
                    .ok_or_else(wrong)?;
                if !is_name(gpu) {
                    return Err(wrong());
                }
                (name, Some((count, gpu.to_owned())))
            }
        };
        if !is_name(name) {
            return Err(wrong());
        }
        Ok(Self {
            name: name.into(),
            added,
        })
    }

    fn family(&self) -> &str {
        self.name.split('-').next().unwrap_or_default()
    }

    /// Refuses a kind whose memory AMD's SEV does not encrypt (Confidential VM's documentation, "Supported
    /// configurations"). Intel's TDX does so for others, such as C3, in which the base image's kernel does not start: it is
    /// built without `INTEL_TDX_GUEST`.
    pub(crate) fn require_confidential(&self) -> Result<(), Fault> {
        if matches!(self.family(), "n2d" | "c2d" | "c3d") && self.added.is_none() {
            return Ok(());
        }
        Err(Fault::new(
            DOING,
            CloudErrorKind::Unsupported,
            format!("the base image does not run in confidential machines of the kind {self}"),
        )
        .advise(format!(
            "take a kind of the families n2d, c2d or c3d, such as `n2d-standard-4`; {UNCERTIFIED}"
        )))
    }

    /// Refuses kinds that Google sells as spot machines alone, unless it is to be one (Compute Engine's documentation,
    /// "Accelerator-optimized machine family", A3 High).
    pub(crate) fn require_sold(&self, spot: bool) -> Result<(), Fault> {
        if spot || !matches!(&*self.name, "a3-highgpu-1g" | "a3-highgpu-2g" | "a3-highgpu-4g") {
            return Ok(());
        }
        Err(Fault::new(
            DOING,
            CloudErrorKind::Unsupported,
            format!("machines of the kind {self} are offered as spot machines alone"),
        )
        .advise("add `spot: true`, or take `a3-highgpu-8g`"))
    }

    /// The kind of disk that it boots from: newer families have no other than Hyperdisk.
    ///
    /// Compute Engine's documentation, "Choose a disk type", "Machine series support".
    pub(crate) fn disk(&self) -> &'static str {
        match self.family() {
            "c4" | "c4d" | "n4" | "n4d" | "m4" | "x4" | "h4d" | "a4" | "g4" => "hyperdisk-balanced",
            "a3" if self.name.starts_with("a3-ultragpu") => "hyperdisk-balanced",
            _ => "pd-balanced",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.added {
            Some((count, gpu)) => write!(f, "+{count}x{gpu}"),
            None => Ok(()),
        }
    }
}

impl Api {
    /// What Google says of a kind of machine, and whether it has the GPUs that a job needs.
    pub(crate) async fn know_kind(&self, kind: Kind, zone: &str, gpus: u32) -> Result<KnownKind, Fault> {
        let found: Result<MachineType, Fault> = self
            .ask(DOING, |clients| {
                let request = clients.machine_types.get();
                request
                    .set_project(self.project())
                    .set_zone(zone)
                    .set_machine_type(&kind.name)
                    .send()
            })
            .await;
        let found = match found {
            Ok(found) => found,
            // What is not there is named by the last part of an address.
            Err(fault) if fault.names_absent(&format!("projects/{}", self.project())) => {
                return Err(Fault::new(
                    DOING,
                    CloudErrorKind::NotFound,
                    format!("there is no project {}", self.project()),
                )
                .advise(
                    "correct `project` (or `GOOGLE_CLOUD_PROJECT`, which stands in for it): it is an id, as `gcloud projects list` \
                     shows them, and no name or number",
                ));
            }
            Err(fault) if fault.names_absent(&format!("projects/{}/zones/{zone}", self.project())) => {
                return Err(Fault::new(
                    DOING,
                    CloudErrorKind::NotFound,
                    format!("there is no zone {zone}"),
                )
                .advise("correct `zone`: `gcloud compute zones list` shows which there are"));
            }
            Err(fault) if fault.is_absent() => {
                return Err(Fault::new(
                    DOING,
                    CloudErrorKind::NotFound,
                    format!("there is no kind of machine {} in the zone {zone}", kind.name),
                )
                .advise(format!(
                    "see which there are with `gcloud compute machine-types list --zones {zone}`, or take another zone"
                )));
            }
            // The first thing that is asked in a project: of one that is another's, nothing is told.
            Err(fault) if fault.status == Some(403) => {
                return Err(fault.advise_also("see whether `project` is the right one"));
            }
            Err(fault) => return Err(fault),
        };
        let refuse = |why: String, advice: &str| {
            Err(Fault::new(DOING, CloudErrorKind::Unsupported, why).advise(advice))
        };
        if found.architecture == Some(machine_type::Architecture::Arm64) {
            return refuse(
                format!("machines of the kind {kind} have Arm's processors, and the image is for x86-64"),
                "take another kind of machine",
            );
        }
        let count = |count: Option<i32>| u32::try_from(count.unwrap_or_default()).unwrap_or_default();
        let accelerators: Vec<(u32, &str)> = found
            .accelerators
            .iter()
            .map(|gpu| {
                let name = gpu.guest_accelerator_type.as_deref().unwrap_or_default();
                (count(gpu.guest_accelerator_count), name)
            })
            .chain(kind.added.iter().map(|(count, name)| (*count, name.as_str())))
            .collect();
        let there: u32 = accelerators.iter().map(|(count, _)| count).sum();
        if there < gpus {
            return refuse(
                format!("the job needs {gpus} GPUs, and machines of the kind {kind} have {there}"),
                "take another kind of machine; to N1 machines, GPUs are added: `n1-standard-8+1xnvidia-tesla-t4`",
            );
        }
        Ok(KnownKind {
            gpus: there,
            price: price(count(found.guest_cpus), &accelerators),
            kind,
        })
    }
}

/// From list prices on demand in the cheapest regions: about five cents for a processor, and what each GPU adds.
fn price(cpus: u32, accelerators: &[(u32, &str)]) -> PriceClass {
    let mut dollars = f64::from(cpus) * 0.05;
    for (count, name) in accelerators {
        let each = match *name {
            "nvidia-tesla-t4" => 0.35,
            "nvidia-l4" | "nvidia-tesla-p4" => 0.6,
            "nvidia-tesla-p100" => 1.5,
            "nvidia-tesla-v100" => 2.5,
            "nvidia-tesla-a100" => 2.9,
            "nvidia-a100-80gb" => 4.0,
            "nvidia-h100-80gb" | "nvidia-h100-mega-80gb" | "nvidia-h200-141gb" => 10.0,
            _ => return PriceClass::Unknown,
        };
        dollars += f64::from(*count) * each;
    }
    match dollars {
        0.0 => PriceClass::Unknown,
        ..1.0 => PriceClass::Cents,
        ..10.0 => PriceClass::Dollars,
        ..100.0 => PriceClass::TensOfDollars,
        _ => PriceClass::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_spelled_one_way() {
        for text in ["n2d-standard-4", "n1-standard-8+1xnvidia-tesla-t4"] {
            assert_eq!(Kind::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "N2D",
            "a/b",
            "n1-standard-8+",
            "n1+0xnvidia-tesla-t4",
            "n1+xnvidia",
            "n1+1x../x",
        ] {
            assert!(Kind::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn confidential_machines_are_those_that_the_image_runs_in() {
        for name in ["n2d-standard-4", "c2d-highcpu-8", "c3d-standard-30"] {
            assert!(
                Kind::parse(name).unwrap().require_confidential().is_ok(),
                "{name}"
            );
        }
        for name in [
            "c3-standard-4",
            "a3-highgpu-1g",
            "e2-standard-4",
            "n1-standard-8+1xnvidia-tesla-t4",
        ] {
            assert!(
                Kind::parse(name).unwrap().require_confidential().is_err(),
                "{name}"
            );
        }
    }

    #[test]
    fn what_is_sold_as_spot_machine_alone_is_not_asked_for_otherwise() {
        let small = Kind::parse("a3-highgpu-4g").unwrap();
        assert!(small.require_sold(false).is_err() && small.require_sold(true).is_ok());
        assert!(Kind::parse("a3-highgpu-8g").unwrap().require_sold(false).is_ok());
    }

    #[test]
    fn jobs_get_as_many_gpus_as_they_need() {
        for (gpus, name) in [
            (0, "n2d-standard-4"),
            (1, "g2-standard-8"),
            (3, "g2-standard-48"),
            (16, "a2-megagpu-16g"),
        ] {
            assert_eq!(Kind::for_job(gpus).unwrap().name, name);
        }
        assert!(Kind::for_job(17).is_err());
    }

    #[test]
    fn prices_have_the_right_order_of_magnitude() {
        for (cpus, gpus, class) in [
            (4, &[][..], PriceClass::Cents),
            (8, &[(1, "nvidia-l4")], PriceClass::Dollars),
            (12, &[(1, "nvidia-tesla-a100")], PriceClass::Dollars),
            (208, &[(8, "nvidia-h100-80gb")], PriceClass::TensOfDollars),
            (4, &[(1, "nvidia-next")], PriceClass::Unknown),
            (0, &[], PriceClass::Unknown),
        ] {
            assert_eq!(price(cpus, gpus), class, "{cpus} {gpus:?}");
        }
    }
}
