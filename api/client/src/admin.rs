//! The client of the admin socket: what the CLI asks the daemon of its own host.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use weft_api::error::{ApiError, ErrorKind};
use weft_api::network::Network;
use weft_api::report;
use weft_api::request::{Attach, CreateNetwork, Detach, Leave, NewToken, Rekey, TokenMade, path};

use crate::exchange::exchange;

/// Where the daemon listens for the people of its own host.
pub const SOCKET: &str = "/run/weft/weft.sock";

/// The daemon may itself ask the deciding host, and leaving waits for Docker.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks the daemon of this host; each call is a connection of its own.
#[derive(Clone, Debug)]
pub struct Admin {
    socket: PathBuf,
}

impl Admin {
    /// The daemon that listens here, usually at [`SOCKET`].
    #[must_use]
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Whether a daemon takes connections.
    pub async fn answers(&self) -> bool {
        UnixStream::connect(&self.socket).await.is_ok()
    }

    /// How this host and its mesh are.
    pub async fn status(&self) -> Result<report::Status, ApiError> {
        self.get(path::STATUS).await
    }

    /// The members.
    pub async fn hosts(&self) -> Result<Vec<report::Host>, ApiError> {
        self.get(path::HOSTS).await
    }

    /// The links to the other members.
    pub async fn links(&self) -> Result<Vec<report::Link>, ApiError> {
        self.get(path::LINKS).await
    }

    /// The containers on networks of the mesh.
    pub async fn endpoints(&self) -> Result<Vec<report::Endpoint>, ApiError> {
        self.get(path::ENDPOINTS).await
    }

    /// The way of a frame to an address, a container or a host.
    pub async fn trace(&self, to: &str) -> Result<report::Trace, ApiError> {
        self.get(&named(path::TRACE, to)).await
    }

    /// The clocks of other members.
    pub async fn clocks(&self) -> Result<Vec<report::Skew>, ApiError> {
        self.get(path::CLOCKS).await
    }

    /// The networks.
    pub async fn networks(&self) -> Result<Vec<report::Network>, ApiError> {
        self.get(path::NETWORKS).await
    }

    /// One network, by name or id.
    pub async fn network(&self, name: &str) -> Result<report::Network, ApiError> {
        self.get(&named(path::NETWORKS, name)).await
    }

    /// The tokens, without their secrets.
    pub async fn tokens(&self) -> Result<Vec<report::Token>, ApiError> {
        self.get(path::TOKENS).await
    }

    /// Makes a network.
    pub async fn create_network(&self, wish: &CreateNetwork) -> Result<Network, ApiError> {
        read(&self.ask(Method::POST, path::NETWORKS, json(wish)?).await?)
    }

    /// Removes a network that nobody uses.
    pub async fn remove_network(&self, name: &str) -> Result<(), ApiError> {
        self.ask(Method::DELETE, &named(path::NETWORKS, name), Bytes::new()).await.map(drop)
    }

    /// This host has the network again.
    pub async fn attach_network(&self, name: &str) -> Result<(), ApiError> {
        self.ask(Method::POST, &here(name), Bytes::new()).await.map(drop)
    }

    /// This host does not have the network any more; the others keep it.
    pub async fn detach_network(&self, name: &str) -> Result<(), ApiError> {
        self.ask(Method::DELETE, &here(name), Bytes::new()).await.map(drop)
    }

    /// Puts a container, a namespace or this host on a network.
    pub async fn attach(&self, wish: &Attach) -> Result<report::Endpoint, ApiError> {
        read(&self.ask(Method::POST, path::ATTACHMENTS, json(wish)?).await?)
    }

    /// Takes it off again.
    pub async fn detach(&self, wish: &Detach) -> Result<(), ApiError> {
        self.ask(Method::DELETE, path::ATTACHMENTS, json(wish)?).await.map(drop)
    }

    /// Makes a token.
    pub async fn new_token(&self, wish: &NewToken) -> Result<TokenMade, ApiError> {
        read(&self.ask(Method::POST, path::TOKENS, json(wish)?).await?)
    }

