//! From what went wrong to an answer.

use aicert_core::api::{Problem, ProblemCode};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// What a request is refused with: what the client is told, and what only the log is told.
#[derive(Debug)]
pub(crate) struct Refusal {
    problem: Problem,
    internal: Option<String>,
    /// The length of what a range was asked of.
    complete_length: Option<u64>,
}

impl Refusal {
    pub(crate) fn new(code: ProblemCode, message: impl Into<String>) -> Self {
        Self {
            problem: Problem {
                code,
                message: message.into(),
                advice: None,
            },
            internal: None,
            complete_length: None,
        }
    }

    /// Adds what the client can do.
    pub(crate) fn advice(mut self, advice: impl Into<String>) -> Self {
        self.problem.advice = Some(advice.into());
        self
    }

    /// Adds what the client can do, where there is something.
    pub(crate) fn maybe_advice(mut self, advice: Option<impl Into<String>>) -> Self {
        self.problem.advice = advice.map(Into::into);
        self
    }

    /// Adds what is for the log alone; never a secret.
    pub(crate) fn internal(mut self, what: impl ToString) -> Self {
        self.internal = Some(what.to_string());
        self
    }

    pub(crate) fn range(complete_length: u64) -> Self {
        let mut refusal = Self::new(
            ProblemCode::Range,
            format!("the range lies outside of what there is: {complete_length} bytes"),
        );
        refusal.complete_length = Some(complete_length);
        refusal
    }

    #[cfg(test)]
    pub(crate) fn problem(&self) -> &Problem {
        &self.problem
    }
}

/// The status that goes with a code.
pub(crate) fn status(code: ProblemCode) -> StatusCode {
    match code {
        ProblemCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ProblemCode::BadRequest => StatusCode::BAD_REQUEST,
        ProblemCode::NotFound => StatusCode::NOT_FOUND,
        ProblemCode::Occupied | ProblemCode::WrongState | ProblemCode::IncompleteChain => {
            StatusCode::CONFLICT
        }
        ProblemCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ProblemCode::Range => StatusCode::RANGE_NOT_SATISFIABLE,
        ProblemCode::Busy => StatusCode::TOO_MANY_REQUESTS,
        ProblemCode::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        ProblemCode::Configuration => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The body of a problem.
pub(crate) fn body(problem: &Problem) -> Vec<u8> {
    // Texts in memory: nothing that serde_json refuses.
    serde_json::to_vec(problem).unwrap_or_default()
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = status(self.problem.code);
        if let Some(internal) = &self.internal {
            tracing::warn!(status = status.as_u16(), internal, "refused a request");
        }
        let mut response = (
            status,
            [(header::CONTENT_TYPE, "application/problem+json")],
            body(&self.problem),
        )
            .into_response();
        if let Some(length) = self.complete_length
            && let Ok(value) = HeaderValue::from_str(&format!("bytes */{length}"))
        {
            response.headers_mut().insert(header::CONTENT_RANGE, value);
        }
        response
    }
}
