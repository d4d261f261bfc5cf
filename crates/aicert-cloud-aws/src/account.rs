//! Talking to Amazon: clients, credentials, and trying again.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aicert_cloud_common::{Pace, Transient as _, WaitError};
use aicert_core::progress::{Progress, ProgressEvent};
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::tls;
use tokio::sync::Mutex;

use crate::config::AwsConfig;
use crate::error::Failure;
use crate::instance::lock;

/// What part of the patience for an answer passes before it is said that something is tried again: two seconds of two minutes.
const SAID_AFTER: u32 = 60;

/// The clients of one region, with credentials that are looked for when they are first needed.
pub(crate) struct Account {
    pub(crate) config: AwsConfig,
    clients: Arc<Mutex<Option<Clients>>>,
    progress: Progress,
}

#[derive(Clone)]
pub(crate) struct Clients {
    pub(crate) ec2: aws_sdk_ec2::Client,
    pub(crate) ebs: aws_sdk_ebs::Client,
}

impl Account {
    pub(crate) fn new(config: AwsConfig) -> Self {
        Self {
            config,
            clients: Arc::default(),
            progress: Progress::ignored(),
        }
    }

    /// The same account, for somebody who is told what is tried again.
    pub(crate) fn telling(&self, progress: &Progress) -> Self {
        Self {
            config: self.config.clone(),
            clients: Arc::clone(&self.clients),
            progress: progress.clone(),
        }
    }

    /// Calls an operation, through errors that pass. What is called must be idempotent, or safe to be refused the second time.
    pub(crate) async fn call<T, E, F, Fut>(&self, operation: &'static str, send: F) -> Result<T, Failure>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
        F: Fn(Clients) -> Fut,
        Fut: Future<Output = Result<T, SdkError<E>>>,
    {
        self.call_at(self.config.patience.answer, operation, |_, _| false, send)
            .await
    }

    /// The same, taking errors of these codes and messages for such as pass.
    pub(crate) async fn call_at<T, E, F, Fut>(
        &self,
        pace: Pace,
        operation: &'static str,
        passes: impl Fn(&str, &str) -> bool,
        send: F,
    ) -> Result<T, Failure>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
        F: Fn(Clients) -> Fut,
        Fut: Future<Output = Result<T, SdkError<E>>>,
    {
        let mut renewed = false;
        let begun = Instant::now();
        let silent = std::sync::Mutex::new(pace.limit / SAID_AFTER);
        let tell = |failure: &Failure| {
            let mut silent = lock(&silent);
            if failure.again().is_some() && begun.elapsed() >= *silent {
                // Less and less often: the next time may be after minutes.
                *silent = begun.elapsed() * 4;
                let message = format!(
                    "{failure}; it is tried again for up to {} s",
                    pace.limit.as_secs()
                );
                self.progress.send(ProgressEvent::Warning { message });
            }
        };
        loop {
            let answer = pace
                .retry(|| async {
                    let clients = self.clients().await;
                    send(clients)
                        .await
                        .map_err(|error| Failure::of(operation, &self.config.region, &error, &passes))
                        .inspect_err(tell)
                })
                .await;
            let failure = match answer {
                Ok(answer) => return Ok(answer),
                Err(WaitError::Failed(failure)) => failure,
                Err(WaitError::TooLong { waited }) => {
                    return Err(Failure::TooLong {
                        what: format!("{operation} was not answered"),
                        waited,
                    });
                }
            };
            // Whoever gave the credentials may have newer ones: those that the SDK keeps seemed good until now.
            if !failure.is_expired() || renewed {
                return Err(failure);
            }
            renewed = true;
            *self.clients.lock().await = None;
        }
    }

    async fn clients(&self) -> Clients {
        let mut clients = self.clients.lock().await;
        if let Some(clients) = &*clients {
            return clients.clone();
        }
        let made = self.connect().await;
        *clients = Some(made.clone());
        made
    }

    async fn connect(&self) -> Clients {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
            .build_https();
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(10))
            .operation_attempt_timeout(Duration::from_secs(60))
            .build();
        let config = &self.config;
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .region(Region::new(config.region.clone()))
            // One place decides what is tried again, and for how long: `call`.
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        if let Some(endpoint) = &config.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some(credentials) = &config.credentials {
            loader = loader.credentials_provider(credentials.clone());
        }
        let loaded = loader.load().await;
        Clients {
            ec2: aws_sdk_ec2::Client::new(&loaded),
            ebs: aws_sdk_ebs::Client::new(&loaded),
        }
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
