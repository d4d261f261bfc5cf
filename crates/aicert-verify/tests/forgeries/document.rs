//! Proofs whose evidence is an attestation document of a NitroTPM, honest and forged.

use aicert_core::certificate::{Base64, Certificate, KeyEvidence, PlatformKind, qualifying_data};
use aicert_core::event::EventContent;
use aicert_core::time::Timestamp;
use aicert_core::tpm::{PcrBank, PcrIndex};
use aicert_verify::anchors::PINNED;
use aicert_verify::chain::ChainFault;
use aicert_verify::key::{KeyFault, verify as verify_key};
use aicert_verify::log::LogFault;
use aicert_verify::nitro::{self, Expected, NitroFault};
use aicert_verify::policy::PolicyFault;
use aicert_verify::quote::{QuoteFault, Signer};
use aicert_verify::summary::SummaryFault;
use aicert_verify::{Cause, Options, TrustAnchors, Unverified, verify};

use crate::machine::*;
use crate::papers::document::{Item, Recipe as Paper, bundle, order_less, pcrs_of, text};
use crate::support::*;

const PCR4: PcrIndex = PcrIndex::new(4).unwrap();

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

/// The honest document of a proof: it says what the quote in its place would.
fn paper(certificate: &Certificate) -> Paper {
    let head = head_of(&certificate.measurement_log);
    let nonce = qualifying_data(&head, &certificate.low_level_quote.nonce);
    Paper::default()
        .setting("nonce", Item::Bytes(nonce.to_vec()))
        .setting("user_data", Item::Null)
        .setting("nitrotpm_pcrs", pcrs_of(&certificate.low_level_quote.pcrs))
}

/// A proof with a document in the place of the quote; `change` changes the document before it is signed.
fn proof_of(recipe: &Recipe, change: impl FnOnce(Paper) -> Paper) -> Certificate {
    let mut certificate = recipe.build();
    let paper = change(paper(&certificate));
    certificate.low_level_quote.attest = Base64(paper.document());
    certificate.signature = Base64::default();
    certificate.attestation_key = KeyEvidence::default();
    certificate
}

fn honest() -> Certificate {
    proof_of(&machine(), |paper| paper)
}

/// Believes the test authority's root, and knows image and firmware.
fn trusting() -> Options {
    let mut values = released();
    let measured = honest_boot().pcrs(PcrBank::Sha384).0;
    let of_firmware = measured.into_iter().filter(|(pcr, _)| pcr.as_u8() < 4);
    let of_firmware = aicert_core::tpm::PcrValues(of_firmware.collect());
    values.firmware[0].pcrs.insert(PcrBank::Sha384, of_firmware);
    let anchors = TrustAnchors::pinned().with_root(&bundle()[0].der()).unwrap();
    Options::new(anchors, now()).with_reference_values(values)
}

fn judged(
    certificate: &Certificate,
) -> Result<aicert_verify::Verified<Certificate>, aicert_verify::Rejection> {
    check_with(certificate, &trusting())
}

#[test]
fn a_proof_with_a_document_holds() {
    let verified = judged(&honest()).unwrap();
    assert!(verified.is_simulated() && verified.is_of_a_model());
    assert_eq!(verified.chain().platform(), PlatformKind::LocalCa);
    assert_eq!(verified.boot().image(), Some("aicert-base 1.0"));
    assert_eq!(verified.quote().bank(), PcrBank::Sha384);
    let Signer::Document(document) = verified.quote().signer() else {
        panic!("it was signed in a document");
    };
    assert_eq!(document.module_id(), "i-0123-tpm0000");
    assert_eq!(document.region(), None, "the test's certificates name none");
    assert_eq!(verified.chain().subjects().len(), 4);
    // With all PCRs, too, as AWS's have.
    let more = Recipe {
        quoted: |pcrs| {
            pcrs.0
                .extend((16..24).filter_map(PcrIndex::new).map(|pcr| (pcr, vec![0; 48])));
        },
        ..machine()
    };
    let verified = judged(&proof_of(&more, |paper| paper)).unwrap();
    assert_eq!(verified.quote().pcrs().0.len(), 24);
}

