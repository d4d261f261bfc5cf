//! Evidence from real machines, with known outcomes. It lies outside the repository, in the folder that
//! `AICERT_TEST_VECTORS` names; without it these tests say so and are skipped.

use std::path::{Path, PathBuf};

use aicert_core::attestation::Attestation;
use aicert_core::certificate::{Base64, KeyEvidence, LowLevelQuote, PlatformKind};
use aicert_core::digest::{Nonce, TlsKeyDigest};
use aicert_core::time::Timestamp;
use aicert_core::tpm::{PcrBank, PcrValues};
use aicert_verify::attestation;
use aicert_verify::chain::{self, ChainFault, ChainProof};
use aicert_verify::key;
use aicert_verify::quote::{self, AuthenticQuote, QuoteFault};
use aicert_verify::{Cause, Options, Step, TrustAnchors, platform_of_root, verify_attestation};
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, asn1::UintRef};

use crate::support::*;

struct Vector {
    folder: PathBuf,
    chain: Vec<Vec<u8>>,
}

fn folder(name: &str) -> Option<PathBuf> {
    let Ok(root) = std::env::var("AICERT_TEST_VECTORS") else {
        println!("skipped: AICERT_TEST_VECTORS is not set");
        return None;
    };
    Some(Path::new(&root).join(name))
}

fn vector(name: &str) -> Option<Vector> {
    let folder = folder(name)?;
    let chain = (0..3)
        .map(|index| read(&folder, &format!("chain-{index}.der")))
        .collect();
    Some(Vector { folder, chain })
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    let path = folder.join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Those of Azure are from when whoever owned a machine could choose its key (CVE-2025-49707); nobody did so here.
fn anchors() -> TrustAnchors {
    TrustAnchors::pinned().dangerous_accepting_azure_keys_certified_before_fix()
}

impl Vector {
    fn chain_at(&self, time: &str) -> Result<ChainProof, Vec<ChainFault>> {
        chain::verify(&self.chain, &anchors(), at(time))
    }

    fn quote(&self) -> LowLevelQuote {
        let banks: std::collections::BTreeMap<PcrBank, PcrValues> =
            serde_json::from_slice(&read(&self.folder, "pcrs.json")).unwrap();
        LowLevelQuote {
            bank: PcrBank::Sha256,
            pcrs: banks[&PcrBank::Sha256].clone(),
            attest: Base64(read(&self.folder, "quote.msg")),
            nonce: Nonce::from_bytes([0; 32]),
        }
    }

    fn authenticate(
        &self,
        time: &str,
        public: &[u8],
        signature: &[u8],
    ) -> Result<AuthenticQuote, Vec<QuoteFault>> {
        let key = key::verify(self.chain_at(time).unwrap(), public).unwrap();
        quote::verify_signature(&key, &self.quote().attest.0, signature).unwrap();
        quote::authenticate(key, &self.quote(), signature)
    }

    fn leaf_key(&self) -> Vec<u8> {
        let leaf = Certificate::from_der(&self.chain[0]).unwrap();
        leaf.tbs_certificate
            .subject_public_key_info
            .subject_public_key
            .raw_bytes()
            .to_vec()
    }
}

/// The key's public area as Azure makes it; it is not among the evidence, but the qualified name in the quote shows that it
/// is exactly this: attributes 0x50472 and a policy, RSA-2048 with RSASSA and SHA-256.
fn azure_public(vector: &Vector) -> Vec<u8> {
    let key = vector.leaf_key();
    let mut reader = x509_cert::der::SliceReader::new(&key).unwrap();
    let modulus = x509_cert::der::Reader::sequence(&mut reader, |reader| {
        let modulus = UintRef::decode(reader)?.as_bytes().to_vec();
        UintRef::decode(reader)?;
        Ok(modulus)
    })
    .unwrap();
    let policy = hex::decode("9dffcbf36c383ae699fb9868dc6dcb89d7153884be2803922c124158bfad22ae").unwrap();
    let head = [0, 1, 0, 0x0b, 0, 5, 4, 0x72, 0, 32];
    let parameters = [0, 0x10, 0, 0x14, 0, 0x0b, 8, 0, 0, 0, 0, 0, 1, 0];
    [&head[..], &policy, &parameters, &modulus].concat()
}

/// As Compute Engine makes it: attributes 0x50072, no policy, P-256 with ECDSA and SHA-256.
fn google_public(vector: &Vector) -> Vec<u8> {
    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&vector.leaf_key()).unwrap();
    let point = key.to_encoded_point(false);
    let head = [
        0, 0x23, 0, 0x0b, 0, 5, 0, 0x72, 0, 0, 0, 0x10, 0, 0x18, 0, 0x0b, 0, 3, 0, 0x10,
    ];
    [
        &head[..],
        &[0, 32],
        point.x().unwrap(),
        &[0, 32],
        point.y().unwrap(),
    ]
    .concat()
}

