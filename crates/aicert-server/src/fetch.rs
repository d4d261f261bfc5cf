//! Fetching certificates over HTTP, with reqwest.

use std::time::Duration;

use aicert_server::issuers::{CERTIFICATE_LIMIT, Fetch};
use async_trait::async_trait;
use url::Url;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a host may send somewhere else on itself.
const REDIRECTIONS: usize = 3;

/// Asks over the machine's network. Where that cannot be done at all, nothing is there.
pub(crate) struct Http(Result<reqwest::Client, String>);

impl Http {
    pub(crate) fn new() -> Self {
        let on_the_same_host = |attempt: reqwest::redirect::Attempt<'_>| {
            let host = |url: &Url| (url.host_str().map(str::to_owned), url.port());
            let stays = attempt
                .previous()
                .first()
                .is_some_and(|first| host(first) == host(attempt.url()));
            if stays && attempt.previous().len() <= REDIRECTIONS {
                attempt.follow()
            } else {
                attempt.stop()
            }
        };
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::custom(on_the_same_host))
            .timeout(PATIENCE)
            .user_agent(concat!("aicert-server/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(in_words);
        Self(client)
    }
}

#[async_trait]
impl Fetch for Http {
    async fn fetch(&self, url: &Url) -> Result<Vec<u8>, String> {
        let client = self.0.as_ref().map_err(Clone::clone)?;
        let mut response = client.get(url.clone()).send().await.map_err(in_words)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(format!("status {}", response.status().as_u16()));
        }
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(in_words)? {
            if bytes.len() + piece.len() > CERTIFICATE_LIMIT {
                return Err(format!("it has more than {CERTIFICATE_LIMIT} bytes"));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }
}

fn in_words(error: reqwest::Error) -> String {
    let error = error.without_url();
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}