#[test]
fn a_root_that_is_not_believed_is_refused_and_added_roots_are_never_awss() {
    let proof = honest();
    let mut pinned = trusting();
    pinned.trust_anchors = TrustAnchors::pinned();
    refused!(
        check_with(&proof, &pinned),
        Cause::Chain(ChainFault::UnknownSimulatedRoot { .. }),
        "CN=test.nitro"
    );
    let said = proof_of(
        &Recipe {
            kind: PlatformKind::AwsNitroTpm,
            ..machine()
        },
        |paper| paper,
    );
    refused_also!(
        judged(&said),
        Cause::Summary(SummaryFault::Differs { field, .. }) if field == "platform.kind",
        "`platform.kind` is \"aws-nitrotpm\"; from the log and the trust anchor follows \"local-ca\""
    );
    refused_also!(
        check_with(&said, &pinned),
        Cause::Chain(ChainFault::UnknownRoot { .. }),
        "CN=test.nitro"
    );
    // A policy names it, too.
    let strict =
        trusting().with_policy(aicert_verify::policy::Policy::for_own_root().on([PlatformKind::AwsNitroTpm]));
    refused!(
        check_with(&proof, &strict),
        Cause::Policy(PolicyFault::Platform { .. }),
        "aws-nitrotpm"
    );
    // The other vendors' roots vouch for no documents.
    for (root, _) in PINNED {
        assert_eq!(TrustAnchors::pinned().platform_of_documents(&root), None);
    }
    let aws = aicert_verify::anchors::NITRO_ROOT;
    let anchors = TrustAnchors::pinned();
    assert_eq!(
        anchors.platform_of_documents(&aws),
        Some(PlatformKind::AwsNitroTpm)
    );
    assert_eq!(anchors.platform_of(&aws), None);
}

#[test]
fn the_document_of_another_job_is_refused() {
    let other = [0x77; 32];
    let proof = proof_of(&machine(), |paper| {
        paper.setting("nonce", Item::Bytes(other.to_vec()))
    });
    refused!(
        judged(&proof),
        Cause::Quote(QuoteFault::QualifyingData { found, .. }) if *found == hex::encode(other),
        "the quote belongs to another job"
    );
    // The nonce as such, and not what follows from it and the log.
    let raw = proof_of(&machine(), |paper| {
        paper.setting("nonce", Item::Bytes(machine().nonce.as_bytes().to_vec()))
    });
    refused!(
        judged(&raw),
        Cause::Quote(QuoteFault::QualifyingData { .. }),
        "from the log and the nonce follows"
    );
    let none = proof_of(&machine(), |paper| paper.setting("nonce", Item::Null));
    refused!(
        judged(&none),
        Cause::Quote(QuoteFault::NothingBound { .. }),
        "nothing binds the quote to this job"
    );
}

#[test]
fn other_pcrs_than_those_of_the_document_are_refused() {
    let mut altered = honest();
    altered.low_level_quote.pcrs.0.insert(PCR4, vec![0xee; 48]);
    refused_also!(
        judged(&altered),
        Cause::Quote(QuoteFault::DocumentPcr { pcr, .. }) if *pcr == PCR4,
        "PCR 4 is shown as eeee"
    );
    // The document covers more than is shown, or less.
    let all = proof_of(&machine(), |paper| {
        let mut pcrs = machine().build().low_level_quote.pcrs;
        pcrs.0.insert(PcrIndex::new(16).unwrap(), vec![0; 48]);
        paper.setting("nitrotpm_pcrs", pcrs_of(&pcrs))
    });
    refused!(
        judged(&all),
        Cause::Quote(QuoteFault::Selection { found, .. }) if found.ends_with("15,16"),
        "values of some PCRs are shown as those of others"
    );
    let fewer = proof_of(&machine(), |paper| {
        let mut pcrs = machine().build().low_level_quote.pcrs;
        pcrs.0.remove(&PCR4);
        paper.setting("nitrotpm_pcrs", pcrs_of(&pcrs))
    });
    refused!(
        judged(&fewer),
        Cause::Quote(QuoteFault::Selection { .. }),
        "the quote covers PCRs 0,1,2,3,5"
    );
    // Honest about it, but too few all the same.
    let recipe = Recipe {
        quoted: |pcrs| {
            pcrs.0.remove(&PcrIndex::new(3).unwrap());
        },
        ..machine()
    };
    refused_also!(
        judged(&proof_of(&recipe, |paper| paper)),
        Cause::Quote(QuoteFault::PcrsMissing { missing, .. }) if missing == "3",
        "must cover PCRs 0 to 15"
    );
}

