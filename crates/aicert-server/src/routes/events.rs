//! `GET /v1/jobs/{id}/events`.

use std::sync::Arc;

use aicert_core::api::{Problem, ProblemCode};
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use crate::App;
use crate::openapi::{JobName, NoSuchJob, NotTheOwner};
use crate::problem::Refusal;

const LAST_EVENT_ID: &str = "last-event-id";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Position {
    after: Option<String>,
}

/// What the job reports, as it reports it, to the end of the job. A reader that is slow misses events and is told how many;
/// the job never waits.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/events",
    tag = "jobs",
    params(
        JobName,
        ("after" = Option<u64>, Query, description = "The number of the last event that was read"),
        ("last-event-id" = Option<u64>, Header, description = "The same; what the address says counts more"),
    ),
    responses(
        (status = 200, description = "Server-sent events: the number is the `id`, `data` is the event as JSON", body = String, content_type = "text/event-stream"),
        (status = 400, description = "The number is none", body = Problem, content_type = "application/problem+json"),
        NotTheOwner,
        NoSuchJob,
    )
)]
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<Position>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Path(id) = id?;
    let Query(Position { after }) = query?;
    let job = app.jobs.find(&id)?;
    let header = headers
        .get(LAST_EVENT_ID)
        .map(|value| value.to_str().unwrap_or_default());
    let from = match after.as_deref().or(header) {
        None => 0,
        Some(text) => first_after(text)?,
    };
    let stream = Arc::clone(&job.events).stream(from, app.pause());
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

/// The number after one that a client has.
fn first_after(text: &str) -> Result<u64, Refusal> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| text.parse::<u64>().ok()?.checked_add(1))
        .flatten()
        .ok_or_else(|| {
            Refusal::new(
                ProblemCode::BadRequest,
                "the number of the last event is none: expected what an event had as its `id`",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_are_read_or_refused(text in "\\PC{0,24}", number in any::<u64>()) {
            let _ = first_after(&text);
            prop_assert_eq!(first_after(&number.to_string()).ok(), number.checked_add(1));
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in [
            "",
            "+1",
            "-1",
            " 1",
            "1 ",
            "0x1",
            "18446744073709551615",
            "18446744073709551616",
        ] {
            assert!(first_after(text).is_err(), "{text}");
        }
        assert_eq!(first_after("0").unwrap(), 1);
    }
}
