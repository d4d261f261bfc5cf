//! What the tests of this crate have in common.
#![allow(dead_code, unreachable_pub, reason = "each test uses some of it")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aicert_cloud_azure::{AzureConfig, AzureProvider, Patience, TokenCredential};
use aicert_cloud_common::Pace;
use aicert_cloud_testing::azure::{Azure, IMAGE, SUBSCRIPTION};
use aicert_core::cloud::MachineRequest;
use aicert_core::digest::ClientDigest;
use aicert_core::progress::Progress;
use aicert_core::runtime::JobId;
use aicert_core::spec::{AzureMachine, CloudMachine};
use azure_core_now::credentials::{AccessToken, TokenRequestOptions};

/// Gives `token-1`, then `token-2`, and so on.
#[derive(Debug, Default)]
pub struct Tokens(AtomicUsize);

#[async_trait::async_trait]
impl TokenCredential for Tokens {
    async fn get_token(
        &self,
        scopes: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core_now::Result<AccessToken> {
        assert!(
            scopes.len() == 1 && scopes[0].ends_with("/.default"),
            "{scopes:?}"
        );
        let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        let expires = time::OffsetDateTime::now_utc() + time::Duration::hours(1);
        Ok(AccessToken::new(format!("token-{number}"), expires))
    }
}

pub fn patience() -> Patience {
    let pace = Pace::new(
        Duration::from_millis(1),
        Duration::from_millis(10),
        Duration::from_secs(4),
    );
    Patience {
        request: pace,
        operation: pace,
        removal: pace,
    }
}

pub fn machine() -> AzureMachine {
    AzureMachine {
        subscription: SUBSCRIPTION.into(),
        region: "westeurope".into(),
        confidential: false,
        machine: CloudMachine {
            image: IMAGE.into(),
            reference_values: "r.json".into(),
            instance_type: None,
            disk: (64 << 30) + 1,
            spot: false,
            access: Vec::new(),
            lifetime: Duration::from_secs(3600),
            boot_limit: Duration::from_secs(600),
            issuers: Vec::new(),
        },
    }
}

pub fn config_at(endpoint: &str) -> AzureConfig {
    AzureConfig::new(SUBSCRIPTION, "ada".parse().unwrap())
        .with_machine(machine())
        .with_endpoint(endpoint)
        .with_patience(patience())
        .with_credential(Arc::new(Tokens::default()))
}

pub fn config(azure: &Azure) -> AzureConfig {
    config_at(&azure.endpoint())
}

pub fn provider(azure: &Azure) -> AzureProvider {
    AzureProvider::new(config(azure)).unwrap()
}

pub fn job(name: &str) -> JobId {
    name.parse().unwrap()
}

pub fn request(name: &str) -> MachineRequest {
    MachineRequest {
        job: job(name),
        instance_type: None,
        region: None,
        client: Some(ClientDigest::from_bytes([7; 32])),
        access: vec!["198.51.100.7".parse().unwrap()],
        gpus: 0,
        idle: Duration::from_secs(600),
        lifetime: Some(Duration::from_secs(3600)),
        progress: Progress::ignored(),
    }
}