#[test]
fn another_bank_than_that_of_documents_is_refused() {
    let mut proof = honest();
    proof.low_level_quote.bank = PcrBank::Sha256;
    refused_also!(
        judged(&proof),
        Cause::Quote(QuoteFault::DocumentBank {
            found: PcrBank::Sha256
        }),
        "is shown as one over the bank sha256"
    );
    // The events never went into the bank.
    let recipe = Recipe {
        contents: with!(JobOpened, |opened| opened.banks = vec![PcrBank::Sha256]),
        ..machine()
    };
    refused!(
        judged(&proof_of(&recipe, |paper| paper)),
        Cause::Log(LogFault::BankNotOpened {
            found: PcrBank::Sha384,
            ..
        }),
        "the log was extended into sha256"
    );
}

#[test]
fn parts_of_a_tpms_quote_beside_a_document_are_refused() {
    let quoted = machine().build();
    type Take = fn(&mut Certificate, &Certificate);
    let parts: [(&str, Take); 3] = [
        ("a signature", |to, from| to.signature.clone_from(&from.signature)),
        ("the public area of a key", |to, from| {
            to.attestation_key.public.clone_from(&from.attestation_key.public);
        }),
        ("a chain of certificates", |to, from| {
            let chain = &from.attestation_key.certificate_chain;
            to.attestation_key.certificate_chain.clone_from(chain);
        }),
    ];
    for (part, take) in parts {
        let mut mixed = honest();
        take(&mut mixed, &quoted);
        refused!(
            judged(&mixed),
            Cause::Quote(QuoteFault::BesideDocument { what }) if *what == part,
            part
        );
    }
    // A quote with nothing of a quote's beside it is no document.
    let mut bare = quoted;
    bare.signature = Base64::default();
    bare.attestation_key = KeyEvidence::default();
    refused_also!(
        judged(&bare),
        Cause::Chain(ChainFault::Length { found: 0 }),
        "0 certificates"
    );
}

#[test]
fn a_document_with_anything_else_of_the_guests_is_refused() {
    for field in ["user_data", "public_key"] {
        let proof = proof_of(&machine(), |paper| paper.setting(field, Item::Bytes(Vec::new())));
        refused!(
            judged(&proof),
            Cause::Quote(QuoteFault::GuestData { field: found }) if *found == field,
            "was asked for by something else than aicert"
        );
    }
}

#[test]
fn the_tag_that_nothing_signs_is_refused() {
    let mut proof = honest();
    proof.low_level_quote.attest.0.insert(0, 0xd2);
    refused!(
        judged(&proof),
        Cause::Quote(QuoteFault::TaggedDocument {}),
        "begins with the tag of a COSE_Sign1"
    );
}

#[test]
fn the_document_of_an_enclave_is_refused() {
    let proof = proof_of(&machine(), |mut paper| {
        let name = |key: &Item| matches!(key, Item::Text(name) if name == "nitrotpm_pcrs");
        for (key, _) in paper.fields.iter_mut().filter(|(key, _)| name(key)) {
            *key = text("pcrs");
        }
        paper
    });
    refused!(
        judged(&proof),
        Cause::Nitro(NitroFault::Enclave {}),
        "is one of a Nitro Enclave"
    );
}

#[test]
fn a_document_that_somebody_else_signed_is_refused() {
    let proof = proof_of(&machine(), |paper| Paper {
        signer: "i-0123",
        ..paper
    });
    refused!(
        judged(&proof),
        Cause::Nitro(NitroFault::Signature {}),
        "is not signed by the key of its certificate"
    );
}

#[test]
fn a_document_holds_for_three_hours_and_says_for_which() {
    let proof = honest();
    let at = |seconds: i64| {
        let mut options = trusting();
        options.time = Timestamp::from_unix(NOW + seconds);
        options
    };
    check_with(&proof, &at(3 * 3_600)).unwrap();
    refused!(
        check_with(&proof, &at(3 * 3_600 + 1)),
        Cause::Chain(ChainFault::DocumentExpired { position: 0, made, .. }) if *made == now(),
        &format!("--at {}", now())
    );
    refused!(
        check_with(&proof, &at(-4)),
        Cause::Chain(ChainFault::NotYetValid { position: 0, .. }),
        "check this machine's clock"
    );
}

