#![doc = include_str!("../README.md")]

mod background;
mod config;
mod directory;
mod error;
mod file;
mod git;
mod reporter;

use std::sync::Arc;

use aicert_core::input::InputSource;

pub use config::{FileConfig, GitConfig};
pub use directory::DirectorySource;
pub use file::FileSource;
pub use git::GitSource;

/// One of each source, as configured by default.
pub fn all() -> Vec<Arc<dyn InputSource>> {
    vec![
        Arc::new(GitSource::default()),
        Arc::new(FileSource::default()),
        Arc::new(DirectorySource),
    ]
}
