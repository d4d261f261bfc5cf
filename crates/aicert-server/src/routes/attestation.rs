//! `GET /v1/attestation`.

use std::sync::Arc;

use aicert_core::api::{Attestation, Problem, ProblemCode};
use aicert_core::digest::Nonce;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;

use crate::App;
use crate::attestation::attest;
use crate::openapi::NotTheOwner;
use crate::problem::Refusal;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Challenge {
    nonce: Option<String>,
}

/// Evidence of what has booted, and of who holds the key of this connection. Also while a job runs.
#[utoipa::path(
    get,
    path = "/v1/attestation",
    tag = "attestation",
    params(("nonce" = String, Query, description = "A challenge: 64 lowercase hexadecimal digits", pattern = "^[0-9a-f]{64}$")),
    responses(
        (status = 200, description = "The evidence", body = Attestation),
        (status = 400, description = "The nonce is none", body = Problem, content_type = "application/problem+json"),
        NotTheOwner,
        (status = 500, description = "The TPM did not answer", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn attestation(
    State(app): State<Arc<App>>,
    query: Result<Query<Challenge>, QueryRejection>,
) -> Result<Json<Attestation>, Refusal> {
    let Query(Challenge { nonce }) = query?;
    let nonce: Nonce = nonce
        .as_deref()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| {
            Refusal::new(
                ProblemCode::BadRequest,
                "`nonce` is missing or no nonce: expected 64 lowercase hexadecimal digits",
            )
        })?;
    attest(app.backends.tpm.as_ref(), app.tls_key, nonce)
        .await
        .map(Json)
}
