//! `/v1/jobs`.

use std::sync::Arc;

use aicert_core::api::{JobStatus, Problem, ProblemCode, SUBMISSION_LIMIT, Submission};
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::App;
use crate::openapi::{JobName, NoSuchJob, NotTheOwner};
use crate::problem::Refusal;
use crate::server::Ended;

/// Submits the job. Sending the same bytes again changes nothing, and gives the same answer.
#[utoipa::path(
    post,
    path = "/v1/jobs",
    tag = "jobs",
    request_body = Submission,
    responses(
        (status = 201, description = "Accepted: it waits for what is `awaited`, or runs", body = JobStatus),
        (status = 200, description = "It was accepted before", body = JobStatus),
        (status = 400, description = "This is no submission", body = Problem, content_type = "application/problem+json"),
        NotTheOwner,
        (status = 409, description = "The machine has had its job, or can certify none", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "It is too large", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The configuration cannot be used here; the machine can still have its job", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "Storage is full", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn submit(
    State(app): State<Arc<App>>,
    body: Body,
) -> Result<(StatusCode, Json<JobStatus>), Refusal> {
    let body = Limited::new(body, SUBMISSION_LIMIT)
        .collect()
        .await
        .map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => Refusal::new(
                ProblemCode::TooLarge,
                format!("the submission has more than {SUBMISSION_LIMIT} bytes"),
            )
            .advice("large files are inputs: `type: file` or `type: directory`"),
            None => Refusal::new(ProblemCode::BadRequest, "the submission broke off"),
        })?
        .to_bytes();
    // In a task of its own: a client that goes away does not leave half a job.
    let submitting = tokio::spawn(async move { app.jobs.submit(&app, &body).await });
    let (is_new, status) = submitting.await.map_err(interrupted)??;
    let code = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((code, Json(status)))
}

/// How far the job is.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}",
    tag = "jobs",
    params(JobName),
    responses(
        (status = 200, description = "How far it is", body = JobStatus),
        NotTheOwner,
        NoSuchJob,
    )
)]
pub(crate) async fn status(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<JobStatus>, Refusal> {
    let Path(id) = id?;
    Ok(Json(app.jobs.find(&id)?.status()))
}

/// Stops the job if it runs, removes everything of it, and ends the server, with which the machine turns itself off.
#[utoipa::path(
    delete,
    path = "/v1/jobs/{id}",
    tag = "jobs",
    params(JobName),
    responses(
        (status = 200, description = "Nothing is left of it; the server ends", body = JobStatus),
        NotTheOwner,
        NoSuchJob,
    )
)]
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<JobStatus>, Refusal> {
    let Path(id) = id?;
    let job = Arc::clone(app.jobs.find(&id)?);
    // In a task of its own: it is finished whether or not the client waits.
    let removing = tokio::spawn(async move {
        let status = job.remove(app.backends.clone()).await;
        // This very answer is still sent.
        app.ending.end(Ended::Removed);
        status
    });
    removing.await.map(Json).map_err(interrupted)
}

/// From a task that a request was answered by.
pub(super) fn interrupted(error: tokio::task::JoinError) -> Refusal {
    Refusal::new(
        ProblemCode::Failed,
        "the request was interrupted by a fault of the server",
    )
    .internal(error)
}
