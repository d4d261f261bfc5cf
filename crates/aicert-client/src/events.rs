//! What a job reports while it runs, across lost connections.

use std::collections::VecDeque;

use aicert_core::api::StreamEvent;
use aicert_core::runtime::JobId;
use futures_util::Stream;
use futures_util::stream::try_unfold;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};

use crate::attest::AttestedClient;
use crate::config::Patience;
use crate::error::ClientError;
use crate::http::{Answer, Http};
use crate::sse::{Parser, RawEvent};

/// The media type of a stream of events (HTML Living Standard, section 9.2.6).
const MEDIA_TYPE: &str = "text/event-stream";

impl AttestedClient {
    /// What the job reports, each with its number: from the first event on, or from behind the one with number `after`. Ends
    /// after [`StreamEvent::End`].
    ///
    /// A lost connection is made again, and no event comes twice. Texts in events are what the job and the machine wrote: escape
    /// them before they reach a terminal.
    ///
    /// An error is the last item: when the machine cannot be reached any more, or sends something else than events.
    pub fn events(
        &self,
        job: &JobId,
        after: Option<u64>,
    ) -> impl Stream<Item = Result<(u64, StreamEvent), ClientError>> + Send + use<> {
        let reader = Reader {
            patience: self.http.settings.patience(),
            http: self.http.clone(),
            job: job.clone(),
            after,
            connection: None,
            ready: VecDeque::new(),
            wrong: None,
            is_ended: false,
        };
        try_unfold(reader, |mut reader| async move {
            let next = reader.next().await?;
            Ok(next.map(|event| (event, reader)))
        })
    }
}

struct Reader {
    http: Http,
    job: JobId,
    patience: Patience,
    /// The number of the last event that was given out.
    after: Option<u64>,
    connection: Option<(Answer, Parser)>,
    ready: VecDeque<RawEvent>,
    /// What is wrong with the stream behind those.
    wrong: Option<ClientError>,
    is_ended: bool,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<(u64, StreamEvent)>, ClientError> {
        while !self.is_ended {
            if let Some(event) = self.ready.pop_front() {
                let Some((id, event)) = self.read(event)? else {
                    continue;
                };
                self.is_ended = matches!(event, StreamEvent::End { .. });
                return Ok(Some((id, event)));
            }
            if let Some(error) = self.wrong.take() {
                return Err(error);
            }
            match self.receive().await {
                Err(error) if error.is_retryable() => {
                    self.connection = None;
                    self.patience.wait(error).await?;
                }
                result => result?,
            }
        }
        Ok(None)
    }

    /// Connects, or takes what comes next.
    async fn receive(&mut self) -> Result<(), ClientError> {
        let Some((answer, parser)) = &mut self.connection else {
            self.connection = Some((self.connect().await?, Parser::default()));
            return Ok(());
        };
        let Some(chunk) = self.http.chunk(answer).await? else {
            return Err(self
                .http
                .unreachable("the stream of events ended before the job did"));
        };
        self.patience.renew();
        let mut events = Vec::new();
        let parsed = parser.push(&chunk, &mut events);
        self.ready.extend(events);
        // What came before it is right.
        self.wrong = parsed
            .err()
            .map(|error| ClientError::protocol(&*answer.name, "a stream of events", error.to_string()));
        Ok(())
    }

    async fn connect(&self) -> Result<Answer, ClientError> {
        let after = self.after.map(|id| id.to_string());
        let parameter = after.as_deref().map(|id| ("after", id));
        let segments = ["jobs", self.job.as_str(), "events"];
        let mut request = self.http.request_with(Method::GET, &segments, parameter);
        let accept = HeaderValue::from_static(MEDIA_TYPE);
        request.builder = request.builder.header(ACCEPT, accept);
        let answer = self.http.send(request).await?;
        match answer.header(CONTENT_TYPE.as_str()) {
            Some(kind) if kind.starts_with(MEDIA_TYPE) => Ok(answer),
            other => {
                let found = other.unwrap_or("an answer without a media type").to_owned();
                Err(ClientError::protocol(answer.name, MEDIA_TYPE, found))
            }
        }
    }

    /// What an event says; nothing if it was given out before.
    fn read(&mut self, event: RawEvent) -> Result<Option<(u64, StreamEvent)>, ClientError> {
        let wrong = |found: String| {
            let request = format!("the events of job {}", self.job);
            ClientError::protocol(request, "numbered events of this API", found)
        };
        let id = event
            .id
            .ok_or_else(|| wrong(format!("an event without a number: {}", event.data)))?;
        if self.after.is_some_and(|after| id <= after) {
            return Ok(None);
        }
        let said =
            serde_json::from_str(&event.data).map_err(|error| wrong(format!("event {id}: {error}")))?;
        self.after = Some(id);
        Ok(Some((id, said)))
    }
}
