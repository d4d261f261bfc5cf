//! Sending the inputs that are on this computer.
//!
//! An input is measured before it is sent, by the rules by which the machine measures it, and what is sent is held to that
//! measure. So it is known what the proof must say of it: see [`Sent::check`].

mod archive;
mod queue;
mod send;

use std::fmt;
use std::io;

use aicert_core::api::{AwaitedInput, JobState, JobStatus, ProblemCode};
use aicert_core::certificate::Certificate;
use aicert_core::digest::{FileDigest, TreeRoot};
use aicert_core::progress::Progress;
use aicert_core::runtime::JobId;
use aicert_verify::Verified;
use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::attest::AttestedClient;
use crate::error::ClientError;
use crate::http::{STATUS_LIMIT, parse};
use crate::submission::Upload;
pub(crate) use send::background;

/// An input that was sent, or is about to be. Whoever goes on with a job from another process keeps it beside the [`Session`](crate::Session).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sent {
    /// Its name in the configuration.
    pub name: String,
    /// What was sent.
    pub content: SentContent,
}

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SentContent {
    /// A file.
    File(FileDigest),
    /// A directory.
    Directory(TreeRoot),
}

impl fmt::Display for SentContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(digest) => digest.fmt(f),
            Self::Directory(root) => root.fmt(f),
        }
    }
}

impl Sent {
    /// Checks that a proof is of a job that had this very input.
    ///
    /// # Errors
    ///
    /// When it had another, or none of that name.
    pub fn check(&self, proof: &Verified<Certificate>) -> Result<(), ClientError> {
        let measured = proof.inputs().iter().find(|input| input.name == self.name);
        let found = match (measured, &self.content) {
            (Some(input), SentContent::Directory(root)) if input.tree == *root => return Ok(()),
            (Some(input), SentContent::File(digest)) if input.hash == digest.to_string() => return Ok(()),
            (Some(input), SentContent::Directory(_)) => input.tree.to_string(),
            (Some(input), SentContent::File(_)) => input.hash.clone(),
            (None, _) => "no such input".to_owned(),
        };
        Err(ClientError::protocol(
            format!("the proof's input {:?}", self.name),
            format!("{}, which was sent", self.content),
            found,
        ))
    }
}

impl AttestedClient {
    /// Sends the inputs that the machine waits for; the job starts when it has them all. `awaited` is what the status of the
    /// job says. What was received before is left out, so that it can be called again after a failure.
    ///
    /// `on_sending` is told of each input before the first byte of it is sent, and is to make it durable where the job may be gone
    /// on with from another process: a machine never has an input that was not told of. One that is told of again was not
    /// received before: what is told later counts.
    ///
    /// Progress is reported with [`aicert_core::progress::Step::Send`].
    ///
    /// # Errors
    ///
    /// When the machine asks for something else than the job's inputs, an input cannot be read or changes meanwhile,
    /// `on_sending` fails, or the machine cannot be reached.
    pub async fn send_inputs(
        &self,
        job: &JobId,
        uploads: &[Upload],
        awaited: &[AwaitedInput],
        progress: &Progress,
        mut on_sending: impl FnMut(&Sent) -> io::Result<()>,
    ) -> Result<(), ClientError> {
        for input in awaited {
            let known = uploads
                .iter()
                .find(|upload| upload.name == input.name && upload.form == input.form);
            let upload = known.ok_or_else(|| {
                let found = format!("{:?} as {:?}", input.name, input.form);
                ClientError::protocol(
                    format!("what job {job} waits for"),
                    "inputs of its configuration that are on this computer",
                    found,
                )
            })?;
            let source = send::Source::measure(upload, progress).await?;
            let sent = Sent {
                name: upload.name.clone(),
                content: source.content(),
            };
            on_sending(&sent)
                .map_err(|error| ClientError::storage("note what is sent of", &upload.path, error))?;
            self.send_input(job, upload, &source, progress).await?;
        }
        Ok(())
    }

    async fn send_input(
        &self,
        job: &JobId,
        upload: &Upload,
        source: &send::Source,
        progress: &Progress,
    ) -> Result<(), ClientError> {
        let mut patience = self.http.settings.patience();
        loop {
            let error = match self.put(job, upload, source, progress).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // A connection that broke may have broken after the last byte, or the machine may not have noticed yet.
            let is_conflict = matches!(
                &error,
                ClientError::Problem { problem, .. } if problem.code == ProblemCode::WrongState
            );
            if !error.is_retryable() && !is_conflict {
                return Err(error);
            }
            let status = self.status(job).await?;
            if has_received(&status, &upload.name) {
                return Ok(());
            }
            // The job was stopped: it takes nothing any more, and says so.
            if is_conflict && status.state != JobState::Receiving {
                return Err(error);
            }
            patience.wait(error).await?;
        }
    }

    async fn put(
        &self,
        job: &JobId,
        upload: &Upload,
        source: &send::Source,
        progress: &Progress,
    ) -> Result<(), ClientError> {
        let segments = ["jobs", job.as_str(), "inputs", &upload.name];
        let request = self.http.request(Method::PUT, &segments);
        let name = request.name.clone();
        let answer = source.send(&self.http, request, progress).await?;
        let body = self.http.read(answer, STATUS_LIMIT).await?;
        parse::<JobStatus>(name, &body).map(drop)
    }
}

/// Whether a job that accepts inputs, or has started with them all, has this one. One that has failed had started.
fn has_received(status: &JobStatus, name: &str) -> bool {
    let is_awaited = status.awaited.iter().any(|input| input.name == name);
    !is_awaited
        && matches!(
            status.state,
            JobState::Receiving | JobState::Running | JobState::Finished | JobState::Failed
        )
}
