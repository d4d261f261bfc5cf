//! What an end user demands of a proof, beyond that it is true.
//!
//! A [`Policy`] is evaluated over what was verified, and over nothing else. It is strict by default: what it does not
//! mention is not thereby allowed when it would weaken the proof. In YAML (`Policy::from_yaml`, with the feature
//! `policy`) it is described in `docs/policy.md`; in Rust it is a plain value:
//!
//! ```
//! use aicert_verify::policy::{InputRule, Policy};
//!
//! let policy = Policy::default()
//!     .demanding(InputRule::hash("sha1:0123456789abcdef0123456789abcdef01234567".parse()?).with_name("code"))
//!     .pinning("numpy".parse()?, "1.26.4".parse()?)
//!     .forbidding("some-package==1.0".parse()?);
//! assert!(!policy.simulated);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod fault;
mod inspect;
mod package;
#[cfg(test)]
mod tests;
mod version;
#[cfg(feature = "policy")]
mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use aicert_core::certificate::PlatformKind;

pub use fault::PolicyFault;
pub(crate) use inspect::{Facts, MachineFound};
pub use package::{ForbiddenPackage, PackageError, PackageName, PackageVersion};
#[cfg(feature = "policy")]
#[doc(hidden)]
pub use yaml::known_keys;
#[cfg(feature = "policy")]
pub use yaml::{PolicyError, PolicyProblem};

use crate::input::InputHash;

/// What an end user demands. The default is the strictest that asks for nothing in particular: a real machine with an
/// image and firmware that the reference values recognise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// The platforms that are allowed; every platform when absent, but simulated ones only with [`Policy::simulated`].
    pub platforms: Option<Vec<PlatformKind>>,
    /// Whether a platform is allowed for whose TPM nobody vouches but who chose its root.
    pub simulated: bool,
    /// The images that are allowed, by their names in the reference values; every image that these recognise when
    /// absent.
    pub images: Option<Vec<String>>,
    /// What firmware is allowed.
    pub firmware: FirmwareRule,
    /// Whether Secure Boot must have been on.
    pub secure_boot: SecureBootRule,
    /// The inputs that are demanded.
    pub inputs: Vec<InputRule>,
    /// Whether inputs are allowed that satisfy none of [`Policy::inputs`]; when absent, only if that is empty.
    pub other_inputs: Option<Others>,
    /// What is demanded of the packages.
    pub packages: PackageRules,
    /// How old a proof may be; any age when absent.
    pub max_age: Option<Duration>,
}

/// What firmware is allowed, as measured in PCRs 0 to 3 and 6.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FirmwareRule {
    /// Only firmware that the reference values recognise.
    #[default]
    Known,
    /// Any firmware.
    Any,
}

/// Whether Secure Boot must have been on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SecureBootRule {
    /// It may have been off: the image is identified by what was measured, not by who signed it.
    #[default]
    Any,
    /// It must have been on.
    Required,
}

/// What becomes of things that are not listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Others {
    /// They are allowed.
    #[default]
    Allowed,
    /// They are refused.
    Refused,
}

/// One input that is demanded: everything that is given must hold of one and the same input. Made with one demand, and
/// then narrowed, so that no rule is empty.
///
/// A name alone shows little: whoever runs the job names its inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputRule {
    name: Option<String>,
    url: Option<String>,
    hash: Option<InputHash>,
}

/// What is demanded of the packages that were installed.
///
/// What is inside a container image is not listed in a proof. That a package is absent can therefore only be shown of
/// jobs with aicert's own Python image, in which there is none; others do not meet such a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackageRules {
    /// Packages that must not be there.
    pub forbidden: Vec<ForbiddenPackage>,
    /// Packages that must be there, each in exactly this version.
    pub pinned: BTreeMap<PackageName, PackageVersion>,
    /// Whether packages are allowed that are not pinned.
    pub others: Others,
}

impl Policy {
    /// What applies when there is no policy, and a root was given by hand: as strict as the default, but what the root
    /// vouches for is accepted, although nobody else does.
    pub fn for_own_root() -> Self {
        Self::default().accepting_simulated()
    }

