//! `weft mesh key rotate`: a new mesh key, made on the signer that is asked.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use weft_api::error::{ApiError, ErrorKind};
use weft_api::report::Rotated;

use super::{Api, Here};
use crate::deciding::answer;

pub(super) async fn rotate(api: Here) -> Response {
    api.rotate().await.map_or_else(answer, |rotated| Json(rotated).into_response())
}

impl Api {
    async fn rotate(&self) -> Result<Rotated, ApiError> {
        let signer = self.signer.clone().ok_or_else(|| {
            let sentence = "this host does not hold the mesh key: run weft mesh key rotate on the founder or on another signer (weft hosts)";
            ApiError::new(ErrorKind::Conflict, sentence)
        })?;
        let internal = |why: String| ApiError::new(ErrorKind::Internal, why);
        let asked = Arc::clone(&signer);
        let made = tokio::task::spawn_blocking(move || asked.rotate());
        let made = made.await.map_err(|e| internal(e.to_string()))??;
        let view = self.book.view();
        let away = made.signers.iter().filter(|(host, _)| !self.reaches(&view, *host));
        Ok(Rotated {
            fingerprint: made.key.fingerprint(),
            number: made.number,
            unheard: away.map(|(_, name)| name.clone()).collect(),
            signers: made.signers.iter().map(|(_, name)| name.clone()).collect(),
        })
    }
}
