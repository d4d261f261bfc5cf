//! What a job leaves: `…/certificate`, `…/manifest`, `…/log` and `…/outputs`.

use std::fs::File;
use std::io;
use std::sync::Arc;

use aicert_core::api::{Problem, ProblemCode};
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::App;
use crate::openapi::{Binary, JobName, NoSuchJob, NotSoMuch, NotTheOwner, RangeHeaders};
use crate::outputs::Concatenation;
use crate::pieces::{self, Noted, Part, Pieces};
use crate::problem::Refusal;
use crate::ranges;

const BYTES: &str = "application/octet-stream";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const LINES: &str = "application/jsonl";

type Id = Result<Path<String>, PathRejection>;

/// The proof file, byte for byte. It is there also for a job that failed by itself, and says so; and where nothing else of the
/// results can be handed out.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/certificate",
    tag = "results",
    params(JobName),
    responses(
        (status = 200, description = "The proof file", body = Object, content_type = "application/json"),
        NotTheOwner,
        NoSuchJob,
        (status = 409, description = "There is none, or none yet", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn certificate(
    State(app): State<Arc<App>>,
    id: Id,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Path(id) = id?;
    let proof = app.jobs.find(&id)?.proof()?;
    let (bytes, etag) = (proof.certificate, format!("\"{}\"", proof.head));
    let length = bytes.len() as u64;
    let range = ranges::requested(&headers, length, Some(&etag))?;
    // A range inside of what is in memory.
    let part = match &range {
        Some(range) => bytes.slice(range.start as usize..range.end as usize),
        None => bytes,
    };
    Ok(ranges::answer(range, length, Some(&etag), JSON, Body::from(part)))
}

/// The listings that are too large for the proof file; empty when there are none.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/manifest",
    tag = "results",
    params(JobName),
    responses(
        (status = 200, description = "One JSON object per line", body = String, content_type = "application/jsonl"),
        (status = 206, description = "A part of it", body = String, content_type = "application/jsonl"),
        NotTheOwner,
        NoSuchJob,
        (status = 409, description = "There is none, or none yet", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn manifest(
    State(app): State<Arc<App>>,
    id: Id,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Path(id) = id?;
    let results = app.jobs.find(&id)?.results()?;
    let etag = format!("\"{}-manifest\"", results.proof.head);
    let path = results.manifest.clone();
    file(&headers, path, Some(&etag), LINES).await
}

/// What the job has printed so far; also that of a job that failed.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/log",
    tag = "results",
    params(JobName, RangeHeaders),
    responses(
        (status = 200, description = "The whole, as it is now", body = String, content_type = "text/plain"),
        (status = 206, description = "A part of it", body = String, content_type = "text/plain"),
        NotTheOwner,
        NoSuchJob,
        NotSoMuch,
    )
)]
pub(crate) async fn log(
    State(app): State<Arc<App>>,
    id: Id,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Path(id) = id?;
    let (path, etag) = app.jobs.find(&id)?.log_file();
    file(&headers, Some(path), etag.as_deref(), TEXT).await
}

/// The contents of all output files, in the order of the listing of `outputs_measured` in the proof, with nothing in between.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/outputs",
    tag = "results",
    params(JobName, RangeHeaders),
    responses(
        (status = 200, description = "All of them", body = Binary, content_type = "application/octet-stream"),
        (status = 206, description = "A part", body = Binary, content_type = "application/octet-stream"),
        NotTheOwner,
        NoSuchJob,
        (status = 409, description = "There are none, or none yet", body = Problem, content_type = "application/problem+json"),
        NotSoMuch,
        (status = 500, description = "A file is not what was measured", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn outputs(
    State(app): State<Arc<App>>,
    id: Id,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Path(id) = id?;
    let results = app.jobs.find(&id)?.results()?;
    let etag = format!("\"{}-outputs\"", results.proof.head);
    let length = results.outputs.length();
    let range = ranges::requested(&headers, length, Some(&etag))?;
    let wanted = range.clone().unwrap_or(0..length);
    let pieces = Concatenation::new(Arc::clone(&results.outputs), wanted);
    let body = stream(Noted::new("outputs", pieces)).await?;
    Ok(ranges::answer(range, length, Some(&etag), BYTES, body))
}

/// One output file.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/outputs/{*path}",
    tag = "results",
    params(
        JobName,
        ("path" = String, Path, description = "A path of the listing of `outputs_measured`, percent-encoded but for its slashes"),
        RangeHeaders,
    ),
    responses(
        (status = 200, description = "The file", body = Binary, content_type = "application/octet-stream"),
        (status = 206, description = "A part of it", body = Binary, content_type = "application/octet-stream"),
        NotTheOwner,
        (status = 404, description = "There is no such job or output", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "There are none, or none yet", body = Problem, content_type = "application/problem+json"),
        NotSoMuch,
        (status = 500, description = "The file is not what was measured", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn output(
    State(app): State<Arc<App>>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Path((id, path)) = path?;
    let results = app.jobs.find(&id)?.results()?;
    let outputs = Arc::clone(&results.outputs);
    let missing = || {
        Refusal::new(ProblemCode::NotFound, format!("there is no output {path:?}"))
            .advice("the listing of `outputs_measured` in the proof says which there are")
    };
    let found = outputs.find(&path).ok_or_else(missing)?;
    let etag = format!("\"{}-{}\"", results.proof.head, found.start());
    let length = found.size;
    let range = ranges::requested(&headers, length, Some(&etag))?;
    let wanted = range.clone().unwrap_or(0..length);
    let part = outputs.part(found, wanted).map_err(unreadable)?;
    Ok(ranges::answer(
        range,
        length,
        Some(&etag),
        BYTES,
        stream(part).await?,
    ))
}

/// A file of the job's folder, as it is now; nothing is an empty one.
async fn file(
    headers: &HeaderMap,
    path: Option<std::path::PathBuf>,
    etag: Option<&str>,
    content_type: &'static str,
) -> Result<Response, Refusal> {
    let opened = tokio::task::spawn_blocking(move || path.map_or(Ok(None), |path| open(&path)))
        .await
        .map_err(io::Error::other)
        .flatten()
        .map_err(unreadable)?;
    let length = opened.as_ref().map_or(0, |(_, length)| *length);
    let range = ranges::requested(headers, length, etag)?;
    let wanted = range.clone().unwrap_or(0..length);
    let body = match opened {
        Some((file, _)) => stream(Part::new(file, wanted)).await?,
        None => Body::empty(),
    };
    Ok(ranges::answer(range, length, etag, content_type, body))
}

/// Opens a file, and tells how long it is; nothing when it is not there.
fn open(path: &std::path::Path) -> io::Result<Option<(File, u64)>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(CWD, path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let length = file.metadata()?.len();
    Ok(Some((file, length)))
}

pub(super) async fn stream(pieces: impl Pieces) -> Result<Body, Refusal> {
    pieces::body(pieces).await.map_err(unreadable)
}

pub(super) fn unreadable(error: io::Error) -> Refusal {
    Refusal::new(
        ProblemCode::Failed,
        format!("a file of the job cannot be read as it was: {error}"),
    )
}
