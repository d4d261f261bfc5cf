//! The OpenAPI document, made from the code that serves what it describes.

use aicert_core::api::Problem;
use utoipa::openapi::security::SecurityScheme;
use utoipa::{IntoParams, IntoResponses, Modify, OpenApi, ToSchema};

use crate::routes;

/// What does not follow from the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "aicert-server",
        description = "What runs in a machine that aicert makes: it attests what has booted, takes one job, and hands out its proof.\n\nEvery connection is TLS 1.3 with a client certificate, whose SHA-256 the machine was given when it was made; all others are answered with 401 before anything is read. Nothing here is to be believed by itself: verify the attestation before anything is sent, and the proof when it is there.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    modifiers(&ClientCertificate),
    security(("client-certificate" = [])),
    tags(
        (name = "attestation", description = "Before anything is sent"),
        (name = "jobs", description = "The one job of this boot"),
        (name = "results", description = "What it leaves"),
    )
)]
pub(crate) struct Document;

/// Bytes as they are.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
pub(crate) struct Binary(#[expect(dead_code, reason = "only described")] Vec<u8>);

/// What names the job in a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only described")]
pub(crate) struct JobName {
    /// The job's name
    id: String,
}

/// What asks for a part.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only described")]
pub(crate) struct RangeHeaders {
    /// `bytes=…`, one range
    range: Option<String>,
    /// An entity tag that was given before
    #[param(rename = "if-range")]
    if_range: Option<String>,
}

/// Not the owner's client certificate
#[derive(IntoResponses)]
#[response(status = 401, content_type = "application/problem+json")]
pub(crate) struct NotTheOwner(#[expect(dead_code, reason = "only described")] Problem);

/// There is no such job
#[derive(IntoResponses)]
#[response(status = 404, content_type = "application/problem+json")]
pub(crate) struct NoSuchJob(#[expect(dead_code, reason = "only described")] Problem);

/// There is not so much
#[derive(IntoResponses)]
#[response(status = 416, content_type = "application/problem+json")]
pub(crate) struct NotSoMuch(#[expect(dead_code, reason = "only described")] Problem);

struct ClientCertificate;

impl Modify for ClientCertificate {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(
            "client-certificate",
            SecurityScheme::MutualTls {
                description: Some("The certificate that the machine was made for".into()),
                deprecated: None,
                extensions: None,
            },
        );
    }
}

/// The document, as JSON.
pub fn document() -> String {
    let mut document = routes::described().into_openapi();
    // The router's way to say that a name may have slashes; OpenAPI has none.
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths = paths
        .into_iter()
        .map(|(path, item)| (path.replace("{*", "{"), item))
        .collect();
    // Texts and numbers in memory: nothing that serde_json refuses.
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `aicert-server openapi > docs/openapi.json` brings it up to date.
    #[test]
    fn the_document_in_the_repository_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        let committed = std::fs::read_to_string(path).unwrap();
        assert!(
            committed == document(),
            "run: cargo run -p aicert-server -- openapi > docs/openapi.json"
        );
    }
}
