//! The evidence is what independent tools accept, and the forgeries are what they claim to be.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::path::Path;
use std::process::Command;

use aicert_core::tpm::{PcrBank, PcrIndex, TpmBackend as _};
use aicert_swtpm_testing::x509_cert::Certificate;
use aicert_swtpm_testing::x509_cert::der::{Decode as _, EncodePem as _, pem::LineEnding};
use aicert_swtpm_testing::{
    Authority, CertificateProfile, KeyAlgorithm, KeyHierarchy, KeyTemplate, SimulatedTpm, SimulationOptions,
    TestCa, public_key_der, public_key_pem, skip_without,
};

const ALGORITHMS: [KeyAlgorithm; 2] = [KeyAlgorithm::EccP256, KeyAlgorithm::Rsa2048];

fn run(program: &str, directory: &Path, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[tokio::test]
async fn tpm2_checkquote_accepts_the_quotes() {
    if skip_without(&["swtpm", "tpm2_checkquote"]) {
        return;
    }
    for algorithm in ALGORITHMS {
        let tpm = SimulatedTpm::start(SimulationOptions::new(algorithm))
            .await
            .unwrap();
        let digests = tpm
            .capabilities()
            .banks
            .iter()
            .map(|bank| (*bank, bank.hash(&[b"x"])))
            .collect();
        tpm.extend(PcrIndex::OUTPUTS, &digests).await.unwrap();
        let pcrs: Vec<_> = PcrIndex::quoted().collect();
        let quote = tpm.quote(PcrBank::Sha256, &pcrs, &[0xab; 32]).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(directory.path().join(name), bytes).unwrap();
        write("attest", &quote.attest);
        write("signature", &quote.signature);
        let key = tpm.attestation_key().await.unwrap().unwrap();
        write("key.pem", public_key_pem(&key.public).unwrap().as_bytes());
        let check = |nonce: &str| {
            let arguments = ["-u", "key.pem", "-m", "attest", "-s", "signature", "-q", nonce];
            run("tpm2_checkquote", directory.path(), &arguments)
        };
        let (accepted, text) = check(&"ab".repeat(32));
        assert!(accepted, "{algorithm:?}: {text}");
        let (accepted, text) = check(&"ac".repeat(32));
        assert!(!accepted, "{algorithm:?}: {text}");
        let mut other = quote.attest.clone();
        *other.last_mut().unwrap() ^= 1;
        write("attest", &other);
        let (accepted, text) = check(&"ab".repeat(32));
        assert!(!accepted, "{algorithm:?}: {text}");
    }
}

#[tokio::test]
async fn openssl_accepts_the_chain_and_it_certifies_the_key() {
    if skip_without(&["swtpm", "openssl"]) {
        return;
    }
    for algorithm in ALGORITHMS {
        let tpm = SimulatedTpm::start(SimulationOptions::new(algorithm))
            .await
            .unwrap();
        let key = tpm.attestation_key().await.unwrap().unwrap();
        let chain: Vec<_> = key
            .certificate_chain
            .iter()
            .map(|der| Certificate::from_der(der).unwrap())
            .collect();
        assert_eq!(chain.len(), 3);
        let spki = chain[0].tbs_certificate.subject_public_key_info.clone();
        use aicert_swtpm_testing::x509_cert::der::Encode as _;
        assert_eq!(spki.to_der().unwrap(), public_key_der(&key.public).unwrap());

        let directory = tempfile::tempdir().unwrap();
        for (name, certificate) in ["leaf.pem", "intermediate.pem", "root.pem"].iter().zip(&chain) {
            let pem = certificate.to_pem(LineEnding::LF).unwrap();
            std::fs::write(directory.path().join(name), pem).unwrap();
        }
        std::fs::write(directory.path().join("ca.pem"), tpm.root_pem()).unwrap();
        let verify = |root: &str| {
            let arguments = [
                "verify",
                "-x509_strict",
                "-purpose",
                "any",
                "-CAfile",
                root,
                "-untrusted",
                "intermediate.pem",
                "leaf.pem",
            ];
            run("openssl", directory.path(), &arguments)
        };
        let (accepted, text) = verify("ca.pem");
        assert!(accepted, "{text}");
        let stranger = TestCa::new().unwrap();
        std::fs::write(directory.path().join("stranger.pem"), stranger.root_pem()).unwrap();
        let (accepted, text) = verify("stranger.pem");
        assert!(!accepted, "{text}");
    }
}

#[test]
fn broken_chains_are_broken_in_the_way_that_was_asked_for() {
    if skip_without(&["openssl"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let key = aicert_swtpm_testing::ForgedKey::new(aicert_swtpm_testing::ForgedKey::ATTESTATION).public();
    let write = |name: &str, text: String| std::fs::write(directory.path().join(name), text).unwrap();
    let pem = |der: &[u8]| {
        Certificate::from_der(der)
            .unwrap()
            .to_pem(LineEnding::LF)
            .unwrap()
    };
    let verdict = |intermediates: String, leaf: &[u8]| {
        write("untrusted.pem", intermediates);
        write("leaf.pem", pem(leaf));
        let arguments = [
            "verify",
            "-CAfile",
            "root.pem",
            "-untrusted",
            "untrusted.pem",
            "leaf.pem",
        ];
        run("openssl", directory.path(), &arguments)
    };
    let root = Authority::self_signed(&CertificateProfile::root("Root")).unwrap();
    write("root.pem", root.certificate_pem());
    let leaf = CertificateProfile::attestation_key("Leaf");
    let one = root
        .subordinate(&CertificateProfile::intermediate("Twin"))
        .unwrap();
    let two = root
        .subordinate(&CertificateProfile::intermediate("Twin"))
        .unwrap();
    let twins = [one.certificate_pem(), two.certificate_pem()].concat();
    for honest in [&one, &two] {
        let (accepted, text) = verdict(twins.clone(), &honest.issue(&key, &leaf).unwrap());
        assert!(accepted, "{text}");
    }

    let below = one
        .subordinate(&CertificateProfile::intermediate("Below"))
        .unwrap();
    let chain = [one.certificate_pem(), below.certificate_pem()].concat();
    let (accepted, text) = verdict(chain, &below.issue(&key, &leaf).unwrap());
    assert!(!accepted && text.contains("path length"), "{text}");

    let hour = |hours: i64| {
        let now = aicert_core::time::Timestamp::now().as_unix();
        aicert_core::time::Timestamp::from_unix(now + hours * 3600)
    };
    let expired = CertificateProfile {
        not_before: hour(-48),
        not_after: hour(-24),
        ..leaf.clone()
    };
    let (accepted, text) = verdict(one.certificate_pem(), &one.issue(&key, &expired).unwrap());
    assert!(!accepted && text.contains("expired"), "{text}");
    let early = CertificateProfile {
        not_before: hour(24),
        not_after: hour(48),
        ..leaf.clone()
    };
    let (accepted, text) = verdict(one.certificate_pem(), &one.issue(&key, &early).unwrap());
    assert!(!accepted && text.contains("not yet valid"), "{text}");

    let no_ca = root
        .subordinate(&CertificateProfile {
            basic_constraints: leaf.basic_constraints.clone(),
            ..CertificateProfile::intermediate("No CA")
        })
        .unwrap();
    let (accepted, text) = verdict(no_ca.certificate_pem(), &no_ca.issue(&key, &leaf).unwrap());
    assert!(!accepted && text.contains("CA"), "{text}");

    let far = CertificateProfile {
        not_after: aicert_core::time::Timestamp::from_unix(4_000_000_000),
        ..leaf.clone()
    };
    let (accepted, text) = verdict(one.certificate_pem(), &one.issue(&key, &far).unwrap());
    assert!(accepted, "2096 needs the other encoding of time: {text}");
}

#[tokio::test]
async fn a_restricted_key_signs_only_what_the_tpm_made() {
    if skip_without(&["swtpm"]) {
        return;
    }
    for algorithm in ALGORITHMS {
        let honest = SimulatedTpm::start(SimulationOptions::new(algorithm))
            .await
            .unwrap();
        assert!(honest.sign_anything(b"a made-up attestation").await.is_err());
        let key = KeyTemplate {
            restricted: false,
            ..KeyTemplate::attestation(algorithm)
        };
        let options = SimulationOptions::new(algorithm).dangerous_with_key(key);
        let dangerous = SimulatedTpm::start(options).await.unwrap();
        dangerous.sign_anything(b"a made-up attestation").await.unwrap();
        // The CA is asked to look this time.
        let public = dangerous.attestation_key().await.unwrap().unwrap().public;
        assert_eq!(public[5] & 1, 0, "the key must say that it is not restricted");
    }
}

#[tokio::test]
async fn keys_of_every_template_can_be_made() {
    if skip_without(&["swtpm"]) {
        return;
    }
    for hierarchy in [KeyHierarchy::Endorsement, KeyHierarchy::Owner] {
        let key = KeyTemplate {
            hierarchy,
            fixed: hierarchy == KeyHierarchy::Owner,
            ..KeyTemplate::attestation(KeyAlgorithm::EccP256)
        };
        let options = SimulationOptions::new(KeyAlgorithm::EccP256).dangerous_with_key(key.clone());
        let tpm = SimulatedTpm::start(options).await.unwrap();
        let public = tpm.attestation_key().await.unwrap().unwrap().public;
        assert_eq!(public[7] & 0b10 != 0, key.fixed, "fixedTPM");
        tpm.quote(PcrBank::Sha256, &[PcrIndex::INPUTS], b"x")
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn the_powers_of_an_attacker_work() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let tpm = SimulatedTpm::start(SimulationOptions::new(KeyAlgorithm::EccP256))
        .await
        .unwrap();
    let debug = PcrIndex::new(16).unwrap();
    let digest = PcrBank::Sha256.hash(&[b"forged"]);
    tpm.extend_one_bank(PcrBank::Sha256, debug, &digest)
        .await
        .unwrap();
    let values = tpm.read_pcrs(PcrBank::Sha256, &[debug]).await.unwrap();
    assert_eq!(values.0[&debug], PcrBank::Sha256.extend(&[0; 32], &digest));
    let others = tpm.read_pcrs(PcrBank::Sha384, &[debug]).await.unwrap();
    assert_eq!(others.0[&debug], [0; 48], "one bank alone");
    tpm.reset_pcr(debug).await.unwrap();
    let values = tpm.read_pcrs(PcrBank::Sha256, &[debug]).await.unwrap();
    assert_eq!(values.0[&debug], [0; 32]);
    assert!(
        tpm.reset_pcr(PcrIndex::INPUTS).await.is_err(),
        "PCR 14 cannot be reset"
    );

    let kind = |attest: &[u8]| u16::from_be_bytes([attest[4], attest[5]]);
    let selection = [
        (PcrBank::Sha1, vec![debug]),
        (PcrBank::Sha384, vec![PcrIndex::INPUTS]),
    ];
    let quote = tpm.quote_any(&selection, b"").await.unwrap();
    assert_eq!(kind(&quote.attest), 0x8018);
    assert_eq!(kind(&tpm.certify_itself(b"x").await.unwrap().attest), 0x8017);
    assert_eq!(kind(&tpm.sign_time(b"x").await.unwrap().attest), 0x8019);
}
