//! The conformance suite of core, on a software TPM.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use aicert_core::conformance::tpm as suite;
use aicert_core::tpm::PcrBank;
use aicert_swtpm_testing::{KeyAlgorithm, SimulatedTpm, SimulationOptions, SwtpmOptions, skip_without};

async fn run(options: SimulationOptions) {
    if skip_without(&["swtpm"]) {
        return;
    }
    let tpm = SimulatedTpm::start(options).await.unwrap();
    suite::all(&tpm).await;
    // The backend itself, without the wrapper.
    suite::all(&tpm.second_client().await.unwrap()).await;
}

#[tokio::test]
async fn with_a_p256_key() {
    run(SimulationOptions::new(KeyAlgorithm::EccP256)).await;
}

#[tokio::test]
async fn with_an_rsa_key() {
    run(SimulationOptions::new(KeyAlgorithm::Rsa2048)).await;
}

#[tokio::test]
async fn with_one_bank() {
    let swtpm = SwtpmOptions::new().with_banks([PcrBank::Sha256]);
    run(SimulationOptions::new(KeyAlgorithm::EccP256).with_swtpm(swtpm)).await;
}