#[test]
fn azure_chain_and_quote_hold_while_its_certificates_are_valid() {
    for (name, time, expired) in [
        (
            "azure-trusted-launch",
            "2025-06-01T00:00:00Z",
            &[("2025-10-31T00:00:00Z", 1), ("2025-11-04T00:00:00Z", 2)][..],
        ),
        (
            "azure-trusted-launch-expired",
            "2024-06-01T00:00:00Z",
            &[("2025-06-01T00:00:00Z", 1), ("2026-01-01T00:00:00Z", 2)],
        ),
    ] {
        let Some(vector) = vector(name) else { return };
        assert_eq!(
            platform_of_root(&vector.chain[2]),
            PlatformKind::AzureTrustedLaunch
        );
        assert_eq!(
            vector.chain_at(time).unwrap().platform(),
            PlatformKind::AzureTrustedLaunch
        );
        for (later, count) in expired {
            let faults = vector.chain_at(later).unwrap_err();
            assert_eq!(faults.len(), *count, "{faults:?}");
            for (position, fault) in faults.iter().enumerate() {
                assert!(
                    matches!(fault, ChainFault::Expired { position: p, .. } if *p == position),
                    "{fault}"
                );
            }
        }
        let early = vector.chain_at("2023-07-01T00:00:00Z").unwrap_err();
        assert!(
            matches!(early[..], [ChainFault::NotYetValid { position: 0, .. }]),
            "{early:?}"
        );

        let signature = read(&vector.folder, "quote.sig.tpmt");
        let quote = vector
            .authenticate(time, &azure_public(&vector), &signature)
            .unwrap();
        assert_eq!(quote.pcrs().0.len(), 24);
        // It was asked for without qualifying data, so it is about nothing.
        let faults = quote
            .bind(&number(contents()), &Nonce::from_bytes([0; 32]))
            .unwrap_err();
        assert!(
            faults
                .iter()
                .any(|fault| matches!(fault, QuoteFault::NothingBound { .. })),
            "{faults:?}"
        );

        let mut wrong = signature;
        wrong[100] ^= 1;
        let key = key::verify(vector.chain_at(time).unwrap(), &azure_public(&vector)).unwrap();
        assert_eq!(
            quote::verify_signature(&key, &vector.quote().attest.0, &wrong),
            Err(QuoteFault::Signature {})
        );
    }
}

#[test]
fn google_chain_and_quote_hold_from_the_day_they_were_made() {
    let Some(vector) = vector("gcp-cvm-amd") else {
        return;
    };
    let time = "2026-02-03T00:00:00Z";
    assert_eq!(
        vector.chain_at(time).unwrap().platform(),
        PlatformKind::GceShieldedVm
    );
    let early = vector.chain_at("2026-02-01T00:00:00Z").unwrap_err();
    assert!(
        matches!(early[..], [ChainFault::NotYetValid { position: 0, .. }]),
        "{early:?}"
    );

    let der = p256::ecdsa::Signature::from_der(&read(&vector.folder, "quote.sig.der")).unwrap();
    let (r, s) = (der.r().to_bytes(), der.s().to_bytes());
    let signature = [&[0, 0x18, 0, 0x0b, 0, 32][..], &r, &[0, 32], &s].concat();
    let quote = vector
        .authenticate(time, &google_public(&vector), &signature)
        .unwrap();
    // It answers a bare nonce, not one of ours.
    let faults = quote
        .bind(&number(contents()), &Nonce::from_bytes([0; 32]))
        .unwrap_err();
    let nonce = String::from_utf8(read(&vector.folder, "nonce.hex")).unwrap();
    assert!(
        faults
            .iter()
            .any(|fault| matches!(fault, QuoteFault::QualifyingData { found, .. } if found == nonce.trim())),
        "{faults:?}"
    );
}

#[test]
fn real_chains_are_refused_when_mixed_or_without_their_root() {
    let (Some(azure), Some(google)) = (vector("azure-trusted-launch"), vector("gcp-cvm-amd")) else {
        return;
    };
    let time = at("2026-02-03T00:00:00Z");
    let mixed = [&google.chain[0], &azure.chain[1], &google.chain[2]];
    let faults = chain::verify(&mixed, &TrustAnchors::pinned(), time).unwrap_err();
    assert!(
        faults
            .iter()
            .any(|fault| matches!(fault, ChainFault::IssuerMissing { position: 0, .. })),
        "{faults:?}"
    );
    // The intermediate as the root: signed by the vendor, but no root.
    let cut = &google.chain[..2];
    let faults = chain::verify(cut, &TrustAnchors::pinned(), time).unwrap_err();
    assert!(
        matches!(faults[..], [ChainFault::UnknownRoot { .. }]),
        "{faults:?}"
    );
}

/// A proof that rests on a key from when its owner could choose it (CVE-2025-49707), which then signs any log.
#[test]
fn a_proof_under_a_key_that_azure_certified_before_the_fix_is_refused_for_that() {
    let Some(vector) = vector("azure-trusted-launch") else {
        return;
    };
    let proof = Recipe {
        chain: vector.chain.clone(),
        kind: PlatformKind::AzureTrustedLaunch,
        ..Recipe::default()
    }
    .build();
    let options = Options::new(TrustAnchors::pinned(), at("2025-06-01T00:00:00Z"));
    refused_also!(
        check_with(&proof, &options),
        Cause::Chain(ChainFault::CertifiedBeforeFix { .. }),
        "CVE-2025-49707"
    );
}

