//! The stand-ins of the three clouds, with one face.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use aicert_cloud_testing::aws::{self, AwsCloud};
use aicert_cloud_testing::azure::{self, Azure};
use aicert_cloud_testing::gcp::{self, Google};

/// What the command must not find in the environment of whoever runs the tests.
pub(crate) const CREDENTIALS: [&str; 14] = [
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_SUBSCRIPTION_ID",
    "AZURE_TENANT_ID",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_CLOUD_PROJECT",
    "GOOGLE_CLOUD_QUOTA_PROJECT",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
];

pub(crate) enum StandIn {
    Aws { cloud: AwsCloud, image: String },
    Azure(Azure),
    Gcp(Google),
}

impl StandIn {
    /// Starts one, and leaves credentials for it in a folder; nothing when a tool is missing.
    pub(crate) async fn start(name: &str, folder: &Path) -> Option<Self> {
        Some(match name {
            "aws" => {
                let cloud = AwsCloud::start().await?;
                let image = cloud.image(&[]).await;
                Self::Aws { cloud, image }
            }
            "azure" => {
                log_in_with_az(folder);
                Self::Azure(Azure::start(azure::Settings::default())?)
            }
            "gcp" => {
                log_in_with_gcloud(folder);
                Self::Gcp(Google::start().await?)
            }
            other => panic!("there is no cloud {other}"),
        })
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Aws { .. } => "aws",
            Self::Azure(_) => "azure",
            Self::Gcp(_) => "gcp",
        }
    }

    /// The keys of a machine in it.
    pub(crate) fn machine(&self) -> String {
        match self {
            Self::Aws { image, .. } => {
                format!("provider: aws, region: {}, image: {image}", AwsCloud::REGION)
            }
            Self::Azure(_) => format!(
                "provider: azure, subscription: {}, region: westeurope, image: {}",
                azure::SUBSCRIPTION,
                azure::IMAGE
            ),
            Self::Gcp(_) => format!(
                "provider: gcp, project: {}, zone: europe-west4-a, image: '{}'",
                gcp::PROJECT,
                gcp::IMAGE
            ),
        }
    }

    /// The options that say where images are put in it.
    pub(crate) fn destination(&self) -> Vec<&'static str> {
        match self {
            Self::Aws { .. } => vec!["--provider", "aws", "--region", AwsCloud::REGION],
            Self::Azure(_) => vec![
                "--provider",
                "azure",
                "--subscription",
                azure::SUBSCRIPTION,
                "--region",
                "westeurope",
            ],
            Self::Gcp(_) => vec![
                "--provider",
                "gcp",
                "--project",
                gcp::PROJECT,
                "--bucket",
                gcp::BUCKET,
            ],
        }
    }

    /// What the command needs to find it.
    pub(crate) fn environment(&self, folder: &Path) -> Vec<(&'static str, String)> {
        match self {
            Self::Aws { cloud, .. } => cloud.environment(),
            Self::Azure(cloud) => {
                let path = std::env::var("PATH").unwrap_or_default();
                vec![
                    ("AICERT_AZURE_ENDPOINT", cloud.endpoint()),
                    ("PATH", format!("{}:{path}", folder.join("bin").display())),
                ]
            }
            Self::Gcp(cloud) => vec![
                ("AICERT_GCP_ENDPOINT", cloud.url().to_owned()),
                (
                    "GOOGLE_APPLICATION_CREDENTIALS",
                    folder.join("adc.json").display().to_string(),
                ),
            ],
        }
    }

    /// Carries out a request of those to come, and does not answer it.
    pub(crate) fn pause_at(&self, number: usize) {
        match self {
            Self::Aws { cloud, .. } => {
                let when = aws::When::Request(number as u64 - 1);
                cloud.inject(when, aws::Fault::Pause { carried_out: true });
            }
            Self::Azure(cloud) => cloud.fault(azure::Fault {
                operation: None,
                number: cloud.seen().len() + number,
                effect: azure::Effect::Pause,
            }),
            Self::Gcp(cloud) => cloud.pause_at(cloud.count() + number),
        }
    }

    /// Waits for that request; false when `ended` comes before it.
    pub(crate) async fn paused(&self, ended: impl Future<Output = ()>) -> bool {
        match self {
            Self::Aws { cloud, .. } => tokio::select! {
                () = cloud.paused() => true,
                () = ended => false,
            },
            Self::Azure(cloud) => {
                let mut ended = pin!(ended);
                loop {
                    tokio::select! {
                        () = &mut ended => return false,
                        () = tokio::time::sleep(Duration::from_millis(5)) => {}
                    }
                    if cloud.await_pause(Duration::ZERO) {
                        return true;
                    }
                }
            }
            Self::Gcp(cloud) => cloud.paused(ended).await,
        }
    }

    /// Answers everything from here on.
    pub(crate) fn go_on(&self) {
        match self {
            Self::Aws { cloud, .. } => cloud.forgive(),
            Self::Azure(cloud) => {
                cloud.forgive();
                cloud.release();
            }
            Self::Gcp(cloud) => cloud.pause_at(usize::MAX),
        }
    }

    /// What was made and is there.
    pub(crate) async fn left(&self) -> Vec<String> {
        match self {
            Self::Aws { cloud, image } => {
                let mut left = cloud.left().await;
                left.retain(|id| id != image);
                left
            }
            Self::Azure(cloud) => cloud.left(),
            Self::Gcp(cloud) => cloud.resources(),
        }
    }

    /// Fails when a request was against the vendor's definitions.
    pub(crate) fn assert_clean(&self) {
        match self {
            Self::Aws { cloud, .. } => assert_eq!(cloud.violations(), Vec::<String>::new()),
            Self::Azure(cloud) => cloud.assert_clean(),
            Self::Gcp(cloud) => cloud.assert_clean(),
        }
    }
}

/// A command `az` that is logged in.
fn log_in_with_az(folder: &Path) {
    let bin = folder.join("bin");
    fs::create_dir(&bin).unwrap();
    let answer = serde_json::json!({
        "accessToken": azure::TOKEN,
        "expires_on": 4_102_444_800_i64,
        "subscription": azure::SUBSCRIPTION,
        "tenant": azure::SUBSCRIPTION,
        "tokenType": "Bearer",
    });
    let script = bin.join("az");
    fs::write(&script, format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
}

/// What `gcloud auth application-default login` leaves, and a service that gives tokens for it.
fn log_in_with_gcloud(folder: &Path) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 8192]);
            let body = r#"{"access_token": "token-1", "expires_in": 3600, "token_type": "Bearer"}"#;
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    let credentials = serde_json::json!({
        "type": "authorized_user",
        "client_id": "client",
        "client_secret": "secret",
        "refresh_token": "refresh",
        "token_uri": format!("http://{address}/token"),
    });
    fs::write(folder.join("adc.json"), credentials.to_string()).unwrap();
}
