//! Whose machine the log names, against who vouches for its TPM.
//!
//! No measurement covers what a machine is told about itself before it boots: who provides it, of which kind it is, and
//! where. The certificates know better who provides it, and Google's and AWS's where it is; the rest remains a claim of whoever had
//! the machine made.

use aicert_core::certificate::PlatformKind;
use aicert_core::event::Machine;

use super::LogFault;
use crate::anchors::platform_name;
use crate::quote::{AuthenticQuote, Signer};

/// Providers by name, and the only platform that each can have. Other names say nothing that could be checked.
const PROVIDERS: [(&str, PlatformKind); 4] = [
    ("aws", PlatformKind::AwsNitroTpm),
    ("azure", PlatformKind::AzureTrustedLaunch),
    ("gcp", PlatformKind::GceShieldedVm),
    ("qemu", PlatformKind::LocalCa),
];

/// What the certificates contradict.
pub(super) fn contradictions(machine: &Machine, quote: &AuthenticQuote) -> Vec<LogFault> {
    let place = match quote.signer() {
        Signer::Key(_) => quote.chain().instance().map(|instance| instance.zone.as_str()),
        Signer::Document(document) => document.region(),
    };
    compare(machine, quote.platform(), place)
}

/// `place` is Google's zone, or AWS's region.
fn compare(machine: &Machine, platform: PlatformKind, place: Option<&str>) -> Vec<LogFault> {
    let mut faults = Vec::new();
    let known = PROVIDERS.iter().find(|(name, _)| *name == machine.provider);
    if let Some((_, expected)) = known
        && *expected != platform
    {
        faults.push(LogFault::AnotherProvider {
            said: machine.provider.clone(),
            found: platform_name(platform),
        });
    }
    let contradicts = |place: &&str| match (platform, machine.provider.as_str()) {
        (PlatformKind::GceShieldedVm, "gcp") => !is_in(place, &machine.region),
        (PlatformKind::AwsNitroTpm, "aws") => !has_zone(place, &machine.region),
        _ => false,
    };
    if let Some(place) = place.filter(contradicts) {
        faults.push(LogFault::AnotherRegion {
            said: machine.region.clone(),
            found: place.to_owned(),
        });
    }
    faults
}

/// Whether a region such as `us-east-1` is the one that is named, or has the zone that is (`us-east-1a`).
fn has_zone(region: &str, named: &str) -> bool {
    named.strip_prefix(region).is_some_and(|rest| {
        rest.is_empty() || (rest.len() == 1 && rest.bytes().all(|letter| letter.is_ascii_lowercase()))
    })
}

/// Whether a zone such as `europe-west4-a` is the one that is named, or in the region that is.
fn is_in(zone: &str, named: &str) -> bool {
    zone == named || zone.rsplit_once('-').is_some_and(|(region, _)| region == named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(provider: &str, region: &str, platform: PlatformKind, zone: Option<&str>) -> usize {
        let machine = Machine {
            provider: provider.into(),
            instance_type: "whatever".into(),
            region: region.into(),
            gpus: Vec::new(),
        };
        compare(&machine, platform, zone).len()
    }

    #[test]
    fn a_provider_has_its_own_platform() {
        use PlatformKind::{AwsNitroTpm, AzureTrustedLaunch, GceShieldedVm, LocalCa};
        for (provider, own) in PROVIDERS {
            for platform in [AwsNitroTpm, AzureTrustedLaunch, GceShieldedVm, LocalCa] {
                let expected = usize::from(platform != own);
                assert_eq!(faults(provider, "", platform, None), expected, "{provider}");
            }
        }
        // A job that runs where aicert runs, and providers of others.
        for provider in ["local", "example"] {
            for platform in [AwsNitroTpm, AzureTrustedLaunch, GceShieldedVm, LocalCa] {
                assert_eq!(faults(provider, "", platform, Some("europe-west4-a")), 0);
            }
        }
    }

    #[test]
    fn googles_certificates_know_the_zone() {
        let of = |region| faults("gcp", region, PlatformKind::GceShieldedVm, Some("europe-west4-a"));
        assert_eq!((of("europe-west4"), of("europe-west4-a")), (0, 0));
        for region in ["europe-west", "europe-west4-b", "europe-west4-", "us-east1", ""] {
            assert_eq!(of(region), 1, "{region}");
        }
        // Whoever signs under another root says what he likes.
        assert_eq!(
            faults(
                "example",
                "us-east1",
                PlatformKind::LocalCa,
                Some("europe-west4-a")
            ),
            0
        );
    }

    #[test]
    fn awss_certificates_know_the_region() {
        let of = |region| faults("aws", region, PlatformKind::AwsNitroTpm, Some("us-east-1"));
        assert_eq!((of("us-east-1"), of("us-east-1a")), (0, 0));
        for region in [
            "us-east-2",
            "us-east-10",
            "us-east-1aa",
            "us-east-1-bos-1a",
            "us-east",
            "",
        ] {
            assert_eq!(of(region), 1, "{region}");
        }
    }
}
