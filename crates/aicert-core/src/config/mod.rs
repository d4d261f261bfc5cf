//! Reads `aicert.yaml` into a [`JobSpec`]: everything is checked here, once, and all problems are reported together,
//! each with its line and column.
//!
//! ```
//! # use aicert_core::spec::JobSpec;
//! let text = "
//! kind: python
//! pythonVersion: 11
//! source:
//!   type: git
//!   gitRepo: https://example.org/training.git
//!   tag: v1.0
//! machine: {provider: local, tpm: swtpm}
//! ";
//! let job = JobSpec::from_yaml(text, "/home/me".as_ref(), &|name| std::env::var(name).ok()).unwrap();
//! assert_eq!(job.inputs[0].name, "training");
//! ```

mod error;
mod inputs;
mod job;
mod machine;
mod node;
mod secrets;
mod section;
#[cfg(test)]
mod tests;
mod values;

use std::path::Path;

pub use error::{ConfigError, Place, Problem};

use crate::spec::JobSpec;

impl JobSpec {
    /// Reads a configuration. Relative paths of this machine start at `base_dir`, the folder of the file; secrets are
    /// looked up by name with `environment`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, in the order of the file.
    pub fn from_yaml(
        text: &str,
        base_dir: &Path,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let root = node::parse(text).map_err(|problem| ConfigError::new(vec![problem], text))?;
        let reader = section::Reader::new(base_dir, environment);
        let job = job::read(&reader, &root, text);
        match (job, reader.into_problems()) {
            (Some(job), problems) if problems.is_empty() => Ok(job),
            (None, problems) if problems.is_empty() => {
                let problem = Problem::new(root.place, "the configuration is incomplete", None);
                Err(ConfigError::new(vec![problem], text))
            }
            (_, problems) => Err(ConfigError::new(problems, text)),
        }
    }
}

/// Names every key of the file with the section it is in: what the JSON Schema is held to.
#[doc(hidden)]
pub fn known_keys() -> Vec<(&'static str, &'static [&'static str])> {
    vec![
        ("", job::KEYS),
        ("limits", job::LIMIT_KEYS),
        ("packageIndex", job::INDEX_KEYS),
        ("source", inputs::SOURCE_KEYS),
        ("resource", inputs::RESOURCE_KEYS),
        ("machine", machine::KEYS),
    ]
}
