//! What the admin API answers when it cannot do what was asked: one sentence and a kind that a program can act on.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What kind of wrong it is; decides the HTTP status and the exit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The request itself is wrong (400).
    Invalid,
    /// Who asks may not (403).
    Forbidden,
    /// What is named does not exist (404).
    NotFound,
    /// It contradicts what exists (409).
    Conflict,
    /// Who must decide cannot be reached (503).
    Unavailable,
    /// It went wrong here (500).
    Internal,
}

impl ErrorKind {
    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }
}

/// The body of every answer that is not a success.
#[derive(Clone, PartialEq, Eq, Debug, Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct ApiError {
    /// What kind of wrong.
    pub kind: ErrorKind,
    /// One sentence: what is wrong, with what, and what to do.
    pub message: String,
}

impl ApiError {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}
