//! How long nobody has been there.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use crate::events::NOTHING;

/// When the owner was last there: asked something, sent something or took something. A connection over which nothing
/// moves does not count, nor one over which the server alone says that there is nothing to say, or a client that was
/// suspended would keep its machine for ever.
#[derive(Debug, Clone)]
pub(crate) struct Activity(Arc<Last>);

#[derive(Debug)]
struct Last {
    epoch: Instant,
    milliseconds: AtomicU64,
}

impl Activity {
    /// Nobody has been there yet; the time counts from now.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Last {
            epoch: Instant::now(),
            milliseconds: AtomicU64::new(0),
        }))
    }

    /// Says that the owner is there, or that a job is.
    pub(crate) fn touch(&self) {
        let now = u64::try_from(self.0.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.milliseconds.fetch_max(now, Ordering::Relaxed);
    }

    /// For how long nobody has been there.
    pub(crate) fn idle(&self) -> Duration {
        let last = Duration::from_millis(self.0.milliseconds.load(Ordering::Relaxed));
        self.0.epoch.elapsed().saturating_sub(last)
    }

    /// A body whose reader counts as being there.
    pub(crate) fn watch(&self, body: Body) -> Body {
        Body::new(Watched {
            body,
            activity: self.clone(),
        })
    }
}

struct Watched {
    body: Body,
    activity: Activity,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let is_nothing = matches!(&polled, Poll::Ready(Some(Ok(frame))) if frame.data_ref().is_some_and(|data| data == NOTHING));
        if polled.is_ready() && !is_nothing {
            self.activity.touch();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_counts_from_the_last_touch() {
        let activity = Activity::new();
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(activity.idle(), Duration::from_secs(5));
        activity.touch();
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(activity.clone().idle(), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_says_something_counts() {
        let pieces =
            [NOTHING, b"id: 1\n", NOTHING].map(|piece| Ok::<_, std::io::Error>(Bytes::from_static(piece)));
        let activity = Activity::new();
        let mut body = activity
            .watch(Body::from_stream(futures_util::stream::iter(pieces)))
            .into_data_stream();
        for idle in [5, 0, 5] {
            tokio::time::advance(Duration::from_secs(5)).await;
            body.next().await.unwrap().unwrap();
            assert_eq!(activity.idle(), Duration::from_secs(idle));
        }
    }
}
