//! What weft asks of the Docker engine of this host: its version, the networks of driver `weft`, the containers on
//! them, and a stream of what happens to them. The only user of bollard. It never waits for an engine that is away:
//! errors are typed, trying again is the caller's.

#![forbid(unsafe_code)]

mod error;
mod events;
mod network;
mod process;
mod stranded;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as BollardError;

pub use error::{EngineError, EnsureError, RemoveError};
pub use events::{EVENT_QUEUE, Event};
pub use network::{Container, DRIVER, DockerNetwork, Ensured, OPTION_MTU, OPTION_NETWORK};
pub use process::Running;
pub use stranded::Stranded;

/// The oldest API: Engine 20.10's.
pub const OLDEST_API: (u32, u32) = (1, 41);

/// How long an engine may think about a change: it may wait 15 s itself for a plugin, several times over.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long it may take to say what it knows: its version, that it lives, what a container is.
pub const QUICK_PATIENCE: Duration = Duration::from_secs(5);

/// Where an engine listens unless `DOCKER_HOST` says otherwise.
const SOCKET: &str = "/run/docker.sock";

/// An engine that answered. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    docker: Docker,
    socket: String,
    version: Version,
}

/// What an engine says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version {
    /// Such as `20.10.24`.
    pub engine: String,
    /// The newest API that it speaks, such as `1.41`.
    pub api: String,
}

impl Engine {
    /// Connects to `DOCKER_HOST` or /run/docker.sock, agrees on an API version, and refuses an engine that is too old.
    pub async fn connect() -> Result<Self, EngineError> {
        Self::connect_to(&socket(std::env::var("DOCKER_HOST").ok())?).await
    }

    /// Connects to the socket at this path.
    pub async fn connect_to(socket: &str) -> Result<Self, EngineError> {
        let wrong = |e| error::translate("tell its version", socket, e);
        let docker = Docker::connect_with_unix(socket, PATIENCE.as_secs(), bollard::API_DEFAULT_VERSION)
            .map_err(wrong)?;
        let greeted = quick(async {
            let docker = docker.negotiate_version().await.map_err(wrong)?;
            let version = docker.version().await.map_err(wrong)?;
            Ok((docker, version))
        });
        let (docker, version) = greeted.await?;
        let version = Version {
            engine: version.version.unwrap_or_else(|| "of unknown version".into()),
            api: version.api_version.unwrap_or_default(),
        };
        if api_number(&version.api).is_none_or(|api| api < OLDEST_API) {
            return Err(EngineError::TooOld { engine: version.engine, api: version.api });
        }
        Ok(Self { docker, socket: socket.to_owned(), version })
    }

    /// What it is.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Whether it answers at all.
    pub async fn ping(&self) -> Result<(), EngineError> {
        quick(async { self.docker.ping().await.map(drop).map_err(self.wrong("say that it lives")) }).await
    }

    /// Whether containers run on while it restarts (`live-restore`).
    pub async fn live_restore(&self) -> Result<bool, EngineError> {
        let told = async { self.docker.info().await.map_err(self.wrong("tell how it is set up")) };
        let info = quick(told).await?;
        Ok(info.live_restore_enabled.unwrap_or(false))
    }

    fn wrong(&self, what: &str) -> impl FnOnce(BollardError) -> EngineError {
        move |e| error::translate(what, &self.socket, e)
    }
}

/// Waits no longer than [`QUICK_PATIENCE`].
async fn quick<T>(asked: impl Future<Output = Result<T, EngineError>>) -> Result<T, EngineError> {
    let silent = |_| EngineError::Silent { seconds: QUICK_PATIENCE.as_secs() };
    tokio::time::timeout(QUICK_PATIENCE, asked).await.map_err(silent)?
}

fn socket(docker_host: Option<String>) -> Result<String, EngineError> {
    match docker_host {
        None => Ok(SOCKET.to_owned()),
        Some(host) if host.is_empty() => Ok(SOCKET.to_owned()),
        Some(host) => match host.strip_prefix("unix://") {
            Some(path) => Ok(path.to_owned()),
            None => Err(EngineError::NotLocal { host }),
        },
    }
}

fn api_number(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
