//! What can go wrong with an engine; each message is the sentence for `weft status`.

use thiserror::Error;
use weft_api::id::NetworkId;

/// An engine cannot be used, or did not do what was asked.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum EngineError {
    /// Nobody answers: not installed, not started, or restarting. Try again later.
    #[error("Docker does not answer on {socket} ({why}): start it, weft waits for it")]
    Absent {
        /// Where it was looked for.
        socket: String,
        /// The system's words.
        why: String,
    },
    /// It took the call and gave no answer in time. Try again later.
    #[error(
        "Docker takes calls and gave no answer within {seconds} s: see its log (journalctl -u docker), weft asks again"
    )]
    Silent {
        /// How long.
        seconds: u64,
    },
    /// Older than Engine 20.10.
    #[error("Docker {engine} speaks API {api}, too old for weft: install Docker 20.10 (API 1.41) or newer")]
    TooOld {
        /// Its version.
        engine: String,
        /// Its newest API.
        api: String,
    },
    /// `DOCKER_HOST` is elsewhere.
    #[error(
        "DOCKER_HOST is {host}, but weft drives the engine of its own host: unset it, or give a unix:// address"
    )]
    NotLocal {
        /// What it says.
        host: String,
    },
    /// It said no.
    #[error("Docker refuses to {what}: {sentence}; see its log (journalctl -u docker)")]
    Refused {
        /// What was asked.
        what: String,
        /// Docker's words.
        sentence: String,
    },
    /// What it said makes no sense to us.
    #[error("Docker's answer when asked to {what} cannot be read: {why}")]
    Unreadable {
        /// What was asked.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

impl EngineError {
    /// Whether the same call can succeed later without anybody changing anything.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Absent { .. } | Self::Silent { .. })
    }
}

/// A network of the mesh has no Docker network here.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum EnsureError {
    /// Its name belongs to another.
    #[error(
        "the name \"{name}\" is taken on this host by a Docker network of driver {driver}: remove it (docker network rm {short}), \
         or make the mesh's under another name"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        driver: String,
        /// The beginning of its id in Docker.
        short: String,
        /// The network of the mesh that it stands for, if any.
        network: Option<NetworkId>,
    },
    /// The one that there is was made for the same network in another shape, and is in use.
    #[error(
        "Docker's network \"{name}\" has not the ranges and options of the mesh's: stop the containers on it ({}), and weft makes it anew",
        containers.join(", ")
    )]
    Differs {
        /// The name.
        name: String,
        /// Who uses it.
        containers: Vec<String>,
    },
    /// The engine itself.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A Docker network cannot be removed.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum RemoveError {
    /// Containers run on it.
    #[error("the Docker network \"{name}\" is in use by {}: stop or disconnect them first", containers.join(", "))]
    InUse {
        /// Its name.
        name: String,
        /// Who uses it, by name.
        containers: Vec<String>,
    },
    /// The engine itself.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Says what an error of the library means to us.
pub(crate) fn translate(what: &str, socket: &str, error: bollard::errors::Error) -> EngineError {
    use bollard::errors::Error as E;
    let what = what.to_owned();
    match error {
        E::DockerResponseServerError { message, .. } => {
            EngineError::Refused { what, sentence: message.trim().trim_end_matches('.').to_owned() }
        }
        E::RequestTimeoutError => EngineError::Silent { seconds: crate::PATIENCE.as_secs() },
        E::JsonDataError { message, .. } => EngineError::Unreadable { what, why: message },
        E::JsonSerdeError { err } => EngineError::Unreadable { what, why: err.to_string() },
        E::APIVersionParseError {} => EngineError::Unreadable { what, why: "no API version".into() },
        E::SocketNotFoundError(_) => {
            EngineError::Absent { socket: socket.to_owned(), why: "no such socket".into() }
        }
        other => EngineError::Absent { socket: socket.to_owned(), why: root_cause(&other) },
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
