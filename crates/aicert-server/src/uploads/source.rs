//! Sources of inputs that take what was uploaded.

use std::sync::Arc;

use aicert_core::input::{FetchRequest, FetchedInput, InputCapabilities, InputError, InputSource};
use aicert_core::spec::Location;
use async_trait::async_trait;
use url::Url;

use super::{Uploads, remove};

/// A source whose inputs may have been uploaded: those are taken from where they were received, and measured as the source
/// itself measures; what is recorded is where the client has them.
pub(crate) struct UploadedSource {
    inner: Arc<dyn InputSource>,
    uploads: Arc<Uploads>,
}

impl UploadedSource {
    pub(crate) fn new(inner: Arc<dyn InputSource>, uploads: Arc<Uploads>) -> Self {
        Self { inner, uploads }
    }
}

#[async_trait]
impl InputSource for UploadedSource {
    fn capabilities(&self) -> &InputCapabilities {
        self.inner.capabilities()
    }

    async fn fetch(&self, mut request: FetchRequest) -> Result<FetchedInput, InputError> {
        let Some(received) = self.uploads.received(&request.spec.name) else {
            return self.inner.fetch(request).await;
        };
        let url = Url::from_file_path(&received.path).map_or_else(|()| String::new(), String::from);
        match &mut request.spec.location {
            Location::Directory(directory) => directory.path.clone_from(&received.path),
            Location::File(file) => file.url.clone_from(&url),
            // No other kind is ever expected from a client.
            _ => {}
        }
        let fetched = self.inner.fetch(request).await.map_err(|error| {
            // Errors speak of the place that the client knows.
            let message = error
                .message()
                .replace(&url, &received.origin)
                .replace(&*received.path.to_string_lossy(), &received.origin);
            let told = InputError::new(error.kind(), message);
            match error.advice() {
                Some(advice) => told.with_advice(advice.to_owned()),
                None => told,
            }
        })?;
        // It has been copied: the disk is needed for the job.
        let path = received.path.clone();
        let _ = tokio::task::spawn_blocking(move || remove(&path)).await;
        Ok(FetchedInput {
            origin: received.origin,
            ..fetched
        })
    }
}
