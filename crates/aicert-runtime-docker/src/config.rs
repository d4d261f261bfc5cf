//! How the engine is reached and what is kept between jobs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Configuration of a [`crate::DockerRuntime`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DockerConfig {
    /// Where the engine listens, `unix://…` or `tcp://…` on this machine; when absent the environment variable
    /// `DOCKER_HOST`, else `/var/run/docker.sock`.
    pub host: Option<String>,
    /// A directory that only this user can write, for downloaded wheels and the names of built images; nothing is kept
    /// when absent.
    pub cache_dir: Option<PathBuf>,
    /// How long versions that a requirements file leaves open are taken from the cache; a file that pins every package
    /// with `==`, dependencies included, is good for ever.
    pub cache_expiry: Duration,
    /// How many resolutions and built images are kept; the oldest go first.
    pub cache_entries: usize,
    /// The Debian mirror that the Python base image is built from; when absent, this machine's own.
    pub debian_mirror: Option<String>,
    /// Archives (`docker save`) with the Python base image, by minor version of Python 3: what the engine lacks is loaded
    /// from there, and nothing is built.
    pub python_images: BTreeMap<u8, PathBuf>,
    /// How long an engine that does not answer yet is waited for, as on a machine that has just booted; not at all unless set.
    pub start_limit: Duration,
}

impl Default for DockerConfig {
    fn default() -> Self {
        Self {
            host: None,
            cache_dir: None,
            cache_expiry: Duration::from_secs(24 * 60 * 60),
            cache_entries: 8,
            debian_mirror: None,
            python_images: BTreeMap::new(),
            start_limit: Duration::ZERO,
        }
    }
}

impl DockerConfig {
    /// The default configuration.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets where the engine listens.
    #[must_use]
    pub fn with_host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Keeps wheels and the names of built images in a directory.
    #[must_use]
    pub fn with_cache_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(directory.into());
        self
    }

    /// Sets how long open versions are taken from the cache.
    #[must_use]
    pub fn with_cache_expiry(mut self, expiry: Duration) -> Self {
        self.cache_expiry = expiry;
        self
    }

    /// Sets how many resolutions and built images are kept.
    #[must_use]
    pub fn with_cache_entries(mut self, entries: usize) -> Self {
        self.cache_entries = entries;
        self
    }

    /// Sets the Debian mirror that the Python base image is built from.
    #[must_use]
    pub fn with_debian_mirror(mut self, url: impl Into<String>) -> Self {
        self.debian_mirror = Some(url.into());
        self
    }

    /// Takes the Python base image for a minor version of Python 3 from an archive: exactly that one, and no other that the
    /// engine may have under its name.
    #[must_use]
    pub fn with_python_image(mut self, minor: u8, archive: impl Into<PathBuf>) -> Self {
        self.python_images.insert(minor, archive.into());
        self
    }

    /// Waits for an engine that is still starting.
    #[must_use]
    pub fn with_start_limit(mut self, limit: Duration) -> Self {
        self.start_limit = limit;
        self
    }
}
