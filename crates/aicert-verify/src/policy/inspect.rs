//! Evaluates a policy over what was verified.

use std::collections::BTreeMap;
use std::time::Duration;

use aicert_core::certificate::PlatformKind;
use aicert_core::event::{InputMeasured, Package};
use aicert_core::log::CompleteLog;
use aicert_core::time::Timestamp;

use super::package::{PackageName, PackageVersion};
use super::{FirmwareRule, InputRule, Others, Policy, PolicyFault, SecureBootRule};
use crate::anchors::platform_name;
use crate::boot::{BootFacts, Firmware, SecureBoot};
use crate::input::known_as;

/// How far the clock of the machine that did the work may be ahead of the verifier's, in seconds.
const CLOCK_SKEW: i64 = 300;

/// At most so many things are named in one fault.
const SHOWN: usize = 10;

/// What is known about a proof once it is verified. Nothing here may come from what the file merely claims.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    /// What the TPM recorded.
    pub(crate) log: &'a CompleteLog<'a>,
    /// What is known about the machine.
    pub(crate) machine: MachineFound<'a>,
    /// From when on the certificate of the attestation key is valid.
    pub(crate) key_valid_from: Timestamp,
    /// The time that the proof is verified for.
    pub(crate) at: Timestamp,
    /// Whether the proof answers a nonce that the verifier expects.
    pub(crate) answers_nonce: bool,
}

/// What is known about a machine once its quote and its boot log are verified.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MachineFound<'a> {
    /// What vouches for the TPM.
    pub(crate) platform: PlatformKind,
    /// What the machine booted; nothing when nothing was measured at boot.
    pub(crate) boot: Option<BootFound<'a>>,
}

/// What a machine booted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BootFound<'a> {
    /// The name of the image in the reference values; nothing when they do not recognise it.
    pub(crate) image: Option<&'a str>,
    /// The name of the firmware in the reference values; nothing when they do not recognise it.
    pub(crate) firmware: Option<&'a str>,
    /// Whether Secure Boot was on; nothing when nothing authentic says so.
    pub(crate) secure_boot: Option<bool>,
}

impl<'a> MachineFound<'a> {
    /// What was verified about the machine.
    pub(crate) fn of(platform: PlatformKind, facts: &'a BootFacts) -> Self {
        Self {
            platform,
            boot: BootFound::of(facts),
        }
    }
}

impl<'a> BootFound<'a> {
    /// What was verified about the boot; nothing where nothing was measured.
    pub(crate) fn of(facts: &'a BootFacts) -> Option<Self> {
        let firmware = match facts.firmware() {
            Firmware::Known(name) => Some(name.as_str()),
            Firmware::NotMeasured if facts.image().is_none() => return None,
            Firmware::NotMeasured | Firmware::Unrecognised => None,
        };
        Some(Self {
            image: facts.image(),
            firmware,
            secure_boot: match facts.secure_boot() {
                SecureBoot::On => Some(true),
                SecureBoot::Off => Some(false),
                SecureBoot::Unknown => None,
            },
        })
    }
}

impl Policy {
    /// Everything that does not meet the policy, in the order of its rules.
    pub(crate) fn inspect(&self, facts: &Facts<'_>) -> Vec<PolicyFault> {
        let mut faults = self.inspect_machine(&facts.machine);
        self.inspect_inputs(&facts.log.inputs, &mut faults);
        self.inspect_packages(facts.log, &mut faults);
        faults.extend(self.inspect_age(facts));
        faults
    }

    /// Everything about a machine that does not meet the policy, in the order of its rules.
    pub(crate) fn inspect_machine(&self, machine: &MachineFound<'_>) -> Vec<PolicyFault> {
        let mut faults = Vec::new();
        faults.extend(self.inspect_platform(machine.platform));
        faults.extend(self.inspect_image(machine));
        faults.extend(self.inspect_firmware(machine));
        faults.extend(self.inspect_secure_boot(machine));
        faults
    }

    fn inspect_platform(&self, found: PlatformKind) -> Vec<PolicyFault> {
        let mut faults = Vec::new();
        let name = platform_name(found).to_owned();
        if let Some(allowed) = &self.platforms
            && !allowed.contains(&found)
        {
            faults.push(PolicyFault::Platform {
                expected: list(allowed.iter().copied().map(|kind| platform_name(kind).to_owned())),
                found: name.clone(),
            });
        }
        if found.is_simulated() && !self.simulated {
            faults.push(PolicyFault::Simulated { found: name });
        }
        faults
    }

