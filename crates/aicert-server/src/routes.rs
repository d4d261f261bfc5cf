//! What can be asked. Whoever gets here is the owner: see [`crate::listen`].

mod attestation;
mod events;
mod inputs;
mod jobs;
mod leftovers;
mod results;

use std::sync::Arc;
use std::time::Instant;

use aicert_core::api::ProblemCode;
use axum::Router;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::App;
use crate::linger::Lingering;
use crate::openapi::Document;
use crate::problem::Refusal;

/// The routes, with their description.
pub(crate) fn described() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(attestation::attestation))
        .routes(routes!(jobs::submit))
        .routes(routes!(jobs::status, jobs::remove))
        .routes(routes!(inputs::input))
        .routes(routes!(events::events))
        .routes(routes!(results::certificate))
        .routes(routes!(results::manifest))
        .routes(routes!(results::log))
        .routes(routes!(results::outputs))
        .routes(routes!(results::output))
        .routes(routes!(leftovers::leftovers))
}

/// Everything, ready to be served.
pub(crate) fn router(app: Arc<App>) -> Router {
    let (router, _) = described().split_for_parts();
    router
        .fallback(nothing_here)
        .method_not_allowed_fallback(not_that_way)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), around))
        .with_state(app)
}

/// What every request goes through: its time is limited, its bodies count as somebody being there, and it is logged.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    app.activity.touch();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    // An upload takes as long as it takes; that it goes on is looked after where it is received.
    let is_upload = method == axum::http::Method::PUT;
    let request = request.map(|body| Lingering::wrap(app.activity.watch(body)));
    let answering = next.run(request);
    let response = if is_upload || method == axum::http::Method::DELETE {
        answering.await
    } else {
        let limit = app.config.limits.request;
        match tokio::time::timeout(limit, answering).await {
            Ok(response) => response,
            Err(_) => Refusal::new(
                ProblemCode::Failed,
                format!("the request took longer than {} seconds", limit.as_secs()),
            )
            .advice("try again; if it stays so, the TPM or the disk of the machine hangs")
            .into_response(),
        }
    };
    tracing::info!(
        %method,
        route = route.as_ref().map_or("none", MatchedPath::as_str),
        status = response.status().as_u16(),
        milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        "answered"
    );
    response.map(|body| app.activity.watch(body))
}

async fn nothing_here() -> Refusal {
    Refusal::new(ProblemCode::NotFound, "there is nothing at this address")
        .advice("the server's OpenAPI document says what there is")
}

async fn not_that_way() -> Response {
    let mut response = Refusal::new(
        ProblemCode::BadRequest,
        "this address does not take requests of this method",
    )
    .into_response();
    *response.status_mut() = axum::http::StatusCode::METHOD_NOT_ALLOWED;
    response
}

impl From<PathRejection> for Refusal {
    fn from(rejection: PathRejection) -> Self {
        Self::new(ProblemCode::BadRequest, "the address is not understood").internal(rejection)
    }
}

impl From<QueryRejection> for Refusal {
    fn from(_: QueryRejection) -> Self {
        Self::new(
            ProblemCode::BadRequest,
            "what follows the `?` of the address is not understood",
        )
    }
}