#[test]
fn a_document_from_before_the_job_is_refused() {
    let opened = |seconds: i64| {
        let time = Timestamp::from_unix(NOW + seconds);
        let mut contents = contents();
        for content in &mut contents {
            match content {
                EventContent::JobOpened(opened) => opened.time = time,
                EventContent::ExecutionStarted(started) => started.time = time,
                EventContent::ExecutionFinished(finished) => finished.time = time,
                EventContent::Closed(closed) => closed.time = time,
                _ => {}
            }
        }
        let recipe = Recipe {
            contents,
            ..machine()
        };
        judged(&proof_of(&recipe, |paper| paper))
    };
    // Clocks differ a little.
    opened(300).unwrap();
    refused!(
        opened(301),
        Cause::Quote(QuoteFault::DocumentTooEarly { .. }),
        "before the job was opened"
    );
}

#[test]
fn who_provides_the_machine_is_compared() {
    let recipe = Recipe {
        contents: with!(Machine, |machine| machine.provider = "aws".into()),
        ..machine()
    };
    refused!(
        judged(&proof_of(&recipe, |paper| paper)),
        Cause::Log(LogFault::AnotherProvider {
            found: "local-ca",
            ..
        }),
        "is said to be provided by \"aws\""
    );
}

#[test]
fn what_vouches_for_documents_vouches_for_no_key() {
    let anchors = trusting().trust_anchors;
    let document = honest().low_level_quote.attest.0;
    let verified = nitro::verify(&document, &Expected::new(anchors, now())).unwrap();
    let public = ecc_public(&key("ak"), AK_ATTRIBUTES, 0x000b);
    let faults = verify_key(verified.chain().clone(), &public).unwrap_err();
    assert!(faults.contains(&KeyFault::NotForKeys {}), "{faults:?}");
}

/// The document of one machine beside the log of another, and the other way round.
#[test]
fn nothing_of_one_proof_fits_another() {
    let other = proof_of(
        &Recipe {
            contents: with!(OutputsMeasured, |outputs| outputs.folder =
                "/workspace/other".into()),
            ..machine()
        },
        |paper| paper,
    );
    judged(&other).unwrap();
    let mut mixed = honest();
    mixed.low_level_quote.clone_from(&other.low_level_quote);
    refused_also!(
        judged(&mixed),
        Cause::Quote(QuoteFault::QualifyingData { .. }),
        "from the log and the nonce follows"
    );
    let mut mixed = honest();
    mixed
        .low_level_quote
        .attest
        .clone_from(&other.low_level_quote.attest);
    refused_also!(
        judged(&mixed),
        Cause::Quote(QuoteFault::DocumentPcr { .. }),
        "the attestation document has"
    );
}

/// The bytes of a proof with a document, one at a time: every one, but in the logs, which the same test of a quote covers whole,
/// every seventh. The twin of its signature is the one other spelling there is: it takes 48 bytes to get there.
#[test]
fn no_byte_of_a_proof_with_a_document_can_be_changed() {
    let certificate = honest();
    let text = certificate.to_json().into_bytes();
    let options = trusting();
    let accepts = |bytes: &[u8]| verify(Unverified::from_slice(bytes).ok()?, &options).ok();
    assert!(accepts(&text).is_some());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let find = |name: &str| String::from_utf8_lossy(&text).find(name).unwrap();
    let logs = find("\"measurement_log\"")..find("\"low_level_quote\"");
    let places: Vec<_> = (0..text.len())
        .filter(|at| !logs.contains(at) || at % 7 == 0)
        .collect();
    let (text, accepts, places) = (&text, &accepts, &places);
    std::thread::scope(|scope| {
        for worker in 0..workers {
            scope.spawn(move || {
                let mut forged = text.clone();
                for &at in places.iter().skip(worker).step_by(workers) {
                    let original = text[at];
                    forged[at] = original ^ 1;
                    if accepts(&forged).is_some() {
                        let place = String::from_utf8_lossy(&text[at.saturating_sub(30)..at]);
                        panic!("byte {at} after {place:?}: {original} as {}", forged[at]);
                    }
                    forged[at] = original;
                }
            });
        }
    });

    let mut twin = certificate;
    let document = &mut twin.low_level_quote.attest.0;
    let s = document.len() - 48;
    let other = order_less(&document[s..]);
    document[s..].copy_from_slice(&other);
    judged(&twin).unwrap();
}