    fn inspect_image(&self, facts: &MachineFound<'_>) -> Option<PolicyFault> {
        let image = facts.boot.and_then(|boot| boot.image);
        match (&self.images, image) {
            (Some(allowed), Some(found)) if allowed.iter().any(|name| name == found) => None,
            (None, Some(_)) => None,
            (Some(allowed), found) => Some(PolicyFault::Image {
                expected: list(allowed.iter().map(|name| format!("{name:?}"))),
                found: found.map_or_else(
                    || unknown_image(facts.boot).to_owned(),
                    |name| format!("{name:?}"),
                ),
            }),
            (None, None) if booted_nothing(facts) => None,
            (None, None) => Some(PolicyFault::ImageUnknown {
                found: match facts.boot {
                    Some(_) => "the machine ran another",
                    None => "nothing shows what the machine ran",
                },
            }),
        }
    }

    fn inspect_firmware(&self, facts: &MachineFound<'_>) -> Option<PolicyFault> {
        let found = match facts.boot {
            _ if self.firmware == FirmwareRule::Any => return None,
            Some(BootFound {
                firmware: Some(_), ..
            }) => return None,
            Some(_) => "the machine's is none of them",
            None if booted_nothing(facts) => return None,
            None => "nothing shows which the machine has",
        };
        Some(PolicyFault::Firmware { found })
    }

    fn inspect_secure_boot(&self, facts: &MachineFound<'_>) -> Option<PolicyFault> {
        let found = match facts.boot.and_then(|boot| boot.secure_boot) {
            _ if self.secure_boot == SecureBootRule::Any => return None,
            Some(true) => return None,
            Some(false) => "it was off",
            None => "nothing shows that it was on",
        };
        Some(PolicyFault::SecureBoot { found })
    }

    fn inspect_inputs(&self, inputs: &[&InputMeasured], faults: &mut Vec<PolicyFault>) {
        for rule in &self.inputs {
            if !inputs.iter().any(|input| rule.holds_of(input)) {
                faults.push(PolicyFault::InputMissing {
                    expected: rule.to_string(),
                    found: nearest(rule, inputs),
                });
            }
        }
        if self.refuses_other_inputs() {
            let others: Vec<_> = inputs
                .iter()
                .filter(|input| !self.inputs.iter().any(|rule| rule.holds_of(input)))
                .map(|input| format!("{:?} from {:?} ({})", input.name, input.origin, known_as(input)))
                .collect();
            if !others.is_empty() {
                faults.push(PolicyFault::InputsNotListed {
                    found: list(others.into_iter()),
                });
            }
        }
    }

    fn inspect_packages(&self, log: &CompleteLog<'_>, faults: &mut Vec<PolicyFault>) {
        let rules = &self.packages;
        let packages = &log.dependencies.packages;
        let mut by_name = BTreeMap::<PackageName, Vec<&Package>>::new();
        for package in packages {
            by_name
                .entry(PackageName::of_log(&package.name))
                .or_default()
                .push(package);
        }
        for rule in &rules.forbidden {
            for package in by_name.get(&rule.name).into_iter().flatten() {
                let (expected, found) = (rule.to_string(), shown(package));
                let Some(version) = &rule.version else {
                    faults.push(PolicyFault::PackageForbidden { expected, found });
                    continue;
                };
                match package.version.parse::<PackageVersion>() {
                    Ok(other) if version.covers(&other) => {
                        faults.push(PolicyFault::PackageForbidden { expected, found });
                    }
                    Ok(_) => {}
                    Err(_) => faults.push(PolicyFault::PackageVersionUnreadable { expected, found }),
                }
            }
        }
        for (name, version) in &rules.pinned {
            let expected = format!("{name}=={version}");
            let installed = by_name.get(name).map_or(&[][..], Vec::as_slice);
            if installed.is_empty() {
                faults.push(PolicyFault::PackageMissing {
                    expected,
                    found: match packages.len() {
                        0 => "no packages that are listed".to_owned(),
                        count => format!("{count} others"),
                    },
                });
                continue;
            }
            for package in installed {
                let is_it = package.version.parse().is_ok_and(|found| version.is(&found));
                if !is_it {
                    faults.push(PolicyFault::PackageVersion {
                        expected: expected.clone(),
                        found: shown(package),
                    });
                }
            }
        }
        if rules.others == Others::Refused {
            let others: Vec<_> = by_name
                .iter()
                .filter(|(name, _)| !rules.pinned.contains_key(name))
                .flat_map(|(_, packages)| packages.iter().copied().map(shown))
                .collect();
            if !others.is_empty() {
                faults.push(PolicyFault::PackagesNotListed {
                    found: list(others.into_iter()),
                });
            }
        }
        if !lists_all_packages(&log.image.requested) {
            faults.extend(
                rules
                    .about_absence()
                    .map(|expected| PolicyFault::PackagesUnknown {
                        expected,
                        found: format!("{:?}", log.image.requested),
                    }),
            );
        }
    }

