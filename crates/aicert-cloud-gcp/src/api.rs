//! Google's clients: made when they are first needed, and everything that is asked of them, asked again where that helps.

mod credentials;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aicert_cloud_common::Waits;
use aicert_core::cloud::CloudErrorKind;
use aicert_core::progress::Progress;
use google_cloud_auth::build_errors;
use google_cloud_auth::credentials::Credentials;
use google_cloud_compute_v1::client::{
    Firewalls, GlobalOperations, Images, Instances, MachineTypes, ZoneOperations,
};
use google_cloud_gax::client_builder;
use google_cloud_gax::error::Error as GaxError;
use google_cloud_gax::retry_policy::NeverRetry;
use tokio::sync::Mutex;

use crate::config::GcpConfig;
use crate::error::Fault;
use credentials::Renewable;

/// A project, as somebody with credentials sees it. Copies share their clients.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) config: GcpConfig,
    clients: Arc<Mutex<Option<Arc<Clients>>>>,
    waits: Waits,
}

/// Clients that use the same credentials.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) firewalls: Firewalls,
    pub(crate) global_operations: GlobalOperations,
    pub(crate) images: Images,
    pub(crate) instances: Instances,
    pub(crate) machine_types: MachineTypes,
    pub(crate) zone_operations: ZoneOperations,
    pub(crate) credentials: Credentials,
    renewable: Renewable,
    pub(crate) http: reqwest::Client,
}

/// What a request comes back with.
pub(crate) trait IntoFault {
    fn into_fault(self, doing: &str) -> Fault;
}

impl IntoFault for GaxError {
    fn into_fault(self, doing: &str) -> Fault {
        Fault::of(doing, self)
    }
}

impl IntoFault for Fault {
    fn into_fault(self, _: &str) -> Fault {
        self
    }
}

impl Api {
    pub(crate) fn new(config: GcpConfig) -> Self {
        Self {
            config,
            clients: Arc::default(),
            waits: Waits::silent(),
        }
    }

    /// The same, which tells there what goes wrong for long.
    pub(crate) fn telling(&self, progress: &Progress) -> Self {
        Self {
            waits: Waits::told_to(progress),
            ..self.clone()
        }
    }

    pub(crate) fn project(&self) -> &str {
        &self.config.project
    }

    /// Asks, and asks again what may succeed later; so what is asked must be idempotent. Credentials that are refused are made
    /// anew once: those of a session that is older than they are.
    pub(crate) async fn ask<T, E, F>(
        &self,
        doing: &str,
        request: impl Fn(Arc<Clients>) -> F + Send + Sync,
    ) -> Result<T, Fault>
    where
        E: IntoFault,
        F: Future<Output = Result<T, E>> + Send,
    {
        let renewed = AtomicBool::new(false);
        let pace = self.config.paces.request;
        self.waits
            .retry(pace, || async {
                let clients = self.clients(doing).await?;
                let used = clients.renewable.number();
                let fault = match request(Arc::clone(&clients)).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => error.into_fault(doing),
                };
                if fault.is_unauthenticated() && !renewed.swap(true, Ordering::Relaxed) {
                    clients
                        .renewable
                        .renew(used)
                        .map_err(|error| unusable_credentials(doing, &error))?;
                    return Err(fault.passing());
                }
                Err(fault)
            })
            .await
            .map_err(|error| Fault::waited(doing, error))
    }

    /// The same, for what need not be there.
    pub(crate) async fn find<T, E, F>(
        &self,
        doing: &str,
        request: impl Fn(Arc<Clients>) -> F + Send + Sync,
    ) -> Result<Option<T>, Fault>
    where
        E: IntoFault,
        F: Future<Output = Result<T, E>> + Send,
    {
        match self.ask(doing, request).await {
            Ok(found) => Ok(Some(found)),
            Err(fault) if fault.is_absent() => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    async fn clients(&self, doing: &str) -> Result<Arc<Clients>, Fault> {
        let mut clients = self.clients.lock().await;
        if let Some(clients) = &*clients {
            return Ok(Arc::clone(clients));
        }
        // Google's clients take whichever there is, and end the process when there is none.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(
                Fault::new(doing, CloudErrorKind::Failed, "this process has no provider of TLS").advise(
                    "a program installs one first thing: `rustls::crypto::ring::default_provider().install_default()`",
                ),
            );
        }
        let made = Arc::new(Clients::new(&self.config, doing).await?);
        *clients = Some(Arc::clone(&made));
        Ok(made)
    }
}

/// Every client is made the same way, by a builder of a type of its own.
macro_rules! client {
    ($kind:ty, $config:expr, $credentials:expr, $doing:expr) => {{
        let mut builder = <$kind>::builder()
            .with_credentials($credentials.clone())
            // Repeated here, with one patience for all of it.
            .with_retry_policy(NeverRetry)
            .with_attempt_timeout($config.paces.attempt);
        if let Some(endpoint) = &$config.compute_endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        builder.build().await.map_err(|error| unusable($doing, &error))?
    }};
}

impl Clients {
    async fn new(config: &GcpConfig, doing: &str) -> Result<Self, Fault> {
        let renewable = Renewable::new(config.credentials.clone())
            .map_err(|error| unusable_credentials(doing, &error))?;
        let credentials = Credentials::from(renewable.clone());
        let http = reqwest::Client::builder()
            .http1_only()
            .timeout(config.paces.attempt)
            .build()
            .map_err(|error| Fault::new(doing, CloudErrorKind::Failed, error.to_string()))?;
        Ok(Self {
            firewalls: client!(Firewalls, config, credentials, doing),
            global_operations: client!(GlobalOperations, config, credentials, doing),
            images: client!(Images, config, credentials, doing),
            instances: client!(Instances, config, credentials, doing),
            machine_types: client!(MachineTypes, config, credentials, doing),
            zone_operations: client!(ZoneOperations, config, credentials, doing),
            credentials,
            renewable,
            http,
        })
    }
}

fn unusable_credentials(doing: &str, error: &build_errors::Error) -> Fault {
    Fault::new(
        doing,
        CloudErrorKind::PermissionDenied,
        format!("there are no usable credentials: {error}"),
    )
    .advise("log in with `gcloud auth application-default login`, or name a key file in `GOOGLE_APPLICATION_CREDENTIALS`")
}

fn unusable(doing: &str, error: &client_builder::Error) -> Fault {
    let kind = if error.is_default_credentials() {
        CloudErrorKind::PermissionDenied
    } else {
        CloudErrorKind::Failed
    };
    Fault::new(doing, kind, error.to_string())
}
