//! Machines whose evidence is an attestation document of a NitroTPM.

use aicert_core::attestation::{Attestation, MachineIdentity, attestation_qualifying_data};
use aicert_core::certificate::{Base64, Certificate, KeyEvidence, qualifying_data};
use aicert_core::time::Timestamp;
use aicert_core::tpm::PcrBank;
use aicert_verify::attestation::{
    AttestationFault as Fault, AttestedBoot, AttestedSigner, VerifiedAttestation,
};
use aicert_verify::chain::ChainFault;
use aicert_verify::nitro::NitroFault;
use aicert_verify::policy::Policy;
use aicert_verify::quote::QuoteFault;
use aicert_verify::{Cause, Options, Rejection, TrustAnchors, Unverified, Verified};

use crate::answer::*;
use crate::machine::*;
use crate::papers::document::{Item, Recipe as Paper, bundle, pcrs_of, text};
use crate::support::*;

const HOUR: i64 = 3_600;

/// A machine that booted the released image, with the SHA-384 PCRs that documents cover.
fn machine() -> Recipe {
    let boot = honest_boot();
    Recipe {
        bank: PcrBank::Sha384,
        boot_event_log: boot.log_of(&[PcrBank::Sha1, PcrBank::Sha256, PcrBank::Sha384]),
        boot_pcrs: boot.pcrs(PcrBank::Sha384),
        ..Recipe::default()
    }
}

fn trusting() -> Options {
    let anchors = TrustAnchors::pinned()
        .with_root(&bundle()[0].der())
        .and_then(|anchors| anchors.with_root(&root().der()))
        .unwrap();
    Options::new(anchors, now())
        .with_reference_values(released())
        .with_policy(Policy::for_own_root().accepting_any_firmware())
}

/// The answer with a document in the place of the quote.
fn answer_with(data: &[u8], change: impl FnOnce(Paper) -> Paper) -> Attestation {
    let mut answer = answer(&about(machine()));
    let paper = Paper::default()
        .setting("nonce", Item::Bytes(data.to_vec()))
        .setting("user_data", Item::Null)
        .setting("nitrotpm_pcrs", pcrs_of(&answer.quote.pcrs));
    answer.quote.attest = Base64(change(paper).document());
    answer.signature = Base64::default();
    answer.attestation_key = KeyEvidence::default();
    answer
}

fn honest() -> Attestation {
    answer_with(&attestation_qualifying_data(&TLS_KEY, &NONCE), |paper| paper)
}

fn attested() -> VerifiedAttestation {
    attest_with(&honest(), &trusting()).unwrap()
}

/// The proof of a job on a machine with this name, with a document made so many seconds after the attestation.
fn proof(module_id: &str, later: i64) -> Certificate {
    let mut certificate = machine().build();
    let head = head_of(&certificate.measurement_log);
    let nonce = qualifying_data(&head, &certificate.low_level_quote.nonce);
    let made = u64::try_from(NOW + later).unwrap() * 1_000;
    let leaf = leaf_of(later);
    let paper = Paper::default()
        .setting("module_id", text(module_id))
        .setting("timestamp", Item::Number(made))
        .setting("certificate", Item::Bytes(leaf))
        .setting("nonce", Item::Bytes(nonce.to_vec()))
        .setting("user_data", Item::Null)
        .setting("nitrotpm_pcrs", pcrs_of(&certificate.low_level_quote.pcrs));
    certificate.low_level_quote.attest = Base64(paper.document());
    certificate.signature = Base64::default();
    certificate.attestation_key = KeyEvidence::default();
    certificate
}

/// The certificate of a document that was made so many seconds after the attestation.
fn leaf_of(later: i64) -> Vec<u8> {
    let leaf = crate::papers::document::nitro_leaf();
    crate::papers::support::Cert {
        from: NOW + later - 3,
        until: NOW + later + 3 * HOUR,
        ..leaf
    }
    .der()
}

fn verified_at(certificate: &Certificate, later: i64) -> Result<Verified<Certificate>, Rejection> {
    let mut options = trusting();
    options.time = Timestamp::from_unix(NOW + later);
    check_with(certificate, &options)
}

