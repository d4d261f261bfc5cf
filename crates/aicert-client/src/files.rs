//! What comes as a file: the log of a job, and the listings that are too large for its proof.

use std::io;
use std::path::Path;

use aicert_core::api::ProblemCode;
use aicert_core::runtime::JobId;
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt as _;

use crate::attest::AttestedClient;
use crate::error::ClientError;

/// The largest manifest that is taken, in bytes: some million files.
const MANIFEST_LIMIT: u64 = 1 << 30;

/// What to do about more bytes than these.
#[derive(Debug, Clone, Copy)]
enum Limit {
    Refuse(u64),
    LeaveOut(u64),
}

/// Opens a file that may have the beginning of what comes, and tells how much it has.
async fn continued(to: &Path) -> Result<(File, u64), ClientError> {
    let failed = |error: io::Error| ClientError::storage("write", to, error);
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).open(to).await.map_err(failed)?;
    let length = file.metadata().await.map_err(failed)?.len();
    Ok((file, length))
}

impl AttestedClient {
    /// Brings a copy of what the job has printed up to date: what is at `to` is taken for the beginning of it. Returns its
    /// length. Can be called while the job runs, and after it. A job may print without end: [`AttestedClient::log_up_to`] has a
    /// limit.
    ///
    /// # Errors
    ///
    /// When there is no such job, the machine cannot be reached, or `to` cannot be written.
    pub async fn log(&self, job: &JobId, to: &Path) -> Result<u64, ClientError> {
        self.log_up_to(job, to, u64::MAX).await
    }

    /// The same for the first `limit` bytes; what follows them is left out, and there may be some when the length that is returned
    /// has reached the limit.
    ///
    /// # Errors
    ///
    /// Those of [`AttestedClient::log`].
    pub async fn log_up_to(&self, job: &JobId, to: &Path, limit: u64) -> Result<u64, ClientError> {
        let (mut file, mut length) = continued(to).await?;
        let segments = ["jobs", job.as_str(), "log"];
        if length < limit {
            self.resumed(&segments, &mut file, to, &mut length, Limit::LeaveOut(limit))
                .await?;
        }
        Ok(length)
    }

    /// Downloads the listings that are too large for the proof to `to`, for [`aicert_core::manifest::Manifest::read`], which
    /// checks them. Returns its length; when there are none, that is 0, and there is nothing at `to`.
    ///
    /// # Errors
    ///
    /// When there is no proof yet, the machine cannot be reached, or `to` cannot be written.
    pub async fn manifest(&self, job: &JobId, to: &Path) -> Result<u64, ClientError> {
        let failed = |error: io::Error| ClientError::storage("write", to, error);
        let mut file = File::create(to).await.map_err(failed)?;
        let mut length = 0;
        let segments = ["jobs", job.as_str(), "manifest"];
        let received = self
            .resumed(
                &segments,
                &mut file,
                to,
                &mut length,
                Limit::Refuse(MANIFEST_LIMIT),
            )
            .await;
        if received.is_err() || length == 0 {
            drop(file);
            tokio::fs::remove_file(to).await.map_err(failed)?;
        }
        received.map(|()| length)
    }

    /// Downloads what a job in the state [`Failed`](aicert_core::api::JobState::Failed) left in its outputs folder to `to`, as one
    /// tar archive. **Nothing in it is certified**: nothing was measured, and no proof speaks of it. Whatever is in the archive
    /// was made by the job; it is not unpacked.
    ///
    /// What is at `to` is taken for the beginning of it. Returns its length; when the job left nothing, that is 0, and there is
    /// nothing at `to`.
    ///
    /// # Errors
    ///
    /// When the job has not ended, the machine cannot be reached, or `to` cannot be written. What has arrived until then stays
    /// at `to`: calling it again goes on there.
    pub async fn leftovers(&self, job: &JobId, to: &Path) -> Result<u64, ClientError> {
        let failed = |error: io::Error| ClientError::storage("write", to, error);
        let (mut file, mut length) = continued(to).await?;
        let segments = ["jobs", job.as_str(), "leftovers"];
        let received = self
            .resumed(&segments, &mut file, to, &mut length, Limit::Refuse(u64::MAX))
            .await;
        let received = match received {
            Err(ClientError::Problem { problem, .. })
                if problem.code == ProblemCode::NotFound && length == 0 =>
            {
                Ok(())
            }
            Ok(()) => file.sync_all().await.map_err(failed),
            other => other,
        };
        if length == 0 {
            drop(file);
            tokio::fs::remove_file(to).await.map_err(failed)?;
        }
        received.map(|()| length)
    }

    /// Appends what there is from `length` on, over as many connections as it takes.
    async fn resumed(
        &self,
        segments: &[&str],
        file: &mut File,
        to: &Path,
        length: &mut u64,
        limit: Limit,
    ) -> Result<(), ClientError> {
        let failed = |error: io::Error| ClientError::storage("write", to, error);
        let mut patience = self.http.settings.patience();
        loop {
            let before = *length;
            let received = async {
                let mut part = match self.http.part(segments, *length, None).await {
                    // There is nothing behind what is there.
                    Err(ClientError::Problem { problem, .. }) if problem.code == ProblemCode::Range => {
                        return Ok(());
                    }
                    other => other?,
                };
                while let Some(mut bytes) = part.next(&self.http).await? {
                    match limit {
                        Limit::Refuse(limit) if *length + bytes.len() as u64 > limit => {
                            let expected = format!("at most {limit} bytes");
                            return Err(ClientError::protocol(segments.join("/"), expected, "more"));
                        }
                        Limit::LeaveOut(limit) if *length >= limit => return Ok(()),
                        Limit::LeaveOut(limit) => {
                            let left = usize::try_from(limit - *length).unwrap_or(usize::MAX);
                            bytes.truncate(left);
                        }
                        Limit::Refuse(_) => {}
                    }
                    file.write_all(&bytes).await.map_err(failed)?;
                    *length += bytes.len() as u64;
                }
                Ok(())
            }
            .await;
            // What counts is what is in the file.
            file.flush().await.map_err(failed)?;
            match received {
                Err(error) if error.is_retryable() => {
                    if *length > before {
                        patience.renew();
                    }
                    patience.wait(error).await?;
                }
                result => return result,
            }
        }
    }
}
