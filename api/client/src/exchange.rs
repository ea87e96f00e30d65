//! One HTTP/1.1 request and its answer on a stream of its own.

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

/// A longer answer is an error: 32 hosts with all their containers stay far below.
pub const MAX_ANSWER: usize = 16 << 20;

/// The other end did not answer as HTTP does.
#[derive(Debug, Error)]
pub enum ExchangeError {
    /// The path or the body makes no request.
    #[error("the request cannot be written: {0}")]
    Request(#[from] hyper::http::Error),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    /// The answer's body broke off or is longer than [`MAX_ANSWER`].
    #[error("the answer cannot be read: {0}")]
    Answer(String),
}

/// Sends one request with a JSON body (which may be empty) and reads the answer whole. Without a deadline of its own.
pub async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), ExchangeError> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "weft")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|e| ExchangeError::Answer(e.to_string()))?;
        Ok((status, body.to_bytes()))
    };
    // The connection is driven here, not in a task: nothing of it outlives the caller's patience.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        ended = &mut connection => {
            ended?;
            exchange.await
        }
    }
}
