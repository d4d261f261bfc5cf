//! Keys that a platform has put into the TPM, as the clouds do, on software TPMs.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use aicert_core::attestation::KeyLocation;
use aicert_core::conformance::tpm as suite;
use aicert_core::time::Timestamp;
use aicert_core::tpm::{PcrBank, PcrIndex, TpmBackend as _, TpmError, TpmErrorKind};
use aicert_swtpm_testing::{
    CertificateProfile, CloudTpm, PlatformKey, SwtpmInstance, SwtpmOptions, TestCa, public_key_der,
    skip_without, x509_cert,
};
use aicert_tpm::{KeySource, Tpm};
use aicert_verify::TrustAnchors;
use aicert_verify::chain::Pool;
use aicert_verify::evidence::{Evidence, Expected, PcrBanks, verify};
use x509_cert::der::{Decode as _, Encode as _};

fn start() -> SwtpmInstance {
    SwtpmInstance::start(SwtpmOptions::new()).unwrap()
}

async fn open(
    instance: &SwtpmInstance,
    location: KeyLocation,
    issuers: Vec<Vec<u8>>,
) -> Result<Tpm, TpmError> {
    Tpm::open(instance.config(KeySource::Platform { location, issuers })).await
}

#[tokio::test]
async fn it_is_found_where_the_platform_has_put_it() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let ca = TestCa::new().unwrap();
    for key in [
        PlatformKey::like_gce(),
        PlatformKey::like_gce().without_owner_read(),
        PlatformKey::like_gce_rsa(),
        PlatformKey::like_azure(),
    ] {
        let mut instance = start();
        let location = key.location();
        let issuers = instance.provision(&ca, key).await.unwrap();
        let tpm = open(&instance, location, issuers.clone()).await.unwrap();
        suite::all(&tpm).await;
        let found = tpm.attestation_key().await.unwrap().unwrap();
        let chain = &found.certificate_chain;
        assert_eq!(chain[1..], issuers, "{location:?}");
        // What follows the certificate in its index is cut off, and it is the key's.
        let leaf = x509_cert::Certificate::from_der(&chain[0]).unwrap();
        let certified = leaf.tbs_certificate.subject_public_key_info.to_der().unwrap();
        assert_eq!(certified, public_key_der(&found.public).unwrap(), "{location:?}");
        tpm.close().await.unwrap();

        // It is the same key after every reset, and its signatures can be verified.
        instance.reset().unwrap();
        let tpm = open(&instance, location, issuers).await.unwrap();
        assert_eq!(
            tpm.attestation_key().await.unwrap().as_ref(),
            Some(&found),
            "{location:?}"
        );
        tpm.quote(PcrBank::Sha256, &[PcrIndex::INPUTS], b"x")
            .await
            .unwrap();
    }
}

/// What a verifier gets of a TPM that is laid out as a cloud's, and what it says of that.
#[tokio::test]
async fn quotes_of_tpms_like_those_of_clouds_are_verified() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let ca = TestCa::new().unwrap();
    let anchors = TrustAnchors::pinned()
        .with_root(ca.root_pem().as_bytes())
        .unwrap();
    let profile = CertificateProfile::attestation_key("key");
    for cloud in CloudTpm::ALL {
        let mut instance = start();
        let locations = instance.lay_out(cloud, &ca, &profile).await.unwrap();
        // As a machine finds it that has just booted.
        instance.reset().unwrap();
        for location in locations {
            let tpm = open(&instance, location, Vec::new()).await.unwrap();
            let nonce = [0x5a; 32];
            let pcrs: Vec<_> = PcrIndex::quoted().collect();
            let quote = tpm.quote(PcrBank::Sha256, &pcrs, &nonce).await.unwrap();
            let key = tpm.attestation_key().await.unwrap().unwrap();
            assert_eq!(key.certificate_chain.len(), 1, "{location:?}");
            tpm.close().await.unwrap();

            let mut certificates = Pool::new();
            for certificate in [
                &key.certificate_chain[0],
                ca.intermediate().certificate(),
                ca.root().certificate(),
            ] {
                certificates.add(certificate).unwrap();
            }
            let pcrs = serde_json::json!({ quote.bank.to_string(): &quote.pcrs });
            let pcrs = PcrBanks::from_json(pcrs.to_string().as_bytes()).unwrap();
            let evidence = Evidence {
                message: &quote.attest,
                signature: &quote.signature,
                pcrs: &pcrs,
                certificates: &certificates,
                public: Some(&key.public),
            };
            let expected = Expected::new(anchors.clone(), Timestamp::now()).answering(nonce);
            let verified =
                verify(&evidence, &expected).unwrap_or_else(|error| panic!("{location:?}: {error}"));
            assert!(verified.is_simulated() && verified.answers_nonce());
            assert_eq!(verified.pcrs(), &quote.pcrs);
            assert!(verified.public_area().is_some());

            // It answers no other nonce, and is not believed without the root.
            let other = Expected::new(anchors.clone(), Timestamp::now()).answering([0; 32]);
            assert!(verify(&evidence, &other).is_err());
            let stranger = Expected::new(TrustAnchors::pinned(), Timestamp::now()).answering(nonce);
            assert!(verify(&evidence, &stranger).is_err());
        }
    }
}

