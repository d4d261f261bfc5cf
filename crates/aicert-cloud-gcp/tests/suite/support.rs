//! What the tests have in common.

use std::sync::Arc;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aicert_cloud_common::Pace;
use aicert_cloud_gcp::{CredentialsSource, GcpConfig, GcpPaces, GcpProvider};
use aicert_cloud_testing::gcp::{Google, IMAGE, PROJECT};
use aicert_core::cloud::MachineRequest;
use aicert_core::digest::ClientDigest;
use aicert_core::progress::Progress;
use aicert_core::spec::{CloudMachine, GcpMachine};
use google_cloud_auth::credentials::{CacheableResource, Credentials, CredentialsProvider, EntityTag};
use google_cloud_auth::errors::CredentialsError;
use http::{Extensions, HeaderMap, HeaderValue};

pub(crate) const ZONE: &str = "europe-west4-a";

/// Credentials with a name; new ones have another.
#[derive(Debug)]
struct Token(u32);

impl CredentialsProvider for Token {
    async fn headers(&self, _: Extensions) -> Result<CacheableResource<HeaderMap>, CredentialsError> {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::try_from(format!("Bearer token-{}", self.0)).unwrap();
        headers.insert(http::header::AUTHORIZATION, value);
        Ok(CacheableResource::New {
            entity_tag: EntityTag::new(),
            data: headers,
        })
    }

    async fn universe_domain(&self) -> Option<String> {
        None
    }
}

pub(crate) fn credentials() -> CredentialsSource {
    let count = Arc::new(AtomicU32::new(0));
    CredentialsSource::new(move || Ok(Credentials::from(Token(count.fetch_add(1, Ordering::Relaxed)))))
}

pub(crate) fn paces() -> GcpPaces {
    let pace = |first, longest, limit| {
        let [first, longest, limit] = [first, longest, limit].map(Duration::from_millis);
        Pace::new(first, longest, limit)
    };
    let mut paces = GcpPaces::default();
    paces.attempt = Duration::from_millis(250);
    paces.request = pace(1, 10, 10_000);
    paces.operation = pace(1, 5, 10_000);
    paces.settle = pace(2, 8, 80);
    paces
}

pub(crate) fn machine() -> GcpMachine {
    GcpMachine {
        project: PROJECT.into(),
        zone: ZONE.into(),
        network: None,
        confidential: true,
        machine: CloudMachine {
            image: IMAGE.into(),
            reference_values: "unused".into(),
            instance_type: None,
            disk: 32 << 30,
            spot: false,
            access: Vec::new(),
            lifetime: Duration::from_secs(3600),
            boot_limit: Duration::from_secs(300),
            issuers: Vec::new(),
        },
    }
}

pub(crate) fn config(url: &str, machine: GcpMachine) -> GcpConfig {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    GcpConfig::new(PROJECT, "ada".parse().unwrap())
        .with_machine(machine)
        .with_endpoint(url)
        .with_credentials(credentials())
        .with_paces(paces())
}

pub(crate) fn provider(google: &Google) -> GcpProvider {
    GcpProvider::new(config(google.url(), machine()))
}

pub(crate) fn request(job: &str) -> MachineRequest {
    MachineRequest {
        job: job.parse().unwrap(),
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
