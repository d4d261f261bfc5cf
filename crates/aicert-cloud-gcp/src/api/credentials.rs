//! Credentials that are made anew when Google refuses those: clients, whose making reads all roots of this computer, stay.

use std::sync::{Arc, PoisonError, RwLock};

use google_cloud_auth::build_errors;
use google_cloud_auth::credentials::{CacheableResource, Credentials, CredentialsProvider};
use google_cloud_auth::errors::CredentialsError;
use http::{Extensions, HeaderMap};

use crate::config::CredentialsSource;

/// Stands for whichever credentials are the newest. Copies share them.
#[derive(Debug, Clone)]
pub(super) struct Renewable {
    source: CredentialsSource,
    made: Arc<RwLock<Made>>,
}

#[derive(Debug)]
struct Made {
    credentials: Credentials,
    /// How many there were before.
    number: u64,
}

impl Renewable {
    pub(super) fn new(source: CredentialsSource) -> Result<Self, build_errors::Error> {
        let credentials = source.make()?;
        let made = Arc::new(RwLock::new(Made {
            credentials,
            number: 0,
        }));
        Ok(Self { source, made })
    }

    /// Which ones are in use.
    pub(super) fn number(&self) -> u64 {
        self.made.read().unwrap_or_else(PoisonError::into_inner).number
    }

    /// Makes new ones, if those with that number are in use still: of several whose requests were refused, one renews.
    pub(super) fn renew(&self, refused: u64) -> Result<(), build_errors::Error> {
        let mut made = self.made.write().unwrap_or_else(PoisonError::into_inner);
        if made.number == refused {
            made.credentials = self.source.make()?;
            made.number += 1;
        }
        Ok(())
    }

    fn newest(&self) -> Credentials {
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
        made.credentials.clone()
    }
}

impl CredentialsProvider for Renewable {
    async fn headers(
        &self,
        extensions: Extensions,
    ) -> Result<CacheableResource<HeaderMap>, CredentialsError> {
        self.newest().headers(extensions).await
    }

    async fn universe_domain(&self) -> Option<String> {
        self.newest().universe_domain().await
    }
}
