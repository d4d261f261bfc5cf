//! What is read.

use std::time::Duration;

use aicert_core::certificate::PlatformKind;
use aicert_verify::policy::{FirmwareRule, InputRule, Others, Policy, SecureBootRule};

fn read(text: &str) -> Policy {
    Policy::from_yaml(text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

#[test]
fn saying_nothing_is_the_strict_default() {
    for text in [
        "{}",
        "{}\n# nothing demanded\n",
        "---\n{}\n",
        "simulated: false",
        "firmware: known",
        "secure_boot: any",
    ] {
        assert_eq!(read(text), Policy::default(), "{text}");
    }
    let policy = Policy::default();
    assert!(!policy.simulated);
    assert_eq!(policy.firmware, FirmwareRule::Known);
    assert!(!policy.refuses_other_inputs());
    assert_eq!(read("simulated: true"), Policy::for_own_root());
}

#[test]
fn every_key_is_read() {
    let policy = read(
        "
platforms: [azure-trusted-launch, local-ca]
simulated: true
images: [aicert-base 0.2.0, 'aicert-base 0.3.0']
firmware: any
secure_boot: required
inputs:
  - {name: code, url: 'https://example.org/code.git', hash: 'SHA1:0123456789ABCDEF0123456789abcdef01234567'}
  - hash: 0123456789012345678901234567890123456789012345678901234567890123
other_inputs: allowed
packages:
  forbidden: [Evil_Package, 'other==1.0']
  pinned: {NumPy: '1.26.4', torch: 2.10, scikit.learn: 1}
  others: refused
max_age: 1d12h
",
    );
    let hash = "sha1:0123456789abcdef0123456789abcdef01234567".parse().unwrap();
    let digits = "sha256:0123456789012345678901234567890123456789012345678901234567890123";
    let code = InputRule::hash(hash)
        .with_name("code")
        .with_url("https://example.org/code.git");
    let expected = Policy::default()
        .on([PlatformKind::AzureTrustedLaunch, PlatformKind::LocalCa])
        .accepting_simulated()
        .with_images(["aicert-base 0.2.0", "aicert-base 0.3.0"])
        .accepting_any_firmware()
        .requiring_secure_boot()
        .demanding(code)
        .demanding(InputRule::hash(digits.parse().unwrap()))
        .accepting_other_inputs()
        .forbidding("evil-package".parse().unwrap())
        .forbidding("other==1.0.0".parse().unwrap())
        .pinning("numpy".parse().unwrap(), "1.26.4".parse().unwrap())
        // As it stands in the file: as a number, it would be 2.1.
        .pinning("torch".parse().unwrap(), "2.10".parse().unwrap())
        .pinning("scikit-learn".parse().unwrap(), "1".parse().unwrap())
        .refusing_other_packages()
        .with_max_age(Duration::from_secs(129_600));
    assert_eq!(policy, expected);
    assert_eq!(policy.secure_boot, SecureBootRule::Required);
    assert_eq!(policy.packages.others, Others::Refused);
}

#[test]
fn inputs_that_are_not_listed_are_refused_once_some_are() {
    assert!(read("inputs: [{name: a}]").refuses_other_inputs());
    assert!(read("inputs: [{name: a}]\nother_inputs: refused").refuses_other_inputs());
    assert!(!read("inputs: [{name: a}]\nother_inputs: allowed").refuses_other_inputs());
    assert!(!read("other_inputs: allowed").refuses_other_inputs());
}

/// The texts that YAML would take for something else keep their letters.
#[test]
fn yaml_changes_no_text() {
    let text = "images: ['0.10', 'yes', '~', 'x: y', \"a\\u00e9\"]";
    let images = read(text).images.unwrap();
    assert_eq!(images, ["0.10", "yes", "~", "x: y", "a\u{e9}"]);
    let version = |text: &str| {
        let policy = read(&format!("packages: {{pinned: {{a: {text}}}}}"));
        policy.packages.pinned.into_values().next().unwrap().to_string()
    };
    assert_eq!(version("1.10"), "1.10");
    assert!(
        Policy::from_yaml("packages: {pinned: {a: 1e3}}").is_err(),
        "1e3 is no version, and not 1000"
    );
}
