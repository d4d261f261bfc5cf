//! How patient a client is.

use std::time::Duration;

/// How patient a client is. The default suits machines on a slow network.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// How long a connection may take, TLS handshake included.
    pub connect_limit: Duration,
    /// How long a request may take whose answer is small, from its first byte to the last of the answer.
    pub answer_limit: Duration,
    /// How long a machine may take to stop a job and to remove everything of it: longer than it gives itself.
    pub removal_limit: Duration,
    /// How long nothing may move in a transfer, or in the stream of events.
    pub idle_limit: Duration,
    /// How often a request is made again when the connection fails, without anything having moved in between.
    pub retries: u32,
    /// How long to wait before the first of these; each of the next waits twice as long, up to
    /// [`Settings::longest_pause`].
    pub pause: Duration,
    /// The longest wait.
    pub longest_pause: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_limit: Duration::from_secs(10),
            answer_limit: Duration::from_secs(60),
            removal_limit: Duration::from_secs(180),
            idle_limit: Duration::from_secs(60),
            retries: 10,
            pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(15),
        }
    }
}

impl Settings {
    /// Counts failures of one request.
    pub(crate) fn patience(&self) -> Patience {
        Patience {
            settings: self.clone(),
            failures: 0,
        }
    }
}

/// How often a request has failed since something moved.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    settings: Settings,
    failures: u32,
}

impl Patience {
    /// Something moved.
    pub(crate) fn renew(&mut self) {
        self.failures = 0;
    }

    /// Waits for the next try; gives the error back when there is to be none.
    pub(crate) async fn wait<E>(&mut self, error: E) -> Result<(), E> {
        if self.failures >= self.settings.retries {
            return Err(error);
        }
        let factor = 1_u32.checked_shl(self.failures.min(20)).unwrap_or(u32::MAX);
        let pause = self.settings.pause.saturating_mul(factor);
        self.failures += 1;
        tokio::time::sleep(pause.min(self.settings.longest_pause)).await;
        Ok(())
    }
}