    /// Accepts platforms for whose TPM nobody vouches but who chose its root.
    #[must_use]
    pub fn accepting_simulated(mut self) -> Self {
        self.simulated = true;
        self
    }

    /// Accepts only these platforms.
    #[must_use]
    pub fn on(mut self, platforms: impl IntoIterator<Item = PlatformKind>) -> Self {
        self.platforms = Some(platforms.into_iter().collect());
        self
    }

    /// Accepts only these images.
    #[must_use]
    pub fn with_images<T: Into<String>>(mut self, images: impl IntoIterator<Item = T>) -> Self {
        self.images = Some(images.into_iter().map(Into::into).collect());
        self
    }

    /// Accepts firmware that no reference value recognises.
    #[must_use]
    pub fn accepting_any_firmware(mut self) -> Self {
        self.firmware = FirmwareRule::Any;
        self
    }

    /// Accepts only machines with Secure Boot on.
    #[must_use]
    pub fn requiring_secure_boot(mut self) -> Self {
        self.secure_boot = SecureBootRule::Required;
        self
    }

    /// Demands an input; inputs that are not demanded are refused from then on, unless
    /// [`Policy::accepting_other_inputs`].
    #[must_use]
    pub fn demanding(mut self, input: InputRule) -> Self {
        self.inputs.push(input);
        self
    }

    /// Accepts inputs that are not demanded.
    #[must_use]
    pub fn accepting_other_inputs(mut self) -> Self {
        self.other_inputs = Some(Others::Allowed);
        self
    }

    /// Refuses jobs with this package.
    #[must_use]
    pub fn forbidding(mut self, package: ForbiddenPackage) -> Self {
        self.packages.forbidden.push(package);
        self
    }

    /// Accepts only jobs with this package in exactly this version.
    #[must_use]
    pub fn pinning(mut self, name: PackageName, version: PackageVersion) -> Self {
        self.packages.pinned.insert(name, version);
        self
    }

    /// Refuses packages that are not pinned.
    #[must_use]
    pub fn refusing_other_packages(mut self) -> Self {
        self.packages.others = Others::Refused;
        self
    }

    /// Accepts only proofs that are shown to be at most this old.
    #[must_use]
    pub fn with_max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// Whether inputs are refused that are not demanded.
    pub fn refuses_other_inputs(&self) -> bool {
        match self.other_inputs {
            Some(others) => others == Others::Refused,
            None => !self.inputs.is_empty(),
        }
    }
}

impl InputRule {
    const EMPTY: Self = Self {
        name: None,
        url: None,
        hash: None,
    };

    /// Demands an input of this name.
    pub fn name(name: impl Into<String>) -> Self {
        Self::EMPTY.with_name(name)
    }

    /// Demands an input from this address, spelled exactly as in the proof.
    pub fn url(url: impl Into<String>) -> Self {
        Self::EMPTY.with_url(url)
    }

    /// Demands an input that is known by this hash.
    pub fn hash(hash: InputHash) -> Self {
        Self::EMPTY.with_hash(hash)
    }

    /// Demands that it has this name.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Demands that it is from this address, spelled exactly as in the proof.
    #[must_use]
    pub fn with_url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// Demands that it is known by this hash.
    #[must_use]
    pub fn with_hash(mut self, hash: InputHash) -> Self {
        self.hash = Some(hash);
        self
    }
}

impl fmt::Display for InputRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_ref().map(|name| format!("the name {name:?}"));
        let url = self.url.as_ref().map(|url| format!("the address {url:?}"));
        let hash = self.hash.as_ref().map(|hash| format!("the hash {hash}"));
        let parts: Vec<_> = [name, url, hash].into_iter().flatten().collect();
        f.write_str(&parts.join(" and "))
    }
}

/// The platforms that policies can name.
#[cfg(feature = "policy")]
const PLATFORMS: [PlatformKind; 4] = [
    PlatformKind::AzureTrustedLaunch,
    PlatformKind::GceShieldedVm,
    PlatformKind::AwsNitroTpm,
    PlatformKind::LocalCa,
];
