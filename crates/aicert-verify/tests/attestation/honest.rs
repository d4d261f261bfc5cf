//! Machines that may be trusted.

use aicert_core::certificate::{Base64, PlatformKind};
use aicert_verify::TrustAnchors;
use aicert_verify::attestation::AttestedSigner;
use aicert_verify::boot::Firmware;
use aicert_verify::chain::Pool;
use aicert_verify::policy::Policy;
use aicert_verify::reference::ReferenceValues;

use crate::answer::*;
use crate::machine::{machine_options, released};
use crate::support::*;

#[test]
fn a_machine_that_booted_the_released_image_is_trusted() {
    let verified = attest(&answer(&unused())).unwrap();
    assert_eq!(verified.platform(), PlatformKind::LocalCa);
    assert!(verified.is_simulated());
    assert_eq!(verified.image(), Some(&released().images[0]));
    assert_eq!(verified.boot().image(), Some("aicert-base 1.0"));
    assert_eq!(
        verified.boot().firmware(),
        &Firmware::Known("firmware 1.0".into())
    );
    assert_eq!((verified.tls_key(), verified.nonce()), (&TLS_KEY, &NONCE));
    assert_eq!(verified.verified_at(), now());
    let clock = Recipe::default().clock;
    let signer = AttestedSigner::Key {
        attestation_key: Base64(ecc_public(&key("ak"), AK_ATTRIBUTES, 0x000b)),
        clock,
    };
    assert_eq!(verified.attested_boot().signer, signer);
}

#[test]
fn what_the_chain_lacks_may_be_at_hand() {
    let mut answer = answer(&unused());
    let chain = &mut answer.attestation_key.certificate_chain;
    let intermediate = chain.remove(1);
    assert!(attest(&answer).is_err());
    let mut pool = Pool::new();
    pool.add(&intermediate.0).unwrap();
    attest_with(&answer, &machine_options().with_intermediates(pool)).unwrap();
}

#[test]
fn firmware_that_nobody_knows_is_for_the_policy_to_accept() {
    let mut references = released();
    references.firmware.clear();
    let options = machine_options().with_reference_values(references);
    let any = Policy::for_own_root().accepting_any_firmware();
    let verified = attest_with(&answer(&unused()), &options.clone().with_policy(any)).unwrap();
    assert_eq!(verified.boot().firmware(), &Firmware::Unrecognised);
    refused!(
        attest_with(&answer(&unused()), &options),
        aicert_verify::Cause::Policy(_),
        "only firmware that the reference values recognise"
    );
}

/// A server that was started by hand, with a software TPM: for tests, when it is asked for by name.
#[test]
fn a_tpm_without_a_machine_is_trusted_only_dangerously() {
    let answer = answer(&about(Recipe::default()));
    let options = options();
    refused!(
        attest_with(&answer, &options),
        aicert_verify::Cause::Attestation(_),
        "nothing shows what this machine has booted"
    );
    refused!(
        attest_with(&answer, &machine_options()),
        aicert_verify::Cause::Attestation(_),
        "nothing shows what this machine has booted"
    );
    let dangerous = options.dangerous_accepting_unmeasured_machines();
    let verified = attest_with(&answer, &dangerous).unwrap();
    assert_eq!((verified.image(), verified.boot().image()), (None, None));

    // It accepts that alone: what was measured must still be known, and the rest hold.
    let booted = crate::answer::answer(&unused());
    refused!(
        attest_with(&booted, &dangerous),
        aicert_verify::Cause::Boot(aicert_verify::boot::BootFault::NoReferenceValues {}),
        "no reference values"
    );
    let mut silent = booted;
    silent.boot_event_log.0.clear();
    refused!(
        attest_with(&silent, &dangerous),
        aicert_verify::Cause::Boot(aicert_verify::boot::BootFault::Unexplained { .. }),
        "not zero"
    );
    let strict = dangerous.with_policy(Policy::default());
    refused!(
        attest_with(&answer, &strict),
        aicert_verify::Cause::Policy(_),
        "no simulated platform"
    );
}

#[test]
fn the_image_may_be_one_of_several() {
    let mut references = ReferenceValues::default();
    let mut other = released().images.remove(0);
    other.name = "aicert-base 0.9".into();
    other.events[0].digests = aicert_verify::reference::Digests::of(b"older");
    references.images = vec![other, released().images.remove(0)];
    references.firmware = released().firmware;
    let options = machine_options().with_reference_values(references);
    let verified = attest_with(&answer(&unused()), &options).unwrap();
    assert_eq!(verified.image().unwrap().name, "aicert-base 1.0");
    let anchors = TrustAnchors::pinned();
    assert!(attest_with(&answer(&unused()), &aicert_verify::Options::new(anchors, now())).is_err());
}
