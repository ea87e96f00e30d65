//! What people attach to a network, detach from it, expose and hide.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use weft_api::error::{ApiError, ErrorKind};
use weft_api::report;

use super::Here;
use crate::deciding::answer;

pub(super) async fn attach(State(api): Here, body: Bytes) -> Response {
    let attached = async {
        let made = api.attachments.attach(read(&body)?).await?;
        let mut endpoints = api.endpoints().into_iter();
        let here = |e: &report::Endpoint| e.mac == made.mac && e.addresses == made.addresses;
        endpoints.find(here).ok_or_else(|| {
            ApiError::new(ErrorKind::Internal, "its namespace ended while it was attached: is it running?")
        })
    };
    attached.await.map_or_else(answer, |endpoint| Json(endpoint).into_response())
}

pub(super) async fn detach(State(api): Here, body: Bytes) -> Response {
    let detached = async { api.attachments.detach(read(&body)?).await };
    detached.await.map_or_else(answer, |()| StatusCode::NO_CONTENT.into_response())
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|e| {
        let sentence =
            format!("the request cannot be read ({e}): use the same version of weft as the daemon");
        ApiError::new(ErrorKind::Invalid, sentence)
    })
}
