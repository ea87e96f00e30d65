//! What can go wrong with bridges and veths.

use std::io;

use rustix::io::Errno;
use thiserror::Error;

/// The kernel did not do what was asked.
#[derive(Debug, Error)]
pub enum BridgeError {
    /// No netlink socket.
    #[error("cannot open a netlink socket ({source}): weft needs root")]
    Open {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("cannot {what}: {source}{}", root_needed(source))]
    Refused {
        /// What was asked.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Something else has the name.
    #[error("the interface {name} is not a bridge: remove it (ip link del {name}), the name is weft's")]
    NotABridge {
        /// The name.
        name: String,
    },
    /// The interface is not there.
    #[error("there is no interface {name}")]
    NoLink {
        /// Its name.
        name: String,
    },
    /// An endpoint id that no interface can be named after.
    #[error("\"{0}\" is not an endpoint id of Docker: it should have at least 12 letters or digits")]
    EndpointId(String),
    /// A switch below /proc/sys cannot be set.
    #[error("cannot write {path}: {source}{}", root_needed(source))]
    Sysctl {
        /// Which.
        path: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn root_needed(e: &io::Error) -> &'static str {
    if e.kind() == io::ErrorKind::PermissionDenied { " (weft needs root)" } else { "" }
}

pub(super) fn netlink(what: String, error: rtnetlink::Error) -> BridgeError {
    let source = match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    };
    BridgeError::Refused { what, source }
}

pub(super) fn is(error: &rtnetlink::Error, errno: Errno) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(m) if m.raw_code() == -errno.raw_os_error())
}
