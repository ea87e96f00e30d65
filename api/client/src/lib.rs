//! The one typed client of the admin API: a request on the daemon's unix socket, a noun or an [`ApiError`] back.
//! Also HTTP/1.1 over any stream, for whoever asks another host by the same requests.

#![forbid(unsafe_code)]

mod admin;
mod exchange;

pub use admin::{Admin, SOCKET};
pub use exchange::{ExchangeError, MAX_ANSWER, exchange};

pub use weft_api::error::ApiError;
