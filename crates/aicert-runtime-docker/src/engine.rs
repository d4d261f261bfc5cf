//! The connection to the engine, and what it is able to do.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aicert_core::digest::ImageDigest;
use aicert_core::runtime::{JobId, RuntimeError, RuntimeErrorKind};
use bollard::Docker;
use bollard::models::{ContainerCreateBody, ImageInspect, SystemInfo};
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
};
use tokio::sync::RwLock;

use crate::config::DockerConfig;
use crate::error::{Doing as _, Fault, unreachable_engine};
use crate::owner::{JOB_LABEL, OWNER_LABEL, Owner};

/// Docker 20.10; older engines lack what the sandbox needs.
const OLDEST_API: (usize, usize) = (1, 41);
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
/// Committing or loading an image of many gigabytes takes minutes, and the engine answers only then.
const TIMEOUT: Duration = Duration::from_secs(60 * 60);
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);
/// How often an engine that is starting is asked.
const START_PERIOD: Duration = Duration::from_millis(250);

/// A connection to an engine that was found usable.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) docker: Docker,
    pub(crate) facts: Facts,
    /// The engine's socket, which no container may see.
    pub(crate) socket: Option<PathBuf>,
    /// Held shared while something is created, exclusively while a job is cleaned up: what a dropped future had asked
    /// the engine for is there, and found, before cleaning starts.
    creating: Arc<RwLock<()>>,
}

/// What the engine is able to do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// Whether the root of a container is the user that the engine runs as.
    pub(crate) rootless: bool,
    pub(crate) memory_limit: bool,
    pub(crate) process_limit: bool,
    pub(crate) init: bool,
    pub(crate) nvidia_runtime: bool,
    pub(crate) memory: u64,
}

impl Engine {
    /// Connects, and checks that the engine can do what the contract asks for. One that does not answer is waited for as
    /// long as the configuration says.
    pub(crate) async fn connect(config: &DockerConfig) -> Result<Self, RuntimeError> {
        let begun = Instant::now();
        loop {
            match Self::try_connect(config).await {
                Err(error)
                    if error.kind() == RuntimeErrorKind::Unavailable
                        && begun.elapsed() < config.start_limit =>
                {
                    tokio::time::sleep(START_PERIOD).await;
                }
                result => return result,
            }
        }
    }

