//! What a job that ran to its end leaves for its client.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aicert_core::certificate::Certificate;
use aicert_core::event::{EventContent, JobResult};
use aicert_core::log::MeasurementLog;
use aicert_core::pipeline::Outcome;
use bytes::Bytes;

use crate::outputs::Outputs;

/// A proof that was made.
#[derive(Debug, Clone)]
pub(crate) struct Proof {
    pub(crate) result: JobResult,
    /// The proof file.
    pub(crate) certificate: Bytes,
    /// In hexadecimal: names what the job left, as no two jobs have the same.
    pub(crate) head: String,
}

/// The results of a job.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) proof: Proof,
    /// The large listings; nothing when there are none.
    pub(crate) manifest: Option<PathBuf>,
    pub(crate) outputs: Arc<Outputs>,
}

/// Says why results cannot be handed out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResultsError {
    #[error("could not write the listings {path:?}: {source}")]
    Manifest { path: PathBuf, source: io::Error },
    #[error("could not open the outputs: {0}")]
    Outputs(#[source] io::Error),
    /// The pipeline makes no such outcome.
    #[error("the certificate has no listing of the outputs")]
    Incomplete,
}

impl Proof {
    pub(crate) fn of(certificate: &Certificate) -> Result<Self, ResultsError> {
        let head = MeasurementLog::from_events(certificate.measurement_log.clone())
            .ok()
            .and_then(|log| log.head().ok())
            .ok_or(ResultsError::Incomplete)?;
        Ok(Self {
            result: certificate.result,
            certificate: certificate.to_json().into(),
            head: head.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }
}

impl Results {
    /// Prepares an outcome, of which this is the proof, for being asked for; blocks. Listings go to `folder`.
    pub(crate) fn of(proof: Proof, outcome: Outcome, folder: &Path) -> Result<Self, ResultsError> {
        let Outcome {
            certificate,
            manifest,
            outputs,
            ..
        } = outcome;
        let tree = certificate
            .measurement_log
            .iter()
            .find_map(|event| match &event.content {
                EventContent::OutputsMeasured(measured) => Some(&measured.tree),
                _ => None,
            })
            .ok_or(ResultsError::Incomplete)?;
        let listing = match &tree.listing {
            Some(listing) => listing,
            None => manifest
                .find(&tree.root)
                .ok_or(ResultsError::Incomplete)?
                .entries(),
        };
        let outputs = Outputs::new(&outputs, listing.iter()).map_err(ResultsError::Outputs)?;
        let path = folder.join("manifest");
        if !manifest.is_empty() {
            write_manifest(&manifest, &path).map_err(|source| ResultsError::Manifest {
                path: path.clone(),
                source,
            })?;
        }
        Ok(Self {
            proof,
            manifest: (!manifest.is_empty()).then_some(path),
            outputs: Arc::new(outputs),
        })
    }
}

fn write_manifest(manifest: &aicert_core::manifest::Manifest, path: &Path) -> io::Result<()> {
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let mut writer = BufWriter::with_capacity(256 << 10, file);
    manifest.write(&mut writer).map_err(io::Error::other)?;
    writer.flush()
}
