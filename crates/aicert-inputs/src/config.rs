//! How the sources behave where the defaults do not fit.

use std::path::PathBuf;
use std::time::Duration;

/// How files are downloaded.
#[derive(Debug, Clone)]
pub struct FileConfig {
    /// How often a download is tried in a row without getting any further.
    pub attempts: u32,
    /// How long to wait after the first failure; doubled after each further one.
    pub first_wait: Duration,
    /// How long to wait at most, also when the server asks for more.
    pub longest_wait: Duration,
    /// How long a server may take to accept a connection.
    pub connect_timeout: Duration,
    /// How long a server may send nothing.
    pub idle_timeout: Duration,
}

impl Default for FileConfig {
    fn default() -> Self {
        Self {
            attempts: 6,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(60),
        }
    }
}

/// How repositories are fetched.
#[derive(Debug, Clone)]
pub struct GitConfig {
    /// The files with the SSH host keys to trust, as `sshd(8)` describes them.
    pub known_hosts: Vec<PathBuf>,
    /// How long a server may send nothing.
    pub idle_timeout: Duration,
    /// The size of the largest file that is taken from a repository: each is held in memory once.
    pub largest_file: u64,
}

impl Default for GitConfig {
    /// The user's and the machine's `known_hosts`, two minutes, 1 GiB.
    fn default() -> Self {
        let own = std::env::home_dir().map(|home| home.join(".ssh/known_hosts"));
        Self {
            known_hosts: own
                .into_iter()
                .chain(["/etc/ssh/ssh_known_hosts".into()])
                .collect(),
            idle_timeout: Duration::from_secs(120),
            largest_file: 1 << 30,
        }
    }
}
