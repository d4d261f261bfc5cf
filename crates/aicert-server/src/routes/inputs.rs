//! `PUT /v1/jobs/{id}/inputs/{name}`.

use std::sync::Arc;

use aicert_core::api::{JobStatus, Problem, ProblemCode};
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};

use crate::App;
use crate::openapi::{Binary, JobName, NotTheOwner};
use crate::problem::Refusal;
use crate::routes::jobs::interrupted;
use crate::uploads::receive;

/// Sends an input that is at the client: a file as it is, a directory as a tar archive of its contents. The job starts when
/// nothing is awaited any more.
#[utoipa::path(
    put,
    path = "/v1/jobs/{id}/inputs/{name}",
    tag = "jobs",
    params(
        JobName,
        ("name" = String, Path, description = "The input's name, percent-encoded"),
    ),
    request_body(content(
        (Binary = "application/octet-stream"),
        (Binary = "application/x-tar"),
    )),
    responses(
        (status = 200, description = "Received", body = JobStatus),
        (status = 400, description = "It broke off, or is no archive that is accepted; it is awaited again", body = Problem, content_type = "application/problem+json"),
        NotTheOwner,
        (status = 404, description = "There is no such job or input", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It was received already, or is just being received", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "Storage is full", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn input(
    State(app): State<Arc<App>>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<JobStatus>, Refusal> {
    let Path((id, name)) = path?;
    let job = Arc::clone(app.jobs.find(&id)?);
    job.require_receiving()?;
    let reception = job.uploads.begin(&name)?;
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    // In a task of its own: a client that goes away after the last byte does not leave a job that never begins. One that
    // goes away before has the body break off.
    let receiving = tokio::spawn(async move {
        tokio::select! {
            biased;
            () = job.cancelled() => {
                return Err(Refusal::new(ProblemCode::WrongState, "the job was stopped"));
            }
            received = receive(reception, body, announced, app.config.limits.stall) => received?,
        }
        job.start_if_complete(&app);
        Ok(job.status())
    });
    receiving.await.map_err(interrupted)?.map(Json)
}
