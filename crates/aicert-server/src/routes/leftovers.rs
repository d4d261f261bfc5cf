//! `GET /v1/jobs/{id}/leftovers`.

use std::sync::Arc;

use aicert_core::api::{Problem, ProblemCode};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;

use super::jobs::interrupted;
use super::results::{stream, unreadable};
use crate::App;
use crate::leftovers::Leftovers;
use crate::openapi::{Binary, JobName, NotSoMuch, NotTheOwner, RangeHeaders};
use crate::pieces::Noted;
use crate::problem::Refusal;
use crate::ranges;

/// What a job without certified outputs left in its outputs folder, as one tar archive. Nothing in it was certified, and no proof
/// speaks of it. There is some only for a job whose state is `failed`, until it is removed.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/leftovers",
    tag = "results",
    params(JobName, RangeHeaders),
    responses(
        (status = 200, description = "All of it: files, folders and symbolic links below `outputs/`, beside `UNCERTIFIED.txt`, and `INCOMPLETE.txt` where something is missing", body = Binary, content_type = "application/x-tar"),
        (status = 206, description = "A part", body = Binary, content_type = "application/x-tar"),
        NotTheOwner,
        (status = 404, description = "There is no such job, or it left nothing that is not certified", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The job has not ended", body = Problem, content_type = "application/problem+json"),
        NotSoMuch,
        (status = 500, description = "It cannot be read", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn leftovers(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Path(id) = id?;
    let (folder, etag) = app.jobs.find(&id)?.leftovers()?;
    let preparing = tokio::task::spawn_blocking(move || {
        let archive = || Leftovers::of(&id, &folder).map_err(unreadable);
        let Some(counted) = archive()? else {
            return Err(nothing());
        };
        let length = counted.length().map_err(unreadable)?;
        let range = ranges::requested(&headers, length, Some(&etag))?;
        let wanted = range.clone().unwrap_or(0..length);
        let archive = archive()?.ok_or_else(nothing)?;
        let archive = archive.range(wanted.start, wanted.end).map_err(unreadable)?;
        Ok((archive, range, length, etag))
    });
    let (archive, range, length, etag) = preparing.await.map_err(interrupted)??;
    let body = stream(Noted::new("leftovers", archive)).await?;
    Ok(ranges::answer(
        range,
        length,
        Some(&etag),
        "application/x-tar",
        body,
    ))
}

fn nothing() -> Refusal {
    Refusal::new(ProblemCode::NotFound, "the job left nothing")
}
