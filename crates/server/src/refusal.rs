//! Requests that get no answer, and why.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// A status with a message for the client.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl Refusal {
    /// A body that is not what was expected: FastAPI's status.
    pub(crate) fn unprocessable(message: impl Into<String>) -> Self {
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, message: message.into() }
    }

    pub(crate) fn too_busy(waiting: usize) -> Self {
        let message = format!("the server is busy: {waiting} searches wait already; ask again later");
        Self { status: StatusCode::SERVICE_UNAVAILABLE, message }
    }

    pub(crate) fn too_late(seconds: u64) -> Self {
        let message = format!("no answer within {seconds} s (`timeout_s` of the server)");
        Self { status: StatusCode::GATEWAY_TIMEOUT, message }
    }

    /// The engine's own failure.
    pub(crate) fn bad_engine(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_GATEWAY, message: message.into() }
    }

    /// FastAPI's form, with more keys beside it.
    pub(crate) fn into_detail(self, mut more: Map<String, Value>) -> Response {
        more.insert("detail".into(), self.message.into());
        respond(self.status, &Value::Object(more))
    }

    /// OpenAI's form.
    pub(crate) fn into_error(self) -> Response {
        let kind = if self.status.is_client_error() { "invalid_request_error" } else { "server_error" };
        let error = json!({"message": self.message, "type": kind, "param": null, "code": self.status.as_u16()});
        respond(self.status, &json!({"error": error}))
    }
}

/// JSON, with the pause that a client should make where the server is busy.
pub(crate) fn respond(status: StatusCode, body: &Value) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    let response = (status, json, body.to_string());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        ([(header::RETRY_AFTER, "1")], response).into_response()
    } else {
        response.into_response()
    }
}
