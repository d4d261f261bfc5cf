//! The job of a machine: submitting it, asking how far it is, removing it.

use aicert_core::api::{JobStatus, SUBMISSION_LIMIT, Submission};
use aicert_core::certificate::SIZE_LIMIT;
use aicert_core::runtime::JobId;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use zeroize::Zeroizing;

use crate::attest::AttestedClient;
use crate::error::ClientError;
use crate::http::{Request, STATUS_LIMIT};

impl AttestedClient {
    /// Gives the machine its job. Doing it again with the same bytes changes nothing, so it is repeated when the connection
    /// fails.
    ///
    /// # Errors
    ///
    /// When the machine refuses it, and says why, or cannot be reached.
    pub async fn submit(&self, submission: &Submission) -> Result<JobStatus, ClientError> {
        let failed = |message: String| ClientError::Usage {
            message,
            advice: "make the configuration, or the files that it names, smaller",
        };
        // It holds secrets.
        let body = serde_json::to_vec(submission).map(Zeroizing::new);
        let body = body.map_err(|error| failed(format!("the job cannot be written: {error}")))?;
        if body.len() > SUBMISSION_LIMIT {
            return Err(failed(format!(
                "the job has {} bytes with the files that go with it; a machine takes at most {SUBMISSION_LIMIT}",
                body.len()
            )));
        }
        self.repeat(|| {
            let mut request = self.http.request(Method::POST, &["jobs"]);
            let json = HeaderValue::from_static("application/json");
            request.builder = request.builder.header(CONTENT_TYPE, json).body(body.to_vec());
            request
        })
        .await
    }

    /// How far the job is.
    ///
    /// # Errors
    ///
    /// When there is no such job, or the machine cannot be reached.
    pub async fn status(&self, job: &JobId) -> Result<JobStatus, ClientError> {
        self.repeat(|| self.http.request(Method::GET, &["jobs", job.as_str()]))
            .await
    }

    /// The proof file, byte for byte. It is not verified.
    ///
    /// # Errors
    ///
    /// When there is none, or not yet, or the machine cannot be reached.
    pub async fn certificate(&self, job: &JobId) -> Result<Vec<u8>, ClientError> {
        let request = || {
            self.http
                .request(Method::GET, &["jobs", job.as_str(), "certificate"])
        };
        self.repeat_bytes(request, SIZE_LIMIT).await
    }

    /// Stops the job if it runs, and removes everything of it; the machine ends then.
    ///
    /// # Errors
    ///
    /// When there is no such job, or [`ClientError::NotRemoved`] when the machine does not say in time that it did.
    pub async fn delete(&self, job: &JobId) -> Result<JobStatus, ClientError> {
        let Request { builder, name } = self.http.request(Method::DELETE, &["jobs", job.as_str()]);
        let limit = self.http.settings.removal_limit;
        let removing = async {
            let sent = builder.send().await;
            let response = sent.map_err(|error| self.http.transport(&name, &error))?;
            let answer = self.http.accept(name.clone(), response).await?;
            self.http.read(answer, STATUS_LIMIT).await
        };
        let not_removed = |reason: String| ClientError::NotRemoved {
            endpoint: self.http.endpoint,
            reason,
        };
        match tokio::time::timeout(limit, removing).await {
            Ok(Ok(bytes)) => crate::http::parse(name, &bytes),
            Ok(Err(ClientError::Unreachable { reason, .. })) => Err(not_removed(reason)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(not_removed(format!(
                "there was no whole answer within {} seconds",
                limit.as_secs()
            ))),
        }
    }

    /// Makes a request again while the connection fails, and reads a status.
    pub(crate) async fn repeat(&self, request: impl Fn() -> Request) -> Result<JobStatus, ClientError> {
        let name = request().name;
        let bytes = self.repeat_bytes(request, STATUS_LIMIT).await?;
        crate::http::parse(name, &bytes)
    }

    async fn repeat_bytes(
        &self,
        request: impl Fn() -> Request,
        limit: usize,
    ) -> Result<Vec<u8>, ClientError> {
        let mut patience = self.http.settings.patience();
        loop {
            match self.http.bytes(request(), limit).await {
                Err(error) if error.is_retryable() => patience.wait(error).await?,
                result => return result,
            }
        }
    }
}