#[tokio::test]
async fn the_state_of_a_provisioned_tpm_can_be_handed_on() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let parent = tempfile::tempdir().unwrap();
    let options = SwtpmOptions::new()
        .with_directory(parent.path().join("tpm"))
        .with_banks([PcrBank::Sha256]);
    let instance = SwtpmInstance::start(options).unwrap();
    let ca = TestCa::new().unwrap();
    let issuers = instance.provision(&ca, PlatformKey::like_gce()).await.unwrap();
    let location = PlatformKey::like_gce().location();
    let tpm = open(&instance, location, issuers.clone()).await.unwrap();
    let key = tpm.attestation_key().await.unwrap();
    tpm.close().await.unwrap();
    let pid = instance.pid().unwrap();
    let state = instance.into_state().unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    let names: Vec<_> = std::fs::read_dir(&state)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ".lock")
        .collect();
    assert_eq!(names, ["tpm2-00.permall"]);

    let instance = SwtpmInstance::resume(&state).unwrap();
    let tpm = open(&instance, location, issuers).await.unwrap();
    assert_eq!(tpm.attestation_key().await.unwrap(), key);
    assert_eq!(tpm.capabilities().banks, [PcrBank::Sha256]);
    tpm.close().await.unwrap();
    drop(instance);
    assert!(!state.exists());
}

#[tokio::test]
async fn what_is_missing_is_named() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let instance = start();
    let ca = TestCa::new().unwrap();
    let gce = PlatformKey::like_gce();
    let (gce_location, rsa_location) = (gce.location(), PlatformKey::like_gce_rsa().location());
    let refused = async |location| {
        let error = open(&instance, location, Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), TpmErrorKind::Unsupported, "{error}");
        let advice = error.advice().unwrap();
        // Where Compute Engine's keys would be.
        if error.message().starts_with("this TPM has no NV index 0x01c1000") {
            assert!(advice.contains("`confidential: true`"), "{advice}");
        } else {
            assert!(!advice.contains("confidential"), "{advice}");
        }
        error.message().to_owned()
    };
    assert_eq!(
        refused(gce_location).await,
        "this TPM has no NV index 0x01c10003: expected the template of the attestation key (TPMT_PUBLIC) there"
    );
    instance.provision(&ca, gce).await.unwrap();
    instance
        .provision(&ca, PlatformKey::like_gce_rsa())
        .await
        .unwrap();
    open(&instance, gce_location, Vec::new()).await.unwrap();
    open(&instance, rsa_location, Vec::new()).await.unwrap();

    let template = |template, certificate| KeyLocation::Template {
        template,
        certificate,
    };
    for (location, words) in [
        (
            template(0x01c1_0003, 0x01c1_00ff),
            "this TPM has no NV index 0x01c100ff: expected the certificate of the attestation key (X.509, DER) there",
        ),
        (
            template(0x01c1_0003, 0x01c1_0000),
            "the certificate in NV index 0x01c10000 of this TPM is not that of its attestation key: it certifies \
             another key, for \"CN=Simulated attestation key",
        ),
        (
            template(0x01c1_0001, 0x01c1_0002),
            "the certificate in NV index 0x01c10002 of this TPM is not that of its attestation key: it certifies \
             another key",
        ),
        (
            template(0x01c1_0003, 0x01c1_0001),
            "NV index 0x01c10001 of this TPM has no certificate of the attestation key",
        ),
        (
            template(0x01c1_0002, 0x01c1_0002),
            "NV index 0x01c10002 of this TPM has no template of an attestation key",
        ),
        (
            template(0x8100_0003, 0x01c1_0002),
            "0x81000003 is no NV index, which go from 0x01000000 to 0x01ffffff: expected the template",
        ),
        (
            KeyLocation::Persistent {
                handle: 0x8100_0003,
                certificate: 0x01c1_0002,
            },
            "there is no attestation key at 0x81000003 in this TPM",
        ),
        (
            KeyLocation::Persistent {
                handle: 0x01c1_0003,
                certificate: 0x01c1_0002,
            },
            "0x1c10003 is no persistent handle",
        ),
    ] {
        let message = refused(location).await;
        assert!(message.starts_with(words), "{message}");
    }
}
