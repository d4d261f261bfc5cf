//! Talking to Amazon: clients, credentials, and trying again.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aicert_cloud_common::{Pace, WaitError, Waits};
use aicert_core::progress::Progress;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::tls;
use tokio::sync::Mutex;

use crate::config::AwsConfig;
use crate::error::Failure;

/// The clients of one region, with credentials that are looked for when they are first needed.
pub(crate) struct Account {
    pub(crate) config: AwsConfig,
    clients: Arc<Mutex<Option<Clients>>>,
    waits: Waits,
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
            waits: Waits::silent(),
        }
    }

    /// The same account, for somebody who is told what is tried again.
    pub(crate) fn telling(&self, progress: &Progress) -> Self {
        Self {
            config: self.config.clone(),
            clients: Arc::clone(&self.clients),
            waits: Waits::told_to(progress),
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
        loop {
            let answer = self
                .waits
                // In a box, as the futures of the SDK are within each other too deep for the compiler's patience.
                .retry(pace, || {
                    Box::pin(async {
                        send(self.clients().await)
                            .await
                            .map_err(|error| Failure::of(operation, &self.config.region, &error, &passes))
                    })
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