    /// Two things that are signed tell the age. The key's certificate was not there before it was valid; but platforms
    /// certify one key again and again (Azure's renew daily), so an old quote can be shown with a new certificate. The log
    /// says when it was closed, by a clock that whoever runs the job may have set ahead. Both must be young enough.
    fn inspect_age(&self, facts: &Facts<'_>) -> Option<PolicyFault> {
        let limit = self.max_age?;
        let seconds = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
        let (at, closed) = (facts.at.as_unix(), facts.log.closed.time.as_unix());
        let key_age = at.saturating_sub(facts.key_valid_from.as_unix());
        let log_age = at.saturating_sub(closed);
        if facts.answers_nonce || (key_age <= seconds && log_age <= seconds && log_age >= -CLOCK_SKEW) {
            return None;
        }
        Some(PolicyFault::Age {
            expected: span(limit),
            found: format!(
                "its key was certified as from {}, its log says that it was closed at {}, and nothing signed shows it to be younger",
                facts.key_valid_from, facts.log.closed.time
            ),
            at: facts.at,
        })
    }
}

impl InputRule {
    fn holds_of(&self, input: &InputMeasured) -> bool {
        self.agreements(input).all(|agrees| agrees)
    }

    /// For each thing that is demanded, whether the input has it.
    fn agreements(&self, input: &InputMeasured) -> impl Iterator<Item = bool> {
        let name = self.name.as_ref().map(|name| *name == input.name);
        let url = self.url.as_ref().map(|url| *url == input.origin);
        let hash = self.hash.as_ref().map(|hash| hash.is_of(input));
        [name, url, hash].into_iter().flatten()
    }
}

impl super::PackageRules {
    /// What the rules say about packages that must be absent, in words.
    fn about_absence(&self) -> Option<String> {
        let mut parts = Vec::new();
        if !self.forbidden.is_empty() {
            parts.push(format!(
                "forbids packages ({})",
                list(self.forbidden.iter().map(ToString::to_string))
            ));
        }
        if self.others == Others::Refused {
            parts.push("refuses packages that it does not pin".to_owned());
        }
        (!parts.is_empty()).then(|| parts.join(" and "))
    }
}

/// Whether the job ran in aicert's own Python image, so that every package in the room is in the log.
fn lists_all_packages(requested: &str) -> bool {
    requested
        .strip_prefix("aicert/python:3.")
        .is_some_and(|minor| (1..=2).contains(&minor.len()) && minor.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether there is no machine that could have booted something: only a TPM by itself, which can only be a simulation.
/// Who accepts that accepts that it has neither image nor firmware.
fn booted_nothing(facts: &MachineFound<'_>) -> bool {
    facts.boot.is_none() && facts.platform.is_simulated()
}

fn unknown_image(boot: Option<BootFound<'_>>) -> &'static str {
    match boot {
        Some(_) => "one that the reference values do not recognise",
        None => "none that was measured",
    }
}

/// The input that agrees with a rule in something, or the names of all.
fn nearest(rule: &InputRule, inputs: &[&InputMeasured]) -> String {
    let agreements = |input: &InputMeasured| rule.agreements(input).filter(|agrees| *agrees).count();
    let best = inputs.iter().max_by_key(|input| agreements(input));
    match best.filter(|input| agreements(input) > 0) {
        Some(input) => format!(
            "{:?} is from {:?} and known as {}",
            input.name,
            input.origin,
            known_as(input)
        ),
        None => format!(
            "its inputs are {}",
            list(inputs.iter().map(|input| format!("{:?}", input.name)))
        ),
    }
}

fn shown(package: &Package) -> String {
    format!("{} {:?}", package.name.escape_debug(), package.version)
}

/// The first of them, and how many more there are.
fn list(items: impl ExactSizeIterator<Item = String>) -> String {
    let more = items.len().saturating_sub(SHOWN);
    let text = items.take(SHOWN).collect::<Vec<_>>().join(", ");
    match (text.as_str(), more) {
        ("", _) => "none".to_owned(),
        (_, 0) => text,
        _ => format!("{text} and {more} more"),
    }
}

/// A span as policies write it.
pub(super) fn span(span: Duration) -> String {
    let mut rest = span.as_secs();
    let mut text = String::new();
    for (unit, seconds) in [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)] {
        if rest >= seconds {
            text.push_str(&format!("{}{unit}", rest / seconds));
            rest %= seconds;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}