#[test]
fn a_machine_that_shows_a_document_is_trusted() {
    let verified = attested();
    assert!(verified.is_simulated());
    assert_eq!(verified.boot().image(), Some("aicert-base 1.0"));
    let AttestedSigner::Document { module_id, made, .. } = &verified.attested_boot().signer else {
        panic!("it was signed in a document");
    };
    assert_eq!((module_id.as_str(), *made), ("i-0123-tpm0000", now()));
    // Without its root, nobody vouches for it.
    let mut strict = trusting();
    strict.trust_anchors = TrustAnchors::pinned();
    refused!(
        attest_with(&honest(), &strict),
        Cause::Chain(ChainFault::UnknownRoot { .. }),
        "CN=test.nitro"
    );
}

#[test]
fn clocks_need_not_agree_to_the_second() {
    let at = |later: i64| {
        let mut options = trusting();
        options.time = Timestamp::from_unix(NOW + later);
        attest_with(&honest(), &options)
    };
    // Certificates of documents begin three seconds before them, and are asked for after a look at the clock.
    for later in [-300, -290, -4, 0, 300] {
        let boot = at(later).unwrap();
        assert_eq!(boot.verified_at().as_unix(), NOW + later, "{later}");
    }
    refused!(
        at(-301),
        Cause::Chain(ChainFault::NotYetValid { .. }),
        "check the clock of this computer"
    );
}

#[test]
fn a_document_about_something_else_is_refused() {
    for data in [
        attestation_qualifying_data(&OTHER_KEY, &NONCE),
        attestation_qualifying_data(&TLS_KEY, &OTHER_NONCE),
        *NONCE.as_bytes(),
    ] {
        refused!(
            attest_with(&answer_with(&data, |paper| paper), &trusting()),
            Cause::Attestation(Fault::QualifyingData { .. }),
            "send nothing over this connection"
        );
    }
    let data = attestation_qualifying_data(&TLS_KEY, &NONCE);
    refused!(
        attest_with(
            &answer_with(&data, |paper| paper.setting("nonce", Item::Null)),
            &trusting()
        ),
        Cause::Attestation(Fault::NothingBound { .. }),
        "nothing binds the quote to this connection"
    );
    refused!(
        attest_with(
            &answer_with(&data, |paper| paper.setting("user_data", Item::Bytes(vec![1]))),
            &trusting()
        ),
        Cause::Quote(QuoteFault::GuestData { field: "user_data" }),
        "send nothing"
    );
    refused!(
        attest_with(
            &answer_with(&data, |paper| Paper {
                signer: "somebody",
                ..paper
            }),
            &trusting()
        ),
        Cause::Nitro(NitroFault::Signature {}),
        "send nothing: AWS made no such document of this machine"
    );
    let mut late = trusting();
    late.time = Timestamp::from_unix(NOW + 4 * HOUR);
    refused!(
        attest_with(&honest(), &late),
        Cause::Chain(ChainFault::DocumentExpired { .. }),
        "check the clock of this computer"
    );
}

#[test]
fn it_is_the_machine_that_its_provider_speaks_of() {
    let ec2 = |instance: &str| MachineIdentity::Ec2 {
        instance: instance.into(),
    };
    let gce = MachineIdentity::Gce {
        project: "project".into(),
        zone: "europe-west4-a".into(),
        instance: 7,
    };
    let by_document = attested();
    by_document
        .dangerous_check_simulated_machine(&ec2("i-0123"))
        .unwrap();
    // Whoever chose the root can say that of any machine.
    refused!(
        by_document.check_machine(&ec2("i-0123")),
        Cause::Attestation(Fault::OtherMachine { .. }),
        "one that its evidence does not name in this way"
    );
    let by_key = attest(&answer(&unused())).unwrap();
    let public = ecc_public(&key("ak"), AK_ATTRIBUTES, 0x000b);
    let name = [&[0, 0x0b][..], &PcrBank::Sha256.hash(&[&public])].concat();
    by_key
        .check_machine(&MachineIdentity::AttestationKey(name.clone()))
        .unwrap();
    let mut other = name.clone();
    other[5] ^= 1;
    for (attestation, identity) in [
        (&by_document, ec2("i-0124")),
        (&by_document, ec2("i-0123-tpm0000")),
        (&by_document, MachineIdentity::AttestationKey(name)),
        (&by_document, gce.clone()),
        (&by_key, MachineIdentity::AttestationKey(other)),
        (&by_key, ec2("i-0123")),
        (&by_key, gce),
    ] {
        for checked in [
            attestation.check_machine(&identity),
            attestation.dangerous_check_simulated_machine(&identity),
        ] {
            refused!(
                checked,
                Cause::Attestation(Fault::OtherMachine { .. }),
                "the one that was made is"
            );
        }
    }
}

