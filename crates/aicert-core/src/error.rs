//! Errors that people can act on and programs can match on.
//!
//! Every backend trait has its own *kind* enumeration; [`Error`] adds to a kind what happened in words, what to do
//! about it, and the cause. Backends keep their private errors and turn them into these at the trait's boundary.

use std::fmt;

/// An error of a backend: what kind it is, what happened, and what to do.
#[derive(Debug)]
pub struct Error<K> {
    kind: K,
    message: String,
    advice: Option<String>,
    retryable: bool,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl<K: Copy> Error<K> {
    /// An error of `kind`; `message` says what failed, where, and what was expected and found.
    pub fn new(kind: K, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            advice: None,
            retryable: false,
            source: None,
        }
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says that the same call may succeed later.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// The kind, for programs.
    pub fn kind(&self) -> K {
        self.kind
    }

    /// What failed, where, what was expected and found.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What the user can do.
    pub fn advice(&self) -> Option<&str> {
        self.advice.as_deref()
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }
}

impl<K> fmt::Display for Error<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<K: fmt::Debug> std::error::Error for Error<K> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
