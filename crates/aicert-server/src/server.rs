//! The server as a whole: from its configuration to its end.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aicert_core::api::{JobState, Provisioning};
use aicert_core::certificate::PlatformKind;
use aicert_core::digest::TlsKeyDigest;
use aicert_core::pipeline::Backends;
use aicert_core::tpm::{TpmBackend, TpmError};
use aicert_verify::chain::{is_issued_by, issuer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::ServerConfig;
use crate::idle::Activity;
use crate::job::Jobs;
use crate::lifetime;
use crate::listen;
use crate::routes;
use crate::state;
use crate::tls::{Identity, TlsError};

/// How often it is looked whether anybody is there; more often where there is less patience.
const IDLE_CHECK: Duration = Duration::from_secs(5);

/// Says why the server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The state folder cannot be used.
    #[error("the state folder {path:?} could not be {action}: {source}")]
    State {
        /// The folder, or what is in it.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// There is no TLS key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The TPM does not say which key it signs with.
    #[error("the TPM's attestation key could not be had: {0}")]
    Tpm(#[from] TpmError),
}

/// Why the server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// Nobody was there for as long as the provisioning says, and no job ran.
    Idle,
    /// Its client removed the job.
    Removed,
    /// The machine has existed for as long as the provisioning says, whatever ran.
    Lifetime,
    /// [`Stop::stop`] was called.
    Stopped,
}

/// Ends a server from outside.
#[derive(Debug, Clone)]
pub struct Stop(Arc<Ending>);

impl Stop {
    /// Ends the server: its job is stopped, and what is left of it is removed.
    pub fn stop(&self) {
        self.0.end(Ended::Stopped);
    }
}

/// That the server is to end, and why.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    token: CancellationToken,
    why: Mutex<Option<Ended>>,
}

impl Ending {
    /// The first reason counts.
    pub(crate) fn end(&self, why: Ended) {
        self.why
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(why);
        self.token.cancel();
    }

    pub(crate) async fn ending(&self) {
        self.token.cancelled().await;
    }

    fn why(&self) -> Ended {
        let why = *self.why.lock().unwrap_or_else(PoisonError::into_inner);
        why.unwrap_or(Ended::Stopped)
    }
}

/// What everything in the server shares.
pub(crate) struct App {
    pub(crate) config: ServerConfig,
    pub(crate) provisioning: Provisioning,
    pub(crate) backends: Backends,
    /// What the chain of the attestation key ends in; where it ends in nothing, what is missing.
    pub(crate) platform: Result<PlatformKind, String>,
    pub(crate) tls_key: TlsKeyDigest,
    pub(crate) jobs: Jobs,
    pub(crate) activity: Activity,
    pub(crate) ending: Arc<Ending>,
}

impl App {
    /// Where jobs have their folders.
    pub(crate) fn jobs_folder(&self) -> PathBuf {
        self.config.state.join(state::JOBS)
    }

    /// How long a stream may have nothing to say before it says so.
    pub(crate) fn pause(&self) -> Duration {
        let idle = Duration::from_secs(self.provisioning.idle_seconds);
        Duration::from_secs(15).min(idle / 2)
    }

    /// Returns when nobody has been there for too long.
    async fn idle(&self) {
        let limit = Duration::from_secs(self.provisioning.idle_seconds);
        loop {
            tokio::time::sleep(IDLE_CHECK.min(limit / 4)).await;
            let running = self
                .jobs
                .current()
                .is_some_and(|job| job.state() == JobState::Running);
            if !running && self.activity.idle() >= limit {
                return;
            }
        }
    }
}

/// What vouches for a TPM: what its certificates say, or, where it makes documents with certificates of their own, AWS, unless
/// the TPM itself says that it is a simulation. When its certificates end before a root: which one is missing. The platform
/// follows from the root, and a proof that guesses it can never be verified.
async fn platform(tpm: &dyn TpmBackend) -> Result<Result<PlatformKind, String>, TpmError> {
    let key = tpm.attestation_key().await?;
    Ok(match (key, tpm.capabilities()) {
        (Some(key), _) => match &key.certificate_chain[..] {
            [_, .., root] if is_issued_by(root, root) => Ok(aicert_verify::platform_of_root(root)),
            [] => Err("the certificate of the key itself".into()),
            [.., last] => {
                let name = issuer(last).unwrap_or_else(|| "no certificate that can be read".into());
                Err(format!("the certificate of {name:?}"))
            }
        },
        (None, capabilities) if capabilities.simulated => Ok(PlatformKind::LocalCa),
        (None, _) => Ok(PlatformKind::AwsNitroTpm),
    })
}

/// A server that is ready to listen.
pub struct Server {
    app: Arc<App>,
    identity: Identity,
}

impl Server {
    /// Prepares the state folder, makes the TLS key, and asks the TPM for the chain of its key. What a server that was
    /// killed left in the folder and in the container engine is removed.
    ///
    /// # Errors
    ///
    /// When the folder cannot be used, or the TPM does not answer.
    pub async fn new(
        config: ServerConfig,
        provisioning: Provisioning,
        backends: Backends,
    ) -> Result<Self, StartError> {
        state::prepare(&config.state, backends.runtime.as_ref()).await?;
        let platform = platform(backends.tpm.as_ref())
            .await?
            .map_err(|missing| config.missing_issuer.clone().unwrap_or(missing));
        let identity = Identity::generate()?;
        let app = App {
            config,
            provisioning,
            backends,
            platform,
            tls_key: identity.key,
            jobs: Jobs::default(),
            activity: Activity::new(),
            ending: Arc::default(),
        };
        Ok(Self {
            app: Arc::new(app),
            identity,
        })
    }

    /// SHA-256 of the public key of this server's connections.
    pub fn tls_key(&self) -> TlsKeyDigest {
        self.app.tls_key
    }

    /// What ends this server.
    pub fn stop_handle(&self) -> Stop {
        Stop(Arc::clone(&self.app.ending))
    }

    /// Serves until nobody is there any more, the job was removed, the machine's lifetime is over, or [`Stop::stop`] is called.
    pub async fn serve(self, listener: TcpListener) -> Ended {
        let Self { app, identity } = self;
        let router = routes::router(Arc::clone(&app));
        let connections = listen::Connections::new(
            app.config.limits.clone(),
            app.provisioning.client,
            app.activity.clone(),
            identity,
            router,
        );
        let accepting = listen::accept(Arc::new(connections), listener, Arc::clone(&app.ending));
        let watching = async {
            tokio::select! {
                () = app.idle() => app.ending.end(Ended::Idle),
                () = lifetime::over(&app) => app.ending.end(Ended::Lifetime),
                () = app.ending.ending() => {}
            }
            if app.ending.why() != Ended::Removed
                && let Some(job) = app.jobs.current()
            {
                Arc::clone(job).remove(app.backends.clone()).await;
            }
        };
        tokio::join!(accepting, watching);
        app.ending.why()
    }
}