#[test]
fn the_proof_of_the_attested_machine_is_accepted_and_no_other() {
    let attested = attested().attested_boot().clone();
    let check = |module_id: &str, later: i64| {
        attested.check_proof(&verified_at(&proof(module_id, later), later).unwrap())
    };
    check("i-0123-tpm0000", 0).unwrap();
    check("i-0123-tpm0000", HOUR).unwrap();
    let text = serde_json::to_string(&attested).unwrap();
    assert_eq!(serde_json::from_str::<AttestedBoot>(&text).unwrap(), attested);
    refused!(
        check("i-0124-tpm0000", HOUR),
        Cause::Attestation(Fault::ProofOfOtherMachine { .. }),
        "\"i-0124-tpm0000\" under the root"
    );
    refused!(
        check("i-0123-tpm0000", -1),
        Cause::Attestation(Fault::ProofBeforeAttestation { .. }),
        "it is not of the job that was sent"
    );
    // The same name under a root that somebody else has.
    let mut elsewhere = attested.clone();
    if let AttestedSigner::Document { root, .. } = &mut elsewhere.signer {
        *root = aicert_verify::anchors::NITRO_ROOT;
    }
    refused!(
        elsewhere.check_proof(&verified_at(&proof("i-0123-tpm0000", 0), 0).unwrap()),
        Cause::Attestation(Fault::ProofOfOtherMachine { .. }),
        "the one that was attested is"
    );
    // A key's proof, and a document's to who attested a key.
    let mut quoted = machine();
    quoted.bank = PcrBank::Sha384;
    refused!(
        attested.check_proof(&verified_at(&quoted.build(), 0).unwrap()),
        Cause::Attestation(Fault::ProofOfOtherEvidence { .. }),
        "is a key of a TPM"
    );
    let by_key = attest_with(&answer(&about(machine())), &trusting()).unwrap();
    refused!(
        by_key.check_proof(&verified_at(&proof("i-0123-tpm0000", 0), 0).unwrap()),
        Cause::Attestation(Fault::ProofOfOtherEvidence { .. }),
        "is an attestation document"
    );
}

/// A job that was done yesterday, and is fetched today.
#[test]
fn a_proof_that_has_waited_is_verified_for_when_it_was_made() {
    let boot = attested().attested_boot().clone();
    let now = Timestamp::from_unix(NOW + 30 * HOUR);
    let time = |later: i64| boot.verification_time(&Unverified::new(proof("i-0123-tpm0000", later)), now);
    assert_eq!(time(5 * HOUR).as_unix(), NOW + 5 * HOUR);
    let waited = proof("i-0123-tpm0000", 5 * HOUR);
    let verified = verified_at(&waited, 5 * HOUR).unwrap();
    boot.check_proof(&verified).unwrap();
    refused!(
        verified_at(&waited, 30 * HOUR),
        Cause::Chain(ChainFault::Expired { .. } | ChainFault::DocumentExpired { .. }),
        "--at 2026-01-01T05:00:00Z"
    );
    // Between the attestation and now, as far as clocks agree, and no other time.
    assert_eq!(time(0).as_unix(), NOW);
    assert_eq!(time(30 * HOUR + 300).as_unix(), NOW + 30 * HOUR + 300);
    for later in [-1, 30 * HOUR + 301, 1_000 * HOUR] {
        assert_eq!(time(later), now, "{later}");
    }
    // Where a key signs, there is no other time.
    let by_key = attest(&answer(&unused())).unwrap();
    let quoted = Unverified::new(recipe(&honest_boot()).build());
    assert_eq!(by_key.attested_boot().verification_time(&quoted, now), now);
    assert_eq!(boot.verification_time(&quoted, now), now);
}
