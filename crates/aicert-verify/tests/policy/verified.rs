//! Policies in a whole verification: what is asked is what was verified.

use std::time::Duration;

use aicert_core::digest::Nonce;
use aicert_verify::policy::{Policy, PolicyFault};
use aicert_verify::{Cause, Options, Party, Rejection, Step};

use crate::machine::{honest_boot, machine_options, recipe};
use crate::support::{COMMIT, DAY, NOW, Recipe, check_with, options};

fn policy(text: &str) -> Policy {
    Policy::from_yaml(text).unwrap_or_else(|error| panic!("{error}"))
}

/// The rules that fail, by name; nothing but rules may.
fn rules(rejection: &Rejection) -> Vec<&'static str> {
    let rule = |failure: &aicert_verify::Failure| {
        assert_eq!(
            (failure.step(), failure.party()),
            (Step::Policy, Party::Builder),
            "{rejection}"
        );
        failure.cause().name()
    };
    rejection.failures().iter().map(rule).collect()
}

#[test]
fn a_proof_that_meets_its_policy_is_verified() {
    let text = format!(
        "simulated: true
platforms: [local-ca]
inputs:
  - {{name: code, url: 'https://example.org/code.git', hash: '{COMMIT}'}}
  - {{url: 'https://example.org/data.bin'}}
packages: {{forbidden: [numpy], others: refused}}
max_age: 1d"
    );
    check_with(&Recipe::default().build(), &options().with_policy(policy(&text))).unwrap();
}

/// A root that is given by hand is accepted when there is no policy, and not by one that does not say so.
#[test]
fn a_simulated_platform_needs_a_word() {
    let proof = Recipe::default().build();
    check_with(&proof, &options()).unwrap();
    let rejection = check_with(&proof, &options().with_policy(policy("{}"))).unwrap_err();
    assert_eq!(rules(&rejection), ["Simulated"]);
    assert!(
        rejection
            .to_string()
            .starts_with("it does not hold:\npolicy (builder): the policy allows no simulated platform"),
        "{rejection}"
    );
}

#[test]
fn every_rule_is_reported_with_what_was_found() {
    let text = "simulated: true
secure_boot: required
inputs: [{name: code}]
packages: {pinned: {numpy: '1.26.4'}}";
    let rejection = check_with(&Recipe::default().build(), &options().with_policy(policy(text))).unwrap_err();
    assert_eq!(
        rules(&rejection),
        ["SecureBoot", "InputsNotListed", "PackageMissing"]
    );
    let said = rejection.to_string();
    for words in [
        "nothing shows that it was on",
        "\"data\" from \"https://example.org/data.bin\"",
        "numpy==1.26.4",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

/// A rule never says anything about a proof that does not hold: that would be about what the file merely claims.
#[test]
fn rules_ask_only_what_was_verified() {
    let mut forged = Recipe::default().build();
    forged.inputs[0].name = "other".into();
    let rejection =
        check_with(&forged, &options().with_policy(policy("inputs: [{name: other}]"))).unwrap_err();
    assert!(
        rejection
            .failures()
            .iter()
            .all(|failure| failure.step() != Step::Policy),
        "{rejection}"
    );
}

#[test]
fn a_nonce_of_ones_own_shows_that_a_proof_is_new() {
    let later = |options: Options| {
        let mut options =
            options.with_policy(Policy::for_own_root().with_max_age(Duration::from_secs(3_600)));
        options.time = aicert_core::time::Timestamp::from_unix(NOW + DAY / 2);
        options
    };
    let proof = Recipe::default().build();
    let rejection = check_with(&proof, &later(options())).unwrap_err();
    assert_eq!(rules(&rejection), ["Age"]);
    let answered = later(options()).with_expected_nonce(Nonce::from_bytes([0x5a; 32]));
    check_with(&proof, &answered).unwrap();
}

#[test]
fn image_and_firmware_are_those_that_were_recognised() {
    let boot = honest_boot();
    let proof = recipe(&boot).build();
    let references = machine_options().reference_values;
    let with = |policy: Policy| check_with(&proof, &machine_options().with_policy(policy));
    let image = references.images[0].name.clone();
    with(Policy::for_own_root().with_images([image.clone()])).unwrap();
    let rejection = with(Policy::for_own_root().with_images(["another"])).unwrap_err();
    let [failure] = rejection.failures() else {
        panic!("{rejection}");
    };
    let found = format!("{image:?}");
    assert!(
        matches!(failure.cause(), Cause::Policy(PolicyFault::Image { found: f, .. }) if *f == found),
        "{rejection}"
    );
    // The same machine, when its firmware is known to nobody.
    let mut unknown = machine_options();
    unknown.reference_values.firmware.clear();
    let strict = unknown.clone().with_policy(Policy::for_own_root());
    assert_eq!(rules(&check_with(&proof, &strict).unwrap_err()), ["Firmware"]);
    let any = unknown.with_policy(Policy::for_own_root().accepting_any_firmware());
    check_with(&proof, &any).unwrap();
}
