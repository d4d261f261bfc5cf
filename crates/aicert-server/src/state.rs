//! The folder in which everything is that is written.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use aicert_core::runtime::{JobId, Runtime};

use crate::job::remove_folder;
use crate::server::StartError;

/// The folder of the folders of jobs.
pub(crate) const JOBS: &str = "jobs";

/// Makes the folder, which must belong to this user alone, and removes what a server that was killed left of its job. PCRs
/// remember that job: there will be no second one before the machine is reset.
pub(crate) async fn prepare(state: &Path, runtime: &dyn Runtime) -> Result<(), StartError> {
    let failed = |path: &Path, action, source| StartError::State {
        path: path.to_owned(),
        action,
        source,
    };
    let jobs = state.join(JOBS);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&jobs)
        .map_err(|error| failed(&jobs, "made", error))?;
    let metadata = fs::metadata(state).map_err(|error| failed(state, "looked at", error))?;
    if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o077 != 0 {
        let error = io::Error::new(
            io::ErrorKind::PermissionDenied,
            "others may enter it, or own it; expected a folder of this user with mode 0700",
        );
        return Err(failed(state, "used", error));
    }
    for entry in fs::read_dir(&jobs).map_err(|error| failed(&jobs, "listed", error))? {
        let entry = entry.map_err(|error| failed(&jobs, "listed", error))?;
        let path = entry.path();
        if let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<JobId>().ok())
        {
            tracing::warn!(job = %id, "removing what is left of a job that was interrupted: it left no proof");
            if let Err(error) = runtime.clean_up(&id).await {
                tracing::warn!(job = %id, %error, "could not remove its containers");
            }
        }
        remove_folder(&path).map_err(|error| failed(&path, "removed", error))?;
    }
    Ok(())
}
