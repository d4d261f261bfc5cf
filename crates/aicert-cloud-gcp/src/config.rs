//! Which project, whose machines, what machines, and how Google is asked.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aicert_cloud_common::{Owner, Pace};
use aicert_core::spec::GcpMachine;
use google_cloud_auth::build_errors;
use google_cloud_auth::credentials::Credentials;

/// The configuration of a [`GcpProvider`](crate::GcpProvider) and of a [`GcpPublisher`](crate::GcpPublisher).
#[derive(Debug, Clone)]
pub struct GcpConfig {
    pub(crate) project: String,
    pub(crate) owner: Owner,
    pub(crate) machine: Option<GcpMachine>,
    pub(crate) compute_endpoint: Option<String>,
    pub(crate) storage_endpoint: String,
    pub(crate) credentials: CredentialsSource,
    pub(crate) paces: GcpPaces,
}

/// How long answers are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcpPaces {
    /// How long one answer may take.
    pub attempt: Duration,
    /// How a request is repeated that may succeed later.
    pub request: Pace,
    /// How an operation is waited for: making a machine, deleting it, importing an image.
    pub operation: Pace,
    /// How long it is looked again for what may have been made and does not show yet.
    pub settle: Pace,
}

impl Default for GcpPaces {
    fn default() -> Self {
        let pace = |first, longest, limit| {
            Pace::new(
                Duration::from_millis(first),
                Duration::from_secs(longest),
                Duration::from_secs(limit),
            )
        };
        Self {
            attempt: Duration::from_secs(60),
            request: pace(1000, 20, 180),
            operation: pace(1000, 5, 900),
            settle: pace(500, 2, 6),
        }
    }
}

/// Where credentials come from: they are made when they are first needed, and made anew when Google refuses those.
#[derive(Clone)]
pub struct CredentialsSource(Arc<dyn Fn() -> Result<Credentials, build_errors::Error> + Send + Sync>);

impl CredentialsSource {
    /// Application Default Credentials: the file that `GOOGLE_APPLICATION_CREDENTIALS` names, what `gcloud auth
    /// application-default login` has left, or the metadata server of Google's own machines; workload identity federation
    /// among them.
    pub fn application_default() -> Self {
        Self::new(|| {
            google_cloud_auth::credentials::Builder::default()
                .with_scopes(["https://www.googleapis.com/auth/cloud-platform"])
                .build()
        })
    }

    /// Those that the embedder makes.
    pub fn new(make: impl Fn() -> Result<Credentials, build_errors::Error> + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    pub(crate) fn make(&self) -> Result<Credentials, build_errors::Error> {
        (self.0)()
    }
}

impl fmt::Debug for CredentialsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialsSource")
    }
}

impl GcpConfig {
    /// Machines of `owner` in the project with that id (not its number). Without [`with_machine`](Self::with_machine),
    /// machines can be listed, looked at and destroyed, and none made.
    pub fn new(project: impl Into<String>, owner: Owner) -> Self {
        Self {
            project: project.into(),
            owner,
            machine: None,
            compute_endpoint: None,
            storage_endpoint: "https://storage.googleapis.com".into(),
            credentials: CredentialsSource::application_default(),
            paces: GcpPaces::default(),
        }
    }

    /// Makes machines like this.
    #[must_use]
    pub fn with_machine(mut self, machine: GcpMachine) -> Self {
        self.machine = Some(machine);
        self
    }

    /// Uses another address for Compute Engine and Cloud Storage alike, such as `https://compute-x.p.googleapis.com` of
    /// Private Service Connect.
    #[must_use]
    pub fn with_endpoint(mut self, url: impl Into<String>) -> Self {
        let url = url.into();
        self.storage_endpoint = url.trim_end_matches('/').to_owned();
        self.compute_endpoint = Some(url);
        self
    }

    /// Uses another address for Cloud Storage.
    #[must_use]
    pub fn with_storage_endpoint(mut self, url: impl Into<String>) -> Self {
        self.storage_endpoint = url.into().trim_end_matches('/').to_owned();
        self
    }

    /// Uses other credentials than the default ones.
    #[must_use]
    pub fn with_credentials(mut self, credentials: CredentialsSource) -> Self {
        self.credentials = credentials;
        self
    }

    /// Waits otherwise.
    #[must_use]
    pub fn with_paces(mut self, paces: GcpPaces) -> Self {
        self.paces = paces;
        self
    }
}