/// What a machine with this evidence would answer. Its boot log is not among the evidence.
fn answer(quote: LowLevelQuote, signature: Vec<u8>, attestation_key: KeyEvidence) -> Attestation {
    Attestation {
        tls_key: TlsKeyDigest::from_bytes([0; 32]),
        quote,
        signature: Base64(signature),
        attestation_key,
        boot_event_log: Base64::default(),
        server_version: "0.0.0".into(),
    }
}

/// The names of everything that keeps an answer from being accepted, at this time.
fn faults(answer: &Attestation, time: &str) -> Vec<(Step, &'static str)> {
    faults_under(anchors(), answer, time)
}

fn faults_under(anchors: TrustAnchors, answer: &Attestation, time: &str) -> Vec<(Step, &'static str)> {
    let bytes = serde_json::to_vec(answer).unwrap();
    let answer = attestation::read(&bytes).unwrap();
    let options = Options::new(anchors, at(time));
    let nonce = Nonce::from_bytes([0; 32]);
    let rejection = verify_attestation(&answer, &answer.tls_key, &nonce, &options).unwrap_err();
    let failures = rejection.failures().iter();
    failures
        .map(|failure| (failure.step(), failure.cause().name()))
        .collect()
}

/// Nobody made this evidence for aicert: it is bound to nothing of ours, and what was booted is in no reference values. Everything
/// else holds, through the types that providers fill and proofs have.
#[test]
fn the_evidence_of_three_clouds_holds_but_for_what_it_is_about() {
    let unexplained = (Step::BootLog, "Unexplained");
    let unknown = (Step::Attestation, "NoReferenceValues");
    let key_of = |vector: &Vector, public: Vec<u8>| KeyEvidence {
        public: Base64(public),
        certificate_chain: vector.chain.iter().cloned().map(Base64).collect(),
    };
    if let Some(azure) = vector("azure-trusted-launch") {
        let answer = answer(
            azure.quote(),
            read(&azure.folder, "quote.sig.tpmt"),
            key_of(&azure, azure_public(&azure)),
        );
        let found = faults(&answer, "2025-06-01T00:00:00Z");
        let used = found.contains(&(Step::Attestation, "Used"));
        let expected = [
            Some((Step::Attestation, "NothingBound")),
            used.then_some((Step::Attestation, "Used")),
            Some(unknown),
            Some(unexplained),
        ];
        assert_eq!(found, expected.into_iter().flatten().collect::<Vec<_>>());
        // Without saying that nobody chose the key, the same and one more.
        let strict = faults_under(TrustAnchors::pinned(), &answer, "2025-06-01T00:00:00Z");
        assert_eq!(strict[0], (Step::Chain, "CertifiedBeforeFix"));
        assert_eq!(strict[1..], found);
        // Its leaf has expired since.
        let expired = (Step::Chain, "Expired");
        assert_eq!(faults(&answer, "2025-10-31T00:00:00Z")[0], expired);
    }
    if let Some(google) = vector("gcp-cvm-amd") {
        let der = p256::ecdsa::Signature::from_der(&read(&google.folder, "quote.sig.der")).unwrap();
        let (r, s) = (der.r().to_bytes(), der.s().to_bytes());
        let signature = [&[0, 0x18, 0, 0x0b, 0, 32][..], &r, &[0, 32], &s].concat();
        let answer = answer(google.quote(), signature, key_of(&google, google_public(&google)));
        // shim has measured into PCR 14.
        let expected = [
            (Step::Attestation, "QualifyingData"),
            (Step::Attestation, "Used"),
            unknown,
            unexplained,
        ];
        assert_eq!(faults(&answer, "2026-02-03T00:00:00Z"), expected);
    }
    if let Some(folder) = folder("aws-nitrotpm") {
        let banks: std::collections::BTreeMap<PcrBank, PcrValues> =
            serde_json::from_slice(&read(&folder, "pcrs.json")).unwrap();
        let quote = LowLevelQuote {
            bank: PcrBank::Sha384,
            pcrs: banks[&PcrBank::Sha384].clone(),
            attest: Base64(read(&folder, "attestation-document.cbor")),
            nonce: Nonce::from_bytes([0; 32]),
        };
        let answer = answer(quote, Vec::new(), KeyEvidence::default());
        // Whoever asked for it put a key into it.
        let of_a_guest = (Step::Quote, "GuestData");
        let found = faults(&answer, "2026-02-03T10:12:02Z");
        let used = found.contains(&(Step::Attestation, "Used"));
        let expected = [
            Some(of_a_guest),
            Some((Step::Attestation, "QualifyingData")),
            used.then_some((Step::Attestation, "Used")),
            Some(unknown),
            Some(unexplained),
        ];
        assert_eq!(found, expected.into_iter().flatten().collect::<Vec<_>>());
        let later = faults(&answer, "2026-02-03T13:12:03Z");
        assert_eq!(later[0], (Step::Chain, "DocumentExpired"));
    }
}
