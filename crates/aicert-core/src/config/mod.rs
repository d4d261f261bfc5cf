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

pub mod elsewhere;
mod inputs;
mod job;
mod machine;
mod secrets;
mod section;
#[cfg(test)]
mod tests;
mod values;

use std::path::Path;

pub use crate::yaml::{DocumentError as ConfigError, Problem};

use crate::spec::{JobSpec, MachineSpec};
use crate::yaml::Document;

const DOCUMENT: Document = Document {
    name: "configuration",
    file: "aicert.yaml",
    twice: None,
    secret: |line| secrets::in_text(line).is_some(),
};

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
        DOCUMENT.read(text, |problems, root| {
            job::read(&section::Reader::new(base_dir, environment, problems), root, text)
        })
    }
}

impl MachineSpec {
    /// Reads the section `machine` of a configuration alone, for whoever looks for machines; nothing else of it needs to be
    /// right, or there. Arguments as of [`JobSpec::from_yaml`].
    ///
    /// # Errors
    ///
    /// Everything that is wrong with that section.
    pub fn from_yaml(
        text: &str,
        base_dir: &Path,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        DOCUMENT.read(text, |problems, root| {
            job::read_machine(&section::Reader::new(base_dir, environment, problems), root)
        })
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