    /// Makes a token worthless.
    pub async fn remove_token(&self, id: &str) -> Result<(), ApiError> {
        self.ask(Method::DELETE, &named(path::TOKENS, id), Bytes::new()).await.map(drop)
    }

    /// Removes a host from the mesh, for good.
    pub async fn remove_host(&self, name: &str) -> Result<(), ApiError> {
        self.ask(Method::DELETE, &named(path::HOSTS, name), Bytes::new()).await.map(drop)
    }

    /// Fresh keys for the sessions of this host, or of all.
    pub async fn rekey(&self, all: bool) -> Result<Vec<report::Rekeyed>, ApiError> {
        read(&self.ask(Method::POST, path::REKEY, json(&Rekey { all })?).await?)
    }

    /// A new mesh key; this host is a signer.
    pub async fn rotate(&self) -> Result<report::Rotated, ApiError> {
        read(&self.ask(Method::POST, path::ROTATE, Bytes::new()).await?)
    }

    /// This host leaves its mesh. What it could not clean up, a sentence each.
    pub async fn leave(&self, leave: &Leave) -> Result<Vec<String>, ApiError> {
        read(&self.ask(Method::POST, path::LEAVE, json(leave)?).await?)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        read(&self.ask(Method::GET, path, Bytes::new()).await?)
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ApiError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| away(&self.socket, &e))?;
        let asked = tokio::time::timeout(PATIENCE, exchange(stream, method, path, body)).await;
        let (status, body) = match asked {
            Ok(Ok(answer)) => answer,
            Ok(Err(e)) => {
                let sentence = format!("weft up broke off ({e}): see its log");
                return Err(ApiError::new(ErrorKind::Internal, sentence));
            }
            Err(_) => {
                let sentence = format!("weft up gave no answer within {} s: see its log", PATIENCE.as_secs());
                return Err(ApiError::new(ErrorKind::Unavailable, sentence));
            }
        };
        if status.is_success() { Ok(body) } else { Err(refusal(status, &body)) }
    }
}

/// The [`ApiError`] of an answer that is not a success.
fn refusal(status: StatusCode, body: &[u8]) -> ApiError {
    serde_json::from_slice(body).unwrap_or_else(|_| {
        let sentence = format!(
            "weft up answered {status} without saying why: use the same version of weft as the daemon"
        );
        ApiError::new(ErrorKind::Internal, sentence)
    })
}

fn away(socket: &Path, error: &io::Error) -> ApiError {
    let sentence = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("{} is for root only: run weft as root (sudo weft ...)", socket.display())
        }
        _ => "the daemon of this host is not running: start it with weft up (before the first time: weft init or weft join)".to_owned(),
    };
    ApiError::new(ErrorKind::Unavailable, sentence)
}

fn json(body: &impl Serialize) -> Result<Bytes, ApiError> {
    let body = serde_json::to_vec(body);
    body.map(Bytes::from)
        .map_err(|e| ApiError::new(ErrorKind::Internal, format!("the request cannot be written: {e}")))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|e| {
        let sentence =
            format!("the daemon's answer cannot be read ({e}): use the same version of weft as the daemon");
        ApiError::new(ErrorKind::Internal, sentence)
    })
}

/// The path of one thing; what a path cannot hold is written as `%XX` (RFC 3986 2.1).
fn here(name: &str) -> String {
    format!("{}/{}", named(path::NETWORKS, name), path::HERE)
}

fn named(path: &str, name: &str) -> String {
    let mut named = format!("{path}/");
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                named.push(char::from(byte))
            }
            _ => named.push_str(&format!("%{byte:02X}")),
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_so_that_they_stay_one_segment() {
        assert_eq!(named("/v1/networks", "app"), "/v1/networks/app");
        assert_eq!(named("/v1/networks", "a/b c%"), "/v1/networks/a%2Fb%20c%25");
    }

    #[tokio::test]
    async fn no_daemon_is_a_sentence() {
        let error = Admin::at("/nonexistent/weft.sock").status().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert!(error.message.contains("weft up") && error.message.contains("weft init"), "{error}");
    }
}
