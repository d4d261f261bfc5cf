//! The runtime: what the trait asks for, each in its own module.

use std::collections::BTreeSet;

use aicert_core::digest::ImageDigest;
use aicert_core::event::{Gpu, Package};
use aicert_core::progress::Progress;
use aicert_core::runtime::{
    BuildRequest, DependencyRequest, ExecutionReport, ExecutionRequest, JobId, ResolvedImage, Runtime,
    RuntimeCapabilities, RuntimeError, RuntimeErrorKind,
};
use aicert_core::spec::{GpuRequest, ImageSpec};
use async_trait::async_trait;
use tokio::sync::OnceCell;

use crate::cache::Cache;
use crate::config::DockerConfig;
use crate::engine::Engine;
use crate::error::Fault;
use crate::owner::{self, JOB_LABEL, OWNER_LABEL};
use crate::{dependencies, gpu, image, install, run};

/// Runs jobs in containers of a Docker Engine on this machine.
///
/// It connects when it is first used; one value serves any number of jobs at the same time.
#[derive(Debug)]
pub struct DockerRuntime {
    config: DockerConfig,
    capabilities: RuntimeCapabilities,
    engine: OnceCell<Engine>,
}

impl DockerRuntime {
    /// A runtime that is not connected yet.
    pub fn new(config: DockerConfig) -> Self {
        Self {
            config,
            capabilities: RuntimeCapabilities {
                gpus: cfg!(feature = "nvidia"),
                python: true,
            },
            engine: OnceCell::new(),
        }
    }

    async fn engine(&self) -> Result<&Engine, RuntimeError> {
        self.engine
            .get_or_try_init(|| Engine::connect(&self.config))
            .await
    }

    fn cache(&self) -> Result<Option<Cache>, Fault> {
        let open = |directory| Cache::open(directory, self.config.cache_expiry, self.config.cache_entries);
        self.config.cache_dir.as_deref().map(open).transpose()
    }
}

#[async_trait]
impl Runtime for DockerRuntime {
    fn capabilities(&self) -> &RuntimeCapabilities {
        &self.capabilities
    }

    async fn check(&self) -> Result<(), RuntimeError> {
        self.engine().await.map(|_| ())
    }

    async fn gpus(&self, request: &GpuRequest) -> Result<Vec<Gpu>, RuntimeError> {
        Ok(gpu::find(self.engine().await?, request).await?)
    }

    async fn resolve_image(
        &self,
        image: &ImageSpec,
        progress: &Progress,
    ) -> Result<ResolvedImage, RuntimeError> {
        Ok(image::resolve(self.engine().await?, &self.config, image, progress).await?)
    }

    async fn resolve_dependencies(&self, request: DependencyRequest) -> Result<Vec<Package>, RuntimeError> {
        Ok(dependencies::resolve(self.engine().await?, self.cache()?.as_ref(), request).await?)
    }

    async fn build(&self, request: BuildRequest) -> Result<ImageDigest, RuntimeError> {
        Ok(install::build(self.engine().await?, self.cache()?.as_ref(), request).await?)
    }

    async fn default_command(&self, image: ImageDigest) -> Result<Vec<String>, RuntimeError> {
        let config = self
            .engine()
            .await?
            .image_by_digest(image)
            .await?
            .config
            .unwrap_or_default();
        let mut command = config.entrypoint.unwrap_or_default();
        command.extend(config.cmd.unwrap_or_default());
        if command.is_empty() {
            return Err(RuntimeError::new(
                RuntimeErrorKind::NotFound,
                format!("the image {image} has neither an entry point nor a command"),
            )
            .with_advice("name the command to run as `command` in the configuration"));
        }
        Ok(command)
    }

    async fn run(&self, request: ExecutionRequest) -> Result<ExecutionReport, RuntimeError> {
        Ok(run::run(self.engine().await?, request).await?)
    }

    async fn clean_up(&self, job: &JobId) -> Result<(), RuntimeError> {
        Ok(self.engine().await?.clean_up(job).await?)
    }

    async fn leftovers(&self) -> Result<Vec<JobId>, RuntimeError> {
        let found = self.engine().await?.labelled(None).await?;
        let jobs: BTreeSet<JobId> = found
            .containers
            .iter()
            .chain(&found.images)
            .filter(|(_, labels)| owner::is_abandoned(labels.get(OWNER_LABEL).map(String::as_str)))
            .filter_map(|(_, labels)| labels.get(JOB_LABEL)?.parse().ok())
            .collect();
        Ok(jobs.into_iter().collect())
    }
}