    async fn try_connect(config: &DockerConfig) -> Result<Self, RuntimeError> {
        let host = config
            .host
            .clone()
            .or_else(|| std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()))
            .unwrap_or_else(|| DEFAULT_HOST.into());
        let socket = check_host(&host).await?;
        let docker =
            Docker::connect_with_host(&host).doing(format!("connect to the Docker engine at {host}"))?;
        let asked = async {
            let docker = docker.with_timeout(CHECK_TIMEOUT).negotiate_version().await?;
            let info = docker.info().await?;
            Ok((docker, info))
        };
        let (docker, info) = asked.await.doing(format!("reach the Docker engine at {host}"))?;
        let version = docker.client_version();
        if (version.major_version, version.minor_version) < OLDEST_API {
            return Err(RuntimeError::new(
                RuntimeErrorKind::Unsupported,
                format!(
                    "the Docker engine at {host} is {} with API {}.{}; expected API {}.{} or newer",
                    info.server_version.as_deref().unwrap_or("of unknown version"),
                    version.major_version,
                    version.minor_version,
                    OLDEST_API.0,
                    OLDEST_API.1,
                ),
            )
            .with_advice("install Docker Engine 20.10 or newer"));
        }
        let facts = facts(&info)?;
        Ok(Self {
            docker: docker.with_timeout(TIMEOUT),
            facts,
            socket,
            creating: Arc::default(),
        })
    }

    /// Creates a container for a job, and returns its id. The creation goes on if the future is dropped.
    ///
    /// An image that declares volumes is refused: the engine would mount them over whatever is at their place, and so
    /// show the job other files than those that were measured, or take outputs away with the container.
    pub(crate) async fn create(&self, job: &JobId, mut body: ContainerCreateBody) -> Result<String, Fault> {
        body.labels.get_or_insert_default().extend(labels(job));
        let docker = self.docker.clone();
        let creating = self.uncancelled(async move {
            docker
                .create_container(None::<CreateContainerOptions>, body)
                .await
        });
        let id = creating.await?.doing("create a container")?.id;
        // What the engine made, not what the image says: a volume's path may lead through links of the image.
        let volumes = self.volumes(&id).await?;
        if volumes.is_empty() {
            return Ok(id);
        }
        self.remove(&id).await?;
        Err(Fault::told(
            RuntimeErrorKind::Unsupported,
            format!(
                "the image declares volumes ({}), which would hide measured files, or take outputs away",
                volumes.join(", ")
            ),
            "use an image without VOLUME: `docker export` a container of this one, and `docker import` the archive",
        ))
    }

    /// The places of a container at which the engine mounts a volume; nothing here asks for one.
    async fn volumes(&self, id: &str) -> Result<Vec<String>, Fault> {
        let container = self
            .docker
            .inspect_container(id, None::<InspectContainerOptions>)
            .await;
        let mounts = container.doing(format!("inspect the container {id}"))?.mounts;
        Ok(mounts
            .into_iter()
            .flatten()
            .filter(|mount| mount.typ.as_deref() == Some("volume"))
            .map(|mount| format!("{:?}", mount.destination.unwrap_or_default()))
            .collect())
    }

    /// Runs what creates something in the engine to its end, whatever happens to the caller.
    pub(crate) async fn uncancelled<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Fault> {
        let creating = Arc::clone(&self.creating).read_owned().await;
        let task = tokio::spawn(async move {
            let result = work.await;
            drop(creating);
            result
        });
        task.await.map_err(|error| {
            Fault::told(
                RuntimeErrorKind::Failed,
                format!("a request to the Docker engine broke off: {error}"),
                "try again",
            )
        })
    }

    /// An image by name or id; `None` when there is none.
    pub(crate) async fn image(&self, name: &str) -> Result<Option<ImageInspect>, Fault> {
        match self
            .docker
            .inspect_image(name)
            .await
            .doing(format!("inspect the image {name}"))
        {
            Ok(image) => Ok(Some(image)),
            Err(fault) if fault.status() == Some(404) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// The image that a digest names: the engine's own id, or the digest that a registry gave it.
    pub(crate) async fn image_by_digest(&self, digest: ImageDigest) -> Result<ImageInspect, Fault> {
        let text = digest.to_string();
        if let Some(image) = self.image(&text).await? {
            return Ok(image);
        }
        let images = self
            .docker
            .list_images(Some(ListImagesOptionsBuilder::new().all(true).build()));
        let suffix = format!("@{text}");
        for summary in images.await.doing("list the images")? {
            if summary.repo_digests.iter().any(|name| name.ends_with(&suffix)) {
                return self.image(&summary.id).await?.ok_or_else(|| gone(&text));
            }
        }
        Err(gone(&text))
    }

    /// Removes a container, running or not, and returns when it is gone.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), Fault> {
        let options = || Some(RemoveContainerOptionsBuilder::new().force(true).v(true).build());
        for _ in 0..600 {
            match self
                .docker
                .remove_container(id, options())
                .await
                .doing(format!("remove the container {id}"))
            {
                Ok(()) => return Ok(()),
                Err(fault) if fault.status() == Some(404) => return Ok(()),
                // Somebody is removing it already: wait until they have.
                Err(fault) if fault.status() == Some(409) => {
                    tokio::time::sleep(Duration::from_millis(50)).await
                }
                Err(fault) => return Err(fault),
            }
        }
        Err(Fault::told(
            RuntimeErrorKind::Failed,
            format!("the Docker engine has been removing the container {id} for 30 seconds"),
            "look at the engine's log, and restart it if it hangs",
        ))
    }

    /// Containers and images with this job's label, or with any job's.
    pub(crate) async fn labelled(&self, job: Option<&JobId>) -> Result<Labelled, Fault> {
        let filter = match job {
            Some(job) => format!("{JOB_LABEL}={job}"),
            None => JOB_LABEL.to_owned(),
        };
        let filters = HashMap::from([("label", vec![filter])]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        let containers = self
            .docker
            .list_containers(Some(options))
            .await
            .doing("list the containers")?;
        let options = ListImagesOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        let images = self
            .docker
            .list_images(Some(options))
            .await
            .doing("list the images")?;
        Ok(Labelled {
            containers: containers
                .into_iter()
                .map(|c| (c.id.unwrap_or_default(), c.labels.unwrap_or_default()))
                .collect(),
            images: images.into_iter().map(|image| (image.id, image.labels)).collect(),
        })
    }

    /// Removes everything that carries a job's label.
    pub(crate) async fn clean_up(&self, job: &JobId) -> Result<(), Fault> {
        let _nothing_is_created = self.creating.write().await;
        let found = self.labelled(Some(job)).await?;
        for (id, _) in found.containers {
            self.remove(&id).await?;
        }
        for (id, _) in found.images {
            self.remove_image(&id).await?;
        }
        Ok(())
    }

    /// Removes an image with its tags.
    pub(crate) async fn remove_image(&self, id: &str) -> Result<(), Fault> {
        let options = RemoveImageOptionsBuilder::new().force(true).build();
        match self
            .docker
            .remove_image(id, Some(options), None)
            .await
            .doing(format!("remove the image {id}"))
        {
            Ok(_) => Ok(()),
            Err(fault) if fault.status() == Some(404) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// How a container that has ended is now.
    pub(crate) async fn state(&self, id: &str) -> Result<bollard::models::ContainerState, Fault> {
        let container = self
            .docker
            .inspect_container(id, None::<InspectContainerOptions>)
            .await;
        let container = container.doing(format!("inspect the container {id}"))?;
        container.state.ok_or_else(|| {
            Fault::told(
                RuntimeErrorKind::Failed,
                format!("the Docker engine does not say how the container {id} is"),
                "try again",
            )
        })
    }
}

/// What carries a job's label, with all labels.
pub(crate) struct Labelled {
    pub(crate) containers: Vec<(String, HashMap<String, String>)>,
    pub(crate) images: Vec<(String, HashMap<String, String>)>,
}

/// The labels of everything that is made for a job.
pub(crate) fn labels(job: &JobId) -> HashMap<String, String> {
    let mut labels = HashMap::from([(JOB_LABEL.to_owned(), job.to_string())]);
    if let Some(owner) = Owner::this_process() {
        labels.insert(OWNER_LABEL.into(), owner.to_label());
    }
    labels
}

fn gone(digest: &str) -> Fault {
    Fault::told(
        RuntimeErrorKind::NotFound,
        format!("the image {digest} is not in the Docker engine"),
        "it was there when the job began; somebody may have removed it: start the job again",
    )
}

/// Checks where the engine is said to be, and that something listens there; returns the path of its socket.
async fn check_host(host: &str) -> Result<Option<PathBuf>, RuntimeError> {
    if let Some(path) = host.strip_prefix("unix://") {
        return match tokio::net::UnixStream::connect(path).await {
            Ok(_) => Ok(Some(path.into())),
            Err(error) => {
                let message = format!("cannot reach the Docker engine at {path}: {error}");
                Err(unreachable_engine(message, error.kind()).with_source(error))
            }
        };
    }
    let address = host
        .strip_prefix("tcp://")
        .or_else(|| host.strip_prefix("http://"));
    let name = address.map(|address| address.rsplit_once(':').map_or(address, |(name, _)| name));
    if matches!(name, Some("localhost" | "127.0.0.1" | "[::1]")) {
        return Ok(None);
    }
    Err(RuntimeError::new(
        RuntimeErrorKind::Unsupported,
        format!("DOCKER_HOST is {host:?}; expected unix:///path or tcp:// on this machine, without TLS"),
    )
    .with_advice("the engine must see the files of this machine: run aicert on the machine of the engine"))
}

fn facts(info: &SystemInfo) -> Result<Facts, RuntimeError> {
    let option = |name: &str| {
        let prefix = format!("name={name}");
        info.security_options
            .iter()
            .flatten()
            .any(|text| text.split(',').next() == Some(&prefix) || text == name)
    };
    let unsupported = |message: &str, advice: &str| {
        Err(RuntimeError::new(RuntimeErrorKind::Unsupported, message).with_advice(advice))
    };
    if info.os_type.as_deref() != Some("linux") {
        return unsupported(
            "the Docker engine does not run Linux containers",
            "use an engine on Linux",
        );
    }
    if !option("seccomp") {
        return unsupported(
            "the Docker engine runs containers without a seccomp profile",
            "use a kernel and an engine with seccomp (`docker info` lists it under Security Options)",
        );
    }
    if option("userns") {
        return unsupported(
            "the Docker engine maps users (userns-remap), so a job could not write its outputs",
            "turn userns-remap off in /etc/docker/daemon.json, or use a rootless engine",
        );
    }
    Ok(Facts {
        rootless: option("rootless"),
        memory_limit: info.memory_limit.unwrap_or(false),
        process_limit: info.pids_limit.unwrap_or(false),
        init: info
            .init_binary
            .as_deref()
            .is_some_and(|binary| !binary.is_empty()),
        nvidia_runtime: info
            .runtimes
            .as_ref()
            .is_some_and(|runtimes| runtimes.contains_key("nvidia")),
        memory: info
            .mem_total
            .and_then(|bytes| u64::try_from(bytes).ok())
            .unwrap_or(0),
    })
}
